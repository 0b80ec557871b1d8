"""The built-in feature network: a small 3-D convolutional classifier of procedural families and games.

It replaces I3D where nothing can be downloaded. Its distances are not comparable with published ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vaportok_rl.runtime.whole_writes import order_metadata, whole_write

STAND_IN_FILE = Path(__file__).parent / "pretrained" / "stand-in.safetensors"
FEATURES = 64
"""d. A covariance then needs 65 clips."""
CHANNELS = (32, 64, 96, 128)
# Larger clips are averaged down to this many pixels per side.
_SIZE = 32
# Differences between frames are a few grey levels; these factors bring them to the scale of the pixels.
_STEP_GAIN, _MEAN_GAIN = 8.0, 3.0


class _Residual(nn.Module):
    """A convolution added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv3d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels), nn.SiLU())

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = values + self.inner(values)
        return out


class StandIn(nn.Module):
    """Four strided 3-D convolutions, pooling over time and space, d features and a linear classifier.

    Many families differ only in motion: beside the pixels, the input has their change since the last frame and their
    distance from the clip's mean. Residual convolutions lie between the strided ones, and the maximum is pooled beside
    the mean.

    Args:
        label_names: the classes.
    """

    def __init__(self, label_names: Sequence[str]) -> None:
        super().__init__()
        self.label_names = tuple(label_names)
        layers: list[nn.Module] = []
        before = 9
        for place, after in enumerate(CHANNELS):
            stride = (2, 2, 2) if place else (1, 2, 2)
            layers += [nn.Conv3d(before, after, 3, stride, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [_Residual(after)] if 0 < place < len(CHANNELS) - 1 else []
            before = after
        self.trunk = nn.Sequential(*layers)
        self.features = nn.Linear(2 * before, FEATURES)
        self.head = nn.Linear(FEATURES, len(self.label_names))

    def embed(self, clips: Tensor) -> Tensor:
        """Features of clips ``[B, 3, T, H, W]``, uint8 or float in [0, 1]: ``float32 [B, d]``."""
        video = clips.float() / 127.5 - 1 if clips.dtype == torch.uint8 else clips.float() * 2 - 1
        if video.shape[-1] > _SIZE or video.shape[-2] > _SIZE:
            video = F.adaptive_avg_pool3d(video, (None, _SIZE, _SIZE))
        steps = video.diff(dim=2, prepend=video[:, :, :1])
        video = torch.cat([video, _STEP_GAIN * steps, _MEAN_GAIN * (video - video.mean(2, keepdim=True))], 1)
        found = self.trunk(video)
        out: Tensor = self.features(torch.cat([found.mean((2, 3, 4)), found.amax((2, 3, 4))], 1))
        return out

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of the classes: ``[B, 3, T, H, W]`` to ``float32 [B, classes]``."""
        out: Tensor = self.head(F.silu(self.embed(clips)))
        return out

    def save(self, file: Path, **notes: str) -> Path:
        """Writes the weights (float16), the classes and notes such as the training command; returns the file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu().half().contiguous() for name, value in self.state_dict().items()}
        with whole_write(file) as scratch:
            save_file(state, scratch, metadata={"labels": json.dumps(self.label_names), **notes})
            order_metadata(scratch)
        return file

    @classmethod
    def load(cls, file: Path = STAND_IN_FILE) -> StandIn:
        """Reads a file of `save`; the network is in evaluation mode."""
        with safe_open(file, "pt") as opened:
            network = cls(json.loads(opened.metadata()["labels"]))
            network.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
        return network.eval().requires_grad_(False)
