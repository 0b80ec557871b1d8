"""Clips of Gymnasium environments, played by a random policy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from vaportok_rl.clips.cache import ClipCache
from vaportok_rl.clips.footage.decoding import resize_and_crop
from vaportok_rl.clips.source import ClipBatch, ClipOrigin, ClipSource, check_split
from vaportok_rl.runtime.declared import checked
from vaportok_rl.runtime.messages import did_you_mean, install_extra

# Pygame would print a greeting to standard output.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

# Clips are played in stretches of this many, each from its own seed: any clip is reached without replaying more than
# its stretch, and index i is always the same clip.
STRETCH_CLIPS = 8
# A random policy ends some games within a few frames; after this many of them the last frame is repeated.
_SHORT_GAMES = 3


class FrameFormatError(Exception):
    """An environment rendered something other than an RGB frame."""


class GameplayClips(ClipSource):
    """Clips of consecutive rendered frames from any environments with ``render_mode="rgb_array"``.

    The policy is random and holds each action for 1 to 4 steps, which moves more than a new action per step. A clip
    never spans two games. Frames that do not fill a clip are dropped; after three games in a row that are shorter than
    a clip, the last frame is repeated. Frames are resized and cropped as those of video files. The label is the
    environment.

    Clip ``i`` is a pure function of ``(seed, split, i)``, the environments and their versions, if a reset of an
    environment depends on nothing but its seed. Clips are played when they are first read, and cached.

    Args:
        environments: ids (``"CarRacing-v3"``, ``"module:id"``, ``"ALE/Pong-v5"`` with the ``atari`` extra); 8 clips of
            each in turn.
        frames: T, frames per clip.
        size: H = W, pixels.
        split: ``"train"`` or ``"test"``, which share no seed of a game. (Games of environments with few starts, such as
            board games, may look alike all the same.)
        seed: of all games.
        length: number of clips.
        cache_megabytes: memory (MiB) for played clips, least recently used out first.

    Raises:
        ValueError: an id is unknown, cannot render RGB frames, or lacks a package it needs; or an argument is outside
            its range. A game that fails or renders anything but RGB frames raises it when its clips are asked for.
    """

    @checked
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
        if not names or frames < 1 or size < 1 or length < 1 or not cache_megabytes >= 0:
            raise ValueError(
                "Expected at least one environment id, frames, size and length of at least 1 and cache_megabytes of at "
                f"least 0, got {names}, frames={frames}, size={size}, length={length}, "
                f"cache_megabytes={cache_megabytes}; pass for instance 'CarRacing-v3'."
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
        labels = [self._label(index) for index in listed]
        return ClipBatch(clips, torch.tensor(labels), torch.tensor(listed))

    def _label(self, index: int) -> int:
        return index // STRETCH_CLIPS % len(self.label_names)

    def origin(self, index: int) -> ClipOrigin:
        """The environment of the clip at ``index``, without playing it."""
        (listed,) = self.check_indices([index])
        return ClipOrigin("", 0, self.label_names[self._label(listed)])

    def _content(self) -> object:
        return self.seed

    def _clip(self, index: int) -> Tensor:
        held = self._cache.get(index)
        if held is not None:
            return held
        stretch, place = divmod(index, STRETCH_CLIPS)
        name = self.label_names[stretch % len(self.label_names)]
        try:
            played = list(self._play(self._environment(name), stretch))
        except Exception as error:
            self._open.pop(name, None)  # its state is unknown
            remedy = f"try it by itself (gymnasium.make({name!r}, render_mode='rgb_array')) or choose another"
            raise ValueError(
                f"Expected {name} to play and to render RGB frames (uint8 [H, W, 3]), got {type(error).__name__}: "
                f"{error}; {remedy}."
            ) from error
        for offset, clip in enumerate(played):
            self._cache.put(stretch * STRETCH_CLIPS + offset, clip)
        return played[place]

    def _play(self, environment: gymnasium.Env[Any, Any], stretch: int) -> Iterator[Tensor]:
        """The clips of a stretch in order, each ``uint8 [3, T, size, size]``."""
        digest = hashlib.blake2b(f"{self.seed}/{self.split}/{stretch}".encode(), digest_size=8).digest()
        draws = np.random.default_rng(int.from_bytes(digest, "little"))
        environment.action_space.seed(int(draws.integers(2**31)))
        environment.reset(seed=self._game_seed(draws))
        for _ in range(STRETCH_CLIPS):
            shown: list[Tensor] = []
            for attempts_left in reversed(range(_SHORT_GAMES)):
                shown, ended = self._watch(environment, draws)
                if ended:
                    environment.reset(seed=self._game_seed(draws))
                if len(shown) == self.frames or not attempts_left:
                    break
            shown += [shown[-1]] * (self.frames - len(shown))
            yield torch.stack(shown, dim=1)

    def _game_seed(self, draws: np.random.Generator) -> int:
        """Even for training, odd for held-out clips."""
        return 2 * int(draws.integers(2**30)) + (self.split == "test")

    def _watch(self, environment: gymnasium.Env[Any, Any], draws: np.random.Generator) -> tuple[list[Tensor], bool]:
        """The next frames of the game, at most T, and whether it has ended."""
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
            raise FrameFormatError(got)
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
                f"Expected ale-py for {name!r}, which is not installed; {install_extra('atari')}."
            ) from error
        gymnasium.register_envs(ale_py)
    try:
        # Observations are not used, so they need no checker.
        environment = gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(
            f"Expected the packages that {name!r} needs to be installed: {error}; {install_extra('gameplay')}, or "
            "install them."
        ) from error
    except Exception as error:  # an environment's own constructor may raise anything
        others = () if name in gymnasium.registry else gymnasium.registry
        hint = did_you_mean(name, others, "import its package with the id, as in 'package:Id-v0'")
        raise ValueError(
            f"Expected the id of a Gymnasium environment with render_mode='rgb_array', got {name!r} "
            f"({type(error).__name__}: {error}); {hint}"
        ) from error
    if environment.render_mode != "rgb_array":
        raise ValueError(
            f"Expected an environment with render_mode='rgb_array', got {name!r}, which renders "
            f"{environment.metadata.get('render_modes') or 'nothing'}; choose another."
        )
    return environment
