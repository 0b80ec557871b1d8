"""What the faces show of themselves: one picture a decision, as arrays, as lists of arrays, or in a window."""

from __future__ import annotations

import math
import os
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import logger
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.render.drawing import Frames, render_decision, tile_frames, to_frames
from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.walk import GroupWalk, StepOutcome

# Decisions a second: slow enough to read the bars.
RENDER_FPS = 4


@dataclass(frozen=True)
class _Shot:
    """A clip and what the members of a group made of it: ``n_tokens [G]``, or None before they have decided."""

    scene: Scene
    n_tokens: NDArray[np.int64] | None
    terms: list[dict[str, float]]


class Screen:
    """Draws the last decision of every path, its clip's middle frame, when it is asked to.

    After a reset, the clip to be decided about is shown without a reconstruction. An automatic reset leaves the last
    decision of the finished path on the screen, so that no decision is missing from a recording.

    A copy, or a pickle, starts blank and without a window.

    Args:
        process: draws the reconstructions.
        group_size: G.
        mode: one of `RENDER_MODES`, or None to show nothing.
    """

    def __init__(self, process: TaildropProcess, group_size: int, mode: str | None) -> None:
        self.process = process
        self.group_size = group_size
        self.mode = mode
        self._last: list[_Shot] = []
        # The shots since the list was last asked for, oldest first; of at most one episode, should nobody ask.
        self._film: deque[list[_Shot]] = deque(maxlen=process.path_length + 1)
        self._window: Window | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Screen, (self.process, self.group_size, self.mode)

    def begin(self, walk: GroupWalk, groups: NDArray[np.int64] | None = None) -> None:
        """Shows the next clip of all groups, or of the chosen ones, as not yet decided about."""
        if self.mode is None:
            return
        steps = torch.as_tensor(np.minimum(walk.steps, self.process.path_length - 1), device=walk.scene.codes.device)
        here = walk.scene.at(torch.arange(len(steps), device=steps.device), steps)
        unknown = [dict.fromkeys(self.process.reward.names, math.nan)] * self.group_size
        shots = [_Shot(_only(here, group), None, unknown) for group in range(len(steps))]
        if groups is None or not self._last:
            self._last = shots
            self._film.clear()
        else:
            self._last = [shots[group] if group in groups else shot for group, shot in enumerate(self._last)]
        self._shown()

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
        self._shown()

    def _shown(self) -> None:
        if self.mode == "rgb_array_list":
            self._film.append(self._last)
        elif self.mode == "human":
            self._to_window()

    def render(self) -> list[Any] | None:
        """The pictures, one entry an environment.

        Returns:
            ``uint8 [H', W', 3]`` arrays; for ``rgb_array_list``, lists of those since the last call; for ``human``,
            which draws by itself at every step, None.

        Raises:
            RuntimeError: there was no reset.
        """
        if self.mode is None:
            logger.warn("render() shows nothing without a render mode; make the environment with render_mode=.")
            return None
        if not self._last:
            raise RuntimeError("Expected reset() before render(), got none yet; call env.reset(seed=...) first.")
        if self.mode == "human":
            self._to_window()
            return None
        if self.mode == "rgb_array":
            return self._draw(self._last)
        reels = [self._draw(shots) for shots in self._film]
        self._film.clear()
        return [[reel[env] for reel in reels] for env in range(len(self._last) * self.group_size)]

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _to_window(self) -> None:
        if self._window is None:
            self._window = Window()
        self._window.show(tile_frames(self._draw(self._last)))

    def _draw(self, shots: list[_Shot]) -> list[Frames]:
        return [picture for shot in shots for picture in self._draw_group(shot)]

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


class Window:
    """A pygame window that shows pictures.

    Raises:
        DependencyNotInstalled: pygame is missing.
    """

    def __init__(self) -> None:
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled(
                "Expected pygame for render_mode='human', found none; install it with `pip install pygame`, or use "
                "render_mode='rgb_array'."
            ) from error
        # Otherwise SDL may draw through OpenGL, whose Mesa driver loads an LLVM next to which Triton, and with it
        # torch.compile's half of PyTorch, crashes on import.
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
        self._pygame = pygame
        pygame.display.init()
        pygame.display.set_caption("VaporTok-RL")
        self._clock = pygame.time.Clock()

    def show(self, picture: Frames) -> None:
        """Shows ``uint8 [H, W, 3]``, at most `RENDER_FPS` times a second."""
        pygame = self._pygame
        size = (picture.shape[1], picture.shape[0])
        window = pygame.display.get_surface()
        if window is None or window.get_size() != size:
            window = pygame.display.set_mode(size)
        window.blit(pygame.image.frombuffer(picture.tobytes(), size, "RGB"), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(RENDER_FPS)

    def close(self) -> None:
        """Closes the window."""
        self._pygame.display.quit()


def _only(scene: Scene, group: int) -> Scene:
    row = torch.tensor([group], device=scene.codes.device)
    return scene.at(row, torch.zeros_like(row))
