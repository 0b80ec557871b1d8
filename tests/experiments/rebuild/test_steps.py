"""The real list of steps: every command parses, and nothing computed in the repository is without a step."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from vaportok_rl.experiments.rebuild import passages
from vaportok_rl.experiments.rebuild.__main__ import Options, chosen, listing, main, with_needs
from vaportok_rl.experiments.rebuild.steps import CARD, OPTIONS, STEPS, asked, fingerprints, parsed
from vaportok_rl.runtime.markdown import passage_names, replace_passage

ROOT = Path(__file__).resolve().parents[3]
FILES = [target for step in STEPS for target in step.files.values()]
PASSAGES = [(passage.page, passage.name) for step in STEPS for passage in step.passages]
PAGES = [ROOT / "README.md", ROOT / CARD, *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("step", [step for step in STEPS if step.command], ids=lambda step: step.name)
def test_the_command_parses_and_its_settings_have_a_stable_text(step: object) -> None:
    words = shlex.split(step.command)  # type: ignore[attr-defined]
    assert " at 0x" not in repr(parsed(words))
    assert step.minutes > 0  # type: ignore[attr-defined]


def test_steps_come_after_what_they_need_and_write_each_place_once() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert step.needs <= seen, step.name
        seen.add(step.name)
    assert len(seen) == len(STEPS)
    assert len(set(FILES)) == len(FILES)
    assert len(set(PASSAGES)) == len(PASSAGES)


def test_the_marks_of_all_steps_differ_and_follow_the_weights() -> None:
    inputs = {"weights": "a", "judge": "c", **dict.fromkeys(OPTIONS, "x")}
    now, then, judged = (fingerprints(STEPS, {**inputs, **change}) for change in ({}, {"weights": "b"}, {"judge": "d"}))
    commands = [now[step.name] for step in STEPS if step.command and step.name != "worlds"]
    assert len(set(commands)) == len(commands)
    assert {step.name for step in STEPS if now[step.name] == then[step.name]} == {
        step.name for step in STEPS if not step.weights
    }
    assert {step.name for step in STEPS if now[step.name] != judged[step.name]} == {
        *("generations", "taildrop", "alignment", "tutorials", "ablation-paper", "ablation-balanced", "sweep-weights")
    }


def test_every_picture_and_every_generated_page_is_made_by_a_step() -> None:
    shown = [path for path in (ROOT / "docs").rglob("*.png") if "_build" not in path.parts]
    pictures = {str(path.relative_to(ROOT)) for path in shown}
    assert pictures <= set(FILES)
    generated = re.compile(r"^(<!-- )?(Written|Made)\s+(by|from)\b", re.MULTILINE)
    pages = {
        str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if generated.search(page.read_text())
    }
    assert pages == {target for target in FILES if target.startswith("docs/") and target.endswith(".md")}


def test_every_passage_is_on_its_page_and_every_one_of_a_page_is_made_by_a_step() -> None:
    found = [(str(page.relative_to(ROOT)), name) for page in PAGES for name in passage_names(page.read_text())]
    assert sorted(found) == sorted(PASSAGES)
    for page, name in PASSAGES:
        replace_passage((ROOT / page).read_text(), name, "")


def test_what_is_chosen_brings_what_it_needs() -> None:
    names = [step.name for step in with_needs(chosen(("ablation-*",)))]
    assert names == ["table-test", "table-train", "generator-all", "ablation-paper", "ablation-balanced"]
    assert with_needs(chosen(())) == list(STEPS)
    with pytest.raises(ValueError, match=r"'ablatoin'.*--list"):
        chosen(("ablatoin",))
    by_name = {step.name: step for step in STEPS}
    assert asked(by_name["films"], by_name) == {"footage"}
    assert asked(by_name["train"], by_name) == set()


def test_the_list_says_what_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Options(list=True)) == 0
    assert "docs/optimisers.md" in capsys.readouterr().out
    assert all(target in listing(STEPS) for target in FILES)


def test_the_section_on_generated_clips_has_the_steps_guidance_and_the_heading_that_readme_names() -> None:
    step = next(step for step in STEPS if step.name == "generations")
    given, named = parsed(shlex.split(step.command))
    settings = [*given, *named.values()][-1]
    page = (ROOT / "docs" / "results.md").read_text()
    assert f"Guidance {settings.sampling.guidance:g}, temperature" in page
    anchor = re.search(r"docs/results\.md#([\w-]+)", inspect.getsource(passages.generated_clips))
    assert anchor is not None
    headings = [line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")]
    assert anchor[1] in [re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings]
