"""Rendering for the environments: one picture per decision."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import logger
from numpy.typing import NDArray

from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.render.drawing import Frames, render_decision, to_frames
from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.walk import GroupWalk, StepOutcome

# For the window of Gymnasium's HumanRendering: otherwise SDL may draw through OpenGL, whose Mesa driver loads an LLVM
# next to which Triton, and with it torch.compile's half of PyTorch, crashes on import.
os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")

# Decisions a second: slow enough to read the bars.
RENDER_FPS = 4


@dataclass(frozen=True)
class _Shot:
    """A clip and the decisions of a group's members: ``n_tokens [G]``, or None before the decision."""

    scene: Scene
    n_tokens: NDArray[np.int64] | None
    terms: list[dict[str, float]]


class Screen:
    """Draws the last decision of each path: the middle frame of its clip.

    After `reset`, the next clip is shown without a reconstruction. After an automatic reset, the last decision of the
    finished path stays until the next step, so that recordings contain every decision.

    Args:
        process: decodes the reconstructions.
        group_size: G.
        mode: ``"rgb_array"``, or None to show nothing.
    """

    def __init__(self, process: TaildropProcess, group_size: int, mode: str | None) -> None:
        self.process = process
        self.group_size = group_size
        self.mode = mode
        self._last: list[_Shot] = []

    def begin(self, walk: GroupWalk, groups: NDArray[np.int64] | None = None) -> None:
        """Shows the next clip of all groups, or of some, without a reconstruction."""
        if self.mode is None:
            return
        steps = torch.as_tensor(np.minimum(walk.steps, self.process.path_length - 1), device=walk.scene.codes.device)
        here = walk.scene.at(torch.arange(len(steps), device=steps.device), steps)
        unknown = [dict.fromkeys(self.process.reward.names, math.nan)] * self.group_size
        shots = [_Shot(_only(here, group), None, unknown) for group in range(len(steps))]
        if groups is None or not self._last:
            self._last = shots
        else:
            self._last = [shots[group] if group in groups else shot for group, shot in enumerate(self._last)]

    def decide(self, outcome: StepOutcome) -> None:
        """Shows the decisions just taken."""
        if self.mode is None:
            return
        self._last = [
            _Shot(
                _only(outcome.decided, group),
                np.asarray(outcome.info["n_tokens"][group], dtype=np.int64),
                [
                    {
                        name: math.nan
                        if name in outcome.path_terms and not outcome.finished[group]
                        else float(value[group, member])
                        for name, value in outcome.terms.items()
                    }
                    for member in range(self.group_size)
                ],
            )
            for group in range(len(outcome.finished))
        ]

    def render(self) -> list[Frames] | None:
        """The pictures, one ``uint8 [H', W', 3]`` array per environment; None without a render mode.

        Raises:
            RuntimeError: there was no reset.
        """
        if self.mode is None:
            logger.warn("render() shows nothing without a render mode; make the environment with render_mode=.")
            return None
        if not self._last:
            raise RuntimeError("Expected reset() before render(), got none yet; call env.reset(seed=...) first.")
        return [picture for shot in self._last for picture in self._draw_group(shot)]

    def _draw_group(self, shot: _Shot) -> list[Frames]:
        original = to_frames(shot.scene.clips[0, 0])
        frame = len(original) // 2
        if shot.n_tokens is None:
            blank = render_decision(original, None, None, self.process.tokens, shot.terms[0], frame=frame)
            return [blank.copy() for _ in range(self.group_size)]
        decoded: dict[int, Frames] = {}
        pictures = []
        for n, terms in zip(shot.n_tokens.tolist(), shot.terms, strict=True):
            if n not in decoded:
                length = torch.full((1, 1), n, device=shot.scene.codes.device)
                decoded[n] = to_frames(self.process.engine.reconstruct(shot.scene, length)[0, 0])
            pictures.append(render_decision(original, decoded[n], n, self.process.tokens, terms, frame=frame))
        return pictures


def _only(scene: Scene, group: int) -> Scene:
    row = torch.tensor([group], device=scene.codes.device)
    return scene.at(row, torch.zeros_like(row))
