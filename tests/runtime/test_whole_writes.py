"""Atomic writes: the folder's content before, during and after."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vaportok_rl.runtime.whole_writes import UnwritableError, order_metadata, scratch_path, whole_write


@pytest.fixture(params=[None, b"the old content"], ids=["new", "replaced"])
def old(request: pytest.FixtureRequest) -> bytes | None:
    content: bytes | None = request.param
    return content


@pytest.fixture
def file(tmp_path: Path, old: bytes | None) -> Path:
    path = tmp_path / "state.tar.gz"
    if old is not None:
        path.write_bytes(old)
    return path


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_file_appears_at_the_end(file: Path, old: bytes | None) -> None:
    with whole_write(file) as scratch:
        scratch.write_bytes(b"half of it, ")
        assert (file.read_bytes() if file.exists() else None) == old
        with scratch.open("ab") as more:
            more.write(b"the other half")
        assert (file.read_bytes() if file.exists() else None) == old
    assert held(file.parent) == {file.name: b"half of it, the other half"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("begun", [False, True])
def test_an_error_changes_nothing(file: Path, old: bytes | None, error: type[BaseException], begun: bool) -> None:
    before = held(file.parent)

    def write() -> None:
        with whole_write(file) as scratch:
            if begun:
                scratch.write_bytes(b"half of it")
            raise error

    with pytest.raises(error):
        write()
    assert held(file.parent) == before


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    def write() -> None:
        with whole_write(tmp_path / "taken") as scratch:
            scratch.write_bytes(b"all of it")

    with pytest.raises(OSError):  # noqa: PT011 (its kind is the system's choice)
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").is_dir()


def test_nothing_written_is_an_error(file: Path) -> None:
    before = held(file.parent)

    def write() -> None:
        with whole_write(file):
            pass

    with pytest.raises(FileNotFoundError):
        write()
    assert held(file.parent) == before


def test_the_content_is_on_the_disk_before_it_has_the_name(
    file: Path, old: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        # The very file, with all of its content, while the name still stands for the old one.
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        assert (file.read_bytes() if file.exists() else None) == old

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_write(file) as scratch:
        scratch.write_bytes(b"all of it")
    assert synced == [(file.stat().st_ino, len(b"all of it"))]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_what_a_kill_leaves_is_gone_after_the_next_write(file: Path, old: bytes | None) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from vaportok_rl.runtime.whole_writes import whole_write\n"
        "with whole_write(Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_bytes(b'half of it')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert held(file.parent) == ({} if old is None else {file.name: old}) | {scratch_path(file).name: b"half of it"}
    with whole_write(file) as scratch:
        scratch.write_bytes(b"all of it")
    assert held(file.parent) == {file.name: b"all of it"}


def test_writers_see_the_suffix_and_listings_do_not_see_the_file(tmp_path: Path) -> None:
    scratch = scratch_path(tmp_path / "decisions.mp4")
    assert scratch.parent == tmp_path
    assert scratch.suffix == ".mp4"
    assert scratch.name.startswith(".")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_is_named(file: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(error, RuntimeError):  # what torch and safetensors raise
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(UnwritableError, match=rf"Expected to write {file}, got: .*make room"), whole_write(file):
        raise error


def test_a_library_that_says_that_the_disk_is_full(tmp_path: Path) -> None:
    # As safetensors does, which takes its half-written file away: the disk has room again by then.
    with pytest.raises(UnwritableError, match=r"state.*make room"), whole_write(tmp_path / "state"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


def test_equal_tensors_and_metadata_make_equal_bytes(tmp_path: Path) -> None:
    file, found = tmp_path / "x.safetensors", set()
    stated = {"sha256": 'a "quoted" name\n/ü', "agent": "{}"}
    for _ in range(20):
        save_file({"b": torch.ones(2), "a": torch.zeros(3)}, file, stated)
        order_metadata(file)
        found.add(file.read_bytes())
    assert len(found) == 1
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == stated
        assert opened.get_tensor("b").tolist() == [1, 1]
