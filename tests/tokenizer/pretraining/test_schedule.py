"""The schedule of a pretraining run: phases, learning rate, scheduled sampling."""

import math
from dataclasses import replace

import pytest

from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig
from vaportok_rl.tokenizer.pretraining.schedule import Schedule

RUN = Schedule(
    PretrainConfig(
        steps=1000,
        warmup=0.1,
        decay_from=0.5,
        final_learning_rate=0.02,
        continuous_until=0.2,
        quantized_from=0.4,
        random_lengths_from=0.6,
        sampling_peak=0.5,
        sampling_ramp=0.3,
    )
)


def test_learning_rate_rises_rests_and_falls() -> None:
    factors = [RUN.learning_rate_factor(step) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[49] == pytest.approx(0.5)
    assert factors[99:500] == [1.0] * 401
    assert factors[749] == pytest.approx(0.02 + 0.98 / 2)  # a half cosine is half way down in the middle
    assert factors[874] == pytest.approx(0.02 + 0.98 * (1 + math.cos(0.75 * math.pi)) / 2)
    assert factors[999] == pytest.approx(0.02)
    assert factors[:100] == sorted(factors[:100])
    assert factors[500:] == sorted(factors[500:], reverse=True)


@pytest.mark.parametrize(("warmup", "decay_from"), [(0.0, 1.0), (0.0, 0.0), (1.0, 1.0)])
def test_learning_rate_without_one_of_its_parts(warmup: float, decay_from: float) -> None:
    factors = [
        Schedule(PretrainConfig(steps=10, warmup=warmup, decay_from=decay_from)).learning_rate_factor(s)
        for s in range(10)
    ]
    assert all(0 < factor <= 1 for factor in factors)
    if warmup == 0 and decay_from == 1:
        assert factors == [1.0] * 10


def test_latents_are_quantised_by_and_by() -> None:
    shares = [RUN.quantized_share(step) for step in range(1000)]
    assert shares[:201] == [0.0] * 201
    assert shares[300] == pytest.approx(0.5)
    assert shares[201:400] == sorted(shares[201:400])
    assert 0 < shares[201] < 0.01
    assert shares[400:] == [1.0] * 600


def test_latents_can_be_quantised_at_once() -> None:
    at_once = Schedule(PretrainConfig(steps=10, continuous_until=0.5, quantized_from=0.5, random_lengths_from=0.5))
    assert [at_once.quantized_share(step) for step in range(10)] == [0.0] * 5 + [1.0] * 5
    always = Schedule(PretrainConfig(steps=10, continuous_until=0.0, quantized_from=0.0))
    assert [always.quantized_share(step) for step in range(10)] == [1.0] * 10


def test_own_samples_come_in_over_the_ramp() -> None:
    ratios = [RUN.sampling_ratio(step) for step in range(1000)]
    assert ratios[:201] == [0.0] * 201
    assert ratios[350] == pytest.approx(0.25)
    assert ratios[500:] == pytest.approx([0.5] * 500)
    assert ratios == sorted(ratios)


def test_the_loss_is_told_the_settings_and_the_phase() -> None:
    run = replace(RUN.config, length_mixture=(0.6, 0.3, 0.1), sampling_rounds=4, adversarial_from=0.7)
    for weights, critic in ((LossWeights(), False), (LossWeights(adversarial=0.1), True)):
        phases = [Schedule(replace(run, weights=weights)).phase(step) for step in range(1000)]
        assert [phase.random_lengths for phase in phases] == [False] * 600 + [True] * 400
        assert [phase.adversarial for phase in phases] == [False] * 700 + [critic] * 300
        assert [phase.quantized_share for phase in phases] == [RUN.quantized_share(step) for step in range(1000)]
        assert [phase.sampling_ratio for phase in phases] == [RUN.sampling_ratio(step) for step in range(1000)]
        assert {(one.length_mixture, one.sampling_rounds) for one in phases} == {((0.6, 0.3, 0.1), 4)}


@pytest.mark.parametrize(("frozen", "revivals"), [(False, [0, 150, 300, 450]), (True, [])])
def test_codes_are_revived_until_the_decay(frozen: bool, revivals: list[int]) -> None:
    run = replace(RUN.config, revive_every=150)
    if frozen:
        run = replace(run, frozen_encoder=True, continuous_until=0, quantized_from=0)
    assert [step for step in range(1000) if Schedule(run).revives_codes(step)] == revivals
