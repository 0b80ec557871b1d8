"""Clips out of Gymnasium environments that render frames, played by a random policy."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from vaportok_rl.clips.cache import ClipCache
from vaportok_rl.clips.decoding import resize_and_crop
from vaportok_rl.clips.source import ClipBatch, ClipSource, check_split

# Clips are played in stretches from one seeded start, so that a clip in the middle of a game costs no replay of all
# that came before it, and index i is the same clip whoever asks.
_STRETCH_CLIPS = 8
# A random policy ends some games within a few frames; after this many short ones the last frame is repeated.
_SHORT_GAMES = 3


class GameplayClips(ClipSource):
    """Clips of consecutive rendered frames from any environments with ``render_mode="rgb_array"``.

    The player is random and holds each action for 1 to 4 steps, which moves more than a fresh action a step. A clip
    never spans two games: frames that do not fill a clip are dropped, and a game that is shorter than a clip (three
    times in a row) gives one whose last frame is repeated. Frames are resized and cropped as video files are. The
    label is the environment.

    Clip ``i`` is a pure function of ``(seed, split, i)``, the environments and their versions. Clips are played when
    they are first asked for and then cached.

    Args:
        environments: ids (``"CarRacing-v3"``, ``"module:id"``, ``"ALE/Pong-v5"`` with the ``atari`` extra), clips
            alternating among them in stretches of 8.
        frames: T, frames a clip.
        size: H = W, pixels.
        split: ``"train"`` or ``"test"``; their games start from different seeds.
        seed: decides every game.
        length: how many clips the source holds.
        cache_megabytes: memory (MiB) for clips already played, least recently used out first.

    Raises:
        ValueError: an id is unknown, cannot render RGB frames, or lacks a package it needs; or no id is given.
    """

    def __init__(
        self,
        environments: str | Sequence[str],
        *,
        frames: int = 16,
        size: int = 32,
        split: str = "train",
        seed: int = 0,
        length: int = 4096,
        cache_megabytes: float = 256,
    ) -> None:
        names = (environments,) if isinstance(environments, str) else tuple(environments)
        if not names or frames < 1 or size < 1 or length < 1:
            raise ValueError(
                f"Expected at least one environment id, frames ≥ 1, size ≥ 1 and length ≥ 1, got {names}, "
                f"frames={frames}, size={size}, length={length}; pass for instance 'CarRacing-v3'."
            )
        self.frames = frames
        self.size = size
        self.split = check_split(split)
        self.seed = int(seed)
        self.label_names = names
        self._length = length
        self._cache = ClipCache(int(cache_megabytes * 2**20))
        self._open: dict[str, gymnasium.Env[Any, Any]] = {}
        for name in names:
            self._environment(name)

    def __len__(self) -> int:
        return self._length

    def describe(self) -> str:
        """One line: environments, split and seed."""
        return (
            f"gameplay of {', '.join(self.label_names)}, {self._length} clips, split {self.split!r}, seed {self.seed}, "
            f"{self.frames}x{self.size}x{self.size}"
        )

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Plays or recalls the clips at ``indices``; see `ClipSource.batch`."""
        listed = self.check_indices(indices)
        clips = torch.empty(len(listed), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        for row, index in enumerate(listed):
            clips[row] = self._clip(index)
        labels = [index // _STRETCH_CLIPS % len(self.label_names) for index in listed]
        return ClipBatch(clips, torch.tensor(labels), torch.tensor(listed))

    def _clip(self, index: int) -> Tensor:
        held = self._cache.get(index)
        if held is not None:
            return held
        stretch, place = divmod(index, _STRETCH_CLIPS)
        wanted = torch.empty(0)
        for offset, clip in enumerate(self._play(stretch)):
            self._cache.put(stretch * _STRETCH_CLIPS + offset, clip)
            if offset == place:
                wanted = clip
        return wanted

    def _play(self, stretch: int) -> Iterator[Tensor]:
        """The clips of a stretch in order, each ``uint8 [3, T, size, size]``."""
        environment = self._environment(self.label_names[stretch % len(self.label_names)])
        digest = hashlib.blake2b(f"{self.seed}/{self.split}/{stretch}".encode(), digest_size=8).digest()
        draws = np.random.default_rng(int.from_bytes(digest, "little"))
        environment.action_space.seed(int(draws.integers(2**31)))
        environment.reset(seed=int(draws.integers(2**31)))
        for _ in range(_STRETCH_CLIPS):
            shown: list[Tensor] = []
            for attempts_left in reversed(range(_SHORT_GAMES)):
                shown, ended = self._watch(environment, draws)
                if ended:
                    environment.reset(seed=int(draws.integers(2**31)))
                if len(shown) == self.frames or not attempts_left:
                    break
            shown += [shown[-1]] * (self.frames - len(shown))
            yield torch.stack(shown, dim=1)

    def _watch(self, environment: gymnasium.Env[Any, Any], draws: np.random.Generator) -> tuple[list[Tensor], bool]:
        """Up to T frames of the game from where it stands, and whether it has ended."""
        shown = [self._frame(environment)]
        hold, action = 0, environment.action_space.sample()
        while len(shown) < self.frames:
            if hold == 0:
                hold, action = int(draws.integers(1, 5)), environment.action_space.sample()
            hold -= 1
            _, _, terminated, truncated, _ = environment.step(action)
            shown.append(self._frame(environment))
            if terminated or truncated:
                return shown, True
        _, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
        return shown, terminated or truncated

    def _frame(self, environment: gymnasium.Env[Any, Any]) -> Tensor:
        frame = environment.render()
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            name = environment.spec.id if environment.spec else environment
            raise ValueError(
                f"Expected {name} to render RGB frames (uint8 [H, W, 3]), got {got}; choose another environment."
            )
        return resize_and_crop(torch.from_numpy(np.ascontiguousarray(frame))[None], self.size)[0]

    def _environment(self, name: str) -> gymnasium.Env[Any, Any]:
        if name not in self._open:
            self._open[name] = _make(name)
        return self._open[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def _make(name: str) -> gymnasium.Env[Any, Any]:
    """Opens an environment that renders frames.

    Raises:
        ValueError: see `GameplayClips`.
    """
    if name.startswith("ALE/"):
        try:
            import ale_py
        except ImportError as error:
            raise ValueError(
                f"Expected ale-py for {name!r}, which is not installed; run pip install 'vaportok-rl[atari]'."
            ) from error
        gymnasium.register_envs(ale_py)
    try:
        # The checker and the order enforcement are of no use to a player who ignores observations.
        return gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(
            f"Expected the packages that {name!r} needs to be installed: {error}; run "
            "pip install 'vaportok-rl[gameplay]' or install them."
        ) from error
    except (gymnasium.error.Error, ImportError, TypeError, AssertionError) as error:
        close = difflib.get_close_matches(name, list(gymnasium.registry), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "import its package first, as in 'package:Id-v0'."
        raise ValueError(
            f"Expected the id of a Gymnasium environment with render_mode='rgb_array', got {name!r} ({error}); {hint}"
        ) from error
