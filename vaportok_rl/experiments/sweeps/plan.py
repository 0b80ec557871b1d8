"""`SweepPlan`, read from a TOML file: shared settings, variations and seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from vaportok_rl.experiments.generation.length_distances import DistanceSettings
from vaportok_rl.experiments.run_folder import plain
from vaportok_rl.experiments.runs.training import TrainSettings
from vaportok_rl.runtime.declared import AT_LEAST_1, check_fields
from vaportok_rl.runtime.messages import did_you_mean, no_such_path

DISTANCES = ("rfvd", "gfvd")
METRICS = ("tokens", "mse", "psnr", "accuracy", *DISTANCES, "reward", "saved", "gap_closed")
"""Held-out metrics of a run, in the order of the CSV's columns; `DISTANCES` are measured if the plan asks for them."""
_PARTS = ("seeds", "train", "variants", "grid", "optuna", "distances")


@dataclass(frozen=True)
class Search:
    """A search by Optuna.

    Attributes:
        trials: number of settings to try.
        space: for each setting, a list of choices, or ``low``, ``high`` and optionally ``log`` and ``step``.
        storage: address of the study: ``journal:FILE`` or a database's URL.
        metric: of `METRICS`; the mean over seeds is optimised.
        direction: of the metric.
    """

    trials: Annotated[int, AT_LEAST_1]
    space: Mapping[str, Any]
    storage: str
    metric: str = "saved"
    direction: Literal["maximize", "minimize"] = "maximize"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.space:
            raise ValueError("Expected at least one setting in [optuna.space], got none; name the settings to search.")
        if self.metric not in METRICS:
            raise ValueError(
                f"Expected a metric among {', '.join(METRICS)}, got {self.metric!r}; "
                f"{did_you_mean(self.metric, METRICS, 'choose one of them.')}"
            )
        for name, choices in self.space.items():
            of_range = isinstance(choices, Mapping) and {"low", "high"} <= choices.keys() <= {
                "low",
                "high",
                "log",
                "step",
            }
            if not of_range and not (isinstance(choices, Sequence) and not isinstance(choices, str) and choices):
                raise ValueError(
                    f"Expected a list of choices or {{low = …, high = …}} for {name}, got {choices!r}; correct it."
                )
            if of_range:
                _check_range(name, choices)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep.

    Attributes:
        seeds: of the runs; each variant has one run per seed.
        base: settings of `train`, by dotted name, that all runs share.
        variants: settings, by dotted name, that each variant or grid point changes.
        search: a search by Optuna instead of variants.
        distances: measure rFVD, and with a generator gFVD, of each run's lengths.
    """

    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    search: Search | None = None
    distances: DistanceSettings | None = None

    @classmethod
    def of(
        cls,
        settings: TrainSettings,
        variants: Mapping[str, Mapping[str, Any]],
        seeds: Sequence[int],
        distances: DistanceSettings | None = None,
    ) -> SweepPlan:
        """The sweep of some variants, by dotted names, of settings; each variant is checked.

        Raises:
            ValueError: there are no seeds, or a setting is unknown or out of range.
        """
        if not seeds:
            raise ValueError("Expected at least one seed, got none; name the seeds.")
        values = {part.name: plain(getattr(settings, part.name)) for part in fields(TrainSettings)}
        made = cls(tuple(dict.fromkeys(seeds)), _flat(values), variants, distances=distances)
        for changes in variants.values():
            made.settings(changes, made.seeds[0])
        return made

    def settings(self, changes: Mapping[str, Any], seed: int) -> TrainSettings:
        """The settings of one run.

        Raises:
            ValueError: there is no such setting, or a value is out of range.
            TypeError: a value of another type.
        """
        nested: dict[str, Any] = {}
        for name, value in {**self.base, **changes, "seed": seed}.items():
            inner = nested
            *outer, last = name.split(".")
            for part in outer:
                inner = inner.setdefault(part, {})
                if not isinstance(inner, dict):
                    raise ValueError(f"Expected the settings of {part!r} one by one, as {name}, got {inner!r} too.")
            inner[last] = value
        settings: TrainSettings = _filled(TrainSettings, nested, "")
        settings.check()
        return settings

    @property
    def identity(self) -> str:
        """A hash of the plan: 16 hexadecimal digits."""
        parts = [self.seeds, self.base, self.variants, self.search, self.distances]
        text = json.dumps(plain(parts), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_plan(file: Path) -> SweepPlan:
    """Reads a sweep's TOML file and checks every setting of every run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not TOML or varies nothing, a setting is unknown or out of range, or two variants would
            share a folder.
    """
    if not file.is_file():
        raise no_such_path("a sweep's TOML file", str(file), "is no file")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected TOML in {file}, got something else: {error}; correct it.") from error
    unknown = sorted(content.keys() - set(_PARTS))
    if unknown:
        hint = did_you_mean(unknown[0], _PARTS, "see docs/sweeps.md.")
        raise ValueError(f"Expected {', '.join(_PARTS)} in {file}, got {unknown[0]!r}; {hint}")
    for name in content.keys() - {"seeds"}:
        some = content[name]
        parts = [some] if not isinstance(some, dict) else list(some.values()) if name == "variants" else []
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError(f"Expected tables in [{name}] of {file}, got {some!r}; see docs/sweeps.md.")
    seeds = content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"Expected seeds as a list of whole numbers in {file}, got {seeds!r}; correct it.")
    grid = _without_seed(_flat(content.get("grid", {})), "grid", file)
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"Expected a list of values for {name} in [grid] of {file}, got {values!r}; give one.")
    named = {
        name: _without_seed(_flat(changes), f"variants.{name}", file)
        for name, changes in content.get("variants", {}).items()
    }
    varied = bool(named or grid)
    if varied == ("optuna" in content):
        found, advice = ("both", "keep one") if varied else ("neither", "say what varies")
        raise ValueError(f"Expected [variants] or [grid], or else [optuna], in {file}, got {found}; {advice}.")
    search = None
    if "optuna" in content:
        given = {"storage": f"journal:{file.with_suffix('.journal')}", **content["optuna"]}
        odd = given.keys() ^ {part.name for part in fields(Search)} - ({"metric", "direction"} - given.keys())
        if odd:
            raise ValueError(
                f"Expected trials and space, and optionally storage, metric and direction, in [optuna] of {file}; "
                f"{', '.join(sorted(odd))} is missing or unknown."
            )
        if not isinstance(given["space"], dict):
            raise ValueError(f"Expected a table [optuna.space] in {file}, got {given['space']!r}; see docs/sweeps.md.")
        space = _without_seed(_flat_space(given["space"]), "optuna.space", file)
        search = Search(**{**given, "space": space})
    distances = DistanceSettings(**_known(content["distances"], file)) if "distances" in content else None
    if search is not None and search.metric in DISTANCES:
        wanting = "[distances]" if distances is None else "a generator in [distances]"
        if distances is None or (search.metric == "gfvd" and distances.generator is None):
            raise ValueError(f"Expected {wanting} of {file} to search by {search.metric}, got none; add it.")
    base = _without_seed(_flat(content.get("train", {})), "train", file)
    plan = SweepPlan(tuple(dict.fromkeys(seeds)), base, _product(named, grid), search, distances)
    tried = [] if search is None else _examples(search.space)
    for seed, changes in itertools.product(plan.seeds, [*plan.variants.values(), *tried]):
        plan.settings(changes, seed)
    folders: dict[str, str] = {}
    for name in plan.variants:
        if name != folders.setdefault(slug(name), name):
            raise ValueError(f"Expected names that differ in their letters, got {folders[slug(name)]!r} and {name!r}.")
    return plan


def _without_seed(settings: dict[str, Any], part: str, file: Path) -> dict[str, Any]:
    """The settings of a table, which must leave the seeds to ``seeds``."""
    if "seed" in settings:
        raise ValueError(
            f"Expected all seeds in `seeds` of {file}, got seed = {settings['seed']!r} in [{part}]; write seeds = "
            "[0, 1, 2] above the tables."
        )
    return settings


def _known(values: Any, file: Path) -> dict[str, str]:
    """The settings of [distances], checked."""
    names = [part.name for part in fields(DistanceSettings)]
    for name, value in values.items() if isinstance(values, Mapping) else [(values, None)]:
        if name not in names or not isinstance(value, str):
            raise ValueError(
                f"Expected {' and '.join(names)}, as texts, in [distances] of {file}, got {name!r} = {value!r}; "
                f"{did_you_mean(str(name), names, 'see docs/sweeps.md.')}"
            )
    return dict(values)


def slug(name: str) -> str:
    """A variant's name as a folder name."""
    return re.sub(r"[^\w.=+-]+", "_", name)


