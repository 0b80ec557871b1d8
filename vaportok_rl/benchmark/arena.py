"""A task made ready: environments and fixed scenes of each split, bounds, and scores of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.agents.lengths.custom import arguments_of, checked_answer
from vaportok_rl.agents.oracle import best_spending, oracle_lengths
from vaportok_rl.benchmark.scoring import hypervolume
from vaportok_rl.benchmark.tables import find_table
from vaportok_rl.benchmark.tasks import TABLES, TASKS, Task
from vaportok_rl.envs import OutcomeOfAllLengths, State, TaildropProcess, TensorEnv
from vaportok_rl.evaluation.equal_tokens import EqualTokens, share_between
from vaportok_rl.runtime.messages import did_you_mean

Part = Literal["train", "validation", "test"]
Act = Callable[[TensorEnv, State], Tensor]
"""From an environment and a state of B paths to actions ``int64 [B]``."""
Policy = Callable[[Tensor], Tensor]
"""From observations ``float32 [B, F]`` to logits ``float [B, K]`` or actions ``int64 [B]``; a torch module, say."""


def as_act(policy: Policy | Act) -> Act:
    """A policy on observations, as it is scored: the most probable allowed action. An `Act` is given back as it is.

    Raises:
        ValueError: when called, the policy returns neither logits nor actions.
    """
    if not isinstance(policy, torch.nn.Module) and arguments_of(policy) == 2:
        return policy  # type: ignore[return-value]  # of an environment and a state
    network: Callable[[Tensor], object] = policy  # type: ignore[assignment]  # of observations

    @torch.no_grad()
    def act(env: TensorEnv, state: State) -> Tensor:
        seen = f"observations float32 [B, {env.width}]"
        found = checked_answer(network(env.observe(state)), len(state.purse), env.tokens, "the policy", seen)
        if found.is_floating_point():
            return found.masked_fill(~env.action_masks(state), -torch.inf).argmax(-1)
        return found

    return act


@dataclass(frozen=True)
class Bounds:
    """Mean path rewards, or hypervolumes, between which a score lies.

    Attributes:
        fixed: of the best single length on these scenes: score 0.
        oracle: of the best allowed lengths, which knows all outcomes: score 1.
    """

    fixed: float
    oracle: float

    def at(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rewards, or hypervolumes, of scores."""
        return self.fixed + scores * (self.oracle - self.fixed)


