"""The vector environment: groups of paths through the same scenes, scored together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vaportok_rl.envs.actions import check_seed, check_whole, checked_actions
from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.render.screen import RENDER_FPS, Screen
from vaportok_rl.envs.settings import RENDER_MODES, TaildropArguments
from vaportok_rl.envs.walk import GroupWalk, StepOutcome


class TaildropVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` copies of `TaildropEnv`, in groups that share their scenes.

    Environment ``e`` belongs to group ``e // group_size``. Members of a group see the same clips in the same order; a
    clip is encoded once per group, and each distinct length is decoded once. Group p sees the scenes of a scalar
    `TaildropEnv` seeded with ``seed + p``.

    Args:
        num_envs: number of parallel paths; a multiple of ``group_size``.
        group_size: G, paths through the same scene.
        autoreset_mode: ``SAME_STEP`` (default) or ``DISABLED``; with the latter, `reset` takes
            ``options={"reset_mask": bool array}`` for whole groups. TorchRL's ``GymWrapper`` needs ``"Disabled"``: it
            cannot read SAME_STEP's nested ``reward_terms``.
        **arguments: see `TaildropEnv`.

    Raises:
        TypeError: a number is not an integer.
        ValueError: ``group_size`` does not divide ``num_envs``, or an argument of `TaildropEnv` is wrong.
    """

    metadata = {  # noqa: RUF012 (as Gymnasium has it)
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 8,
        *,
        group_size: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **arguments: Unpack[TaildropArguments],
    ) -> None:
        check_whole("num_envs", num_envs)
        check_whole("group_size", group_size)
        if num_envs < 1 or group_size < 1 or num_envs % group_size:
            raise ValueError(
                f"Expected num_envs to be a positive multiple of group_size, got num_envs={num_envs}, "
                f"group_size={group_size}; use whole groups."
            )
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            raise ValueError(
                f"Expected autoreset_mode among {', '.join(repr(mode.value) for mode in AutoresetMode)}, got "
                f"{autoreset_mode!r}; choose 'SameStep' or 'Disabled'."
            ) from error
        if mode is AutoresetMode.NEXT_STEP:
            raise ValueError(
                "Expected autoreset_mode SAME_STEP or DISABLED, got NEXT_STEP; choose one of the two: under NEXT_STEP "
                "one step in L + 1 would ignore its action."
            )
        self.process = TaildropProcess(**arguments)
        self.render_mode = self.process.settings.render_mode
        self.num_envs = num_envs
        self.group_size = group_size
        self.groups = num_envs // group_size
        self.autoreset_mode = mode
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.single_action_space = self.process.single_action_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = self.process.single_observation_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._walk = GroupWalk(self.process, group_size)
        self._screen = Screen(self.process, group_size, self.render_mode)
        self._generators: list[np.random.Generator] = []

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments shared with `TaildropEnv`, defaults filled in."""
        return self.process.settings.as_arguments()

    def seed_groups(self, seed: int | Sequence[int | None] | None, groups: NDArray[np.int64] | None = None) -> None:
        """Seeds the groups' scenes: group p with ``seed + p``, or with its members' common entry in a list.

        Args:
            seed: see `reset`.
            groups: indices of the groups to seed; all by default.

        Raises:
            TypeError: a seed is not a Python integer.
            ValueError: a seed is negative, a list is of the wrong length, or members of one group have different seeds.
        """
        if isinstance(seed, Sequence):
            if len(seed) != self.num_envs:
                raise ValueError(f"Expected {self.num_envs} seeds, one per environment, got {len(seed)}; pass one int.")
            rows = [list(seed[start : start + self.group_size]) for start in range(0, self.num_envs, self.group_size)]
            for group, row in enumerate(rows):
                if any(value != row[0] for value in row):
                    raise ValueError(
                        f"Expected one seed for all members of a group, got {row} in group {group}; members of a group "
                        "see the same scene."
                    )
                check_seed(row[0])
            wanted = [row[0] for row in rows]
        else:
            check_seed(seed)
            wanted = [None if seed is None else seed + group for group in range(self.groups)]
        fresh = [seeding.np_random(value)[0] for value in wanted]
        if not self._generators:
            self._generators = fresh
        else:
            for group in range(self.groups) if groups is None else groups:
                if wanted[group] is not None:
                    self._generators[group] = fresh[group]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes, for all groups or for those in ``options["reset_mask"]``.

        Raises:
            TypeError: a seed is not a Python integer.
            ValueError: a seed is negative, or the mask has the wrong shape or type, or cuts through a group.
        """
        mask = None if options is None else options.get("reset_mask")
        if mask is None:
            self.seed_groups(seed)
            self._walk.begin(self._generators)
            self._screen.begin(self._walk)
        else:
            groups = self._masked_groups(mask)
            self.seed_groups(seed, groups)
            self._walk.begin([self._generators[group] for group in groups], groups)
            self._screen.begin(self._walk, groups)
        return self._observation(), {}

    def _masked_groups(self, mask: Any) -> NDArray[np.int64]:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(
                f"Expected options['reset_mask'] as a bool array of shape ({self.num_envs},), got {mask!r}; use "
                "np.array([...], dtype=bool)."
            )
        rows = mask.reshape(self.groups, self.group_size)
        if (rows.any(1) != rows.all(1)).any() or not mask.any():
            raise ValueError(
                f"Expected options['reset_mask'] to cover whole groups of {self.group_size} and at least one, got "
                f"{mask}; members of a group are reset together."
            )
        return np.flatnonzero(rows.all(1))

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.floating], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Keeps ``actions + 1`` tokens of each environment's clip.

        Under SAME_STEP, finished environments are reset at once: the observation is the new scene's first clip; the
        finished episode's last observation and infos are in ``infos["final_obs"]`` and ``infos["final_info"]``.

        Raises:
            TypeError: the actions are not integers.
            ValueError: wrong shape, or an action outside 0 … K - 1.
            RuntimeError: `reset` was not called, or (DISABLED) a finished environment was not reset.
        """
        lengths = checked_actions(actions, self.num_envs, self.process.tokens) + 1
        outcome = self._walk.step(lengths.reshape(self.groups, self.group_size))
        self._screen.decide(outcome)
        terminated = np.repeat(outcome.finished, self.group_size)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        rewards = self._paid(outcome)
        finished = np.flatnonzero(outcome.finished)
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.DISABLED or not len(finished):
            infos = self._infos(outcome, np.ones(self.num_envs, dtype=np.bool_))
            return self._observation(), rewards, terminated, truncated, infos
        infos["final_info"] = self._infos(outcome, terminated)
        infos["_final_info"] = terminated.copy()
        final_obs = np.full(self.num_envs, None, dtype=object)
        last = {name: values[finished].repeat(self.group_size, 0) for name, values in self._walk.observe().items()}
        for row, env in enumerate(np.flatnonzero(terminated)):
            final_obs[env] = self.process.present({name: values[row].copy() for name, values in last.items()})
        infos["final_obs"], infos["_final_obs"] = final_obs, terminated.copy()
        if not terminated.all():
            infos |= self._infos(outcome, ~terminated)
        self._walk.begin([self._generators[group] for group in finished], finished)
        return self._observation(), rewards, terminated, truncated, infos

    def _paid(self, outcome: StepOutcome) -> NDArray[np.floating]:
        return outcome.rewards.reshape(-1)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now: ``bool [num_envs, K]``; see `TaildropEnv`.

        Raises:
            RuntimeError: `reset` was not called.
        """
        return self._walk.action_masks().reshape(self.num_envs, -1)

    def render(self) -> tuple[Any, ...] | None:
        """Pictures of the last decisions, one per environment; see `TaildropEnv.render`.

        After an automatic reset, the finished path's last decision stays until the next step.

        Raises:
            RuntimeError: `reset` was not called.
        """
        shown = self._screen.render()
        return None if shown is None else tuple(shown)

    def _infos(self, outcome: StepOutcome, present: NDArray[np.bool_]) -> dict[str, Any]:
        """Gymnasium's vector format: arrays with ``_key`` masks, nested for `reward_terms`; 0 or None where absent."""

        def masked(values: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
            arrays: dict[str, Any] = {}
            for name, value in values.items():
                flat = value.reshape(-1).copy()
                flat[~present] = None if flat.dtype == object else 0  # as Gymnasium has it
                arrays[name], arrays[f"_{name}"] = flat, present.copy()
            return arrays

        return masked(outcome.info) | {"reward_terms": masked(outcome.terms), "_reward_terms": present.copy()}

    def _observation(self) -> Any:
        shown = self._walk.observe()
        return self.process.present(
            {name: np.repeat(values, self.group_size, axis=0) for name, values in shown.items()}
        )

    @property
    def generators(self) -> list[np.random.Generator]:
        """The groups' random number generators; seeded on first use."""
        if not self._generators:
            self.seed_groups(None)
        return self._generators
