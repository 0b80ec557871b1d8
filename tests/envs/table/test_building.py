"""Building a table: the same bytes however often it is interrupted and however many processes share the work."""

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

from vaportok_rl.clips import ClipBatch, ProceduralClips
from vaportok_rl.envs.table import building as table_building
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.manifest import TableBuild, TableManifest, read_manifest
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.runtime.held_folders import LOCK_FILE
from vaportok_rl.runtime.ranks import Processes


@pytest.fixture
def plan(tiny_world: str) -> TableBuild:
    """That of `coarse_table`."""
    return plan_table(tokenizer=tiny_world, count=12, held_out=7, grid=4, shard_clips=8)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_build_gives_the_same_bytes(plan: TableBuild, coarse_table: Path, tmp_path: Path) -> None:
    builder = TableBuilder(plan, tmp_path / "new")
    done: list[int] = []
    builder.run(done.append)
    assert contents(tmp_path / "new") == contents(coarse_table)
    # 19 clips at 5 lengths, and the sample of 7 at all 16.
    assert sum(done) == builder.decodes == 19 * 5 + 7 * 16


def test_nothing_is_measured_twice(plan: TableBuild, coarse_table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, stamps = contents(coarse_table), [path.stat().st_mtime_ns for path in coarse_table.glob("*.safetensors")]
    builder = TableBuilder(plan, coarse_table)
    monkeypatch.setattr(builder.engine, "encode", None)
    done: list[int] = []
    builder.run(done.append)
    assert sum(done) == builder.decodes
    assert contents(coarse_table) == before
    assert [path.stat().st_mtime_ns for path in coarse_table.glob("*.safetensors")] == stamps


def test_a_damaged_shard_is_mended(plan: TableBuild, coarse_table: Path) -> None:
    before = contents(coarse_table)
    first, second, third = sorted(coarse_table.glob("*.safetensors"))
    first.write_bytes(before[first.name][:-1] + bytes([before[first.name][-1] ^ 1]))
    second.write_bytes(before[second.name][:100])
    third.unlink()
    TableBuilder(plan, coarse_table).run()
    assert contents(coarse_table) == before


class Killed(BaseException):
    pass


def test_interrupted_at_every_write_it_ends_with_the_same_bytes(
    plan: TableBuild, coarse_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies after each number of file operations in turn, leaving half-written files."""
    replace, left = Path.replace, 0

    def dying(path: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    for writes in range(5):  # the manifest twice, three shards
        folder = tmp_path / str(writes)
        left = writes
        with pytest.raises(Killed):
            TableBuilder(plan, folder).run()
        if writes:
            with pytest.raises(ValueError, match="one whose build was interrupted"):
                OutcomeTable.load(folder)
        left = 99
        TableBuilder(plan, folder).run()
        assert contents(folder) == contents(coarse_table)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for two processes that agree with each other."""
    answers: list[bool] = []
    both = threading.Barrier(2)

    def all_agree(self: Processes, yes: bool) -> bool:
        answers.append(yes)
        both.wait()
        return all(answers)

    monkeypatch.setattr(Processes, "all_agree", all_agree)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.sched_yield())


@pytest.mark.usefixtures("two_threads")
def test_processes_share_the_shards(plan: TableBuild, coarse_table: Path, tmp_path: Path) -> None:
    builders = [TableBuilder(plan, tmp_path / "shared", processes=Processes(rank, 2)) for rank in range(2)]
    assert [builder.decodes for builder in builders] == [(8 + 7) * 5 + 7 * 16, 4 * 5]
    other = threading.Thread(target=builders[1].run)
    other.start()
    builders[0].run()
    other.join()
    assert contents(tmp_path / "shared") == contents(coarse_table)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clip_seed": 1}, "clip_seed 0 instead of 1"),
        ({"grid": "all"}, "grid"),
        ({"count": 13}, "splits"),
        ({"bits": True}, "bits False instead of True"),
        ({"clips": ("procedural", "gym:CartPole-v1")}, "clips 'procedural' instead of"),
    ],
)
def test_the_folder_of_another_build_is_left_alone(
    tiny_world: str, coarse_table: Path, changes: dict[str, object], named: str
) -> None:
    before = contents(coarse_table)
    settings = {"count": 12, "held_out": 7, "grid": 4, "shard_clips": 8} | changes
    other = plan_table(tokenizer=tiny_world, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"hold a table of the same build, got one with .*{named}"):
        TableBuilder(other, coarse_table).run()
    assert contents(coarse_table) == before


