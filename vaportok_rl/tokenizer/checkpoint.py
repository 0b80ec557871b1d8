"""Checkpoint folders: ``config.json`` + ``model.safetensors``. Nothing is ever unpickled."""

from __future__ import annotations

import difflib
import json
import re
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.model import Precision, VaporTok

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_SHIPPED = Path(__file__).parent / "pretrained"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def shipped_checkpoints() -> tuple[str, ...]:
    """Names of the checkpoints inside the package."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CONFIG_FILE}")))


def save_checkpoint(model: VaporTok, folder: str | Path, *, half: bool = False) -> Path:
    """Writes a model to a folder; each file appears whole or not at all.

    Args:
        model: the tokenizer.
        folder: created if missing; an existing checkpoint in it is replaced.
        half: store the weights as float16 (loaded back as float32).

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.detach().cpu().to(torch.float16 if half and value.is_floating_point() else value.dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        weights, config = Path(scratch) / WEIGHTS_FILE, Path(scratch) / CONFIG_FILE
        save_file(state, weights, metadata={"format": "pt"})
        config.write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
        weights.replace(folder / WEIGHTS_FILE)
        config.replace(folder / CONFIG_FILE)
    return folder


def resolve_checkpoint(source: str | Path) -> Path:
    """Finds the folder behind a name, path or hub id.

    Raises:
        FileNotFoundError: nothing is there, or the folder lacks one of the two files.
    """
    name = str(source)
    if name in shipped_checkpoints():
        return _SHIPPED / name
    folder = Path(source).expanduser()
    if folder.is_dir():
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / file).is_file():
                raise FileNotFoundError(
                    f"Expected a checkpoint folder with {CONFIG_FILE} and {WEIGHTS_FILE}, got {folder} without {file}; "
                    "point to the folder that save_pretrained() or `vaportok-rl pretrain` wrote."
                )
        return folder
    if isinstance(source, str) and _HUB_ID.fullmatch(name) and not folder.exists():
        return _download(name)
    close = difflib.get_close_matches(name, shipped_checkpoints(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "train one with `vaportok-rl pretrain`."
    raise FileNotFoundError(
        f"Expected a shipped checkpoint ({', '.join(shipped_checkpoints()) or 'none in this build'}), a checkpoint "
        f"folder or a hub id like 'owner/name', got {name!r}; {hint}"
    )


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"Expected a checkpoint folder or a reachable hub id, got {hub_id!r}, which is neither a folder here nor "
            f"could be downloaded ({type(error).__name__}); check the name and the network."
        ) from error


def load_checkpoint(
    source: str | Path, *, device: str | torch.device = "cpu", precision: Precision = "float32"
) -> VaporTok:
    """Loads a frozen world.

    Args:
        source: a shipped name (``"nano"``), a checkpoint folder, or a hub id.
        device: where the weights go.
        precision: ``"float32"`` or ``"bfloat16"``; see `VaporTok`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the files are damaged or do not fit each other.
    """
    folder = resolve_checkpoint(source)
    try:
        config = VaporTokConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected JSON in {folder / CONFIG_FILE}, got something else ({error}); restore it."
        ) from error
    model = VaporTok(config, precision)
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(
            f"Expected a whole safetensors file at {folder / WEIGHTS_FILE}, got a damaged one ({error}); copy it again."
        ) from error
    check_state(model, state, folder / WEIGHTS_FILE)
    model.load_state_dict(state)
    return model.to(device).freeze()


def check_state(model: VaporTok, state: dict[str, torch.Tensor], where: Path) -> None:
    """Compares names and shapes of a state dict with a model.

    Raises:
        ValueError: something is missing, unknown or of another shape; the message names the first of each.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or unknown or wrong:
        details = [f"{len(missing)} tensors missing (first: {missing[0]})"] if missing else []
        details += [f"{len(unknown)} unknown (first: {unknown[0]})"] if unknown else []
        details += [
            f"{len(wrong)} of another shape (first: {wrong[0]}, {tuple(state[wrong[0]].shape)} for "
            f"{tuple(own[wrong[0]].shape)})"
            for _ in range(bool(wrong))
        ]
        raise ValueError(
            f"Expected weights of the geometry in {CONFIG_FILE} beside {where}, got {'; '.join(details)}; "
            "the two files belong to different models."
        )
