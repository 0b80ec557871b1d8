"""Procedural clips: pure functions of their index, labelled, with the requested complexity."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.clips.procedural.families import FAMILIES
from vaportok_rl.tokenizer import clip_complexity

NAMES = [family.name for family in FAMILIES]
SMALL = ProceduralClips(seed=5, frames=4, size=8)
SMALL_WHOLE = SMALL.batch(range(96)).clips


# Mean, deviation and mean change a frame, in grey levels, of clip 7 of each family. Not its hash: processors differ in
# the last bit of a sine, and so, rarely, in a pixel.
SHIPPED = {
    "gradients": (73.632, 16.840, 0.774),
    "cloud pans": (64.718, 35.693, 3.680),
    "leaf pans": (56.650, 17.955, 1.719),
    "zooms": (61.581, 32.924, 1.790),
    "rotations": (60.674, 33.238, 4.015),
    "bouncing sprites": (74.793, 19.437, 1.309),
    "sprites over texture": (60.787, 34.232, 1.628),
    "actors": (60.057, 34.037, 1.932),
    "parallax": (67.137, 26.970, 3.896),
    "flicker": (59.619, 36.421, 14.851),
    "fades": (61.003, 35.690, 2.247),
    "ripples": (60.921, 33.938, 2.917),
    "drifting stripes": (70.646, 27.259, 2.837),
    "hand-held": (56.593, 17.217, 2.581),
    "boiling clouds": (77.506, 32.832, 5.384),
    "scene cuts": (67.668, 33.172, 4.366),
    "noise": (73.971, 16.849, 3.820),
    "everything": (61.511, 33.933, 3.170),
}


def measured(axis: int, family: str, **knobs: Any) -> float:
    """Mean SC (axis 0) or TC (axis 1) over 64 clips of one family."""
    source = ProceduralClips(seed=1, frames=2 if axis == 0 else 4, families=[family], **knobs)
    return clip_complexity(source.batch(range(64)).clips)[:, axis].mean().item()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 95), min_size=1, max_size=40))
def test_a_clip_is_the_same_in_any_batch(indices: list[int]) -> None:
    batch = SMALL.batch(indices)
    assert torch.equal(batch.clips, SMALL_WHOLE[indices])
    assert batch.ids.tolist() == indices


def test_a_clip_is_the_same_in_any_batch_at_full_size() -> None:
    source = ProceduralClips(seed=2)
    indices = [999_999, *range(70), 123_456]
    whole = source.batch(indices)
    for row in (0, 1, 17, 33, 70, 71):
        alone = source.batch(torch.tensor(indices[row : row + 1]))
        assert torch.equal(alone.clips[0], whole.clips[row])
        assert alone.labels[0] == whole.labels[row]
        assert torch.equal(source[indices[row]], whole.clips[row])


def test_a_second_source_with_the_same_seed_is_the_same() -> None:
    again = ProceduralClips(seed=5, frames=4, size=8).batch(range(96))
    assert torch.equal(again.clips, SMALL_WHOLE)


def test_clips_are_eight_bit_video_of_the_size_asked_for() -> None:
    for source, shape in ((ProceduralClips(), (3, 16, 32, 32)), (ProceduralClips(frames=8, size=16), (3, 8, 16, 16))):
        batch = source.batch([3, 4, 5])
        assert batch.clips.dtype == torch.uint8
        assert batch.clips.shape == (3, *shape)
        assert batch.labels.dtype == batch.ids.dtype == torch.int64
        assert len(batch) == 3
        assert batch.clips.flatten(1).float().std(1).max() > 5
    assert ProceduralClips(frames=1, size=4).batch([0]).clips.shape == (1, 3, 1, 4, 4)
    assert len(ProceduralClips().batch([])) == 0


def test_another_size_and_frame_rate_show_the_same_scene() -> None:
    # Half the size of a clip is close to the clip shrunk, and far from another clip shrunk.
    sources = [ProceduralClips(families=["gradients"], frames=frames, size=size) for frames, size in ((9, 32), (5, 16))]
    large, small = (source.batch(range(24)).clips.float() for source in sources)
    shrunk = torch.nn.functional.avg_pool3d(large[:, :, ::2], (1, 2, 2))
    own = (shrunk - small).abs().flatten(1).mean(1)
    other = (shrunk.roll(1, 0) - small).abs().flatten(1).mean(1)
    assert own.median() < 4
    assert other.median() > 20


def test_labels_name_at_least_twelve_families_and_all_occur() -> None:
    assert len(NAMES) >= 12
    assert len(set(NAMES)) == len(NAMES)
    assert SMALL.label_names == tuple(NAMES)
    source = ProceduralClips(frames=1, size=4)
    counts = torch.bincount(source.batch(range(900)).labels, minlength=len(NAMES))
    assert counts.min() >= 900 / len(NAMES) / 3


def test_chosen_families_keep_their_labels() -> None:
    source = ProceduralClips(frames=1, size=4, families=["noise", "zooms"])
    labels = source.batch(range(40)).labels
    assert {source.label_names[label] for label in labels.tolist()} == {"noise", "zooms"}


def test_splits_and_seeds_share_no_clip() -> None:
    settings_of_sources: list[tuple[int, str]] = [(0, "train"), (0, "test"), (1, "train"), (1, "test")]
    seen: set[bytes] = set()
    for seed, split in settings_of_sources:
        clips = ProceduralClips(seed, split, frames=4, size=8).batch(range(100)).clips
        seen |= {clip.numpy().tobytes() for clip in clips}
    assert len(seen) == 400


@pytest.mark.parametrize("family", NAMES)
def test_the_clips_are_those_of_the_shipped_weights(family: str) -> None:
    clip = ProceduralClips(families=[family]).batch([7]).clips[0].double()
    found = (clip.mean().item(), clip.std().item(), clip.diff(dim=1).abs().mean().item())
    assert found == pytest.approx(SHIPPED[family], abs=0.005)


@pytest.mark.parametrize("family", NAMES)
def test_temporal_zero_stands_exactly_still(family: str) -> None:
    clips = ProceduralClips(frames=6, size=16, families=[family], temporal=(0, 0)).batch(range(24)).clips
    assert torch.equal(clips, clips[:, :, :1].expand_as(clips))


@pytest.mark.parametrize("family", NAMES)
def test_temporal_complexity_rises_with_its_knob(family: str) -> None:
    still, slow, fast = (measured(1, family, temporal=(knob, knob)) for knob in (0.0, 0.5, 1.0))
    assert still == 0 < slow < fast


@pytest.mark.parametrize("family", NAMES)
def test_spatial_complexity_rises_with_its_knob(family: str) -> None:
    flat, middle, busy = (measured(0, family, spatial=(knob, knob)) for knob in (0.0, 0.5, 1.0))
    assert flat < middle < busy


def test_knobs_stay_in_their_ranges() -> None:
    spatial, temporal = ProceduralClips(spatial=(0.2, 0.4), temporal=(0.9, 0.9)).complexity_of(range(500))
    assert spatial.min() >= 0.2 - 1e-6
    assert spatial.max() <= 0.4 + 1e-6
    assert temporal.allclose(torch.tensor(0.9))


@pytest.mark.parametrize(("seed", "first"), [(0, 0), (7, 500_000)])
def test_any_run_of_clips_covers_the_knobs_evenly(seed: int, first: int) -> None:
    def cell_counts(knobs: tuple[Tensor, Tensor]) -> Tensor:
        cells = [(8 * knob).long().clamp(max=7) for knob in knobs]
        return torch.bincount(8 * cells[0] + cells[1], minlength=64)

    # 16 clips per cell; independent draws would leave cells with 5 and cells with 28.
    counts = cell_counts(ProceduralClips(seed).complexity_of(range(first, first + 1024)))
    assert counts.min() >= 12
    assert counts.max() <= 20


def test_negative_and_huge_seeds_are_seeds() -> None:
    sources = [ProceduralClips(seed, frames=2, size=8) for seed in (-1, 0, 2**63)]
    clips = [source.batch(range(4)).clips for source in sources]
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[1], clips[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0}, "frames=0"),
        ({"size": 3}, "size=3"),
        ({"length": 0}, "length=0"),
        ({"spatial": (0.5, 0.2)}, "spatial"),
        ({"spatial": (-0.1, 0.2)}, "spatial"),
        ({"temporal": (0.0, 1.1)}, "temporal"),
        ({"temporal": (float("nan"), 1.0)}, "temporal"),
        ({"temporal": 0.5}, "temporal to be"),
        ({"spatial": (0.0, 0.5, 1.0)}, "spatial to be (low, high)"),
        ({"families": ["cats"]}, "'cats'"),
        ({"families": []}, "at least one name"),
        ({"families": "noise"}, "'noise'; pass a list"),
        ({"split": "validation"}, "'validation'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        ProceduralClips(**arguments)


@pytest.mark.parametrize("index", [-1, 10])
def test_indices_outside_the_source_are_refused(index: int) -> None:
    source = ProceduralClips(length=10)
    assert len(source) == 10
    with pytest.raises(IndexError, match=f"in 0…9, got {index}"):
        source.batch([0, index])


def test_the_description_says_what_it_is() -> None:
    text = ProceduralClips(3, "test", frames=8, size=16).describe()
    for part in ("procedural", "18 families", "'test'", "seed 3", "8x16x16"):
        assert part in text


def test_the_number_of_threads_changes_no_pixel() -> None:
    source, threads = ProceduralClips(0, "test"), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(source.batch(range(96, 128)).clips)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])
