"""Credit assignment: from reward terms to the advantage of each decision, sampled or exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaportok_rl.agents.objective import ScaleRewards, decoupled_advantage, group_advantage, weighted_sum
from vaportok_rl.envs import OutcomeOfAllLengths, RewardResult
from vaportok_rl.envs.process import Judged, Score
from vaportok_rl.runtime.ranks import Processes

Credit = Literal["path", "clip"]
RewardAggregation = Literal["sum_then_normalize", "normalize_then_sum"]


@dataclass(frozen=True)
class CreditRule:
    """How rewards become advantages.

    Attributes:
        credit: ``"path"``: each decision is credited with the reward of its path; ``"clip"``: with its clip's part of
            it and the path terms. Before scaling and without a token budget, both have the same expected policy
            gradient.
        scale_rewards: see `group_advantage`.
        aggregation: ``"sum_then_normalize"`` (DeepSeekMath) or ``"normalize_then_sum"`` (`decoupled_advantage`).
        eps: added to standard deviations.
    """

    credit: Credit = "path"
    scale_rewards: ScaleRewards = "group"
    aggregation: RewardAggregation = "sum_then_normalize"
    eps: float = 1e-4

    def signals(self, rewards: RewardResult) -> tuple[Tensor, Tensor]:
        """Rewards to compare within a group: ``[M, G, P, L]`` unweighted terms (L = 1 for paths) and ``[M]`` weights.

        M = 1, the weighted sum, unless terms are normalised separately.
        """
        if self.credit == "path":
            terms = [value[..., None] for value in rewards.terms.values()]
        else:
            length = rewards.path_length
            # Only what this decision affects; other clips' terms add variance.
            terms = [
                value / length if value.dim() == 3 else value[..., None].expand(*value.shape, length)
                for value in rewards.raw.values()
            ]
        stacked = torch.stack(terms)
        weights = rewards.weight_vector
        if self.aggregation == "normalize_then_sum":
            return stacked, weights
        return weighted_sum(stacked, weights)[None], torch.ones_like(weights[:1])

    def sampled_advantage(self, rewards: RewardResult) -> Tensor:
        """Group-relative advantage of each sampled decision: ``[G, P, L]``; for paths ``[G, P, 1]``."""
        signals, weights = self.signals(rewards)
        if self.aggregation == "normalize_then_sum":
            return decoupled_advantage(signals, weights, self.eps)
        return group_advantage(signals[0], self.eps, self.scale_rewards)

    def conditional_signals(
        self, every: OutcomeOfAllLengths, actions: Tensor, judge: Callable[[Tensor, Score], Judged]
    ) -> tuple[Tensor, Tensor]:
        """Rewards of each path with any other length at one clip, its other lengths unchanged.

        Args:
            every: all K lengths of P scenes.
            actions: ``int64 [G, P, L]``, as sampled.
            judge: `TaildropProcess.judge`, applied to the changed paths: with a budget, a longer clip may shorten later
                ones.

        Returns:
            ``[M, G, P, L, K]`` terms and ``[M]`` weights, as by `signals`.
        """
        tokens, length = every.tokens, actions.shape[-1]
        choices = torch.arange(tokens, device=actions.device)[:, None, None, None]
        columns = []
        for clip in range(length):
            here = torch.arange(length, device=actions.device) == clip
            changed = torch.where(here, choices, actions).flatten(0, 1) + 1
            terms, weights = self.signals(judge(changed, every.take).rewards)
            column = terms[..., clip if self.credit == "clip" else 0]
            columns.append(column.unflatten(1, (tokens, -1)).movedim(1, -1))
        return torch.stack(columns, 3), weights

    def exact_advantage(
        self, conditional: tuple[Tensor, Tensor], log_p: Tensor, sampled: RewardResult, processes: Processes
    ) -> Tensor:
        """Advantage of every length at every decision, given the path's other lengths.

        Weighted by the policy's probabilities, its policy gradient is the expectation of the sampled one over the
        decision's own length (Rao–Blackwell); it is exact if no term couples clips and there is no budget. The baseline
        is the exact conditional mean. The group's standard deviation is replaced by its expectation over single
        decisions; for paths these variances are summed over the clips, which is exact if clips do not interact
        (Efron–Stein).

        Args:
            conditional: from `conditional_signals`.
            log_p: ``[P, L, K]``, the sampling policy.
            sampled: rewards of all ranks' paths, for the batch's standard deviation.
            processes: the ranks that share the batch.

        Returns:
            ``[G, P, L, K]``.
        """
        signals, weights = conditional
        probability = log_p.exp()
        centred = signals - (signals * probability).sum(-1, keepdim=True)
        # As in `group_advantage`: rounding of the mean is not an advantage.
        centred = torch.where((signals == signals[..., :1]).all(-1, keepdim=True), 0.0, centred)
        if self.aggregation == "normalize_then_sum":
            each = centred / (self._spread(centred, probability) + self.eps)
            summed = weighted_sum(each, weights)
            batch = processes.gather(self._spread(summed[None], probability).square().flatten(2)[0, 0], 0)
            return summed / (batch.mean().sqrt() + self.eps)
        if self.scale_rewards == "none":
            return centred[0]
        if self.scale_rewards == "batch":
            return centred[0] / (self.signals(sampled)[0].std(correction=1) + self.eps)
        return centred[0] / (self._spread(centred, probability)[0] + self.eps)

    def candidate_advantage(self, conditional: tuple[Tensor, Tensor], log_p: Tensor) -> Tensor:
        """Advantage of a fixed group of lengths at every decision, as AdaTok compares budgets (arXiv 2606.07185).

        The G lengths are K / G, 2 · K / G … K, equally weighted, for any policy. AdaTok trains its selector so;
        details that its paper leaves open follow GRPO.

        Args:
            conditional: from `conditional_signals`, terms summed.
            log_p: ``[P, L, K]``, the sampling policy. Advantages are divided by its probabilities, so that the loss,
                which multiplies by them, weights all candidates equally.

        Returns:
            ``[G, P, L, K]``; 0 for lengths that are no candidates.
        """
        signals = conditional[0][0]
        group, tokens = signals.shape[0], signals.shape[-1]
        chosen = (torch.arange(1, group + 1, device=signals.device) * tokens).div(group, rounding_mode="floor") - 1
        advantage = group_advantage(signals[..., chosen].movedim(-1, 0), self.eps).movedim(0, -1)
        evenly = advantage / (group * log_p[..., chosen].exp())
        return torch.zeros_like(signals).index_copy(-1, chosen, evenly)

    def _spread(self, centred: Tensor, probability: Tensor) -> Tensor:
        """Standard deviation of a group: ``[M, G, P, L, K]`` to ``[M, 1, P, L or 1, 1]``."""
        variance = (centred.square() * probability).sum(-1).mean(1, keepdim=True)
        if self.credit == "path":
            variance = variance.sum(-1, keepdim=True)
        return variance[..., None].sqrt()
