"""Frames of one video file by their place in presentation order, exact in every container, brought to clip size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vaportok_rl.clips.footage.decord_library import decord

# Where a clip is first looked for: from this many key frames back. After that from the beginning of the file.
_KEYS_BACK = (1, 2, 4)

# decord is faster on small pictures, and keeps what it decodes on its way to a clip: up to this many bytes a file.
_DECORD_BYTES = 96 * 2**20
# Clips of a file, evenly spaced from its first to its last, that decord and PyAV must read alike.
_PROBES = 4
# H = W, pixels, at which they are compared.
_PROBE_SIZE = 32
# Frames that decord hands over at once, at their native size.
_BATCH_FRAMES = 16

# Where a container has lost frames there is a gap in the times, longer than a usual step by this factor. Those shown up
# to so many places before it may refer to what was lost, as may all from there to the next key frame.
_GAP, _REORDERED = 1.5, 16

# To containers and decoders: tell what is damaged rather than conceal it.
_EXPLODE = {"err_detect": "explode"}


class UnreadableVideoError(ValueError):
    """A video file, or a whole collection of them, that cannot be decoded.

    Attributes:
        path: the file (or folder) concerned.
        reason: why, in one line without a path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"Cannot read video from {path}: {reason}.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableVideoError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class _OtherFramesError(Exception):
    """The frames that came are damaged or not those asked for; an earlier start may give them."""


def resize_and_crop(frames: Tensor, size: int) -> Tensor:
    """Brings frames to clip size: shorter side to ``size`` (bilinear, antialiased), then the central square.

    Args:
        frames: ``uint8 [N, H, W, 3]``.
        size: H = W of the result, pixels.

    Returns:
        ``uint8 [N, 3, size, size]``.
    """
    height, width = frames.shape[1], frames.shape[2]
    short = min(height, width)
    # The longer side rounds down, as in the torchvision transforms that LARP's protocol is built from.
    new_height, new_width = int(size * height / short), int(size * width / short)
    pixels = frames.permute(0, 3, 1, 2)
    if short != size:
        pixels = F.interpolate(pixels.float(), size=(new_height, new_width), mode="bilinear", antialias=True)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    square = pixels[:, :, top : top + size, left : left + size]
    if square.is_floating_point():
        square = square.round().clamp(0, 255).to(torch.uint8)
    return square.contiguous()


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a file are, measured when it is first opened.

    Attributes:
        times: presentation time of each frame that a player shows, ``int64 [N]``, ascending, in the stream's unit;
            empty where the file does not say, and frames are found by counting from the beginning.
        keys: presentation and decoding time of the key frames, ``int64 [M, 2]``.
        count: N, frames.
        holes: number of the first frame after each place where a damaged container lost some.
        plain: whether frames need no more than their place: none is hidden by an edit list, turned or mirrored, none
            refers to what lies before its key frame, none was lost, and all of them together are small.
        decoder: ``"decord"`` where its frames were seen to be equal to ``"PyAV"``'s, which reads everything else.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    count: int
    holes: tuple[int, ...] = ()
    plain: bool = False
    decoder: str = "PyAV"

    @property
    def access(self) -> str:
        """How a frame is reached: ``"seeks"``, or ``"counts"`` from the beginning of the file."""
        return "seeks" if len(self.times) else "counts"

    def key_before(self, frame: int, back: int) -> tuple[int, int] | None:
        """Times of the key frame ``back`` places at or before a frame; None for the beginning of the file.

        Frames shown after a key frame refer to nothing before it. Those shown before it but stored after (an open
        group of pictures) may: they are reached from an earlier key frame.
        """
        position = int(np.searchsorted(self.keys[:, 0], self.times[frame], side="right")) - back
        return None if position <= 0 else (int(self.keys[position, 0]), int(self.keys[position, 1]))

    def is_whole(self, key: tuple[int, int] | None, last: int) -> bool:
        """Whether nothing was lost that the frames from a key frame (None: the beginning) to another may refer to."""
        begin = 0 if key is None else int(np.searchsorted(self.times, key[0]))
        return not any(begin < hole <= last + _REORDERED for hole in self.holes)


