"""The checker for vector environments that Gymnasium lacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from gymnasium.vector import VectorEnv

from vaportok_rl.envs.vector_checker import autoreset, formats, seeding
from vaportok_rl.envs.vector_checker.rollouts import Trial, VectorEnvError
from vaportok_rl.runtime.messages import did_you_mean

Check = Callable[[Trial], Iterator[str]]

# The order matters: a check may rely on those before it, and a fault that several checks see is named by the first.
_ORDERED: tuple[Check, ...] = (
    formats.attributes,
    formats.batched_spaces,
    formats.autoreset_mode,
    formats.observations,
    formats.rewards,
    autoreset.final_obs,
    autoreset.final_info,
    formats.info_format,
    formats.info_types,
    formats.info_keys,
    formats.actions_untouched,
    formats.shared_memory,
    seeding.seeded_reset,
    seeding.unseeded_reset,
    autoreset.reset_after_end,
    seeding.seeded_trajectory,
    seeding.different_seeds,
    seeding.seed_list,
    seeding.np_random,
    seeding.groups,
    seeding.exposed_state,
    seeding.kept_actions,
    autoreset.episodes_end,
    autoreset.same_step_obs,
    autoreset.next_step_idle,
    autoreset.next_step_obs,
    autoreset.next_step_actions,
    autoreset.reset_mask,
    autoreset.reset_mask_state,
    autoreset.reset_mask_seed,
)
CHECKS: dict[str, Check] = {check.__name__: check for check in _ORDERED}


def check_vector_env(
    envs: VectorEnv[Any, Any, Any],
    *,
    seed: int = 0,
    steps: int = 64,
    group_size: int | None = None,
    skip: str | Collection[str] = (),
) -> None:
    """Checks that a vector environment keeps Gymnasium's contract, in the autoreset mode that it declares.

    The counterpart of `gymnasium.utils.env_checker.check_env` for any `gymnasium.vector.VectorEnv`: `SyncVectorEnv`,
    `AsyncVectorEnv`, custom and wrapped ones. It compares a dozen rollouts of random actions. Afterwards the
    environment is open and freshly reset with ``seed``.

    `CHECKS` names the checks in order; the docstring of each says what it requires. `reset_result`, `step_result` and
    `flags` (the types of what `reset` and `step` return) are checked throughout and cannot be skipped.

    Args:
        envs: the environment.
        seed: of the rollouts and their actions.
        steps: length of a rollout; some episodes should end within it.
        group_size: members that share their observations, environment e belonging to group ``e // group_size``; by
            default the environment's ``group_size`` attribute, or 1.
        skip: name or names of checks to skip, such as ``info_keys`` if infos come and go on purpose.

    Raises:
        VectorEnvError: the environment breaks the contract; ``check`` names the check that found it.
        ValueError: an argument is out of range, or ``skip`` names no check.

    Example:
        >>> import gymnasium
        >>> check_vector_env(gymnasium.make_vec("CartPole-v1", num_envs=4))
    """
    if not isinstance(envs, VectorEnv):
        raise VectorEnvError(
            "attributes",
            f"Expected a gymnasium.vector.VectorEnv, got {type(envs).__name__}; check scalar environments with "
            "gymnasium.utils.env_checker.check_env.",
        )
    if steps < 1:
        raise ValueError(f"Expected steps ≥ 1, got {steps}; a rollout needs at least one step.")
    skip = (skip,) if isinstance(skip, str) else skip
    for name in skip:
        if name not in CHECKS:
            hint = did_you_mean(name, CHECKS, f"choose among {', '.join(CHECKS)}.")
            raise ValueError(f"Expected skip to name checks, got {name!r}; {hint}")
    if group_size is None:
        group_size = getattr(envs.unwrapped, "group_size", 1)
    trial = Trial(envs, seed, steps, group_size)
    for name, check in CHECKS.items():
        if name not in skip:
            for finding in check(trial):
                raise VectorEnvError(name, finding)
    envs.reset(seed=seed)
