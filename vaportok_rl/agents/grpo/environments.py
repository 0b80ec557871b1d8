"""Turns the environment that a user passes to GRPO into one with groups."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from vaportok_rl.agents.grpo.episodes import EpisodeVecEnv
from vaportok_rl.envs import TaildropEnv, TaildropVecEnv, TaildropVectorEnv

DEFAULT_GROUP_SIZE = 8
DEFAULT_SCENES = 16


def as_group_env(env: Any, group_size: int | None, scenes: int | None) -> VecEnv:
    """A Stable-Baselines3 environment with groups.

    Args:
        env: a `VecEnv` (a `TaildropVecEnv` or another one, possibly wrapped), a `TaildropEnv`, another registered
            Gymnasium environment, or an environment id.
        group_size: G, or None for the environment's own or 8.
        scenes: P, or None for the environment's own or 16.

    Raises:
        ValueError: groups of fewer than two, settings that contradict the environment, actions that are not discrete,
            or an environment that cannot be copied.
    """
    if group_size is not None and group_size < 2:
        raise ValueError(f"Expected group_size ≥ 2, got {group_size}; raise it: GRPO compares the paths of a group.")
    if isinstance(env, VecEnv):
        _check_groups(env, group_size, scenes)
        return env
    made_here = isinstance(env, str)
    if made_here:
        env = gymnasium.make(env)
    bare = getattr(env, "unwrapped", env)
    group_size, scenes = group_size or DEFAULT_GROUP_SIZE, scenes or DEFAULT_SCENES
    if isinstance(bare, TaildropEnv):
        _check_wrappers(env)
        return TaildropVecEnv(
            group_size * scenes, group_size=group_size, **bare.settings | {"reward": bare.process.reward}
        )
    if not isinstance(bare, gymnasium.Env) or env.spec is None:
        raise ValueError(
            f"Expected an environment id, a registered environment or a VecEnv, got {type(bare).__name__}; register "
            "it, or make a DummyVecEnv of scenes × group_size copies."
        )
    spec = env.spec
    if made_here:
        env.close()
    copies = [lambda: Monitor(gymnasium.make(spec))] * (group_size * scenes)
    made = EpisodeVecEnv(copies, group_size)
    _check_actions(made)
    return made


# Wrappers that `gymnasium.make` adds, or that only record.
_HARMLESS = (
    gymnasium.wrappers.OrderEnforcing,
    gymnasium.wrappers.PassiveEnvChecker,
    gymnasium.wrappers.RecordEpisodeStatistics,
    Monitor,
)


def _check_wrappers(env: gymnasium.Env[Any, Any]) -> None:
    """Raises a `ValueError` for wrappers, which copies made from the environment's settings would lose."""
    while isinstance(env, gymnasium.Wrapper):
        if type(env) not in _HARMLESS:
            raise ValueError(
                f"Expected a taildrop environment without wrappers, got {type(env).__name__}, which GRPO would ignore; "
                "put its effect into reward=, or wrap each copy of a DummyVecEnv."
            )
        env = env.env


def group_size_of(env: VecEnv, asked: int | None) -> int:
    """G of an environment: its own, else ``asked``, else 8."""
    bare = env.unwrapped
    if isinstance(bare, TaildropVecEnv):
        return bare.vector_env.group_size
    return bare.group_size if isinstance(bare, EpisodeVecEnv) else asked or DEFAULT_GROUP_SIZE


def _check_groups(env: VecEnv, group_size: int | None, scenes: int | None) -> None:
    own = group_size_of(env, group_size)
    if own < 2:
        raise ValueError(
            f"Expected an environment with group_size ≥ 2, got {own}; make it with "
            "TaildropVecEnv(num_envs=128, group_size=8)."
        )
    if env.num_envs % own:
        raise ValueError(
            f"Expected a multiple of group_size={own} environments, got {env.num_envs}; make whole groups, or pass "
            "another group_size."
        )
    for name, asked, has in (("group_size", group_size, own), ("scenes", scenes, env.num_envs // own)):
        if asked is not None and asked != has:
            raise ValueError(f"Expected {name}={has}, the environment's own, got {asked}; set it in one place.")
    _check_actions(env)


def _check_actions(env: VecEnv) -> None:
    if isinstance(env.action_space, spaces.Discrete) and env.action_space.start != 0:
        raise ValueError(
            f"Expected Discrete actions that count from 0, got {env.action_space}; wrap the environment in "
            "gymnasium.wrappers.TransformAction."
        )
    if not isinstance(env.action_space, spaces.Discrete):
        raise ValueError(f"Expected Discrete actions, got {env.action_space}; wrap the environment to discretise them.")


def group_env_of(env: VecEnv | None) -> TaildropVectorEnv:
    """The Gymnasium vector environment inside a Stable-Baselines3 one.

    Raises:
        ValueError: there is none.
    """
    bare = None if env is None else env.unwrapped
    if not isinstance(bare, TaildropVecEnv):
        raise ValueError(
            f"Expected a TaildropVecEnv, got {type(bare).__name__}; make it with TaildropVecEnv(num_envs=128, "
            "group_size=8) and pass it as env=."
        )
    return bare.vector_env
