"""Feature networks from files and the built-in one: their input protocols, and what is refused."""

import hashlib
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.clips.procedural.families import FAMILIES
from vaportok_rl.evaluation.feature_networks import PROTOCOLS, STAND_IN, open_feature_network
from vaportok_rl.evaluation.stand_in import FEATURES, STAND_IN_FILE, StandIn


class LikeI3D(nn.Module):
    """Takes I3D's options and tells size and range of its input."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        if rescale or resize or not return_features:
            return x
        size = torch.full((x.shape[0],), float(x.shape[-1]))
        return torch.stack([x.amin((1, 2, 3, 4)), x.amax((1, 2, 3, 4)), size], 1)


class Patches(nn.Module):
    """Gives N vectors a clip, as a transformer does."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((3, 4)).transpose(1, 2)


def saved(module: nn.Module, folder: Path) -> Path:
    file = folder / f"{type(module).__name__}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(module).save(file)  # type: ignore[no-untyped-call]
    return file


def test_i3d_sees_what_the_field_gives_it(tmp_path: Path) -> None:
    file = saved(LikeI3D(), tmp_path)
    network = open_feature_network(f"i3d:{file}")
    clips = torch.zeros(20, 3, 9, 8, 8, dtype=torch.uint8)
    clips[:, :, :, 4:] = 255
    expected = torch.tensor([-1.0, 1.0, 224.0]).expand(20, -1)
    torch.testing.assert_close(network(clips), expected)
    torch.testing.assert_close(network(clips.float() / 255), expected)
    assert network.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.name in network.name


@pytest.mark.parametrize("kind", ["videomae", "vjepa"])
def test_transformers_see_normalised_frames_and_give_the_mean_of_their_vectors(tmp_path: Path, kind: str) -> None:
    network = open_feature_network(f"{kind}:{saved(Patches(), tmp_path)}")
    grey = torch.full((2, 3, 16, 8, 8), 0.5)
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(network(grey), expected.expand(2, -1))
    rising = grey * torch.linspace(0, 2, 16).view(16, 1, 1)  # the first frame is black
    torch.testing.assert_close(network(rising), expected.expand(2, -1))
    with pytest.raises(ValueError, match=r"16 frames.* got 4"):
        network(grey[:, :, :4])


@pytest.mark.parametrize(
    ("spec", "error", "word"),
    [
        ("stand-on", ValueError, "did you mean 'stand-in'"),
        ("i3d", ValueError, "got 'i3d'; name its file, as i3d:FILE"),
        ("i3d:nowhere.pt", FileNotFoundError, "nowhere.pt"),
        ("i3d:{tmp}/text.pt", ValueError, "torch.jit.save"),
        ("i3d:{tmp}/tensors.pt", ValueError, "torch.jit.save"),
    ],
)
def test_what_is_no_network_is_refused(tmp_path: Path, spec: str, error: type[Exception], word: str) -> None:
    (tmp_path / "text.pt").write_text("not a network")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "tensors.pt")
    with pytest.raises(error, match=word):
        open_feature_network(spec.format(tmp=tmp_path))


def test_a_network_that_gives_no_vectors_is_refused(tmp_path: Path) -> None:
    network = open_feature_network(f"torchscript:{saved(LikeI3D(), tmp_path)}")
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 8, 8\)"):
        network(torch.zeros(2, 3, 4, 8, 8))
    network = open_feature_network(f"i3d:{saved(Patches(), tmp_path)}")
    with pytest.raises(ValueError, match=r"i3d:FILE gives it .*rescale"):  # which this network does not take
        network(torch.zeros(2, 3, 4, 8, 8))
    assert set(PROTOCOLS) == {"i3d", "videomae", "vjepa", "torchscript"}


def test_the_stand_in_tells_families_apart_and_says_what_it_is() -> None:
    assert STAND_IN_FILE.stat().st_size <= 2_000_000
    network, classifier = open_feature_network(STAND_IN), StandIn.load()
    assert "nothing published" in network.name
    families = [family.name for family in FAMILIES]
    assert list(classifier.label_names[: len(families)]) == families
    batch = ProceduralClips(split="test").batch(range(90))
    logits = classifier(batch.clips)[:, : len(families)]
    assert (logits.argmax(-1) == batch.labels).float().mean() > 0.7
    features = network(batch.clips)
    assert features.shape == (90, FEATURES)
    torch.testing.assert_close(features[3:5], network(batch.clips[3:5].float() / 255), atol=1e-4, rtol=1e-4)
    assert network(torch.zeros(1, 3, 4, 128, 128)).shape == (1, FEATURES)
