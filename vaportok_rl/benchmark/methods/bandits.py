"""Methods that search without a gradient: LinUCB and the cross-entropy method."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.benchmark.arena import Act
from vaportok_rl.benchmark.methods.method import Run
from vaportok_rl.envs import State, TensorEnv
from vaportok_rl.runtime.seeds import derive_seed

_SCENES = 16
_EXPLORATION, _RIDGE = 0.1, 1.0
_POPULATION, _ELITE, _SPREAD = 32, 6, 2.0


def context(env: TensorEnv, state: State) -> Tensor:
    """``float32 [B, 8]``: 1, the clip's complexity and its squares, the share of the path done, and of the purse."""
    spatial, temporal = env.features[state.rows[:, state.step], :2].unbind(-1)
    share = state.purse / max(1, env.purse.capacity)
    ones = torch.ones_like(spatial)
    done = ones * (state.step / env.path_length)
    return torch.stack([ones, spatial, temporal, spatial**2, temporal**2, spatial * temporal, done, share], -1)


def linucb(run: Run) -> Act:
    """LinUCB with one linear model a length (Li et al. 2010, arXiv 1003.0146), updated after each round of paths.

    A decision is credited with what it is paid at once, and with its share of the path terms; the future of the purse
    is not: a contextual bandit is myopic.
    """
    env, device = run.arena.env("train"), run.arena.env("train").device
    size = 8
    gram = _RIDGE * torch.eye(size, device=device).repeat(env.tokens, 1, 1)
    moment = torch.zeros(env.tokens, size, device=device)

    def bounds(seen: Tensor, exploration: float) -> Tensor:
        inverse = torch.linalg.inv(gram)
        mean: Tensor = seen @ (inverse @ moment[..., None])[..., 0].T
        spread = torch.einsum("bi,kij,bj->bk", seen, inverse, seen).clamp(min=0).sqrt()
        return mean + exploration * spread

    def greedy(env: TensorEnv, state: State) -> Tensor:
        found = bounds(context(env, state), 0.0)
        return found.masked_fill(~env.action_masks(state), -torch.inf).argmax(-1)

    per_round = _SCENES * env.path_length
    run.measure(0, greedy)
    for number in range(run.decisions // per_round):
        state = env.reset(derive_seed("linucb", run.seed, number), _SCENES)
        shown, paid = [], []
        for _ in range(env.path_length):
            seen = context(env, state)
            found = bounds(seen, _EXPLORATION).masked_fill(~env.action_masks(state), -torch.inf)
            state, payments = env.step_terms(state, found.argmax(-1))
            shown.append(seen)
            paid.append(payments)
        shared = paid[-1][:, list(env.path_terms)].sum(1)
        for step, (seen, payments) in enumerate(zip(shown, paid, strict=True)):
            own = payments.sum(1) - (shared if step == env.path_length - 1 else 0)
            arms = state.n_tokens[:, step] - 1
            gram.index_add_(0, arms, seen[:, :, None] * seen[:, None])
            moment.index_add_(0, arms, seen * (env.path_length * own + shared)[:, None])
        run.measure((number + 1) * per_round, greedy)
    return greedy


def cross_entropy(run: Run) -> Act:
    """The cross-entropy method over the weights of ``n = K · sigmoid(w · context)`` (Rubinstein 1999)."""
    env, device = run.arena.env("train"), run.arena.env("train").device
    mean, spread = torch.zeros(8, device=device), torch.full((8,), _SPREAD, device=device)
    generator = run.generator()

    def lengths(env: TensorEnv, state: State, weights: Tensor) -> Tensor:
        return (env.tokens * (context(env, state) * weights).sum(-1).sigmoid()).long().clamp(max=env.tokens - 1)

    def act(env: TensorEnv, state: State) -> Tensor:
        return lengths(env, state, mean)

    per_round = _POPULATION * _SCENES * env.path_length
    run.measure(0, act)
    for number in range(run.decisions // per_round):
        scenes = env.draw(derive_seed("cem", run.seed, number), _SCENES)
        tried = mean + spread * torch.randn(_POPULATION, 8, generator=generator).to(device)
        weights = tried.repeat_interleave(_SCENES, 0)
        _, rewards = env.play(
            scenes.repeat(_POPULATION, 1), lambda env, state, weights=weights: lengths(env, state, weights)
        )
        elite = tried[rewards.sum(1).view(_POPULATION, -1).mean(1).topk(_ELITE).indices]
        mean, spread = elite.mean(0), elite.std(0) + 0.05
        run.measure((number + 1) * per_round, act)
    return act
