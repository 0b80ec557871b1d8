"""Stepwise episodes for groups of paths, shared by the scalar and the vector environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.rewards.contract import NonFiniteRewardError, not_finite
from vaportok_rl.envs.scene import Outcome, Scene

INFO_KEYS = ("n_tokens", "mse", "psnr", "accuracy", "clip_id", "label", "complexity_score", "label_name")


@dataclass(frozen=True)
class StepOutcome:
    """The result of one decision per path, on the host, in fresh memory.

    Attributes:
        rewards: ``float64 [P, G]``.
        payments: ``float32 [P, G, terms]``, each term's reward at this step before its weight; see
            `RewardResult.payments`.
        finished: ``bool [P]``, whether the episode is over.
        info: arrays ``[P, G]`` by key (`INFO_KEYS`): int64, float32 and strings; of clips from files also ``file`` and
            ``start_frame``; under a constraint also ``cost``, whose sum over a path is the path's mean of the
            constrained measure (negated for a lower bound).
        terms: unweighted reward terms by name, ``float32 [P, G]``; a path term is 0 before the last step.
        decided: the clips of this step, a scene of shape ``(P, 1)`` on the device.
        path_terms: names of the terms that depend on the whole path.
    """

    rewards: NDArray[np.float64]
    payments: NDArray[np.float32]
    finished: NDArray[np.bool_]
    info: dict[str, NDArray[np.generic]]
    terms: dict[str, NDArray[np.float32]]
    decided: Scene
    path_terms: frozenset[str]


class GroupWalk:
    """P groups of G paths; the members of a group see the same clips in the same order.

    Args:
        process: the MDP.
        group_size: G.
    """

    def __init__(self, process: TaildropProcess, group_size: int) -> None:
        self.process = process
        self.group_size = group_size
        self._scene: Scene | None = None
        self.steps = np.zeros(0, dtype=np.int64)
        self._spent = np.zeros((0, group_size), dtype=np.int64)
        # Requested lengths [G, P, L]; 1 at undecided entries.
        self._asked = torch.zeros(0)
        # Measurements [G, P, L] by name; 0 at undecided entries.
        self._measured: dict[str, Tensor] = {}

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
            groups: indices of those groups; all by default.

        Raises:
            RuntimeError: ``groups`` is given before the first scenes are drawn.
        """
        scene = self.process.engine.open(self.process.draw(generators), apart=True)
        if groups is None:
            self._scene = scene
            count, length = scene.shape
            self.steps = np.zeros(count, dtype=np.int64)
            self._spent = np.zeros((count, self.group_size), dtype=np.int64)
            shape, device = (self.group_size, count, length), scene.device
            self._asked = torch.ones(shape, dtype=torch.int64, device=device)
            names = ("mse", "accuracy", *self.process.engine.measures)
            self._measured = {name: torch.zeros(shape, device=device) for name in names}
        else:
            self._scene = self.scene.replace_paths(torch.as_tensor(groups, device=scene.device), scene)
            self.steps[groups] = 0
            self._spent[groups] = 0

    def observe(self) -> dict[str, NDArray[np.generic]]:
        """Each group's current observation, ``[P, ...]`` by name; after the last step, the last clip again."""
        return self.process.observe(self.scene, self.steps)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions the token range and the rest of the budget allow now: ``bool [P, G, K]``.

        Raises:
            RuntimeError: no scene has been drawn yet.
        """
        _ = self.scene  # raises before the first reset
        return self.process.token_range.masks(self.steps[:, None], self._spent)

    def step(self, n_tokens: NDArray[np.int64]) -> StepOutcome:
        """Scores one decision of every path.

        Args:
            n_tokens: ``int64 [P, G]`` in 1 … K; clipped to the allowed lengths.

        Raises:
            RuntimeError: no scene has been drawn yet, or an episode is already over.
            NonFiniteRewardError: a reward term is not finite; the message names the term and the clip.
        """
        scene, length = self.scene, self.process.path_length
        if (self.steps >= length).any():
            raise RuntimeError(
                f"Expected reset() after the last of {length} clips, got another step(); reset the finished "
                "environments."
            )
        device = scene.device
        paths, at = torch.arange(len(self.steps), device=device), torch.as_tensor(self.steps, device=device)
        here = scene.at(paths, at)
        self._asked[:, paths, at] = torch.as_tensor(n_tokens, device=device).T

        def score(kept: Tensor) -> Outcome:
            """Scores the current clips; earlier ones keep their measurements, later ones are 0."""
            outcome = self.process.engine.score(here, kept[:, paths, at][..., None])
            found = {"mse": outcome.mse, "accuracy": outcome.accuracy, **outcome.measures}
            for name, value in self._measured.items():
                value[:, paths, at] = found[name][..., 0]
            measures = dict(self._measured)
            return Outcome(scene, kept, measures.pop("mse"), measures.pop("accuracy"), measures)

        # The whole path's reward is computed at every step. Undecided entries are placeholders: clip terms see only
        # their own clip, and path terms are paid at the last step.
        outcome, result = self.process.judge(self._asked, score)
        finished = self.steps == length - 1
        last = torch.as_tensor(finished, device=device)
        terms = {
            name: value[:, paths, at] if value.dim() == 3 else torch.where(last, value, torch.zeros_like(value))
            for name, value in result.raw.items()
        }
        kept = outcome.n_tokens[:, paths, at]
        rewards, payments = result.per_decision[:, paths, at], result.payments[:, :, paths, at]
        paid = {name: value[..., None] for name, value in (terms | {"the weighted sum": rewards}).items()}
        fault = not_finite(paid, kept[..., None], here.ids)
        if fault:
            raise NonFiniteRewardError(fault)
        members = (self.group_size, len(paths))
        values = {
            **{name: getattr(outcome, name)[:, paths, at] for name in ("n_tokens", "mse", "psnr", "accuracy")},
            "clip_id": here.ids[:, 0].expand(members),
            "label": here.labels[:, 0].expand(members),
            "complexity_score": self.process.engine.complexity_scale.score(here.complexity[:, 0]).expand(members),
        }
        constraint = self.process.reward.held
        if constraint is not None:
            values["cost"] = constraint.cost(outcome)[:, paths, at] / length
        complete = torch.as_tensor(np.flatnonzero(finished), device=device)
        self.process.advance(result, finished.size * self.group_size, complete)
        info = {name: value.T.cpu().numpy().copy() for name, value in values.items()}
        source = self.process.source
        info["label_name"] = np.array(source.label_names, dtype=object)[info["label"]]
        if source.files:
            origins = [source.origin(index) for index in info["clip_id"][:, 0].tolist()]
            for name, dtype in (("file", object), ("start_frame", np.int64)):
                column = np.array([getattr(origin, name) for origin in origins], dtype=dtype)
                info[name] = column.repeat(self.group_size).reshape(-1, self.group_size)
        self.steps = self.steps + 1
        self._spent = self._spent + info["n_tokens"]
        return StepOutcome(
            rewards=rewards.T.double().cpu().numpy().copy(),
            payments=payments.permute(2, 1, 0).cpu().numpy().copy(),
            finished=finished,
            info=info,
            terms={name: value.T.float().cpu().numpy().copy() for name, value in terms.items()},
            decided=here,
            path_terms=frozenset(name for name, value in result.raw.items() if value.dim() == 2),
        )
