"""The decision process behind every face: drawing scenes, observing clips, scoring decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.envs.engine import ScoringEngine
from vaportok_rl.envs.rewards import VaporReward, build_reward
from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.worlds import shared_world
from vaportok_rl.tokenizer import Precision

# Latents have no natural bound; Gymnasium's checker warns about infinite boxes, and no trained world comes near this.
LATENT_BOUND = 1e6
OBSERVATIONS = ("latents", "complexity", "codes", "clip")


class TaildropProcess:
    """What an environment is made of; see `TaildropEnv` for the arguments.

    Attributes:
        engine: the scoring engine over the shared frozen world.
        source: the clips.
        reward: the reward.
        path_length: L.
        single_observation_space: of one decision.
        single_action_space: ``Discrete(K)``; action a keeps n = a + 1 tokens.
    """

    def __init__(
        self,
        *,
        tokenizer: str = "nano",
        clips: str = "procedural",
        path_length: int = 8,
        reward: VaporReward | Mapping[str, Any] | None = None,
        obs: str | Sequence[str] = "latents",
        split: str = "train",
        clip_seed: int = 0,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        if path_length < 1:
            raise ValueError(f"Expected path_length ≥ 1, got {path_length}; a path needs at least one clip.")
        world = shared_world(tokenizer, device, precision)
        config = world.config
        self.tokenizer = tokenizer
        self.engine = ScoringEngine(world)
        self.source: ClipSource = open_clips(clips, split=split, frames=config.frames, size=config.size, seed=clip_seed)
        if path_length > len(self.source):
            raise ValueError(
                f"Expected path_length ≤ {len(self.source)}, the clips available ({self.source.describe()}), got "
                f"{path_length}; shorten the path or add clips."
            )
        self.reward = build_reward(reward)
        self.path_length = path_length
        self.tokens = config.tokens
        self.observed = (obs,) if isinstance(obs, str) else tuple(obs)
        self._single = isinstance(obs, str)
        self.single_observation_space = self._observation_space()
        self.single_action_space = spaces.Discrete(self.tokens)

    def _observation_space(self) -> spaces.Space[Any]:
        config = self.engine.world.config
        available: dict[str, spaces.Space[Any]] = {
            "latents": spaces.Box(-LATENT_BOUND, LATENT_BOUND, (config.tokens, config.width), np.float32),
            "complexity": spaces.Box(0.0, 1.0, (2,), np.float32),
            "codes": spaces.Box(0, config.codebook_size - 1, (config.tokens,), np.int64),
            "clip": spaces.Box(0, 255, config.clip_shape, np.uint8),
        }
        for name in self.observed:
            if name not in available:
                raise ValueError(
                    f"Expected obs among {', '.join(OBSERVATIONS)}, or a sequence of several; got {name!r}; correct it."
                )
        if self._single:
            return available[self.observed[0]]
        return spaces.Dict({name: available[name] for name in self.observed})

    def sample_scene(self, generators: Sequence[np.random.Generator]) -> Scene:
        """Draws and encodes one scene a generator: L different clips each, in a random order."""
        drawn = np.stack([rng.choice(len(self.source), self.path_length, replace=False) for rng in generators])
        batch = self.source.batch(torch.from_numpy(drawn.reshape(-1)))
        shape = drawn.shape
        return self.engine.encode(
            *(torch.unflatten(values, 0, shape) for values in (batch.clips, batch.labels, batch.ids))
        )

    def observe(self, scene: Scene, steps: np.ndarray) -> dict[str, np.ndarray]:
        """What each of P scenes shows at its step, on the host, in fresh memory: arrays ``[P, ...]`` by name."""
        device = scene.codes.device
        paths = torch.arange(len(steps), device=device)
        at = torch.as_tensor(np.minimum(steps, self.path_length - 1), device=device)
        shown: dict[str, np.ndarray] = {}
        for name in self.observed:
            if name == "complexity":
                value = self.engine.world.complexity_scale.quantiles(scene.complexity[paths, at])
            elif name == "clip":
                value = scene.clips[paths, at]
            else:
                value = getattr(scene, name)[paths, at]
            shown[name] = value.cpu().numpy().copy()
        return shown

    def present(self, shown: dict[str, np.ndarray]) -> Any:
        """Brings observations by name to the form of the observation space: one array or a dictionary."""
        return shown[self.observed[0]] if self._single else shown
