"""A tokenizer small enough for every test, one in LARP's format, and the golden LARP checkpoint."""

import json
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vaportok_rl.tokenizer import PriorConfig, VaporTok, VaporTokConfig

GOLDEN = Path(__file__).parent / "larp_golden"


@dataclass(frozen=True)
class Golden:
    """A checkpoint of LARP's own code with random weights, loaded, and the numbers that this code made with it.

    ``io`` has four clips where it has codes or latents, and one where it has video.
    """

    model: VaporTok
    io: dict[str, Tensor]
    arguments: dict[str, Any]
    state: dict[str, Tensor]


class StandInEasyDict(dict[str, Any]):
    """Pickles as `easydict.EasyDict` does: an instance keeps every entry as an attribute too."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        for name, value in entries.items():
            self[name] = StandInEasyDict(value) if isinstance(value, dict) else value
        self.__dict__.update(self)


StandInEasyDict.__module__, StandInEasyDict.__qualname__ = "easydict", "EasyDict"
StandInEasyDict.__name__ = "EasyDict"


def write_trainer_file(
    path: Path,
    arguments: Mapping[str, Any],
    state: Mapping[str, Tensor] | None,
    model: Mapping[str, Any] | None = None,
    **training: Any,
) -> Path:
    """Writes what LARP's trainer would: with ``model`` for further entries of the model, ``training`` beside it."""
    easydict = ModuleType("easydict")
    easydict.EasyDict = StandInEasyDict  # type: ignore[attr-defined]
    described = {"name": "larp_tokenizer", "args": StandInEasyDict(arguments), "sd": state, **(model or {})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "easydict", easydict)
        cfg = StandInEasyDict({"model": {"name": "larp_tokenizer", "args": dict(arguments)}, "max_epoch": 150})
        torch.save({"model": described, "cfg": cfg, **training}, path)
    return path


def write_hub_folder(folder: Path, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
    """Writes what LARP's `save_pretrained` would."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(arguments))
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


@pytest.fixture(scope="session")
def trainer_file() -> Callable[..., Path]:
    return write_trainer_file


@pytest.fixture(scope="session")
def hub_folder() -> Callable[..., Path]:
    return write_hub_folder


@pytest.fixture(scope="session")
def golden() -> Golden:
    arguments = json.loads((GOLDEN / "config.json").read_text())
    io = load_file(GOLDEN / "vectors.safetensors")
    state = {name.removeprefix("state."): io.pop(name) for name in list(io) if name.startswith("state.")}
    # Positions that 16 tokens do not reach are not kept.
    positions = state["prior_model.pos_emb"]
    state["prior_model.pos_emb"] = nn.functional.pad(positions, (0, 0, 0, 1024 - positions.shape[1]))
    with TemporaryDirectory() as folder:
        model = VaporTok.from_pretrained(write_hub_folder(Path(folder), arguments, state))
    return Golden(model, io, arguments, state)


LARP_ARGUMENTS: dict[str, Any] = {
    "bottleneck": {
        "name": "bottleneck",
        "args": {
            "bottleneck_dim": 4,
            "norm": "none",
            "regularizer": {
                "name": "vq",
                "args": {
                    "codebook_size": 32,
                    "l2_normalized": True,
                    "stochastic": True,
                    "stochastic_temperature": 0.03,
                },
            },
        },
    },
    "prior_model": {
        "name": "gptc-TINY",
        "no_dropout": False,
        "latent_ce_temperature": 1.0,
        "args": {"l2_normalized": True},
    },
    "transformer_name": "transformer_encoder_parallel",
    "encoder_name": "none",
    "decoder_name": None,
    "bottleneck_token_num": 6,
    "input_size": 16,
    "frame_num": 8,
    "encoder_hidden_size": 16,
    "decoder_hidden_size": 16,
    "encoder_num_heads": 2,
    "decoder_num_heads": 2,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "use_decoder_patch_query_token_type_embed": True,
}


@dataclass(frozen=True)
class Larp:
    """A LARP tokenizer of random weights: what we call its geometry, its constructor arguments and its state dict."""

    config: VaporTokConfig
    arguments: dict[str, Any]
    state: dict[str, Tensor]


@pytest.fixture
def larp() -> Larp:
    config = VaporTokConfig(
        frames=8,
        size=16,
        channels=3,
        patch_frames=4,
        patch_size=8,
        tokens=6,
        width=16,
        encoder_depth=1,
        decoder_depth=2,
        heads=2,
        codebook_size=32,
        code_width=4,
        code_norm="none",
        quantizer_temperature=0.03,
        pixel_range="unit",
        prior=PriorConfig(layers=2, heads=2, width=32, positions=1024, dropout=0.1, temperature=1.0),
    )
    generator = torch.Generator().manual_seed(2)
    state = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in VaporTok(config).state_dict().items()
        if not name.startswith("taildrop_module.")
    }
    return Larp(config, deepcopy(LARP_ARGUMENTS), state)


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
