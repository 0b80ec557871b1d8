from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vaportok_rl.envs.render.drawing import (
    EMPTY,
    ERROR_GAIN,
    GAIN,
    INK,
    LOSS,
    TOKENS,
    render_decision,
    tile_frames,
    to_frames,
)

Frames = NDArray[np.uint8]
_TERMS = {"efficiency": 0.75, "penalty": -0.25, "diversity": 0.5}


def _clip(seed: int, frames: int = 3, height: int = 16, width: int = 16) -> Frames:
    """Grey noise: no pixel of it can be mistaken for a bar, which is coloured."""
    grey = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 1), dtype=np.uint8)
    return np.repeat(grey, 3, axis=-1)


def _find(picture: Frames, panel: Frames) -> list[tuple[int, int]]:
    """Positions (y, x) at which ``panel`` occurs in ``picture``, found by trying every one."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, panel.shape)[:, :, 0]
    corners = np.argwhere(
        (windows[:, :, 0, 0] == panel[0, 0]).all(-1) & (windows[:, :, -1, -1] == panel[-1, -1]).all(-1)
    )
    return [(int(y), int(x)) for y, x in corners if np.array_equal(windows[y, x], panel)]


def _columns(picture: Frames, colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Columns that hold a pixel of that colour."""
    return np.flatnonzero((picture == colour).all(-1).any(0))


def _nearest(frame: Frames, scale: int) -> Frames:
    size = (frame.shape[1] * scale, frame.shape[0] * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST))


@pytest.mark.parametrize(("height", "width", "scale"), [(16, 16, 1), (16, 16, 3), (12, 21, 2)])
def test_panels_are_the_clip_the_reconstruction_and_the_amplified_error(height: int, width: int, scale: int) -> None:
    original, again = _clip(0, height=height, width=width), _clip(1, height=height, width=width)
    picture = render_decision(original, again, 5, 16, _TERMS, frame=1, scale=scale)
    error = np.clip(ERROR_GAIN * np.abs(original[1].astype(float) - again[1]), 0, 255).astype(np.uint8)
    places = [_find(picture, _nearest(panel, scale)) for panel in (original[1], again[1], error)]
    assert [len(found) for found in places] == [1, 1, 1]
    (top, first), (middle, second), (bottom, third) = (found[0] for found in places)
    assert top == middle == bottom
    assert first + width * scale < second
    assert third - second == second - first


@pytest.mark.parametrize(("size", "expected"), [(8, 20), (32, 5), (50, 4), (160, 1), (200, 1)])
def test_small_clips_are_enlarged_to_160_pixels_or_more(size: int, expected: int) -> None:
    clip = _clip(0, frames=1, height=size, width=size)
    picture = render_decision(clip, clip, 1, 16, {}, frame=0)
    np.testing.assert_array_equal(picture, render_decision(clip, clip, 1, 16, {}, frame=0, scale=expected))


def test_the_bar_is_as_long_as_the_share_of_tokens_kept() -> None:
    clip = _clip(0)
    lengths = [len(_columns(render_decision(clip, clip, n, 64, {}, frame=0), TOKENS)) for n in (1, 16, 32, 63, 64)]
    full = lengths[-1]
    assert full > 200
    for n, length in zip((1, 16, 32, 63), lengths, strict=False):
        assert length == pytest.approx(full * n / 64, abs=1)
    assert not len(_columns(render_decision(clip, None, None, 64, {}, frame=0), TOKENS))
    # One of very many is still seen.
    assert len(_columns(render_decision(clip, clip, 1, 1_000_000, {}, frame=0), TOKENS)) == 1


def test_terms_reach_from_zero_to_the_right_or_to_the_left() -> None:
    clip = _clip(0)
    right = _columns(render_decision(clip, clip, 5, 16, {"a": 1.0}, frame=0), GAIN)
    left = _columns(render_decision(clip, clip, 5, 16, {"a": -1.0}, frame=0), LOSS)
    assert left.max() < right.min() <= left.max() + 3
    assert len(right) == pytest.approx(len(left), abs=1)
    for value in (0.1, 0.5, 0.9):
        gain = _columns(render_decision(clip, clip, 5, 16, {"a": value}, frame=0), GAIN)
        loss = _columns(render_decision(clip, clip, 5, 16, {"a": -value}, frame=0), LOSS)
        assert gain.min() == right.min()
        assert loss.max() == left.max()
        assert len(gain) == pytest.approx(value * len(right), abs=1)
        assert len(loss) == pytest.approx(value * len(left), abs=1)


