"""LPIPS between videos, as a training loss and as a metric; nothing is downloaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

PerceptualNetwork = Literal["vgg", "alex", "squeeze"]


@dataclass(frozen=True)
class _Backbone:
    """A backbone of LPIPS.

    Attributes:
        model: torchvision's name for it.
        smallest: minimum height and width in pixels for which all layers have an output.
    """

    model: str
    smallest: int


_BACKBONES: dict[PerceptualNetwork, _Backbone] = {
    "vgg": _Backbone("vgg16", 16),
    "alex": _Backbone("alexnet", 31),
    "squeeze": _Backbone("squeezenet1_1", 17),
}


class PerceptualDistance(nn.Module):
    """LPIPS (Zhang et al. 2018, version 0.1) averaged over frames: L_perc of Eq. 6 is its mean over the batch.

    Frozen and always in evaluation mode; gradients reach the videos only. Computed in float32 even under autocast,
    because it squares small differences of normalised features. Building it draws no random number.

    Args:
        network: the backbone; LARP trains with ``"vgg"``, image-compression tables mostly use ``"alex"``.
        backbone: file with the backbone's ImageNet weights as torchvision publishes them; None looks into torch's
            cache, ``torch.hub.get_dir()/checkpoints``. The linear layers on top come with the ``lpips`` package.

    Raises:
        ValueError: the network is unknown, or the file is damaged or of another network.
        FileNotFoundError: the backbone's weights are not there; says which file to put where.
    """

    def __init__(self, network: PerceptualNetwork = "vgg", backbone: str | Path | None = None) -> None:
        super().__init__()
        if network not in _BACKBONES:
            options = ", ".join(map(repr, get_args(PerceptualNetwork)))
            raise ValueError(f"Expected a perceptual network among {options}, got {network!r}; pass one of them.")
        self.network = network
        self._metric = _assemble(network, _locate(network, backbone))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Does nothing: LPIPS has dropout, so it stays in evaluation mode."""
        del mode
        return super().train(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Compares videos frame by frame.

        Args:
            first: ``float [B, C, T, H, W]``, pixels nominally in [0, 1], not clamped; C is 3, or 1 for grey.
            second: the same shape.

        Returns:
            ``float32 [B]``, ≥ 0 and 0 for equal videos.

        Raises:
            ValueError: the shapes differ or do not fit, pixels are integers, or frames are too small for the network.
        """
        smallest = _BACKBONES[self.network].smallest
        if first.dim() != 5 or first.shape != second.shape or first.shape[1] not in (1, 3):
            raise ValueError(
                f"Expected two videos of one shape [B, C, T, H, W] with C = 3 or 1, got {tuple(first.shape)} and "
                f"{tuple(second.shape)}; cut and resize them alike."
            )
        if not (first.is_floating_point() and second.is_floating_point()):
            raise ValueError(
                f"Expected floats in [0, 1], got {first.dtype} and {second.dtype}; divide 0-255 video by 255."
            )
        if min(first.shape[-2:]) < smallest:
            raise ValueError(
                f"Expected frames of at least {smallest}×{smallest} pixels for LPIPS with {self.network!r}, got "
                f"{first.shape[-2]}×{first.shape[-1]}; enlarge them or choose another network."
            )
        with torch.autocast(first.device.type, enabled=False):
            distances: Tensor = self._metric(_frames(first), _frames(second), normalize=True)
        return distances.view(first.shape[0], -1).mean(dim=1)


def _frames(video: Tensor) -> Tensor:
    """``[B, C, T, H, W]`` to ``float32 [B·T, 3, H, W]``."""
    return rearrange(video.float().expand(-1, 3, -1, -1, -1), "b c t h w -> (b t) c h w")


def _locate(network: PerceptualNetwork, backbone: str | Path | None) -> Path:
    """The backbone's file."""
    # lpips and torchvision take seconds to import.
    from torchvision.models import get_model_weights

    url = str(get_model_weights(_BACKBONES[network].model).IMAGENET1K_V1.url)
    if backbone is None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    else:
        path = Path(backbone).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the ImageNet weights of {_BACKBONES[network].model} (the backbone of LPIPS {network!r}) in the "
            f"file {path}, got nothing there; put {url} at that place, name the file elsewhere as the perceptual "
            "backbone, or do without LPIPS (pretraining: set the weight perceptual=0)."
        )
    return path


def _read_weights(path: Path, network: PerceptualNetwork) -> dict[str, Tensor]:
    """Tensors of a torchvision checkpoint; code in the file is not run."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load reports damage by almost any exception
        raise ValueError(_wrong_file(path, network, f"a file that cannot be read ({type(error).__name__})")) from error
    if not isinstance(content, dict):
        raise ValueError(_wrong_file(path, network, f"an object of type {type(content).__name__}"))
    return {name: value.detach().float() for name, value in content.items() if isinstance(value, Tensor)}


def _wrong_file(path: Path, network: PerceptualNetwork, got: str) -> str:
    return (
        f"Expected {path} to hold the ImageNet weights of torchvision's {_BACKBONES[network].model}, got {got}; "
        "delete the file and fetch it again, or name the right one."
    )


def _assemble(network: PerceptualNetwork, path: Path) -> nn.Module:
    """The `lpips` module with the backbone weights of a file.

    It is built without storage and then filled, which skips a random initialisation of up to 138 million parameters
    that would also advance the global random state.
    """
    import lpips

    weights = _read_weights(path, network)
    with warnings.catch_warnings(), torch.device("meta"):
        # lpips 0.1.4 still asks torchvision for untrained networks in the words of 2021.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torchvision\.models")
        metric: nn.Module = lpips.LPIPS(net=network, pnet_rand=True, pretrained=False, verbose=False)
    package = Path(lpips.__file__).parent
    heads = torch.load(package / "weights" / "v0.1" / f"{network}.pth", map_location="cpu", weights_only=True)
    state = metric.state_dict()
    for name, empty in state.items():
        part, _, rest = name.partition(".")
        if part == "net":  # net.slice2.5.weight is torchvision's features.5.weight
            source = f"features.{rest.partition('.')[2]}"
            found = weights.get(source)
            if found is None or found.shape != empty.shape:
                got = "no" if found is None else f"shape {tuple(found.shape)} instead of {tuple(empty.shape)} in"
                raise ValueError(_wrong_file(path, network, f"{got} {source}"))
            state[name] = found
        elif part == "lins":  # lins.0 is lin0 under its other name
            index, _, layer = rest.partition(".")
            state[name] = heads[f"lin{index}.{layer}"]
        elif part.startswith("lin"):
            state[name] = heads[name]
    metric.load_state_dict(state, assign=True)
    return metric
