"""The page's numbers are the package's, its scripts compute the same from them, and it stands alone."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.explorer.conftest import Page, read_data
from vaportok_rl.agents import build_length_policy
from vaportok_rl.agents.oracle import best_fixed_length, oracle_lengths
from vaportok_rl.cli.main import main
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.render.drawing import to_frames
from vaportok_rl.experiments.explorer import page as explorer
from vaportok_rl.experiments.explorer.page import ShownPolicy, encoded, page_data, shown_lengths, shown_scene

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
WEIGHTS = [
    {"efficiency": 1, "penalty": 1, "diversity": 1, "reconstruction": 1, "generation": 1},
    {"efficiency": 3, "penalty": 0.5, "diversity": 0, "reconstruction": 0.2, "generation": 0.3},
    {"efficiency": 0, "penalty": 0, "diversity": 4, "reconstruction": 0.1, "generation": 0},
    {"efficiency": 0.7, "penalty": 2, "diversity": 2.5, "reconstruction": 1.3, "generation": 1.9},
]


def in_node(expression: str, data: dict[str, Any]) -> Any:
    """The value of an expression of ``data``, after reward.js."""
    script = resources.files(explorer.__package__).joinpath("reward.js").read_text()
    script += f"\nconst data = {json.dumps(data)};\nconsole.log(JSON.stringify({expression}));"
    return json.loads(subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True).stdout)


@needs_node
@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: "-".join(map(str, weights.values())))
def test_the_script_finds_the_lengths_and_rewards_that_python_finds(page: Page, weights: dict[str, float]) -> None:
    every = page.process.engine.score_all(shown_scene(page.process, 0))
    reward = page.process.reward.with_weights(weights)
    lengths = oracle_lengths(every, reward)
    fixed = best_fixed_length(every, reward)
    drawn = torch.randint(1, 17, (5, 1, 3), generator=torch.Generator().manual_seed(3))
    result = reward(every.take(torch.cat([drawn, lengths[None]])), grouped=False)
    paths = [*drawn[:, 0].tolist(), lengths[0].tolist()]
    found = in_node(
        f"""(() => {{
            const weights = {json.dumps(weights)};
            const place = (path) => path.map((n) => data.lengths.indexOf(n));
            const paths = {json.dumps(paths)}.map(place);
            return {{
                oracle: oracle(data, weights).map((at) => data.lengths[at]),
                fixed: data.lengths[bestFixed(data, weights)],
                totals: paths.map((path) => pathReward(data, weights, path)),
                clips: paths.map((path) => path.map((_, clip) => clipReward(data, weights, path, clip))),
            }};
        }})()""",
        page.data,
    )
    assert found["oracle"] == lengths[0].tolist()
    assert found["fixed"] == fixed
    np.testing.assert_allclose(found["totals"], result.total[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["clips"], result.by_clip[:, 0], rtol=1e-6, atol=1e-6)


@needs_node
@pytest.mark.parametrize("name", ["reward.js", "explorer.js"])
def test_the_scripts_are_javascript(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(resources.files(explorer.__package__).joinpath(name).read_text())
    subprocess.run(["node", "--check", tmp_path / name], check=True)


def test_the_data_say_what_the_engine_and_the_policies_say(page: Page) -> None:
    data, process = page.data, page.process
    scene = shown_scene(process, 0)
    every = process.engine.score_all(scene)
    assert data["lengths"] == list(range(1, 17))
    torch.testing.assert_close(torch.tensor(data["mse"]), every.mse[:, 0].T, rtol=0, atol=0)
    assert data["weights"] == process.reward.weights_now()
    assert len(data["clips"]) == len({clip["title"] for clip in data["clips"]}) == 3
    assert [policy["name"] for policy in data["policies"]] == ["pretrained module", "one", "two"]
    specs = ["argmax", str(page.file.parent / "one"), str(page.file.parent / "two")]
    for spec, policy in zip(specs, data["policies"], strict=True):
        chosen = build_length_policy(spec, process)(scene, torch.Generator())
        assert policy["lengths"] == chosen.n_tokens[0].tolist()
        probabilities = np.array(policy["probabilities"])
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        taken = probabilities[range(3), np.array(policy["lengths"]) - 1]
        np.testing.assert_allclose(taken, chosen.log_prob[0].exp(), atol=1e-6)


def test_the_sheet_holds_the_clip_and_what_is_decoded_of_it(page: Page) -> None:
    data, process = page.data, page.process
    scene, size, columns = shown_scene(process, 0), data["size"], data["columns"]
    assert "without loss" in data["made"]
    for clip, entry in enumerate(data["clips"]):
        sheet = np.array(Image.open(io.BytesIO(base64.b64decode(entry["sheet"].partition(",")[2]))))

        def cell(number: int, sheet: np.ndarray = sheet) -> np.ndarray:
            y, x = number // columns * size, number % columns * size
            return sheet[y : y + size, x : x + size]

        original = to_frames(scene.clips[0, clip])
        np.testing.assert_array_equal(cell(2), original[2])
        decoded = to_frames(process.engine.reconstruct(scene, torch.full((1, 3), 7))[0, clip])
        difference = cell(7 * data["frames"] + 3).astype(int) - decoded[3]
        assert abs(difference).max() <= 1


def test_the_page_needs_nothing_from_elsewhere(page: Page) -> None:
    text = page.file.read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link|src=\"(?!data:)|@import|url\(", text)
    assert "{{" not in text
    assert 'lang="en"' in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_of_nano_is_small() -> None:
    file = Path(__file__).resolve().parents[3] / "docs" / "_static" / "explorer.html"
    assert file.stat().st_size < 5e6
    assert len(read_data(file)["clips"]) == 3


def test_pictures_lose_something_where_they_would_not_fit(page: Page, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole, quality = encoded([noise], 10**6)
    assert quality is None
    small, quality = encoded([noise], len(whole[0]) // 2)
    assert quality is not None
    assert len(small[0]) <= len(whole[0]) // 2
    with pytest.raises(ValueError, match=r"show fewer clips"):
        encoded([noise], 100)


def test_large_worlds_are_shown_at_some_lengths() -> None:
    lengths = shown_lengths(1024).tolist()
    assert len(lengths) == 64
    assert (lengths[0], lengths[-1]) == (1, 1024)
    assert shown_lengths(5).tolist() == [1, 2, 3, 4, 5]


def test_a_path_term_that_the_page_could_not_follow_is_refused(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=2, reward={"weights": {"codebook_usage": 1.0}})
    policy = ShownPolicy("argmax", build_length_policy("argmax", process), None)
    with pytest.raises(ValueError, match="codebook_usage"):
        page_data(process, [policy], 0)
    process.reward = replace(process.reward, weights={"codebook_usage": 0.0})
    data, _ = page_data(process, [policy], 0)
    assert "codebook_usage" not in data["weights"]
    assert data["policies"][0]["probabilities"] is None


def test_one_clip_and_text_that_could_end_the_script(tiny_world: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    main(["explore", "--tokenizer", tiny_world, "--count", "1", "--seed", "1", "--out", str(file)])
    assert len(read_data(file)["clips"]) == 1
    assert "</b>" not in explorer.html({"about": "</b>"})


def test_only_a_page_is_replaced(
    page: Page, tiny_world: str, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer, "page_data", None)  # the answer comes before the work
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html><title>Mine</title>")
    for out in (mine, tmp_path, mine / "explorer.html"):
        assert str(tmp_path) in fails("explore", "--tokenizer", tiny_world, "--out", str(out))
    assert "Mine" in mine.read_text()
    assert explorer.is_page(page.file)
