"""The steps of a rebuild: a command each, with its inputs and its results in README and ``docs/``."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

import tyro

from vaportok_rl.experiments.rebuild import passages

FOOTAGE, COMPARE_WITH, PRETRAINING = "footage", "compare_with", "pretraining"
OPTIONS = (FOOTAGE, COMPARE_WITH, PRETRAINING)
"""Options for folders that only some machines have; a command may name them like other steps' folders."""
CARD = "vaportok_rl/tokenizer/pretrained/nano/MODEL_CARD.md"


@dataclass(frozen=True)
class Passage:
    """A part of a page, between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``.

    Attributes:
        page: its file, relative to the repository's root.
        name: of the part.
        write: gives the Markdown from the parent of the steps' folders.
    """

    page: str
    name: str
    write: Callable[[Path], str]


@dataclass(frozen=True)
class Step:
    """One command, and the files and passages it makes.

    Attributes:
        name: of the step, and of its folder.
        command: ``{out}`` is the step's folder; ``{NAME}`` is the folder of another step, which then runs first, or of
            one of `OPTIONS`. A step without a command only writes passages.
        minutes: on one core of the machine in docs/benchmarks.md (on two if ``alone``); a step of less than one minute
            always runs again.
        files: files of the step's folder, with their places in the repository.
        passages: parts of pages.
        after: steps that the passages need and the command does not name.
        weights: whether the result depends on the weights of `nano`.
        judged: whether it depends on the built-in feature network.
        resumes: whether the command continues after an interruption.
        resume_option: what it needs for that, if its folder holds anything.
        alone: whether nothing may run in parallel.
        times: whether its pages hold times, which differ between runs.
    """

    name: str
    command: str = ""
    minutes: float = 0.0
    files: Mapping[str, str] = field(default_factory=dict)
    passages: tuple[Passage, ...] = ()
    after: tuple[str, ...] = ()
    weights: bool = True
    judged: bool = False
    resumes: bool = False
    resume_option: str = ""
    alone: bool = False
    times: bool = False

    @property
    def places(self) -> set[str]:
        """The names in braces in the command, except ``{out}``."""
        return {name for _, name, _, _ in Formatter().parse(self.command) if name} - {"out"}

    @property
    def needs(self) -> set[str]:
        """The steps that must run before."""
        return self.places.difference(OPTIONS) | set(self.after)

    def arguments(self, places: Mapping[str, str]) -> list[str]:
        """The command's words, with names in braces replaced by folders."""
        return [word.format_map(places) for word in shlex.split(self.command)]


def _study(module: str) -> str:
    return f"python -m vaportok_rl.experiments.{module}"


_TABLES = "--table {table-train} --held-out-table {table-test}"
_FOLDS, _SEEDS = (1, 2, 3), (0, 1, 2)
_METHODS = (
    *("random", "best-fixed", "complexity-affine", "router", "linucb", "cem", "reinforce", "a2c", "ppo"),
    *("maskable-ppo", "dqn", "grpo-source", "grpo", "enumerated", "value", "planner", "oracle"),
)
_TUTORIALS = (
    *("first-policy", "own-optimiser", "design-a-reward", "own-videos", "train-a-world", "paper-table", "benchmark"),
)
_GAMES = "gym:CarRacing-v3,LunarLander-v3,BipedalWalker-v3,CartPole-v1,MountainCar-v0,Acrobot-v1"


def _page(name: str) -> dict[str, str]:
    """The files of a page with its picture, from a step's folder to ``docs/``."""
    return {f"{name}.md": f"docs/{name}.md", f"images/{name}.png": f"docs/images/{name}.png"}


def _measured(name: str, clips: str, minutes: float) -> Step:
    """A step that measures a table of the model card."""
    command = f"vaportok-rl info nano --measure {clips} --out {{out}}/{name}.md"
    passage = Passage(CARD, name, lambda work: (work / f"card-{name}" / f"{name}.md").read_text(encoding="utf-8"))
    return Step(f"card-{name}", command, minutes, passages=(passage,))


def _evidence(
    name: str, options: str, minutes: float, *also: Passage, animation: str = "", judged: bool = True, **more: Any
) -> Step:
    """A step that makes a section of docs/results.md, with its picture."""
    passage = Passage("docs/results.md", name, lambda work: (work / name / f"{name}.md").read_text(encoding="utf-8"))
    command = f"{_study('evidence.' + name)} {{out}} {options}".rstrip()
    files = {file: f"docs/images/evidence/{file}" for file in (f"{name}.png", animation) if file}
    return Step(name, command, minutes, files, (passage, *also), judged=judged, **more)