@contextlib.contextmanager
def _complaints() -> Iterator[list[tuple[int, str, str]]]:
    """What ffmpeg's libraries warn of meanwhile, in this thread: level, who, and what."""
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as told:
            yield told
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and video stream of a file; errors of the library are told as `UnreadableVideoError`."""
    try:
        if not path.is_file() and path.exists():
            raise UnreadableVideoError(path, "no regular file (a pipe, a device or a folder), which is never read")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise UnreadableVideoError(path, "the file is empty (0 bytes)")
        # Absolute, or ffmpeg would take a file called "a:b.mp4" for a protocol.
        with av.open(f"file:{path.absolute()}", metadata_errors="ignore", options=_EXPLODE) as container:
            video = next(iter(container.streams.video), None)
            if video is None or video.codec_context is None:
                raise UnreadableVideoError(path, "it holds no video, or in no codec that ffmpeg can decode")
            # One decoding thread: callers that want more cores read several files at once, in processes. What is
            # damaged is told rather than concealed.
            video.thread_type, video.thread_count = "NONE", 1
            video.codec_context.options = _EXPLODE
            yield container, video
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError(path, _reason(error)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, av.InvalidDataError):
        return "no video that ffmpeg can read"
    return getattr(error, "strerror", None) or type(error).__name__


def _frames(container: Any, video: Any, key: tuple[int, int] | None) -> Iterator[Any]:
    """Decoded frames in presentation order, from a key frame (its two times) or the beginning on.

    Raises:
        _OtherFramesError: the file does not go to the key frame, or something is damaged (or refers to what lies before
            the key frame), but for frames that are stored after the key frame and shown before it.
    """
    if key is not None:
        container.seek(key[1], stream=video)
    begun = key is None
    for packet in container.demux(video):
        if not begun:
            # A seek may end between key frames, whose neighbours are then decoded from nothing.
            if not packet.is_keyframe:
                continue
            if packet.pts is None or packet.pts > key[0]:  # type: ignore[index]
                raise _OtherFramesError
            begun = True
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            if key is not None and packet.pts is not None and packet.pts < key[0]:
                continue
            raise _OtherFramesError from None
        for frame in frames:
            if key is not None and frame.pts is not None and frame.pts < key[0]:
                continue
            if frame.is_corrupt:
                raise _OtherFramesError
            yield frame


def _read(path: Path, index: VideoIndex, first: int, count: int, use: Callable[[int, Any], None]) -> None:
    """Calls ``use(k, frame)`` with the frames ``first + k``; with all of them again if it has to start earlier.

    Raises:
        UnreadableVideoError: they cannot be decoded, or others come instead.
    """
    keys = [index.key_before(first, back) for back in _KEYS_BACK] if len(index.times) else []
    attempts = list(dict.fromkeys([*keys, None]))
    for attempt, key in enumerate(attempts):
        try:
            if not index.is_whole(key, first + count - 1):
                raise _OtherFramesError
            with _opened(path) as (container, video):
                place = 0 if not len(index.times) else None
                taken = 0
                for frame in _frames(container, video, key):
                    if place is not None:
                        place += 1
                        if place <= first:
                            continue
                    elif frame.pts is None or frame.pts < index.times[first]:
                        continue
                    elif frame.pts != index.times[first + taken]:
                        raise _OtherFramesError
                    use(taken, frame)
                    taken += 1
                    if taken == count:
                        return
                raise _OtherFramesError
        except _OtherFramesError as error:
            if attempt == len(attempts) - 1:
                reason = f"damaged stream (of frames {first} to {first + count - 1} some are damaged or missing)"
                raise UnreadableVideoError(path, reason) from error


def open_video(path: Path, frames: int) -> VideoIndex:
    """Measures where the frames of a file are, and decodes its first and its last clip to see.

    The container's presentation times are believed if these two clips, which are reached by them, hold the frames that
    they promise. If not, the whole file is decoded once: its frames' own times serve if they rise, and otherwise frames
    are counted from the beginning at every reading.

    Args:
        path: the file.
        frames: T, frames a clip.

    Returns:
        Its index, of at least one frame.

    Raises:
        UnreadableVideoError: the file cannot be opened, ends before its last frame, or one of those clips is damaged.
    """
    index = _index_of_packets(path)
    if index.plain and _decord_agrees(path, index, frames):
        return replace(index, decoder="decord")
    if len(index.times):
        last = max(0, index.count // frames - 1) * frames
        try:
            for first in sorted({0, last}):
                _read(path, index, first, min(frames, index.count - first), lambda *_: None)
            return index
        except UnreadableVideoError as error:
            if index.holes or not isinstance(error.__cause__, _OtherFramesError):
                raise
    return _index_of_frames(path)


def _decord_agrees(path: Path, index: VideoIndex, frames: int) -> bool:
    """Whether decord's clips, spread over a plain file from its first to its last, are PyAV's to the bit."""
    length = min(frames, index.count)
    starts = sorted(set(np.linspace(0, index.count - length, _PROBES).astype(int).tolist()))
    try:
        reader = _decord_reader(path)
        if len(reader) != index.count:
            return False
        for first in starts:
            expected, got = (_Clips([first], length, _PROBE_SIZE, index.count) for _ in range(2))
            across_x, down_x, _, _, down_y = _by_pyav(path, index, expected)
            if down_x or across_x < 0 or down_y < 0:
                return False
            _by_decord(reader, got)
            if not torch.equal(expected.clips[0], got.clips[0]):
                return False
    except (decord.DECORDError, RuntimeError, IndexError, UnreadableVideoError):
        return False
    return True


def _index_of_packets(path: Path) -> VideoIndex:
    """What the container says, without decoding."""
    with _complaints() as told, _opened(path) as (container, video):
        packets = [packet for packet in container.demux(video) if packet.size]
        # This family lists every frame; the count that other containers hold is a guess, or of what damage took.
        if len(packets) < video.frames and "mov" in container.format.name:
            raise UnreadableVideoError(path, "the file ends before its last frame (truncated)")
        shown = [packet.pts for packet in packets if not packet.is_discard]
        if not shown:
            raise UnreadableVideoError(path, "it holds no frame")
        keys = [(packet.pts, packet.dts) for packet in packets if packet.is_keyframe]
        pixels = video.codec_context.width * video.codec_context.height
        damaged = any(who == container.format.name for _, who, _ in told)
        known = None not in shown and len(set(shown)) == len(shown) and not any(None in key for key in keys)
    if not known:
        return VideoIndex(np.zeros(0, np.int64), np.zeros((0, 2), np.int64), len(shown))
    times = np.sort(np.array(shown, np.int64))
    steps = np.diff(times)
    holes = tuple((np.flatnonzero(steps > _GAP * np.median(steps)) + 1).tolist()) if damaged and len(steps) else ()
    small = 3 * pixels * len(shown) <= _DECORD_BYTES
    plain = small and len(shown) == len(packets) and not holes and not _leads(packets)
    return VideoIndex(times, _sorted(keys), len(shown), holes, plain)


def _leads(packets: Sequence[Any]) -> bool:
    """Whether a frame is shown before the key frame after which it is stored (an open group of pictures)."""
    key = None
    for packet in packets:
        key = packet.pts if packet.is_keyframe else key
        if key is None or packet.pts < key:
            return True
    return False


def _index_of_frames(path: Path) -> VideoIndex:
    """What comes out of the decoder from the beginning to the end."""
    times, keys = [], []
    with _opened(path) as (container, video):
        try:
            for frame in _frames(container, video, None):
                times.append(frame.pts)
                if frame.key_frame:
                    keys.append((frame.pts, frame.dts))
        except _OtherFramesError:
            raise UnreadableVideoError(path, f"damaged stream (frame {len(times)} cannot be decoded)") from None
    if not times:
        raise UnreadableVideoError(path, "it holds no frame that can be decoded")
    rising = None not in times and all(before < after for before, after in pairwise(times))
    if not rising or any(None in key for key in keys):
        return VideoIndex(np.zeros(0, np.int64), np.zeros((0, 2), np.int64), len(times))
    return VideoIndex(np.array(times, np.int64), _sorted(keys), len(times))


def _sorted(keys: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(sorted(keys), np.int64).reshape(-1, 2)


def _display_matrix(frame: Any) -> list[int]:
    """How a player turns and mirrors the frames of a file: ``[x to x, x to y, 0, y to x, y to y]``."""
    told = frame.side_data.get("DISPLAYMATRIX")
    return [1, 0, 0, 0, 1] if told is None else np.frombuffer(bytes(told), np.int32)[:5].tolist()


def _upright(frame: Any, matrix: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels ``uint8 [H, W, 3]`` as a player shows them."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    across_x, down_x, _, across_y, down_y = matrix
    if abs(down_x) > abs(across_x):  # rows become columns
        pixels, across_x, down_y = pixels.transpose(1, 0, 2), across_y, down_x
    return np.ascontiguousarray(pixels[:: -1 if down_y < 0 else 1, :: -1 if across_x < 0 else 1])


class _Clips:
    """Clips of one file, filled frame by frame; see `read_clips`.

    Args:
        first_frames: where they begin.
        frames: T.
        size: H = W, pixels.
        count: frames of the file.

    Attributes:
        clips: each ``uint8 [3, T, size, size]``, in memory of its own.
        span: the frames of the file that are needed.
    """

    def __init__(self, first_frames: Sequence[int], frames: int, size: int, count: int) -> None:
        self._first_frames, self._last = first_frames, count - 1
        self.span = range(min(first_frames), min(max(first_frames) + frames, count))
        self.clips = [torch.empty(3, frames, size, size, dtype=torch.uint8) for _ in first_frames]

    def put(self, frame: int, pixels: NDArray[np.uint8]) -> None:
        """Takes the frame of that number, ``uint8 [H, W, 3]``; the file's last one also fills what lies past it."""
        length, size = self.clips[0].shape[1:3]
        places = [(clip, frame - first) for clip, first in zip(self.clips, self._first_frames, strict=True)]
        places = [(clip, place) for clip, place in places if 0 <= place < length]
        if places:
            small = resize_and_crop(torch.from_numpy(pixels)[None], size)[0]
            for clip, place in places:
                clip[:, place : length if frame == self._last else place + 1] = small[:, None]


