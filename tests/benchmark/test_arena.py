"""Scores against brute force, splits that share no clip, and policies that need no wrapper."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaportok_rl.benchmark import TASKS, Arena, as_act, score_policy
from vaportok_rl.benchmark.arena import simplex
from vaportok_rl.benchmark.methods.method import Run
from vaportok_rl.envs import TensorEnv

Arenas = Callable[[str], Arena]
SCALAR = ("procedural-v1", "budget-v1", "stream-v1")


@pytest.mark.parametrize("task", TASKS)
def test_parts_share_no_clip(arena: Arenas, task: str) -> None:
    of = arena(task)
    train, validation = (set(of.scenes(part).flatten().tolist()) for part in ("train", "validation"))
    assert train
    assert validation
    assert not train & validation
    assert of.env("test").process.settings.split == "test"
    drawn = of.env("train").draw(0, 500)
    assert set(drawn.flatten().tolist()) <= train
    if task == "stream-v1":
        assert (drawn.diff(dim=1) == 1).all()


@pytest.mark.parametrize("task", SCALAR)
def test_bounds_and_scores(arena: Arenas, task: str) -> None:
    of = arena(task)
    rewards = of.fixed_rewards("test")
    best = int(rewards.argmax()) + 1
    fixed = torch.full_like(of.scenes("test"), best)
    assert of.score("test", fixed) == pytest.approx(0, abs=1e-6)
    oracle = of.oracle("test")
    assert of.score("test", oracle) == pytest.approx(1)
    kept = of.play("test", lambda env, state: oracle[:, state.step] - 1)
    assert torch.equal(kept, oracle)  # allowed
    rng = np.random.default_rng(0)
    for _ in range(20):  # nothing random beats it
        tried = torch.from_numpy(rng.integers(1, 17, fixed.shape))
        assert of.score("test", tried) <= 1 + 1e-6
    halfway = (of.reward("test", fixed) + of.reward("test", oracle)) / 2
    bounds = of.bounds("test")
    assert (halfway - bounds.fixed) / (bounds.oracle - bounds.fixed) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("task", ["budget-v1", "stream-v1"])
def test_the_sequential_oracle_is_the_best_of_all_plays(arena: Arenas, task: str) -> None:
    """Sequences of three decisions are played out, the later ones at one token: none earns more than the oracle."""
    of = arena(task)
    env = of.env("test")
    row, options = of.scenes("test")[:1], (1, 6, 11, 16)
    plays = torch.tensor(list(product(options, repeat=3)))
    asked = torch.ones(len(plays), env.path_length, dtype=torch.int64)
    asked[:, :3] = plays
    _, rewards = env.play(row.repeat(len(plays), 1), lambda env, state: asked[:, state.step] - 1)
    best = of.oracle("test")[:1]
    _, earned = env.play(row, lambda env, state: best[:, state.step] - 1)
    assert rewards.sum(1).max() <= earned.sum() + 1e-5


class _Wide(nn.Module):
    """Prefers long clips where there is much to see."""

    def __init__(self, env: TensorEnv) -> None:
        super().__init__()
        self.head = nn.Linear(env.width, env.tokens)

    def forward(self, observations: Tensor) -> Tensor:
        return self.head(observations)


@pytest.mark.parametrize("task", SCALAR)
def test_a_torch_module_is_scored_as_it_is(arena: Arenas, task: str) -> None:
    of = arena(task)
    env = of.env("validation")
    torch.manual_seed(0)
    policy = _Wide(env)
    score = score_policy(policy, of.task, table=of.table)
    # By hand: observe, the most probable allowed action, step.
    state = env.start(of.scenes("validation"))
    while state.step < env.path_length:
        logits = policy(env.observe(state)).detach()
        logits[~env.action_masks(state)] = -torch.inf
        state, _ = env.step(state, logits.argmax(1))
    assert score == pytest.approx(of.score("validation", state.n_tokens))
    actions = score_policy(lambda seen: torch.full((len(seen),), 3), of.task, table=of.table)
    assert actions == pytest.approx(of.score("validation", torch.full_like(of.scenes("validation"), 4)))


@pytest.mark.parametrize("wrong", [lambda seen: seen, lambda seen: 3, lambda seen: torch.ones(len(seen))])
def test_other_policies_are_refused(arena: Arenas, wrong: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="logits"):
        arena("budget-v1").play("validation", as_act(wrong))


def test_a_run_measures_policies_and_acts_alike(arena: Arenas) -> None:
    of = arena("budget-v1")
    policy = nn.Linear(of.env("train").width, 16)
    given = (policy, lambda seen: policy(seen), as_act(policy))  # a module, a function, and what is scored
    run = Run(of, seed=0, decisions=100)  # measured every tenth
    for place, one in enumerate(given):
        run.measure(10 * place, one)
    run.measure(29, policy)
    assert [done for done, _ in run.curve] == [0, 10, 20]
    assert len({score for _, score in run.curve}) == 1
    assert as_act(given[-1]) is given[-1]


def test_saved_is_against_a_fixed_length_of_as_many_tokens(arena: Arenas) -> None:
    of = arena("procedural-v1")
    errors = of.every("test").errors(1, 16).double()  # [16, P, L]
    lengths = torch.full(of.scenes("test").shape, 4)
    lengths[:, ::2] = 12
    wanted = 1 - float(errors.gather(0, lengths[None] - 1).mean() / errors[8 - 1].mean())
    assert of.saved("test", lengths) == pytest.approx(wanted, rel=1e-5)
    assert of.saved("test", torch.full_like(lengths, 8)) == pytest.approx(0, abs=1e-6)


def test_the_front_dominates_and_its_volume_bounds_the_fixed_lengths(arena: Arenas) -> None:
    of = arena("pareto-v1")
    front = torch.tensor(of.front("test", simplex(3, 5)))
    rng = np.random.default_rng(1)
    for _ in range(50):
        point = torch.tensor(of.vector("test", torch.from_numpy(rng.integers(1, 17, of.scenes("test").shape))))
        for weights in simplex(3, 5):  # no policy earns more under any of the weightings
            assert point @ torch.tensor(weights) <= (front @ torch.tensor(weights)).max() + 1e-6
    fixed, best = of.sweep_volumes.fixed, of.sweep_volumes.oracle
    assert 0 < fixed < best < of.front_volume
    # By hand: the single length that earns most under each weighting of the sweep.
    every = [of.vector("test", torch.full(of.scenes("test").shape, n)) for n in range(1, 17)]
    chosen = [max(every, key=lambda vector: np.dot(vector, weights)) for weights in of.task.sweep]
    assert fixed == pytest.approx(of.volume(chosen))
    assert of.reference == pytest.approx(np.min(every, axis=0))
    assert len(simplex(3, 15)) == 136
    assert all(sum(weights) == pytest.approx(1) for weights in simplex(3, 15))
