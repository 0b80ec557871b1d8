"""Imports LARP's tokenizers: constructor arguments become a configuration, tensors a state dict.

The geometry, names and numerics are the same, so most of it is renaming arguments. What LARP can learn and ours
computes (position tables, token-type embeddings) is summed into our tables, which is exact. Options that change the
computation in other ways are refused by name.
"""

from __future__ import annotations

import collections
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaportok_rl.tokenizer.config import PriorConfig, VaporTokConfig

PRIOR_SIZES: dict[str, tuple[int, int, int]] = {
    "gptc-L": (24, 16, 1024),
    "gptc-B": (12, 12, 768),
    "gptc-M": (12, 8, 512),
    "gptc-S": (12, 6, 384),
    "gptc-XS": (6, 6, 384),
    "gptc-XXS": (6, 4, 256),
    # Not a released size: the one of the reference vectors.
    "gptc-TINY": (2, 2, 32),
}
"""Layers, heads and width of LARP's priors by name."""

_PRIOR_POSITIONS = 1024
_PRIOR_DROPOUT = 0.1
_BLOCKS = "transformer_encoder_parallel"
_PATCH_QUERY_TYPE = "decoder_patch_query_token_type_embed"
_INVERSE_TEMPERATURE = "bottleneck.regularizer.stochastic_temperature_inv"

# LARP's constructor defaults. Released configurations spell all of them out; a trainer's need not.
_DEFAULTS: dict[str, Any] = {
    "bottleneck_token_num": 1024,
    "input_size": 128,
    "frame_num": 16,
    "temporal_patch_size": 4,
    "patch_size": 8,
    "decoder_temporal_patch_size": 4,
    "decoder_patch_size": 8,
    "in_channels": 3,
    "transformer_name": _BLOCKS,
    "encoder_name": None,
    "decoder_name": None,
    "latent_pe_scale_factor": 10000,
    "encoder_hidden_size": 768,
    "decoder_hidden_size": 768,
    "encoder_num_heads": 12,
    "decoder_num_heads": 12,
    "encoder_depth": 6,
    "decoder_depth": 6,
    "learned_encoder_patch_pe": False,
    "learned_decoder_patch_query_embed": False,
    "use_encoder_patch_token_type_embed": False,
    "use_encoder_latent_query_token_type_embed": False,
    "use_decoder_latent_token_type_embed": False,
    "use_decoder_patch_query_token_type_embed": False,
}


def is_larp(settings: object) -> bool:
    """Whether a ``config.json`` holds LARP's arguments: the two that its constructor cannot do without."""
    return isinstance(settings, Mapping) and {"bottleneck", "prior_model"} <= settings.keys()


