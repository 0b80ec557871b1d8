"""A table equals the network, interpolates between grid points, and detects every damaged byte."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import ScoringEngine, VaporReward
from vaportok_rl.envs.rewards.expected import clip_rewards, expected_reward
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.engine import TableEngine
from vaportok_rl.envs.table.grid import interpolate, interpolation_error, length_grid
from vaportok_rl.envs.table.manifest import MANIFEST_FILE, read_manifest
from vaportok_rl.envs.table.table import OutcomeTable, shared_table
from vaportok_rl.tokenizer import VaporTok

PER_CLIP = {"weights": {"diversity": 0.0, "efficiency": 0.7, "log_mse": 0.3}}


@pytest.fixture(scope="module")
def engine(full_table: Path) -> TableEngine:
    return TableEngine(OutcomeTable.load(full_table), "train", bits=True)


@pytest.fixture(scope="module")
def truth(world: VaporTok) -> Any:
    """The network's own scene of the 12 training clips."""
    config = world.config
    batch = ProceduralClips(0, "train", frames=config.frames, size=config.size).batch(range(12))
    return ScoringEngine(world, bits=True).encode(batch.clips[None], batch.labels[None], batch.ids[None])


@pytest.mark.parametrize(
    ("step", "tokens", "grid"),
    [
        (4, 16, (1, 4, 8, 12, 16)),
        (5, 16, (1, 5, 10, 15, 16)),
        ("all", 3, (1, 2, 3)),
        ("3", 7, (1, 3, 6, 7)),
        (99, 8, (1, 8)),
        (1, 1, (1,)),
    ],
)
def test_a_grid_has_both_ends(step: Any, tokens: int, grid: tuple[int, ...]) -> None:
    assert length_grid(step, tokens) == grid


@pytest.mark.parametrize("step", [0, -1, "every", "1.5"])
def test_a_grid_step_is_a_whole_number(step: Any) -> None:
    with pytest.raises(ValueError, match="Expected a grid step ≥ 1 or 'all'"):
        length_grid(step, 16)


@given(tokens=st.integers(1, 40), step=st.integers(1, 40), seed=st.integers(0, 99))
def test_interpolation_is_numpys(tokens: int, step: int, seed: int) -> None:
    grid = length_grid(step, tokens)
    values = np.random.default_rng(seed).random((3, len(grid)), dtype=np.float32)
    every = interpolate(torch.from_numpy(values), grid, tokens)
    for row, expected in zip(every, values, strict=True):
        assert np.allclose(row, np.interp(np.arange(1, tokens + 1), grid, expected), rtol=1e-6, atol=0)
        assert np.array_equal(row[torch.tensor(grid) - 1], expected)


@given(step=st.integers(2, 9), seed=st.integers(0, 99))
def test_interpolation_error_is_that_of_a_slow_loop(step: int, seed: int) -> None:
    measured = np.random.default_rng(seed).random((4, 10), dtype=np.float32) + 0.1
    grid = length_grid(step, 10)
    absolute, relative = [], []
    for row in measured:
        for n in range(1, 11):
            if n not in grid:
                low, high = max(g for g in grid if g < n), min(g for g in grid if g > n)
                guess = row[low - 1] + (row[high - 1] - row[low - 1]) * (n - low) / (high - low)
                absolute.append(abs(guess - row[n - 1]))
                relative.append(abs(guess - row[n - 1]) / row[n - 1])
    expected = {"clips": 4, "lengths": 10 - len(grid)}
    for name, values in (("absolute", absolute), ("relative", relative)):
        expected |= {f"mean_{name}": np.mean(values), f"max_{name}": np.max(values)}
    assert interpolation_error(torch.from_numpy(measured), grid) == pytest.approx(expected, rel=1e-4)


def test_the_stated_error_is_the_one_between_the_two_tables(full_table: Path, coarse_table: Path) -> None:
    # The sample is all seven held-out clips, whose every length the other table knows.
    measured = OutcomeTable.load(full_table)["test"].mse
    stated = read_manifest(coarse_table).interpolation
    expected = interpolation_error(measured, (1, 4, 8, 12, 16))
    assert stated == pytest.approx(expected, rel=1e-4)
    assert read_manifest(full_table).interpolation is None


