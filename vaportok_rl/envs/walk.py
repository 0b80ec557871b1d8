"""Groups of paths on their way through scenes: the stepwise bookkeeping that both Gymnasium faces share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.scene import Outcome, Scene, join_scenes

INFO_KEYS = ("n_tokens", "mse", "psnr", "accuracy", "clip_id", "label")


@dataclass(frozen=True)
class StepOutcome:
    """One decision of every path, on the host, in fresh memory.

    Attributes:
        rewards: ``float64 [P, G]``.
        finished: ``bool [P]``; the scene has no clip left.
        info: arrays ``[P, G]`` by key (`INFO_KEYS`): int64 and float32.
        terms: unweighted reward terms by name, ``float32 [P, G]``; a path term is 0 before the last step.
    """

    rewards: NDArray[np.float64]
    finished: NDArray[np.bool_]
    info: dict[str, NDArray[np.generic]]
    terms: dict[str, NDArray[np.float32]]


class GroupWalk:
    """P groups of G paths; the members of a group see the same clips in the same order.

    Args:
        process: the decision process.
        group_size: G.
    """

    def __init__(self, process: TaildropProcess, group_size: int) -> None:
        self.process = process
        self.group_size = group_size
        self._scene: Scene | None = None
        self.steps = np.zeros(0, dtype=np.int64)
        self._mse = torch.zeros(0)
        self._accuracy = torch.zeros(0)
        self._lengths = torch.zeros(0)

    @property
    def scene(self) -> Scene:
        """The current scenes.

        Raises:
            RuntimeError: no scene has been drawn yet.
        """
        if self._scene is None:
            raise RuntimeError(
                "Expected reset() before step() or render(), got none yet; call env.reset(seed=...) first."
            )
        return self._scene

    def begin(self, generators: list[np.random.Generator], groups: NDArray[np.int64] | None = None) -> None:
        """Draws a new scene for all groups, or for the chosen ones.

        Args:
            generators: one for each group that begins.
            groups: numbers of those groups; all of them by default.
        """
        # One scene at a time: its clips are encoded in a batch of the same shape whichever face asks.
        scene = join_scenes([self.process.sample_scene([generator]) for generator in generators])
        if groups is None:
            self._scene = scene
            count, length = scene.shape
            self.steps = np.zeros(count, dtype=np.int64)
            device = scene.codes.device
            self._mse = torch.zeros(self.group_size, count, length, device=device)
            self._accuracy = torch.zeros_like(self._mse)
            self._lengths = torch.ones(self.group_size, count, length, dtype=torch.int64, device=device)
        else:
            self._scene = self.scene.replace_paths(torch.as_tensor(groups, device=scene.codes.device), scene)
            self.steps[groups] = 0

    def observe(self) -> dict[str, NDArray[np.generic]]:
        """What each group sees now, ``[P, ...]`` by name; after the last step, the last clip again."""
        return self.process.observe(self.scene, self.steps)

    def step(self, n_tokens: NDArray[np.int64]) -> StepOutcome:
        """Scores one decision of every path.

        Args:
            n_tokens: ``int64 [P, G]`` in 1 … K.

        Raises:
            RuntimeError: a group has already finished its scene.
        """
        scene, length = self.scene, self.process.path_length
        if (self.steps >= length).any():
            raise RuntimeError(
                f"Expected reset() after the last of {length} clips, got another step(); reset the finished "
                "environments."
            )
        device = scene.codes.device
        paths, at = torch.arange(len(self.steps), device=device), torch.as_tensor(self.steps, device=device)
        here = scene.at(paths, at)
        asked = torch.as_tensor(n_tokens, device=device).T.contiguous()[..., None]
        outcome = self.process.engine.score(here, asked)
        self._mse[:, paths, at] = outcome.mse[..., 0]
        self._accuracy[:, paths, at] = outcome.accuracy[..., 0]
        self._lengths[:, paths, at] = outcome.n_tokens[..., 0]

        # The reward of a whole path is evaluated once more at each step: clip terms may only look at their own clip,
        # and path terms are read at the end, so what is not yet decided cannot leak into what is paid.
        whole = Outcome(self._lengths, self._mse, self._accuracy, scene.complexity, scene.tokens)
        result = self.process.reward(whole)
        rewards = result.per_decision[:, paths, at]
        finished = self.steps == length - 1
        last = torch.as_tensor(finished, device=device)
        terms = {
            name: value[:, paths, at] if value.dim() == 3 else torch.where(last, value, torch.zeros_like(value))
            for name, value in result.raw.items()
        }
        self.steps = self.steps + 1
        members = (self.group_size, len(paths))
        values = {
            "n_tokens": outcome.n_tokens[..., 0],
            "mse": outcome.mse[..., 0],
            "psnr": outcome.psnr[..., 0],
            "accuracy": outcome.accuracy[..., 0],
            "clip_id": here.ids[:, 0].expand(members),
            "label": here.labels[:, 0].expand(members),
        }
        return StepOutcome(
            rewards=rewards.T.double().cpu().numpy().copy(),
            finished=finished,
            info={name: value.T.cpu().numpy().copy() for name, value in values.items()},
            terms={name: value.T.float().cpu().numpy().copy() for name, value in terms.items()},
        )
