"""Policy gradients on the tensor face: GRPO with the source's settings and with ours, and the enumerated gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaportok_rl.agents.objective import clipped_surrogate, group_advantage, kl_exact
from vaportok_rl.benchmark.arena import Act, as_act
from vaportok_rl.benchmark.methods.method import Network, Run, network
from vaportok_rl.envs import TensorEnv
from vaportok_rl.runtime.seeds import derive_seed

_SCENES, _GROUP = 16, 8


@dataclass(frozen=True)
class Options:
    """Settings of GRPO on the tensor face; see `GRPOOptions` for their meaning.

    Attributes:
        path_credit: one advantage per path; otherwise each decision is compared with its group's decisions on the same
            clip: by its own terms and the path's, or by the rewards still to come where it changes the purse.
        kl_coef: weight of the KL divergence to the initial policy.
        learning_rate: of Adam.
        decays: whether the learning rate falls to 0.
        batches: gradient steps per pass over a round.
        epochs: passes over a round.
        clip_high: ε_high; ε_low is 0.2.
        smoothing: of the logits, in tokens.
    """

    path_credit: bool = False
    kl_coef: float = 0.0
    learning_rate: float = 3e-3
    decays: bool = True
    batches: int = 4
    epochs: int = 2
    clip_high: float = 0.28
    smoothing: float = 4.0


OURS = Options()
# The supplement's agent; see docs/grpo.md.
SOURCE = Options(
    path_credit=True, kl_coef=0.1, learning_rate=3e-4, decays=False, batches=1, clip_high=0.2, smoothing=0.0
)


def grpo(run: Run) -> Act:
    """GRPO with this package's settings: credit by clip, clip-higher, smoothed logits, no KL from a fresh policy."""
    return _grpo(run, OURS)


def grpo_source(run: Run) -> Act:
    """GRPO with the supplement's settings: one advantage per path, KL 0.1, one gradient step a pass."""
    return _grpo(run, SOURCE)


def _log_probs(policy: Network, observations: Tensor, masks: Tensor) -> Tensor:
    log_p: Tensor = policy(observations).masked_fill(~masks, -1e9).log_softmax(-1)
    return log_p


def _advantage(env: TensorEnv, payments: Tensor, path_credit: bool, sequential: bool) -> Tensor:
    """``[G, P, L]`` from payments ``[G, P, L, terms]``."""
    rewards = payments.sum(-1)
    if path_credit:
        return group_advantage(rewards.sum(-1)).unsqueeze(-1).expand_as(rewards)
    if sequential:  # to come, this decision's included
        return group_advantage(rewards.flip(-1).cumsum(-1).flip(-1))
    shared = payments[:, :, -1, list(env.path_terms)].sum(-1, keepdim=True)
    own = rewards.clone()
    own[:, :, -1] -= shared[..., 0]
    return group_advantage(own + shared)


def _grpo(run: Run, options: Options) -> Act:
    env, policy = run.arena.env("train"), network(run, options.smoothing)
    optimizer = torch.optim.Adam(policy.parameters(), lr=options.learning_rate)
    act, generator = as_act(policy), run.generator()
    rounds = run.decisions // (_SCENES * _GROUP * env.path_length)
    run.measure(0, act)
    for number in range(rounds):
        if options.decays:
            optimizer.param_groups[0]["lr"] = options.learning_rate * (1 - number / rounds)
        state = env.reset(derive_seed("grpo", run.seed, number), _SCENES, _GROUP)
        seen, masks, actions, paid = [], [], [], []
        with torch.no_grad():
            for _ in range(env.path_length):
                seen.append(env.observe(state))
                masks.append(env.action_masks(state))
                probabilities = _log_probs(policy, seen[-1], masks[-1]).exp()
                actions.append(torch.multinomial(probabilities.cpu(), 1, generator=generator).to(env.device)[:, 0])
                state, payments = env.step_terms(state, actions[-1])
                paid.append(payments)

        def grouped(parts: list[Tensor]) -> Tensor:
            return torch.unflatten(torch.stack(parts, 1), 0, (_SCENES, _GROUP)).transpose(0, 1)

        observed, allowed, taken = grouped(seen), grouped(masks), grouped(actions)[..., None]
        advantage = _advantage(env, grouped(paid), options.path_credit, run.arena.task.sequential)
        with torch.no_grad():
            old = _log_probs(policy, observed, allowed)
            reference = torch.where(allowed, 0.0, -1e9).log_softmax(-1)  # the initial policy is uniform
        for _ in range(options.epochs):
            for rows in torch.randperm(_SCENES, generator=generator).chunk(options.batches):
                rows = rows.to(env.device)
                log_p = _log_probs(policy, observed[:, rows], allowed[:, rows])
                surrogate = clipped_surrogate(
                    log_p.gather(-1, taken[:, rows])[..., 0],
                    old[:, rows].gather(-1, taken[:, rows])[..., 0],
                    advantage[:, rows],
                    0.2,
                    options.clip_high,
                )
                loss = -surrogate.objective.mean() + options.kl_coef * kl_exact(log_p, reference[:, rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                optimizer.step()
        run.measure((number + 1) * _SCENES * _GROUP * env.path_length, act)
    return act


def enumerated(run: Run) -> Act:
    """The exact gradient of the expected reward over all lengths of each clip, given the path's other lengths.

    A decision counts once, though all lengths of its clip are looked up: this is what full information is worth.
    """
    env, policy = run.arena.env("train"), network(run)
    optimizer = torch.optim.Adam(policy.parameters(), lr=OURS.learning_rate)
    act, generator = as_act(policy), run.generator()
    per_round = _SCENES * env.path_length
    rounds = run.decisions // per_round
    run.measure(0, act)
    for number in range(rounds):
        optimizer.param_groups[0]["lr"] = OURS.learning_rate * (1 - number / rounds)
        state = env.reset(derive_seed("enumerated", run.seed, number), _SCENES)
        rows, log_probs = state.rows, []
        for _ in range(env.path_length):
            log_probs.append(_log_probs(policy, env.observe(state), env.action_masks(state)))
            sampled = torch.multinomial(log_probs[-1].detach().exp().cpu(), 1, generator=generator)
            state, _ = env.step_terms(state, sampled.to(env.device)[:, 0])
        earned = conditional_rewards(env, rows, state.n_tokens)
        spread = earned.std((1, 2), keepdim=True) + 1e-6
        log_p = torch.stack(log_probs, 1)
        loss = -(log_p.exp() * (earned / spread)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        run.measure((number + 1) * per_round, act)
    return act


def conditional_rewards(env: TensorEnv, rows: Tensor, n_tokens: Tensor) -> Tensor:
    """The path reward if one clip's length is replaced, the others kept: up to a constant per path and clip.

    Args:
        env: without a binding purse.
        rows: ``int64 [P, L]``.
        n_tokens: ``int64 [P, L]``.

    Returns:
        ``float32 [P, L, K]``.
    """
    length, tokens = rows.shape[1], env.tokens
    earned = env.values(rows).movedim(0, -1)
    if not env.path_terms:
        return earned
    tried = n_tokens[:, None, None].repeat(1, length, tokens, 1)  # [P, L, K, L]
    places = torch.arange(length, device=rows.device)
    tried[:, places, :, places] = torch.arange(1, tokens + 1, device=rows.device)
    flat = env.outcome(rows[:, None, None].expand_as(tried).flatten(0, 2), tried.flatten(0, 2))
    return earned + env.path_reward(flat).view(earned.shape)
