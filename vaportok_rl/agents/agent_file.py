"""The file of a trained agent: tensors (safetensors), JSON and a checksum, without code.

Stable-Baselines3's archives hold pickles, which can run any code when they are read. This file is read into the same
classes, with the state of the optimiser, so that training resumes bit-exactly.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import save_to_zip_file
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import Tensor

from vaportok_rl.runtime.whole_writes import order_metadata, whole_write

AGENT_FILE = "agent.safetensors"
ARCHIVE_FILE = "agent.zip"
"""The same agent in Stable-Baselines3's format, for its ``load``."""
FORMAT, VERSION = "vaportok-agent", 1

ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "grpo": ("vaportok_rl.agents.grpo.algorithm", "GRPO"),
    "a2c": ("stable_baselines3", "A2C"),
    "dqn": ("stable_baselines3", "DQN"),
    "ppo": ("stable_baselines3", "PPO"),
    "reinforce": ("vaportok_rl.agents.reinforce", "REINFORCE"),
    "maskable-ppo": ("sb3_contrib", "MaskablePPO"),
    "qr-dqn": ("sb3_contrib", "QRDQN"),
    "recurrent-ppo": ("sb3_contrib", "RecurrentPPO"),
    "trpo": ("sb3_contrib", "TRPO"),
}
"""Names of algorithms, and where their classes are."""

# Classes that an agent's settings may name; no others are imported.
_CLASSES = {
    "TaildropPolicy": "vaportok_rl.agents.policy",
    "ActorCriticPolicy": "stable_baselines3.common.policies",
    "ActorCriticCnnPolicy": "stable_baselines3.common.policies",
    "MultiInputActorCriticPolicy": "stable_baselines3.common.policies",
    "RolloutBuffer": "stable_baselines3.common.buffers",
    "DictRolloutBuffer": "stable_baselines3.common.buffers",
    **dict.fromkeys(("Adam", "AdamW", "SGD", "RMSprop"), "torch.optim"),
    **dict.fromkeys(("ReLU", "Tanh", "ELU", "LeakyReLU", "SiLU", "GELU"), "torch.nn"),
}
# The last observations are by far the largest part and never used. Clocks and the counter of speeds restart, so that a
# resumed run ends with the bytes of an uninterrupted one.
_LEFT_OUT = {
    *("_last_obs", "_last_original_obs", "_last_episode_starts"),
    *("start_time", "_num_timesteps_at_start", "lr_schedule"),
}
# They would let a file choose an environment to import, or a folder to write to.
_NOT_TAKEN = {"env", "tensorboard_log"}


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """The class of an algorithm among `ALGORITHMS`.

    Raises:
        ModuleNotFoundError: its package is not installed.
    """
    package, attribute = ALGORITHMS[name]
    try:
        found: type[BaseAlgorithm] = getattr(importlib.import_module(package), attribute)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Expected {package} for {name} agents, found none; install it with `pip install {package}`."
        ) from error
    return found


def save_agent(agent: BaseAlgorithm, file: Path, record: Mapping[str, Any]) -> Path:
    """Saves an agent with the record of its run, atomically.

    Args:
        agent: of GRPO, PPO, A2C or REINFORCE.
        file: a ``.safetensors``.
        record: plain data about the run; see `read_record`.

    Raises:
        ValueError: the weights are not finite, or a setting is not plain data.
    """
    name = next((key for key, (_, attribute) in ALGORITHMS.items() if attribute == type(agent).__name__), None)
    if name is None:
        raise ValueError(
            f"Expected an agent of {', '.join(ALGORITHMS)}, got a {type(agent).__name__}; save it with agent.save()."
        )
    parameters = agent.get_parameters()
    left_out = _LEFT_OUT | set(agent._excluded_save_params()) | {part.split(".")[0] for part in parameters}
    state = {key: value for key, value in vars(agent).items() if key not in left_out | _NOT_TAKEN}
    tensors: dict[str, Tensor] = {}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": name,
        "record": record,
        "state": _pack(state, "state", tensors),
        "parameters": _pack(parameters, "parameters", tensors),
    }
    check_finite(tensors, f"an agent to be saved as {file}")
    text = json.dumps(content)
    with whole_write(file) as scratch:
        save_file(tensors, scratch, {"agent": text, "sha256": _digest(text, tensors)})
        order_metadata(scratch)
    return file


def save_archive(agent: BaseAlgorithm, file: Path) -> None:
    """Saves an agent in Stable-Baselines3's format, atomically; this package never reads it."""
    with whole_write(file) as scratch:
        agent.save(scratch, exclude=_LEFT_OUT)


def read_record(file: Path) -> dict[str, Any]:
    """The record saved with an agent, and its ``algorithm``.

    Raises:
        ValueError: the file is damaged or holds no agent.
    """
    content, _ = _read(file)
    return {**content["record"], "algorithm": content["algorithm"]}


