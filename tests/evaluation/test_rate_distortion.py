"""The rate–distortion table against one clip and one length at a time."""

import numpy as np
import pytest
import torch

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import shared_world
from vaportok_rl.evaluation import (
    RateDistortion,
    clip_batches,
    default_lengths,
    own_lengths,
    rate_distortion,
    spearman,
)
from vaportok_rl.evaluation.intervals import bootstrap_interval
from vaportok_rl.tokenizer import VaporTok, clip_complexity


@pytest.fixture(scope="module")
def world(tiny_world: str) -> VaporTok:
    return shared_world(tiny_world)


@pytest.fixture(scope="module")
def source(world: VaporTok) -> ProceduralClips:
    return ProceduralClips(5, "test", frames=world.config.frames, size=world.config.size)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(1, (1,)), (2, (1, 2)), (16, (1, 2, 4, 8, 12, 16)), (64, (1, 2, 4, 8, 16, 32, 48, 64)), (10, (1, 2, 4, 7, 8, 10))],
)
def test_default_lengths(tokens: int, expected: tuple[int, ...]) -> None:
    assert default_lengths(tokens) == expected


def test_against_one_at_a_time(world: VaporTok, source: ProceduralClips) -> None:
    indices, lengths = [3, 11, 4, 20, 7], (1, 2, 9, 16)
    result = rate_distortion(world, [source.batch(part).clips for part in (indices[:3], indices[3:])], lengths)
    assert result.lengths == lengths
    assert result.clips == 5
    table: dict[str, list[list[float]]] = {"mse": [], "psnr": [], "explained": [], "top5": []}
    used = set()
    book = world.bottleneck.regularizer
    for n in lengths:
        rows: dict[str, list[float]] = {name: [] for name in table}
        for index in indices:
            clip = source[index]
            codes = world.encode(clip[None]).codes
            used |= set(codes.flatten().tolist())
            pixels = clip.numpy() / 255.0
            error = float(((world.decode(codes, n)[0].double().numpy() - pixels) ** 2).mean())
            rows["mse"].append(error)
            rows["psnr"].append(-10 * np.log10(error))
            rows["explained"].append(1 - error / pixels.var())
            with torch.no_grad():
                logits = world.prior_model.logits(book.lookup(codes), book.unit_codes())[0]
            hits = [int(codes[0, j + 1]) in logits[j].topk(5).indices.tolist() for j in range(n - 1)]
            rows["top5"].append(sum(hits) / max(1, n - 1))
        for name, values in rows.items():
            table[name].append(values)
    assert result.mse == pytest.approx(np.mean(table["mse"], axis=1), rel=1e-5)
    changes = np.diff(table["psnr"], axis=0)
    expected = np.stack([changes.mean(1), changes.std(1, ddof=1) / np.sqrt(len(indices))], axis=1)
    assert np.array(result.rises) == pytest.approx(expected, abs=1e-4)
    assert result.psnr == pytest.approx(np.mean(table["psnr"], axis=1), rel=1e-5)
    assert result.explained_variance == pytest.approx(np.median(table["explained"], axis=1), abs=1e-4)
    assert result.prior_top5 == pytest.approx(np.mean(table["top5"], axis=1), abs=1e-6)
    assert result.codes_used == pytest.approx(len(used) / world.config.codebook_size)


def test_batches_do_not_matter(world: VaporTok, source: ProceduralClips) -> None:
    whole, parts = (rate_distortion(world, clip_batches(source, 7, size)) for size in (64, 3))
    assert whole.lengths == parts.lengths == default_lengths(16)
    assert parts.mse == pytest.approx(whole.mse, rel=1e-6)
    assert parts.explained_variance == pytest.approx(whole.explained_variance, abs=1e-6)
    assert parts.codes_used == whole.codes_used


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 64, [2]), (50, 8, [8, 2]), (None, 8, [8, 2])]
)
def test_clip_batches_are_the_first_clips(
    source: ProceduralClips, monkeypatch: pytest.MonkeyPatch, count: int | None, size: int, expected: list[int]
) -> None:
    monkeypatch.setattr(ProceduralClips, "__len__", lambda self: 10)
    batches = list(clip_batches(source, count, size))
    assert [len(batch) for batch in batches] == expected
    assert torch.equal(torch.cat(batches), source.batch(range(sum(expected))).clips)


def test_one_clip_has_no_standard_error(world: VaporTok, source: ProceduralClips) -> None:
    result = rate_distortion(world, clip_batches(source, 1), (1, 16))
    assert result.rises[0][0] == pytest.approx(result.psnr[1] - result.psnr[0], abs=1e-5)
    assert np.isnan(result.rises[0][1])


def test_where_psnr_falls_is_said() -> None:
    ends = ((0.1, 0.5, 0.6), (0.01, 0.009, 0.001), (0.0, 0.1, 0.4), 0.5, 3)
    rising = RateDistortion((1, 2, 16), (20.0, 21.0, 30.0), *ends, rises=((1.0, 0.2), (9.0, 0.1)))
    assert rising.monotony() == "PSNR rises with each of the 2 steps."
    falling = RateDistortion((1, 2, 16), (20.0, 19.9, 30.0), *ends, rises=((-0.1, 0.25), (10.1, 0.1)))
    assert falling.monotony() == (
        "PSNR rises with each of the 2 steps but those to n = 2 (-0.1000 ± 0.2500 dB); ± one standard error."
    )


def test_markdown() -> None:
    result = RateDistortion((1, 16), (20.126, 30.0), (0.1234, 0.5), (0.01, 0.001), (0.0, 0.456), 0.5, 3)
    assert result.markdown().splitlines() == [
        "| tokens | PSNR (dB) | explained variance (median) | prior top-5 |",
        "| ---: | ---: | ---: | ---: |",
        "| 1 | 20.13 | 0.123 | 0.0 % |",
        "| 16 | 30.00 | 0.500 | 45.6 % |",
    ]


def test_the_table_has_intervals_over_clips(world: VaporTok, source: ProceduralClips) -> None:
    result = rate_distortion(world, clip_batches(source, 9), (1, 16))
    low, high = bootstrap_interval(np.median, result.by_clip[1][1])
    cell = f"{np.median(result.by_clip[1][1]):.3f} [{low:.3f}, {high:.3f}]"
    assert cell in result.markdown().splitlines()[-1]
    assert low < result.explained_variance[1] < high


def test_own_lengths(world: VaporTok, source: ProceduralClips) -> None:
    tokens, rank = own_lengths(world, clip_batches(source, 9, 4))
    clips = source.batch(range(9)).clips
    lengths = [int(world.taildrop(world.encode(clip[None]).latents).logits.argmax()) + 1 for clip in clips]
    assert tokens == pytest.approx(np.mean(lengths))
    scores = world.complexity_scale.score(clip_complexity(clips))
    expected = spearman(torch.tensor(lengths), scores)
    assert rank == pytest.approx(expected, nan_ok=True)