def test_everything_a_scene_has_is_the_networks(engine: TableEngine, truth: Any) -> None:
    scene = engine.scene(torch.arange(12)[None])
    assert (scene.shape, scene.tokens) == (truth.shape, truth.tokens)
    for name in ("codes", "hits", "complexity", "clips", "labels", "ids", "bits", "latents"):
        mine, networks = getattr(scene, name), getattr(truth, name)
        assert mine.dtype == networks.dtype, name
        torch.testing.assert_close(mine, networks, rtol=1e-3 if name == "latents" else 1e-5, atol=1e-3)
    picked = scene.at(torch.tensor([0, 0]), torch.tensor([5, 2]))
    assert picked.ids.tolist() == [[5], [2]]
    assert torch.equal(scene.part("codes", torch.tensor([0]), torch.tensor([7])), truth.codes[:, 7])


@given(seed=st.integers(0, 999), group=st.integers(1, 4))
def test_scores_are_the_networks(engine: TableEngine, truth: Any, world: VaporTok, seed: int, group: int) -> None:
    rng = np.random.default_rng(seed)
    n_tokens = torch.from_numpy(rng.integers(1, 17, (group, 1, 12)))
    looked_up = engine.score(engine.scene(torch.arange(12)[None]), n_tokens)
    decoded = ScoringEngine(world, bits=True).score(truth, n_tokens)
    torch.testing.assert_close(looked_up.mse, decoded.mse, rtol=1e-5, atol=0)
    torch.testing.assert_close(looked_up.measures["bits"], decoded.measures["bits"], rtol=1e-5, atol=1e-5)
    assert torch.equal(looked_up.accuracy, decoded.accuracy)
    assert torch.equal(looked_up.codes, decoded.codes)
    assert torch.equal(looked_up.complexity, decoded.complexity)


def test_every_length_at_once(engine: TableEngine) -> None:
    scene = engine.scene(torch.tensor([[3, 1], [0, 11]]))
    every = engine.score_all(scene)
    n_tokens = torch.from_numpy(np.random.default_rng(0).integers(1, 17, (5, 2, 2)))
    one, other = every.take(n_tokens), engine.score(scene, n_tokens)
    assert torch.equal(one.mse, other.mse)
    assert torch.equal(one.accuracy, other.accuracy)
    assert torch.equal(one.measures["bits"], other.measures["bits"])
    assert engine.score_all(engine.scene(torch.arange(12)[:, None])).mse.shape == (16, 12, 1)


def test_what_cannot_be_asked_of_a_table(engine: TableEngine, truth: Any, full_table: Path) -> None:
    scene = engine.scene(torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=r"Expected n_tokens in 1…16, got 0…16"):
        engine.score(scene, torch.tensor([[[0, 16]]]))
    with pytest.raises(ValueError, match=r"Expected n_tokens int64 \[G, 1, 2\]"):
        engine.score(scene, torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="Expected a scene of this outcome table"):
        engine.score(truth, torch.ones(1, 1, 12, dtype=torch.int64))
    with pytest.raises(ValueError, match="Expected a scene of this outcome table"):
        TableEngine(OutcomeTable.load(full_table), "test").score(scene, torch.ones(1, 1, 2, dtype=torch.int64))
    with pytest.raises(IndexError, match="Expected rows in 0…11, got 0…12"):
        engine.scene(torch.tensor([[0, 12]]))
    with pytest.raises(ValueError, match=r"Expected rows int64 \[P, L\]"):
        engine.scene(torch.tensor([0]))


def test_the_expected_reward_is_the_mean_over_all_paths(engine: TableEngine) -> None:
    scene, reward = engine.scene(torch.tensor([[4, 9]])), VaporReward(**PER_CLIP)
    log_probs = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    first, second = (grid.flatten() for grid in torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"))
    totals = reward(engine.score(scene, torch.stack([first, second], -1)[:, None] + 1)).total[:, 0]
    chances = (log_probs[0, 0, first] + log_probs[0, 1, second]).exp()
    found = expected_reward(log_probs, engine.score_all(scene), reward)
    assert found.shape == (1,)
    torch.testing.assert_close(found[0], (chances * totals).sum())
    # The best lengths of each clip are the best path, which a look at every path finds too.
    best = clip_rewards(engine.score_all(scene), reward).max(-1).values.mean(-1)
    torch.testing.assert_close(best[0], totals.max())


def test_the_expected_rewards_gradient_is_the_policy_gradient(engine: TableEngine) -> None:
    every, reward = engine.score_all(engine.scene(torch.tensor([[2]]))), VaporReward(**PER_CLIP)
    logits = torch.linspace(-1, 1, 16)[None, None].requires_grad_()
    expected_reward(logits.log_softmax(-1), every, reward).sum().backward()
    with torch.no_grad():
        chances, earned = logits.softmax(-1), clip_rewards(every, reward)
        advantage = earned - (chances * earned).sum(-1, keepdim=True)
    torch.testing.assert_close(logits.grad, chances * advantage)


def test_a_path_term_has_no_expectation_by_clip(engine: TableEngine) -> None:
    every = engine.score_all(engine.scene(torch.tensor([[0, 1]])))
    with pytest.raises(ValueError, match="a weight for diversity, which looks across a path"):
        clip_rewards(every, VaporReward())
    with pytest.raises(ValueError, match=r"Expected log_probs \[P, L, K\] = \(1, 2, 16\)"):
        expected_reward(torch.zeros(1, 1, 16), every, VaporReward(**PER_CLIP))


@pytest.fixture
def copied(full_table: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(full_table, tmp_path / "copy"))


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), number=st.integers(0, 2))
def test_a_flipped_bit_is_found_and_named(
    full_table: Path, tmp_path_factory: pytest.TempPathFactory, share: float, bit: int, number: int
) -> None:
    folder = Path(shutil.copytree(full_table, tmp_path_factory.mktemp("flipped") / "table"))
    shard = sorted(folder.glob("*.safetensors"))[number]
    content = bytearray(shard.read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=f"Expected the shard .*{shard.name} to have the SHA-256"):
        OutcomeTable.load(folder).verify()
    with pytest.raises(ValueError, match=shard.name):
        OutcomeTable.load(folder)[shard.name.partition("-")[0]]


