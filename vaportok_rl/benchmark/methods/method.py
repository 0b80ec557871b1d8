"""What a method is: from a run to a policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vaportok_rl.agents.policy import gaussian_kernel
from vaportok_rl.benchmark.arena import Act, Arena, Policy, as_act

POINTS = 10
"""Measurements of a learning curve, at most."""


@dataclass
class Run:
    """One training run.

    Attributes:
        arena: the task; a method may read its training and validation parts.
        seed: of all random numbers.
        decisions: of training.
        curve: decisions and normalised score on the validation scenes, in order.
    """

    arena: Arena
    seed: int
    decisions: int
    curve: list[tuple[int, float]] = field(default_factory=list)

    def measure(self, decisions: int, policy: Policy | Act, always: bool = False) -> None:
        """Adds a point to the learning curve, unless the last one is nearer than a tenth of the training."""
        last = self.curve[-1][0] if self.curve else -math.inf
        if (always and decisions > last) or decisions - last >= self.decisions / POINTS:
            lengths = self.arena.play("validation", as_act(policy))
            self.curve.append((decisions, self.arena.score("validation", lengths)))

    def generator(self) -> torch.Generator:
        """Random numbers of this run, on the host."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Method:
    """A row of the leaderboard.

    Attributes:
        name: of its command and folder.
        does: what it does, in one line.
        learn: from a run to a policy.
        sees: what its decisions depend on: ``nothing``, ``clip`` (the current one alone), ``purse`` (and what may still
            be spent), or ``window`` (and the following clips).
        tasks: where it makes sense.
        learns: whether its result depends on the seed.
    """

    name: str
    does: str
    learn: Callable[[Run], Act]
    sees: str = "clip"
    tasks: tuple[str, ...] = ("procedural-v1", "budget-v1", "stream-v1", "pareto-v1")
    learns: bool = True


class Network(nn.Module):
    """Observations ``[B, F]`` to logits ``[B, K]``: one hidden layer, and logits smoothed over neighbouring lengths.

    Args:
        width: F.
        tokens: K.
        smoothing: standard deviation in tokens of the Gaussian that smooths the logits; 0 for none.
        hidden: units of the hidden layer.
    """

    def __init__(self, width: int, tokens: int, smoothing: float = 4.0, hidden: int = 64) -> None:
        super().__init__()
        last = nn.Linear(hidden, tokens)
        self.body = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("kernel", gaussian_kernel(tokens, smoothing), persistent=False)

    def forward(self, observations: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.body(observations) @ self.get_buffer("kernel")
        return logits


def network(run: Run, smoothing: float = 4.0) -> Network:
    """A fresh network for a run's task, from its seed."""
    env = run.arena.env("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return Network(env.width, env.tokens, smoothing).to(env.device)