def _by_pyav(path: Path, index: VideoIndex, into: _Clips) -> list[int]:
    """Fills clips, turned as a player does; returns how, see `_display_matrix`."""
    matrix: list[int] = []

    def use(position: int, frame: Any) -> None:
        # Of the first frame alone: a frame that was asked is part of a reference cycle, and stays for a while.
        matrix[:] = matrix or _display_matrix(frame)
        into.put(into.span.start + position, _upright(frame, matrix))

    _read(path, index, into.span.start, len(into.span), use)
    return matrix


def _decord_reader(path: Path) -> Any:
    return decord.VideoReader(str(path.absolute()), num_threads=1)


def _by_decord(reader: Any, into: _Clips) -> None:
    for begin in range(0, len(into.span), _BATCH_FRAMES):
        numbers = into.span[begin : begin + _BATCH_FRAMES]
        for number, pixels in zip(numbers, reader.get_batch(numbers).asnumpy(), strict=True):
            into.put(number, pixels)


def read_clips(path: Path, index: VideoIndex, first_frames: Sequence[int], frames: int, size: int) -> list[Tensor]:
    """Several clips of consecutive frames at native rate, all or nothing, read in one go.

    Past the end of the file the last frame is repeated. One frame is held at its native size at a time.

    Args:
        path: the file.
        index: the file's, from `open_video`.
        first_frames: where the clips begin, each in ``0 … index.count - 1``.
        frames: T, frames a clip.
        size: H = W, pixels.

    Returns:
        For each of ``first_frames`` one ``uint8 [3, T, size, size]``, RGB, in memory of its own.

    Raises:
        UnreadableVideoError: the file cannot be opened or a frame cannot be decoded.
    """
    read = _Clips(first_frames, frames, size, index.count)
    if index.decoder == "decord":
        try:
            _by_decord(_decord_reader(path), read)
            return read.clips
        except (decord.DECORDError, RuntimeError, IndexError):
            pass  # PyAV says what is wrong, or can read it
    _by_pyav(path, index, read)
    return read.clips


def first_frame_at(fraction: float, within: range, frames: int) -> int:
    """The first frame of a clip of ``frames`` frames, all starts in ``within`` equally likely for a uniform fraction.

    Where ``within`` is shorter than a clip, the clip begins with its first frame.
    """
    return within.start + int(fraction * max(1, len(within) - frames + 1))