def test_a_folder_that_another_process_builds_into_is_refused(
    plan: TableBuild, coarse_table: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    with FileLock(folder / LOCK_FILE), pytest.raises(FileExistsError, match=r"no other run uses.*new"):
        TableBuilder(plan, folder).run()
    TableBuilder(plan, folder).run()
    assert contents(folder) == contents(coarse_table)


@pytest.mark.usefixtures("two_threads")
def test_no_process_builds_into_a_folder_that_another_build_of_the_same_table_has(
    plan: TableBuild, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    TableManifest(plan).write(folder)  # by two others, which are at work
    with FileLock(folder / LOCK_FILE), ThreadPoolExecutor(2) as pool:
        before = contents(folder)
        builders = [TableBuilder(plan, folder, processes=Processes(rank, 2)) for rank in range(2)]
        for done in [pool.submit(builder.run) for builder in builders]:
            with pytest.raises(FileExistsError):
                done.result(60)
        assert contents(folder) == before


def test_a_folder_with_other_files_is_left_alone(plan: TableBuild, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="Expected a new or empty folder"):
        TableBuilder(plan, tmp_path).run()
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


class ChangedClips(ProceduralClips):
    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        found = super().batch(indices)
        return ClipBatch(255 - found.clips, found.labels, found.ids)


def test_clips_that_changed_under_the_same_name(
    plan: TableBuild, coarse_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = TableBuilder(plan, coarse_table)
    source = builder._sources["train"]
    builder._sources["train"] = ChangedClips(0, "train", frames=source.frames, size=source.size)
    with pytest.raises(
        ValueError, match=r"Expected the clips that .*train-00000-of-00002\.safetensors was measured on"
    ):
        builder.run()


def test_how_many_clips_are_stored(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_table(tokenizer=tiny_world).splits == {"train": 1024, "test": 256}
    assert plan_table(tokenizer=tiny_world, count=0, held_out=3).splits == {"test": 3}
    monkeypatch.setattr(table_building, "ENDLESS", 10**7)
    assert plan_table(tokenizer=tiny_world, held_out=5).splits == {"train": 10**6, "test": 5}
    with pytest.raises(ValueError, match="Expected at least one split"):
        plan_table(tokenizer=tiny_world, count=0, held_out=0)
    with pytest.raises(ValueError, match="Expected 0 or more test clips, got -1"):
        plan_table(tokenizer=tiny_world, held_out=-1)


@pytest.mark.parametrize("setting", [{"latents": "half"}, {"shard_clips": 0}, {"grid": "0"}])
def test_impossible_plans(tiny_world: str, setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^Expected "):
        plan_table(tokenizer=tiny_world, **setting)  # type: ignore[arg-type]


class TwoVideos(ProceduralClips):
    """Eight clips: the first five of one video, the others of another."""

    def __init__(self, split: str, frames: int, size: int) -> None:
        super().__init__(0, split, frames=frames, size=size, length=8)

    def consecutive_starts(self, length: int) -> Tensor:
        return torch.tensor([start for first, end in ((0, 5), (5, 8)) for start in range(first, end - length + 1)])


@pytest.mark.parametrize("count", [8, 7])
def test_which_clips_follow_each_other(plan: TableBuild, tmp_path: Path, count: int) -> None:
    build = TableBuild(**{**plan.__dict__, "splits": {"train": count}, "shard_clips": 3})
    builder = TableBuilder(build, tmp_path / "videos")
    original = builder._sources["train"] = TwoVideos("train", plan.config.frames, plan.config.size)
    source = TableClips(builder.run(), "train")
    for length in range(1, 7):
        wanted = [start for start in original.consecutive_starts(length).tolist() if start + length <= count]
        assert source.consecutive_starts(length).tolist() == wanted
    assert TableClips(TableBuilder(plan, tmp_path / "others").run(), "train").consecutive_starts(2) is None


def test_shards_are_plain_safetensors(coarse_table: Path) -> None:
    tensors = load_file(coarse_table / "train-00001-of-00002.safetensors")
    assert {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()} == {
        "mse": (torch.float32, (4, 5)),
        "hits": (torch.int16, (4, 16)),
        "codes": (torch.int16, (4, 16)),
        "complexity": (torch.float32, (4, 2)),
        "labels": (torch.int64, (4,)),
        "ids": (torch.int64, (4,)),
        "clip_sha256": (torch.uint8, (4, 32)),
        "followed": (torch.bool, (4,)),
        "latents": (torch.float16, (4, 16, 32)),
    }
    record = read_manifest(coarse_table).splits["train"]
    assert (record.clips, record.available) == (12, 1_000_000)
    assert tensors["ids"].tolist() == [8, 9, 10, 11]