def _product(named: Mapping[str, Mapping[str, Any]], grid: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """All variants at all points of the grid, by a name that states both."""
    found = {}
    for name, changes in (named or {"": {}}).items():
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            told = ",".join(f"{setting}={value}" for setting, value in point.items())
            found[" ".join(filter(None, (name, told)))] = {**changes, **point}
    return found if named or grid else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested tables to dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _flat_space(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`_flat` for a search space, where ranges are tables too."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and "low" not in value
        found |= _flat_space(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


def _check_range(name: str, choices: Mapping[str, Any]) -> None:
    low, high, step, log = choices["low"], choices["high"], choices.get("step"), choices.get("log", False)
    numbers = all(type(value) in (int, float) for value in (low, high, 1 if step is None else step))
    if not (numbers and low <= high and type(log) is bool and (step is None or (step > 0 and not log))):
        raise ValueError(
            f"Expected numbers low ≤ high for {name}, with step > 0 or log = true, got {dict(choices)!r}; correct it."
        )
    if log and low <= 0:
        raise ValueError(f"Expected low > 0 for {name} with log = true, got {low}; raise it.")


def _examples(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings in which each choice and each end of a range of a space occurs."""
    values = {
        name: [choices["low"], choices["high"]] if isinstance(choices, Mapping) else list(choices)
        for name, choices in space.items()
    }
    first = {name: some[0] for name, some in values.items()}
    return [{**first, name: value} for name, some in values.items() for value in some]


def _filled(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    """A dataclass of settings from nested dictionaries."""
    usual = cls()
    known = {field.name for field in fields(cls)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            hint = did_you_mean(name, known, "see vaportok-rl train --help.")
            raise ValueError(f"Expected a setting of `vaportok-rl train`, got {prefix + name!r}; {hint}")
        before = getattr(usual, name)
        if is_dataclass(before) and not isinstance(before, type):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"Expected the settings of {prefix + name!r} one by one, got {value!r}; for example "
                    f"{prefix}{name}.{fields(before)[0].name}."
                )
            given[name] = _filled(type(before), value, f"{prefix}{name}.")
        elif isinstance(before, dict) and isinstance(value, Mapping):
            given[name] = {key: str(entry) for key, entry in _flat(value).items()}
        else:
            given[name] = tuple(value) if isinstance(value, list) else value
    return cls(**given)
