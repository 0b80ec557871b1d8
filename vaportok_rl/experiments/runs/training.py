"""A training run, from an empty folder to its tables and pictures."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor

from vaportok_rl.agents import GRPO, Comparison, HeldOut
from vaportok_rl.agents.agent_file import AGENT_FILE, ARCHIVE_FILE, read_agent, read_record, save_agent, save_archive
from vaportok_rl.agents.comparison import BEST_FIXED
from vaportok_rl.agents.grpo.environments import group_env_of
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.agents.lengths.scripted import complexity_lengths, pretrained_lengths, random_lengths
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv
from vaportok_rl.envs.rewards.contract import NonFiniteRewardError
from vaportok_rl.envs.rewards.reward import build_reward
from vaportok_rl.experiments.reports.evaluation import Evaluation, explained_share, judged
from vaportok_rl.experiments.reports.pictures import comparison_frames, contact_sheet, spread_rows, write_video
from vaportok_rl.experiments.reports.plots import (
    allocation_figure,
    rate_distortion_figure,
    reward_curves_figure,
    save_figure,
)
from vaportok_rl.experiments.run_folder import CONFIG_FILE, check_settings_unchanged, command_line, plain, write_config
from vaportok_rl.experiments.runs.algorithms import (
    ALGORITHMS,
    A2CSettings,
    Algorithm,
    PPOSettings,
    ReinforceSettings,
    Shared,
)
from vaportok_rl.experiments.runs.clip_pool import ClipPool
from vaportok_rl.experiments.runs.inputs import check_inputs, input_hashes
from vaportok_rl.experiments.runs.progress_report import OnRound, ProgressReport
from vaportok_rl.experiments.runs.seeded_rounds import SeededRounds
from vaportok_rl.experiments.runs.world_settings import WorldSettings
from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, SEED, Range, check_fields
from vaportok_rl.runtime.held_folders import LOCK_FILE, hold_run_folder, release_run_folder
from vaportok_rl.runtime.machine import describe_machine, warn_if_other_machine
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError


@dataclass(frozen=True)
class TrainSettings(GRPOOptions, WorldSettings):
    """All settings of a training run."""

    held_out_table: str | None = None
    """Outcome table whose test split is held out; `--table`'s if not given."""
    algo: Algorithm = "grpo"
    """The algorithm. Options below without another algorithm's name are GRPO's or common to all."""
    decisions: Annotated[int, AT_LEAST_1] = 40_960
    """Number of decisions in training (scenes × group size × path length per round)."""
    scenes: Annotated[int, AT_LEAST_1] = 16
    """P, scenes per round."""
    group_size: Annotated[int, Range(2)] = 8
    """G, paths through each scene; at least 2."""
    pretrained: bool = True
    """Start from the tokenizer's own taildrop module rather than from a fresh policy."""
    pool: Annotated[int, NOT_NEGATIVE] = 1024
    """Number of training clips that are scored once, before training, and then drawn repeatedly; a smaller source is
    scored whole. With 0, new clips are drawn and scored in each round."""
    held_out_scenes: Annotated[int, AT_LEAST_1] = 32
    """Held-out scenes on which all policies are compared."""
    seed: Annotated[int, SEED] = 0
    """Of all random numbers."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """PPO's own settings."""
    a2c: A2CSettings = field(default_factory=A2CSettings)
    """A2C's own settings."""
    reinforce: ReinforceSettings = field(default_factory=ReinforceSettings)
    """REINFORCE's own settings."""

    def environment(self, split: str) -> dict[str, Any]:
        """Arguments of `TaildropEnv` for a split; the test split uses `held_out_table`."""
        elsewhere = split == "test" and self.held_out_table is not None
        chosen = replace(self, table=self.held_out_table) if elsewhere else self
        return WorldSettings.environment(chosen, split)

    def clip_pool(self) -> ClipPool:
        """The training clips that are scored before training."""
        return ClipPool(self.environment("train"), self.pool, self.decisions // self.group_size)

    def check(self) -> None:
        """Checks all settings.

        Raises:
            ValueError: a setting or weight is out of range, or belongs to another algorithm.
        """
        check_fields(self)
        self.check_options()
        build_reward(asdict(self.reward))
        for own in (self.ppo, self.a2c, self.reinforce):
            check_fields(own)
        usual = TrainSettings()
        by_algorithm: dict[str, list[str]] = {name: [name] for name in ALGORITHMS if name != "grpo"}
        by_algorithm["grpo"] = [part.name for part in fields(GRPOOptions)]
        for algorithm, names in by_algorithm.items():
            given = [name for name in names if getattr(self, name) != getattr(usual, name)]
            if given and algorithm != self.algo:
                hint = "" if self.algo == "grpo" else f"; its own are --{self.algo}.learning-rate and so on"
                raise ValueError(
                    f"Expected settings of {self.algo}, got {', '.join(given)}, which only {algorithm} reads; drop "
                    f"them{hint}."
                )


@dataclass(frozen=True)
class TrainedRun:
    """The results of a run.

    Attributes:
        folder: the run folder.
        evaluation: all policies on the held-out scenes.
        explained: explained variance of the median clip with all tokens; None if unknown.
        decisions: number taken in training.
        interrupted: whether training was stopped early.
        files: names of the written files.
    """

    folder: Path
    evaluation: Evaluation
    explained: float | None
    decisions: int
    interrupted: bool
    files: tuple[str, ...]

    @property
    def comparison(self) -> Comparison:
        """The policies' scores."""
        return self.evaluation.comparison


def prepare(settings: TrainSettings, resumed: Path | None = None, table: str | None = None) -> BaseAlgorithm:
    """Makes the agent and its training environment.

    Args:
        settings: of the run.
        resumed: the agent file to resume from.
        table: folder of an outcome table of the training clips; see `ClipPool`.

    Raises:
        ValueError: contradicting settings.
    """
    settings.check()
    arguments = settings.environment("train") | ({} if table is None else {"table": table})
    environment = TaildropVecEnv(settings.scenes * settings.group_size, group_size=settings.group_size, **arguments)
    monitored = VecMonitor(environment)
    if resumed is not None:
        return read_agent(resumed, monitored, settings.device)
    shared: Shared = {
        "policy_kwargs": {"tokenizer": environment.vector_env.process.tokenizer, "pretrained": settings.pretrained},
        "seed": settings.seed,
        "device": settings.device,
    }
    if settings.algo == "grpo":
        return GRPO("TaildropPolicy", monitored, **settings.options(), **shared)
    options: PPOSettings | A2CSettings | ReinforceSettings = getattr(settings, settings.algo)
    return options.build(monitored, shared)


def learn(
    settings: TrainSettings,
    folder: Path,
    held_out: HeldOut,
    on_round: OnRound | None = None,
    resume: bool = False,
    pool: ClipPool | None = None,
    accept_differences: bool = False,
) -> ProgressReport:
    """Trains, and saves the agent to the run folder every half minute, at the end, and on Ctrl-C.

    The first Ctrl-C discards the current round; a resumed run repeats it and ends bitwise like an uninterrupted one. A
    second Ctrl-C does not wait for an update to finish.

    Args:
        settings: of the run.
        folder: an empty run folder; with ``resume``, one written by this function.
        held_out: scenes to compare policies on.
        on_round: called after each round with the decisions so far and current metrics.
        resume: continue from the folder's agent.
        pool: of the settings, started or not; it is closed.
        accept_differences: continue with other clips, weights or another reward than at the start.

    Returns:
        The report, whose ``model`` is the agent; it has fewer decisions than the settings if it was interrupted.

    Raises:
        FileNotFoundError: ``resume`` without an agent.
        ValueError: ``resume`` with other settings or inputs, or contradicting settings.
        NonFiniteLossError, NonFiniteRewardError: the agent of the last finite round was saved.
    """
    file = folder / AGENT_FILE
    record = resumable_record(settings, folder) if resume else {}
    with contextlib.closing(pool or settings.clip_pool()) as scored:
        # Of the requested clips, not of the pool, which depends on the number of decisions.
        inputs = input_hashes(held_out.process) | input_hashes(TaildropProcess(**settings.environment("train")))
        check_inputs(record.get("inputs", {}), inputs, str(folder), accept_differences)
        agent = prepare(settings, file if record else None, scored.table())
    # One shared reward, so that held-out scenes use the schedules and the constraint's multiplier of training.
    reward = held_out.process.reward = group_env_of(agent.get_env()).process.reward
    machine = describe_machine(settings.device)
    if record:
        (folder / ARCHIVE_FILE).unlink(missing_ok=True)
        warn_if_other_machine(record.get("machine", machine), machine)
    else:
        command = command_line("train", settings)
        resolved = reward.describe()
        write_config(folder, settings, command=command, reward_resolved=resolved, machine=machine, inputs=inputs)
    agent.set_logger(configure(str(folder), ["tensorboard"]))
    named = held_out.process.tokenizer
    made_on = {
        "machine": machine,
        "inputs": inputs,
        "reward_settings": plain(settings.reward),
        "tokenizer": str(Path(named).resolve()) if Path(named).exists() else named,
    }

    def save() -> None:
        save_agent(agent, file, {**made_on, **report.record()})

    report = ProgressReport(held_out, on_round, save)
    if record:
        report.restore(record)
        reward.restore(report.reward_state)
        agent.num_timesteps = report.decisions
    callbacks: list[BaseCallback] = [report] if settings.algo == "grpo" else [SeededRounds(settings.seed), report]
    with _ctrl_c(report):
        try:
            remaining = max(0, settings.decisions - report.decisions)
            agent.learn(remaining, callback=callbacks, log_interval=1, reset_num_timesteps=not record)
        except KeyboardInterrupt:
            if report.updating:
                raise
        except (NonFiniteLossError, NonFiniteRewardError):
            save()
            raise
    save()
    save_archive(agent, folder / ARCHIVE_FILE)
    agent.logger.close()
    return report


def learn_beside(settings: TrainSettings, folder: Path | None) -> None:
    """Trains on the ranks other than 0, which write nothing.

    Args:
        settings: of the run.
        folder: the run folder to resume, or None for a new run.
    """
    # Ctrl-C reaches every rank; rank 0 decides when all of them stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    record = {} if folder is None else resumable_record(settings, folder)
    with contextlib.closing(settings.clip_pool()) as scored:
        agent = prepare(settings, folder / AGENT_FILE if folder is not None and record else None, scored.table())
    agent.num_timesteps = record.get("decisions", 0)
    remaining = max(0, settings.decisions - agent.num_timesteps)
    agent.learn(remaining, log_interval=0, reset_num_timesteps=not record)


def join_processes(settings: TrainSettings) -> Processes:
    """Joins the ranks that ``torchrun`` started.

    Raises:
        ValueError: there are several, and the algorithm supports only one.
    """
    processes = Processes.start(settings.device)
    if processes.count > 1 and settings.algo != "grpo":
        raise ValueError(
            f"Expected --algo grpo on {processes.count} processes, got {settings.algo}, which trains in one; start it "
            "without torchrun."
        )
    return processes


def train(
    settings: TrainSettings,
    folder: Path,
    held_out: HeldOut,
    on_round: OnRound | None = None,
    resume: bool = False,
    pool: ClipPool | None = None,
    accept_differences: bool = False,
) -> TrainedRun:
    """Trains, evaluates, and writes all files of the run folder; see `learn`.

    Returns:
        The run; on Ctrl-C, with the agent of that moment.
    """
    hold_run_folder(folder)
    report = learn(settings, folder, held_out, on_round, resume, pool, accept_differences)
    interrupted = report.decisions < settings.decisions
    process = held_out.process
    untrained = {
        "random": random_lengths,
        "complexity": complexity_lengths(process),
        "pretrained": pretrained_lengths(process),
    }
    lengths = {
        name: policy(held_out.scene, torch.Generator().manual_seed(settings.seed)).n_tokens
        for name, policy in untrained.items()
    }
    evaluation = judged(held_out, held_out.compare({**lengths, "trained": report.lengths()}), settings.seed)
    explained = explained_share(held_out)
    write_results(folder, settings.algo, evaluation, explained, report, interrupted)
    draw(folder, held_out, evaluation.comparison, report)
    files = tuple(sorted(path.name for path in folder.iterdir() if path.name != LOCK_FILE))
    release_run_folder(folder)
    return TrainedRun(folder, evaluation, explained, report.decisions, interrupted, files)


def resumable_record(settings: TrainSettings, folder: Path) -> dict[str, Any]:
    """The record of a run to resume, after a check of its settings.

    Returns:
        The record saved with the agent; empty if the run ended before its first save, so that it starts again.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the run has other settings (``decisions`` may differ).
    """
    file, config = folder / AGENT_FILE, folder / CONFIG_FILE
    if not config.is_file():
        raise FileNotFoundError(
            f"Expected a run to resume in {folder}, found no {CONFIG_FILE} of one; start it without --resume."
        )
    record = read_record(file) if file.is_file() else {}
    check_settings_unchanged(folder, settings, free=("decisions",))
    return record


@contextlib.contextmanager
def _ctrl_c(report: ProgressReport) -> Iterator[None]:
    """Makes the first Ctrl-C end training in a resumable state, and the next one raise as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        report.stopping = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def write_results(
    folder: Path,
    algorithm: Algorithm,
    evaluation: Evaluation,
    explained: float | None,
    report: ProgressReport,
    interrupted: bool,
) -> list[Path]:
    """Writes ``results.json`` and the tables; the run's headline metrics are at the top level."""
    trained = evaluation.comparison.results()["trained"]
    headline = ("saved", "saved_share", "gap_closed", "spearman_complexity")
    return evaluation.write_tables(
        folder,
        algorithm=algorithm,
        **{metric: trained[metric] for metric in headline},
        explained_variance=explained,
        decisions=report.decisions,
        interrupted=interrupted,
        curves={name: [list(point) for point in points] for name, points in report.curves.items()},
    )


def draw(folder: Path, held_out: HeldOut, comparison: Comparison, report: ProgressReport) -> None:
    """Saves the run's pictures and the reconstruction video."""
    names = ("pretrained", "trained", "oracle")
    save_figure(allocation_figure(comparison, held_out.score, names), folder / "allocation.png")
    save_figure(rate_distortion_figure(comparison), folder / "rate_distortion.png")
    save_figure(reward_curves_figure({"": report.curves}, comparison), folder / "reward_curves.png")
    engine, scene = held_out.process.engine, held_out.scene
    chosen = {name.replace("_", " "): comparison.scores[name].n_tokens for name in (BEST_FIXED, "trained", "oracle")}
    save_figure(contact_sheet(engine, scene, held_out.score, chosen), folder / "reconstructions.png")
    rows = spread_rows(held_out.score, 12)
    frames = comparison_frames(engine, scene, comparison.scores["trained"].n_tokens, rows)
    write_video(folder / "reconstructions.mp4", frames)


def open_held_out(
    settings: TrainSettings, on_scene: Callable[[], None] | None = None, pool: ClipPool | None = None
) -> HeldOut:
    """Scores all lengths of the held-out scenes and, in parallel, the training clips of a pool."""
    process = TaildropProcess(**settings.environment("test"))
    with contextlib.nullcontext() if pool is None else pool.beside():
        return HeldOut(process, settings.held_out_scenes, seed=settings.seed, on_scene=on_scene)
