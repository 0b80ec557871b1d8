"""The MDP that all environment classes share: drawing scenes, observing clips, scoring decisions."""

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
from vaportok_rl.envs.table.engine import TableEngine
from vaportok_rl.envs.table.fit import check_table_serves
from vaportok_rl.envs.table.table import shared_table
from vaportok_rl.envs.token_range import TokenRange
from vaportok_rl.tokenizer import VaporTokConfig

# Latents are unbounded, but Gymnasium's checker warns about infinite boxes; trained latents stay far below this.
LATENT_BOUND = 1e6


def observation_box(config: VaporTokConfig, name: str, flatten: bool) -> spaces.Space[Any]:
    """The space of one kind of observation (``name`` among `OBSERVATIONS`), as a vector if ``flatten``."""
    boxes: dict[str, tuple[float, float, tuple[int, ...], type[np.generic]]] = {
        "latents": (-LATENT_BOUND, LATENT_BOUND, (config.tokens, config.width), np.float32),
        "complexity": (0.0, 1.0, (2,), np.float32),
        "codes": (0, config.codebook_size - 1, (config.tokens,), np.int64),
        "clip": (0, 255, config.clip_shape, np.uint8),
    }
    low, high, shape, dtype = boxes[name]
    return spaces.Box(low, high, (math.prod(shape),) if flatten else shape, dtype)


Score = Callable[[Tensor], Outcome]
"""Scores lengths ``int64 [G, P, L]``."""


class Judged(NamedTuple):
    """Outcome and rewards of the requested lengths, clipped to the token range and the budget."""

    outcome: Outcome
    rewards: RewardResult


class TaildropProcess:
    """The MDP behind an environment: clips, scoring engine, reward and token range.

    Only the reward's state changes. Copies share the tokenizer, the clips and the reward terms. A pickle holds the
    settings and the reward; unpickling opens the process-wide shared tokenizer.

    Args:
        **arguments: see `TaildropEnv`.

    Attributes:
        settings: the arguments, defaults filled in.
        engine: scores lengths by the shared tokenizer or the shared outcome table.
        source: the clips.
        reward: the reward.
        path_length: L.
        tokens: K.
        token_range: the allowed lengths.
        single_observation_space: of one environment.
        single_action_space: ``Discrete(K)``; action a keeps n = a + 1 tokens.

    Raises:
        TypeError: there is no such argument.
        ValueError: an argument is out of range.
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
        twin.reward = copy.copy(self.reward)  # its state changes during training
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.settings, self.reward)

    @property
    def tokenizer(self) -> str:
        """The tokenizer's name, as given."""
        return self.settings.tokenizer

    def _observation_space(self) -> spaces.Space[Any]:
        config, flatten = self.engine.config, self.settings.flatten_obs
        parts: dict[str, spaces.Space[Any]] = {
            name: observation_box(config, name, flatten) for name in self.settings.observed
        }
        return parts[self.settings.obs] if isinstance(self.settings.obs, str) else spaces.Dict(parts)

    def _scene_starts(self) -> NDArray[np.int64] | None:
        """Start indices of scenes with ordering ``video``; None if clips are drawn independently.

        Raises:
            ValueError: the source has no videos of L clips.
        """
        if self.settings.ordering == "independent":
            return None
        starts = self.source.consecutive_starts(self.path_length)
        if starts is None:
            raise ValueError(
                f"Expected clips of long videos for ordering='video', got {self.source.describe()}, whose clips do not "
                "follow each other; pass video files, or ordering='independent'."
            )
        if not len(starts):
            raise ValueError(
                f"Expected a video of at least path_length={self.path_length} clips for ordering='video', got none in "
                f"{self.source.describe()}; shorten the path, add longer videos, or pass ordering='independent'."
            )
        return starts.numpy()

    def sample_scene(self, generators: Sequence[np.random.Generator]) -> Scene:
        """Draws and encodes one scene per generator.

        With ordering ``independent``, L different clips in random order; with ``video``, L consecutive clips of one
        video from a random start.
        """
        return self.engine.open(self.draw(generators))

    def draw(self, generators: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        """Draws one scene per generator, as ``int64 [P, L]`` indices of the source; see `sample_scene`."""
        return np.stack([self._draw(rng) for rng in generators])

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        if self._starts is None:
            return rng.choice(len(self.source), self.path_length, replace=False)
        return int(rng.choice(self._starts)) + np.arange(self.path_length)

    def held_out(self, scenes: int, seed: int) -> list[list[int]]:
        """Clip indices of at most ``scenes`` evaluation scenes, drawn with the seed.

        With ordering ``independent``, no clip is used twice; leftover clips are dropped. With ``video``, overlapping
        scenes are used only after all disjoint ones.
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
        """Clips lengths to the token range and the budget, scores them and computes their rewards.

        Args:
            n_tokens: ``int64 [G, P, L]`` in 1 … K, requested by whole paths.
            score: scores the clipped lengths, such as `OutcomeOfAllLengths.take`.
            grouped: see `VaporReward.__call__`.
        """
        outcome = score(self.token_range.clip_paths(n_tokens))
        return Judged(outcome, self.reward(outcome, grouped))

    def advance(self, result: RewardResult, decisions: int, finished: Tensor | None = None) -> None:
        """Advances the reward's schedules by training decisions (split ``train`` only); see `VaporReward.advance`."""
        if self.settings.split == "train":
            self.reward.advance(result, decisions, finished)

    def observe(self, scene: Scene, steps: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """Each scene's observation at its step: arrays ``[P, ...]`` by name, on the host, in fresh memory."""
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
        """Observations in the form of the observation space: one array or a dictionary."""
        return shown[self.settings.obs] if isinstance(self.settings.obs, str) else shown


def _open(settings: TaildropSettings, reward: VaporReward) -> tuple[ClipSource, Engine]:
    """The clip source and the engine: the shared tokenizer, or the shared outcome table."""
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
