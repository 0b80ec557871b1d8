"""Gameplay: an environment that draws its seed and step shows the origin of every frame."""

import itertools
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from vaportok_rl.clips import GameplayClips

SIZE = 8


class CountingGame(gymnasium.Env[int, int]):
    """Red and green say which game (a hash of its seed), blue counts its steps; a game lasts as long as it is told."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}
    observation_space = gymnasium.spaces.Discrete(1)
    action_space = gymnasium.spaces.Discrete(3)
    seeds: ClassVar[list[int]] = []

    def __init__(self, render_mode: str | None = None, shortest: int = 40, longest: int = 60) -> None:
        self.render_mode = render_mode
        self.shortest, self.longest = shortest, longest

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self.seeds.append(seed)
        self.game = self.np_random.integers(0, 256, 2)
        self.steps, self.length = 0, int(self.np_random.integers(self.shortest, self.longest + 1))
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        assert self.steps < self.length, "stepped on after the end"
        self.steps += 1
        return 0, 0.0, self.steps == self.length, False, {}

    def render(self) -> Any:
        return np.broadcast_to(np.array([*self.game, self.steps], dtype=np.uint8), (16, 24, 3))


class FloatGame(CountingGame):
    def render(self) -> Any:
        return np.zeros((16, 24, 3))


class BrokenGame(CountingGame):
    def render(self) -> Any:
        raise RuntimeError("no graphics card")


class BlindGame(CountingGame):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        super().__init__()


class FallsOver(CountingGame):
    def __init__(self, render_mode: str | None = None) -> None:
        raise OSError("no such ROM")


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    games = {"Counting-v0": CountingGame, "Float-v0": FloatGame, "Broken-v0": BrokenGame, "Blind-v0": BlindGame}
    games |= {"FallsOver-v0": FallsOver}
    for name, game in games.items():
        gymnasium.register(f"test/{name}", cast(Any, game))
    gymnasium.register("test/Short-v0", cast(Any, CountingGame), kwargs={"shortest": 3, "longest": 3})
    gymnasium.register("test/Exact-v0", cast(Any, CountingGame), kwargs={"shortest": 5, "longest": 5})
    names = [name for name in gymnasium.registry if name.startswith("test/")]
    yield
    for name in names:
        del gymnasium.registry[name]


def frames_of(clip: Tensor) -> list[tuple[tuple[int, int], int]]:
    """For each frame of a clip the game and the step."""
    assert (clip == clip[:, :, :1, :1]).all()
    return [((red, green), step) for red, green, step in clip[:, :, 0, 0].T.tolist()]


def test_a_clip_is_consecutive_frames_of_one_game() -> None:
    source = GameplayClips("test/Counting-v0", frames=6, size=SIZE, length=64)
    played = [frames_of(clip) for clip in source.batch(range(64)).clips]
    for clip in played:
        first = clip[0][1]
        assert clip == [(clip[0][0], first + step) for step in range(6)]
    assert len({clip[0] for clip in played}) == 64  # no clip twice
    # Within a game, clips follow each other without a gap or an overlap.
    for before, after in itertools.pairwise(played):
        assert after[0] == (before[0][0], before[-1][1] + 1) or after[0][1] == 0


def test_games_shorter_than_a_clip_repeat_their_last_frame() -> None:
    source = GameplayClips("test/Short-v0", frames=6, size=SIZE, length=16)
    clips = [frames_of(clip) for clip in source.batch(range(16)).clips]
    assert [[step for _, step in clip] for clip in clips] == [[0, 1, 2, 3, 3, 3]] * 16
    assert all(len({game for game, _ in clip}) == 1 for clip in clips)


def test_games_exactly_as_long_as_a_clip_lose_nothing() -> None:
    source = GameplayClips("test/Exact-v0", frames=6, size=SIZE, length=16)  # the first frame, and five steps
    clips = [frames_of(clip) for clip in source.batch(range(16)).clips]
    assert [[step for _, step in clip] for clip in clips] == [[0, 1, 2, 3, 4, 5]] * 16


def test_the_splits_play_different_games() -> None:
    seeds = {}
    for split in ("train", "test"):
        CountingGame.seeds.clear()
        GameplayClips("test/Short-v0", frames=6, size=SIZE, length=64, split=split).batch(range(64))
        seeds[split] = set(CountingGame.seeds)
        assert len(seeds[split]) > 150
    assert all(seed % 2 == 0 for seed in seeds["train"])
    assert all(seed % 2 == 1 for seed in seeds["test"])


@pytest.mark.parametrize("megabytes", [0, 0.01, 256])
def test_index_decides_whatever_was_asked_for_before(megabytes: float) -> None:
    names = ["test/Counting-v0", "test/Short-v0"]
    whole = GameplayClips(names, frames=6, size=SIZE, length=48).batch(range(48))
    assert whole.labels.tolist() == ([0] * 8 + [1] * 8) * 3
    assert whole.ids.tolist() == list(range(48))
    source = GameplayClips(names, frames=6, size=SIZE, length=48, cache_megabytes=megabytes)
    for index in (40, 3, 47, 3, 0, 17):
        assert torch.equal(source[index], whole.clips[index])
    assert torch.equal(pickle.loads(pickle.dumps(source))[40], whole.clips[40])
    assert not torch.equal(GameplayClips(names, frames=6, size=SIZE, seed=1)[0], whole.clips[0])


def classic() -> GameplayClips:
    return GameplayClips(["CartPole-v1", "MountainCar-v0", "Pendulum-v1"], frames=4, size=16, length=24)


def test_a_fresh_process_plays_the_same_clips() -> None:
    pytest.importorskip("pygame")
    source = classic()
    indices = [20, 9, 1]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(source.batch, (indices,))
    here = source.batch(indices)
    assert torch.equal(elsewhere.clips, here.clips)
    assert here.labels.tolist() == [2, 1, 0]
    assert all(clip.float().std() > 1 for clip in here.clips)


def test_atari_through_its_extra() -> None:
    pytest.importorskip("ale_py")
    source = GameplayClips("ALE/Pong-v5", frames=4, size=32, length=16)
    assert source[9].float().std() > 5
    assert torch.equal(pickle.loads(pickle.dumps(source))[9], source[9])


def test_atari_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ValueError, match=r"Expected ale-py .*pip install '\.\[atari\]'"):
        GameplayClips("ALE/Pong-v5")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*arguments: object, **options: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", lacking)
    with pytest.raises(ValueError, match=r"'CarRacing-v3' needs .*Box2D is not.*pip install '\.\[gameplay\]'"):
        GameplayClips("CarRacing-v3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPol-v1", r"got 'CartPol-v1' .*did you mean 'CartPole-v1'\?"),
        ("CartPole-v99", r"did you mean 'CartPole-v1'\?"),
        ("Nonesuch", "import its package with the id"),
        ("nonesuch_package:Game-v0", "nonesuch_package"),
        ("test/FallsOver-v0", "OSError: no such ROM"),
    ],
)
def test_environments_that_do_not_open(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        GameplayClips(name)
    assert str(caught.value).startswith("Expected the id of a Gymnasium environment with render_mode='rgb_array', got")


@pytest.mark.filterwarnings("ignore:.*render")
def test_environments_that_cannot_render() -> None:
    with pytest.raises(ValueError, match=r"Expected .*render_mode='rgb_array', got 'test/Blind-v0'"):
        GameplayClips("test/Blind-v0")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test/Broken-v0", "got RuntimeError: no graphics card; try it by itself"),
        ("test/Float-v0", r"got FrameFormatError: float64 \(16, 24, 3\); try it by itself"),
    ],
)
def test_games_that_fail(name: str, message: str) -> None:
    source = GameplayClips(name, frames=4, size=SIZE)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"Expected {name} to play and to render RGB frames .*{message}"):
            source.batch([0])


@pytest.mark.parametrize("change", [{"frames": 0}, {"size": 0}, {"length": 0}, {"cache_megabytes": -1}])
def test_bad_arguments(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="Expected at least one environment id, frames, size and length of at least 1"):
        GameplayClips("test/Counting-v0", **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected at least one environment id"):
        GameplayClips([])
    with pytest.raises(ValueError, match="Expected split"):
        GameplayClips("test/Counting-v0", split="val")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_cached_clips_do_not_hold_the_memory_of_the_frames_they_were_made_of() -> None:
    pytest.importorskip("pygame")
    script = """
        from pathlib import Path
        from vaportok_rl.clips import GameplayClips
        def resident():
            return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmRSS"))
        source = GameplayClips("Acrobot-v1", length=80)
        source.batch(range(8))
        before = resident()
        source.batch(range(8, 80))
        clips = 72 * source[0].nbytes // 1024
        assert resident() - before < clips + 20_000, (before, resident(), clips)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
