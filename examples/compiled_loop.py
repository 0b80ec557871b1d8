"""REINFORCE in a compiled loop, without Gymnasium: observation, policy, sampling, reward and loss in one graph.

`TensorEnv` is pure functions on tensors, so `torch.compile` takes a whole episode. Baseline: the mean return of the
other paths through the same scene.

Run: python examples/compiled_loop.py --task budget-v1
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor, nn

from vaportok_rl.benchmark import Arena, as_act
from vaportok_rl.envs import State, TensorEnv


@dataclass(frozen=True)
class Arguments:
    """REINFORCE on a task of the benchmark."""

    task: str = "budget-v1"
    """The task; one without objectives."""
    table: str | None = None
    """Folder of its outcome table; the pinned one if not given."""
    rounds: int = 40
    """Gradient steps."""
    scenes: int = 32
    """P, scenes per round."""
    group_size: int = 4
    """G, paths through each scene."""
    backend: str = "inductor"
    """Of `torch.compile`; `eager` needs no C++ compiler."""
    seed: int = 0
    """Of all random numbers."""


def episode(env: TensorEnv, policy: nn.Module, state: State, noise: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """The loss and the mean return of one episode of every path; ``noise`` are Gumbel numbers ``[L, B, K]``."""
    returns = log_probs = torch.zeros_like(state.purse, dtype=torch.float32)
    for gumbel in noise:
        logits = policy(env.observe(state)).masked_fill(~env.action_masks(state), -1e9).log_softmax(-1)
        actions = (logits + gumbel).argmax(-1)  # a sample
        log_probs = log_probs + logits.gather(1, actions[:, None])[:, 0]
        state, reward = env.step(state, actions)
        returns = returns + reward
    groups = returns.view(-1, group_size)
    advantage = (groups - (groups.sum(1, keepdim=True) - groups) / (group_size - 1)).flatten()
    return -(advantage / (advantage.std() + 1e-6) * log_probs).mean(), returns.mean()


def main(arguments: Arguments) -> tuple[float, float]:
    """Trains; returns the scores on the validation clips before and after (0: best fixed length, 1: oracle)."""
    torch.manual_seed(arguments.seed)
    arena = Arena(arguments.task, arguments.table)
    env = arena.env("train")
    policy = nn.Sequential(nn.Linear(env.width, 64), nn.Tanh(), nn.Linear(64, env.tokens))
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    play = torch.compile(episode, backend=arguments.backend)
    paths = arguments.scenes * arguments.group_size

    def score() -> float:
        return arena.score("validation", arena.play("validation", as_act(policy)))

    before, started = score(), time.perf_counter()
    for number in range(arguments.rounds):
        state = env.reset(arguments.seed * 100_000 + number, arguments.scenes, arguments.group_size)
        noise = -torch.empty(env.path_length, paths, env.tokens, device=env.device).exponential_().log()
        loss, earned = play(env, policy, state, noise, arguments.group_size)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number == 0:
            print(f"compiled in {time.perf_counter() - started:.1f} s")
            started = time.perf_counter()
    decisions = (arguments.rounds - 1) * paths * env.path_length
    print(f"{decisions / (time.perf_counter() - started):,.0f} decisions/s, last mean return {earned.item():.4f}")
    after = score()
    print(f"score on the validation clips: {before:+.3f} before, {after:+.3f} after")
    return before, after


if __name__ == "__main__":
    main(tyro.cli(Arguments))
