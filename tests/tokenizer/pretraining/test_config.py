"""Impossible settings are refused by name."""

import re
from typing import Any

import pytest

from vaportok_rl.tokenizer.pretraining import PretrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps ≥ 1, got 0"),
        ({"batch_size": -2}, "batch_size ≥ 1, got -2"),
        ({"save_every": 0}, "save_every ≥ 1, got 0"),
        ({"validate_every": 0}, "validate_every ≥ 1"),
        ({"revive_every": 0}, "revive_every ≥ 1"),
        ({"calibration_clips": 0}, "calibration_clips ≥ 1"),
        (
            {"continuous_until": 0.5, "quantized_from": 0.4, "random_lengths_from": 0.25},
            "got 0.5, 0.4, 0.25; reorder the phases",
        ),
        ({"continuous_until": 0.15, "quantized_from": 0.3, "random_lengths_from": 0.2}, "got 0.15, 0.3, 0.2"),
        ({"random_lengths_from": 1.1}, "reorder the phases"),
        ({"continuous_until": -0.1}, "reorder the phases"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        PretrainConfig(**settings)
