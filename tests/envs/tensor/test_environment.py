"""The pure-function face gives the numbers of the Gymnasium face, and its purse those of a brute-force ledger."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vaportok_rl.envs import MOTaildropVectorEnv, Purse, TaildropProcess, TaildropVectorEnv, TensorEnv, VaporReward
from vaportok_rl.envs.rewards.contract import across_group

REWARDS: dict[str, Any] = {
    "default": {},
    "further": {"weights": {"diversity": 1.3, "prior_bits": 0.2, "codebook_usage": 0.4, "log_mse": -0.1}},
    "summed": {"preset": "paper", "penalty_reduction": "sum", "n_threshold": 1.5},
    "scheduled": {"weights": {"efficiency": "0.5:3@100:500"}},
}


def process_of(table: Path, **settings: Any) -> TaildropProcess:
    return TaildropProcess(**{"table": str(table), "path_length": 3, "obs": "complexity"} | settings)


@pytest.mark.parametrize("reward", REWARDS.values(), ids=REWARDS)
@pytest.mark.parametrize("limits", [{}, {"token_budget": 20}, {"min_tokens": 2, "max_tokens": 9, "token_budget": 14}])
def test_rewards_are_those_of_the_vector_environment(full_table: Path, reward: Any, limits: dict[str, Any]) -> None:
    settings = {"path_length": 3, "table": str(full_table), "obs": "complexity", "reward": reward, **limits}
    gym_env = TaildropVectorEnv(8, group_size=2, autoreset_mode="Disabled", **settings)
    terms_env = MOTaildropVectorEnv(8, group_size=2, autoreset_mode="Disabled", **settings)
    env = TensorEnv(process_of(full_table, reward=reward, **limits))
    seen, _ = gym_env.reset(seed=5)
    terms_env.reset(seed=5)
    rows = torch.from_numpy(gym_env.process.draw([np.random.default_rng(5 + group) for group in range(4)]))
    state = env.start(rows.repeat_interleave(2, 0))
    actions = np.random.default_rng(0).integers(0, 16, (3, 8))
    for step, action in enumerate(actions):
        assert np.array_equal(env.observe(state)[:, :2].numpy(), seen)
        assert np.array_equal(env.action_masks(state).numpy(), gym_env.action_masks())
        before = state
        seen, expected, done, _, _ = gym_env.step(action)
        state, found = env.step(state, torch.from_numpy(action))
        assert np.array_equal(found.double().numpy(), expected)  # bit for bit
        payments = env.step_terms(before, torch.from_numpy(action))[1].numpy()
        weighted = terms_env.step(action)[1] * np.float32(env.weights)
        np.testing.assert_allclose(payments, weighted, atol=1e-6)
        assert done.all() == (state.step == env.path_length) == (step == 2)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(state, torch.from_numpy(action))


def test_scenes_are_drawn_without_repetition_and_alike_from_one_key(full_table: Path) -> None:
    env = TensorEnv(process_of(full_table), rows=range(2, 10))
    drawn = env.draw(3, 4000)
    assert torch.equal(drawn, env.draw(3, 4000))
    assert not torch.equal(drawn, env.draw(4, 4000))
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()
    for column in drawn.T:  # each place shows each of the eight clips equally often
        counts = torch.bincount(column, minlength=12)
        assert counts[:2].sum() == counts[10:].sum() == 0
        assert (counts[2:10] - 500).abs().max() < 5 * 500**0.5
    assert torch.equal(env.reset(3, 5, group_size=2).rows, env.draw(3, 5).repeat_interleave(2, 0))


def test_a_purse_fills_and_overflows(full_table: Path) -> None:
    purse = Purse(start=4, income=3, capacity=6)
    env = TensorEnv(process_of(full_table, min_tokens=2, path_length=4), purse=purse)
    state, held = env.reset(0, 1), 4
    for asked, allowed in ((9, 4), (2, 0), (3, 1), (16, 6)):
        assert state.purse.item() == held
        assert env.action_masks(state)[0].nonzero().flatten().tolist() == list(range(1, 2 + held))
        assert env.observe(state)[0, -2:].tolist() == pytest.approx([state.step / 4, held / 6])
        state, _ = env.step(state, torch.tensor([asked - 1]))
        assert state.n_tokens[0, state.step - 1].item() == 2 + allowed
        held = min(6, held - allowed + 3)


def test_the_window_shows_the_next_clips_and_nothing_past_the_end(full_table: Path) -> None:
    env = TensorEnv(process_of(full_table), features="summary", window=2)
    state = env.reset(1, 4)
    width = env.features.shape[1]
    assert env.observe(state).shape == (4, env.width)
    state, _ = env.step(state, torch.zeros(4, dtype=torch.int64))
    seen = env.observe(state)
    assert torch.equal(seen[:, :width], env.features[state.rows[:, 1]])
    assert torch.equal(seen[:, width : 2 * width], env.features[state.rows[:, 2]])
    assert not seen[:, 2 * width : 3 * width].any()
    held_out = TensorEnv(process_of(full_table, split="test"), features="summary")
    again = held_out.engine.table.summary.float().flatten(1)
    usual = env.engine.table.summary.float().flatten(1)
    scaled = (again - usual.mean(0)) / usual.std(0)
    assert torch.allclose(held_out.features[:, 2:], scaled, atol=1e-5)  # scaled as the training split is


@pytest.mark.parametrize("reward", [{"constraint": "tokens<=9"}, "group"])
def test_what_it_cannot_pay_step_by_step_is_refused(full_table: Path, reward: Any) -> None:
    @across_group
    def rank(outcome: Any) -> Tensor:
        return outcome.mse.mean(-1)

    chosen = VaporReward(terms={"rank": rank}) if reward == "group" else reward
    with pytest.raises(ValueError, match="TaildropVectorEnv"):
        TensorEnv(process_of(full_table, reward=chosen))


def test_step_compiles_into_one_graph(full_table: Path) -> None:
    env = TensorEnv(process_of(full_table))
    act = torch.compile(lambda state, actions: env.step(state, actions)[1], backend="eager", fullgraph=True)
    state = env.reset(0, 3)
    assert torch.equal(act(state, torch.tensor([1, 2, 3])), env.step(state, torch.tensor([1, 2, 3]))[1])
