"""Reads frames of one video file by number in presentation order, exactly in every container, at clip size."""

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

# Decoding starts this many key frames back; where that fails, at the beginning of the file.
_KEYS_BACK = (1, 2, 4)

# decord is faster on small pictures, but keeps the frames it decodes on its way to a clip: maximum bytes per file.
_DECORD_BYTES = 96 * 2**20
# Evenly spaced clips of a file that decord and PyAV must read identically.
_PROBES = 4
# H = W, pixels, at which they are compared.
_PROBE_SIZE = 32
# Frames, at native size, per call of decord.
_BATCH_FRAMES = 16

# Lost frames of a container leave a time step longer than the median step by this factor. Frames shown up to this many
# places before the gap, and all from there to the next key frame, may depend on the lost ones.
_GAP, _REORDERED = 1.5, 16

# Tells containers and decoders to report damage rather than conceal it.
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
    """The decoded frames are damaged or not the requested ones; an earlier start may give them."""


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
    # The longer side rounds down, as in the torchvision transforms of LARP's protocol.
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
    """The frame times of a file, measured when it is first opened.

    Attributes:
        times: presentation time of each shown frame, ``int64 [N]``, ascending, in the stream's unit. Empty if the file
            does not give times; frames are then counted from the beginning.
        keys: presentation and decoding time of the key frames, ``int64 [M, 2]``.
        count: N, frames.
        holes: for each gap left by lost frames of a damaged container, the number of the first frame after it.
        plain: whether the frame number is enough to find a frame: no edit list hides frames, none is rotated or
            mirrored, none depends on frames before its key frame, none was lost, and all together are small.
        decoder: ``"decord"`` if its probed clips equal those of ``"PyAV"``, which reads all other files.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    count: int
    holes: tuple[int, ...] = ()
    plain: bool = False
    decoder: str = "PyAV"

    @property
    def access(self) -> str:
        """How a frame is found: ``"seeks"``, or ``"counts"`` from the beginning of the file."""
        return "seeks" if len(self.times) else "counts"

    def key_before(self, frame: int, back: int) -> tuple[int, int] | None:
        """Times of the key frame ``back`` places at or before a frame; None for the beginning of the file.

        Frames shown after a key frame do not depend on frames before it. Frames stored after it but shown before it (an
        open group of pictures) may; they need an earlier key frame.
        """
        position = int(np.searchsorted(self.keys[:, 0], self.times[frame], side="right")) - back
        return None if position <= 0 else (int(self.keys[position, 0]), int(self.keys[position, 1]))

    def is_whole(self, key: tuple[int, int] | None, last: int) -> bool:
        """Whether no lost frame matters to the frames from a key frame (None: the beginning) to frame ``last``."""
        begin = 0 if key is None else int(np.searchsorted(self.times, key[0]))
        return not any(begin < hole <= last + _REORDERED for hole in self.holes)


@contextlib.contextmanager
def _complaints() -> Iterator[list[tuple[int, str, str]]]:
    """Collects the warnings of ffmpeg's libraries in this thread: level, component and message."""
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
    """Container and video stream of a file; the library's errors become `UnreadableVideoError`."""
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
            # One decoding thread: callers use more cores by reading several files at once, in processes.
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
        _OtherFramesError: the seek missed the key frame, or a frame is damaged or depends on frames before the key
            frame. Frames stored after the key frame but shown before it do not count.
    """
    if key is not None:
        container.seek(key[1], stream=video)
    begun = key is None
    for packet in container.demux(video):
        if not begun:
            # A seek may end between key frames; what follows could not be decoded.
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
    """Calls ``use(k, frame)`` for the frames ``first + k``; for all of them again after each earlier start.

    Raises:
        UnreadableVideoError: the frames cannot be decoded.
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
    """Measures the frame times of a file and checks them by decoding its first and last clip.

    If these two clips hold the frames that the container's presentation times promise, the times are used. If not, the
    whole file is decoded once. Its frames' own times are used if they are ascending; otherwise every read counts frames
    from the beginning.

    Args:
        path: the file.
        frames: T, frames per clip.

    Returns:
        Its index, with at least one frame.

    Raises:
        UnreadableVideoError: the file cannot be opened, is truncated, or one of the two clips is damaged.
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
    """Whether decord and PyAV decode the same bits, probed on clips spread evenly over a plain file."""
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
    """The index from the container's packets, without decoding."""
    with _complaints() as told, _opened(path) as (container, video):
        packets = [packet for packet in container.demux(video) if packet.size]
        # This family lists every frame; the count in other containers is a guess.
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
    """The index from decoding the whole file."""
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
    """How a player rotates and mirrors the frames: ``[x to x, x to y, 0, y to x, y to y]``."""
    told = frame.side_data.get("DISPLAYMATRIX")
    return [1, 0, 0, 0, 1] if told is None else np.frombuffer(bytes(told), np.int32)[:5].tolist()


