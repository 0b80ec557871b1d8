"""Decord and pygame in one process. Each case is a process of its own, as a library is loaded only once."""

import subprocess
import sys
from pathlib import Path

import pytest

from vaportok_rl.experiments.video_formats import FORMATS, write_numbered

pytest.importorskip("pygame")

PLAY = "clip = GameplayClips('Pendulum-v1', frames=2, size=16)[0]; assert clip.float().std() > 1"  # draws a PNG
DECODE = (
    "from vaportok_rl.clips.footage.decoding import open_video, read_clips; path = Path(sys.argv[1]); "
    "index = open_video(path, 2); assert index.decoder == 'decord'; read_clips(path, index, [3], 2, 16)"
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "h264.mp4"
    return write_numbered(path, next(kind for kind in FORMATS if kind.file == path.name), 6)


@pytest.mark.parametrize(
    "steps",
    [
        ["from vaportok_rl.clips import GameplayClips", DECODE, PLAY, DECODE],
        ["import pygame.image", "from vaportok_rl.clips import GameplayClips", PLAY, DECODE],
        ["from vaportok_rl.clips import GameplayClips", "import decord", PLAY, DECODE],
    ],
    ids=["decoding first", "pygame first", "decord imported afterwards"],
)
def test_pictures_load_beside_decord(steps: list[str], video: Path) -> None:
    program = "\n".join(["import sys", "from pathlib import Path", *steps])
    done = subprocess.run([sys.executable, "-c", program, str(video)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_the_mode_of_other_libraries_is_left_alone() -> None:
    program = "import ctypes; mode = ctypes.RTLD_GLOBAL; import vaportok_rl.clips; assert ctypes.RTLD_GLOBAL == mode"
    subprocess.run([sys.executable, "-c", program], check=True)
