"""Endless procedural video: labelled families with adjustable spatial and temporal complexity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.clips.procedural.draws import Draws, clip_keys
from vaportok_rl.clips.procedural.families import FAMILIES, STRENGTHS
from vaportok_rl.clips.procedural.motion import camera_grid, draw_sprites
from vaportok_rl.clips.procedural.textures import TEXTURES, cells, clouds
from vaportok_rl.clips.source import ClipBatch, ClipOrigin, ClipSource, check_split
from vaportok_rl.runtime.declared import checked

Range = tuple[float, float]

# Increase it when the same settings draw other pixels, so that no run is resumed on them by mistake.
_VERSION = 1

# The canvas is this much wider than the frame, so that the camera can move.
_CANVAS = 2
# Clips rendered together: small groups fit the processor's cache.
_GROUP = 32
# Steps of the two-dimensional low-discrepancy sequence R2 (Roberts 2018): the powers of 1/plastic number.
_R2 = (0.7548776662466927, 0.5698402909980532)


def _soften(canvas: Tensor) -> Tensor:
    """A 3×3 binomial blur, mirrored at the border: ``[B, C, S, S]`` to the same shape."""
    for axis in (2, 3):
        size = canvas.shape[axis]
        before = torch.cat([canvas.narrow(axis, 0, 1), canvas.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([canvas.narrow(axis, 1, size - 1), canvas.narrow(axis, size - 1, 1)], axis)
        canvas = 0.5 * canvas + 0.25 * (before + after)
    return canvas


def _check_range(name: str, value: Sequence[float]) -> Range:
    """Returns a knob's range if it is one."""
    ends = tuple(value)
    if len(ends) != 2 or not 0.0 <= ends[0] <= ends[1] <= 1.0:
        raise ValueError(
            f"Expected {name} to be (low, high) with 0 ≤ low ≤ high ≤ 1, got {value}; pass equal ends to pin it."
        )
    return float(ends[0]), float(ends[1])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Uses one torch thread: the split into threads changes the last bit of a sine, and so, rarely, a pixel."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class ProceduralClips(ClipSource):
    """Clips of labelled families (`families.FAMILIES`), spread evenly over spatial and temporal complexity.

    Clip ``i`` is a pure function of ``(seed, split, i)`` and the settings below; no file is involved. The two
    complexities follow a low-discrepancy sequence, so consecutive clips cover both ranges evenly.

    Args:
        seed: of all clips.
        split: ``"train"`` or ``"test"``, which share no clip.
        frames: T, frames per clip.
        size: H = W, pixels.
        families: names of families; all by default.
        spatial: range of spatial complexity within [0, 1], from flat to busy; equal ends fix it.
        temporal: range of temporal complexity within [0, 1], from still to fast.
        length: number of clips.

    Raises:
        ValueError: an argument is out of range or a family is unknown.
    """

    @checked
    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        *,
        frames: int = 16,
        size: int = 32,
        families: Sequence[str] | None = None,
        spatial: Sequence[float] = (0.0, 1.0),
        temporal: Sequence[float] = (0.0, 1.0),
        length: int = 1_000_000,
    ) -> None:
        if frames < 1 or size < 4 or length < 1:
            raise ValueError(
                f"Expected frames ≥ 1, size ≥ 4 and length ≥ 1, got frames={frames}, size={size}, length={length}; "
                "the nano world uses frames=16, size=32."
            )
        self.spatial = _check_range("spatial", spatial)
        self.temporal = _check_range("temporal", temporal)
        known = tuple(family.name for family in FAMILIES)
        if families is not None and (isinstance(families, str) or not len(families)):
            raise ValueError(
                f"Expected families to be a sequence of at least one name, got {families!r}; "
                "pass a list, or None for all of them."
            )
        for wanted in families or ():
            if wanted not in known:
                raise ValueError(f"Expected families among {', '.join(known)}; got {wanted!r}; correct the name.")
        self.seed = int(seed)
        self.split = check_split(split)
        self.frames = frames
        self.size = size
        self.label_names = known
        self._families = torch.tensor([known.index(name) for name in families or known])
        self._length = length

    def __len__(self) -> int:
        return self._length

    def describe(self) -> str:
        """One line: number of families, restricted ranges, split and seed."""
        knobs = {"spatial": self.spatial, "temporal": self.temporal}
        pinned = "".join(f"{name} {low:g}-{high:g}, " for name, (low, high) in knobs.items() if (low, high) != (0, 1))
        return (
            f"procedural clips, {len(self._families)} families, {pinned}split {self.split!r}, seed {self.seed}, "
            f"{self.frames}x{self.size}x{self.size}"
        )

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Renders the clips at ``indices``; see `ClipSource.batch`."""
        listed = np.asarray(self.check_indices(indices), dtype=np.int64)
        draws = Draws(clip_keys(self.seed, self.split, listed))
        labels = self._labels(draws)
        spatial, temporal = self.complexity_of(listed.tolist())
        clips = torch.empty(len(listed), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        with _one_thread():
            for start in range(0, len(listed), _GROUP):
                rows = torch.arange(start, min(start + _GROUP, len(listed)))
                clips[rows] = self._render(draws.rows(rows), labels[rows], spatial[rows], temporal[rows])
        return ClipBatch(clips, labels, torch.from_numpy(listed))

    def _labels(self, draws: Draws) -> Tensor:
        return self._families[draws.choice("family", len(self._families))]

    def origin(self, index: int) -> ClipOrigin:
        """The family of the clip at ``index``, without rendering it."""
        listed = np.asarray(self.check_indices([index]), dtype=np.int64)
        label = self._labels(Draws(clip_keys(self.seed, self.split, listed)))
        return ClipOrigin("", 0, self.label_names[int(label)])

    def _content(self) -> object:
        return [_VERSION, self.seed, self._families.tolist(), self.spatial, self.temporal]

    def complexity_of(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Spatial and temporal complexity of the clips at ``indices``, each ``float32 [B]``."""
        start = Draws(clip_keys(self.seed, self.split, np.array([-1]))).uniform("knobs", 2)[0].double()
        steps = torch.tensor(indices, dtype=torch.float64)[:, None] * torch.tensor(_R2, dtype=torch.float64)
        knobs = torch.remainder(steps + start, 1.0).float()
        (low_s, high_s), (low_t, high_t) = self.spatial, self.temporal
        return low_s + (high_s - low_s) * knobs[:, 0], low_t + (high_t - low_t) * knobs[:, 1]

    def _canvases(self, draws: Draws, labels: Tensor, spatial: Tensor, options: list[tuple[str, ...]]) -> Tensor:
        """One canvas per clip, with a random texture of its family: ``float32 [B, 3, S, S]``."""
        size = self.size * _CANVAS
        names = list(TEXTURES)
        picks = draws.uniform("texture").tolist()
        kinds = torch.tensor(
            [
                names.index(options[label][int(pick * len(options[label]))])
                for label, pick in zip(labels.tolist(), picks, strict=True)
            ]
        )
        canvas = torch.empty(len(draws), 3, size, size)
        for kind, name in enumerate(names):
            rows = (kinds == kind).nonzero().flatten()
            if len(rows):
                canvas[rows] = TEXTURES[name](draws.rows(rows), size, spatial[rows])
        # A lens and the resize soften the edges of real footage, more or less.
        return canvas + draws.uniform("softness")[:, None, None, None] * (_soften(canvas) - canvas)

    def _render(self, draws: Draws, labels: Tensor, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Renders one group: ``uint8 [B, 3, T, H, W]``."""
        table = torch.tensor([[float(getattr(family, name)) for name in STRENGTHS] for family in FAMILIES])
        strengths = dict(zip(STRENGTHS, table[labels].unbind(1), strict=True))
        # Squaring makes slow motion as frequent as in footage; temporal = 1 stays fast.
        tempo = temporal.square() * 0.85 + temporal * 0.15
        moving = {name: strengths[name] * tempo for name in STRENGTHS if name != "sprites"}

        canvas = self._canvases(draws, labels, spatial, [family.textures for family in FAMILIES])
        video = self._look(canvas, camera_grid(draws, "camera", self.frames, self.size, moving))
        video = self._second_layer(draws, video, spatial, tempo, strengths, moving)
        rows = (strengths["sprites"] > 0).nonzero().flatten()
        if len(rows):
            count = (strengths["sprites"][rows] * (0.2 + 0.8 * spatial[rows])).ceil()
            video[rows] = draw_sprites(
                draws.rows(rows), video[rows], count, moving["sprite_speed"][rows], spatial[rows]
            )
        video = self._illuminate(draws, video, spatial, moving)
        rows = (strengths["noise"] > 0).nonzero().flatten()
        if len(rows):
            video[rows] += self._noise(draws.rows(rows), spatial[rows], tempo[rows])
        return (video.clamp_(0, 1) * 255).round_().to(torch.uint8)

    def _look(self, canvas: Tensor, grid: Tensor) -> Tensor:
        """Samples a canvas ``[B, C, S, S]`` along a camera path: ``float32 [B, C, T, H, W]``."""
        batch, frames = grid.shape[:2]
        flat = grid.reshape(batch, frames * self.size, self.size, 2) / _CANVAS
        seen = F.grid_sample(canvas, flat, mode="bilinear", padding_mode="reflection", align_corners=False)
        return seen.reshape(batch, -1, frames, self.size, self.size)

    def _second_layer(
        self,
        draws: Draws,
        video: Tensor,
        spatial: Tensor,
        tempo: Tensor,
        strengths: dict[str, Tensor],
        moving: dict[str, Tensor],
    ) -> Tensor:
        """Adds the effects of a second canvas: scene cuts, morphing and a parallax layer in front."""
        rows = ((strengths["cut"] + strengths["morph"] + strengths["parallax"]) > 0).nonzero().flatten()
        if not len(rows):
            return video
        draws, tempo = draws.rows(rows), tempo[rows]
        other = clouds(draws, self.size * _CANVAS, spatial[rows], name="second")
        flat = ((draws.uniform("second/cells") < 0.5) & (strengths["morph"][rows] == 0)).nonzero().flatten()
        if len(flat):
            other[flat] = cells(draws.rows(flat), self.size * _CANVAS, spatial[rows[flat]])
        shape = clouds(draws, self.size * _CANVAS, torch.zeros(len(rows)), name="mask").mean(1, keepdim=True)
        motion = {name: moving[name][rows] for name in ("pan", "zoom", "rotate", "shake", "wave")}
        motion["pan"] = motion["pan"] * (1 + strengths["parallax"][rows])
        seen = self._look(torch.cat([other, shape], 1), camera_grid(draws, "second", self.frames, self.size, motion))
        second, front = seen[:, :3], (seen[:, 3:] * 6).sigmoid()

        clock = torch.arange(self.frames, dtype=torch.float32)
        cut_at = draws.between("second/cut", 0.2, 0.8) * self.frames
        cut_here = (draws.uniform("second/whether") < moving["cut"][rows].sqrt()).float()
        cut = (clock >= cut_at[:, None]).float() * cut_here[:, None]
        angle = moving["morph"][rows][:, None] * clock
        morph = (strengths["morph"][rows] > 0).float()[:, None]
        keep = torch.cos(angle) * morph + (1 - cut) * (1 - morph)
        take = torch.sin(angle) * morph + cut * (1 - morph)
        keep, take = keep[:, None, :, None, None], take[:, None, :, None, None]
        layered = (strengths["parallax"][rows] > 0).float()[:, None, None, None, None] * front
        first = video[rows]
        mixed = keep * first + take * second
        video[rows] = mixed + layered * (second - mixed)
        return video

    def _illuminate(self, draws: Draws, video: Tensor, spatial: Tensor, moving: dict[str, Tensor]) -> Tensor:
        """Sets mean colour and contrast, and changes the light over time."""
        contrast = draws.between("contrast", 0.05, 0.20 + 0.16 * spatial)
        brightness = draws.between("brightness", 0.2, 0.75)
        tint = draws.normal("tint", 3) * 0.05
        clock = torch.linspace(0, 1, self.frames)
        beats = draws.between("flicker/beats", 1.0, 7.0)[:, None]
        wave = torch.sin(2 * torch.pi * (beats * clock + draws.uniform("flicker/phase")[:, None]))
        jumps = draws.uniform("flicker/jumps", self.frames) * 2 - 1
        sudden = (draws.uniform("flicker/sudden") < 0.4).float()[:, None]
        light = 1 + moving["flicker"][:, None] * (wave * (1 - sudden) + jumps * sudden)
        ramp = (clock - 0.5) * (draws.choice("fade/direction", 2)[:, None] * 2 - 1)
        light = light * (1 + moving["fade"][:, None] * ramp)
        base = (brightness[:, None] + tint)[:, :, None, None, None]
        return (base + contrast[:, None, None, None, None] * video) * light[:, None, :, None, None]

    def _noise(self, draws: Draws, spatial: Tensor, tempo: Tensor) -> Tensor:
        """White noise, from frozen (temporal 0) to renewed at each frame: ``float32 [B, 1, T, H, W]``."""
        frozen = draws.uniform("noise/frozen", 1, 1, self.size, self.size) - 0.5
        fresh = draws.uniform("noise/fresh", 1, self.frames, self.size, self.size) - 0.5
        angle = (tempo * torch.pi / 2)[:, None, None, None, None]
        strength = (0.02 + 0.3 * spatial)[:, None, None, None, None]
        return strength * (torch.cos(angle) * frozen + torch.sin(angle) * fresh)
