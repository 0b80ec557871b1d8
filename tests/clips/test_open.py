"""Sources by name, as on a command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vaportok_rl.clips import UCF101, GameplayClips, KineticsCSV, MixedClips, ProceduralClips, VideoClips, open_clips


@pytest.fixture
def footage(tmp_path: Path, write_numbered: Callable[..., Path]) -> Path:
    """A little of everything: two videos, a CSV file and the lists of UCF101."""
    for name in ("Run/v_Run_g01_c01.avi", "Run/v_Run_g02_c01.avi"):
        write_numbered(tmp_path / name, 20, "mpeg4")
    (tmp_path / "list.csv").write_text("Run/v_Run_g01_c01.avi,Run,train\nRun/v_Run_g02_c01.avi,Run,val\n")
    (tmp_path / "more.csv").write_text("Run/v_Run_g02_c01.avi,Run,val\n")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Run\n")
    for fold, (train, test) in {1: (1, 2), 3: (2, 1)}.items():
        (lists / f"trainlist0{fold}.txt").write_text(f"Run/v_Run_g0{train}_c01.avi 1\n")
        (lists / f"testlist0{fold}.txt").write_text(f"Run/v_Run_g0{test}_c01.avi\n")
    return tmp_path


def test_each_name_opens_its_kind(footage: Path) -> None:
    kinds = {
        "procedural": ProceduralClips,
        f"ucf101:{footage}": UCF101,
        f"ucf101:{footage}:3": UCF101,
        f"kinetics:{footage / 'list.csv'}": KineticsCSV,
        f"kinetics:{footage / 'list.csv'},{footage / 'more.csv'}": KineticsCSV,
        str(footage): VideoClips,
        str(footage / "Run" / "*.avi"): VideoClips,
    }
    for name, kind in kinds.items():
        for split in ("train", "test"):
            source = open_clips(name, split=split, frames=4, size=8)
            assert type(source) is kind
            assert (source.frames, source.size, source.split) == (4, 8, split)
            assert source[0].shape == (3, 4, 8, 8)


def test_knobs_of_procedural_clips() -> None:
    hard = open_clips("procedural:spatial=0.6-1,temporal=0.25", split="test", seed=3)
    assert isinstance(hard, ProceduralClips)
    assert (hard.spatial, hard.temporal, hard.seed) == ((0.6, 1.0), (0.25, 0.25), 3)
    same = ProceduralClips(3, "test", spatial=(0.6, 1.0), temporal=(0.25, 0.25))
    assert hard[5].equal(same[5])
    assert "spatial 0.6-1, temporal 0.25-0.25" in hard.describe()
    assert hard.describe() != open_clips("procedural", split="test", seed=3).describe()


@pytest.mark.parametrize("knobs", ["", "spatial", "spatial=", "speed=1", "spatial=0-1,spatial=1", "temporal=a-b"])
def test_mistaken_knobs_are_named(knobs: str) -> None:
    with pytest.raises(ValueError, match="Expected procedural:spatial=LOW-HIGH"):
        open_clips(f"procedural:{knobs}")


def test_folds_and_starts(footage: Path) -> None:
    first, third = (open_clips(f"ucf101:{footage}{fold}", frames=4, size=8) for fold in ("", ":3"))
    assert isinstance(first, UCF101)
    assert isinstance(third, UCF101)
    assert [first.source_of(0)[0].stem, third.source_of(0)[0].stem] == ["v_Run_g01_c01", "v_Run_g02_c01"]
    assert [len(open_clips(str(footage), frames=4, size=8, starts=starts)) for starts in (None, "grid", "random")] == [
        5, 5, 1,
    ]  # fmt: skip
    assert len(open_clips(f"ucf101:{footage}", frames=4, size=8, starts="grid")) == 5


def test_folds_of_footage(tmp_path: Path, write_numbered: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        write_numbered(tmp_path / f"{name}.mp4", 9)
    folds = [open_clips(f"fold:{number}/2:{tmp_path}", split="test", frames=4, size=8) for number in (1, 2)]
    assert all(isinstance(fold, VideoClips) for fold in folds)
    assert sorted(fold.source_of(0)[0].name for fold in folds) == ["a.mp4", "b.mp4"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fold:1:videos", "fold:1/3", "fold:a/3:videos", "fold:1/3:", "fold:-1/3:videos"])
def test_mistaken_folds_are_named(name: str) -> None:
    with pytest.raises(ValueError, match="Expected fold:NUMBER/FOLDS:PATH"):
        open_clips(name)


def test_games_and_mixtures() -> None:
    pytest.importorskip("pygame")
    games = open_clips("gym:CartPole-v1,Acrobot-v1", frames=2, size=8, seed=3)
    assert isinstance(games, GameplayClips)
    assert (games.label_names, games.seed) == (("CartPole-v1", "Acrobot-v1"), 3)
    mixed = open_clips(["procedural", "gym:CartPole-v1", "procedural"], frames=2, size=8)
    assert isinstance(mixed, MixedClips)
    assert mixed.turns == (0, 1, 0)
    assert len(mixed.sources) == 2


def test_bad_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected at least one source of clips"):
        open_clips([])
    with pytest.raises(ValueError, match="Expected split"):
        open_clips("procedural", split="val")
    for name in (str(tmp_path / "nowhere"), f"ucf101:{tmp_path / 'nowhere'}", f"kinetics:{tmp_path / 'nowhere.csv'}"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_clips(name)
