"""Feature networks for Fréchet distances: from a TorchScript file, or the built-in stand-in."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.evaluation.stand_in import STAND_IN_FILE, StandIn
from vaportok_rl.runtime.machine import usable_device
from vaportok_rl.runtime.messages import did_you_mean, no_such_path

STAND_IN = "stand-in"
# Clips per call of a network; bounds memory at 224 × 224 pixels.
_AT_ONCE = 16


@dataclass(frozen=True)
class InputProtocol:
    """Preprocessing of clips for a TorchScript network, to ``float32 [B, 3, T, S, S]``.

    Frames are resized bilinearly; then each channel is ``(value - mean) / deviation`` with values in [0, 1].

    Attributes:
        size: S in pixels; None leaves the clips as they are.
        frames: the required T; None for any.
        mean: of each channel.
        deviation: of each channel.
        options: keyword arguments for the network.
    """

    size: int | None = None
    frames: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    options: dict[str, bool] = field(default_factory=dict)

    def prepare(self, clips: Tensor) -> Tensor:
        """Clips ``[B, 3, T, H, W]``, uint8 or float in [0, 1], as the network's input.

        Raises:
            ValueError: the number of frames is not ``frames``.
        """
        if self.frames not in (None, clips.shape[2]):
            raise ValueError(
                f"Expected clips of {self.frames} frames for this feature network, got {clips.shape[2]}; use a "
                "tokenizer of that geometry or another network."
            )
        video = clips.float() / 255 if clips.dtype == torch.uint8 else clips.float()
        if self.size is not None and video.shape[-2:] != (self.size, self.size):
            batch = len(video)
            frames = video.transpose(1, 2).flatten(0, 1)
            resized = F.interpolate(frames, (self.size, self.size), mode="bilinear", align_corners=False)
            video = resized.unflatten(0, (batch, -1)).transpose(1, 2)
        mean, deviation = (video.new_tensor(part).view(3, 1, 1, 1) for part in (self.mean, self.deviation))
        return (video - mean) / deviation


_IMAGENET = InputProtocol(224, 16, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))

PROTOCOLS: dict[str, InputProtocol] = {
    # StyleGAN-V's I3D, the usual one: values in [-1, 1], no rescaling inside, its 400 logits as features.
    "i3d": InputProtocol(
        224,
        mean=(0.5, 0.5, 0.5),
        deviation=(0.5, 0.5, 0.5),
        options={"rescale": False, "resize": False, "return_features": True},
    ),
    "videomae": _IMAGENET,
    "vjepa": _IMAGENET,
    "torchscript": InputProtocol(),
}
"""Input protocols by name. A network returns ``[B, d]``, or ``[B, N, d]``, of which the mean over N is taken."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature network, with the name and hash that every reported metric must name.

    Attributes:
        name: for tables.
        sha256: of its file.
        device: of the computation.
        compute: clips ``[B, 3, T, H, W]``, uint8 or float in [0, 1], to ``float [B, d]``.
    """

    name: str
    sha256: str
    device: torch.device
    compute: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Features of clips: ``[B, 3, T, H, W]`` to ``float [B, d]``."""
        return torch.cat([self.compute(some.to(self.device)) for some in clips.split(_AT_ONCE)])


def open_feature_network(spec: str = STAND_IN, device: str | torch.device = "cpu") -> FeatureNetwork:
    """A feature network by name.

    | spec | network and input |
    |---|---|
    | ``stand-in`` | the built-in one; not comparable with published values |
    | ``i3d:FILE`` | StyleGAN-V's ``i3d_torchscript.pt``: 224 × 224, values in [-1, 1] |
    | ``videomae:FILE``, ``vjepa:FILE`` | TorchScript: 16 × 224 × 224, ImageNet's mean and standard deviation |
    | ``torchscript:FILE`` | TorchScript: clips as they are, values in [0, 1] |

    Args:
        spec: see above.
        device: of the computation.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such network, or the file is not TorchScript.
    """
    device = usable_device(device)
    if spec == STAND_IN:
        network = StandIn.load().to(device)
        return FeatureNetwork("stand-in (compares with nothing published)", _hash(STAND_IN_FILE), device, network.embed)
    kind, _, path = spec.partition(":")
    if kind not in PROTOCOLS or not path:
        offered = ", ".join((STAND_IN, *(f"{name}:FILE" for name in PROTOCOLS)))
        similar = did_you_mean(kind, (STAND_IN, *PROTOCOLS), f"for example {STAND_IN}.")
        hint = f"name its file, as {kind}:FILE." if kind in PROTOCOLS else similar
        raise ValueError(f"Expected a feature network among {offered}, got {spec!r}; {hint}")
    file = Path(path).expanduser()
    if not file.is_file():
        raise no_such_path("a TorchScript file of a feature network", path, "is no file")
    try:
        with warnings.catch_warnings():
            # torch recommends torch.export, but these networks are published as TorchScript.
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(file, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected a TorchScript file at {file}, got something else ({str(error).partition('. ')[0]}); export the "
            "network with torch.jit.save."
        ) from error
    protocol = PROTOCOLS[kind]

    def compute(clips: Tensor) -> Tensor:
        prepared = protocol.prepare(clips)
        try:
            out = module(prepared, **protocol.options)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError) as error:
            given = ", ".join((f"{prepared.dtype} {tuple(prepared.shape)}", *protocol.options))
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ValueError(
                f"Expected the network in {file} to take what {kind}:FILE gives it ({given}), got an error ({reason}); "
                f"choose among {', '.join(f'{name}:FILE' for name in PROTOCOLS)} what it was made for."
            ) from error
        if isinstance(out, Tensor) and out.dim() == 3:
            out = out.mean(1)
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != len(clips):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"Expected features [B, d] or [B, N, d] of {len(clips)} clips from {file}, got {got}; export the "
                "network without its classifier."
            )
        return out

    return FeatureNetwork(f"{kind} ({file.name})", _hash(file), device, compute)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