def read_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 6))
def test_a_flipped_bit_of_the_manifest_is_found(
    full_table: Path, tmp_path_factory: pytest.TempPathFactory, share: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    content = bytearray((full_table / MANIFEST_FILE).read_bytes())
    place = int(share * len(content))
    content[place] ^= 1 << bit
    (folder / MANIFEST_FILE).write_bytes(content)
    # White space between entries means nothing.
    if read_json(bytes(content)) == json.loads((full_table / MANIFEST_FILE).read_bytes()):
        assert read_manifest(folder) == read_manifest(full_table)
    else:
        with pytest.raises(ValueError, match=r"^Expected .*manifest\.json"):
            read_manifest(folder)


def test_a_short_or_missing_shard_is_named(copied: Path) -> None:
    shard = copied / "train-00001-of-00002.safetensors"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-5])
    table = OutcomeTable.load(copied)
    with pytest.raises(ValueError, match=rf"Expected {size} bytes in the shard .*{shard.name}, got {size - 5};"):
        _ = table["train"]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"Expected the shard {shard.name} in"):
        _ = table["train"]
    assert len(table["test"]) == 7  # the other split is whole


def test_no_table_and_another_format(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected an outcome table with a manifest\.json"):
        OutcomeTable.load(tmp_path / "nothing")
    content = json.loads((copied / MANIFEST_FILE).read_text())
    (copied / MANIFEST_FILE).write_text(json.dumps(content | {"version": 2}))
    with pytest.raises(ValueError, match="Expected format 'vaportok-outcome-table' version 1"):
        OutcomeTable.load(copied)
    (copied / MANIFEST_FILE).write_text("[]")
    with pytest.raises(ValueError, match="Expected a table's manifest at"):
        OutcomeTable.load(copied)


def test_tables_are_shared_until_built_anew(copied: Path, coarse_table: Path) -> None:
    table = shared_table(str(copied))
    assert shared_table(str(copied)) is table
    frozen = pickle.dumps(table)
    assert len(frozen) < 1000
    assert pickle.loads(frozen) is table
    shutil.rmtree(copied)
    shutil.copytree(coarse_table, copied)
    assert shared_table(str(copied)).grid == (1, 4, 8, 12, 16)


def test_the_clips_behind_a_table(full_table: Path, tiny_world: str) -> None:
    source = TableClips(OutcomeTable.load(full_table), "test")
    original = ProceduralClips(0, "test", frames=source.frames, size=source.size)
    assert len(source) == 7
    assert source.label_names == original.label_names
    assert torch.equal(source.batch([6, 0]).clips, original.batch([6, 0]).clips)
    with pytest.raises(IndexError, match="Expected clip indices in 0…6, got 7"):
        source.batch([7])
    source.__dict__["_source"] = ProceduralClips(1, "test", frames=source.frames, size=source.size)
    with pytest.raises(ValueError, match="got other pixels for clip 4"):
        source.batch([4])


def test_a_notebook_shows_the_splits(full_table: Path) -> None:
    shown = OutcomeTable.load(full_table)._repr_html_()
    assert ">12<" in shown
    assert ">7<" in shown
    assert "16 of K = 16 lengths" in shown
    assert "16 of K = 16 lengths measured\n| split | clips" in repr(OutcomeTable.load(full_table))
