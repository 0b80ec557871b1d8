"""One round of sampling: G paths through each of P scenes, and the parallel sample of the tensor face."""

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
    """What a round gathers: L decisions of each of G paths through P scenes (of several processes: this one's share).

    Attributes:
        actions: ``int64 [G, P, L]``, as drawn.
        old_log_prob: ``float32 [G, P, L]``, under the policy that drew them.
        alive: ``bool [G, P, L]``; False behind the end of an episode, where the other entries mean nothing.
        rewards: of all processes' paths.
    """

    actions: Tensor
    old_log_prob: Tensor
    alive: Tensor
    rewards: RewardResult

    @abstractmethod
    def log_probs(self, policy: Any, scenes: Tensor | None = None) -> Tensor:
        """Log-probabilities of all A actions at every decision.

        Args:
            policy: whose.
            scenes: ``int64 [P']``, which scenes; all of them by default.

        Returns:
            ``float32 [G, P', L, A]``, or ``[1, P', L, A]`` where all members of a group see the same.
        """


@dataclass(frozen=True)
class SceneRollout(GroupRollout):
    """The parallel sample of the supplement: clips do not depend on lengths, so all decisions are taken at once.

    Attributes:
        scene: P scenes of L clips, this process's share.
        outcome: of ``actions + 1`` tokens, or of the nearest lengths that the range and the budget allow; of all
            processes' paths.
        old_log_p: ``float32 [1, P, L, K]``, all lengths under the policy that drew.
        every: all K lengths of this process's scenes, if they were asked for.
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
    """Draws from categorical distributions by inverting their cumulated probabilities.

    Args:
        log_p: ``[..., A]``.
        uniform: ``[..., N]``, numbers in [0, 1).

    Returns:
        ``int64 [..., N]``.
    """
    cumulated = log_p.exp().cumsum(-1)
    drawn = torch.searchsorted(cumulated, uniform * cumulated[..., -1:], right=True)
    # Rounding may carry a number next to 1 past the end.
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

    Every draw is a function of the seed, the round and the scene's place in it, so that a resumed run needs no random
    state and several processes draw what one would.

    Args:
        vector_env: its process and the shape of its groups are used; its stepwise state is left alone.
        policy: a `TaildropPolicy`.
        seed: of the run.
        number: of the round.
        processes: among which the scenes are split.
        score_every_length: score all K lengths of every clip, not only those drawn.
    """
    process, group = vector_env.process, vector_env.group_size
    share = processes.share(vector_env.groups)
    scene = process.sample_scene([np.random.default_rng(derive_seed("scene", seed, number, p)) for p in share])
    # Drawn on the CPU, whatever the device: the same numbers everywhere.
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