def _generator(name: str, options: str, minutes: float) -> Step:
    command = f"vaportok-rl generator train {options} --out {{out}}"
    return Step(name, command, minutes, resumes=True, resume_option="--resume")


def _reward_study(name: str, command: str, page: str, minutes: float, *more: Passage, **files: str) -> Step:
    """A study on the tables, whose page is a passage of docs/results.md; its gFVD is of a generator of all tokens."""
    return Step(
        name,
        f"vaportok-rl {command} {_TABLES} --generator {{generator-all}} --out {{out}}",
        minutes,
        files,
        (Passage("docs/results.md", name, functools.partial(passages.body_of, page=f"{name}/{page}")), *more),
        judged=True,
        resumes=True,
    )


def _ablation(preset: str) -> Step:
    name = f"ablation-{preset}"
    table = Passage("docs/rewards.md", name, functools.partial(passages.table_of, page=f"{name}/ablation.md"))
    return _reward_study(name, f"ablate-rewards --reward.preset {preset}", "ablation.md", 20, table)


STEPS: tuple[Step, ...] = (
    Step("options", passages=(Passage("docs/grpo.md", "options", passages.grpo_options),), weights=False),
    Step(
        "environments",
        f"{_study('environment_pages')} {{out}}",
        0.2,
        {name: f"docs/environments/{name}" for name in ("README.md", "taildrop.md", "mo_taildrop.md")},
    ),
    Step(
        "video-formats",
        f"{_study('video_formats')} {{out}}",
        0.9,
        {"video-formats.md": "docs/video-formats.md"},
        weights=False,
    ),
    Step(
        "gallery",
        f"{_study('gallery')} {{out}}",
        0.5,
        {name: f"docs/images/{name}" for name in ("rendered_frame.png", "lengths.png")},
    ),
    Step(
        "worlds",
        f"{_study('gallery')} {{out}} --compare-with {{compare_with}}",
        0.5,
        {"worlds.png": "docs/images/worlds.png"},
        (Passage("README.md", "worlds", passages.worlds_picture),),
    ),
    Step(
        "nano-curves",
        f"{_study('pretraining_pictures')} {{pretraining}} --out {{out}}",
        0.5,
        {"curves.png": "docs/images/nano-curves.png"},
        weights=False,
    ),
    _measured("procedural", "procedural", 1),
    _measured("footage", "{footage}", 0.5),
    _measured("gameplay", _GAMES, 3),
    Step(
        "train",
        "vaportok-rl train --out {out}",
        3,
        {name: f"docs/images/{name}" for name in ("allocation.png", "rate_distortion.png", "reconstructions.png")},
        (Passage("README.md", "train", passages.scoreboard),),
    ),
    Step(
        "explorer",
        "vaportok-rl explore --agent {train} --megabytes 2 --out {out}/explorer.html",
        0.5,
        {"explorer.html": "docs/_static/explorer.html"},
    ),
    Step(
        "explorer-pictures",
        f"{_study('explorer.screenshots')} {{explorer}}/explorer.html {{out}}",
        0.2,
        {name: f"docs/images/{name}" for name in ("explorer.png", "explorer-narrow.png", "explorer-dark.png")},
    ),
    _evidence("taildrop", "", 90, weights=False, resumes=True, alone=True),
    _evidence("reconstructions", "", 0.5, judged=False),
    _generator("generator", "", 40),
    _evidence(
        "generations",
        "--generator {generator} --guidance 6",
        3,
        Passage("README.md", "generations", passages.generated_clips),
        animation="generations.webp",
    ),
    Step("benchmark-tables", "python -m vaportok_rl.benchmark.pinning {out} --ship", 4, resumes=True),
    Step(
        "tutorials",
        "python docs/execute.py {out}",
        20,
        {f"{name}.ipynb": f"docs/tutorials/{name}.ipynb" for name in _TUTORIALS},
        after=("benchmark-tables",),
        judged=True,
    ),
    Step("table-test", "vaportok-rl table build --count 0 --held-out 256 --grid all --out {out}", 2, resumes=True),
    Step("table-train", "vaportok-rl table build --count 4096 --held-out 0 --out {out}", 5, resumes=True),
    # On all tokens of every clip: it then writes as many as any policy keeps.
    _generator("generator-all", "--lengths fixed:64 --steps 1800", 55),
    _evidence(
        "alignment",
        "--generators {generator-all} {taildrop}/worlds/none-0/generator {taildrop}/worlds/naive-0/generator --agents "
        "{train}",
        12,
        resumes=True,
    ),
    *map(_ablation, ("paper", "balanced")),
    _reward_study(
        "sweep-weights",
        "sweep-weights",
        "sweep-weights.md",
        15,
        **{"images/sweep-weights.png": "docs/images/sweep-weights.png"},
    ),
    *(
        Step(
            f"fold-{fold}",
            f"vaportok-rl table build --clips fold:{fold}/3:{{footage}} --grid 1 --out {{out}}",
            1,
            resumes=True,
        )
        for fold in _FOLDS
    ),
    *(
        Step(
            f"mixed-{fold}",
            f"vaportok-rl table build --clips procedural fold:{fold}/3:{{footage}} --count 684 --held-out 0 "
            "--out {out}",
            1,
            resumes=True,
        )
        for fold in _FOLDS
    ),
    *(
        Step(
            f"film-{fold}-{seed}",
            f"vaportok-rl train --table {{mixed-{fold}}} --held-out-table {{fold-{fold}}} --seed {seed} --out {{out}}",
            1.2,
        )
        for fold in _FOLDS
        for seed in _SEEDS
    ),
    Step(
        "films",
        passages=(Passage("README.md", "films", functools.partial(passages.films, folds=_FOLDS, seeds=_SEEDS)),),
        after=tuple(f"film-{fold}-{seed}" for fold in _FOLDS for seed in _SEEDS),
    ),
    Step(
        "leaderboard",
        "vaportok-rl benchmark run all --seeds 0-9 --out {out}",
        90,
        {
            f"{method}/{file}": f"leaderboard/{method}/{file}"
            for method in _METHODS
            for file in ("README.md", "results.csv")
        },
        after=("benchmark-tables",),
        resumes=True,
        times=True,
    ),
    Step(
        "leaderboard-page",
        "vaportok-rl benchmark report --folder {leaderboard} --out {out}",
        3,
        _page("leaderboard")
        | _page("optimisers")
        | {"images/profiles.png": "docs/images/profiles.png", "learnable.md": "docs/learnable.md"},
        times=True,
    ),
    Step(
        "benchmarks",
        "python -m benchmarks --out {out}/benchmarks.md",
        30,
        {"benchmarks.md": "docs/benchmarks.md"},
        alone=True,
        times=True,
    ),
)
"""All steps, each after the steps it needs."""


