"""Lengths under an error threshold: prescribed error curves scanned by hand, and a real decoder."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vaportok_rl.tokenizer import VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.error_threshold import lengths_under_error

CLIP_SHAPE = (1, 2, 4, 4)
LEVELS = 16


class PrescribedWorld:
    """Decodes with the error that a table asks for, exactly: offsets are sixteenths, so nothing is rounded.

    Clips are black or white by the parity of their number, which is their first code.
    """

    def __init__(self, offsets: npt.NDArray[np.int64]) -> None:
        self.config = SimpleNamespace(clip_shape=CLIP_SHAPE)
        self.offsets = torch.from_numpy(offsets)
        self.calls: list[tuple[list[int], list[int]]] = []

    @property
    def codes(self) -> Tensor:
        clips, tokens = self.offsets.shape
        return torch.arange(clips)[:, None].expand(clips, tokens)

    def clips(self, as_bytes: bool = True) -> Tensor:
        white = (torch.arange(len(self.offsets)) % 2).view(-1, 1, 1, 1, 1).expand(-1, *CLIP_SHAPE)
        return white.to(torch.uint8) * 255 if as_bytes else white.float()

    def decode(self, codes: Tensor, n_tokens: int | Tensor) -> Tensor:
        rows = codes[:, 0]
        lengths = torch.as_tensor(n_tokens).expand(len(rows))
        self.calls.append((rows.tolist(), lengths.tolist()))
        offset = self.offsets[rows, lengths - 1] / LEVELS
        white = rows % 2
        return torch.where(white > 0, 1 - offset, offset).view(-1, 1, 1, 1, 1).expand(-1, *CLIP_SHAPE)


def first_below(errors: npt.NDArray[np.float64], threshold: float) -> list[int]:
    met = errors <= threshold
    return [int(row.argmax()) + 1 if row.any() else len(row) for row in met]


def errors_of(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray((offsets / LEVELS) ** 2)


@st.composite
def curves(draw: st.DrawFn, falling: bool) -> tuple[npt.NDArray[np.int64], float]:
    clips, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 20))
    rows = st.lists(st.integers(0, LEVELS), min_size=tokens, max_size=tokens)
    offsets = np.array([sorted(row, reverse=True) if falling else row for row in (draw(rows) for _ in range(clips))])
    # Thresholds between the levels and at them.
    return offsets, draw(st.integers(0, 2 * LEVELS)) ** 2 / (2 * LEVELS) ** 2


@given(curves(falling=False))
def test_linear_search_is_a_scan(case: tuple[npt.NDArray[np.int64], float]) -> None:
    offsets, threshold = case
    world: Any = PrescribedWorld(offsets)
    lengths = lengths_under_error(world, world.clips(), world.codes, threshold)
    assert lengths.dtype == torch.int64
    assert lengths.tolist() == first_below(errors_of(offsets), threshold)
    # Each length is tried once, in growing order, by exactly the clips that are still searching.
    for tried, (rows, n_tokens) in enumerate(world.calls, start=1):
        assert set(n_tokens) == {tried}
        assert rows == [row for row, n in enumerate(lengths.tolist()) if n >= tried]
    assert len(world.calls) == min(int(lengths.max()), offsets.shape[1] - 1)


@given(curves(falling=True))
def test_binary_search_agrees_where_the_error_falls(case: tuple[npt.NDArray[np.int64], float]) -> None:
    offsets, threshold = case
    world: Any = PrescribedWorld(offsets)
    lengths = lengths_under_error(world, world.clips(), world.codes, threshold, search="binary")
    assert lengths.dtype == torch.int64
    assert lengths.tolist() == first_below(errors_of(offsets), threshold)


@given(curves(falling=False))
def test_binary_search_answers_what_it_has_decoded(case: tuple[npt.NDArray[np.int64], float]) -> None:
    offsets, threshold = case
    tokens = offsets.shape[1]
    world: Any = PrescribedWorld(offsets)
    lengths = lengths_under_error(world, world.clips(), world.codes, threshold, search="binary").tolist()
    assert len(world.calls) == np.ceil(np.log2(tokens))
    errors = errors_of(offsets)
    for row, n in enumerate(lengths):
        if n < tokens:
            assert errors[row, n - 1] <= threshold
            assert n in [n_tokens[row] for _, n_tokens in world.calls]
    assert np.all(np.array(lengths) >= first_below(errors, threshold))


@pytest.mark.parametrize("tokens", [*range(1, 18), 33, 64, 100])
@pytest.mark.parametrize("search", ["linear", "binary"])
def test_every_length_is_found_in_every_range(search: Any, tokens: int) -> None:
    # Clip i meets the threshold from n = i + 1 on.
    world: Any = PrescribedWorld(np.where(np.tri(tokens).T > 0, 2, 9))
    assert lengths_under_error(world, world.clips(), world.codes, 0.1, search).tolist() == list(range(1, tokens + 1))


def test_binary_search_can_miss_a_short_length_where_the_error_rises() -> None:
    world: Any = PrescribedWorld(np.array([[9, 1, 9, 9, 9, 9, 2, 1]]))
    for search, expected in (("linear", 2), ("binary", 7)):
        assert lengths_under_error(world, world.clips(), world.codes, (2 / LEVELS) ** 2, search).item() == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("search", ["linear", "binary"])
def test_a_perfect_length_meets_threshold_zero(search: Any) -> None:
    world: Any = PrescribedWorld(np.array([[3, 2, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]))
    for as_bytes in (True, False):
        clips = world.clips(as_bytes)
        assert lengths_under_error(world, clips, world.codes, 0.0, search).tolist() == [3, 4, 1]


def test_a_real_decoder(tiny: VaporTok, clips: Tensor) -> None:
    codes = tiny.encode(clips).codes
    video = clips.float() / 255
    errors = torch.stack([(tiny.decode(codes, n) - video).square().mean((1, 2, 3, 4)) for n in range(1, 9)], 1)
    levels = errors.flatten().sort().values.double()
    # Half-way between two errors, where rounding decides nothing.
    gaps = (levels[1:] - levels[:-1]) > 1e-5
    thresholds = ((levels[1:] + levels[:-1]) / 2)[gaps].tolist()
    assert len(thresholds) > 20
    for threshold in thresholds[::4]:
        scanned = first_below(errors.double().numpy(), threshold)
        assert lengths_under_error(tiny, clips, codes, threshold).tolist() == scanned
        found = lengths_under_error(tiny, clips, codes, threshold, "binary")
        reached = errors.gather(1, found[:, None] - 1).squeeze(1)
        assert bool(((reached <= threshold) | (found == 8)).all())
    assert lengths_under_error(tiny, clips, codes[:, :3], 0.0).tolist() == [3] * 6


def test_binary_search_reads_nothing_back_from_the_device(tiny_config: VaporTokConfig, clips: Tensor) -> None:
    with FakeTensorMode(), torch.device("cuda"):
        model = VaporTok(tiny_config).freeze()
        for dtype in (torch.uint8, torch.float32):
            video, codes = torch.empty(clips.shape, dtype=dtype), torch.empty(6, 8, dtype=torch.int64)
            assert lengths_under_error(model, video, codes, 0.1, "binary").device.type == "cuda"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": -0.1}, "finite error threshold ≥ 0, got -0.1"),
        ({"threshold": float("nan")}, "finite error threshold ≥ 0, got nan"),
        ({"threshold": float("inf")}, "finite error threshold ≥ 0, got inf"),
        ({"search": "golden"}, "search 'linear' or 'binary', got 'golden'"),
        ({"clips": torch.full((6, 3, 4, 16, 16), torch.nan)}, "without NaN"),
        ({"clips": torch.zeros(6, 1, 4, 16, 16)}, "repeat the grey channel"),
        ({"clips": torch.zeros(5, 3, 4, 16, 16)}, "codes [5, K] of 5 clips, got shape (6, 8)"),
        ({"codes": torch.zeros(6, dtype=torch.int64)}, "codes [6, K] of 6 clips, got shape (6,)"),
        ({"codes": torch.zeros(6, 8)}, "Expected int64 codes"),
        ({"codes": torch.zeros(6, 9, dtype=torch.int64)}, "1 ≤ N ≤ 8"),
    ],
)
@pytest.mark.parametrize("search", ["linear", "binary"])
def test_misuse_is_explained(tiny: VaporTok, clips: Tensor, changes: dict[str, Any], message: str, search: str) -> None:
    arguments: dict[str, Any] = {"clips": clips, "codes": torch.zeros(6, 8, dtype=torch.int64), "threshold": 0.01}
    with pytest.raises(ValueError, match=re.escape(message)):
        lengths_under_error(tiny, **(arguments | {"search": search} | changes))
