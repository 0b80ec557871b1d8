"""Canvases of procedural clips: still pictures with natural statistics, over which the camera moves.

All functions are vectorised over clips and return ``float32 [B, 3, S, S]`` with mean about 0 and standard deviation
about 1; contrast and mean colour come later. Natural images have an amplitude spectrum close to 1/f (Field, JOSA A
1987) and the occlusion statistics of the dead-leaves model (Lee, Mumford and Huang, IJCV 2001).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaportok_rl.clips.procedural.draws import Draws

_LEAVES = 52


def coloured(draws: Draws, name: str, *shape: int) -> Tensor:
    """Random colours whose variation is mostly brightness, as in natural images.

    Returns:
        ``float32 [B, *shape, 3]``: a brightness of standard deviation 1, plus warm-cool and green-magenta deviations
        with one strength per clip.
    """
    brightness = draws.normal(f"{name}/brightness", *shape)
    warm = draws.normal(f"{name}/warm", *shape)
    green = draws.normal(f"{name}/green", *shape)
    strength = (draws.uniform(f"{name}/saturation") ** 2).reshape(-1, *[1] * len(shape))
    warm, green = warm * strength, green * strength * 0.5
    return torch.stack([brightness + warm, brightness + green, brightness - warm], dim=-1)


def coordinates(size: int) -> tuple[Tensor, Tensor]:
    """``(y, x)``, each ``float32 [S, S]``, pixel centres in (-1, 1)."""
    line = (torch.arange(size, dtype=torch.float32) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def gradients(draws: Draws, size: int, detail: Tensor) -> Tensor:
    """Smooth colour ramps, linear and radial; ``detail [B]`` in [0, 1] adds bands."""
    y, x = coordinates(size)
    angle = draws.between("gradient/angle", 0.0, 2 * math.pi)[:, None, None]
    centre = draws.between("gradient/centre", -0.6, 0.6, 2)
    linear = torch.cos(angle) * x + torch.sin(angle) * y
    radial = torch.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None]) * 1.4 - 0.8
    share = (draws.uniform("gradient/radial") < 0.5).float()[:, None, None]
    ramp = linear * (1 - share) + radial * share
    bands = torch.sin(ramp * (math.pi * (1 + 5 * detail))[:, None, None])
    first, second = coloured(draws, "gradient/first"), coloured(draws, "gradient/second")
    return ramp[:, None] * first[:, :, None, None] + 0.7 * bands[:, None] * second[:, :, None, None]


def clouds(draws: Draws, size: int, detail: Tensor, name: str = "clouds") -> Tensor:
    """Noise with amplitude spectrum ``1/f^a``; ``detail [B]`` moves a from 2 (soft) to 0.9 (busy)."""
    white = draws.uniform(f"{name}/white", 3, size, size) - 0.5
    # Brightness dominates: two weak chroma planes and a strong brightness plane.
    strength = (draws.uniform(f"{name}/saturation") ** 2 * 0.8)[:, None, None]
    exponent = 2.0 - 1.1 * detail
    fy = torch.fft.fftfreq(size)[:, None] * size
    fx = torch.fft.rfftfreq(size)[None, :] * size
    radius = torch.hypot(fy, fx).clamp_(min=1.0)
    gain = torch.exp(-exponent[:, None, None] * torch.log(radius))
    gain[:, 0, 0] = 0
    planes = torch.fft.irfft2(torch.fft.rfft2(white) * gain[:, None], s=(size, size))
    planes = planes / planes.square().mean((-2, -1), keepdim=True).add(1e-12).sqrt()
    brightness, warm, green = planes.unbind(1)
    warm, green = warm * strength, green * strength * 0.5
    return torch.stack([brightness + warm, brightness + green, brightness - warm], dim=1)


def dead_leaves(draws: Draws, size: int, detail: Tensor) -> Tensor:
    """Discs and rectangles that hide each other, radii by a power law; ``detail [B]`` adds small ones."""
    y, x = coordinates(size)
    smallest = (0.45 - 0.30 * detail)[:, None]
    largest = 0.9
    u = draws.uniform("leaves/radius", _LEAVES)
    # Inverse of the cumulative distribution of p(r) ~ r^-3 on [smallest, largest].
    radius = (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5
    position = draws.between("leaves/position", -1.1, 1.1, _LEAVES, 2)
    angle = draws.between("leaves/angle", 0.0, math.pi, _LEAVES)
    aspect = draws.between("leaves/aspect", 0.35, 1.0, _LEAVES)
    boxes = draws.uniform("leaves/box", _LEAVES) < draws.uniform("leaves/share")[:, None]
    colours = coloured(draws, "leaves/colour", _LEAVES)
    shade = draws.between("leaves/shade", -0.8, 0.8, _LEAVES)
    # Coordinates along and across a leaf, in units of its half axes, are affine in (x, y): two multiplications each.
    along_x, along_y = torch.cos(angle) / radius, torch.sin(angle) / radius
    across_x, across_y = -along_y / aspect, along_x / aspect
    along_0 = along_x * position[..., 0] + along_y * position[..., 1]
    across_0 = across_x * position[..., 0] + across_y * position[..., 1]
    canvas = coloured(draws, "leaves/ground")[:, :, None, None].expand(-1, -1, size, size).clone()
    for leaf in range(_LEAVES):
        pick = (slice(None), leaf, None, None)
        along = x * along_x[pick] + (y[:, :1] * along_y[pick] - along_0[pick])
        across = x * across_x[pick] + (y[:, :1] * across_y[pick] - across_0[pick])
        # Squares have the same border at 1 as the distances themselves, without a root.
        along_2, across_2 = along * along, across * across
        distance = torch.where(boxes[pick], torch.maximum(along_2, across_2), along_2 + across_2)
        paint = colours[:, leaf, :, None, None] + (along * shade[pick])[:, None]
        canvas = torch.where((distance < 1)[:, None], paint, canvas)
    return canvas


def stripes(draws: Draws, size: int, detail: Tensor) -> Tensor:
    """Gratings and plaids from soft waves to hard bars; ``detail [B]`` raises the frequency."""
    y, x = coordinates(size)
    pattern = torch.zeros(len(draws), size, size)
    for wave in range(2):
        angle = draws.between(f"stripes/angle{wave}", 0.0, math.pi)[:, None, None]
        cycles = (1.5 + 8.5 * detail * draws.between(f"stripes/cycles{wave}", 0.5, 1.0))[:, None, None]
        phase = draws.between(f"stripes/phase{wave}", 0.0, 2 * math.pi)[:, None, None]
        wanted = 1.0 if wave == 0 else (draws.uniform("stripes/plaid") < 0.5).float()[:, None, None]
        pattern = pattern + wanted * torch.sin((torch.cos(angle) * x + torch.sin(angle) * y) * math.pi * cycles + phase)
    hardness = draws.between("stripes/hardness", 0.5, 5.0)[:, None, None]
    pattern = torch.tanh(pattern * hardness)
    first, second = coloured(draws, "stripes/first"), coloured(draws, "stripes/second")
    return pattern[:, None] * first[:, :, None, None] + 0.3 * y * second[:, :, None, None]


def cells(draws: Draws, size: int, detail: Tensor) -> Tensor:
    """Voronoi cells: flat regions with straight borders; ``detail [B]`` moves from 4 cells to 20."""
    y, x = coordinates(size)
    most = 20
    count = (4 + detail * (most - 4)).round().long()
    position = draws.between("cells/position", -1.0, 1.0, most, 2)
    colours = coloured(draws, "cells/colour", most)
    distance = (x - position[..., 0, None, None]).square() + (y - position[..., 1, None, None]).square()
    absent = torch.arange(most) >= count[:, None]
    nearest = distance.masked_fill(absent[:, :, None, None], math.inf).argmin(1)
    picked = torch.gather(colours, 1, nearest.reshape(len(draws), -1, 1).expand(-1, -1, 3))
    return picked.transpose(1, 2).reshape(len(draws), 3, size, size).contiguous()


TEXTURES = {"gradient": gradients, "clouds": clouds, "leaves": dead_leaves, "stripes": stripes, "cells": cells}
