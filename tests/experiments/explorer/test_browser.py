"""The page in headless Chromium: it loads without errors, and keyboard and sliders change picture and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.experiments.explorer.conftest import Page
from vaportok_rl.agents.oracle import oracle_lengths
from vaportok_rl.experiments.explorer.browser import Chromium, find_chromium
from vaportok_rl.experiments.explorer.page import shown_scene
from vaportok_rl.experiments.explorer.screenshots import SHOTS, main

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium")
TAB, RIGHT = ("Tab", 9), ("ArrowRight", 39)
PICTURE = "at('decoded').toDataURL()"
CHOSEN = (
    "Object.fromEntries([...document.querySelectorAll('tbody tr')].map(row => [row.id, row.innerText.split('\\t')]))"
)


@pytest.fixture(scope="module")
def browser(page: Page) -> Iterator[Chromium]:
    with Chromium() as opened:
        yield opened


@pytest.fixture
def shown(browser: Chromium, page: Page) -> Chromium:
    browser.show(1000, 900)
    browser.open(page.file)
    browser.evaluate("ready.then(() => { at('play').click(); })")
    return browser


def test_it_loads_without_errors_and_without_a_network(shown: Chromium, page: Page) -> None:
    assert shown.errors == []
    assert shown.evaluate("at('error').toDataURL()") != shown.evaluate("at('original').toDataURL()")
    assert {address.partition(":")[0] for address in shown.requests} <= {"file", "data", "about"}
    assert shown.evaluate("document.querySelectorAll('#reward-chart polygon').length") >= 3
    assert shown.evaluate("document.querySelectorAll('#distribution-chart polyline').length") == 2
    rows = shown.evaluate(CHOSEN)
    assert list(rows) == ["row-now", "row-oracle", "row-fixed", "row-a", "row-b"]
    lengths = [policy["lengths"][0] for policy in page.data["policies"]]
    assert [rows["row-a"][1], rows["row-b"][1]] == [str(lengths[0]), str(lengths[2])]


def test_keys_reach_every_control_and_move_the_video_and_the_numbers(shown: Chromium) -> None:
    shown.evaluate("state.places = [3, 3, 3]; draw(); document.activeElement.blur()")
    reached = []
    for _ in range(20):
        shown.press(*TAB)
        reached.append(shown.evaluate("document.activeElement.id || document.activeElement.dataset.row"))
    for control in ("clip-0", "length", "play", "policy-a", "policy-b", "now", "oracle", "weight-efficiency", "reset"):
        assert control in reached
    outline = "at('length').focus(), getComputedStyle(at('length')).outlineStyle"
    assert shown.evaluate(outline) == "solid"
    before, numbers = shown.evaluate(PICTURE), shown.evaluate(CHOSEN)["row-now"]
    shown.press(*RIGHT)
    assert shown.evaluate("data.lengths[state.places[0]]") == 5
    assert shown.evaluate(PICTURE) != before
    after = shown.evaluate(CHOSEN)["row-now"]
    assert (numbers[1], after[1]) == ("4", "5")
    assert after[2:] != numbers[2:]
    assert shown.evaluate("at('length').getAttribute('aria-valuetext')") == "5 of 16 tokens"
    shown.evaluate("at('clip-0').focus()")
    shown.press(*RIGHT)
    assert shown.evaluate("state.clip") == 1


def test_weights_move_the_oracle_as_in_python(shown: Chromium, page: Page) -> None:
    every = page.process.engine.score_all(shown_scene(page.process, 0))
    script = "at('weight-{0}').value = {1}; at('weight-{0}').dispatchEvent(new Event('input'))"
    for weights in ({"efficiency": 4.0}, {"efficiency": 4.0, "reconstruction": 0.0}):
        for name, weight in weights.items():
            shown.evaluate(script.format(name, weight))
        best = oracle_lengths(every, page.process.reward.with_weights(weights))[0].tolist()
        assert shown.evaluate("state.oracle.map((place) => data.lengths[place])") == best
        assert shown.evaluate(CHOSEN)["row-oracle"][1] == str(best[0])
    shown.evaluate("at('reset').click()")
    assert shown.evaluate("state.weights") == page.data["weights"]


def test_a_row_shows_its_lengths_and_other_agents_can_be_compared(shown: Chromium, page: Page) -> None:
    shown.evaluate("at('policy-b').value = 1; at('policy-b').dispatchEvent(new Event('change'))")
    shown.evaluate("document.querySelector('[data-row=b]').click()")
    assert shown.evaluate("state.places.map((place) => data.lengths[place])") == page.data["policies"][1]["lengths"]


def test_the_video_plays(shown: Chromium) -> None:
    shown.evaluate("at('play').click()")
    moved = (
        "new Promise((done) => { const first = state.frame; setTimeout(() => done(false), 5000);"
        " setInterval(() => state.frame !== first && done(true), 20); })"
    )
    assert shown.evaluate(moved)


def test_it_is_readable_on_a_narrow_and_a_dark_screen(browser: Chromium, page: Page, tmp_path: Path) -> None:
    browser.show(360, 740, dark=True)
    browser.open(page.file)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    back, ink = browser.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (back, ink) == ("rgb(21, 24, 28)", "rgb(236, 236, 236)")
    assert browser.errors == []


def test_the_pictures_of_the_documentation(page: Page, tmp_path: Path) -> None:
    main(page.file, tmp_path)
    for name, (width, height, _) in SHOTS.items():
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (width, height)
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
