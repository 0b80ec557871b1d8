"""The watermark: found after compression and resizing, not found elsewhere, and not seen."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.experiments.generation.clip_files import read_clip, write_clip
from vaportok_rl.generation import watermark
from vaportok_rl.generation.watermark import detect, mark_clips


def distance(marked: Tensor, clips: Tensor) -> Tensor:
    """PSNR of each clip, dB."""
    return 10 * torch.log10(255**2 / (marked.double() - clips).square().flatten(1).mean(1))


def compressed(clip: Tensor, folder: Path) -> Tensor:
    return read_clip(write_clip(folder / "clip.mp4", clip, crf=23))


def halved(clip: Tensor) -> Tensor:
    frames = F.interpolate(clip.transpose(0, 1).float(), scale_factor=0.5, mode="bilinear", antialias=True)
    return frames.round().clamp(0, 255).to(torch.uint8).transpose(0, 1)


ATTACKS = {
    "none": lambda clip, folder: clip,
    "H.264": compressed,
    "half": lambda clip, folder: halved(clip),
    "H.264, then half": lambda clip, folder: halved(compressed(clip, folder)),
}


def hits(clips: Tensor, attack: str, folder: Path, payload: int) -> int:
    found = [detect(ATTACKS[attack](clip, folder)) for clip in mark_clips(clips, payload)]
    return sum(one.marked and one.payload == payload for one in found)


@pytest.mark.parametrize("attack", ATTACKS)
def test_marks_are_found_with_their_payload(tmp_path: Path, attack: str) -> None:
    assert hits(ProceduralClips(split="test").batch(range(6)).clips, attack, tmp_path, 200) == 6


def test_marks_are_not_seen_and_unmarked_clips_are_not_marked() -> None:
    clips = ProceduralClips(split="test").batch(range(40, 52)).clips
    assert distance(mark_clips(clips, 3), clips).min() >= 40
    assert torch.equal(mark_clips(clips, 3), mark_clips(clips, 3))
    # The best of 4,096 patterns by chance: a bound for one of them would be near 1e-3.
    assert min(detect(clip).p_value for clip in clips) > 0.01
    still = torch.zeros(3, 16, 32, 32, dtype=torch.uint8)
    assert detect(still).p_value == 1


@pytest.mark.parametrize("shape", [(4, 16, 16), (16, 64, 48), (40, 32, 32)])
def test_other_sizes_carry_it(shape: tuple[int, int, int]) -> None:
    clips = ProceduralClips(frames=shape[0], size=shape[1], temporal=(0.2, 0.4)).batch(range(3)).clips
    clips = clips[..., : shape[2]].contiguous()
    marked = mark_clips(clips, 9)
    assert [detect(clip).payload for clip in marked] == [9, 9, 9]
    assert distance(marked, clips).min() >= 40


def test_no_frequency_counts_for_more_than_its_neighbourhood_and_brightness_for_nothing() -> None:
    found = torch.zeros(16, 9, 9, dtype=torch.float64)
    found[5, 4, 3], found[0, 0, 0] = 100.0, 100.0
    heard = torch.from_numpy(watermark._heard(found)).view(16, 9, 9)
    power = watermark._power(found) + watermark._QUIET**2
    assert float(heard[5, 4, 3] * power[5, 4, 3].sqrt()) == pytest.approx(2)
    assert heard[0, 0, 0] == 0


@pytest.mark.parametrize("value", [0, 255])
def test_marks_do_not_wrap_round_in_black_and_white(value: int) -> None:
    clips = torch.full((1, 3, 16, 32, 32), value, dtype=torch.uint8)
    assert distance(mark_clips(clips, 3), clips).min() >= 40


def test_the_p_value_is_a_bound_whatever_the_clip_looks_like() -> None:
    """Over keys, one pattern's sum goes beyond a score at most as often as the bound says."""
    keys = np.random.default_rng(0).choice([-1.0, 1.0], (4000, watermark._patterns().shape[1])).astype(np.float32)
    wave = torch.cos(torch.pi * 3 * (torch.arange(32) + 0.5) / 32)
    clip = (128 + 60 * wave).to(torch.uint8).expand(3, 16, 32, 32)  # one frequency has it all: the worst kind
    for shown in (clip, ProceduralClips(split="test").batch([0]).clips[0]):
        heard = watermark._heard(watermark._spectrum(shown, watermark._waves(16, 32, 32)))
        scores = keys @ heard / np.linalg.norm(heard)
        for score in (1.0, 2.0, 3.0):
            assert (scores >= score).mean() <= np.exp(-score * score / 2)


@pytest.mark.parametrize(
    ("clips", "payload", "word"),
    [
        (torch.zeros(1, 3, 4, 8, 32, dtype=torch.uint8), 0, "more than 9 pixels"),
        (torch.zeros(1, 3, 4, 32, 32), 0, "uint8"),
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8), 256, "got 256"),
    ],
)
def test_what_cannot_be_marked_is_refused(clips: Tensor, payload: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        mark_clips(clips, payload)


@pytest.mark.slow
def test_ninety_nine_of_a_hundred_and_one_of_a_thousand(tmp_path: Path) -> None:
    source = ProceduralClips(split="test")
    clips = source.batch(range(1000, 1100)).clips
    for attack in ATTACKS:
        assert hits(clips, attack, tmp_path, 77) >= 99, attack
    assert distance(mark_clips(clips, 77), clips).min() >= 40
    assert sum(detect(clip).marked for clip in source.batch(range(2000, 3000)).clips) <= 1
