"""Configurations: what is refused, what survives JSON, and the sizes of the presets."""

import json
import re
from typing import Any

import pytest

from vaportok_rl.tokenizer import PRESETS, ComplexityConfig, PriorConfig, TaildropConfig, VaporTokConfig


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name: str) -> None:
    config = PRESETS[name]
    assert VaporTokConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_entry_survives_json() -> None:
    config = VaporTokConfig(
        frames=8,
        tokens=5,
        code_norm="none",
        quantizer_temperature=0.1 + 0.2,
        prior=PriorConfig(layers=3, dropout=0.25),
        taildrop=TaildropConfig(blocks=1, stop_gradient=False, strategy="pre-sample"),
        complexity=ComplexityConfig((0.0, 1 / 3, 8.0), (0.0, 2.0), 0.7, (0.2, 0.8), 0.05),
    )
    assert VaporTokConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_entries_take_their_defaults() -> None:
    assert VaporTokConfig.from_dict({"tokens": 9, "prior": {"layers": 2}}) == VaporTokConfig(
        tokens=9, prior=PriorConfig(layers=2)
    )


def test_derived_sizes() -> None:
    config = VaporTokConfig(frames=8, size=24, channels=3, patch_frames=2, patch_size=6)
    assert config.grid == (4, 4, 4)
    assert config.patches == 64
    assert config.patch_values == 2 * 6 * 6 * 3
    assert config.clip_shape == (3, 8, 24, 24)


def test_supplement_geometry() -> None:
    config = PRESETS["vaportok-b"]
    assert config.clip_shape == (3, 16, 128, 128)
    assert (config.tokens, config.patches, config.width, config.codebook_size, config.code_width) == (
        1024,
        1024,
        768,
        8192,
        8,
    )
    assert (config.taildrop.blocks, config.taildrop.temperature) == (2, 1.8)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"frames": 15}, "frames divisible by patch_frames=4, got 15"),
        ({"size": 30}, "size divisible by patch_size=8, got 30"),
        ({"heads": 3}, "width divisible by heads=3"),
        ({"width": 6, "heads": 3}, "width divisible by 4"),
        ({"patch_frames": 32}, "frames divisible by patch_frames=32, got 16"),
        ({"prior": {"width": 30}}, "prior.width divisible by prior.heads=4, got 30"),
        ({"tokens": 66, "prior": {"positions": 64}}, "tokens ≤ prior.positions + 1 = 65, got 66"),
        ({"tokens": 1026}, "tokens ≤ prior.positions + 1 = 1025, got 1026; raise prior.positions"),
        ({"tokens": 0}, "tokens ≥ 1, got 0"),
        ({"patch_size": 0}, "patch_size ≥ 1, got 0"),
        ({"prior": {"heads": 0}}, "prior.heads ≥ 1, got 0"),
        ({"channels": 4}, "channels 1 or 3, got 4"),
        ({"code_norm": "layer"}, "code_norm 'none' or 'batch', got 'layer'"),
        ({"pixel_range": "bytes"}, "pixel_range 'unit' or 'symmetric'"),
        ({"quantizer_temperature": 0.0}, "quantizer_temperature > 0"),
        ({"prior": {"temperature": float("nan")}}, "prior.temperature > 0"),
        ({"taildrop": {"temperature": -1.0}}, "taildrop.temperature > 0"),
        ({"taildrop": {"strategy": "presample"}}, "taildrop.strategy 'naive' or 'argmax' or 'sample' or 'pre-sample'"),
        ({"taildrop": {"strategy": 1}}, "or 'pre-sample', got 1"),
        ({"width": "128"}, "width to be a whole number, got '128'"),
        ({"width": 128.0}, "width to be a whole number, got 128.0"),
        ({"tokens": True}, "tokens to be a whole number, got True"),
        ({"tokens": None}, "tokens to be a whole number, got None"),
        ({"prior": 3}, "prior to be a JSON object, got 3"),
        ({"complexity": {"spatial_quantiles": [1.0]}}, "spatial_quantiles to be 2 or more rising numbers"),
        ({"complexity": {"temporal_quantiles": [2.0, 1.0]}}, "temporal_quantiles to be 2 or more rising numbers"),
        (
            {"complexity": {"temporal_quantiles": ["a", "b"]}},
            "temporal_quantiles to be tuple[float, ...]",
        ),
        *[({"complexity": {"temporal_share": share}}, "temporal_share ≤ 1, got") for share in (2, -0.1, float("nan"))],
        *[({"complexity": {"mean_range": means}}, "mean_range to be t") for means in ([0.9], [0.9, 0.1], [0.1, 2])],
        ({"bottleneck_token_num": 3}, "got 'bottleneck_token_num'"),
        ({"prior": {"layer": 3}}, "got 'prior.layer'"),
    ],
)
def test_impossible_entries_are_named(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        VaporTokConfig.from_dict(entries)


def test_a_configuration_is_an_object() -> None:
    with pytest.raises(ValueError, match="JSON object, got list"):
        VaporTokConfig.from_dict([])  # type: ignore[arg-type]
