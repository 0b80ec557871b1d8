"""Leave-one-out over the five reward terms, as in the source's Table 1.

``python -m vaportok_rl.experiments.ablate_rewards OUT --table DIR --reward.preset paper`` trains GRPO on an outcome
table under the preset's reward, and without each term in turn. It writes ``ablation.csv`` (one row per variant and
seed) and ``ablation.md``. A run that is finished is read from ``OUT/runs``, so that an interrupted study continues.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console

from vaportok_rl.agents import GRPO, HeldOut, TaildropPolicy
from vaportok_rl.agents.comparison import PolicyScore
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.agents.lengths.scripted import most_probable
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv, VaporReward
from vaportok_rl.envs.rewards.terms import FIVE_TERMS
from vaportok_rl.evaluation.equal_tokens import SAVED, EqualTokens
from vaportok_rl.evaluation.intervals import RESAMPLES, percentile_interval
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.runs.world_settings import StudySettings
from vaportok_rl.runtime.markdown import markdown_table, write_page
from vaportok_rl.runtime.whole_writes import whole_write

FULL = "full"
VARIANTS = (FULL, *(f"without-{term}" for term in FIVE_TERMS))
# The source's Table 1, tokens of 1,024.
SOURCE_TOKENS = dict(zip(VARIANTS, (299, 577, 58, 305, 272, 286), strict=True))
METRICS = ("tokens", "mse", "psnr", "accuracy", "reward")


@dataclass(frozen=True)
class Ablation(StudySettings):
    """Settings of the study: training, clips, and terms to leave out."""

    variants: tuple[str, ...] = VARIANTS
    """`full`, and `without-TERM` for each of the five terms."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each variant a seed; the scenes of a seed are the same for all variants."""
    decisions: int = 40_960
    """Of each run."""
    scenes: int = 16
    """P, scenes per round."""
    group_size: int = 8
    """G, paths through each scene."""
    held_out_scenes: int = 64
    """Held-out scenes at most."""
    grpo: GRPOOptions = field(default_factory=GRPOOptions)
    """GRPO's options."""

    def __post_init__(self) -> None:
        unknown = [variant for variant in self.variants if variant not in VARIANTS]
        if unknown or FULL not in self.variants:
            raise ValueError(
                f"Expected 'full' and others of {', '.join(VARIANTS)} as variants, got {' '.join(self.variants)}; "
                "correct them."
            )

    def arguments(self, split: str, variant: str = FULL) -> dict[str, Any]:
        """Arguments of the environment, with the reward of a variant."""
        given = self.environment(split)
        left_out = {} if variant == FULL else {variant.removeprefix("without-"): 0.0}
        return given | {"reward": VaporReward(**given["reward"]).with_weights(left_out)}


def trained_lengths(settings: Ablation, variant: str, seed: int, held_out: HeldOut) -> list[list[int]]:
    """Trains a variant; the most probable lengths ``[P, L]`` of the held-out clips under its policy."""
    count = settings.scenes * settings.group_size
    env = TaildropVecEnv(count, group_size=settings.group_size, **settings.arguments("train", variant))
    agent = GRPO("TaildropPolicy", env, seed=seed, device=settings.device, **asdict(settings.grpo))
    agent.learn(settings.decisions, log_interval=0)
    policy: TaildropPolicy = agent.policy
    policy.set_training_mode(False)
    return most_probable(policy.length_log_probs)(held_out.scene, torch.Generator()).n_tokens.tolist()


def run_all(settings: Ablation, out: Path, held_out: HeldOut, console: Console) -> dict[str, list[PolicyScore]]:
    """Trains what is not trained yet.

    Returns:
        By variant, what the lengths of each seed earn under the reward of all terms.

    Raises:
        ValueError: a run in the folder was made with other settings.
    """
    scores: dict[str, list[PolicyScore]] = {variant: [] for variant in settings.variants}
    for seed in settings.seeds:
        for variant in settings.variants:
            file = out / "runs" / f"{variant}-{seed}.json"
            plain = asdict(replace(settings, variants=(FULL, variant), seeds=(seed,)))
            made_with = json.loads(json.dumps(plain, default=str))
            if file.is_file():
                content = json.loads(file.read_text())
                changed = [name for name, value in made_with.items() if content["settings"].get(name) != value]
                if changed:
                    raise ValueError(
                        f"Expected {file} to be a run with these settings, got one with another {', '.join(changed)}; "
                        "choose another folder."
                    )
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                content = {"settings": made_with, "n_tokens": trained_lengths(settings, variant, seed, held_out)}
                with whole_write(file) as scratch:
                    scratch.write_text(json.dumps(content))
            lengths = torch.tensor(content["n_tokens"], device=held_out.scene.device)
            scores[variant].append(held_out.evaluate(lengths))
            console.print(f"{variant}, seed {seed}: {lengths.float().mean().item():.1f} tokens")
    return scores


