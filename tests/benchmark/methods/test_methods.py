"""Every method runs on every task that it is made for, repeatably; those that know more earn more."""

from collections.abc import Callable

import pytest
import torch

from vaportok_rl.benchmark import Arena
from vaportok_rl.benchmark.methods.gradients import conditional_rewards
from vaportok_rl.benchmark.methods.method import Method, Run
from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.methods.scripted import expected_worth

Arenas = Callable[[str], Arena]
DECISIONS = 1024
SLOW = {"cem": 4096, "dqn": 1280}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_runs_repeatably_and_follows_its_curve(arena: Arenas, method: Method) -> None:
    for task in method.tasks[:1] if method.learns else method.tasks:
        of = arena(task)
        played = []
        for seed in (3, 3) if method.learns else (3, 3, 4):
            run = Run(of, seed, SLOW.get(method.name, DECISIONS))
            act = method.learn(run)
            run.measure(run.decisions, act, always=True)
            assert [done for done, _ in run.curve] == sorted({done for done, _ in run.curve})
            assert run.curve[-1][0] >= run.decisions
            if method.name != "random":  # which draws on
                assert run.curve[-1][1] == pytest.approx(of.score("validation", of.play("validation", act)))
            played.append(of.play("test", act))
        assert all(torch.equal(played[0], other) for other in played[1:])
        assert of.score("test", played[0]) <= 1 + 1e-6


def test_looking_ahead_pays(arena: Arenas) -> None:
    """With the true values in view, planning over more clips never earns less on average."""
    of = arena("stream-v1")
    scores = {
        name: of.score("validation", of.play("validation", METHODS[name].learn(Run(of, 0, 0))))
        for name in ("best-fixed", "value", "planner", "oracle")
    }
    assert scores["oracle"] == pytest.approx(1)
    assert max(scores["value"], scores["planner"]) > scores["best-fixed"]


def test_expected_worth_is_the_mean_over_all_sequences(arena: Arenas) -> None:
    env = arena("stream-v1").env("train")
    earned = torch.tensor([[0.0, 1.0, 1.5], [0.0, 4.0, 9.0]])  # two clips, at most two tokens beyond the minimum
    worth = expected_worth(env, earned)
    assert worth.shape == (env.path_length + 1, env.purse.capacity + 1)
    # Income exceeds what can be spent: every clip gets its best length.
    assert worth[0, -1].item() == pytest.approx(env.path_length * (1.5 + 9.0) / 2)
    # One clip before the end, with one token: the mean of the best of nothing and one token.
    assert worth[-2, 1].item() == pytest.approx((1.0 + 4.0) / 2)
    assert not worth[-1].any()


@pytest.mark.parametrize("task", ["procedural-v1", "pareto-v1"])
def test_conditional_rewards_are_the_rewards_of_changed_paths(arena: Arenas, task: str) -> None:
    env = arena(task).env("train")
    rows = env.draw(1, 3)
    lengths = torch.randint(1, 17, rows.shape, generator=torch.Generator().manual_seed(0))
    found = conditional_rewards(env, rows, lengths)
    for clip in (0, 7):
        earned = []
        for n_tokens in (1, 5, 16):
            changed = lengths.clone()
            changed[:, clip] = n_tokens
            earned.append(env.play(rows, lambda env, state, some=changed: some[:, state.step] - 1)[1].sum(1))
        differences = torch.stack(earned[1:]) - earned[0]
        assert torch.allclose(found[:, clip, [4, 15]].T - found[:, clip, 0], differences, atol=1e-5)
