"""The metrics that GRPO logs per round, named as in Stable-Baselines3 and TRL."""

from __future__ import annotations

import math

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import ProgressBarCallback
from torch import Tensor
from tqdm.std import tqdm

from vaportok_rl.agents.grpo.rollout import GroupRollout, SceneRollout
from vaportok_rl.envs import TokenRange


def reward_metrics(rollout: GroupRollout) -> dict[str, Tensor]:
    """Mean and standard deviation of each term, and the spread of rewards within groups.

    ``frac_reward_zero_std`` is the share of groups with equal rewards, which give no gradient.
    """
    total = rollout.rewards.total
    metrics: dict[str, Tensor] = {}
    for name, value in rollout.rewards.terms.items():
        metrics |= {f"rewards/{name}/mean": value.mean(), f"rewards/{name}/std": value.std()}
        weight = rollout.rewards.weights[name]
        if isinstance(weight, Tensor):
            measure = name.removeprefix("constraint_")
            metrics |= {f"constraint/{measure}/multiplier": weight, f"constraint/{measure}/violation": -value.mean()}
    return metrics | {
        "rewards/total/mean": total.mean(),
        "rewards/reward_std": total.std(0).mean(),
        "rewards/frac_reward_zero_std": (total == total[:1]).all(0).float().mean(),
    }


def length_metrics(rollout: SceneRollout, allowed: TokenRange) -> dict[str, Tensor]:
    """Statistics of the sampled lengths, in which a collapse is visible at once, and reconstruction quality."""
    outcome = rollout.outcome
    lengths, tokens = outcome.n_tokens, outcome.tokens
    shares = torch.bincount(lengths.flatten() - 1, minlength=tokens).float() / lengths.numel()
    return {
        "lengths/mean_tokens": lengths.float().mean(),
        "lengths/share_smallest": shares[allowed.minimum - 1],
        "lengths/share_largest": shares[allowed.longest - 1],
        "lengths/histogram_entropy": -torch.special.xlogy(shares, shares).sum() / math.log(max(2, tokens)),
        "quality/mse": outcome.mse.mean(),
        "quality/psnr": outcome.psnr.mean(),
    }


def to_numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    """All metrics as floats, in one copy to the host."""
    values = torch.stack([value.float() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))


class DecisionBar(ProgressBarCallback):
    """Stable-Baselines3's progress bar, counting all decisions of a step; in a notebook, tqdm's."""

    def _on_training_start(self) -> None:
        if Console().is_jupyter:  # there, the bar of Stable-Baselines3 is not drawn without ipywidgets
            self.pbar = tqdm(total=self.locals["total_timesteps"] - self.model.num_timesteps, unit="decisions")
        else:
            super()._on_training_start()
        self._counted = self.model.num_timesteps

    def _on_step(self) -> bool:
        self.pbar.update(self.model.num_timesteps - self._counted)
        self._counted = self.model.num_timesteps
        return True
