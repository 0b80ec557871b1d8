"""Checks of the end of an episode, under each of Gymnasium's three autoreset modes.

Each check is a generator of findings; `check_vector_env` raises the first one. The checks know only the flags, not the
environment, so they judge whether an observation is of the old or the new episode from all ends of a rollout together.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from vaportok_rl.envs.vector_checker.formats import misfit
from vaportok_rl.envs.vector_checker.rollouts import (
    SEED_STRIDE,
    Mask,
    Moment,
    Trial,
    arrays_in,
    difference,
    outline,
    trajectory_difference,
)


def episodes_end(trial: Trial) -> Iterator[str]:
    """Warns if no episode ended in the rollout: the autoreset checks then have nothing to check."""
    if not any(moment.ended.any() for moment in trial.rollout):
        warnings.warn(
            f"Expected an episode to end within {trial.steps} steps, got none; autoreset could not be checked, raise "
            "steps or shorten the episodes.",
            UserWarning,
            stacklevel=3,
        )
    yield from ()


def _observations_vary(trial: Trial) -> bool:
    """Whether an environment's observation ever changes from one call to the next."""
    return any(difference(one.copy.obs, other.copy.obs, "obs") for one, other in pairwise(trial.rollout))


def reset_after_end(trial: Trial) -> Iterator[str]:
    """A `reset` right after an episode's end cancels the pending autoreset."""
    steps = [moment for moment in trial.rollout if moment.actions is not None]
    end = next((number for number, moment in enumerate(steps, start=1) if moment.ended.any()), None)
    if end is None:
        return
    # If trajectories differ even without a pending autoreset, another check reports that.
    trial.play(end - 1)
    if trajectory_difference(trial.rollout[: end + 1], trial.play(end)):
        return
    if found := trajectory_difference(trial.rollout[: end + 1], trial.play(end)):
        yield (
            f"Expected reset(seed={trial.seed}) right after an episode's end to start the same trajectory as a fresh "
            f"reset, got another: {found}; let reset clear the pending autoreset and every counter."
        )


def final_obs(trial: Trial) -> Iterator[str]:
    """SAME_STEP: ``final_obs`` holds the last observations of the environments that ended; no other mode has it."""
    for moment in trial.rollout:
        infos, call = moment.copy.infos, moment.call
        expected = moment.ended if trial.mode is AutoresetMode.SAME_STEP else trial.resting
        mask, entries = infos.get("_final_obs", trial.resting), infos.get("final_obs")
        if not np.array_equal(mask, expected) or (entries is None and expected.any()):
            got = "no final_obs" if entries is None else f"_final_obs {mask}"
            yield (
                f"Expected infos['final_obs'] of {call} for the environments {np.flatnonzero(expected).tolist()}, "
                f"which are those to end under {trial.mode.name}, got {got}; report the last observation in the step "
                "that ends an episode if its own observation is the next episode's, and only then."
            )
            continue
        if entries is None:
            continue
        if not (isinstance(entries, np.ndarray) and entries.dtype == object and entries.shape == expected.shape):
            yield (
                f"Expected infos['final_obs'] of {call} as an object array of shape {expected.shape}, got "
                f"{outline(entries)}; put one unbatched observation where an episode ended and None elsewhere."
            )
            continue
        space = trial.envs.single_observation_space
        for env, entry in enumerate(entries):
            where = f"infos['final_obs'][{env}] of {call}"
            if not expected[env]:
                if entry is not None:
                    yield f"Expected {where} to be None, got {outline(entry)}; its episode has not ended."
            elif not space.contains(entry):
                yield misfit(space, entry, where) or f"Expected {where} in {space}, got {outline(entry)}; correct it."


def final_info(trial: Trial) -> Iterator[str]:
    """SAME_STEP: ``final_info`` holds the infos of the steps that ended an episode, as a masked dict."""
    if trial.mode is not AutoresetMode.SAME_STEP:
        return
    for moment in trial.rollout:
        entries, mask = moment.copy.infos.get("final_info"), moment.copy.infos.get("_final_info", trial.resting)
        if not np.array_equal(mask, moment.ended) or (moment.ended.any() and not isinstance(entries, dict)):
            yield (
                f"Expected infos['final_info'] of {moment.call} as a dict with the mask _final_info {moment.ended}, "
                f"got {outline(entries)} with {mask}; report the infos of the steps that ended an episode there."
            )


def _same_at_all_ends(trial: Trial, pairs: Iterator[tuple[Any, Any, Mask]]) -> int:
    """The number of ends if two observations are equal at all of them although observations vary; else 0.

    Args:
        trial: the environment.
        pairs: per step, observations of the N environments, others of them, and which environments ended.
    """
    ends = [
        difference(one, other, "obs") is not None
        for first, second, ended in pairs
        for one, other, here in zip(first, second, ended, strict=True)
        if here
    ]
    return 0 if any(ends) or not _observations_vary(trial) else len(ends)


def same_step_obs(trial: Trial) -> Iterator[str]:
    """SAME_STEP: the observation of a step that ends an episode is the first one of the next episode."""
    if trial.mode is not AutoresetMode.SAME_STEP:
        return
    pairs = (
        (trial.members(moment.copy.obs), moment.copy.infos["final_obs"], moment.ended)
        for moment in trial.rollout
        if moment.ended.any() and "final_obs" in moment.copy.infos
    )
    if ends := _same_at_all_ends(trial, pairs):
        yield (
            f"Expected the observations of steps that end an episode to be those of the next episode, got final_obs "
            f"again at all of {ends} ends; under SAME_STEP reset first, then return the new observation."
        )


