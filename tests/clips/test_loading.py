"""Loading: order, slices and resumption, bitwise equal with and without workers; warnings, errors, and shutdown."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.clips import ClipLoader, ClipOrder, MixedClips, ProceduralClips, UnreadableVideoError, VideoClips
from vaportok_rl.runtime.ranks import Processes

# On a machine with one core, torch thinks that two workers are too many.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PROCEDURAL = ProceduralClips(frames=2, size=8, length=10)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, write_numbered: Callable[..., Path]) -> Path:
    """Five short videos of different lengths."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(5):
        write_numbered(folder / f"v{number}.avi", 12 + 3 * number, "mpeg4")
    return folder


def mixture(folder: Path) -> MixedClips:
    footage = VideoClips(folder, frames=2, size=8, starts="random", test_fraction=0.01)
    return MixedClips([PROCEDURAL, footage])


def take(loader: ClipLoader, count: int, first_step: int = 0) -> list[Tensor]:
    with closing(loader.batches(first_step)) as batches:
        return list(islice(batches, count))


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_procedural_clips_come_in_the_order_of_clip_order() -> None:
    order = ClipOrder(len(PROCEDURAL), seed=4)
    expected = [PROCEDURAL.batch(order.take(step * 4, 4)).clips for step in range(7)]
    loader = ClipLoader(PROCEDURAL, 4, seed=4)
    assert equal(take(loader, 7), expected)
    assert equal(take(loader, 2, first_step=5), expected[5:])
    assert torch.equal(loader.clips_at(8, 3), expected[2][:3])


@settings(max_examples=20)
@given(st.integers(0, 20), st.sampled_from([(1, 1), (1, 3), (2, 2), (6, 1)]), st.integers(0, 5))
def test_processes_together_load_what_one_alone_would(first_step: int, split: tuple[int, int], seed: int) -> None:
    world_size, share = split
    whole = take(ClipLoader(PROCEDURAL, world_size * share, seed=seed), 2, first_step)
    loaders = [
        ClipLoader(PROCEDURAL, world_size * share, seed=seed, processes=Processes(rank, world_size))
        for rank in range(world_size)
    ]
    slices = [take(loader, 2, first_step) for loader in loaders]
    assert equal([torch.cat(parts) for parts in zip(*slices, strict=True)], whole)
    assert loaders[0].local_batch_size == share


def test_workers_change_nothing(library: Path) -> None:
    source = mixture(library)
    before = torch.get_rng_state()
    expected = take(ClipLoader(source, 6, seed=1), 6)
    assert equal(take(ClipLoader(source, 6, seed=1, workers=2), 6), expected)
    resumed = ClipLoader(mixture(library), 6, seed=1, workers=1, processes=Processes(1, 2))
    assert equal(take(resumed, 2, first_step=4), [batch[3:] for batch in expected[4:]])
    assert torch.equal(before, torch.get_rng_state())


def test_footage_is_augmented_anew_in_every_epoch(library: Path) -> None:
    source = VideoClips(library, frames=2, size=8, starts="random", test_fraction=0.01)
    epochs = take(ClipLoader(source, len(source), seed=0), 4)
    assert len({tuple(sorted(clip.numpy().tobytes() for clip in epoch)) for epoch in epochs}) == 4
    assert not equal(epochs, take(ClipLoader(source, len(source), seed=1), 4))


def test_a_broken_file_is_named_once_and_counted_whoever_meets_it(library: Path, tmp_path: Path) -> None:
    for path in library.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = VideoClips(tmp_path, frames=2, size=8, starts="random", test_fraction=0.01)
    lost = source.source_of(2)[0]
    lost.write_bytes(b"")
    loader = ClipLoader(source, len(source), seed=0, workers=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = take(loader, 6)  # both workers, three epochs each
    told = [notice for notice in caught if "Skipped" in str(notice.message)]
    assert [str(notice.message) for notice in told] == [
        f"Skipped the unreadable video {lost}: the file is empty (0 bytes)."
    ]
    assert told[0].filename == __file__
    assert loader.skipped == {lost: "the file is empty (0 bytes)"}
    with pytest.warns(UserWarning, match="Skipped"):
        assert equal(take(ClipLoader(source, len(source), seed=0), 6), batches)


def test_errors_come_through_as_they_are(library: Path, tmp_path: Path) -> None:
    for path in library.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = VideoClips(tmp_path, frames=2, size=8, on_error="raise", cache_megabytes=0)
    lost = source.source_of(0)[0]
    lost.unlink()
    for workers in (0, 1):
        with pytest.raises(UnreadableVideoError, match="No such file") as caught:
            take(ClipLoader(source, len(source), seed=0, workers=workers), 1)
        assert caught.value.path == lost


PROGRAM = """
import itertools, multiprocessing, os, signal, sys, time, warnings
from vaportok_rl.clips import ClipLoader, ProceduralClips

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    interrupted = []
    signal.signal(signal.SIGINT, lambda *_: interrupted.append(1))
    batches = ClipLoader(ProceduralClips(frames=2, size=8), 2, seed=0, workers=2).batches()
    print("ready", flush=True)
    next(batches)  # workers start, and are interrupted while they import
    while not interrupted:
        time.sleep(0.05)
    list(itertools.islice(batches, 12))  # far more than lay ready
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    list(batches)
"""


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_ignore_ctrl_c_and_do_not_outlive_a_kill(program: "subprocess.Popen[str]") -> None:
    assert program.stdout is not None
    assert program.stderr is not None
    assert program.stdout.readline() == "ready\n"
    time.sleep(1.5)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does it: to parent and workers alike
    workers = [int(word) for word in program.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(running, workers))
    program.kill()
    program.wait()
    deadline = time.monotonic() + 60
    while any(map(running, workers)):
        assert time.monotonic() < deadline, "workers outlived the process that started them"
        time.sleep(0.1)
    # Python itself may report the kill, but nothing reports the interrupt.
    assert "KeyboardInterrupt" not in program.stderr.read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": -1}, "Expected workers of at least 0"),
        ({"batch_size": 0}, "Expected a batch that divides evenly"),
        ({"batch_size": 3, "processes": Processes(0, 2)}, "among 2 processes, got batch_size=3; pass a multiple of 2"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipLoader(PROCEDURAL, **{"batch_size": 4, "seed": 0, **change})
