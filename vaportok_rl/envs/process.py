"""The decision process behind every face: drawing scenes, observing clips, scoring decisions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.envs.rewards.reward import RewardResult, VaporReward, build_reward
from vaportok_rl.envs.scene import Outcome, Scene
from vaportok_rl.envs.scoring.engine import Engine, ScoringEngine
from vaportok_rl.envs.scoring.worlds import shared_distances, shared_world
from vaportok_rl.envs.settings import TaildropArguments, TaildropSettings
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.engine import TableEngine
from vaportok_rl.envs.table.fit import check_table_serves
from vaportok_rl.envs.table.table import shared_table
from vaportok_rl.envs.token_range import TokenRange
from vaportok_rl.tokenizer import VaporTokConfig

# Latents have no natural bound; Gymnasium's checker warns about infinite boxes, and no trained world comes near this.
LATENT_BOUND = 1e6


def observation_box(config: VaporTokConfig, name: str, flatten: bool) -> spaces.Space[Any]:
    """The space of one kind of observation.

    Args:
        config: of the tokenizer.
        name: among `OBSERVATIONS`.
        flatten: whether it is a vector.
    """
    boxes: dict[str, tuple[float, float, tuple[int, ...], type[np.generic]]] = {
        "latents": (-LATENT_BOUND, LATENT_BOUND, (config.tokens, config.width), np.float32),
        "complexity": (0.0, 1.0, (2,), np.float32),
        "codes": (0, config.codebook_size - 1, (config.tokens,), np.int64),
        "clip": (0, 255, config.clip_shape, np.uint8),
    }
    low, high, shape, dtype = boxes[name]
    return spaces.Box(low, high, (math.prod(shape),) if flatten else shape, dtype)


Score = Callable[[Tensor], Outcome]
"""From the lengths that paths keep, ``int64 [G, P, L]``, to what that does to their clips."""


class Judged(NamedTuple):
    """What became of lengths that paths asked for.

    Attributes:
        outcome: of those that the token range and the budget let them keep.
        rewards: of the outcome.
    """

    outcome: Outcome
    rewards: RewardResult


class TaildropProcess:
    """What an environment is made of; but for the reward's weights it never changes.

    A copy shares the world, the clips and the terms. A pickle holds the settings and the weights, and opens the world
    that the unpickling process shares.

    Args:
        **arguments: see `TaildropEnv`.

    Attributes:
        settings: the arguments, defaults filled in.
        engine: what scores: the shared frozen world, or the shared outcome table.
        source: the clips.
        reward: the reward.
        path_length: L.
        tokens: K.
        token_range: which lengths may be kept.
        single_observation_space: of one decision.
        single_action_space: ``Discrete(K)``; action a keeps n = a + 1 tokens.

    Raises:
        TypeError: there is no such argument.
        ValueError: an argument is out of range; the message says which one and what to do.
        FileNotFoundError: there is no such checkpoint, or no clips.
    """

    def __init__(self, **arguments: Unpack[TaildropArguments]) -> None:
        settings = TaildropSettings.of(arguments)
        self.settings = settings
        self.reward = build_reward(settings.reward)
        self.source, self.engine = _open(settings, self.reward)
        config = self.engine.config
        self.path_length = settings.path_length
        self.tokens = config.tokens
        self.token_range = TokenRange(
            config.tokens, settings.path_length, settings.min_tokens, settings.max_tokens, settings.token_budget
        )
        if settings.path_length > len(self.source):
            raise ValueError(
                f"Expected path_length ≤ {len(self.source)}, the clips available ({self.source.describe()}), got "
                f"{settings.path_length}; shorten the path or add clips."
            )
        self._starts = self._scene_starts()
        self.reward.dry_run(
            self.path_length, self.tokens, self.engine.device, None if settings.table else config.clip_shape
        )
        self.single_observation_space = self._observation_space()
        self.single_action_space = spaces.Discrete(self.tokens)

    def __deepcopy__(self, memo: dict[int, Any]) -> TaildropProcess:
        return copy.copy(self)

    def __copy__(self) -> TaildropProcess:
        twin = object.__new__(TaildropProcess)
        twin.__dict__ |= self.__dict__
        twin.reward = copy.copy(self.reward)  # its state moves with whoever trains on it
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.settings, self.reward)

    @property
    def tokenizer(self) -> str:
        """The checkpoint's name, as it was given."""
        return self.settings.tokenizer

    def _observation_space(self) -> spaces.Space[Any]:
        config, flatten = self.engine.config, self.settings.flatten_obs
        parts: dict[str, spaces.Space[Any]] = {
            name: observation_box(config, name, flatten) for name in self.settings.observed
        }
        return parts[self.settings.obs] if isinstance(self.settings.obs, str) else spaces.Dict(parts)

    def _scene_starts(self) -> NDArray[np.int64] | None:
        """Where scenes of consecutive clips may begin; None where clips are drawn independently.

        Raises:
            ValueError: the source has no videos of L clips.
        """
        if self.settings.ordering == "independent":
            return None
        find = getattr(self.source, "consecutive_starts", None)
        if find is None or (isinstance(self.source, TableClips) and not self.source.consecutive):
            raise ValueError(
                f"Expected clips of long videos for ordering='video', got {self.source.describe()}, whose clips do not "
                "follow each other; pass video files, or ordering='independent'."
            )
        starts: NDArray[np.int64] = np.asarray(find(self.path_length), dtype=np.int64)
        if not len(starts):
            raise ValueError(
                f"Expected a video of at least path_length={self.path_length} clips for ordering='video', got none in "
                f"{self.source.describe()}; shorten the path, add longer videos, or pass ordering='independent'."
            )
        return starts

    def sample_scene(self, generators: Sequence[np.random.Generator]) -> Scene:
        """Draws and encodes one scene a generator.

        With ordering ``independent``, L different clips in a random order; with ``video``, L consecutive clips of one
        video from a random place on.
        """
        return self.engine.open(self.draw(generators))

    def draw(self, generators: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        """Draws one scene a generator, as ``int64 [P, L]`` indices of the source; see `sample_scene`."""
        return np.stack([self._draw(rng) for rng in generators])

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        if self._starts is None:
            return rng.choice(len(self.source), self.path_length, replace=False)
        return int(rng.choice(self._starts)) + np.arange(self.path_length)

    def held_out(self, scenes: int, seed: int) -> list[list[int]]:
        """Clips of at most ``scenes`` scenes to measure on, in an order drawn with the seed; see `sample_scene`.

        No clip comes twice in scenes of independent clips: those that do not fill a scene are left out. Scenes that
        follow a video overlap only where no others are left.
        """
        rng, length, clips = np.random.default_rng(seed), self.path_length, len(self.source)
        if self._starts is not None:
            free = np.ones(clips, dtype=bool)
            apart: list[list[int]] = []
            overlapping: list[list[int]] = []
            for start in rng.permutation(self._starts).tolist():
                chosen = apart if free[start : start + length].all() else overlapping
                chosen.append([*range(start, start + length)])
                free[start : start + length] = False
            return [*apart, *overlapping][:scenes]
        wanted = length * min(scenes, clips // length)
        order = rng.choice(clips, wanted, replace=False) if clips > 4 * wanted else rng.permutation(clips)[:wanted]
        return order.reshape(-1, length).tolist()

    def judge(self, n_tokens: Tensor, score: Score, grouped: bool = True) -> Judged:
        """Brings lengths to those that the token range and the budget allow, scores them, and pays for them.

        Args:
            n_tokens: ``int64 [G, P, L]`` in 1 … K, what whole paths ask for.
            score: scores the lengths kept, such as `OutcomeOfAllLengths.take`.
            grouped: see `VaporReward.__call__`.
        """
        outcome = score(self.token_range.clip_paths(n_tokens))
        return Judged(outcome, self.reward(outcome, grouped))

    def advance(self, result: RewardResult, decisions: int, finished: Tensor | None = None) -> None:
        """Tells the reward of decisions taken in training; see `VaporReward.advance`. Held-out splits tell nothing."""
        if self.settings.split == "train":
            self.reward.advance(result, decisions, finished)

    def observe(self, scene: Scene, steps: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """What each of P scenes shows at its step, on the host, in fresh memory: arrays ``[P, ...]`` by name."""
        device = scene.device
        paths = torch.arange(len(steps), device=device)
        at = torch.as_tensor(np.minimum(steps, self.path_length - 1), device=device)
        return {name: self._shown(name, scene, paths, at) for name in self.settings.observed}

    def _shown(self, name: str, scene: Scene, paths: Tensor, at: Tensor) -> NDArray[np.generic]:
        if name == "complexity":
            value = self.engine.quantiles(scene, paths, at)
        else:
            value = scene.part({"clip": "clips"}.get(name, name), paths, at)
        if self.settings.flatten_obs:
            value = value.flatten(1)
        shown: NDArray[np.generic] = value.cpu().numpy().copy()
        return shown

    def present(self, shown: dict[str, NDArray[np.generic]]) -> Any:
        """Brings observations by name to the form of the observation space: one array or a dictionary."""
        return shown[self.settings.obs] if isinstance(self.settings.obs, str) else shown


def _open(settings: TaildropSettings, reward: VaporReward) -> tuple[ClipSource, Engine]:
    """The clips and what scores them: the shared network, or the shared outcome table."""
    bits = "bits" in reward.needs
    if settings.table is not None:
        table = shared_table(settings.table, settings.device)
        check_table_serves(table, settings.split, settings.observed, reward.needs)
        engine = TableEngine(table, settings.split, bits=bits, tokenizer=settings.tokenizer)
        return engine.source, engine
    world = shared_world(settings.tokenizer, settings.device, settings.precision)
    config = world.config
    source = open_clips(
        settings.clips, split=settings.split, frames=config.frames, size=config.size, seed=settings.clip_seed
    )
    distances = shared_distances(reward, settings.device)
    return source, ScoringEngine(world, source=source, bits=bits, distances=distances)


def _reopen(settings: TaildropSettings, reward: VaporReward) -> TaildropProcess:
    process = TaildropProcess(**settings.as_arguments())
    process.reward = reward
    return process
