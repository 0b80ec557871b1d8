"""The checker for vector environments that Gymnasium lacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from gymnasium.vector import VectorEnv

from vaportok_rl.envs.vector_checker import autoreset, formats, seeding
from vaportok_rl.envs.vector_checker.rollouts import Trial, VectorEnvError
from vaportok_rl.runtime.messages import did_you_mean

Check = Callable[[Trial], Iterator[str]]

# In this order: a check may rely on what those before it have found to be so. A fault shows up in many places; the
# first check to see it should be the one that names it.
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
    """Checks that a vector environment keeps Gymnasium's contract, in whichever autoreset mode it declares.

    The counterpart of `gymnasium.utils.env_checker.check_env` for any `gymnasium.vector.VectorEnv`: `SyncVectorEnv`,
    `AsyncVectorEnv`, custom ones and wrapped ones. It plays a dozen rollouts of random actions and compares them. The
    environment is left freshly reset with ``seed``, and open.

    ==================  ================================================================================================
    check               what it asks for
    ==================  ================================================================================================
    attributes          ``num_envs`` and the four spaces, of the right type
    batched_spaces      observation and action space are the batched single spaces
    autoreset_mode      ``metadata["autoreset_mode"]`` is an ``AutoresetMode``
    reset_result        `reset` returns (observations, infos dict); cannot be skipped
    step_result         `step` returns five values, the last one a dict; cannot be skipped
    flags               terminations and truncations are bool arrays ``[N]``; cannot be skipped
    observations        in the observation space, with its very shapes and dtypes, nested ones too
    rewards             finite floating-point array ``[N]``, or ``[N, *reward_space.shape]`` where there is one
    final_obs           SAME_STEP: last observations, masked, in the single observation space; else absent
    final_info          SAME_STEP: infos of the last steps, masked
    info_format         arrays ``[N, …]`` by key, each with a ``_key`` mask; the same in nested dicts
    info_types          an info keeps its dtype and shape
    info_keys           steps without a beginning or an end return the same keys
    actions_untouched   `step` neither changes its actions nor returns a view of them
    shared_memory       returned arrays are not changed or reused later (observations may be with ``copy=False``)
    seeded_reset        the same seed gives the same first observations and infos, every time
    unseeded_reset      `reset` without a seed goes on with the seeded stream and does not start over
    reset_after_end     `reset` clears a pending autoreset
    seeded_trajectory   the same seed and actions give the same trajectory
    different_seeds     seeds and environments start differently (a warning if no seed makes a difference)
    seed_list           a list of seeds, where it is taken at all, is repeatable and not ignored
    np_random           ``envs.np_random``, where it is in use, is reproducible
    groups              members of a group see the same at the same step of an episode
    exposed_state       writing into returned arrays does not disturb the environment
    kept_actions        reusing the array of actions does not disturb the environment
    episodes_end        an episode ends within the rollout (a warning)
    same_step_obs       SAME_STEP: the observation after an end is the next episode's first
    next_step_idle      NEXT_STEP: the step after an end has reward 0 and no end
    next_step_obs       NEXT_STEP: the last observation first, the next episode's first one a step later
    next_step_actions   NEXT_STEP: actions of environments that are being reset are ignored
    reset_mask          DISABLED: ``options["reset_mask"]`` resets the masked ones only
    reset_mask_state    DISABLED: the others go on as without it
    reset_mask_seed     DISABLED: a seed beside the mask leaves the others' random streams alone
    ==================  ================================================================================================

    Args:
        envs: the environment.
        seed: seeds the rollouts and their actions.
        steps: length of a rollout; long enough for some episodes to end.
        group_size: members that share their observations, environment e belonging to group ``e // group_size``; by
            default the environment's ``group_size`` attribute, or 1.
        skip: name or names of checks to leave out, such as ``info_keys`` for infos that come and go on purpose.

    Raises:
        VectorEnvError: the environment breaks the contract; ``check`` names the check that found it.
        ValueError: an argument is out of range or no check has a name to skip.

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
