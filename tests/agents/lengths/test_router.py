"""The supervised router: it learns a learnable target, reproducibly."""

import numpy as np
import pytest
import torch

from vaportok_rl.agents import HeldOut, TaildropPolicy
from vaportok_rl.agents.lengths.router import train_router
from vaportok_rl.agents.lengths.scripted import most_probable
from vaportok_rl.envs import TaildropProcess


@pytest.fixture(scope="module")
def training(tiny_world: str) -> HeldOut:
    # Without diversity the oracle's length is a function of the clip.
    reward = {"preset": "rate-distortion", "scale": 1000.0}
    return HeldOut(TaildropProcess(tokenizer=tiny_world, path_length=3, reward=reward), scenes=10)


def chosen(policy: TaildropPolicy, held_out: HeldOut) -> torch.Tensor:
    return most_probable(policy.length_log_probs)(held_out.scene, torch.Generator()).n_tokens


def test_it_learns_the_oracle_lengths_by_heart(training: HeldOut) -> None:
    losses = []

    def measure(epoch: int, policy: TaildropPolicy) -> None:
        with torch.no_grad():
            log_p = policy.length_log_probs(training.scene.latents[:8])
        labels = training.bounds.oracle.n_tokens[:8, :, None] - 1
        losses.append(-log_p.gather(-1, labels).mean().item())

    train_router(training, epochs=60, batch_clips=8, learning_rate=3e-3, pretrained=False, on_epoch=measure)
    assert len(losses) == 61
    assert losses[0] == pytest.approx(np.log(16), abs=0.05)
    assert losses[-1] < 0.3 * losses[0]


def test_the_epoch_kept_is_the_best_on_scenes_held_back(training: HeldOut) -> None:
    rewards = []

    def measure(epoch: int, policy: TaildropPolicy) -> None:
        rewards.append(training.evaluate(chosen(policy, training)).rewards.total[0, 8:].mean().item())

    policy = train_router(training, epochs=6, on_epoch=measure)
    assert training.evaluate(chosen(policy, training)).rewards.total[0, 8:].mean().item() == max(rewards)


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
