"""Labelled videos from CSV files: plain rows, headers, the published Kinetics columns, splits, and bad lists."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vaportok_rl.clips import KineticsCSV
from vaportok_rl.clips.footage.splits import held_out_files


@pytest.fixture
def place(tmp_path: Path, write_numbered: Callable[..., Path]) -> Callable[..., Path]:
    """Puts a CSV file and (small, real) videos into a folder."""
    original = write_numbered(tmp_path / "original" / "a.mp4", 12)

    def put(text: str, *videos: str, name: str = "list.csv") -> Path:
        for video in videos:
            (tmp_path / video).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / video).write_bytes(original.read_bytes())
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return put


def listed(source: KineticsCSV) -> list[tuple[str, str]]:
    """File name and label of every clip."""
    labels = source.batch(range(len(source))).labels.tolist()
    return [(source.source_of(index)[0].name, source.label_names[label]) for index, label in enumerate(labels)]


def both(csv_file: Path, **options: object) -> tuple[KineticsCSV, KineticsCSV]:
    train, test = (KineticsCSV(csv_file, frames=4, size=8, split=split, **options) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.label_names == test.label_names
    return train, test


ROWS = "v/a.mp4,swim,train\nv/b.mp4,run,train\n\n v/c.mp4 , swim , val\n"
FILES = ("v/a.mp4", "v/b.mp4", "v/c.mp4")


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "\ufeffpath,label,split\n" + ROWS,
        "Label,Extra,Video,Split\nswim,1,v/a.mp4,training\nrun,,v/b.mp4,Train\nswim,x,v/c.mp4,validate\n",
        'path,class,split\r\n"v/a.mp4","swim",train\r\nv/b.mp4,run,train\r\nv/c.mp4,swim,test\r\n',
    ],
    ids=["no header", "header", "other order", "quoted"],
)
def test_rows_name_path_label_and_split(place: Callable[..., Path], text: str) -> None:
    train, test = both(place(text, *FILES))
    assert train.label_names == ("run", "swim")
    assert listed(train) == [("a.mp4", "swim"), ("b.mp4", "run")]
    assert listed(test) == [("c.mp4", "swim")]


def test_without_a_split_the_path_as_listed_decides(place: Callable[..., Path]) -> None:
    names = [f"v/{letter}.mp4" for letter in "abcdefgh"]
    flags = held_out_files(names, 0.4)
    train, test = both(place("".join(f"{name},x\n" for name in names), *names), test_fraction=0.4)
    for source, held_out in ((train, False), (test, True)):
        expected = [name[2:] for name, flag in zip(names, flags, strict=True) if flag == held_out]
        assert [name for name, _ in listed(source)] == expected
    # A missing video moves no other one.
    (test.source_of(0)[0]).unlink()
    again = KineticsCSV(place("".join(f"{name},x\n" for name in names)), frames=4, size=8, test_fraction=0.4)
    assert listed(again) == listed(train)


def test_a_lone_video_is_split_by_time(
    place: Callable[..., Path], read_numbers: Callable[..., tuple[list[int], bool]]
) -> None:
    train, test = both(place("a.mp4,x", "a.mp4"), test_fraction=0.4, starts="grid")
    assert [read_numbers(clip)[0] for clip in (train[0], train[1], test[0])] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    for seed in range(5):
        train, test = both(place("a.mp4,x"), test_fraction=0.4, seed=seed)
        assert read_numbers(train[0])[0][-1] < 8 <= read_numbers(test[0])[0][0]


def test_numeric_labels_keep_their_order(place: Callable[..., Path]) -> None:
    source = KineticsCSV(place("a.mp4,10,train\nb.mp4,2,train\n", "a.mp4", "b.mp4"), frames=4, size=8)
    assert source.label_names == ("2", "10")


@pytest.mark.parametrize(
    "file",
    ["{}", "train/{}", "riding a bike/{}", "riding_a_bike/{}", "train/riding_a_bike/{}", "train/riding a bike/{}"],
)
def test_the_published_columns_name_files_as_downloaders_do(place: Callable[..., Path], file: str) -> None:
    text = "label,youtube_id,time_start,time_end,split\nriding a bike,-a_B3,3.0,13,train\nsolo,zz,0,10,validate\n"
    csv_file = place(text, file.format("-a_B3_000003_000013.mp4"), "zz_000000_000010.mkv")
    train, test = both(csv_file)
    assert listed(train) == [("-a_B3_000003_000013.mp4", "riding a bike")]
    assert listed(test) == [("zz_000000_000010.mkv", "solo")]


def test_several_files_and_a_folder_of_their_own(place: Callable[..., Path], tmp_path: Path) -> None:
    train_csv = place("a.mp4,x,train\n", "media/a.mp4", name="train.csv")
    test_csv = place("b.mp4,y,val\na.mp4,x,train\n", "media/b.mp4", name="val.csv")
    source = KineticsCSV([train_csv, test_csv], folder=tmp_path / "media", split="test", frames=4, size=8)
    assert listed(source) == [("b.mp4", "y")]
    assert source.label_names == ("x", "y")


def test_missing_videos_are_named_and_counted(place: Callable[..., Path]) -> None:
    rows = "".join(f"gone{number}.mp4,x,train\n" for number in range(9))
    csv_file = place("a.mp4,x,train\n" + rows, "a.mp4")
    with pytest.warns(UserWarning, match=r"9 of the 10 videos .*gone0.mp4, .*gone4.mp4 and 4 more") as told:
        source = KineticsCSV(csv_file, frames=4, size=8)
    assert len(told) == 1
    assert "gone5" not in str(told[0].message)
    assert (len(source), len(source.skipped)) == (1, 9)
    with pytest.raises(FileNotFoundError, match=r"9 of the 10 .*gone0\.mp4"):
        KineticsCSV(csv_file, on_error="raise")
    with pytest.raises(FileNotFoundError, match="9 of the 9"):
        KineticsCSV(place(rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got no rows"),
        ("\n\n", "got no rows"),
        ("path,label\n", "got no rows"),
        ("a.mp4\n", r"Expected a video and a label, separated by a comma, got 'a\.mp4' \(.*line 1\)"),
        ("a.mp4 3\n", "separated by a comma"),
        ("path,label\na.mp4,x\n,x\n", r"got ',x' \(.*line 3\)"),
        ("a.mp4,x,dev\n", r"Expected a split among train, .*got 'dev' \(.*line 1\)"),
        ("path,title\na.mp4,x\n", "name the missing column 'label'"),
        ("youtube_id,label\na,x\n", "name the missing column 'time_end'"),
        ("label,youtube_id,time_start,time_end\nx,a,now,13\n", "time_start and time_end in seconds"),
        ("a.mp4,x\na.mp4,y\n", r"got a\.mp4 as 'x' \(None\) and as 'y' \(None\)"),
        ("a.mp4,x,train\na.mp4,x,test\n", r"as 'x' \(train\) and as 'x' \(test\)"),
        ("a.mp4,x,train\nb.mp4,x,\n", "for every video or for none, got one for 1 of 2"),
        ("a.mp4,x,test\n", "Expected videos of the train split in .*got none among the 1 listed"),
    ],
)
def test_lists_that_make_no_sense(place: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KineticsCSV(place(text, "a.mp4", "b.mp4"))


def test_no_csv_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a CSV file .* got .*nowhere\.csv"):
        KineticsCSV(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="at least one CSV"):
        KineticsCSV([])
    (tmp_path / "latin.csv").write_bytes("a.mp4,é".encode("latin-1"))
    with pytest.raises(ValueError, match="Expected CSV text in UTF-8"):
        KineticsCSV(tmp_path / "latin.csv")
