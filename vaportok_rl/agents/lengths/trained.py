"""Trained agents as length policies: those of `vaportok-rl train`, and what Stable-Baselines3 algorithms saved."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.agents.agent_file import AGENT_FILE, read_record
from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy, most_probable
from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.envs.process import observation_box
from vaportok_rl.envs.settings import OBSERVATIONS

ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "a2c": ("stable_baselines3", "A2C"),
    "dqn": ("stable_baselines3", "DQN"),
    "ppo": ("stable_baselines3", "PPO"),
    "reinforce": ("vaportok_rl.agents.reinforce", "REINFORCE"),
    "maskable-ppo": ("sb3_contrib", "MaskablePPO"),
    "qr-dqn": ("sb3_contrib", "QRDQN"),
    "recurrent-ppo": ("sb3_contrib", "RecurrentPPO"),
    "trpo": ("sb3_contrib", "TRPO"),
}
"""Names that ``NAME:PATH`` may begin with, and the class that loads the file."""


def algorithm_of(path: Path) -> str:
    """The algorithm that trained an agent: ``grpo`` or one of `ALGORITHMS`, as the file itself says.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: the file is no saved agent, or does not say.
    """
    file = _agent_file(path)
    recorded = read_record(file).get("algorithm")
    if recorded == "grpo" or recorded in ALGORITHMS:
        return str(recorded)
    with zipfile.ZipFile(file) as archive:
        if "reference_policy.pth" in archive.namelist():
            return "grpo"
    raise ValueError(
        f"Expected an agent that GRPO saved at {file}, or one of `vaportok-rl train`, got another algorithm's; write "
        f"its name before the path, for example ppo:{path} ({', '.join(ALGORITHMS)})."
    )


def load_agent(path: Path) -> TaildropPolicy:
    """The policy that GRPO or ``vaportok-rl train`` trained, from a run folder or an agent file.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: the file is no saved agent, or another algorithm's that does not say so.
    """
    algorithm, file = algorithm_of(path), _agent_file(path)
    package, name = ("vaportok_rl.agents.grpo.algorithm", "GRPO") if algorithm == "grpo" else ALGORITHMS[algorithm]
    policy = getattr(importlib.import_module(package), name).load(file, env=None, device="cpu").policy
    if not isinstance(policy, TaildropPolicy):
        raise ValueError(
            f"Expected an agent that chooses lengths at {file}, got a {type(policy).__name__} of another environment; "
            "give a run of `vaportok-rl train`."
        )
    return policy


def run_lengths(path: Path, process: TaildropProcess) -> LengthPolicy:
    """The most probable lengths of an agent that GRPO or ``vaportok-rl train`` trained.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: the file is no such agent, or was trained on another world.
    """
    policy = load_agent(path)
    _view_for(policy.observation_space, process)
    policy.to(process.engine.device).set_training_mode(False)
    return most_probable(policy.length_log_probs)


def agent_lengths(algorithm: str, path: Path, process: TaildropProcess) -> LengthPolicy:
    """What a Stable-Baselines3 agent chooses with ``deterministic=True``, clip after clip.

    The agent sees what it was trained on (any kind of ``obs``, flat or not; recognised by its observation space),
    masked algorithms their masks and recurrent ones their own state. Observations are not normalised: an agent trained
    under `VecNormalize` would need its statistics.

    Args:
        algorithm: among `ALGORITHMS`.
        path: the file that ``agent.save`` wrote, or a folder with an ``agent.zip``.
        process: the decision process it will be used on.

    Raises:
        ModuleNotFoundError: the algorithm's package is not installed.
        FileNotFoundError: there is no agent.
        ValueError: the file is not one that this algorithm saved, or the agent was trained on another world.
    """
    package, name = ALGORITHMS[algorithm]
    try:
        agent_class = getattr(importlib.import_module(package), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Expected {package} for {algorithm} agents, found none; install it with `pip install {package}`."
        ) from error
    file = _agent_file(path)
    try:
        agent = agent_class.load(file, env=None, device=process.engine.device)
    except Exception as error:  # whatever an algorithm makes of another one's file
        raise ValueError(
            f"Expected an agent that {name} saved at {file}, got {type(error).__name__}: {error}; name the algorithm "
            f"that saved it ({', '.join(ALGORITHMS)}; none before the path for GRPO)."
        ) from error
    view = _view_for(agent.observation_space, process)
    if getattr(agent.action_space, "n", None) != process.tokens:
        raise ValueError(
            f"Expected an agent with Discrete({process.tokens}) actions, got {agent.action_space}; roll it out on the "
            "tokenizer it was trained on."
        )
    masked = "action_masks" in inspect.signature(agent.predict).parameters

    @torch.no_grad()
    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        paths, length = scene.shape
        spent, state = np.zeros(paths, dtype=np.int64), None
        lengths, log_probs = [], []
        for step in range(length):
            steps = np.full(paths, step)
            observation = view.present(view.observe(scene, steps))
            masks = process.token_range.masks(steps, spent)
            actions, state = agent.predict(
                observation,
                state=state,
                episode_start=np.full(paths, step == 0),
                deterministic=True,
                **({"action_masks": masks} if masked else {}),
            )
            spent = spent + process.token_range.clip(actions + 1, steps, spent)
            lengths.append(torch.from_numpy(actions + 1))
            log_probs.append(_log_prob(agent.policy, observation, actions, masks))
        device = scene.codes.device
        return LengthChoice(torch.stack(lengths, 1).to(device), torch.stack(log_probs, 1).float().to(device))

    return policy


def _agent_file(path: Path) -> Path:
    file = path / AGENT_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected an agent at {file}, found none; give a run folder that `vaportok-rl train` wrote, or an "
            f"{AGENT_FILE}."
        )
    if not zipfile.is_zipfile(file):
        raise ValueError(f"Expected a saved agent at {file}, got a file that is no zip archive; give an {AGENT_FILE}.")
    return file


def _log_prob(policy: Any, observation: Any, actions: NDArray[np.int64], masks: NDArray[np.bool_]) -> Tensor:
    """``float32 [P]``; NaN for policies without a distribution, or with one that takes their hidden state."""
    find = getattr(policy, "get_distribution", None)
    takes = set() if find is None else set(inspect.signature(find).parameters)
    if find is None or takes - {"obs", "action_masks"}:
        return torch.full(actions.shape, math.nan)
    seen, _ = policy.obs_to_tensor(observation)
    distribution = find(seen, masks) if "action_masks" in takes else find(seen)
    found: Tensor = distribution.log_prob(torch.as_tensor(actions, device=policy.device))
    return found.cpu()


def _view_for(space: spaces.Space[Any], process: TaildropProcess) -> TaildropProcess:
    """The process, observed as an agent with this observation space expects it.

    Raises:
        ValueError: this world offers no such observations.
    """

    def fits(name: str, part: spaces.Space[Any], flatten: bool) -> bool:
        if name not in OBSERVATIONS:
            return False
        # Bounds may differ: how large latents grow and which codes there are says nothing about what an agent can read.
        box = observation_box(process.engine.config, name, flatten)
        return part.shape == box.shape and part.dtype == box.dtype

    for flatten in (False, True):
        obs: str | tuple[str, ...] | None
        if isinstance(space, spaces.Dict):
            obs = tuple(space.spaces) if all(fits(name, part, flatten) for name, part in space.items()) else None
        else:
            obs = next((name for name in OBSERVATIONS if fits(name, space, flatten)), None)
        if obs is not None:
            view = copy.copy(process)
            view.settings = replace(process.settings, obs=obs, flatten_obs=flatten)
            return view
    raise ValueError(
        f"Expected an agent that observes {', '.join(OBSERVATIONS)} of {process.tokenizer!r}, got one for {space}; "
        "roll it out on the tokenizer it was trained on."
    )
