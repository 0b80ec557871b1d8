"""``vaportok-rl rollout``: runs any policy over scenes and writes one row per decision."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.experiments.run_folder import create_run_folder, write_config
from vaportok_rl.experiments.runs.world_settings import WorldSettings

if TYPE_CHECKING:  # so that the command line is parsed quickly
    from vaportok_rl.experiments.rollouts.playing import Episode


@dataclass(frozen=True)
class RolloutCommand:
    """Roll a policy out and write one row per decision (Parquet) and a summary (JSON).

    On Ctrl-C the finished scenes are written, and the summary says `"complete": false`. A video or a Minari dataset is
    written only of a complete rollout.
    """

    policy: str = "random"
    """`random`, `fixed:N`, `best-fixed` (on training clips), `argmax` (the pretrained module), `complexity` (the
    prior's mean), `complexity-affine` and `loss-proportional` (fitted on training clips), `router` (trained on the
    oracle's lengths), `threshold:MSE` or `threshold:MSE:binary`, `budget:N` or `lagrangian:N` (N tokens per clip on
    average), `oracle`, a run folder or agent file, `ppo:PATH` (or a2c, dqn, trpo, maskable-ppo, qr-dqn, recurrent-ppo),
    or `module:callable`, a function of scene and generator that returns lengths [P, L]."""
    episodes: int = 20
    """Scenes."""
    paths: int = 1
    """Paths through each scene."""
    settings: Annotated[WorldSettings, tyro.conf.arg(name="")] = field(default_factory=WorldSettings)
    split: Literal["test", "train"] = "test"
    """`test` (held out) or `train`."""
    trust_archives: bool = False
    """Also read an agent from Stable-Baselines3's archive (.zip). Reading one runs the code in it, so its author must
    be trusted."""
    seed: int = 0
    """Of the scenes and of the policy's samples; the same seed gives the same bytes."""
    out: Path | None = None
    """New folder; `runs/<time>-rollout` if not given."""
    video: bool = False
    """Also write the decisions as an MP4: original, reconstruction, error, tokens and reward terms."""
    video_scenes: int = 10
    """Maximum number of scenes in the video."""
    minari: str | None = None
    """Also write a Minari dataset of this name, such as `vaportok/random-v0`, for offline RL."""
    obs: Literal["latents", "complexity", "codes", "clip"] = "latents"
    """Observations in the Minari dataset."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.agents import build_length_policy
        from vaportok_rl.envs import TaildropProcess
        from vaportok_rl.experiments.rollouts.minari_dataset import MinariRecorder
        from vaportok_rl.experiments.rollouts.playing import rollout
        from vaportok_rl.experiments.rollouts.video import VIDEO_FILE, RolloutVideo

        arguments = self.settings.environment(self.split)
        arguments["obs"] = self.obs
        process = TaildropProcess(**arguments)
        recorder = None if self.minari is None else MinariRecorder(self.minari, process, self.policy)
        with console.status(f"preparing {self.policy}"):
            policy = build_length_policy(self.policy, process, trust_archives=self.trust_archives)
        folder = create_run_folder(Path("runs"), "rollout", self.out)
        with contextlib.ExitStack() as stack:
            video = None
            if self.video:
                video = stack.enter_context(RolloutVideo(folder / VIDEO_FILE, process.engine, self.video_scenes))
            progress = stack.enter_context(progress_bar(console))
            task = progress.add_task("episodes", total=self.episodes, live=self.policy)

            def on_episode(episode: Episode) -> None:
                for follower in (video, recorder):
                    if follower is not None:
                        follower.add(episode)
                progress.advance(task)

            done = rollout(
                process,
                policy,
                self.episodes,
                self.seed,
                paths=self.paths,
                on_episode=on_episode,
                keep_partial=True,
            )
            written = [write_config(folder, dataclasses.replace(self, out=None)), *done.write(folder)]
            if not done.complete:
                summary = done.summary()
                console.print(
                    f"interrupted after {summary['episodes']} of {self.episodes} scenes, written as "
                    "incomplete: " + ", ".join(map(str, written)),
                    highlight=False,
                    style="yellow",
                    soft_wrap=True,
                )
                raise KeyboardInterrupt
        written += [folder / VIDEO_FILE] if video is not None else []
        written += [recorder.save()] if recorder is not None else []
        console.print(_table(self.policy, done.summary()))
        tell_written(console, folder, written)


def _table(policy: str, summary: dict[str, Any]) -> Table:
    table = Table(title=f"{policy}: {summary['decisions']} decisions", title_justify="left")
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_row("path reward", f"{summary['reward']:.4g}")
    for name, value in summary["mean"].items():
        if value is not None and name not in ("reward", "n_chosen"):
            table.add_row(name.replace("_", " "), f"{value:.4g}")
    return table
