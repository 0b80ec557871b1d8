"""Brings whatever environment a user gives GRPO to the vector environment of groups it needs."""

from __future__ import annotations

from typing import Any

import gymnasium
from stable_baselines3.common.vec_env import VecEnv

from vaportok_rl.envs import TaildropEnv, TaildropVecEnv, TaildropVectorEnv

DEFAULT_GROUP_SIZE = 8
DEFAULT_SCENES = 16


def as_group_env(env: Any, group_size: int | None, scenes: int | None) -> VecEnv:
    """A Stable-Baselines3 environment over groups.

    Args:
        env: a `TaildropVecEnv` (possibly wrapped), a `TaildropEnv`, or an environment id.
        group_size: G, or None for the environment's own or 8.
        scenes: P, or None for the environment's own or 16.

    Raises:
        ValueError: groups of fewer than two, settings that contradict the environment, or another environment.
    """
    if group_size is not None and group_size < 2:
        raise ValueError(
            f"Expected group_size ≥ 2, got {group_size}; GRPO compares the paths of a group with each other."
        )
    if isinstance(env, VecEnv):
        own = group_env_of(env)
        for name, asked, has in (("group_size", group_size, own.group_size), ("scenes", scenes, own.groups)):
            if asked is not None and asked != has:
                raise ValueError(f"Expected {name}={has}, the environment's own, got {asked}; set it in one place.")
        if own.group_size < 2:
            raise ValueError(
                f"Expected an environment with group_size ≥ 2, got {own.group_size}; make it with "
                "TaildropVecEnv(num_envs=128, group_size=8)."
            )
        return env
    if isinstance(env, str):
        env = gymnasium.make(env)
    bare = getattr(env, "unwrapped", env)
    if not isinstance(bare, TaildropEnv):
        raise ValueError(
            f"Expected a TaildropEnv, its id or a TaildropVecEnv, got {type(bare).__name__}; GRPO samples groups of "
            "paths through one scene."
        )
    group_size, scenes = group_size or DEFAULT_GROUP_SIZE, scenes or DEFAULT_SCENES
    return TaildropVecEnv(group_size * scenes, group_size=group_size, **bare.settings)


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
