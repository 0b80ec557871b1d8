"""Reading the ``.pth`` files of LARP's trainer without running anything that they contain."""

from __future__ import annotations

import collections
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MODEL_NAME = "larp_tokenizer"


class _Inert:
    """Takes the place of numpy's arrays: built from whatever the file says, it holds none of it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What the trainer pickles beside tensors and plain values. Its configuration is made of EasyDict, which is a dict; the
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
    model = _entry(_unpickle(path), "model")
    name = _entry(model, "name")
    if name != _MODEL_NAME:
        found = f"a model named {name!r}" if isinstance(name, str) else "no named model"
        raise ValueError(
            f"Expected a checkpoint of LARP's tokenizer ({_MODEL_NAME!r}) in {path}, got {found}; pass the tokenizer's "
            "file, or a folder with config.json and model.safetensors."
        )
    try:
        # JSON is how the same arguments travel in LARP's other container.
        arguments = json.loads(json.dumps(_entry(model, "args")))
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
    choices = {"model": _entry(model, "sd")}
    averages = _entry(model, "ema_sd")
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


def _entry(mapping: object, key: str) -> Any:
    # By subscript only: an unpickled dict may carry attributes of its choice, which would hide its methods.
    return mapping[key] if isinstance(mapping, dict) and key in mapping else None
