"""Stepwise episodes against one parallel score of the same paths."""

import numpy as np
import pytest
import torch

from vaportok_rl.envs import Outcome, TaildropProcess
from vaportok_rl.envs.walk import INFO_KEYS, GroupWalk


@pytest.fixture(scope="module")
def process(tiny_world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=tiny_world, path_length=4, reward={"weights": {"diversity": 2.0}})


def generators(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def test_steps_pay_what_the_parallel_score_pays(process: TaildropProcess) -> None:
    walk = GroupWalk(process, group_size=3)
    walk.begin(generators(0, 1))
    scene = walk.scene
    n_tokens = np.random.default_rng(5).integers(1, 17, (4, 2, 3))  # [L, P, G]
    steps = [walk.step(row) for row in n_tokens]
    parallel = torch.from_numpy(n_tokens).permute(2, 1, 0).contiguous()
    outcome = process.engine.score(scene, parallel)
    result = process.reward(outcome)
    for j, step in enumerate(steps):
        assert step.finished.tolist() == [j == 3] * 2
        assert tuple(step.info) == INFO_KEYS
        assert step.rewards.shape == (2, 3)
        assert np.array_equal(step.rewards, result.per_decision[..., j].T.double().numpy())
        assert np.array_equal(step.payments, result.payments[..., j].permute(2, 1, 0).numpy())
        assert step.path_terms == {"diversity"}
        assert torch.equal(step.decided.clips[:, 0], scene.clips[:, j])
        for name in ("n_tokens", "mse", "accuracy", "psnr"):
            np.testing.assert_array_equal(step.info[name], getattr(outcome, name)[..., j].T.numpy())
        for g in range(3):
            assert np.array_equal(step.info["clip_id"][:, g], scene.ids[:, j].numpy())
            assert np.array_equal(step.info["label"][:, g], scene.labels[:, j].numpy())
        for name, value in result.raw.items():
            expected = value[..., j] if value.dim() == 3 else value * (j == 3)
            np.testing.assert_allclose(step.terms[name], expected.T.numpy(), atol=1e-6)
    np.testing.assert_allclose(sum(step.rewards for step in steps), result.total.T.numpy(), atol=1e-6)


def test_groups_may_be_at_different_steps(process: TaildropProcess) -> None:
    walk, alone = GroupWalk(process, group_size=2), GroupWalk(process, group_size=2)
    streams = generators(0, 1)
    walk.begin(streams)
    walk.step(np.full((2, 2), 9))
    walk.begin([streams[1]], np.array([1]))
    assert walk.steps.tolist() == [1, 0]
    # The second group's new scene, walked on its own.
    stream = generators(1)
    alone.begin(stream)
    alone.begin(stream)
    for j, n in enumerate((3, 16, 1)):
        together = walk.step(np.array([[5, 5], [n, 17 - n]]))
        single = alone.step(np.array([[n, 17 - n]]))
        assert together.finished.tolist() == [j == 2, False]
        assert np.array_equal(together.rewards[1], single.rewards[0])
        assert all(np.array_equal(together.info[name][1], single.info[name][0]) for name in INFO_KEYS)


def test_a_clip_term_is_paid_before_the_path_is_known(tiny_world: str) -> None:
    seen: list[tuple[int, ...]] = []

    def spy(outcome: Outcome) -> torch.Tensor:
        seen.append(tuple(outcome.n_tokens.shape))
        return outcome.n_tokens.float()

    weights = dict.fromkeys(("efficiency", "penalty", "diversity", "reconstruction", "generation"), 0.0)
    walk = GroupWalk(
        TaildropProcess(tokenizer=tiny_world, path_length=2, reward={"weights": weights, "terms": {"spy": spy}}), 1
    )
    walk.begin(generators(0))
    assert walk.step(np.array([[6]])).rewards.tolist() == [[3.0]]
    assert walk.step(np.array([[16]])).rewards.tolist() == [[8.0]]
    # Paths of the right length only, in the dry run at construction too.
    assert {shape[2] for shape in seen} == {2}
    assert seen[-2:] == [(1, 1, 2)] * 2


def test_lengths_are_kept_within_the_range_and_the_budget(tiny_world: str) -> None:
    bounded = TaildropProcess(tokenizer=tiny_world, path_length=3, min_tokens=2, max_tokens=9, token_budget=14)
    walk = GroupWalk(bounded, group_size=3)
    walk.begin(generators(0, 1))
    asked = np.random.default_rng(2).integers(1, 17, (3, 2, 3))  # [L, P, G]
    kept = []
    for row in asked:
        masks = walk.action_masks()
        step = walk.step(row)
        kept.append(step.info["n_tokens"])
        for p, g in np.ndindex(2, 3):
            allowed = np.flatnonzero(masks[p, g]) + 1
            assert kept[-1][p, g] == min(allowed, key=lambda n: abs(n - row[p, g]))
    assert (np.sum(kept, 0) <= 14).all()
    assert min(map(np.min, kept)) >= 2
    in_parallel = bounded.token_range.clip_paths(torch.from_numpy(asked).permute(2, 1, 0))
    assert torch.equal(in_parallel, torch.from_numpy(np.stack(kept)).permute(2, 1, 0))
    # A group with a new episode has its full budget, the other one has not.
    walk.begin(generators(3), np.array([1]))
    assert walk.action_masks()[1].sum(-1).tolist() == [8, 8, 8]
