"""A curriculum over reward weights: first keep quality, then learn to save tokens.

Run: python examples/curriculum_weights.py

A policy that ignores the clips (one probability for each of a few lengths) learns by REINFORCE while the weight of
`efficiency` rises with the number of decisions.
"""

from __future__ import annotations

import gymnasium
import numpy as np

import vaportok_rl  # noqa: F401  (registers the environment)
from vaportok_rl.envs.rewards.wrappers import VectorCurriculumWeights

ROUNDS, ENVS, PATH_LENGTH = 48, 8, 2
DECISIONS = ROUNDS * ENVS * PATH_LENGTH


def efficiency_rises(decisions: int) -> dict[str, float]:
    """No `efficiency` for the first third; it then rises linearly to 3 at two thirds, and stays there."""
    return {"efficiency": 3.0 * min(1.0, max(0.0, 3 * decisions / DECISIONS - 1))}


def main(tokenizer: str = "nano", seed: int = 0) -> dict[str, float]:
    """Trains through the curriculum; returns the policy's mean length before the weight rises and at the end."""
    env = VectorCurriculumWeights(
        gymnasium.make_vec(
            "vaportok/Taildrop-v0",
            num_envs=ENVS,
            vectorization_mode="vector_entry_point",
            group_size=ENVS,
            tokenizer=tokenizer,
            path_length=PATH_LENGTH,
            reward={"weights": {"penalty": 0.0, "diversity": 0.0, "generation": 0.0}},
        ),
        efficiency_rises,
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
        if efficiency_rises(env.decisions)["efficiency"] == 0:
            figures["before"] = float(probabilities @ lengths)
        chosen = rng.choice(len(lengths), ENVS, p=probabilities)
        _, rewards, _, _, _ = env.step(lengths[chosen] - 1)
        # The members of the group saw the same clip: their mean is the baseline, their deviation the unit.
        advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        logits += 0.7 * (advantage[:, None] * (np.eye(len(lengths))[chosen] - probabilities)).mean(0)
        if step % 16 == 0:
            weight = efficiency_rises(env.decisions)["efficiency"]
            print(
                f"{env.decisions:4d} decisions: efficiency weighs {weight:.2f}, {probabilities @ lengths:4.1f} tokens"
            )
    figures["after"] = float(probabilities @ lengths)
    env.close()
    print(f"mean length {figures['before']:.1f} before the weight rises, {figures['after']:.1f} at the end")
    return figures


if __name__ == "__main__":
    main()
