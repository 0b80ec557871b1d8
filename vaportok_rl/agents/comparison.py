"""Compares policies on the same held-out scenes, relative to the best fixed length and the oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from vaportok_rl.agents.oracle import best_fixed_length, oracle_lengths
from vaportok_rl.agents.scoreboard import HEADINGS, scoreboard_rows
from vaportok_rl.envs import Outcome, OutcomeOfAllLengths, RewardResult, TaildropProcess, VaporReward
from vaportok_rl.envs.rewards.contract import NonFiniteRewardError, not_finite
from vaportok_rl.envs.token_range import TokenRange
from vaportok_rl.evaluation import spearman
from vaportok_rl.evaluation.equal_tokens import EqualTokens, share_between
from vaportok_rl.runtime.html import ShownAsTable, TableParts

BEST_FIXED, ORACLE, WORST = "best_fixed", "oracle", "worst"


@dataclass(frozen=True)
class PolicyScore:
    """The score of a policy's lengths.

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

    def by_path(self) -> dict[str, Tensor]:
        """Means per path, ``float32 [P]``: tokens, mse, psnr, accuracy, measures, reward, unweighted terms."""
        outcome = self.outcome
        return {
            "tokens": self.n_tokens.float().mean(-1),
            "mse": outcome.mse[0].mean(-1),
            "psnr": outcome.psnr[0].mean(-1),
            "accuracy": outcome.accuracy[0].mean(-1),
            **{name: value[0].mean(-1) for name, value in outcome.measures.items()},
            "reward": self.rewards.total[0],
            **{f"reward_{name}": value[0] for name, value in self.rewards.terms.items()},
        }

    def lengths_and_errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lengths and errors ``[P, L]`` on the host, for `EqualTokens`."""
        return self.n_tokens.double().cpu().numpy(), self.outcome.mse[0].double().cpu().numpy()

    def metrics(self) -> dict[str, float]:
        """Metrics: means of `by_path` over the scenes."""
        return {name: value.mean().item() for name, value in self.by_path().items()}


@dataclass(frozen=True)
class Bounds:
    """Best-fixed, oracle and worst scores on the same scenes.

    Attributes:
        best_fixed: the best single length, ``int64 [P, L]``.
        oracle: the best lengths found.
        worst: the worst lengths found.
    """

    best_fixed: PolicyScore
    oracle: PolicyScore
    worst: PolicyScore

    def gap_closed(self, reward: float) -> float:
        """Share of the gap between best fixed length and oracle that a reward closes; see `share_between`."""
        return float(share_between(reward, self.best_fixed.reward, self.oracle.reward))


class HeldOut:
    """Held-out scenes with the outcomes of all lengths, so that scoring a policy is a lookup.

    Args:
        process: an MDP with ``split="test"``; may run on an outcome table.
        scenes: maximum number of scenes.
        seed: decides which clips and in which order.
        on_scene: called after each scene is scored, for progress.

    Attributes:
        process: the MDP.
        every: the outcomes of all lengths.
        scene: the scenes.
        score: complexity score of their clips, ``float32 [P, L]``.
        repeated: number of clips that occur more than once, if the source has too few.
    """

    def __init__(self, process: TaildropProcess, scenes: int, seed: int = 0, on_scene: Any = None) -> None:
        self.process = process
        outcomes: list[OutcomeOfAllLengths] = []
        for rows in process.held_out(scenes, seed):
            outcomes.append(process.engine.score_all(process.engine.open(np.array([rows], dtype=np.int64))))
            if on_scene is not None:
                on_scene()
        self.every = OutcomeOfAllLengths.joined(outcomes)
        self.scene = self.every.scene
        process.engine.remember(self.every)  # policies look up the same outcomes
        self.score = process.engine.complexity_scale.score(self.scene.complexity)
        first = {process.source.first_alike(index) for index in self.scene.ids.flatten().tolist()}
        self.repeated = self.scene.ids.numel() - len(first)
        self._bounds: tuple[VaporReward, dict[str, float], Bounds] | None = None

    def evaluate(self, n_tokens: Tensor) -> PolicyScore:
        """Scores lengths ``int64 [P, L]``, clipped to the MDP's token range and budget.

        Raises:
            NonFiniteRewardError: a reward term is not finite.
        """
        outcome, rewards = self.process.judge(n_tokens[None], self.every.take)
        fault = not_finite(rewards.raw, outcome.n_tokens, self.scene.ids)
        if fault:
            raise NonFiniteRewardError(fault)
        return PolicyScore(outcome.n_tokens[0], outcome, rewards)

    @property
    def bounds(self) -> Bounds:
        """Best fixed length, oracle and worst lengths under the current reward; cached per reward."""
        reward, allowed = self.process.reward, self.process.token_range
        weights = reward.weights_now()
        if self._bounds is None or self._bounds[0] is not reward or self._bounds[1] != weights:
            fixed = torch.full_like(self.scene.ids, best_fixed_length(self.every, reward, allowed))
            found = Bounds(
                best_fixed=self.evaluate(fixed),
                oracle=self.evaluate(oracle_lengths(self.every, reward, (fixed,), allowed=allowed)),
                worst=self.evaluate(oracle_lengths(self.every, reward, (fixed,), worst=True, allowed=allowed)),
            )
            self._bounds = reward, weights, found
        return self._bounds[2]

    def compare(self, policies: Mapping[str, Tensor]) -> Comparison:
        """Scores policies' lengths, the best fixed length, the oracle and the worst lengths.

        If a policy beats the oracle on a path, or is below the worst, the search restarts from its lengths. The oracle
        and the worst lengths therefore bound every policy on every path.
        """
        bounds = self.bounds
        scores = {name: self.evaluate(lengths) for name, lengths in policies.items()}
        scores[BEST_FIXED] = bounds.best_fixed
        scores[ORACLE] = self._beyond(bounds.oracle, scores.values(), worst=False)
        worst = self._beyond(bounds.worst, scores.values(), worst=True)
        ranks = {name: spearman(score.n_tokens.float(), self.score) for name, score in scores.items()}
        return Comparison(scores, worst, ranks, self.every, self.process.token_range)

    def _beyond(self, bound: PolicyScore, scores: Iterable[PolicyScore], worst: bool) -> PolicyScore:
        sign = -1 if worst else 1
        starts = tuple(
            score.n_tokens for score in scores if (sign * (score.rewards.total - bound.rewards.total) > 0).any()
        )
        if not starts:
            return bound
        searched = (bound.n_tokens, *starts)
        reward, allowed = self.process.reward, self.process.token_range
        return self.evaluate(oracle_lengths(self.every, reward, searched, worst=worst, allowed=allowed))


@dataclass(frozen=True, repr=False)
class Comparison(ShownAsTable):
    """Scores of all policies on the same scenes.

    Attributes:
        scores: by policy name, with `BEST_FIXED` and `ORACLE` among them.
        worst: the worst lengths.
        spearman: rank correlation of each policy's lengths with the complexity score.
        every: outcome of every length on these scenes.
        allowed: which lengths could be kept.
    """

    scores: dict[str, PolicyScore]
    worst: PolicyScore
    spearman: dict[str, float]
    every: OutcomeOfAllLengths
    allowed: TokenRange

    def reward(self, name: str) -> float:
        """Mean path reward of a policy."""
        return self.scores[name].reward

    @property
    def headroom(self) -> float:
        """R_oracle - R_best-fixed: the maximum gain from adapting to the clip."""
        return self.reward(ORACLE) - self.reward(BEST_FIXED)

    @property
    def headroom_share(self) -> float:
        """Headroom as a share of R_oracle - R_worst."""
        return 1 - self.percentile(BEST_FIXED)

    @property
    def oracle_length_iqr(self) -> float:
        """Interquartile range of the oracle's lengths: 0 where one length suits all clips."""
        return float(stats.iqr(self.scores[ORACLE].n_tokens.cpu().numpy()))

    def gap_closed(self, name: str) -> float:
        """(R - R_best-fixed) / (R_oracle - R_best-fixed); 1 is the oracle, negative is worse than the best fixed n."""
        return float(share_between(self.reward(name), self.reward(BEST_FIXED), self.reward(ORACLE)))

    def percentile(self, name: str) -> float:
        """(R - R_worst) / (R_oracle - R_worst)."""
        return float(share_between(self.reward(name), self.worst.reward, self.reward(ORACLE)))

    @cached_property
    def equal_tokens(self) -> EqualTokens:
        """Errors of fixed lengths and of the best allocation on these clips; the latter bounds every policy."""
        low, high = self.allowed.minimum, self.allowed.longest
        return EqualTokens(self.every.errors(low, high).double().cpu().numpy(), low)

    def savings(self, name: str) -> dict[str, float]:
        """Error saved against a fixed length with as many tokens, and as a share of the maximum saving."""
        return self.equal_tokens.savings(*self.scores[name].lengths_and_errors())

    def allocation(self, name: str) -> dict[str, float]:
        """How a policy allocates its tokens.

        Returns:
            ``median_tokens``; ``share_smallest`` and ``share_largest``, of decisions at the ends of the allowed range;
            ``spearman_complexity``, ``spearman_spatial`` and ``spearman_temporal``, rank correlations of the length
            with the complexity score, SC and TC.
        """
        lengths = self.scores[name].n_tokens
        spatial, temporal = (spearman(lengths.float(), part) for part in self.every.complexity.unbind(-1))
        return {
            "median_tokens": float(np.median(lengths.cpu().numpy())),
            "share_smallest": (lengths == self.allowed.minimum).float().mean().item(),
            "share_largest": (lengths == self.allowed.longest).float().mean().item(),
            "spearman_complexity": self.spearman[name],
            "spearman_spatial": spatial,
            "spearman_temporal": temporal,
        }

    def results(self) -> dict[str, dict[str, float]]:
        """Metrics by policy: `PolicyScore.metrics`, `savings`, `gap_closed`, `proxy_percentile`, `allocation`."""
        return {
            name: {
                **score.metrics(),
                **self.savings(name),
                "gap_closed": self.gap_closed(name),
                "proxy_percentile": self.percentile(name),
                **self.allocation(name),
            }
            for name, score in self.scores.items()
        }

    def _shown(self) -> TableParts:
        scenes, length = self.every.scene.shape
        return f"{scenes} scenes of {length} clips", HEADINGS, scoreboard_rows(self.results())
