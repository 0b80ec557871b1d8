"""Methods without gradients: random, fixed, fitted rules, look-ahead planning, and the oracle."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.agents.oracle import best_spending, spend_once
from vaportok_rl.benchmark.arena import Act, Arena, as_act
from vaportok_rl.benchmark.methods.method import Run, network
from vaportok_rl.envs import State, TensorEnv

# Grid size at either end of the affine rule; its square is the number of candidates.
_GRID = 33
# Training scenes on which rules are fitted.
_SCENES = 128
_EPOCHS, _BATCH, _LEARNING_RATE = 30, 64, 1e-3
# Strengths of the ridge regression, per clip; the validation scenes choose.
_RIDGES = (0.1, 1.0, 10.0)


def training_scenes(arena: Arena, scenes: int = _SCENES) -> Tensor:
    """The first of the fixed training scenes, ``int64 [P, L]``."""
    return arena.scenes("train")[:scenes]


def random(run: Run) -> Act:
    """Uniform over 1 … K."""
    generator = run.generator()
    return lambda env, state: torch.randint(env.tokens, (len(state.purse),), generator=generator).to(env.device)


def best_fixed(run: Run) -> Act:
    """The length with the highest reward on training scenes."""
    best = int(run.arena.fixed_rewards("train").argmax())
    return lambda env, state: torch.full_like(state.purse, best)


def complexity_affine(run: Run) -> Act:
    """``n = a + b · score`` of the clip's complexity; a and b with the highest reward on training scenes."""
    env, scenes = run.arena.env("train"), training_scenes(run.arena)
    share = env.engine.config.complexity.temporal_share
    ends = torch.linspace(-env.tokens / 2, 1.5 * env.tokens, _GRID)
    rules = torch.cartesian_prod(ends, ends).to(env.device)

    def rounded(env: TensorEnv, state: State, low: Tensor, high: Tensor) -> Tensor:
        quantiles = env.features[state.rows[:, state.step], :2]
        score = (1 - share) * quantiles[:, 0] + share * quantiles[:, 1]
        return torch.lerp(low, high, score).round().clamp(1, env.tokens).long() - 1

    low, high = rules.repeat_interleave(len(scenes), 0).T
    _, rewards = env.play(scenes.repeat(len(rules), 1), lambda env, state: rounded(env, state, low, high))
    best = rules[rewards.sum(1).view(len(rules), -1).mean(1).argmax()]
    return lambda env, state: rounded(env, state, best[0], best[1])


def router(run: Run) -> Act:
    """A network taught the oracle's lengths of training scenes by cross-entropy (EVATok, arXiv 2603.12267).

    The passes with the highest reward on the validation scenes are kept. On sequential tasks it does not see the purse.
    """
    env, arena = run.arena.env("train"), run.arena
    labels = (arena.oracle("train") - 1).flatten()
    seen, policy, width = env.features[arena.scenes("train").flatten()], network(run), env.features.shape[1]
    blind = torch.zeros(1, env.width - width, device=env.device)

    def observed(features: Tensor) -> Tensor:
        return torch.cat([features, blind.expand(len(features), -1)], 1)

    act = as_act(lambda observations: policy(observed(observations[:, :width])))
    optimizer = torch.optim.Adam(policy.parameters(), lr=_LEARNING_RATE)
    generator, best, kept = run.generator(), -float("inf"), policy.state_dict()
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).to(env.device).split(_BATCH):
            loss = F.cross_entropy(policy(observed(seen[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        score = arena.score("validation", arena.play("validation", act))
        if score > best:
            best, kept = score, copy.deepcopy(policy.state_dict())
    policy.load_state_dict(kept)
    return act


def planner(run: Run) -> Act:
    """Predicts what each length of each visible clip earns, and spends the purse best by dynamic programming.

    The prediction is a ridge regression of the logarithm of the error on the clips' features. What is left after the
    window is worth the expected best reward of later clips, by dynamic programming over the training clips. It replans
    at every clip (receding horizon). Without a window it looks at the current clip and the purse alone.
    """
    return _planner(run, run.arena.task.window)


def value(run: Run) -> Act:
    """`planner` that sees the current clip and the purse, but none of the following clips."""
    return _planner(run, 0)


def _planner(run: Run, window: int) -> Act:
    """The planner with the ridge that scores best on the validation scenes."""
    arena = run.arena

    def score(act: Act) -> float:
        return arena.score("validation", arena.play("validation", act))

    return max((_with_ridge(arena.env("train"), arena.scenes("train"), window, ridge) for ridge in _RIDGES), key=score)


def _with_ridge(env: TensorEnv, scenes: Tensor, window: int, ridge: float) -> Act:
    rows = scenes.flatten()
    losses = env.values(rows).T.neg().clamp(min=1e-9).log()  # [N, options]; the tasks with a purse pay -error alone
    features = F.pad(env.features[rows], (0, 1), value=1.0)
    shrink = torch.full_like(features[0], ridge * len(rows))
    shrink[-1] = 1e-6  # the mean stays
    weights = torch.linalg.solve(features.T @ features + shrink.diag(), features.T @ losses)

    worth = expected_worth(env, -(features @ weights).exp())

    def act(env: TensorEnv, state: State) -> Tensor:
        last = min(env.path_length, state.step + 1 + window)
        seen = F.pad(env.features[state.rows[:, state.step : last]], (0, 1), value=1.0)
        values = -(seen @ weights).exp()
        spent = best_spending(values.movedim(-1, 0), env.purse, state.purse, worth[last])
        return env.minimum + spent[:, 0] - 1

    return act


def expected_worth(env: TensorEnv, earned: Tensor) -> Tensor:
    """What a purse is worth before each clip if later clips are drawn independently and each is spent on optimally.

    Args:
        env: whose purse.
        earned: ``[N, options]``, what each of N clips earns by tokens beyond the minimum.

    Returns:
        ``[L + 1, capacity + 1]``, the expected reward of the clips from each place on.
    """
    worth = [torch.zeros(env.purse.capacity + 1, device=earned.device)]
    for _ in range(env.path_length):
        best, _ = spend_once(earned.T, env.purse, worth[-1][None])
        worth.append(best.mean(0))
    return torch.stack(worth[::-1])


def oracle(run: Run) -> Act:
    """The best allowed lengths of each path, which knows all outcomes: the ceiling, not a competitor."""
    known = {part: (run.arena.scenes(part), run.arena.oracle(part)) for part in ("validation", "test")}

    def act(env: TensorEnv, state: State) -> Tensor:
        for scenes, lengths in known.values():
            if scenes.shape == state.rows.shape and torch.equal(scenes, state.rows):
                return lengths[:, state.step] - 1
        raise ValueError("Expected the validation or the test scenes, got others; the oracle knows only these.")

    return act
