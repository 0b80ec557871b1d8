"""A rollout as an MP4 that shows every decision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import imageio.v2 as imageio

from vaportok_rl.envs import Engine
from vaportok_rl.envs.render.drawing import Frames, render_decision, tile_frames, to_frames
from vaportok_rl.experiments.rollouts.playing import Episode
from vaportok_rl.runtime.whole_writes import whole_write

VIDEO_FILE = "decisions.mp4"


def episode_frames(episode: Episode, engine: Engine) -> Iterator[Frames]:
    """Plays the clips of an episode in order, each with its reconstruction, tokens and reward terms.

    Args:
        episode: the decisions; several paths are tiled.
        engine: decodes.

    Yields:
        L · T pictures ``uint8 [H', W', 3]`` of equal, even size; see `render_decision`. Path terms appear with the last
        clip.
    """
    scene, kept, raw = episode.scene, episode.outcome.n_tokens, episode.rewards.raw
    length = scene.shape[1]
    # Videos are large: only one clip's reconstructions are in memory at a time.
    for step in range(length):
        original = to_frames(scene.clips[0, step])
        codes = scene.codes[0, step].expand(episode.paths, -1)
        decoded = [to_frames(video) for video in engine.world.decode(codes, kept[:, 0, step])]
        terms = [
            {
                name: float(value[path, 0, step])
                if value.dim() == 3
                else float(value[path, 0])
                if step == length - 1
                else math.nan
                for name, value in raw.items()
            }
            for path in range(episode.paths)
        ]
        for frame in range(len(original)):
            yield tile_frames(
                [
                    render_decision(original, again, n, scene.tokens, paid, frame=frame)
                    for again, n, paid in zip(decoded, kept[:, 0, step].tolist(), terms, strict=True)
                ]
            )


class RolloutVideo:
    """Context manager that writes episodes to an H.264 MP4; on an error it writes nothing.

    Args:
        path: the file.
        engine: decodes.
        scenes: maximum number of episodes, because pictures take far longer than decisions.
        fps: frames per second.

    Raises:
        ValueError: ``scenes`` is below 1.
    """

    def __init__(self, path: Path, engine: Engine, scenes: int = 10, fps: int = 8) -> None:
        if scenes < 1:
            raise ValueError(f"Expected at least 1 scene in the video, got {scenes}; leave the video out instead.")
        self.path = path
        self.engine = engine
        self.scenes = scenes
        self.fps = fps
        self._file = ExitStack()
        self._writer: Any = None
        self._shown = 0

    def __enter__(self) -> RolloutVideo:
        return self

    def add(self, episode: Episode) -> None:
        """Appends an episode, unless the video is full."""
        if self._shown == self.scenes:
            return
        if self._writer is None:
            self._writer = imageio.get_writer(
                self._file.enter_context(whole_write(self.path)),
                format="FFMPEG",
                fps=self.fps,
                macro_block_size=1,
                ffmpeg_log_level="error",
            )
            self._file.push(self._close)
        for picture in episode_frames(episode, self.engine):
            self._writer.append_data(picture)
        self._shown += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ctrl-C reaches the encoder too.
        with nullcontext() if error is None else suppress(OSError):
            self._writer.close()
