"""One training run from an empty folder to its table and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat, configure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vaportok_rl.agents import GRPO, Comparison, HeldOut
from vaportok_rl.agents.comparison import BEST_FIXED, ORACLE
from vaportok_rl.agents.grpo import Credit
from vaportok_rl.agents.lengths import AGENT_FILE, most_probable, pretrained_lengths
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv
from vaportok_rl.experiments.figures import allocation_figure, rate_distortion_figure, reward_figure, save_figure
from vaportok_rl.experiments.pictures import comparison_frames, contact_sheet, spread_rows, write_video
from vaportok_rl.experiments.run_folder import write_config, write_json
from vaportok_rl.experiments.tensorboard import add_clip
from vaportok_rl.experiments.world_settings import WorldSettings


@dataclass(frozen=True)
class TrainSettings(WorldSettings):
    """Everything a training run depends on."""

    decisions: int = 40_960
    """How many lengths the policy chooses in training (scenes × group size × path length a round)."""
    scenes: int = 16
    """P, scenes a round."""
    group_size: int = 8
    """G, paths through each scene; at least 2."""
    learning_rate: float = 3e-4
    """Adam's."""
    n_epochs: int = 2
    """Inner iterations μ."""
    batch_size: int | None = None
    """Scenes a gradient step; all of a round's if not given."""
    kl_coef: float = 0.1
    """β, weight of the KL to the pretrained policy."""
    clip_range: float = 0.2
    """ε_low."""
    clip_range_high: float = 0.28
    """ε_high."""
    credit: Credit = "path"
    """One advantage a path, or one a clip."""
    pretrained: bool = True
    """Start from the tokenizer's own taildrop module rather than from a fresh policy."""
    held_out_scenes: int = 32
    """Held-out scenes that every policy is compared on."""
    seed: int = 0
    """Decides everything."""


class ProgressReport(BaseCallback):
    """Follows training on the held-out scenes and remembers the curves.

    Args:
        held_out: scenes with every outcome.
        on_round: called with the decisions so far and the live figures.
        every: rounds between held-out evaluations.
        clips_every: rounds between reconstructions in TensorBoard.
    """

    def __init__(
        self,
        held_out: HeldOut,
        on_round: Callable[[int, dict[str, float]], None] | None,
        every: int = 2,
        clips_every: int = 20,
    ) -> None:
        super().__init__()
        self.held_out = held_out
        self.on_round = on_round
        self.every = every
        self.clips_every = clips_every
        self.curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.live: dict[str, float] = {}
        before = held_out.compare({})
        self._best_fixed, self._oracle = before.reward(BEST_FIXED), before.reward(ORACLE)

    def lengths(self) -> Tensor:
        """The policy's most probable lengths on the held-out scenes: ``int64 [P, L]``."""
        policy: Any = self.model.policy
        policy.set_training_mode(False)
        chosen = most_probable(policy.length_log_probs)
        return chosen(self.held_out.scene, torch.Generator()).n_tokens

    def evaluate(self) -> None:
        """Adds a point to the held-out curves."""
        lengths = self.lengths()
        reward = self.held_out.evaluate(lengths).reward
        gap = (reward - self._best_fixed) / max(1e-12, self._oracle - self._best_fixed)
        self.curves["held_out"].append((self.num_timesteps, reward))
        self.curves["gap_closed"].append((self.num_timesteps, gap))
        self.live |= {"held_out": reward, "gap": gap}
        self.logger.record("held_out/reward", reward)
        self.logger.record("held_out/gap_closed", gap)
        self.logger.record("held_out/mean_tokens", lengths.float().mean().item())

    def _on_training_start(self) -> None:
        self.evaluate()

    def _on_step(self) -> bool:
        rollout = self.locals["rollout"]
        reward, tokens = rollout.rewards.total.mean().item(), rollout.outcome.n_tokens.float().mean().item()
        self.curves["training"].append((self.num_timesteps, reward))
        self.curves["tokens"].append((self.num_timesteps, tokens))
        self.live |= {"reward": reward, "tokens": tokens}
        if self.n_calls % self.every == 0:
            self.evaluate()
        writer = self.writer()
        if writer is not None:
            writer.add_histogram("lengths/histogram", rollout.outcome.n_tokens, self.num_timesteps)
            if self.n_calls % self.clips_every == 1:
                held = self.held_out
                rows = spread_rows(held.score, 6)
                frames = comparison_frames(held.process.engine, held.scene, self.lengths(), rows, size=64)
                add_clip(writer, "reconstructions", frames, self.num_timesteps)
        if self.on_round is not None:
            self.on_round(self.num_timesteps, dict(self.live))
        return True

    def writer(self) -> SummaryWriter | None:
        """The TensorBoard writer of the model's logger, if it has one."""
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                return output.writer
        return None