def import_larp(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[VaporTokConfig, dict[str, Tensor]]:
    """Translates a LARP tokenizer.

    LARP has neither a taildrop query module nor complexity tables: the state dict returned lacks every
    ``taildrop_module.`` tensor, and the configuration's taildrop and complexity parts are the defaults.

    Args:
        arguments: LARP's constructor arguments.
        state: LARP's state dict.

    Returns:
        The configuration, and the state dict under our names. Names and shapes that have no special meaning here are
        passed on unchecked.

    Raises:
        ValueError: the variant has no equal here, an argument is missing or impossible, or a tensor that the
            arguments announce is missing or of another shape.
    """
    given = _DEFAULTS | dict(arguments)
    tensors = dict(state)
    _check_supported(given)
    config = VaporTokConfig(
        frames=given["frame_num"],
        size=given["input_size"],
        channels=given["in_channels"],
        patch_frames=given["temporal_patch_size"],
        patch_size=given["patch_size"],
        tokens=given["bottleneck_token_num"],
        width=given["encoder_hidden_size"],
        encoder_depth=given["encoder_depth"],
        decoder_depth=given["decoder_depth"],
        heads=given["encoder_num_heads"],
        codebook_size=_entry(given, "bottleneck.args.regularizer.args.codebook_size"),
        code_width=_entry(given, "bottleneck.args.bottleneck_dim"),
        code_norm="none",
        quantizer_temperature=_temperature(given, tensors),
        pixel_range="unit",
        latent_position_base=given["latent_pe_scale_factor"],
        prior=_prior_config(given),
    )
    _fold_tables(given, config, tensors)
    return config, tensors


def _check_supported(given: Mapping[str, Any]) -> None:
    for side in ("encoder", "decoder"):
        name = given[f"{side}_name"]
        _expect(f"{side}_name", given["transformer_name"] if _is_none(name) else name, _BLOCKS)
    for name in ("temporal_patch_size", "patch_size"):
        _expect(f"decoder_{name}", given[f"decoder_{name}"], given[name])
    for name in ("hidden_size", "num_heads"):
        _expect(f"decoder_{name}", given[f"decoder_{name}"], given[f"encoder_{name}"])
    _expect("bottleneck.name", _entry(given, "bottleneck.name"), "bottleneck")
    norm = _entry(given, "bottleneck.args.norm", "none")
    _expect("bottleneck.args.norm", "none" if _is_none(norm) else norm, "none")
    _expect("bottleneck.args.regularizer.name", _entry(given, "bottleneck.args.regularizer.name"), "vq")
    for flag in ("l2_normalized", "stochastic"):
        name = f"bottleneck.args.regularizer.args.{flag}"
        _expect(name, _entry(given, name), True)


def _temperature(given: Mapping[str, Any], tensors: dict[str, Tensor]) -> float:
    """The quantiser's temperature; LARP learns its inverse where the argument is not positive."""
    name = "bottleneck.args.regularizer.args.stochastic_temperature"
    temperature = _entry(given, name)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise ValueError(f"Expected {name} to be a number, got {temperature!r}; restore LARP's arguments.")
    if temperature > 0:
        return temperature
    inverse = _take(tensors, _INVERSE_TEMPERATURE, ()).item()
    if not 0 < inverse < float("inf"):
        raise ValueError(f"Expected {_INVERSE_TEMPERATURE} > 0, got {inverse}; the weights are damaged.")
    return 1 / inverse


def _prior_config(given: Mapping[str, Any]) -> PriorConfig:
    name = _entry(given, "prior_model.name", "none")
    if _is_none(name):
        raise ValueError(
            "Expected a LARP tokenizer with a prior, got one trained without (prior_model.name 'none'); the accuracy "
            "of the prior is part of every reward, so take a checkpoint that has one."
        )
    if name not in PRIOR_SIZES:
        raise ValueError(
            f"Expected prior_model.name among {', '.join(PRIOR_SIZES)}, got {name!r}; its sizes are not known."
        )
    _expect("prior_model.args.l2_normalized", _entry(given, "prior_model.args.l2_normalized"), True)
    layers, heads, width = PRIOR_SIZES[name]
    return PriorConfig(
        layers=layers,
        heads=heads,
        width=width,
        positions=_PRIOR_POSITIONS,
        dropout=0.0 if _entry(given, "prior_model.no_dropout", False) else _PRIOR_DROPOUT,
        temperature=_entry(given, "prior_model.latent_ce_temperature"),
    )


def _fold_tables(given: Mapping[str, Any], config: VaporTokConfig, tensors: dict[str, Tensor]) -> None:
    """Sums LARP's optional learned tables into the ones of ours that they are added to."""
    width = config.width
    if given["learned_encoder_patch_pe"]:
        # The second name lacks an r in LARP too.
        names = ("encoder_h_embed", "encode_w_embed", "encoder_t_embed")
        tensors["encoder_patch_pe"] = _take_patch_table(tensors, names, config)
    if given["learned_decoder_patch_query_embed"]:
        names = ("decoder_h_embed", "decoder_w_embed", "decoder_t_embed")
        tensors["decoder_patch_query_embed"] = _take_patch_table(tensors, names, config)
    for part, table, shape in (
        ("encoder_patch", "encoder_patch_pe", (1, config.patches, width)),
        ("encoder_latent_query", "encoder_latent_query_embed", (config.tokens, width)),
        ("decoder_latent", "decoder_latent_pe", (1, config.tokens, width)),
    ):
        if given[f"use_{part}_token_type_embed"]:
            embedding = _take(tensors, f"{part}_token_type_embed", (1, 1, width))
            tensors[table] = _take(tensors, table, shape) + embedding.view(width)
    if not given[f"use_{_PATCH_QUERY_TYPE}"]:
        if _PATCH_QUERY_TYPE in tensors:
            raise ValueError(
                f"Expected no {_PATCH_QUERY_TYPE}, as LARP's arguments say, got one; they and the weights belong to "
                "different models."
            )
        tensors[_PATCH_QUERY_TYPE] = torch.zeros(1, 1, width)
    if config.patch_frames == 1:
        # LARP embeds patches of single frames with a two-dimensional convolution.
        name, side = "x_embedder.proj.weight", config.patch_size
        tensors[name] = _take(tensors, name, (width, config.channels, side, side)).unsqueeze(2)


def _take_patch_table(tensors: dict[str, Tensor], names: tuple[str, str, str], config: VaporTokConfig) -> Tensor:
    """Learned row, column and time tables, summed: ``[1, P, D]``."""
    (time, height, width), channels = config.grid, config.width
    rows = _take(tensors, names[0], (1, 1, height, 1, channels))
    columns = _take(tensors, names[1], (1, 1, 1, width, channels))
    times = _take(tensors, names[2], (1, time, 1, 1, channels))
    return (rows + columns + times).reshape(1, config.patches, channels)


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Removes a tensor and returns it as float32."""
    tensor = tensors.pop(name, None)
    if tensor is None or tuple(tensor.shape) != shape or not tensor.is_floating_point():
        found = "none" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        raise ValueError(
            f"Expected floating-point {name} of shape {shape}, as LARP's arguments say, got {found}; they and the "
            "weights belong to different models."
        )
    return tensor.float()


_REQUIRED = object()


def _entry(given: Mapping[str, Any], path: str, default: object = _REQUIRED) -> Any:
    """The value at a dotted path of nested objects."""
    value: Any = given
    for key in path.split("."):
        if not isinstance(value, Mapping) or (key not in value and default is _REQUIRED):
            raise ValueError(f"Expected {path} among LARP's arguments, got none; restore its config.json.")
        value = value.get(key, default)
    return value


def _is_none(name: object) -> bool:
    """LARP's ways to write "none"."""
    return name is None or (isinstance(name, str) and name.lower() in ("none", "no", "null", ""))


def _expect(name: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise ValueError(f"Expected {name} to be {wanted!r}, got {got!r}; this variant of LARP is not supported.")


_MODEL_NAME = "larp_tokenizer"


class _Inert:
    """Replaces numpy's arrays when unpickling; it stores nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What the trainer pickles besides tensors and plain values. Its configuration is made of EasyDict, which is a dict; the
# random states in the checkpoints of unfinished runs hold numpy arrays, which nothing here needs.
_STAND_INS: list[Any] = [
    (collections.OrderedDict, "easydict.EasyDict"),
    (_Inert, "numpy.dtype"),
    (_Inert, "numpy.ndarray"),
    *(
        (_Inert, f"numpy.{core}.multiarray.{function}")
        for core in ("core", "_core")
        for function in ("_reconstruct", "scalar")
    ),
]


def read_trainer_file(path: Path, weights: str = "model") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the tokenizer in a checkpoint of LARP's trainer, whole or with training state removed.

    Args:
        path: the ``.pth`` file.
        weights: ``"model"`` for the trained weights, ``"ema"`` for their moving average, ``"ema_0.999"`` for the one
            of that decay where there are several.

    Returns:
        LARP's constructor arguments, and its state dict on the CPU. The tensors may be views of the file.

    Raises:
        ValueError: the file is no such checkpoint, is damaged, asks for code to be run, or lacks those weights.
    """
    model = _part(_unpickle(path), "model")
    name = _part(model, "name")
    if name != _MODEL_NAME:
        found = f"a model named {name!r}" if isinstance(name, str) else "no named model"
        raise ValueError(
            f"Expected a checkpoint of LARP's tokenizer ({_MODEL_NAME!r}) in {path}, got {found}; pass the tokenizer's "
            "file, or a folder with config.json and model.safetensors."
        )
    try:
        # JSON is how the same arguments travel in LARP's other container.
        arguments = json.loads(json.dumps(_part(model, "args")))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected the model's arguments in {path} to be numbers, texts, lists and objects, got something else "
            f"({error}); download the file again."
        ) from None
    if not isinstance(arguments, dict):
        raise ValueError(f"Expected the model's arguments in {path}, got none; download the file again.")
    return arguments, _state_dict(model, weights, path)


def _unpickle(path: Path) -> object:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"Expected {path} to be a checkpoint that torch.save() wrote (a zip archive), got another kind of file or "
            "a part of one; download it again, or pass a folder with config.json and model.safetensors."
        )
    try:
        # Mapped, so that the optimiser's and the discriminator's tensors, twice the model's size, are never read.
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:
        # A damaged or hostile file can fail anywhere in the reader. Its message is not passed on: it explains how to
        # switch the guard off.
        asked = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if asked is None:
            raise ValueError(
                f"Expected a whole checkpoint of LARP's trainer at {path}, got one that cannot be read "
                f"({type(error).__name__}); download it again."
            ) from None
        raise ValueError(
            f"Expected {path} to hold tensors and plain values only, got a request for {asked[1]!r}, which could run "
            "code; nothing was run. Get the checkpoint from its authors, or as a folder with config.json and "
            "model.safetensors."
        ) from None


