"""A rollout as a Minari dataset, for offline reinforcement learning."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.rollouts.playing import Episode
from vaportok_rl.registration import TAILDROP_ID
from vaportok_rl.runtime.held_folders import LOCK_FILE, hold_run_folder, release_run_folder
from vaportok_rl.version import __version__

_ROOT = "MINARI_DATASETS_PATH"
_DATA, _METADATA = "data", "metadata.json"


def environment_spec(process: TaildropProcess) -> EnvSpec:
    """The specification of the environment behind a process, as plain data: `gymnasium.make` of it is the same.

    Raises:
        ValueError: the reward was given as an object, or its terms as functions, which no file can hold.
    """
    reward = process.settings.reward
    spec = copy.deepcopy(gymnasium.spec(TAILDROP_ID))
    if reward is None or isinstance(reward, Mapping):
        # The weights may have been changed since.
        now = process.reward.weights_now()
        reward = {**(reward or {}), "weights": {name: now[name] for name in process.reward.weights}}
    spec.kwargs = {**process.settings.as_arguments(), "reward": reward, "render_mode": None}
    try:
        spec.to_json()
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Expected an environment of plain data, so that the dataset can recover it, got a reward of Python "
            "objects; give reward= as a dictionary, and terms as 'module:name'."
        ) from error
    return spec


def held_out_spec(spec: EnvSpec) -> EnvSpec:
    """The same environment on held-out clips."""
    spec = copy.deepcopy(spec)
    spec.kwargs["split"] = "test"
    return spec


class MinariRecorder:
    """Collects episodes and saves them as one dataset, where ``MINARI_DATASETS_PATH`` or Minari's default says.

    A path is an episode of L steps: the observations that the environment would show (L + 1, the last twice), the
    actions that the policy asked for, the step rewards, and the scene's seed. ``infos`` holds the other columns of
    `Rollout.rows` (the first entry, of the reset, is 0 or empty), among them the behaviour policy's ``log_prob``.
    ``dataset.recover_environment()`` gives the environment: reset to an episode's seed and stepped with its actions, it
    pays the same rewards. With ``eval_env=True`` it gives the held-out split of the same clips. Everything is held in
    memory until it is saved.

    Args:
        name: ``name``, ``name-v1`` or ``namespace/name-v1``; version 0 if none is given.
        process: what is rolled out.
        policy: goes into the dataset's description.

    Raises:
        ModuleNotFoundError: Minari is not installed.
        ValueError: the name is malformed, or the process is not plain data; see `environment_spec`.
        FileExistsError: there is a dataset of that name.
    """

    def __init__(self, name: str, process: TaildropProcess, policy: str) -> None:
        try:
            # Optional: neither imported nor type-checked unless it is asked for.
            self._minari = importlib.import_module("minari")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Expected Minari for writing a dataset, found none; install it with `pip install "
                "'vaportok-rl[minari]'`, or leave the dataset out."
            ) from error
        if not re.fullmatch(r"(\w[-\w]*/)*\w[-\w]*", name):
            raise ValueError(
                f"Expected a Minari dataset name such as vaportok/random-v0, got {name!r}; use letters, digits, - "
                "and _."
            )
        self.dataset_id = name if re.search(r"-v\d+$", name) else f"{name}-v0"
        self.process = process
        self.policy = policy
        self.spec = environment_spec(process)
        self.folder: Path = importlib.import_module("minari.storage").get_dataset_path(self.dataset_id)
        self._refuse_if_taken()
        self._buffers: list[Any] = []

    def _refuse_if_taken(self) -> None:
        unfinished = (self.folder / LOCK_FILE).exists() and not (self.folder / _DATA / _METADATA).exists()
        if self.folder.exists() and not unfinished:
            raise FileExistsError(
                f"Expected a new Minari dataset, got {self.dataset_id}, which exists in {self.folder}; nothing was "
                "overwritten. Choose another name or version."
            )

    def add(self, episode: Episode) -> None:
        """Collects the paths of an episode."""
        process, length = self.process, self.process.path_length
        observations = self._observations(episode)
        rows = episode.rows(process)
        for path in range(episode.paths):
            decisions = rows[rows["path"] == path]
            figures = decisions.drop(columns=["scene", "path", "step", "reward"])
            self._buffers.append(
                self._minari.data_collector.EpisodeBuffer(
                    id=len(self._buffers),
                    seed=episode.seed,
                    observations=observations,
                    actions=episode.chosen[path, 0].cpu().numpy() - 1,
                    rewards=decisions["reward"].tolist(),
                    terminations=[False] * (length - 1) + [True],
                    truncations=[False] * length,
                    # Lists: what Minari writes of one-dimensional arrays, it cannot read.
                    infos={name: [type(column.iloc[0])(), *column] for name, column in figures.items()},
                )
            )

    def _observations(self, episode: Episode) -> Any:
        """Arrays ``[L + 1, ...]``: one, or a dictionary of several."""
        shown = [self.process.observe(episode.scene, np.array([step])) for step in range(self.process.path_length + 1)]
        return self.process.present({name: np.concatenate([each[name] for each in shown]) for name in shown[0]})

    def save(self) -> Path:
        """Writes the dataset, whole or not at all; returns its folder.

        Minari reads what has a ``metadata.json``, and writes that first. Here it comes last: what a killed process left
        has none, is never loaded, and is replaced by the next one.

        Raises:
            FileExistsError: there is a dataset of that name by now, or another process writes one.
        """
        self._refuse_if_taken()
        self.folder.mkdir(parents=True, exist_ok=True)
        hold_run_folder(self.folder)
        scratch, data = self.folder / ".part", self.folder / _DATA
        try:
            self._refuse_if_taken()  # one that waited for the lock
            self._discard(scratch, data)
            written = self._write(scratch)
            data.mkdir()
            for entry in written.iterdir():
                if entry.name != _METADATA:
                    entry.replace(data / entry.name)
            if hasattr(os, "sync"):  # the episodes reach the disk before what vouches for them
                os.sync()
            for described in scratch.rglob("namespace_metadata.json"):
                place = self._root / described.parent.relative_to(scratch) / described.name
                if not place.exists():
                    described.replace(place)
            (written / _METADATA).replace(data / _METADATA)
        except BaseException:
            self._discard(data)
            raise
        finally:
            self._discard(scratch)
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            release_run_folder(self.folder)
            with contextlib.suppress(OSError):  # it holds the dataset
                self.folder.rmdir()
        return self.folder

    @property
    def _root(self) -> Path:
        return self.folder.parents[self.dataset_id.count("/")]

    @staticmethod
    def _discard(*folders: Path) -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, root: Path) -> Path:
        """Has Minari write the dataset among those in ``root``; returns the folder of its episodes."""
        given = os.environ.get(_ROOT)
        os.environ[_ROOT] = str(root)
        try:
            with warnings.catch_warnings():
                # It asks for an author and a permanent link, which are not ours to make up.
                warnings.filterwarnings("ignore", message=".*is set to None", category=UserWarning)
                self._minari.create_dataset_from_buffers(
                    self.dataset_id,
                    self._buffers,
                    env=self.spec,
                    eval_env=held_out_spec(self.spec),
                    algorithm_name=self.policy,
                    description=f"{len(self._buffers)} paths of {self.policy} on {self.process.source.describe()}",
                    requirements=[f"vaportok-rl>={__version__}"],
                    # Reads and writes with pyarrow, which this package needs anyhow.
                    data_format="arrow",
                )
        finally:
            del os.environ[_ROOT]
            if given is not None:
                os.environ[_ROOT] = given
        return root / self.dataset_id / _DATA
