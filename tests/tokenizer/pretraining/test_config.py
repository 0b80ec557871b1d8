"""Settings that would crash later, or train nonsense, are refused at once."""

import dataclasses
import math
from typing import Any

import pytest

from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig


@pytest.mark.parametrize("value", [-1, math.nan, -math.inf, "1", None, True])
@pytest.mark.parametrize("kind", [PretrainConfig, LossWeights])
def test_no_number_takes_nonsense(kind: type, value: Any) -> None:
    for field in dataclasses.fields(kind):
        if type(field.default) in (int, float):
            with pytest.raises((TypeError, ValueError), match=f"{field.name}.*got {value!r}"):
                kind(**{field.name: value})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        *[({name: 0}, name) for name in ("steps", "batch_size", "save_every", "max_grad_norm", "adam_learning_rate")],
        *[({name: 1}, name) for name in ("label_smoothing", "ema_decay")],
        *[({name: 1.1}, name) for name in ("warmup", "random_lengths_from", "sampling_peak")],
        ({"steps": 2.0}, "steps"),
        ({"seed": 2**32}, "seed"),
        ({"precision": "half"}, "precision"),
        ({"perceptual_network": "resnet"}, "perceptual_network"),
        ({"weights": {"perceptal": 1.0}}, "weights"),
        ({"batch_size": 4, "accumulate": 3}, "accumulate=3"),
        ({"length_mixture": (0.0, 0.9, 0.2)}, "length_mixture .*0.9, 0.2"),
        ({"continuous_until": 0.5, "quantized_from": 0.4}, "0.5, 0.4"),
        ({"quantized_from": 0.3, "random_lengths_from": 0.25}, "0.3, 0.25"),
        ({"frozen_encoder": True}, "quantized_from=0 with frozen_encoder"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"Expected .*{named}"):
        PretrainConfig(**settings)


def test_the_ends_of_every_range_are_settings() -> None:
    ends = PretrainConfig(max_grad_norm=math.inf, weight_decay=0, warmup=0, decay_from=1, lecam=0, sampling_ramp=0)
    assert dataclasses.replace(ends, length_mixture=(0, 0.8, 0.2), seed=2**32 - 1).label_smoothing == 0.1