def _state_dict(model: object, weights: str, path: Path) -> dict[str, Tensor]:
    choices = {"model": _part(model, "sd")}
    averages = _part(model, "ema_sd")
    if isinstance(averages, dict):
        choices |= {f"ema_{decay}": averages[decay] for decay in averages}
        if len(averages) == 1:
            choices["ema"] = next(iter(averages[decay] for decay in averages))
    if weights not in choices:
        raise ValueError(
            f"Expected weights among {', '.join(map(repr, choices))} for {path}, got {weights!r}; pass one of those."
        )
    chosen = choices[weights]
    if not isinstance(chosen, dict):
        raise ValueError(f"Expected a state dict in {path}, got {type(chosen).__name__}; download the file again.")
    state = {name: chosen[name] for name in chosen}
    for name, value in state.items():
        dense = type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided
        if not isinstance(name, str) or not dense or value.device.type != "cpu":
            raise ValueError(
                f"Expected named dense tensors as weights in {path}, got {type(value).__name__} for {name!r}; download "
                "the file again."
            )
    return {name: value.detach() for name, value in state.items()}


def _part(mapping: object, key: str) -> Any:
    # By subscript only: an unpickled dict may carry attributes of its choice, which would hide its methods.
    return mapping[key] if isinstance(mapping, dict) and key in mapping else None
