"""LPIPS against the `lpips` package itself, on labelled stand-ins: backbones of random weights, not ImageNet's."""

import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import lpips
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from vaportok_rl.tokenizer.perceptual import PerceptualDistance, PerceptualNetwork

NETWORKS: tuple[PerceptualNetwork, ...] = get_args(PerceptualNetwork)
TORCHVISION = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
FILES = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}


def empty_network(network: str) -> nn.Module:
    with torch.device("meta"):
        built: nn.Module = getattr(torchvision.models, TORCHVISION[network])(weights=None)
    return built


def random_backbone(network: str) -> dict[str, Tensor]:
    """Weights in torchvision's layout that keep features alive through the layers."""
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.6.bias": torch.zeros(10)}  # published files hold more than the features
    for name, empty in empty_network(network).features.state_dict().items():  # type: ignore[union-attr]
        fan_in = empty[0].numel() if empty.dim() > 1 else 1
        scale = (2 / fan_in) ** 0.5 if empty.dim() > 1 else 0.05
        state[f"features.{name}"] = scale * torch.randn(empty.shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("random-weights-not-imagenet")

    def find(network: str) -> Path:
        path = folder / f"{network}.pth"
        if not path.exists():
            torch.save(random_backbone(network), path)
        return path

    return find


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)


@pytest.fixture
def squeeze(standin: Callable[[str], Path]) -> PerceptualDistance:
    return PerceptualDistance("squeeze", standin("squeeze"))


