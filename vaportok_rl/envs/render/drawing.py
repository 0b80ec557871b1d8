"""Pictures of decisions: original | reconstruction | absolute error, the tokens kept, and what each term paid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Frames = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Errors of a good reconstruction are a few grey levels; four times that can be seen.
ERROR_GAIN = 4
# Without a scale, clips are enlarged to at least this height in pixels.
PANEL_HEIGHT = 160

BACKGROUND: Colour = (255, 255, 255)
EMPTY: Colour = (228, 228, 228)
INK: Colour = (32, 32, 32)
FAINT: Colour = (120, 120, 120)
# From Okabe and Ito's palette, which people with any colour vision can tell apart.
TOKENS: Colour = (0, 158, 115)
GAIN: Colour = (0, 114, 178)
LOSS: Colour = (213, 94, 0)

_MARGIN = 10
_COLUMN = 160
_LINE = 20
_BAR = 12
_LABEL = 124
_VALUE = 82
_FONT_SIZE = 12


def to_frames(video: Tensor) -> Frames:
    """Video ``[C, T, H, W]``, uint8 or float in [0, 1], to ``uint8 [T, H, W, C]``."""
    if video.dtype != torch.uint8:
        video = (video.clamp(0, 1) * 255).round().to(torch.uint8)
    return video.permute(1, 2, 3, 0).cpu().numpy()


def render_decision(
    original: Frames,
    reconstruction: Frames | None,
    n_tokens: int | None,
    tokens: int,
    terms: Mapping[str, float],
    *,
    frame: int,
    scale: int | None = None,
) -> Frames:
    """Draws one frame of a decided clip.

    The picture's size depends only on the clip's size, the number of terms and the scale. Both sides are even, as video
    encoders require. Bars of terms are clipped at ±1 with an arrowhead; the value is written beside them.

    Args:
        original: the clip, ``uint8 [T, H, W, 3]``.
        reconstruction: the clip decoded from the tokens kept, of the same shape; None before the first decision.
        n_tokens: how many tokens were kept, 1 … K; None before the first decision.
        tokens: K.
        terms: value by name, drawn in this order; NaN means not known yet and draws no bar.
        frame: which frame of the clip, 0 … T - 1.
        scale: integer zoom factor; by default the smallest that makes the clip at least 160 pixels high.

    Returns:
        ``uint8 [H', W', 3]`` in fresh memory.
    """
    count, height, width = original.shape[:3]
    factor = scale or -(-PANEL_HEIGHT // height)
    titles = ("original", "reconstruction", f"absolute error × {ERROR_GAIN}")
    image = _template(height * factor, width * factor, titles, tuple(terms)).copy()
    draw = ImageDraw.Draw(image)
    column = _column(width * factor)
    _write(draw, _MARGIN + column, _MARGIN + 8, f"{frame + 1}/{count}", colour=FAINT, anchor="rm")

    top = _MARGIN + _LINE + height * factor + _LINE
    label = f"– of {tokens}" if n_tokens is None else f"{n_tokens} of {tokens}"
    right = len(titles) * (column + _MARGIN)
    _write(draw, right, top, label)
    if n_tokens is not None:
        left, end = _MARGIN + _LABEL, right - _VALUE
        # Rounded up: a single token of very many is still seen.
        _bar(draw, left, left + max(1, math.ceil((end - left) * n_tokens / tokens)), top, TOKENS)
    for row, value in enumerate(terms.values()):
        _draw_term(draw, right, top + (row + 2) * _LINE, float(value))

    picture = np.array(image)
    panels = [original[frame]]
    if reconstruction is not None:
        difference = np.abs(original[frame].astype(np.int16) - reconstruction[frame])
        panels += [reconstruction[frame], np.minimum(ERROR_GAIN * difference, 255).astype(np.uint8)]
    for index, panel in enumerate(panels):
        y, x = _MARGIN + _LINE, _MARGIN + index * (column + _MARGIN)
        picture[y : y + height * factor, x : x + width * factor] = panel.repeat(factor, 0).repeat(factor, 1)
    return picture


def tile_frames(frames: Sequence[Frames], columns: int | None = None) -> Frames:
    """Tiles pictures of equal size row by row; both sides of the result are even.

    Args:
        frames: each ``uint8 [H, W, 3]``.
        columns: near-square by default.

    Returns:
        ``uint8 [H', W', 3]``; cells without a picture are white.
    """
    across = columns or math.ceil(math.sqrt(len(frames)))
    down = -(-len(frames) // across)
    height, width = frames[0].shape[:2]
    whole = np.full((_even(down * height), _even(across * width), 3), BACKGROUND, dtype=np.uint8)
    for index, frame in enumerate(frames):
        y, x = index // across * height, index % across * width
        whole[y : y + height, x : x + width] = frame
    return whole


def _even(length: int) -> int:
    return length + length % 2


def _column(panel_width: int) -> int:
    """Width of a column: small clips still leave room for the text."""
    return max(_COLUMN, panel_width)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    # Matplotlib ships this one; Pillow's own lacks most of Unicode, and terms may be named in any alphabet.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), _FONT_SIZE)


@lru_cache(maxsize=16)
def _template(height: int, width: int, titles: tuple[str, ...], names: tuple[str, ...]) -> Image.Image:
    """Parts shared by all pictures of a geometry: titles, empty panels, labels and axes."""
    column = _column(width)
    right = len(titles) * (column + _MARGIN)
    axis_lines = len(names) + 1 if names else 0
    top = _MARGIN + _LINE + height + _LINE
    size = (_even(right + _MARGIN), _even(top + axis_lines * _LINE + _LINE))
    image = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(image)
    for index, title in enumerate(titles):
        x, y = _MARGIN + index * (column + _MARGIN), _MARGIN + _LINE
        _write(draw, x, _MARGIN + 8, title, anchor="lm")
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=EMPTY)

    left, end = _MARGIN + _LABEL, right - _VALUE
    _write(draw, _MARGIN, top, "tokens kept", anchor="lm")
    _bar(draw, left, end, top, EMPTY)
    if names:
        zero = (left + end) // 2
        first, last = top + 2 * _LINE - _BAR, top + (len(names) + 1) * _LINE + _BAR // 2
        for x, text in ((left, "−1"), (zero, "0"), (end - 1, "+1")):
            draw.line((x, first, x, last), fill=EMPTY if text != "0" else FAINT)
            _write(draw, x, top + _LINE - 2, text, colour=FAINT, anchor="mm")
    for row, name in enumerate(names):
        _write(draw, _MARGIN, top + (row + 2) * _LINE, _shorten(name, _LABEL - 20), anchor="lm")
    return image


def _shorten(text: str, width: int) -> str:
    """Cuts a text that is wider than ``width`` pixels and ends it with an ellipsis."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _draw_term(draw: ImageDraw.ImageDraw, right: int, middle: int, value: float) -> None:
    """The bar and the value of one term; ``middle`` is the row's y."""
    if math.isnan(value):
        _write(draw, right, middle, "–")
        return
    text = f"{value:+z.3f}" if abs(value) < 1000 else f"{value:+.3g}"
    _write(draw, right, middle, text.replace("-", "−"))
    left, end = _MARGIN + _LABEL, right - _VALUE
    zero = (left + end) // 2
    reach = zero - left
    length = round(reach * min(abs(value), 1.0))
    colour = GAIN if value > 0 else LOSS
    sign = 1 if value > 0 else -1
    if length:
        _bar(draw, *((zero + 1, zero + 1 + length) if sign > 0 else (zero - length, zero)), middle, colour)
    if abs(value) > 1:
        tip, half = zero + sign * (reach + 8), _BAR // 2
        base = zero + sign * (reach + 2)
        draw.polygon([(base, middle - half), (base, middle + half - 1), (tip, middle)], fill=colour)


def _bar(draw: ImageDraw.ImageDraw, left: int, end: int, middle: int, colour: Colour) -> None:
    """Fills the columns ``left … end - 1`` around ``middle``."""
    draw.rectangle((left, middle - _BAR // 2, end - 1, middle + _BAR // 2 - 1), fill=colour)


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, *, colour: Colour = INK, anchor: str = "rm") -> None:
    draw.text((x, y), text, fill=colour, font=_font(), anchor=anchor)
