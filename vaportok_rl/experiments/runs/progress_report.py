"""Stable-Baselines3 callback of a training run: learning curves, held-out evaluation, checkpoints, a clean Ctrl-C."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vaportok_rl.agents import HeldOut
from vaportok_rl.agents.grpo.rollout import SceneRollout
from vaportok_rl.agents.lengths.scripted import most_probable
from vaportok_rl.evaluation.equal_tokens import EqualTokens
from vaportok_rl.experiments.reports.pictures import comparison_frames, spread_rows
from vaportok_rl.experiments.runs.tensorboard import add_clip

OnRound = Callable[[int, dict[str, float]], None]


class ProgressReport(BaseCallback):
    """Evaluates the agent on held-out scenes during training and stores the curves.

    After each round's update it extends the curves and calls `on_round` and `save`. The clock stops meanwhile:
    ``seconds`` is the time of training alone.

    Args:
        held_out: scenes with the outcomes of all lengths.
        on_round: called with the decisions so far and the current metrics.
        save: called between rounds after `save_every` seconds, and before the first round.
        save_every: seconds.
        every: rounds between held-out evaluations.
        clips_every: rounds between reconstructions in TensorBoard.

    Attributes:
        curves: (decisions, value) pairs by name: ``training`` and ``tokens`` of every round, ``held_out`` (reward),
            ``gap_closed`` and ``saved`` of every held-out evaluation.
        points: a dictionary per held-out evaluation: ``decisions``, ``seconds`` of training, ``gap_closed``,
            `EqualTokens.savings` and `PolicyScore.metrics`.
        rounds: finished rounds, including their update.
        decisions: of these rounds.
        reward_state: of the reward after these rounds; see `RewardState`.
        updating: whether an update is in progress, so that the weights belong to no round.
        stopping: set it to end training without finishing the current round.
    """

    def __init__(
        self,
        held_out: HeldOut,
        on_round: OnRound | None = None,
        save: Callable[[], None] | None = None,
        save_every: float = 30.0,
        every: int = 2,
        clips_every: int = 20,
    ) -> None:
        super().__init__()
        self.held_out = held_out
        self.on_round = on_round
        self.save = save
        self.save_every = save_every
        self.every = every
        self.clips_every = clips_every
        self.curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.points: list[dict[str, float]] = []
        self.live: dict[str, float] = {}
        self.rounds, self.decisions = 0, 0
        self.reward_state = held_out.process.reward.state.as_numbers()
        self.updating = self.stopping = False
        self._clock, self._resumed, self._saved = 0.0, 0.0, -float("inf")
        self._returns: list[float] = []
        self._lengths: list[Tensor] = []

    def record(self) -> dict[str, Any]:
        """The state for `restore`, as plain data."""
        return {
            "rounds": self.rounds,
            "decisions": self.decisions,
            "clock": self._clock,
            "points": self.points,
            "curves": self.curves,
            "reward": self.reward_state,
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Continues the curves of an interrupted run."""
        self.rounds, self.decisions, self._clock = record["rounds"], record["decisions"], record["clock"]
        self.points, self.reward_state = list(record["points"]), record["reward"]
        self.live = {"held_out": self.points[-1]["reward"], "saved": self.points[-1]["saved"]}
        self.curves.clear()
        for name, points in record["curves"].items():
            self.curves[name] = [(decisions, value) for decisions, value in points]

    @cached_property
    def _equal_tokens(self) -> EqualTokens:
        return self.held_out.compare({}).equal_tokens

    def lengths(self) -> Tensor:
        """The policy's most probable lengths on the held-out scenes: ``int64 [P, L]``."""
        policy: Any = self.model.policy
        policy.set_training_mode(False)
        chosen = most_probable(policy.length_log_probs)
        return chosen(self.held_out.scene, torch.Generator()).n_tokens

    def evaluate(self) -> None:
        """Adds a point to the held-out curves, at most one per number of decisions."""
        if self.points and self.points[-1]["decisions"] == self.decisions:
            return
        score = self.held_out.evaluate(self.lengths())
        metrics = score.metrics() | self._equal_tokens.savings(*score.lengths_and_errors())
        metrics["gap_closed"] = self.held_out.bounds.gap_closed(metrics["reward"])
        for curve, metric in (("held_out", "reward"), ("gap_closed", "gap_closed"), ("saved", "saved")):
            self.curves[curve].append((self.decisions, metrics[metric]))
        self.points.append({"decisions": self.decisions, "seconds": self._clock, **metrics})
        self.live |= {"held_out": metrics["reward"], "saved": metrics["saved"]}
        for name, metric in (("mean_tokens", "tokens"), ("saved", "saved"), ("reward", "reward"), ("gap_closed",) * 2):
            self.logger.record(f"held_out/{name}", metrics[metric])
        constraint = self.held_out.process.reward.held
        if constraint is not None:
            for name in ("multiplier", "violation"):
                self.logger.record(f"constraint/{constraint.measure}/{name}", self.reward_state[name])

    def _on_training_start(self) -> None:
        if not self.points:
            self.evaluate()
        self._resumed = time.perf_counter()

    def _on_rollout_start(self) -> None:
        self._between_rounds()

    def _on_training_end(self) -> None:
        self._between_rounds()
        if not self.stopping:
            self.evaluate()
        self.logger.dump(self.decisions)

    def _on_step(self) -> bool:
        self._returns += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        if "rollout" not in self.locals:
            self._lengths.append(torch.tensor([int(info["n_tokens"]) for info in self.locals["infos"]]))
        elif isinstance(self.locals["rollout"], SceneRollout):
            self._lengths.append(self.locals["rollout"].outcome.n_tokens.flatten())
        return not self.stopping

    def _on_rollout_end(self) -> None:
        self.updating = True

    def _between_rounds(self) -> None:
        now = time.perf_counter()
        self._clock += now - self._resumed
        if self.updating:
            self.updating = False
            self.rounds, self.decisions = self.rounds + 1, self.num_timesteps
            self.reward_state = self.held_out.process.reward.state.as_numbers()
            self._report()
        self._returns, self._lengths = [], []
        if self.save is not None and now - self._saved > self.save_every:
            self.save()
            self._saved = time.perf_counter()
        self._resumed = time.perf_counter()

    def _report(self) -> None:
        lengths = torch.cat(self._lengths)
        reward, tokens = float(np.mean(self._returns)), lengths.float().mean().item()
        self.curves["training"].append((self.decisions, reward))
        self.curves["tokens"].append((self.decisions, tokens))
        self.live |= {"reward": reward, "tokens": tokens}
        writer = self.writer()
        if self.rounds % self.every == 0:
            self.evaluate()
        if writer is not None:
            writer.add_histogram("lengths/histogram", lengths, self.decisions)
            if self.rounds % self.clips_every == 1:
                held = self.held_out
                rows = spread_rows(held.score, 6)
                frames = comparison_frames(held.process.engine, held.scene, self.lengths(), rows, size=64)
                add_clip(writer, "reconstructions", frames, self.decisions)
            self.logger.dump(self.decisions)
        if self.on_round is not None:
            self.on_round(self.decisions, dict(self.live))

    def writer(self) -> SummaryWriter | None:
        """The TensorBoard writer of the model's logger, if it has one."""
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                return output.writer
        return None
