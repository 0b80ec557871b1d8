"""Motion of procedural clips: time profiles, camera paths over a canvas, and sprites.

Lengths are in half-frames (the frame spans -1 … 1) and times in sixteenths of a clip, so that clips of other sizes or
frame counts show the same motion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaportok_rl.clips.procedural.draws import Draws
from vaportok_rl.clips.procedural.textures import coloured, coordinates

_SPRITES = 5


def profile(draws: Draws, name: str, frames: int, *shape: int) -> Tensor:
    """A displacement over time with a mean speed of about one unit per frame: steady, easing, swinging or halting.

    Returns:
        ``float32 [B, *shape, T]``, zero in the middle of the clip.
    """
    time = torch.linspace(0, 1, frames) if frames > 1 else torch.full((1,), 0.5)
    kind = draws.choice(f"{name}/kind", 4, *shape)[..., None]
    period = draws.between(f"{name}/period", 0.6, 2.5, *shape)[..., None]
    phase = draws.between(f"{name}/phase", 0.0, 2 * math.pi, *shape)[..., None]
    halt = draws.between(f"{name}/halt", 0.2, 0.8, *shape)[..., None]
    steady = time - 0.5
    easing = time * time * (3 - 2 * time) - 0.5
    swinging = period * 0.25 * (torch.sin(2 * math.pi * time / period + phase) - torch.sin(phase))
    halting = torch.minimum(time, halt) * 1.5 - halt
    moved = torch.where(kind == 1, easing, steady)
    moved = torch.where(kind == 2, swinging, moved)
    moved = torch.where(kind == 3, halting, moved)
    return moved * 16.0


def camera_grid(draws: Draws, name: str, frames: int, size: int, strengths: dict[str, Tensor]) -> Tensor:
    """The canvas position of each pixel of each frame.

    Args:
        draws: the clips' random numbers.
        name: of the camera, so that two cameras of a clip differ.
        frames: T.
        size: H = W.
        strengths: ``float32 [B]`` each, for ``pan`` (half-frames per frame), ``zoom`` (log scale per frame), ``rotate``
            (radians per frame), ``shake`` (half-frames) and ``wave`` (half-frames).

    Returns:
        ``float32 [B, T, H, W, 2]``, canvas coordinates (x, y) in frame units; the frame at rest covers -1 … 1.
    """
    y, x = coordinates(size)
    direction = draws.between(f"{name}/direction", 0.0, 2 * math.pi)
    pan = profile(draws, f"{name}/pan", frames) * strengths["pan"][:, None]
    shake = draws.normal(f"{name}/shake", 2, frames) * strengths["shake"][:, None, None]
    # A hand-held camera drifts more than it jumps, so the jitter is smoothed over three frames.
    if frames >= 3:
        shake = torch.nn.functional.avg_pool1d(shake, 3, stride=1, padding=1, count_include_pad=False) * 1.5
    shift_x = torch.cos(direction)[:, None] * pan + shake[:, 0]
    shift_y = torch.sin(direction)[:, None] * pan + shake[:, 1]
    sign = (draws.choice(f"{name}/sign", 2) * 2 - 1).float()
    scale = torch.exp(
        (profile(draws, f"{name}/zoom", frames) * strengths["zoom"][:, None] * sign[:, None])
        + draws.between(f"{name}/scale", -0.35, 0.15)[:, None]
    )
    angle = (
        profile(draws, f"{name}/rotate", frames) * strengths["rotate"][:, None] * sign[:, None]
        + draws.between(f"{name}/angle", -math.pi, math.pi)[:, None]
    )
    cosine, sine = (torch.cos(angle) * scale)[..., None, None], (torch.sin(angle) * scale)[..., None, None]
    grid_x = cosine * x - sine * y + shift_x[..., None, None]
    grid_y = sine * x + cosine * y + shift_y[..., None, None]
    if bool((strengths["wave"] > 0).any()):
        clock = torch.arange(frames, dtype=torch.float32)[:, None, None] * 0.35
        phase = draws.between(f"{name}/wave phase", 0.0, 2 * math.pi, 2)[..., None, None, None]
        cycles = draws.between(f"{name}/wave cycles", 2.0, 5.0)[:, None, None, None]
        height = strengths["wave"][:, None, None, None]
        grid_x = grid_x + height * torch.sin(cycles * y + clock + phase[:, 0])
        grid_y = grid_y + height * torch.sin(cycles * x - clock + phase[:, 1])
    return torch.stack([grid_x, grid_y], dim=-1)


def bounce(position: Tensor) -> Tensor:
    """Reflects a coordinate at -1 and 1, however far it travelled."""
    return 1 - (torch.remainder(position + 1, 4) - 2).abs()


def draw_sprites(draws: Draws, video: Tensor, count: Tensor, speed: Tensor, detail: Tensor) -> Tensor:
    """Paints moving ellipses and boxes, each with its own colour, shading and path, over a video.

    Args:
        draws: the clips' random numbers.
        video: ``float32 [B, 3, T, H, W]`` in contrast units (about -1 … 1).
        count: ``float32 [B]``, how many sprites (0 … 5).
        speed: ``float32 [B]``, half-frames per frame.
        detail: ``float32 [B]`` in [0, 1], strength of the sprites' own texture.

    Returns:
        ``float32 [B, 3, T, H, W]``.
    """
    batch, _, frames, size, _ = video.shape
    y, x = coordinates(size)
    start = draws.between("sprites/start", -0.9, 0.9, _SPRITES, 2)
    heading = draws.between("sprites/heading", 0.0, 2 * math.pi, _SPRITES)
    pace = draws.between("sprites/pace", 0.4, 1.6, _SPRITES)[..., None] * speed[:, None, None]
    travelled = profile(draws, "sprites/path", frames, _SPRITES) * pace
    at_x = bounce(start[..., 0, None] + torch.cos(heading)[..., None] * travelled)
    at_y = bounce(start[..., 1, None] + torch.sin(heading)[..., None] * travelled)
    radius = 0.12 + 0.5 * draws.uniform("sprites/radius", _SPRITES) ** 2
    aspect = draws.between("sprites/aspect", 0.3, 1.0, _SPRITES)
    angle = draws.between("sprites/angle", 0.0, math.pi, _SPRITES)[..., None] + 3.0 * travelled * (
        draws.uniform("sprites/spin", _SPRITES) < 0.4
    ).float().unsqueeze(-1)
    boxes = draws.uniform("sprites/box", _SPRITES) < 0.4
    colours = coloured(draws, "sprites/colour", _SPRITES)
    shade = draws.between("sprites/shade", -0.7, 0.7, _SPRITES)
    bars = draws.between("sprites/bars", 2.0, 9.0, _SPRITES)
    for sprite in range(_SPRITES):
        dx = x - at_x[:, sprite, :, None, None]
        dy = y - at_y[:, sprite, :, None, None]
        cosine = torch.cos(angle[:, sprite])[..., None, None]
        sine = torch.sin(angle[:, sprite])[..., None, None]
        along = (cosine * dx + sine * dy) / radius[:, sprite, None, None, None]
        across = (cosine * dy - sine * dx) / (radius * aspect)[:, sprite, None, None, None]
        box = boxes[:, sprite, None, None, None]
        along_2, across_2 = along * along, across * across
        distance = torch.where(box, torch.maximum(along_2, across_2), along_2 + across_2).sqrt_()
        # One pixel of softness at the border imitates a camera's blur.
        edge = radius[:, sprite, None, None, None] * size / 2
        alpha = ((1 - distance) * edge + 0.5).clamp(0, 1)
        alpha = alpha * (count > sprite).float()[:, None, None, None]
        texture = shade[:, sprite, None, None, None] * along + (0.5 * detail)[:, None, None, None] * torch.sin(
            along * bars[:, sprite, None, None, None]
        )
        paint = colours[:, sprite, :, None, None, None] + texture[:, None]
        video = video + alpha[:, None] * (paint - video)
    return video.reshape(batch, 3, frames, size, size)
