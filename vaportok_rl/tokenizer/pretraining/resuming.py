"""The state file of a run, and Ctrl-C that takes effect between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from vaportok_rl.runtime.whole_writes import whole_write

STATE_FILE = "training_state.pt"
MODEL_FOLDER = "model"


class NonFiniteLossError(RuntimeError):
    """A loss, gradient or weight is NaN or infinite; the message names the step and the last good checkpoint."""

    @classmethod
    def of(cls, found: str, folder: Path, step: int) -> NonFiniteLossError:
        """The error of a run folder at a step; ``found`` says what was expected and what came."""
        state = folder / STATE_FILE
        kept = f"the last good checkpoint is {state}" if state.is_file() else "no checkpoint was written yet"
        return cls(
            f"{found} at step {step}; {kept}. Lower the learning rates, or pass precision float32 if it is bfloat16, "
            "and start again or resume."
        )


def write_state(folder: Path, state: Mapping[str, Any]) -> Path:
    """Writes the state atomically; returns its path.

    Everything a run needs is in this file, so a kill leaves either the old state or the new one.

    Raises:
        NonFiniteLossError: a weight, average or optimiser moment is not finite; nothing is written.
    """
    for name, value in _tensors(state):
        if not bool(torch.isfinite(value).all()):
            found = f"Expected finite weights, got NaN or infinity in {name}"
            raise NonFiniteLossError.of(found, folder, state["step"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STATE_FILE
    with whole_write(path) as scratch:
        torch.save(dict(state), scratch)
    return path


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dictionaries, with their path."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def read_state(folder: Path) -> dict[str, Any]:
    """Reads the state of a run folder, on the CPU.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a checkpoint at {path} to resume from, found none; start the run without --resume."
        )
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever the bytes lead to
        raise ValueError(
            f"Expected the state of a run at {path}, got a damaged file ({type(error).__name__}); copy it again, or "
            "start a new run folder."
        ) from error
    return state


def check_settings(
    folder: Path, state: Mapping[str, Any], config: Mapping[str, Any], model_config: Mapping[str, Any], clips: str
) -> None:
    """Checks that a run is resumed with the settings it was started with.

    The complexity tables are not compared: they are a function of the clips, which are.

    Args:
        folder: the run folder, for the message.
        state: from `read_state`.
        config: settings of the run, as plain data.
        model_config: of the tokenizer, as plain data.
        clips: the source's identity.

    Raises:
        ValueError: some differ; the message names them.
    """
    saved, mine = (
        {**run, **model, "clips": source, "complexity": _without_tables(model["complexity"])}
        for run, model, source in (
            (state["config"], state["model_config"], state["clips"]),
            (config, model_config, clips),
        )
    )
    check_unchanged(folder, saved, mine)


def check_unchanged(folder: Path, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Checks that two sets of settings are equal.

    Args:
        folder: the run folder, for the message.
        saved: the settings the run was started with, as plain data.
        mine: those it is resumed with.

    Raises:
        ValueError: some differ; the message names them.
    """
    changed = sorted(name for name in mine if saved.get(name) != mine[name])
    if changed:
        shown = "; ".join(f"{name}: {saved.get(name)!r} then, {mine[name]!r} now" for name in changed[:3])
        raise ValueError(
            f"Expected the settings the run in {folder} was started with, got other values for {', '.join(changed)} "
            f"({shown}); resume with the original settings or start a new run folder."
        )


def _without_tables(complexity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in complexity.items() if not name.endswith("_quantiles")}


class DeferredInterrupt:
    """While entered, the first Ctrl-C only sets ``requested``; a second one interrupts at once.

    An interrupt in the middle of an optimiser step would leave half of the weights updated. Outside the main thread,
    where Python delivers no signals, this does nothing.

    Attributes:
        requested: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> DeferredInterrupt:
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
