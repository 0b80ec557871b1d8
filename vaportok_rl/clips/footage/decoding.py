"""Frames of one video file, read through decord and brought to clip size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vaportok_rl.clips.footage.decord_library import decord

Result = TypeVar("Result")

# Decoded frames held at their native size at any one time; the float copy for the resize is four times that.
_CHUNK_BYTES = 4 * 2**20

# Measured on decord 0.6: after a seek in .avi, .wmv, .mpg and .mpeg files the frames that come back can be a
# dozen (once two hundred) away from the ones asked for. Files of these kinds are read forwards only.
_EXACT_SEEK_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".flv", ".3gp"})

# Decord's worker thread runs some thirty frames ahead, so damage *behind* the frames asked for raises or does
# not raise depending on timing. A reading fails only if it fails this often in a row.
_ATTEMPTS = 3

_PLAIN_REASONS = (
    ("cannot find video stream", "no video stream that decord can decode (unsupported codec, or no pictures at all)"),
    ("Error reading", "not a video that decord can open, or cut off before its index"),
    ("av_read_frame failed", "the file ends before its last frame (truncated)"),
    ("Error sending packet", "damaged stream (the decoder refused a packet)"),
    ("Failed to measure duration", "the number of frames cannot be determined (broken or missing metadata)"),
)


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


def plain_reason(error: BaseException) -> str:
    """What went wrong inside decord in one readable line: no time stamps, C++ files or conditions."""
    text = str(error)
    for mark, reason in _PLAIN_REASONS:
        if mark in text:
            return reason
    text = re.sub(r"\[\d+:\d+:\d+\]\s+\S+:\d+:", " ", text)
    text = re.sub(r"Check failed:.*?\([^()]* vs\. [^()]*\)", " ", text)
    text = " ".join(text.split()).strip(" .:")
    return text or type(error).__name__


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


class VideoFile:
    """One open video file. Cheap to throw away; not picklable, so nothing should keep it.

    Args:
        path: the file.

    Raises:
        UnreadableVideoError: the file is missing, empty, or nothing decord can open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Absolute, or ffmpeg would take a file called "a:b.mp4" for a protocol.
        self._uri = str(path.absolute())
        self._open()

    def _open(self) -> None:
        try:
            with self.path.open("rb") as stream:
                empty = not stream.read(1)
        except OSError as error:
            raise UnreadableVideoError(self.path, error.strerror or type(error).__name__) from error
        if empty:
            raise UnreadableVideoError(self.path, "the file is empty (0 bytes)")
        try:
            # One decoding thread: callers that want more cores read several files at once, in processes.
            self._reader = decord.VideoReader(self._uri, ctx=decord.cpu(0), num_threads=1)
        except Exception as error:
            raise UnreadableVideoError(self.path, plain_reason(error)) from error
        self._next_frame = 0

    def __len__(self) -> int:
        """The number of frames at native rate."""
        return len(self._reader)

    def _read(self, first_frame: int, count: int) -> Tensor:
        """Frames ``first_frame … first_frame + count - 1`` as ``uint8 [count, H, W, 3]``, seeking if need be."""
        try:
            block = self._reader.get_batch(range(first_frame, first_frame + count))
            # A program that called decord.bridge.set_bridge gets that framework's arrays here too.
            frames = torch.from_numpy(block.asnumpy()) if hasattr(block, "asnumpy") else torch.as_tensor(block)
        except Exception as error:
            raise UnreadableVideoError(self.path, plain_reason(error)) from error
        self._next_frame = first_frame + count
        return frames

    def _blocks(self, first_frame: int, count: int) -> Iterator[Tensor]:
        """The same frames piece by piece, so that few are in memory at native size."""
        end, step = first_frame + count, 1  # how large a frame is shows only once one has been decoded
        while first_frame < end:
            block = self._read(first_frame, min(step, end - first_frame))
            step = max(1, _CHUNK_BYTES // block[0].numel())
            first_frame += len(block)
            yield block

    def clip(self, first_frame: int, frames: int, size: int) -> Tensor:
        """Consecutive frames at native rate; past the end of the file the last frame is repeated.

        Args:
            first_frame: index of the clip's first frame in the file, ``0 … len(self) - 1``.
            frames: T, frames the clip has.
            size: H = W, pixels.

        Returns:
            ``uint8 [3, T, size, size]``, RGB, in memory of its own.

        Raises:
            UnreadableVideoError: a frame cannot be decoded, or the file no longer holds ``first_frame``.
        """
        available = min(frames, len(self) - first_frame)
        if available < 1:
            raise UnreadableVideoError(self.path, f"frame {first_frame} asked for, but it now has {len(self)} frames")
        if self.path.suffix.lower() not in _EXACT_SEEK_SUFFIXES:
            if first_frame < self._next_frame:
                self._open()
            for _ in self._blocks(self._next_frame, first_frame - self._next_frame):
                pass
        clip = torch.empty(3, frames, size, size, dtype=torch.uint8)
        done = 0
        for block in self._blocks(first_frame, available):
            clip[:, done : done + len(block)] = resize_and_crop(block, size).transpose(0, 1)
            done += len(block)
        clip[:, available:] = clip[:, available - 1 : available]
        return clip

    def touch(self, first_frame: int, frames: int) -> None:
        """Decodes frames (as many as the file has) only to see whether they can be decoded.

        The frames may be a little off where seeks are inexact: reading all that comes before them would make
        opening a large collection as slow as decoding it.

        Raises:
            UnreadableVideoError: they cannot.
        """
        for _ in self._blocks(first_frame, min(frames, len(self) - first_frame)):
            pass


def _read(path: Path, reading: Callable[[VideoFile], Result]) -> Result:
    """Opens a file and reads from it, more than once if need be (see ``_ATTEMPTS``)."""
    video = VideoFile(path)
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            return reading(video)
        except UnreadableVideoError:
            if not attempts_left:
                raise
            video = VideoFile(path)  # after an error a decord reader only repeats that error
    raise AssertionError("unreachable: the last attempt returns or raises")


def probe(path: Path, frames: int) -> int:
    """Opens a file, decodes its first and its last clip, and counts its frames.

    Args:
        path: the file.
        frames: T, frames a clip.

    Returns:
        The number of frames in the file, at least 1.

    Raises:
        UnreadableVideoError: the file cannot be opened, or its first or last clip cannot be decoded.
    """

    def touch_both_ends(video: VideoFile) -> int:
        for first_frame in sorted({0, max(0, len(video) // frames - 1) * frames}):
            video.touch(first_frame, frames)
        return len(video)

    return _read(path, touch_both_ends)


def read_clips(path: Path, first_frames: Sequence[int], frames: int, size: int) -> list[Tensor]:
    """Several clips of one file, all or nothing.

    All or nothing because decord reports damage somewhat before the frame that is damaged, and how much before
    depends on timing: which single clips survive would differ from run to run.

    Args:
        path: the file.
        first_frames: where the clips begin, ascending (the file is then read forwards once).
        frames: T, frames a clip.
        size: H = W, pixels.

    Returns:
        For each of ``first_frames`` one ``uint8 [3, T, size, size]``, each in memory of its own.

    Raises:
        UnreadableVideoError: the file cannot be opened or one of the clips cannot be decoded.
    """
    return _read(path, lambda video: [video.clip(first_frame, frames, size) for first_frame in first_frames])


def read_clip_at(path: Path, fraction: float, frames: int, size: int, within: range | None = None) -> Tensor:
    """One clip from anywhere in a file whose length need not be known; see `first_frame_at`.

    Args:
        path: the file.
        fraction: which of the possible starts, in [0, 1).
        frames: T, frames the clip has.
        size: H = W, pixels.
        within: the frames to choose from; all by default.

    Returns:
        ``uint8 [3, T, size, size]``.

    Raises:
        UnreadableVideoError: the file cannot be opened or the clip cannot be decoded.
    """

    def clip_at(video: VideoFile) -> Tensor:
        return video.clip(first_frame_at(fraction, within or range(len(video)), frames), frames, size)

    return _read(path, clip_at)


def first_frame_at(fraction: float, within: range, frames: int) -> int:
    """The first frame of a clip of ``frames`` frames, all starts in ``within`` equally likely for a uniform fraction.

    Where ``within`` is shorter than a clip, the clip begins with its first frame.
    """
    return within.start + int(fraction * max(1, len(within) - frames + 1))
