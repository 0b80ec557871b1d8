"""Long videos for sequential tasks: procedural films with cuts, and gameplay episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.clips.gameplay import STRETCH_CLIPS, GameplayClips
from vaportok_rl.clips.procedural.source import ProceduralClips
from vaportok_rl.clips.source import ClipBatch, ClipOrigin, ClipSource, check_split
from vaportok_rl.runtime.declared import checked
from vaportok_rl.runtime.seeds import derive_seed

FILM = "film"
# Increase it when the same settings show other pixels.
_VERSION = 1
# Lengths of a film's shots, as shares of a clip.
_SHOTS = (0.5, 1, 1.5, 2, 3)


class StreamClips(ClipSource):
    """Videos of `STRETCH_CLIPS` consecutive clips: procedural films, alternating with gameplay if games are named.

    A film is a sequence of procedural shots of half a clip to three clips, so most cuts fall inside a clip; a shot is
    a procedural clip rendered with as many frames. Gameplay is that of `GameplayClips`; a game that ends is followed by
    the next one, as after a cut.

    Args:
        games: ids of Gymnasium environments; films only if there are none.
        frames: T, frames per clip.
        size: H = W, pixels.
        split: ``"train"`` or ``"test"``, which share no shot and no game.
        seed: of all videos.
        length: number of clips, rounded up to whole videos.

    Raises:
        ValueError: as for `GameplayClips`.
    """

    @checked
    def __init__(
        self,
        games: Sequence[str] = (),
        *,
        frames: int = 16,
        size: int = 32,
        split: str = "train",
        seed: int = 0,
        length: int = 4096,
    ) -> None:
        self.frames, self.size, self.split, self.seed = frames, size, check_split(split), int(seed)
        self._videos = -(-length // STRETCH_CLIPS)
        games_length = max(1, self._videos // 2) * STRETCH_CLIPS
        self._games = (
            GameplayClips(games, frames=frames, size=size, split=split, seed=seed, length=games_length)
            if games
            else None
        )
        self.label_names = (FILM, *(self._games.label_names if self._games else ()))
        self._film: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return self._videos * STRETCH_CLIPS

    def describe(self) -> str:
        """One line: kinds of videos, split and seed."""
        kinds = "films" if self._games is None else f"films and gameplay of {', '.join(self._games.label_names)}"
        return (
            f"streams: {self._videos} {kinds} of {STRETCH_CLIPS} clips, split {self.split!r}, seed {self.seed}, "
            f"{self.frames}x{self.size}x{self.size}"
        )

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Renders or plays the clips at ``indices``; see `ClipSource.batch`."""
        listed = self.check_indices(indices)
        clips = torch.empty(len(listed), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        labels = torch.zeros(len(listed), dtype=torch.int64)
        for row, index in enumerate(listed):
            games, number, place = self._place(index)
            if games is None:
                clips[row] = self._shown(number)[:, place * self.frames : (place + 1) * self.frames]
            else:
                found = games.batch([number * STRETCH_CLIPS + place])
                clips[row], labels[row] = found.clips[0], found.labels[0] + 1
        return ClipBatch(clips, labels, torch.tensor(listed))

    def origin(self, index: int) -> ClipOrigin:
        """The kind of video of the clip at ``index``, without making it."""
        (listed,) = self.check_indices([index])
        games, number, place = self._place(listed)
        return ClipOrigin("", 0, FILM) if games is None else games.origin(number * STRETCH_CLIPS + place)

    def consecutive_starts(self, length: int) -> Tensor | None:
        """See `ClipSource.consecutive_starts`."""
        places = torch.arange(len(self))
        return places[places % STRETCH_CLIPS + length <= STRETCH_CLIPS]

    def _content(self) -> object:
        return [_VERSION, self.seed, None if self._games is None else self._games.identity]

    def _place(self, index: int) -> tuple[GameplayClips | None, int, int]:
        """The games, or None for a film; the number of the video among its kind; the clip's place in it."""
        video, place = divmod(index, STRETCH_CLIPS)
        if self._games is None:
            return None, video, place
        return self._games if video % 2 else None, video // 2, place

    def _shown(self, film: int) -> Tensor:
        """A film, ``uint8 [3, frames, size, size]``; the last one is remembered."""
        if self._film is None or self._film[0] != film:
            total = STRETCH_CLIPS * self.frames
            rng = np.random.default_rng(derive_seed("film", self.seed, self.split, film))
            shots: list[Tensor] = []
            while (done := sum(shot.shape[1] for shot in shots)) < total:
                frames = max(1, round(float(rng.choice(_SHOTS)) * self.frames))
                source = ProceduralClips(self.seed, self.split, frames=frames, size=self.size)
                # No two films share a shot: a film has at most twice as many as clips.
                shots.append(source[film * 2 * STRETCH_CLIPS + len(shots)][:, : total - done])
            self._film = film, torch.cat(shots, 1)
        return self._film[1]