def parsed(words: Sequence[str]) -> Any:
    """The settings, defaults included, that a command of this package or of ``benchmarks`` reads from its words.

    Returns:
        Settings, or a function's arguments; for other commands, the words themselves.

    Raises:
        SystemExit: the command does not have such options.
    """
    if words[0] == "vaportok-rl":
        entry = importlib.import_module("vaportok_rl.cli.main").command_class(words[1])
        return tyro.cli(entry, args=words[2:])
    if words[1] != "-m":
        return list(words)
    module = words[2] if words[2].startswith("vaportok_rl.") else f"{words[2]}.__main__"

    @functools.wraps(importlib.import_module(module).main)
    def arguments(*given: Any, **named: Any) -> Any:
        return given, named

    return tyro.cli(arguments, args=words[3:])


def fingerprints(steps: Sequence[Step], inputs: Mapping[str, str]) -> dict[str, str]:
    """For each step, a hash of everything its result depends on: settings, weights, and the steps it needs.

    Args:
        steps: each after those it needs.
        inputs: identities of the weights (``weights``), the feature network (``judge``) and the given folders, by
            option.
    """
    found: dict[str, str] = {}
    for step in steps:
        settings = repr(parsed(shlex.split(step.command))) if step.command else ""
        given = {name: inputs.get(name) for name in sorted(step.places.intersection(OPTIONS))}
        parts = [
            settings,
            given,
            inputs["weights"] if step.weights else "",
            [found[name] for name in sorted(step.needs)],
            *([inputs["judge"]] if step.judged else []),
        ]
        found[step.name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return found


def asked(step: Step, by_name: Mapping[str, Step]) -> set[str]:
    """The options that a step, or a step it needs, requires."""
    return step.places.intersection(OPTIONS).union(*(asked(by_name[name], by_name) for name in step.needs))
