"""Checkpoint folders (``config.json`` + ``model.safetensors``), hub repositories and LARP's files as frozen worlds."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Unpack

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vaportok_rl.runtime.hub import HubOptions, download
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.runtime.whole_writes import order_metadata, whole_write
from vaportok_rl.tokenizer.config import TaildropConfig, VaporTokConfig
from vaportok_rl.tokenizer.files.larp import import_larp, is_larp, read_trainer_file
from vaportok_rl.tokenizer.lengths import TAILDROP_WEIGHTS

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_SHIPPED = Path(__file__).parents[1] / "pretrained"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TRAINER_SUFFIXES = (".pth", ".pt")


def shipped_checkpoints() -> tuple[str, ...]:
    """Names of the checkpoints in the package."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CONFIG_FILE}")))


def write_checkpoint(
    config: VaporTokConfig, state: Mapping[str, Tensor], folder: str | Path, *, half: bool = False
) -> Path:
    """Writes configuration and weights to a folder; each file appears whole or not at all.

    The weights carry a copy of the configuration and a checksum of each tensor. `read_checkpoint` compares both, so two
    files of different saves and weights with a flipped bit are refused.

    Args:
        config: of the tokenizer.
        state: its weights.
        folder: created if missing; an existing checkpoint in it is replaced.
        half: store the weights as float16 (loaded back as float32).

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.detach().cpu().to(torch.float16 if half and value.is_floating_point() else value.dtype).contiguous()
        for name, value in state.items()
    }
    settings = config.to_dict()
    sums = {name: _checksum(value) for name, value in state.items()}
    # Both are written before either is replaced, the weights first.
    with whole_write(folder / CONFIG_FILE) as config_file, whole_write(folder / WEIGHTS_FILE) as weights:
        save_file(state, weights, metadata={"config": json.dumps(settings), "crc32": json.dumps(sums)})
        order_metadata(weights)
        config_file.write_text(json.dumps(settings, indent=2) + "\n")
    return folder


def _checksum(value: Tensor) -> int:
    return zlib.crc32(value.reshape(-1).view(torch.uint8).numpy())


def resolve_checkpoint(source: str | Path, **hub: Unpack[HubOptions]) -> Path:
    """The checkpoint folder, or file of LARP's trainer, of a name, path or hub id.

    Raises:
        FileNotFoundError: nothing is there, or a folder without weights.
        ValueError: a file that is not a trainer's.
        TypeError: an option that `HubOptions` does not have.
    """
    if unknown := hub.keys() - HubOptions.__annotations__.keys():
        raise TypeError(f"Expected options among {', '.join(HubOptions.__annotations__)}, got {min(unknown)!r}.")
    name = str(source)
    if name in shipped_checkpoints():
        return _SHIPPED / name
    path = Path(source).expanduser()
    is_trainer_file = path.suffix in _TRAINER_SUFFIXES
    if path.is_file():
        if not is_trainer_file:
            raise ValueError(
                f"Expected a checkpoint folder or a .pth file of LARP's trainer, got the file {path}; "
                f"pass {path.parent} if that is the checkpoint."
            )
        return path
    looks_remote = isinstance(source, str) and _HUB_ID.fullmatch(name) and not is_trainer_file
    if not path.exists() and looks_remote:
        path = download(name, [CONFIG_FILE, WEIGHTS_FILE], **hub)
    if not path.is_dir():
        hint = did_you_mean(name, shipped_checkpoints(), "train one with `vaportok-rl pretrain`.")
        raise FileNotFoundError(
            f"Expected a shipped checkpoint ({', '.join(shipped_checkpoints()) or 'none in this build'}), a checkpoint "
            f"folder, a hub id like 'owner/name' or a .pth file of LARP's trainer, got {name!r}; {hint}"
        )
    if not (path / WEIGHTS_FILE).is_file():
        raise _incomplete(path, WEIGHTS_FILE)
    return path


def _incomplete(folder: Path, file: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"Expected a checkpoint folder with {CONFIG_FILE} and {WEIGHTS_FILE}, got {folder} without {file}; "
        "point to the folder that save_pretrained() or `vaportok-rl pretrain` wrote."
    )


class Stored(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        config: of the tokenizer.
        state: its weights, all finite.
        from_larp: whether LARP saved it; LARP has no taildrop query module.
        origin: of the configuration, for messages.
    """

    config: VaporTokConfig
    state: dict[str, Tensor]
    from_larp: bool
    origin: str


