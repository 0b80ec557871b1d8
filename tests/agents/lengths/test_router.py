"""The supervised router: it learns a learnable target, reproducibly."""

import pytest
import torch

from vaportok_rl.agents import HeldOut
from vaportok_rl.agents.lengths.router import train_router
from vaportok_rl.agents.lengths.scripted import most_probable
from vaportok_rl.envs import TaildropProcess


@pytest.fixture(scope="module")
def training(tiny_world: str) -> HeldOut:
    # Without diversity the oracle's length is a function of the clip.
    reward = {"preset": "rate-distortion", "scale": 1000.0}
    return HeldOut(TaildropProcess(tokenizer=tiny_world, path_length=3, reward=reward), scenes=10)


@pytest.fixture
def tried(training: HeldOut, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The lengths ``[P, L]`` that are evaluated: before training and after each epoch."""
    found: list[torch.Tensor] = []
    assert training.bounds  # which evaluates too, once
    evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", lambda lengths: found.append(lengths) or evaluate(lengths))
    return found


def test_it_learns_the_oracle_lengths_by_heart(training: HeldOut, tried: list[torch.Tensor]) -> None:
    train_router(training, epochs=60, batch_clips=8, learning_rate=3e-3, pretrained=False)
    labels = training.bounds.oracle.n_tokens
    first, *_, last = [(lengths == labels)[:8].float().mean() for lengths in tried]
    assert len(tried) == 61
    assert first < 0.5
    assert last > 0.8


def test_the_epoch_kept_is_the_best_on_scenes_held_back(training: HeldOut, tried: list[torch.Tensor]) -> None:
    policy = train_router(training, epochs=6)
    kept = most_probable(policy.length_log_probs)(training.scene, torch.Generator()).n_tokens
    rewards = [training.evaluate(lengths).rewards.total[0, 8:].mean().item() for lengths in (kept, *tried)]
    assert rewards[0] == max(rewards)


def test_the_seed_decides_everything(training: HeldOut) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(len(seen := []) + seed)
        state = torch.random.get_rng_state()
        policy = train_router(training, epochs=1, pretrained=False, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        seen += list(policy.parameters())
        return seen

    first, again, other = weights(0), weights(0), weights(1)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