class Arena:
    """A task with its table opened.

    Args:
        task: a task, or its name.
        table: folder of its outcome table; the pinned one by default.
        weights: with objectives, the weights of the scalar reward; the first of the sweep by default.

    Raises:
        ValueError: there is no such task, or the table does not match.
        FileNotFoundError: the table is missing.
    """

    def __init__(self, task: Task | str, table: str | Path | None = None, weights: tuple[float, ...] = ()) -> None:
        self.task = task if isinstance(task, Task) else task_named(task)
        self.table = Path(table) if table is not None else find_table(self.task.table)
        self.weights = weights
        self._envs: dict[Part, TensorEnv] = {}
        self._bounds: dict[Part, Bounds] = {}

    def env(self, part: Part) -> TensorEnv:
        """The environment of a part; scenes are drawn from its clips."""
        if part not in self._envs:
            task = self.task
            process = TaildropProcess(
                table=str(self.table),
                split="test" if part == "test" else "train",
                path_length=task.path_length,
                ordering=task.ordering,
                token_budget=task.token_budget,
                reward=task.reward(self.weights),
                obs="complexity",
            )
            rows = self._rows(part, len(process.source))
            self._envs[part] = TensorEnv(process, features="summary", window=task.window, rows=rows, purse=task.purse)
        return self._envs[part]

    def _rows(self, part: Part, clips: int) -> range:
        spec = TABLES[self.task.table]
        # Tables of other sizes, as in tests, are divided in the same proportion.
        train = clips * spec.train // (spec.train + spec.validation)
        length = self.task.path_length
        train = train // length * length
        return {"train": range(train), "validation": range(train, clips), "test": range(clips)}[part]

    def scenes(self, part: Part) -> Tensor:
        """The scenes on which a part is measured, ``int64 [P, L]``: each clip once, always the same."""
        env, length = self.env(part), self.task.path_length
        rows = torch.tensor(self._rows(part, len(env.process.source)))
        if self.task.ordering == "independent":
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        return rows[: len(rows) // length * length].view(-1, length).to(env.device)

    def every(self, part: Part) -> OutcomeOfAllLengths:
        """The outcomes of all lengths on a part's scenes."""
        engine = self.env(part).engine
        return engine.score_all(engine.scene(self.scenes(part)))

    def play(self, part: Part, act: Act) -> Tensor:
        """The lengths that a policy keeps on a part's scenes: ``int64 [P, L]``."""
        return self.env(part).play(self.scenes(part), act)[0].n_tokens

    def reward(self, part: Part, n_tokens: Tensor) -> float:
        """Mean path reward of lengths ``int64 [P, L]`` on a part's scenes, clipped to what is allowed."""
        chosen = n_tokens.to(self.env(part).device)
        _, rewards = self.env(part).play(self.scenes(part), lambda env, state: chosen[:, state.step] - 1)
        return rewards.sum(1).double().mean().item()

    def oracle(self, part: Part) -> Tensor:
        """The best allowed lengths ``int64 [P, L]``: exact without path terms, else by `oracle_lengths`."""
        env = self.env(part)
        if self.task.sequential:
            return best_spending(env.values(self.scenes(part)), env.purse) + env.minimum
        return oracle_lengths(self.every(part), env.process.reward, allowed=env.process.token_range)

    def fixed_rewards(self, part: Part) -> Tensor:
        """Mean path reward of every fixed length, clipped to what is allowed: ``float64 [K]``."""
        env, scenes = self.env(part), self.scenes(part)
        rows = scenes.repeat(env.tokens, 1)
        actions = torch.arange(env.tokens, device=env.device).repeat_interleave(len(scenes))
        _, rewards = env.play(rows, lambda env, state: actions)
        return rewards.sum(1).double().view(env.tokens, -1).mean(1)

    def bounds(self, part: Part) -> Bounds:
        """The rewards with scores 0 and 1 on a part's scenes."""
        if part not in self._bounds:
            fixed = self.fixed_rewards(part).max().item()
            self._bounds[part] = Bounds(fixed, self.reward(part, self.oracle(part)))
        return self._bounds[part]

    def score(self, part: Part, n_tokens: Tensor) -> float:
        """The normalised score of lengths: 0 is the best fixed length, 1 the oracle."""
        bounds = self.bounds(part)
        return float(share_between(self.reward(part, n_tokens), bounds.fixed, bounds.oracle))

    def saved(self, part: Part, n_tokens: Tensor) -> float:
        """Error saved against a fixed length with as many tokens; see `EqualTokens`."""
        every = self.every(part)
        errors = EqualTokens(every.errors(1, self.env(part).tokens).double().cpu().numpy())
        return errors.savings(n_tokens.cpu(), every.take(n_tokens[None].to(every.mse.device)).mse.cpu())["saved"]

    def vector(self, part: Part, n_tokens: Tensor) -> list[float]:
        """Mean reward vector of lengths ``int64 [P, L]``, one entry per objective."""
        terms = self.env(part).process.reward(self.every(part).take(n_tokens[None]), grouped=False).terms
        return [terms[name].double().mean().item() for name in self.task.objectives]

    @cached_property
    def sweep_volumes(self) -> Bounds:
        """Hypervolumes, on the test scenes, of the best fixed and of the best lengths for the task's weightings."""
        return Bounds(
            self.volume(self.front("test", self.task.sweep, fixed=True)),
            self.volume(self.front("test", self.task.sweep)),
        )

    @cached_property
    def front_volume(self) -> float:
        """Hypervolume of the known front on the test scenes."""
        return self.volume(self.front("test"))

    def front(
        self, part: Part, weightings: Iterable[Sequence[float]] | None = None, fixed: bool = False
    ) -> list[list[float]]:
        """Points of the Pareto front: the oracle's reward vectors for each of the weightings.

        The objectives are clip terms, so that for each weighting the best length of each clip is optimal, exactly.

        Args:
            part: its scenes are scored.
            weightings: of the objectives; a grid of 136 on the simplex by default.
            fixed: give the best single length's reward vectors instead.
        """
        every = self.every(part)
        raw = self.env(part).process.reward(every, grouped=False).raw
        terms = torch.stack([raw[name] for name in self.task.objectives], -1).double()
        if fixed:
            terms = terms.mean((1, 2), keepdim=True).expand_as(terms)
        found = []
        for weights in simplex(len(self.task.objectives), 15) if weightings is None else weightings:
            best = (terms @ torch.tensor(weights, dtype=torch.float64)).argmax(0) + 1
            found.append(self.vector(part, best))
        return found

    def volume(self, points: Iterable[Iterable[float]]) -> float:
        """Hypervolume of reward vectors above the reference point: the vector of the worst of each objective.

        That is 0 for `efficiency` and `generation`, and the error of a single token for `reconstruction`.
        """
        return hypervolume([list(point) for point in points], self.reference)

    @cached_property
    def reference(self) -> list[float]:
        """The reference point: the lowest of each objective over all fixed lengths on the test scenes."""
        every = self.every("test")
        fixed = torch.tensor([self.vector("test", lengths) for lengths in every.n_tokens])
        lowest: list[float] = fixed.min(0).values.tolist()
        return lowest


def simplex(parts: int, steps: int) -> list[list[float]]:
    """Weights on a regular grid: all vectors of ``parts`` multiples of 1 / steps that sum to 1."""

    def split(left: int, count: int) -> list[list[int]]:
        if count == 1:
            return [[left]]
        return [[first, *rest] for first in range(left + 1) for rest in split(left - first, count - 1)]

    return [[share / steps for share in shares] for shares in split(steps, parts)]


def task_named(name: str) -> Task:
    """A task by name.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        hint = did_you_mean(name, TASKS, "see `vaportok-rl benchmark tasks`.")
        raise ValueError(f"Expected a task among {', '.join(TASKS)}, got {name!r}; {hint}")
    return TASKS[name]


def score_policy(
    policy: Policy, task: Task | str = "procedural-v1", part: Part = "validation", **options: Any
) -> float:
    """The normalised score of a policy: 0 is the best fixed length, 1 the oracle.

    For example::

        arena = Arena("procedural-v1")
        policy = torch.nn.Linear(arena.env("train").width, 64)
        print(score_policy(policy, "procedural-v1"))

    Args:
        policy: from observations to logits or actions; nothing has to be wrapped.
        task: a task, or its name; without objectives.
        part: ``validation`` while you tune; ``test`` once, at the end.
        **options: of `Arena`.

    Raises:
        ValueError: as for `Arena`, or the policy returns neither logits nor actions.
    """
    arena = Arena(task, **options)
    return arena.score(part, arena.play(part, as_act(policy)))