def read_checkpoint(source: str | Path, weights: str = "model", only: str = "", **hub: Unpack[HubOptions]) -> Stored:
    """Reads a checkpoint; see `VaporTok.from_pretrained` for the arguments and errors.

    Args:
        source: name, folder, hub id or file.
        weights: which of a trainer's.
        only: read only weights whose names begin with this; of a LARP tokenizer, all.
        hub: how to fetch a hub id.
    """
    path = resolve_checkpoint(source, **hub)
    if path.is_file():
        arguments, state = read_trainer_file(path, weights)
        config, state = import_larp(arguments, state)
        stored = Stored(config, state, True, f"the arguments inside {path}")
    elif weights != "model":
        raise ValueError(
            f"Expected weights='model' for {path}, got {weights!r}; only the .pth files of LARP's trainer hold others."
        )
    else:
        stored = Stored(*_read_folder(path, only), f"{CONFIG_FILE} beside {path / WEIGHTS_FILE}")
    for name, value in stored.state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"Expected finite weights in {path}, got NaN or infinity in {name}; restore the file, or train again "
                "from the last good checkpoint."
            )
    return stored


def file_stamps(checkpoint: Path) -> tuple[tuple[Path, int, int], ...]:
    """The files of a checkpoint, or of a LARP trainer, with time and size, to detect changes."""
    files = [checkpoint] if checkpoint.is_file() else [checkpoint / WEIGHTS_FILE, checkpoint / CONFIG_FILE]
    stats = [(file.resolve(), file.stat()) for file in files if file.is_file()]
    return tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats)


def _read_folder(folder: Path, only: str = "") -> tuple[VaporTokConfig, dict[str, Tensor], bool]:
    """Configuration, weights whose names begin with ``only``, and whether they are LARP's (then none but all)."""
    try:
        with safe_open(folder / WEIGHTS_FILE, "pt") as file:
            kept = (file.metadata() or {}).get("config")
            names = [name for name in file.keys() if kept is None or name.startswith(only)]  # noqa: SIM118
            state = {name: file.get_tensor(name) for name in names}
            sums = _parse((file.metadata() or {}).get("crc32", "{}"), f"the metadata of {folder / WEIGHTS_FILE}")
    except SafetensorError as error:
        raise ValueError(
            f"Expected a whole safetensors file at {folder / WEIGHTS_FILE}, got a damaged one ({error}); copy it again."
        ) from error
    if not isinstance(sums, dict):
        raise ValueError(f"Expected checksums of the tensors in {folder / WEIGHTS_FILE}, got {sums!r}; copy it again.")
    changed = [name for name, value in state.items() if sums.get(name, _checksum(value)) != _checksum(value)]
    if changed:
        raise ValueError(
            f"Expected the weights that were saved in {folder / WEIGHTS_FILE}, got others in {changed[0]} (by its "
            "checksum); copy the file again."
        )
    own = None if kept is None else VaporTokConfig.from_dict(_parse(kept, f"the metadata of {folder / WEIGHTS_FILE}"))
    if not (folder / CONFIG_FILE).is_file():
        if own is None:
            raise _incomplete(folder, CONFIG_FILE)
        return own, state, False
    settings = _parse((folder / CONFIG_FILE).read_bytes(), str(folder / CONFIG_FILE))
    from_larp = is_larp(settings)
    if from_larp:
        config, state = import_larp(settings, state)
    else:
        config = VaporTokConfig.from_dict(settings)
        state = {name: value for name, value in state.items() if name.startswith(only)}
    if own is not None and config != own:
        name, stated, saved = _first_difference(config.to_dict(), own.to_dict())
        raise ValueError(
            f"Expected {folder / CONFIG_FILE} to be the one that {WEIGHTS_FILE} beside it was saved with, got "
            f"{name} {stated!r} for {saved!r}; restore it, or delete it: the weights hold their own copy."
        )
    return config, state, from_larp


