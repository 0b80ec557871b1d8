"""Rollouts of one round: G paths through each of P scenes, sampled in parallel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.envs import Outcome, OutcomeOfAllLengths, RewardResult, Scene, TaildropVectorEnv
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.seeds import derive_seed


@dataclass(frozen=True)
class GroupRollout(ABC):
    """The samples of a round: L decisions of each of G paths through P scenes (this rank's scenes).

    Attributes:
        actions: ``int64 [G, P, L]``, as sampled.
        old_log_prob: ``float32 [G, P, L]``, under the sampling policy.
        alive: ``bool [G, P, L]``; False after the end of an episode, where the other entries are meaningless.
        rewards: of all ranks' paths.
    """

    actions: Tensor
    old_log_prob: Tensor
    alive: Tensor
    rewards: RewardResult

    @abstractmethod
    def log_probs(self, policy: Any, scenes: Tensor | None = None) -> Tensor:
        """Log-probabilities of all A actions at every decision.

        Args:
            policy: the policy.
            scenes: ``int64 [P']``, which scenes; all by default.

        Returns:
            ``float32 [G, P', L, A]``, or ``[1, P', L, A]`` if members of a group share their observations.
        """


@dataclass(frozen=True)
class SceneRollout(GroupRollout):
    """The supplement's parallel sample: clips do not depend on actions, so all decisions are taken at once.

    Attributes:
        scene: P scenes of L clips, this rank's.
        outcome: of ``actions + 1`` tokens, clipped to the range and the budget; of all ranks' paths.
        old_log_p: ``float32 [1, P, L, K]``, all lengths under the sampling policy.
        every: outcomes of all K lengths of this rank's scenes, if requested.
    """

    scene: Scene
    outcome: Outcome
    old_log_p: Tensor
    every: OutcomeOfAllLengths | None = None

    def log_probs(self, policy: Any, scenes: Tensor | None = None) -> Tensor:
        """See `GroupRollout.log_probs`: ``[1, P', L, K]``."""
        log_p: Tensor = policy.length_log_probs(self.scene.latents if scenes is None else self.scene.latents[scenes])
        return log_p[None]


def draw_actions(log_p: Tensor, uniform: Tensor) -> Tensor:
    """Samples from categorical distributions by inverting their cumulative probabilities.

    Args:
        log_p: ``[..., A]``.
        uniform: ``[..., N]``, numbers in [0, 1).

    Returns:
        ``int64 [..., N]``.
    """
    cumulated = log_p.exp().cumsum(-1)
    drawn = torch.searchsorted(cumulated, uniform * cumulated[..., -1:], right=True)
    # Rounding may push a number near 1 past the end.
    return drawn.clamp(max=log_p.shape[-1] - 1)


@torch.no_grad()
def collect_scenes(
    vector_env: TaildropVectorEnv,
    policy: Any,
    seed: int,
    number: int,
    processes: Processes = Processes(),  # noqa: B008 (it is frozen)
    score_every_length: bool = False,
) -> SceneRollout:
    """Draws new scenes and samples a group of paths through each (the supplement's parallel sample).

    All samples depend only on the seed, the round and the scene's index: resuming needs no random state, and several
    ranks sample what a single process would.

    Args:
        vector_env: provides the MDP and the group sizes; its stepwise state is not touched.
        policy: a `TaildropPolicy`.
        seed: of the run.
        number: of the round.
        processes: the ranks that split the scenes.
        score_every_length: score all K lengths of every clip, not only the sampled ones.
    """
    process, group = vector_env.process, vector_env.group_size
    share = processes.share(vector_env.groups)
    scene = process.sample_scene([np.random.default_rng(derive_seed("scene", seed, number, p)) for p in share])
    # Drawn on the CPU, so that all devices get the same numbers.
    generator = torch.Generator().manual_seed(derive_seed("paths", seed, number))
    uniform = torch.rand(vector_env.groups, process.path_length, group, generator=generator)[list(share)]
    log_p = policy.length_log_probs(scene.latents)
    actions = draw_actions(log_p, uniform.to(log_p.device)).permute(2, 0, 1).contiguous()
    old_log_prob = log_p.expand(group, -1, -1, -1).gather(-1, actions[..., None]).squeeze(-1)
    every = process.engine.score_all(scene) if score_every_length else None

    def score(kept: Tensor) -> Outcome:
        outcome = process.engine.score(scene, kept) if every is None else every.take(kept)
        return outcome.rearrange(lambda value: processes.gather(value, 1), lambda value: processes.gather(value, 0))

    outcome, rewards = process.judge(actions + 1, score)
    alive = torch.ones_like(actions, dtype=torch.bool)
    return SceneRollout(actions, old_log_prob, alive, rewards, scene, outcome, log_p[None], every)