def next_step_idle(trial: Trial) -> Iterator[str]:
    """NEXT_STEP: the step after an end has reward 0 and neither terminates nor truncates."""
    if trial.mode is not AutoresetMode.NEXT_STEP:
        return
    for before, moment in pairwise(trial.rollout):
        idle = before.ended
        if np.any(moment.copy.rewards[idle]) or moment.ended[idle].any():
            yield (
                f"Expected {moment.call} to only reset the environments {np.flatnonzero(idle).tolist()}, which ended "
                f"the step before, got rewards {moment.copy.rewards[idle]} and ends {moment.ended[idle]}; under "
                "NEXT_STEP that step has reward 0 and no flag set."
            )


def next_step_obs(trial: Trial) -> Iterator[str]:
    """NEXT_STEP: a step that ends an episode shows its last observation, the step after it the next episode's first."""
    if trial.mode is not AutoresetMode.NEXT_STEP:
        return
    pairs = (
        (trial.members(before.copy.obs), trial.members(moment.copy.obs), before.ended)
        for before, moment in pairwise(trial.rollout)
        if before.ended.any()
    )
    if ends := _same_at_all_ends(trial, pairs):
        yield (
            "Expected the step after an end to show the next episode's first observation and the step before it the "
            f"last one of the old, got the same twice at all of {ends} ends; under NEXT_STEP reset in the step after "
            "the end."
        )


def next_step_actions(trial: Trial) -> Iterator[str]:
    """NEXT_STEP: the actions of environments that are being reset change nothing."""
    if trial.mode is not AutoresetMode.NEXT_STEP:
        return
    played = []
    for step, (before, _) in enumerate(pairwise(trial.rollout)):
        actions = trial.actions(step)
        for (_, array), (_, other) in zip(
            arrays_in(actions, "actions"), arrays_in(trial.actions(step + 1), "actions"), strict=True
        ):
            array[before.ended] = other[before.ended]
        played.append(actions)
    if found := trajectory_difference(trial.rollout, trial.play(actions=played)):
        yield (
            f"Expected the actions of environments that ended the step before to be ignored, got another trajectory "
            f"for other such actions: {found}; under NEXT_STEP that step only resets."
        )


def _mask_of_some(trial: Trial) -> Mask:
    """The first group, or the first environment."""
    return np.arange(trial.envs.num_envs) < max(1, trial.group_size)


def _chosen(trial: Trial, obs: Any, mask: Mask) -> list[Any]:
    return [part for part, masked in zip(trial.members(obs), mask, strict=True) if masked]


def reset_mask(trial: Trial) -> Iterator[str]:
    """DISABLED: ``reset(options={"reset_mask": mask})`` shows new episodes inside the mask, and the same outside it."""
    if trial.mode is not AutoresetMode.DISABLED:
        return
    resets = [(before, moment) for before, moment in pairwise(trial.rollout) if moment.actions is None]
    before = trial.play(1)[-1]
    resets.append((before, trial.reset_masked(_mask_of_some(trial))))
    renewed = []
    for before, moment in resets:
        mask = moment.began
        if found := difference(_chosen(trial, before.copy.obs, ~mask), _chosen(trial, moment.copy.obs, ~mask), "obs"):
            yield (
                f"Expected {moment.call} to leave the environments outside the mask {mask} alone, got another {found} "
                "there; reset only where the mask is True."
            )
        renewed.append(difference(_chosen(trial, before.copy.obs, mask), _chosen(trial, moment.copy.obs, mask), ""))
    if not any(renewed) and _observations_vary(trial):
        yield (
            f"Expected a reset by mask to begin new episodes inside the mask, got the old observations in all "
            f"{len(resets)} such resets; reset the environments where the mask is True."
        )


def reset_mask_state(trial: Trial) -> Iterator[str]:
    """DISABLED: environments outside the mask continue as without the reset, until the first episode ends."""
    if trial.mode is not AutoresetMode.DISABLED:
        return
    mask = _mask_of_some(trial)
    plain = _until_end(trial, None)
    for step, (one, other) in enumerate(zip(plain, _until_end(trial, mask), strict=False), start=1):
        for name in ("obs", "rewards", "terminations", "truncations"):
            first, second = one.copy.parts()[name], other.copy.parts()[name]
            if name == "obs":
                first, second = _chosen(trial, first, ~mask), _chosen(trial, second, ~mask)
            else:
                first, second = first[~mask], second[~mask]
            if found := difference(first, second, name):
                yield (
                    f"Expected environments outside a reset's mask to continue as without it, got other {found} {step} "
                    "steps later; leave their state alone and give each environment its own random stream."
                )


def reset_mask_seed(trial: Trial) -> Iterator[str]:
    """DISABLED: a seed beside a mask seeds the environments inside it alone; the others' next starts are unchanged."""
    mask = _mask_of_some(trial)
    if trial.mode is not AutoresetMode.DISABLED or mask.all():
        return
    starts = []
    for seed in (None, trial.seed + SEED_STRIDE):
        trial.begin(trial.seed)
        trial.reset_masked(mask, seed)
        starts.append(_chosen(trial, trial.reset_masked(~mask).copy.obs, ~mask))
    if found := difference(starts[0], starts[1], "obs"):
        yield (
            f"Expected reset(seed={trial.seed + SEED_STRIDE}) with the mask {mask} to leave the other environments' "
            f"random streams alone, got another {found} at their next reset; seed only where the mask is True."
        )


def _until_end(trial: Trial, mask: Mask | None) -> list[Moment]:
    """The steps after the first one, to the first end; with a reset by mask before them if there is a mask."""
    moments = trial.play(1)
    if len(moments) > 2:  # that one step ended an episode, and the recorder has reset it
        return []
    if mask is not None:
        trial.reset_masked(mask)
    moments = []
    for step in range(1, trial.steps):
        moments.append(trial.step(step))
        if moments[-1].ended.any():
            break
    return moments
