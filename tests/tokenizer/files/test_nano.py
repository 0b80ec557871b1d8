"""The shipped weights: metrics on a few held-out clips; a copy with a flipped bit is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import VaporTok, load_checkpoint
from vaportok_rl.tokenizer.files.checkpoints import resolve_checkpoint
from vaportok_rl.tokenizer.prior import cumulative_hits, top_k_accuracy

CLIPS = 24


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return ProceduralClips(split="test").batch(range(CLIPS)).clips


@pytest.fixture(scope="module")
def nano() -> VaporTok:
    return load_checkpoint("nano")


def figures(world: VaporTok, clips: Tensor) -> dict[str, float]:
    """Decibels at three lengths, top-5 accuracy in per cent, and the mean length that the taildrop module proposes."""
    encoded = world.encode(clips)
    found = {}
    for n in (1, 8, 64):
        mse = (world.decode(encoded.codes, n) - clips.float() / 255).square().mean((1, 2, 3, 4))
        found[f"psnr of {n}"] = float((-10 * mse.log10()).mean())
    hits = cumulative_hits(world.prior_logits(encoded.codes), encoded.codes)
    found["top-5"] = 100 * float(top_k_accuracy(hits, torch.full((CLIPS,), 64)).mean())
    found["length"] = float((world.taildrop(encoded.latents).probs @ torch.arange(1.0, 65)).mean())
    return found


# The metrics at release, and tolerances for other processors.
RELEASED = {
    "psnr of 1": (20.43, 0.2),
    "psnr of 8": (23.87, 0.2),
    "psnr of 64": (27.41, 0.2),
    "top-5": (62.37, 1.5),
    "length": (32.23, 1.0),
}


def far_off(found: dict[str, float]) -> set[str]:
    return {name for name, (value, tolerance) in RELEASED.items() if not abs(found[name] - value) <= tolerance}


def test_the_shipped_weights_are_as_good_as_released(nano: VaporTok, clips: Tensor) -> None:
    found = figures(nano, clips)
    assert not far_off(found), found


@pytest.mark.parametrize(
    ("part", "noticed"), [("encoder", "psnr of 8"), ("decoder", "psnr of 8"), ("prior_model", "top-5")]
)
def test_a_part_of_noise_is_noticed(clips: Tensor, part: str, noticed: str) -> None:
    world = load_checkpoint("nano")
    torch.manual_seed(0)
    for value in world.get_submodule(part).parameters():
        value.copy_(torch.randn_like(value) * value.std(correction=0))
    assert noticed in far_off(figures(world, clips))


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_flipped_bit_is_refused(tmp_path: Path, place: float) -> None:
    folder = Path(shutil.copytree(resolve_checkpoint("nano"), tmp_path / "nano"))
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[int(place * len(content))] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"got others in .* \(by its checksum\); copy the file again"):
        load_checkpoint(folder)
