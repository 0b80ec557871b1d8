"""Learns a reward from pairwise preferences, and trains on it.

Run: python examples/learned_scalarisation.py

A judge compares two paths through the same clips. Here it is simulated by hidden weights: it prefers path a to path b
with probability sigmoid(r(a) - r(b)), the Bradley-Terry model. Weights of the reward terms are fitted to its answers,
and `VaporReward(scalarise=...)` turns them into the reward of any agent. (For weights alone `weights=` would do; a
scalarisation may be any function of the terms.)
"""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import vaportok_rl  # noqa: F401  (registers the environment)
from vaportok_rl.envs import TaildropProcess

JUDGE = {"efficiency": 6.0, "reconstruction": 6.0}


def compared_paths(process: TaildropProcess, scenes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Terms of the two sides of many comparisons, ``[pairs, terms]`` each; lengths differ in mean and in spread."""
    rng = np.random.default_rng(seed)
    scene = process.sample_scene([rng] * scenes)
    usual = rng.integers(1, process.tokens + 1, (8, scenes, 1))
    width = rng.uniform(0, process.tokens / 3, usual.shape)
    n_tokens = (usual + width * rng.uniform(-1, 1, (8, *scene.shape))).round().astype(int).clip(1, process.tokens)
    terms = process.reward(process.engine.score(scene, torch.from_numpy(n_tokens))).terms
    stacked = torch.stack(list(terms.values()), -1)
    first, second = torch.triu_indices(8, 8, offset=1)
    return stacked[first].flatten(0, 1), stacked[second].flatten(0, 1)


def fit_preferences(differences: Tensor, preferred: Tensor, ridge: float = 0.01) -> Tensor:
    """Bradley-Terry weights ``[terms]``; ``differences [pairs, terms]``, ``preferred [pairs]``: the first won."""
    weights = torch.zeros(differences.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(differences @ weights, preferred) + ridge * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()


def main(tokenizer: str = "nano", seed: int = 0) -> dict[str, float]:
    """Asks, fits, and walks one scene; returns how often the fitted reward agrees with the judge on new pairs."""
    process = TaildropProcess(tokenizer=tokenizer, path_length=4)
    judge = torch.tensor([JUDGE.get(name, 0.0) for name in process.reward.names])
    first, second = compared_paths(process, scenes=8, seed=seed)
    # Terms are standardised, so that the ridge penalty treats all alike.
    spread = (first - second).std(0).clamp(min=1e-6)
    answers = torch.bernoulli(((first - second) @ judge).sigmoid(), generator=torch.Generator().manual_seed(seed))
    weights = fit_preferences((first - second) / spread, answers) / spread
    learned = dict(zip(process.reward.names, weights.tolist(), strict=True))
    print(f"{len(answers)} answers; weights:", ", ".join(f"{name} {weight:+.2f}" for name, weight in learned.items()))

    new_first, new_second = compared_paths(process, scenes=4, seed=seed + 1)
    difference = new_first - new_second
    agreement = ((difference @ judge > 0) == (difference @ weights > 0)).float().mean().item()
    print(f"agreement with the judge on {len(difference)} new pairs: {100 * agreement:.0f} %")

    def scalarise(terms: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([learned[name] * value for name, value in terms.items()]).sum(0)

    reward = {"scalarise": scalarise}
    env = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tokenizer, path_length=4, reward=reward)
    figures = {"agreement": agreement}
    for n in (1, process.tokens // 4, process.tokens):
        env.reset(seed=seed)
        finished = False
        while not finished:
            _, reward, finished, _, _ = env.step(n - 1)
        figures[f"n={n}"] = float(reward)
        print(f"n = {n:2d}: learned reward {figures[f'n={n}']:+.3f}")
    env.close()
    return figures


if __name__ == "__main__":
    main()
