"""Opens clips by name, as in `--clips` and in an environment's arguments."""

from __future__ import annotations

from collections.abc import Sequence

from vaportok_rl.clips.footage.kinetics import KineticsCSV
from vaportok_rl.clips.footage.source import Starts
from vaportok_rl.clips.footage.ucf101 import UCF101
from vaportok_rl.clips.footage.video import VideoClips
from vaportok_rl.clips.gameplay import GameplayClips
from vaportok_rl.clips.mixed import MixedClips
from vaportok_rl.clips.procedural.source import ProceduralClips
from vaportok_rl.clips.source import ClipSource, Split, check_split
from vaportok_rl.clips.streams import StreamClips
from vaportok_rl.runtime.declared import checked

PROCEDURAL = "procedural"
PROCEDURAL_PREFIX = "procedural:"
_KNOBS = ("spatial", "temporal")
GAMEPLAY_PREFIX = "gym:"
STREAMS = "streams"
UCF101_PREFIX = "ucf101:"
KINETICS_PREFIX = "kinetics:"
FOLD_PREFIX = "fold:"
_FOLDS = ("1", "2", "3")


@checked
def open_clips(
    clips: str | Sequence[str],
    *,
    split: str = "train",
    frames: int = 16,
    size: int = 32,
    seed: int = 0,
    starts: Starts | None = None,
) -> ClipSource:
    """Opens clips by name.

    Args:
        clips: one of

            - ``"procedural"``, or with complexity in ranges, ``"procedural:spatial=0.5-1,temporal=0.2-0.4"``;
            - ``"gym:ID"`` or ``"gym:ID,ID,…"``, gameplay of Gymnasium environments (`GameplayClips`);
            - ``"streams"`` or ``"streams:ID,ID,…"``, procedural films with cuts, and gameplay of these (`StreamClips`);
            - ``"ucf101:FOLDER"``, UCF101 by its first official split (``"ucf101:FOLDER:2"`` by its second);
            - ``"kinetics:FILE.csv"`` or ``"kinetics:TRAIN.csv,VAL.csv"``, videos listed with labels (`KineticsCSV`);
            - a video file, a folder of videos or a glob pattern (`VideoClips`);
            - ``"fold:2/3:PATH"``, the same with the second of three folds held out (`held_out_fold`);
            - a sequence of these, interleaved (`MixedClips`); one named twice gives twice as many clips.
        split: ``"train"`` or ``"test"`` (held out).
        frames: T, frames per clip.
        size: H = W, pixels.
        seed: of procedural clips, of games, and of random starts in footage.
        starts: for footage, ``"grid"`` or ``"random"`` (see `VideoClips`); by default random for UCF101 and Kinetics,
            the grid for other footage.

    Raises:
        FileNotFoundError: a path does not exist or holds no video.
        UnreadableVideoError: none of the videos can be read.
        ValueError: the split or an environment is unknown, a list of videos is malformed, or no name is given.
    """
    names = [clips] if isinstance(clips, str) else list(clips)
    distinct = list(dict.fromkeys(names))
    if not distinct:
        raise ValueError("Expected at least one source of clips, got none; pass for instance 'procedural'.")
    part = check_split(split)
    sources = [_open_one(name, part, frames, size, seed, starts) for name in distinct]
    return sources[0] if len(sources) == 1 else MixedClips(sources, [distinct.index(name) for name in names])


def _open_one(name: str, split: Split, frames: int, size: int, seed: int, starts: Starts | None) -> ClipSource:
    if name == PROCEDURAL:
        return ProceduralClips(seed, split, frames=frames, size=size)
    if name.startswith(PROCEDURAL_PREFIX):
        spatial, temporal = _knob_ranges(name)
        return ProceduralClips(seed, split, frames=frames, size=size, spatial=spatial, temporal=temporal)
    if name.startswith(GAMEPLAY_PREFIX):
        environments = name.removeprefix(GAMEPLAY_PREFIX).split(",")
        return GameplayClips(environments, frames=frames, size=size, split=split, seed=seed)
    if name == STREAMS or name.startswith(f"{STREAMS}:"):
        games = [part for part in name.removeprefix(STREAMS).removeprefix(":").split(",") if part]
        return StreamClips(games, frames=frames, size=size, split=split, seed=seed)
    if name.startswith(UCF101_PREFIX):
        folder = name.removeprefix(UCF101_PREFIX)
        before, _, last = folder.rpartition(":")
        folder, fold = (before, int(last)) if before and last in _FOLDS else (folder, 1)
        return UCF101(folder, fold=fold, frames=frames, size=size, split=split, seed=seed, starts=starts or "random")
    if name.startswith(KINETICS_PREFIX):
        files = name.removeprefix(KINETICS_PREFIX).split(",")
        return KineticsCSV(files, frames=frames, size=size, split=split, seed=seed, starts=starts or "random")
    chosen, path = _fold(name) if name.startswith(FOLD_PREFIX) else (None, name)
    return VideoClips(path, frames=frames, size=size, split=split, seed=seed, starts=starts or "grid", fold=chosen)


def _fold(name: str) -> tuple[tuple[int, int], str]:
    """Number and count in ``"fold:2/3:PATH"``, and the path."""
    which, _, path = name.removeprefix(FOLD_PREFIX).partition(":")
    number, _, folds = which.partition("/")
    if not (number.isdecimal() and folds.isdecimal() and path):
        raise ValueError(f"Expected fold:NUMBER/FOLDS:PATH, for instance fold:1/3:videos, got {name!r}; correct it.")
    return (int(number), int(folds)), path


def _knob_ranges(name: str) -> list[tuple[float, float]]:
    """The ranges in ``"procedural:spatial=0.5-1,temporal=0.3"``, a knob each."""
    ranges: dict[str, tuple[float, float]] = {}
    for setting in name.removeprefix(PROCEDURAL_PREFIX).split(","):
        knob, _, written = setting.partition("=")
        low, _, high = written.partition("-")
        try:
            if knob not in _KNOBS or knob in ranges:
                raise ValueError(knob)
            ranges[knob] = (float(low), float(high or low))
        except ValueError:
            raise ValueError(
                f"Expected procedural:spatial=LOW-HIGH,temporal=LOW-HIGH, or one of the two, got {name!r}; correct "
                f"{setting!r}."
            ) from None
    return [ranges.get(knob, (0.0, 1.0)) for knob in _KNOBS]
