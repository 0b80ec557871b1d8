"""A tokenizer small enough for every test, and the golden LARP checkpoint where it is at hand."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vaportok_rl.tokenizer import PriorConfig, VaporTok, VaporTokConfig

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "larp-golden"


@dataclass(frozen=True)
class Golden:
    """The reference implementation's checkpoint, loaded, with the numbers it produced."""

    model: VaporTok
    io: dict[str, Tensor]


@pytest.fixture(scope="session")
def golden() -> Golden:
    if not GOLDEN.is_dir():
        pytest.skip(f"the golden LARP vectors are not at {GOLDEN}")
    config = VaporTokConfig(
        frames=8,
        size=32,
        tokens=16,
        width=48,
        encoder_depth=2,
        decoder_depth=2,
        heads=4,
        codebook_size=64,
        code_width=8,
        code_norm="none",
        quantizer_temperature=0.03,
        pixel_range="unit",
        prior=PriorConfig(layers=2, heads=2, width=32, temperature=1.0),
    )
    model = VaporTok(config)
    state = load_file(GOLDEN / "state.safetensors")
    result = model.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("taildrop_module.") for key in result.missing_keys)
    return Golden(model.freeze(), load_file(GOLDEN / "io.safetensors"))


@pytest.fixture(scope="session")
def tiny_config() -> VaporTokConfig:
    return VaporTokConfig(
        frames=4,
        size=16,
        tokens=8,
        width=16,
        encoder_depth=2,
        decoder_depth=2,
        heads=2,
        codebook_size=32,
        code_width=4,
        prior=PriorConfig(layers=1, heads=2, width=16, positions=8),
    )


@pytest.fixture
def tiny(tiny_config: VaporTokConfig) -> VaporTok:
    """A model with every parameter random: as initialised it decodes all clips to the same grey."""
    torch.manual_seed(0)
    model = VaporTok(tiny_config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "norm" in name and name.endswith("weight"):
            nn.init.normal_(parameter, mean=1.0, std=0.1)
        else:
            nn.init.normal_(parameter, std=0.3)
    return model.freeze()


@pytest.fixture
def clips(tiny_config: VaporTokConfig) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (6, *tiny_config.clip_shape), generator=generator, dtype=torch.uint8)