def by_seed(scores: dict[str, list[PolicyScore]], seeds: tuple[int, ...], at_equal_tokens: EqualTokens) -> pd.DataFrame:
    """One row per variant and seed."""
    rows = []
    for variant, runs in scores.items():
        for seed, score in zip(seeds, runs, strict=True):
            figures = score.metrics()
            savings = at_equal_tokens.savings(*score.lengths_and_errors())
            rows.append({"variant": variant, "seed": seed, **{name: figures[name] for name in METRICS}, **savings})
    return pd.DataFrame(rows)


def summary(scores: dict[str, list[PolicyScore]], rows: pd.DataFrame, at_equal_tokens: EqualTokens) -> str:
    """A Markdown table: means, with intervals over seeds and held-out paths; of what is saved, over paths alone."""
    tokens, errors = ({name: _of_runs(runs, part) for name, runs in scores.items()} for part in (0, 1))
    saved = at_equal_tokens.intervals(
        {name: (tokens[name].mean(0)[:, None], errors[name].mean(0)[:, None]) for name in scores}
    )
    means = rows.groupby("variant")[["accuracy", SAVED]].mean()
    lines = []
    for name in scores:
        mean_saved, ends = means[SAVED][name], saved[name][SAVED]
        lines.append(
            (
                name.replace("without-", "without `") + "`" * (name != FULL),
                SOURCE_TOKENS[name],
                _cell("{:.1f}", tokens[name]),
                "" if name == FULL else _cell("{:+.2f}", tokens[name] - tokens[FULL]),
                _cell("{:.2f}", 1000 * errors[name]),
                f"{100 * means['accuracy'][name]:.1f}",
                f"{100 * mean_saved:+.1f} [{', '.join(f'{100 * end:+.1f}' for end in ends)}]",
            )
        )
    headings = ("", "source, of 1,024", "tokens", "more than full", "MSE · 10³", "top-5 (%)", "saved (%)")
    return markdown_table(headings, lines)


def _of_runs(runs: list[PolicyScore], part: int) -> NDArray[np.float64]:
    """Mean lengths (0) or errors (1) of each run's paths: ``[seeds, P]``."""
    return np.stack([score.lengths_and_errors()[part].mean(-1) for score in runs])


def _cell(style: str, values: NDArray[np.float64]) -> str:
    """Mean of ``[seeds, P]`` and the interval of it: seeds and paths are each drawn with replacement."""
    rng = np.random.default_rng(0)
    seeds, paths = (rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) / size for size in values.shape)
    ends = percentile_interval(np.einsum("rs,sp,rp->r", seeds, values, paths))
    return f"{style.format(values.mean())} [{', '.join(style.format(end) for end in ends)}]"


def main(out: tyro.conf.Positional[Path], settings: Annotated[Ablation, tyro.conf.arg(name="")]) -> None:
    """Leave each reward term out in turn.

    Args:
        out: folder of the runs and of what is written; runs that are there already are not repeated.
        settings: the study.
    """
    console = plain_console()
    held_out = HeldOut(TaildropProcess(**settings.arguments("test")), settings.held_out_scenes)
    scores = run_all(settings, out, held_out, console)
    at_equal_tokens = held_out.compare({}).equal_tokens
    rows = by_seed(scores, settings.seeds, at_equal_tokens)
    rows.to_csv(out / "ablation.csv", index=False)
    table = summary(scores, rows, at_equal_tokens)
    write_page(
        out / "ablation.md",
        f"Each term of the reward `{settings.reward.preset}` left out",
        "Written by `python -m vaportok_rl.experiments.ablate_rewards`. GRPO, "
        f"{settings.decisions:,} decisions, seeds {', '.join(map(str, settings.seeds))}; most probable lengths on "
        f"{held_out.scene.ids.numel()} clips of {held_out.process.source.describe()}.",
        table,
        "Means, with 95 % bootstrap intervals over seeds and paths of held-out clips (of `saved`, over paths alone). "
        "`more than full`: tokens, the same clips compared. `saved`: less error than a fixed length of as many tokens.",
    )
    console.print(table, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.ablate_rewards")
