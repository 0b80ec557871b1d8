"""One round of parallel sampling: G paths through each of P scenes, scored at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import Outcome, RewardResult, Scene, TaildropVectorEnv


@dataclass(frozen=True)
class GroupRollout:
    """What the parallel sample gathers.

    Attributes:
        scene: P scenes of L clips.
        actions: ``int64 [G, P, L]``, as drawn.
        old_log_prob: ``float32 [G, P, L]``, under the policy that drew them.
        outcome: of ``actions + 1`` tokens, or of the nearest lengths that the range and the budget allow.
        rewards: of the outcome.
    """

    scene: Scene
    actions: Tensor
    old_log_prob: Tensor
    outcome: Outcome
    rewards: RewardResult


@torch.no_grad()
def collect_groups(vector_env: TaildropVectorEnv, policy: TaildropPolicy) -> GroupRollout:
    """Draws new scenes and samples a group of paths through each (the supplement's parallel sample).

    Args:
        vector_env: its process, groups and random streams are used; its stepwise state is left alone.
        policy: draws the lengths, with torch's global generator.
    """
    process = vector_env.process
    scene = process.sample_scene(vector_env.generators)
    log_p = policy.length_log_probs(scene.latents)
    paths, length = log_p.shape[:2]
    drawn = torch.multinomial(log_p.exp().flatten(0, 1), vector_env.group_size, replacement=True)
    actions = drawn.T.reshape(vector_env.group_size, paths, length)
    old_log_prob = log_p.expand(vector_env.group_size, -1, -1, -1).gather(-1, actions[..., None]).squeeze(-1)
    outcome = process.engine.score(scene, process.token_range.clip_paths(actions + 1))
    return GroupRollout(scene, actions, old_log_prob, outcome, process.reward(outcome))