def package_metric(network: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """`lpips.LPIPS` as its authors build it, given the same weights where it would download ImageNet's."""
    backbone = empty_network(network)
    features = {
        name.removeprefix("features."): value
        for name, value in random_backbone(network).items()
        if name.startswith("features.")
    }
    backbone.features.load_state_dict(features, assign=True)  # type: ignore[union-attr]
    monkeypatch.setattr(torchvision.models, TORCHVISION[network], lambda pretrained: backbone)
    metric: nn.Module = lpips.LPIPS(net=network, verbose=False)
    return metric.requires_grad_(False)


def videos(size: int = 32, batch: int = 2, frames: int = 3, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(batch, channels, frames, size, size, generator=generator)
    second = first + 0.3 * torch.rand(first.shape, generator=generator)  # leaves [0, 1], as reconstructions do
    return first, second


@pytest.fixture
def plain_convolutions() -> Iterator[None]:
    """oneDNN sums a batch in another order than one frame, which may switch a ReLU whose input is nearly 0."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.mark.usefixtures("plain_convolutions")
@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # of switching it off
@pytest.mark.parametrize("network", NETWORKS)
def test_equals_the_package_frame_by_frame(
    network: PerceptualNetwork, standin: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    distance = PerceptualDistance(network, standin(network))
    first, second = videos()
    given = second.clone().requires_grad_()
    result = distance(first, given)
    result.sum().backward()

    reference = package_metric(network, monkeypatch)
    expected_input = second.clone().requires_grad_()
    expected = torch.stack(
        [
            sum(
                reference(2 * first[clip : clip + 1, :, frame] - 1, 2 * expected_input[clip : clip + 1, :, frame] - 1)
                for frame in range(3)
            ).reshape(())
            / 3
            for clip in range(2)
        ]
    )
    expected.sum().backward()
    assert bool((expected > 1e-3).all())
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(given.grad, expected_input.grad, rtol=1e-3, atol=1e-7)
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_is_a_distance(squeeze: PerceptualDistance) -> None:
    first, second = videos()
    assert torch.equal(squeeze(first, first), torch.zeros(2))
    there, back = squeeze(first, second), squeeze(second, first)
    assert there.shape == (2,)
    assert there.dtype == torch.float32
    assert bool((there > 0).all())
    torch.testing.assert_close(there, back)
    halfway = squeeze(first, first + (second - first) / 4)
    assert bool((halfway < there).all())


@pytest.mark.parametrize("network", NETWORKS)
def test_smallest_frames(network: PerceptualNetwork, standin: Callable[[str], Path]) -> None:
    distance = PerceptualDistance(network, standin(network))
    assert torch.isfinite(distance(*videos(size=SMALLEST[network]))).all()
    first, second = videos(size=SMALLEST[network] - 1)
    with pytest.raises(RuntimeError):  # the package itself can do no less
        distance._metric(first[:, :, 0], second[:, :, 0])
    smallest = f"at least {SMALLEST[network]}×{SMALLEST[network]}"
    with pytest.raises(ValueError, match=f"{smallest}.*{network}.*{SMALLEST[network] - 1}×"):
        distance(first, second)


def test_grey_video_counts_as_three_equal_channels(squeeze: PerceptualDistance) -> None:
    first, second = videos(channels=1)
    torch.testing.assert_close(
        squeeze(first, second), squeeze(first.repeat(1, 3, 1, 1, 1), second.repeat(1, 3, 1, 1, 1))
    )


def test_gradient_is_finite_where_features_are_dead(standin: Callable[[str], Path], tmp_path: Path) -> None:
    state = torch.load(standin("squeeze"), weights_only=True)
    state["features.0.bias"] -= 100
    path = tmp_path / "dead.pth"
    torch.save(state, path)
    first, second = videos()
    second.requires_grad_()
    PerceptualDistance("squeeze", path)(first, second).sum().backward()
    assert second.grad is not None
    assert torch.isfinite(second.grad).all()


def test_stays_frozen_in_evaluation_mode_and_float32(squeeze: PerceptualDistance) -> None:
    first, second = videos()
    before = squeeze(first, second)
    parent = nn.ModuleList([squeeze]).train()
    assert not any(module.training for module in parent[0].modules())
    assert not any(parameter.requires_grad for parameter in squeeze.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(squeeze(first, second), before)


@pytest.mark.parametrize("network", NETWORKS)
def test_torch_cache(
    network: PerceptualNetwork, standin: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / FILES[network]
    with pytest.raises(FileNotFoundError) as missing:
        PerceptualDistance(network)
    assert str(place) in str(missing.value)
    assert re.search(rf"https://\S+/{FILES[network]}", str(missing.value))
    assert "perceptual=0" in str(missing.value)
    place.parent.mkdir(parents=True)
    place.symlink_to(standin(network))
    first, second = videos()
    assert torch.equal(
        PerceptualDistance(network)(first, second), PerceptualDistance(network, str(place))(first, second)
    )


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def _truncate(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (_truncate, "a file that cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "a file that cannot be read"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "a file that cannot be read"),
    "code": (lambda path: path.write_bytes(pickle.dumps(_Trap(), protocol=2)), "a file that cannot be read"),
    "list": (lambda path: torch.save([1, 2], path), "an object of type list"),
    "other network": (
        lambda path: torch.save(random_backbone("alex"), path),
        "shape (64, 3, 11, 11) instead of (64, 3, 3, 3) in features.0.weight",
    ),
    "layers missing": (lambda path: torch.save({}, path), "got no features.0.weight"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file(
    damage: str, standin: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "backbone.pth"
    path.write_bytes(standin("squeeze").read_bytes())
    harm, message = DAMAGE[damage]
    harm(path)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        PerceptualDistance("squeeze", path)
    assert str(path) in str(error.value)
    assert "squeezenet1_1" in str(error.value)
    assert not Path("sprung").exists()


def test_old_file_format_and_half_precision(
    standin: Callable[[str], Path], squeeze: PerceptualDistance, tmp_path: Path
) -> None:
    state = torch.load(standin("squeeze"), weights_only=True)
    path = tmp_path / "half.pth"
    torch.save({name: value.half() for name, value in state.items()}, path, _use_new_zipfile_serialization=False)
    first, second = videos()
    result = PerceptualDistance("squeeze", path)(first, second)
    torch.testing.assert_close(result, squeeze(first, second), rtol=0.02, atol=1e-4)


def test_misuse_is_explained(squeeze: PerceptualDistance, tmp_path: Path) -> None:
    first, second = videos()
    with pytest.raises(ValueError, match="among 'vgg', 'alex', 'squeeze', got 'resnet'"):
        PerceptualDistance("resnet")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.pth"))):
        PerceptualDistance("vgg", tmp_path / "none.pth")
    with pytest.raises(ValueError, match="two videos of one shape"):
        squeeze(first, second[:, :, :2])
    with pytest.raises(ValueError, match="C = 3 or 1"):
        squeeze(first[:, :2], second[:, :2])
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got torch.uint8"):
        squeeze((first * 255).byte(), (first * 255).byte())