def test_a_bar_beyond_the_axis_gets_an_arrowhead_and_stays_clear_of_the_text() -> None:
    clip = _clip(0)

    def picture(value: float) -> Frames:
        return render_decision(clip, clip, 5, 16, {"reconstruction": value}, frame=0)

    full, beyond = (_columns(picture(value), LOSS) for value in (-1.0, -7.0))
    assert beyond.max() == full.max()
    assert 3 <= full.min() - beyond.min() <= 12
    drawn = picture(-7.0)
    rows = drawn[(drawn == LOSS).all(-1).any(1)]
    ink = np.flatnonzero((rows < 200).all(-1).any(0))
    label = ink[ink < beyond.max() - 50]
    assert len(label) > 60
    assert label.max() < beyond.min() - 2
    np.testing.assert_array_equal(beyond, _columns(picture(-math.inf), LOSS))


def test_terms_are_drawn_in_their_order() -> None:
    clip = _clip(0)
    picture = render_decision(clip, clip, 5, 16, {"a": 0.5, "b": -0.5, "c": 0.25}, frame=0)
    rows = [np.flatnonzero((picture == colour).all(-1).any(1)) for colour in (GAIN, LOSS)]
    first, third = rows[0][: len(rows[0]) // 2], rows[0][len(rows[0]) // 2 :]
    assert first.max() < rows[1].min() <= rows[1].max() < third.min()
    assert (picture[first[0]] == GAIN).all(-1).sum() == 2 * (picture[third[0]] == GAIN).all(-1).sum()


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_nothing_and_not_known_have_no_bar(value: float) -> None:
    clip = _clip(0)
    picture = render_decision(clip, clip, 5, 16, {"a": value}, frame=0)
    assert not len(_columns(picture, GAIN))
    assert not len(_columns(picture, LOSS))


def test_before_the_first_decision_only_the_clip_is_shown() -> None:
    clip = _clip(0)
    picture = render_decision(clip, None, None, 16, dict.fromkeys(_TERMS, math.nan), frame=2, scale=4)
    empty = np.full((64, 64, 3), EMPTY, dtype=np.uint8)
    assert len(_find(picture, _nearest(clip[2], 4))) == 1
    assert len(_find(picture, empty)) == 2


@settings(max_examples=30)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.integers(1, 5),
    names=st.lists(st.text(max_size=30).filter(str.isprintable), max_size=7, unique=True),
    values=st.lists(st.floats(width=32), min_size=7, max_size=7),
    n_tokens=st.integers(1, 16),
)
def test_the_size_is_even_and_depends_on_the_geometry_alone(
    height: int, width: int, scale: int, names: list[str], values: list[float], n_tokens: int
) -> None:
    clip, again = _clip(0, 2, height, width), _clip(1, 2, height, width)
    terms = dict(zip(names, values, strict=False))
    plain = {str(i): 0.0 for i in range(len(names))}
    picture = render_decision(clip, again, n_tokens, 16, terms, frame=1, scale=scale)
    before = render_decision(clip, None, None, 4096, plain, frame=0, scale=scale)
    assert picture.shape == before.shape
    assert picture.dtype == np.uint8
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0


def test_pictures_share_no_memory() -> None:
    clip = _clip(0)
    first = render_decision(clip, clip, 5, 16, _TERMS, frame=0)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(render_decision(clip, clip, 5, 16, _TERMS, frame=0), kept)
    assert (kept == INK).all(-1).any()


@given(
    count=st.integers(1, 9), height=st.integers(1, 5), width=st.integers(1, 5), columns=st.none() | st.integers(1, 4)
)
def test_tiles_are_laid_row_by_row(count: int, height: int, width: int, columns: int | None) -> None:
    frames = [np.full((height, width, 3), index + 1, dtype=np.uint8) for index in range(count)]
    whole = tile_frames(frames, columns)
    across = next(c for c in range(1, 10) if c * c >= count) if columns is None else columns
    expected = np.full((2 * -(-(-(-count // across) * height) // 2), 2 * -(-across * width // 2), 3), 255, np.uint8)
    for y in range(expected.shape[0]):
        for x in range(expected.shape[1]):
            index = y // height * across + x // width
            if x < across * width and index < count:
                expected[y, x] = index + 1
    np.testing.assert_array_equal(whole, expected)


def test_frames_have_time_first_and_colour_last() -> None:
    video = torch.zeros(3, 2, 4, 5)
    video[0, 1] = 2.0
    video[1] = 0.5
    frames = to_frames(video)
    assert frames.shape == (2, 4, 5, 3)
    assert frames.dtype == np.uint8
    assert frames[1, 0, 0].tolist() == [255, 128, 0]
    np.testing.assert_array_equal(to_frames(torch.from_numpy(frames).permute(3, 0, 1, 2)), frames)