def read_agent(
    file: Path, env: GymEnv | None = None, device: torch.device | str = "auto", tokenizer: str | None = None
) -> BaseAlgorithm:
    """Reads what `save_agent` wrote into its Stable-Baselines3 class. No code of the file is run.

    Args:
        file: a ``.safetensors``.
        env: to train on; None to predict only.
        device: of the policy.
        tokenizer: path of the agent's tokenizer on this machine; that of its training by default.

    Raises:
        ValueError: the file is damaged, no agent, or holds weights that are not finite.
    """
    content, tensors = _read(file)
    check_finite(tensors, f"the agent in {file}")
    data = {key: value for key, value in _unpack(content["state"], tensors).items() if key not in _NOT_TAKEN}
    if tokenizer is not None and "tokenizer" in data.get("policy_kwargs", {}):
        data["policy_kwargs"]["tokenizer"] = tokenizer
    # Stable-Baselines3's own loader and checks read an archive that is made here in memory. Settings are passed beside
    # the archive, because it would unpickle them.
    archive = io.BytesIO()
    save_to_zip_file(archive, data=dict.fromkeys(data), params=_unpack(content["parameters"], tensors))
    archive.seek(0)
    return algorithm_class(content["algorithm"]).load(archive, env=env, device=device, custom_objects=data)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            stated = opened.metadata() or {}
        content, tensors = json.loads(stated["agent"]), load_file(file)
    except (SafetensorError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected an agent that vaportok-rl saved at {file}, got another or a damaged file ({error}); copy it "
            f"again, or give an {AGENT_FILE}."
        ) from error
    found = _digest(stated["agent"], tensors)
    if stated.get("sha256") != found:
        raise ValueError(
            f"Expected {file} to have the hash it states, {str(stated.get('sha256'))[:12]}…, got {found[:12]}…: the "
            "file is damaged; copy it again."
        )
    if (content["format"], content["version"]) != (FORMAT, VERSION) or content["algorithm"] not in ALGORITHMS:
        raise ValueError(
            f"Expected {FORMAT} {VERSION} at {file}, got {content['format']} {content['version']}; read it with the "
            "version of vaportok-rl that wrote it."
        )
    return content, tensors


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuses weights that are not finite.

    Raises:
        ValueError: some are not finite; the message names them.
    """
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise ValueError(
            f"Expected finite weights in {what}, got NaN or infinity in {', '.join(bad[:3])}; take the agent of an "
            "earlier round, and look for what was not finite in training."
        )


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Plain data for JSON; tensors are collected once each, under the names of their places."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case np.ndarray():
            return {"$array": _pack(torch.from_numpy(value), name, tensors)["$tensor"]}
        case Tensor():
            held = value.detach().cpu().contiguous()
            same = next((key for key, other in tensors.items() if _shares(held, other)), None)
            if same is None:
                tensors[name] = held
            return {"$tensor": same or name}
        case tuple():
            return {"$tuple": _pack(list(value), name, tensors)}
        case deque():
            return {"$deque": _pack(list(value), name, tensors), "maxlen": value.maxlen}
        case list():
            return [_pack(entry, f"{name}/{number}", tensors) for number, entry in enumerate(value)]
        case spaces.Discrete():
            return {"$discrete": [int(value.n), int(value.start)]}
        case spaces.Box():
            return {"$box": _pack([value.low, value.high], name, tensors), "dtype": np.dtype(value.dtype).name}
        case spaces.Dict():
            return {"$spaces": _pack(dict(value.spaces), name, tensors)}
        case FloatSchedule():
            return _pack(value.value_schedule, name, tensors)
        case ConstantSchedule():
            return value.val
        case LinearSchedule():
            return {"$linear": [value.start, value.end, value.end_fraction]}
        case type() if _CLASSES.get(value.__name__) is not None:
            return {"$class": value.__name__}
        case Mapping():
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: _pack(entry, f"{name}/{key}", tensors) for key, entry in value.items()}
            return {"$items": [[key, _pack(entry, f"{name}/{key}", tensors)] for key, entry in value.items()]}
    raise ValueError(
        f"Expected plain data in an agent's {name}, got {type(value).__name__}, which no file without code can hold; "
        "use numbers and Stable-Baselines3's own schedules, or save with agent.save()."
    )


def _shares(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors share memory: Stable-Baselines3's policies list a shared extractor three times."""
    return (one.data_ptr(), one.shape, one.dtype) == (other.data_ptr(), other.shape, other.dtype) and one.numel() > 0


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_pack`."""
    if isinstance(value, list):
        return [_unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    kind = next((key for key in value if key.startswith("$")), None)
    if kind is None:
        return {key: _unpack(entry, tensors) for key, entry in value.items()}
    inner = value[kind]
    match kind:
        case "$tensor":
            return tensors[inner].clone()
        case "$array":
            return tensors[inner].numpy().copy()
        case "$tuple":
            return tuple(_unpack(inner, tensors))
        case "$deque":
            return deque(_unpack(inner, tensors), maxlen=value["maxlen"])
        case "$items":
            return {key: _unpack(entry, tensors) for key, entry in inner}
        case "$discrete":
            return spaces.Discrete(inner[0], start=inner[1])
        case "$box":
            low, high = _unpack(inner, tensors)
            return spaces.Box(low, high, dtype=np.dtype(value["dtype"]).type)
        case "$spaces":
            return spaces.Dict(_unpack(inner, tensors))
        case "$linear":
            return LinearSchedule(*inner)
        case "$class" if inner in _CLASSES:
            return getattr(importlib.import_module(_CLASSES[inner]), inner)
    raise ValueError(f"Expected an agent of plain data, got {kind} {inner!r}; read it with a newer vaportok-rl.")
