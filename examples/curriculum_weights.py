"""A curriculum over reward weights: first quality, then fewer tokens.

Run: python examples/curriculum_weights.py

A policy that ignores the clips (a categorical over a few lengths) is trained by REINFORCE while the weight of
`efficiency` rises with the number of decisions.
"""

from __future__ import annotations

import gymnasium
import numpy as np

import vaportok_rl  # noqa: F401  (registers the environment)
from vaportok_rl.envs import VaporReward
from vaportok_rl.envs.rewards import Ramp

ROUNDS, ENVS, PATH_LENGTH = 48, 8, 2
DECISIONS = ROUNDS * ENVS * PATH_LENGTH


# 0 for the first third, then linear up to 3 at two thirds. All agents, outcome tables and evaluation use it. On the
# command line: --reward.weights efficiency 0:3@256:512
EFFICIENCY = Ramp(0.0, 3.0, DECISIONS // 3, 2 * DECISIONS // 3)


def main(tokenizer: str = "nano", seed: int = 0) -> dict[str, float]:
    """Trains through the curriculum; returns the policy's mean length before the weight rises and at the end."""
    reward = VaporReward({"efficiency": EFFICIENCY, "penalty": 0.0, "diversity": 0.0, "generation": 0.0})
    env = gymnasium.make_vec(
        "vaportok/Taildrop-v0",
        num_envs=ENVS,
        vectorization_mode="vector_entry_point",
        group_size=ENVS,
        tokenizer=tokenizer,
        path_length=PATH_LENGTH,
        reward=reward,
    )
    rng = np.random.default_rng(seed)
    tokens = int(env.single_action_space.n)  # type: ignore[attr-defined]
    lengths = np.unique(np.geomspace(1, tokens, 6).round().astype(int))
    logits = np.zeros(len(lengths))
    figures = {}
    env.reset(seed=seed)
    for step in range(ROUNDS * PATH_LENGTH):
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        weight = reward.weights_now()["efficiency"]
        if weight == 0:
            figures["before"] = float(probabilities @ lengths)
        chosen = rng.choice(len(lengths), ENVS, p=probabilities)
        _, rewards, _, _, _ = env.step(lengths[chosen] - 1)
        # Members of a group see the same clip: standardise their rewards.
        advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        logits += 0.7 * (advantage[:, None] * (np.eye(len(lengths))[chosen] - probabilities)).mean(0)
        if step % 16 == 0:
            tokens_kept = probabilities @ lengths
            print(f"{reward.state.decisions:4d} decisions: efficiency weighs {weight:.2f}, {tokens_kept:4.1f} tokens")
    figures["after"] = float(probabilities @ lengths)
    env.close()
    print(f"mean length {figures['before']:.1f} before the weight rises, {figures['after']:.1f} at the end")
    return figures


if __name__ == "__main__":
    main()
