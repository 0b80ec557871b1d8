"""Trained agents as length policies: of `vaportok-rl train` and of Stable-Baselines3's algorithms."""

from __future__ import annotations

import copy
import inspect
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from vaportok_rl.agents.agent_file import (
    AGENT_FILE,
    ALGORITHMS,
    ARCHIVE_FILE,
    algorithm_class,
    check_finite,
    read_agent,
    read_record,
)
from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy, most_probable
from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.envs.process import observation_box
from vaportok_rl.envs.settings import OBSERVATIONS


def algorithm_of(path: Path) -> str:
    """The algorithm of a saved agent, one of `ALGORITHMS`; no code from the file is run.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: the file is no saved agent, or does not name its algorithm.
    """
    file = find_agent(path)
    if not zipfile.is_zipfile(file):
        return str(read_record(file)["algorithm"])
    with zipfile.ZipFile(file) as archive:
        if "reference_policy.pth" in archive.namelist():
            return "grpo"
    raise ValueError(
        f"Expected an agent that GRPO saved at {file}, or one of `vaportok-rl train`, got another algorithm's; write "
        f"its name before the path, for example ppo:{path} ({', '.join(ALGORITHMS)})."
    )


def open_agent(
    path: Path,
    algorithm: str | None = None,
    device: torch.device | str = "cpu",
    tokenizer: str | None = None,
    *,
    trust_archives: bool = False,
) -> BaseAlgorithm:
    """Loads an agent without an environment, from a run folder, an agent file or a trusted archive.

    Args:
        path: a run folder, an ``agent.safetensors``, or an archive of Stable-Baselines3's ``agent.save``.
        algorithm: its algorithm, among `ALGORITHMS`; read from the file by default.
        device: of the policy.
        tokenizer: see `read_agent`.
        trust_archives: read Stable-Baselines3's archives, which can run arbitrary code.

    Raises:
        FileNotFoundError: there is no agent.
        ModuleNotFoundError: the algorithm's package is not installed.
        ValueError: the file is damaged, an archive that is not trusted, or another algorithm's.
    """
    file = find_agent(path)
    archive = zipfile.is_zipfile(file)
    found = algorithm_of(path) if algorithm is None or not archive else algorithm
    if algorithm is not None and found != algorithm:
        raise ValueError(f"Expected an agent that {algorithm} saved at {file}, got {found}'s; drop {algorithm}:.")
    if not archive:
        return read_agent(file, device=device, tokenizer=tokenizer)
    if not trust_archives:
        raise ValueError(
            f"Expected an {AGENT_FILE}, which holds data alone, got the archive {file}: reading it runs whatever code "
            "it holds. If you trust who made it, say so: --trust-archives, in Python trust_archives=True."
        )
    agent_class = algorithm_class(found)
    try:
        agent = agent_class.load(file, env=None, device=device)
    except Exception as error:  # whatever an algorithm makes of another one's file
        raise ValueError(
            f"Expected an agent that {agent_class.__name__} saved at {file}, got {type(error).__name__}: {error}; name "
            f"the algorithm that saved it ({', '.join(ALGORITHMS)}; none before the path for GRPO)."
        ) from error
    check_finite(agent.policy.state_dict(), f"the agent in {file}")
    return agent


def load_agent(path: Path, tokenizer: str | None = None, *, trust_archives: bool = False) -> TaildropPolicy:
    """The policy that GRPO or ``vaportok-rl train`` trained; see `open_agent`.

    Raises:
        ValueError: as for `open_agent`, or it is an agent of another environment.
    """
    policy = open_agent(path, None, "cpu", tokenizer, trust_archives=trust_archives).policy
    if not isinstance(policy, TaildropPolicy):
        raise ValueError(
            f"Expected an agent that chooses lengths at {path}, got a {type(policy).__name__} of another environment; "
            "give a run of `vaportok-rl train`."
        )
    return policy


def run_lengths(path: Path, process: TaildropProcess, *, trust_archives: bool = False) -> LengthPolicy:
    """The most probable lengths of an agent that GRPO or ``vaportok-rl train`` trained.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: the file is no such agent, or was trained on another world.
    """
    policy = load_agent(path, trust_archives=trust_archives)
    _view_for(policy.observation_space, process)
    policy.to(process.engine.device).set_training_mode(False)
    return most_probable(policy.length_log_probs)


def agent_lengths(
    algorithm: str, path: Path, process: TaildropProcess, *, trust_archives: bool = False
) -> LengthPolicy:
    """A Stable-Baselines3 agent with ``deterministic=True``, clip by clip.

    Its observation space decides which ``obs`` it sees. Masked algorithms get their masks, recurrent ones their state.
    Observations are not normalised, so agents trained under `VecNormalize` do not work.

    Args:
        algorithm: among `ALGORITHMS`.
        path: see `open_agent`.
        process: the MDP it will be used on.
        trust_archives: see `open_agent`.

    Raises:
        ModuleNotFoundError: the algorithm's package is not installed.
        FileNotFoundError: there is no agent.
        ValueError: as for `open_agent`, or the agent was trained on another world.
    """
    agent: Any = open_agent(path, algorithm, process.engine.device, trust_archives=trust_archives)
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


def find_agent(path: Path) -> Path:
    """The agent's file in a run folder, or the path itself.

    Raises:
        FileNotFoundError: there is none.
    """
    places = (path / AGENT_FILE, path / ARCHIVE_FILE) if path.is_dir() else (path,)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"Expected an agent at {places[0]}, found none; give a run folder that `vaportok-rl train` wrote, or an "
            f"{AGENT_FILE}."
        )
    return file


def _log_prob(policy: Any, observation: Any, actions: NDArray[np.int64], masks: NDArray[np.bool_]) -> Tensor:
    """``float32 [P]``; NaN for policies without a distribution, or whose distribution needs a hidden state."""
    find = getattr(policy, "get_distribution", None)
    takes = set() if find is None else set(inspect.signature(find).parameters)
    if find is None or takes - {"obs", "action_masks"}:
        return torch.full(actions.shape, math.nan)
    seen, _ = policy.obs_to_tensor(observation)
    distribution = find(seen, masks) if "action_masks" in takes else find(seen)
    found: Tensor = distribution.log_prob(torch.as_tensor(actions, device=policy.device))
    return found.cpu()


def _view_for(space: spaces.Space[Any], process: TaildropProcess) -> TaildropProcess:
    """The MDP with the observations that an agent with this observation space expects.

    Raises:
        ValueError: there are no such observations.
    """

    def fits(name: str, part: spaces.Space[Any], flatten: bool) -> bool:
        if name not in OBSERVATIONS:
            return False
        # Bounds may differ; an agent can read any values of the right shape and type.
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