def _upright(frame: Any, matrix: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels as a player shows them, ``uint8 [H, W, 3]``."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    across_x, down_x, _, across_y, down_y = matrix
    if abs(down_x) > abs(across_x):  # rows become columns
        pixels, across_x, down_y = pixels.transpose(1, 0, 2), across_y, down_x
    return np.ascontiguousarray(pixels[:: -1 if down_y < 0 else 1, :: -1 if across_x < 0 else 1])


class _Clips:
    """Clips of one file, filled frame by frame; see `read_clips`.

    Args:
        first_frames: first frame of each clip.
        frames: T.
        size: H = W, pixels.
        count: frames in the file.

    Attributes:
        clips: each ``uint8 [3, T, size, size]``, in memory of its own.
        span: range of frames to decode.
    """

    def __init__(self, first_frames: Sequence[int], frames: int, size: int, count: int) -> None:
        self._first_frames, self._last = first_frames, count - 1
        self.span = range(min(first_frames), min(max(first_frames) + frames, count))
        self.clips = [torch.empty(3, frames, size, size, dtype=torch.uint8) for _ in first_frames]

    def put(self, frame: int, pixels: NDArray[np.uint8]) -> None:
        """Takes frame ``frame``, ``uint8 [H, W, 3]``; the last frame of the file also fills the places past it."""
        length, size = self.clips[0].shape[1:3]
        places = [(clip, frame - first) for clip, first in zip(self.clips, self._first_frames, strict=True)]
        places = [(clip, place) for clip, place in places if 0 <= place < length]
        if places:
            small = resize_and_crop(torch.from_numpy(pixels)[None], size)[0]
            for clip, place in places:
                clip[:, place : length if frame == self._last else place + 1] = small[:, None]


def _by_pyav(path: Path, index: VideoIndex, into: _Clips) -> list[int]:
    """Fills clips, rotated as in a player; returns the `_display_matrix`."""
    matrix: list[int] = []

    def use(position: int, frame: Any) -> None:
        # Only the first frame is asked: asking puts a frame into a reference cycle, which keeps it in memory.
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
    """Reads several clips of consecutive frames at native rate in one pass, all or none.

    Past the end of the file the last frame is repeated. Only one frame at native size is in memory at a time.

    Args:
        path: the file.
        index: of the file, from `open_video`.
        first_frames: first frame of each clip, in ``0 … index.count - 1``.
        frames: T, frames per clip.
        size: H = W, pixels.

    Returns:
        For each of ``first_frames`` one ``uint8 [3, T, size, size]``, RGB, in new memory.

    Raises:
        UnreadableVideoError: the file cannot be opened or a frame cannot be decoded.
    """
    read = _Clips(first_frames, frames, size, index.count)
    if index.decoder == "decord":
        try:
            _by_decord(_decord_reader(path), read)
            return read.clips
        except (decord.DECORDError, RuntimeError, IndexError):
            pass  # PyAV can read it, or says what is wrong
    _by_pyav(path, index, read)
    return read.clips


def first_frame_at(fraction: float, within: range, frames: int) -> int:
    """The first frame of a clip of ``frames`` frames; a uniform fraction makes all starts in ``within`` equally likely.

    If ``within`` is shorter than a clip, the clip begins with its first frame.
    """
    return within.start + int(fraction * max(1, len(within) - frames + 1))