@dataclass(frozen=True)
class TrainedRun:
    """What a run leaves behind.

    Attributes:
        folder: the run folder.
        comparison: of all policies on the held-out scenes.
        interrupted: whether training was stopped early.
        files: what was written, by file name.
    """

    folder: Path
    comparison: Comparison
    interrupted: bool
    files: tuple[str, ...]


def prepare(settings: TrainSettings, folder: Path) -> GRPO:
    """The agent on its training environment, logging to TensorBoard in the run folder."""
    environment = TaildropVecEnv(
        settings.scenes * settings.group_size, group_size=settings.group_size, **settings.environment("train")
    )
    agent = GRPO(
        "TaildropPolicy",
        environment,
        learning_rate=settings.learning_rate,
        n_epochs=settings.n_epochs,
        batch_size=settings.batch_size,
        kl_coef=settings.kl_coef,
        clip_range=settings.clip_range,
        clip_range_high=settings.clip_range_high,
        credit=settings.credit,
        policy_kwargs={"tokenizer": settings.tokenizer, "pretrained": settings.pretrained},
        seed=settings.seed,
    )
    agent.set_logger(configure(str(folder), ["tensorboard"]))
    return agent


def train(
    settings: TrainSettings,
    folder: Path,
    held_out: HeldOut,
    on_round: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainedRun:
    """Trains GRPO and writes everything the run folder holds.

    Args:
        settings: the run.
        folder: an empty run folder.
        held_out: scenes to compare policies on.
        on_round: called after each round with the decisions so far and live figures.

    Returns:
        The finished run; on Ctrl-C, what had been learnt until then.
    """
    agent = prepare(settings, folder)
    write_config(folder, settings, reward_resolved=held_out.process.reward.describe())
    report = ProgressReport(held_out, on_round)
    interrupted = False
    try:
        agent.learn(settings.decisions, callback=report)
    except KeyboardInterrupt:
        interrupted = True
    agent.save(folder / AGENT_FILE)
    pretrained = pretrained_lengths(held_out.process)(held_out.scene, torch.Generator()).n_tokens
    comparison = held_out.compare({"pretrained": pretrained, "trained": report.lengths()})
    write_results(folder, comparison, report, interrupted)
    draw(folder, held_out, comparison, report)
    agent.logger.close()
    return TrainedRun(folder, comparison, interrupted, tuple(sorted(path.name for path in folder.iterdir())))


def write_results(folder: Path, comparison: Comparison, report: ProgressReport, interrupted: bool) -> Path:
    """Writes ``results.json``: figures by policy, and the run's headline numbers at the top level."""
    content: dict[str, Any] = dict(comparison.results())
    content |= {
        "gap_closed": comparison.gap_closed("trained"),
        "headroom": comparison.headroom,
        "headroom_share": comparison.headroom_share,
        "spearman_complexity": comparison.spearman["trained"],
        "decisions": report.num_timesteps,
        "interrupted": interrupted,
        "curves": {name: [list(point) for point in points] for name, points in report.curves.items()},
    }
    return write_json(folder / "results.json", content)


def draw(folder: Path, held_out: HeldOut, comparison: Comparison, report: ProgressReport) -> None:
    """Saves the run's pictures and the reconstruction video."""
    matplotlib.use("Agg")
    names = ("pretrained", "trained", "oracle")
    save_figure(allocation_figure(comparison, held_out.score, held_out.scene.labels, names), folder / "allocation.png")
    save_figure(rate_distortion_figure(comparison, held_out.every), folder / "rate_distortion.png")
    save_figure(reward_figure(report.curves, comparison), folder / "reward_curves.png")
    engine, scene = held_out.process.engine, held_out.scene
    chosen = {name.replace("_", " "): comparison.scores[name].n_tokens for name in (BEST_FIXED, "trained", "oracle")}
    save_figure(contact_sheet(engine, scene, held_out.score, chosen), folder / "reconstructions.png")
    rows = spread_rows(held_out.score, 12)
    frames = comparison_frames(engine, scene, comparison.scores["trained"].n_tokens, rows)
    write_video(folder / "reconstructions.mp4", frames)


def open_held_out(settings: TrainSettings, on_scene: Callable[[], None] | None = None) -> HeldOut:
    """The held-out scenes of a run, every length scored."""
    process = TaildropProcess(**settings.environment("test"))
    return HeldOut(process, settings.held_out_scenes, seed=settings.seed, on_scene=on_scene)
