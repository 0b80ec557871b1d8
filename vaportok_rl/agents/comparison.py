"""Policies side by side on the same held-out scenes, between the best fixed length and the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.agents.oracle import best_fixed_length, oracle_lengths
from vaportok_rl.envs import Outcome, RewardResult, Scene, TaildropProcess
from vaportok_rl.envs.scene import join_outcomes, join_scenes
from vaportok_rl.evaluation import spearman

BEST_FIXED, ORACLE, WORST = "best_fixed", "oracle", "worst"


@dataclass(frozen=True)
class PolicyScore:
    """What a policy's lengths earn.

    Attributes:
        n_tokens: ``int64 [P, L]``.
        outcome: with G = 1.
        rewards: of the outcome.
    """

    n_tokens: Tensor
    outcome: Outcome
    rewards: RewardResult

    @property
    def reward(self) -> float:
        """Mean path reward."""
        return self.rewards.total.mean().item()

    def figures(self) -> dict[str, float]:
        """Means over the scenes: tokens, mse, psnr, accuracy, reward and each unweighted term."""
        return {
            "tokens": self.n_tokens.float().mean().item(),
            "mse": self.outcome.mse.mean().item(),
            "psnr": self.outcome.psnr.mean().item(),
            "accuracy": self.outcome.accuracy.mean().item(),
            "reward": self.reward,
            **{f"reward_{name}": value.mean().item() for name, value in self.rewards.terms.items()},
        }


class HeldOut:
    """Held-out scenes with the outcome of every length, on which any policy is scored by a lookup.

    Args:
        process: with ``split="test"``.
        scenes: how many at most.
        seed: decides which clips and in which order.
        on_scene: called after each scene is scored, for progress.
    """

    def __init__(self, process: TaildropProcess, scenes: int, seed: int = 0, on_scene: Any = None) -> None:
        self.process = process
        parts: list[Scene] = []
        outcomes: list[Outcome] = []
        for rows in held_out_rows(len(process.source), process.path_length, scenes, seed):
            batch = process.source.batch(rows)
            scene = process.engine.encode(batch.clips[None], batch.labels[None], batch.ids[None])
            parts.append(scene)
            outcomes.append(process.engine.score_all(scene))
            if on_scene is not None:
                on_scene()
        self.scene = join_scenes(parts)
        self.every = join_outcomes(outcomes)
        self.score = process.engine.world.complexity_scale.score(self.scene.complexity)

    def evaluate(self, n_tokens: Tensor) -> PolicyScore:
        """Scores lengths ``int64 [P, L]``, or the nearest that the process's range and budget allow."""
        n_tokens = self.process.token_range.clip_paths(n_tokens)
        outcome = self.every.take(n_tokens[None])
        return PolicyScore(n_tokens, outcome, self.process.reward(outcome))

    def compare(self, policies: Mapping[str, Tensor]) -> Comparison:
        """Scores policies' lengths beside the best fixed length, the oracle and the worst choice."""
        reward = self.process.reward
        fixed = torch.full_like(self.scene.ids, best_fixed_length(self.every, reward))
        lengths = {**policies, BEST_FIXED: fixed}
        lengths[ORACLE] = oracle_lengths(self.every, reward, tuple(lengths.values()))
        worst = oracle_lengths(self.every, reward, worst=True)
        return Comparison(
            {name: self.evaluate(value) for name, value in lengths.items()},
            self.evaluate(worst),
            {name: spearman(value.float(), self.score) for name, value in lengths.items()},
        )


def held_out_rows(clips: int, path_length: int, scenes: int, seed: int) -> list[list[int]]:
    """Clip numbers of each scene: different clips as long as there are enough, wrapping around in the last scene."""
    rng = np.random.default_rng(seed)
    wanted = min(scenes * path_length, -(-clips // path_length) * path_length)
    if clips > 4 * wanted:
        order = rng.choice(clips, wanted, replace=False)
    else:
        order = np.resize(rng.permutation(clips), wanted)
    return order.reshape(-1, path_length).tolist()


@dataclass(frozen=True)
class Comparison:
    """Scores of all policies on the same scenes.

    Attributes:
        scores: by policy name, with `BEST_FIXED` and `ORACLE` among them.
        worst: the worst lengths.
        spearman: rank correlation of each policy's lengths with the complexity score.
    """

    scores: dict[str, PolicyScore]
    worst: PolicyScore
    spearman: dict[str, float]

    def reward(self, name: str) -> float:
        """Mean path reward of a policy."""
        return self.scores[name].reward

    @property
    def headroom(self) -> float:
        """R_oracle - R_best-fixed: all that adapting to the clip can earn."""
        return self.reward(ORACLE) - self.reward(BEST_FIXED)

    @property
    def headroom_share(self) -> float:
        """Headroom as a share of R_oracle - R_worst."""
        span = self.reward(ORACLE) - self.worst.reward
        return self.headroom / span if span > 0 else 0.0

    def gap_closed(self, name: str) -> float:
        """(R - R_best-fixed) / (R_oracle - R_best-fixed); 1 is the oracle, negative is worse than the best fixed n."""
        return (self.reward(name) - self.reward(BEST_FIXED)) / self.headroom if self.headroom > 0 else float("nan")

    def proxy_percentile(self, name: str) -> float:
        """(R - R_worst) / (R_oracle - R_worst)."""
        worst = self.worst.reward
        span = self.reward(ORACLE) - worst
        return (self.reward(name) - worst) / span if span > 0 else float("nan")

    def results(self) -> dict[str, dict[str, float]]:
        """Figures by policy: `PolicyScore.figures`, `gap_closed`, `proxy_percentile`, `spearman_complexity`."""
        return {
            name: {
                **score.figures(),
                "gap_closed": self.gap_closed(name),
                "proxy_percentile": self.proxy_percentile(name),
                "spearman_complexity": self.spearman[name],
            }
            for name, score in self.scores.items()
        }