def _parse(content: str | bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected JSON in {where}, got something else ({error}); restore it.") from error


def _first_difference(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any]:
    """Dotted name and both values of the first entry in which two configurations differ."""
    name = next(key for key in one if one[key] != other[key])
    if isinstance(one[name], Mapping):
        return _first_difference(one[name], other[name], f"{prefix}{name}.")
    return prefix + name, one[name], other[name]


def _check_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Compares names, shapes and types of a state dict with those of a model.

    Args:
        expected: the model's state dict.
        state: the one to be loaded; any floating-point type fits any other.
        origin: of the model's geometry.

    Raises:
        ValueError: something is missing, unknown, or of another shape or type; the message names the first of each.
    """
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shared = [name for name in expected if name in state]
    misshapen = [name for name in shared if state[name].shape != expected[name].shape]
    mistyped = [
        name
        for name in shared
        if state[name].dtype != expected[name].dtype
        and not (state[name].is_floating_point() and expected[name].is_floating_point())
    ]
    details = [f"{len(missing)} tensors missing (first: {missing[0]})"] if missing else []
    details += [f"{len(unknown)} unknown (first: {unknown[0]})"] if unknown else []
    if misshapen:
        name = misshapen[0]
        shapes = f"{tuple(state[name].shape)} for {tuple(expected[name].shape)}"
        details.append(f"{len(misshapen)} of another shape (first: {name}, {shapes})")
    if mistyped:
        name = mistyped[0]
        types = f"{state[name].dtype} for {expected[name].dtype}"
        details.append(f"{len(mistyped)} of another type (first: {name}, {types})")
    if details:
        raise ValueError(
            f"Expected weights of the geometry in {origin}, got {'; '.join(details)}; the two belong to different "
            "models."
        )


_Module = TypeVar("_Module", bound=nn.Module)


def build_stored(stored: Stored, make: Callable[[], _Module]) -> _Module:
    """A module with the stored weights, made once these are known to fit: a configuration may ask for any size."""
    config = stored.config
    depth = max(config.encoder_depth, config.decoder_depth, config.prior.layers, config.taildrop.blocks)
    # Every block has weights of its own.
    if depth > max(len(stored.state), TaildropConfig.blocks):
        raise ValueError(
            f"Expected weights of the geometry in {stored.origin}, got {len(stored.state)} tensors for {depth} blocks; "
            "the two belong to different models."
        )
    try:
        with torch.device("meta"):
            sizes = make().state_dict()
    except (RuntimeError, OverflowError) as error:
        raise ValueError(
            f"Expected a geometry that a tensor can have in {stored.origin}, got: {error}; restore it."
        ) from error
    # LARP's tokenizers have no taildrop module.
    optional = TAILDROP_WEIGHTS if stored.from_larp else None
    expected = {name: value for name, value in sizes.items() if optional is None or not name.startswith(optional)}
    _check_state(expected, stored.state, stored.origin)
    # What the file lacks starts the same in every process, and the caller's random numbers stay as they are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = make()
    module.load_state_dict({**module.state_dict(), **stored.state})
    return module


# What the card of a saved tokenizer says; huggingface_hub fills in the marked places.
MODEL_CARD = """---
{{ card_data }}
---

# {{ title | default("A VaporTok tokenizer", true) }}

A holistic video tokenizer with taildrop, for the reinforcement-learning environment `vaportok/Taildrop-v0`. It turns
{{ config.frames }} frames of {{ config.size }} × {{ config.size }} pixels into {{ config.tokens }} ordered tokens from
a codebook of {{ config.codebook_size }}; the first n of them decode to a video for every n. With it come an
autoregressive prior over the tokens and the taildrop query module, which proposes n for each clip.

## Use

```python
from vaportok_rl.tokenizer import VaporTok

world = VaporTok.from_pretrained("{{ repo_id | default("owner/name", true) }}")
encoded = world.encode(clips)  # [B, {{ config.channels }}, {{ config.frames }}, {{ config.size }}, {{ config.size }}]
video = world.decode(encoded.codes, {{ [config.tokens // 4, 1] | max }})  # from the first tokens only
n_tokens = world.taildrop(encoded.latents).probs.argmax(-1) + 1
```

Install the library with `pip install vaportok-rl`.{% if repo_url %} Code: {{ repo_url }}.{% endif %}

## Training

{{ training | default("Not stated. Whoever publishes these weights should say here which clips they were trained on, \
with which command and settings, and under which licence the clips are.", true) }}

## Metrics

{{ figures | default("Not stated. `vaportok-rl info` measures error, codes in use and the prior's accuracy at every \
length.", true) }}

## Limits

It reconstructs video of this one geometry; detail beyond its tokens' bits is lost, most of it at small n. It generates
nothing by itself.
"""
