"""The labelled families of procedural clips: their textures and the strengths of their motions."""

from __future__ import annotations

from dataclasses import dataclass, fields

_ANY = ("clouds", "leaves", "cells", "gradient")


@dataclass(frozen=True)
class Family:
    """One family. The strengths are those at temporal complexity 1; at 0 every family is still.

    Attributes:
        name: the label.
        textures: names in `textures.TEXTURES`, equally likely.
        pan: half-frames per frame.
        zoom: log scale per frame.
        rotate: radians per frame.
        shake: half-frames.
        wave: half-frames of rippling.
        flicker: relative brightness change.
        fade: slow brightness change over the clip.
        morph: radians per frame by which one canvas fades into a second.
        cut: probability of a scene cut.
        parallax: how much faster a second layer in front pans, relative to the first.
        sprites: maximum number of sprites.
        sprite_speed: half-frames per frame.
        noise: share of white noise that is renewed at each frame.
    """

    name: str
    textures: tuple[str, ...]
    pan: float = 0.0
    zoom: float = 0.0
    rotate: float = 0.0
    shake: float = 0.0
    wave: float = 0.0
    flicker: float = 0.0
    fade: float = 0.0
    morph: float = 0.0
    cut: float = 0.0
    parallax: float = 0.0
    sprites: float = 0.0
    sprite_speed: float = 0.0
    noise: float = 0.0


FAMILIES: tuple[Family, ...] = (
    Family("gradients", ("gradient",), pan=0.06, rotate=0.05, fade=0.3),
    Family("cloud pans", ("clouds",), pan=0.11),
    Family("leaf pans", ("leaves", "cells"), pan=0.11),
    Family("zooms", _ANY, zoom=0.06, pan=0.02),
    Family("rotations", _ANY, rotate=0.15, pan=0.02),
    Family("bouncing sprites", ("gradient",), sprites=5, sprite_speed=0.14),
    Family("sprites over texture", ("clouds", "leaves"), sprites=4, sprite_speed=0.12, pan=0.02),
    Family("actors", _ANY, sprites=5, sprite_speed=0.06, shake=0.03),
    Family("parallax", ("clouds", "leaves", "gradient"), pan=0.05, parallax=1.0),
    Family("flicker", _ANY, flicker=0.5, pan=0.02),
    Family("fades", _ANY, fade=0.9, zoom=0.02),
    Family("ripples", ("clouds", "leaves", "stripes"), wave=0.16, pan=0.03),
    Family("drifting stripes", ("stripes",), pan=0.09, rotate=0.04),
    Family("hand-held", ("leaves", "clouds"), shake=0.14, pan=0.03, zoom=0.02),
    Family("boiling clouds", ("clouds",), morph=0.35),
    Family("scene cuts", _ANY, cut=1.0, pan=0.04),
    Family("noise", ("gradient", "clouds"), noise=1.0),
    Family("everything", _ANY, pan=0.06, zoom=0.02, rotate=0.04, shake=0.03, sprites=3, sprite_speed=0.08, fade=0.2),
)

STRENGTHS: tuple[str, ...] = tuple(field.name for field in fields(Family) if field.name not in ("name", "textures"))
