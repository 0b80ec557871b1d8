"""UCF101: the official lists decide splits and labels; contradictions are explained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaportok_rl.clips import UCF101

LISTS = {
    "classInd.txt": "1 Archery\r\n2 Billiards\r\n3 Juggling\r\n",
    "trainlist01.txt": "Archery/v_Archery_g02_c01.avi 1\r\nJuggling/v_Juggling_g02_c01.avi 3\r\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\r\nBilliards/v_Billiards_g01_c01.avi\r\n",
    "trainlist02.txt": "Archery/v_Archery_g01_c01.avi 1\nBilliards/v_Billiards_g01_c01.avi 2\n",
    "testlist02.txt": "Archery/v_Archery_g02_c01.avi\nJuggling/v_Juggling_g02_c01.avi\n",
}
VIDEOS = ["Archery/v_Archery_g01_c01", "Archery/v_Archery_g02_c01"]
VIDEOS += ["Billiards/v_Billiards_g01_c01", "Juggling/v_Juggling_g02_c01"]


@pytest.fixture
def ucf(tmp_path: Path, write_numbered: Callable[..., Path]) -> Path:
    """The official folder, with four videos of 30 frames."""
    (tmp_path / "ucfTrainTestlist").mkdir()
    for name, text in LISTS.items():
        (tmp_path / "ucfTrainTestlist" / name).write_bytes(text.encode())
    for name in VIDEOS:
        write_numbered(tmp_path / "UCF-101" / f"{name}.avi", 30, "mpeg4", ("-bf", "2"))
    return tmp_path


def names_of(source: UCF101) -> list[str]:
    return [source.source_of(index)[0].stem for index in range(len(source))]


def test_the_lists_decide_splits_and_labels(ucf: Path) -> None:
    train, test = (UCF101(ucf, frames=8, size=16, split=split) for split in ("train", "test"))
    assert names_of(train) == ["v_Archery_g02_c01", "v_Juggling_g02_c01"]
    assert names_of(test) == ["v_Archery_g01_c01", "v_Billiards_g01_c01"]
    assert train.label_names == test.label_names == ("Archery", "Billiards", "Juggling")
    assert train.batch([0, 1]).labels.tolist() == [0, 2]
    assert test.batch([1, 0]).labels.tolist() == [1, 0]
    assert "UCF101: 2 train clips of 8x16x16 from 2 files" in train.describe()
    assert names_of(UCF101(ucf, fold=2, split="test")) == names_of(train)


def test_the_grid_gives_every_clip(ucf: Path, read_numbers: Callable[..., tuple[list[int], bool]]) -> None:
    source = UCF101(ucf, frames=8, size=16, starts="grid")
    assert len(source) == 6
    assert [read_numbers(source[index])[0][0] for index in range(6)] == [0, 8, 16, 0, 8, 16]


def test_the_folder_may_be_that_of_the_videos_or_hold_them_directly(ucf: Path, tmp_path: Path) -> None:
    expected = UCF101(ucf, frames=8, size=16).batch([0, 1])
    beside = UCF101(ucf / "UCF-101", frames=8, size=16).batch([0, 1])
    assert torch.equal(beside.clips, expected.clips)
    for folder in (ucf / "UCF-101").iterdir():
        folder.rename(ucf / folder.name)
    (ucf / "UCF-101").rmdir()
    assert torch.equal(UCF101(ucf, frames=8, size=16).batch([0, 1]).clips, expected.clips)


def test_missing_videos_are_named_and_counted(ucf: Path) -> None:
    gone = ucf / "UCF-101" / "Juggling" / "v_Juggling_g02_c01.avi"
    gone.unlink()
    with pytest.warns(
        UserWarning, match=r"1 of the 2 videos listed by .* are missing: .*v_Juggling_g02_c01\.avi"
    ) as told:
        source = UCF101(ucf, frames=8, size=16)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert list(source.skipped) == [gone.resolve()]
    assert source.label_names == ("Archery", "Billiards", "Juggling")
    with pytest.raises(
        FileNotFoundError, match=r"Expected the listed videos to exist, but 1 of the 2 .*put them there"
    ):
        UCF101(ucf, on_error="raise")
    assert len(UCF101(ucf, split="test", on_error="raise")) == 2  # the other split lacks nothing
    (ucf / "UCF-101" / "Archery" / "v_Archery_g02_c01.avi").unlink()
    with pytest.raises(FileNotFoundError, match="2 of the 2"):
        UCF101(ucf)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainlist01.txt", "", "got an empty file"),
        ("classInd.txt", "1 Archery\n3 Juggling\n", r"numbered 1…2, got \[1, 3\]"),
        ("classInd.txt", "Archery 1\n", r"Expected 'number ClassName'.*got 'Archery 1' \(.*line 1\)"),
        ("trainlist01.txt", "Archery/v_Archery_g02_c01.avi 2\n", "Expected class number 1 for Archery/.*got '2'"),
        ("trainlist01.txt", "\nSwimming/v.avi 1\n", r"got 'Swimming/v\.avi' \(.*line 2\)"),
        (
            "trainlist01.txt",
            "Archery/v_Archery_g01_c01.avi 1\n",
            "one split, got Archery/.*in trainlist01.txt and testlist",
        ),
    ],
)
def test_lists_that_make_no_sense(ucf: Path, name: str, text: str, message: str) -> None:
    (ucf / "ucfTrainTestlist" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        UCF101(ucf)


def test_other_bad_input(ucf: Path) -> None:
    with pytest.raises(ValueError, match="Expected fold 1, 2 or 3"):
        UCF101(ucf, fold=0)
    with pytest.raises(FileNotFoundError, match=r"Expected the list trainlist03\.txt"):
        UCF101(ucf, fold=3)
    with pytest.raises(FileNotFoundError, match="Expected the folder of UCF101"):
        UCF101(ucf / "nowhere")
    with pytest.raises(FileNotFoundError, match="Expected ucfTrainTestlist in"):
        UCF101(ucf / "UCF-101" / "Archery")
