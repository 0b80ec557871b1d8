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
from vaportok_rl.runtime.messages import install_extra
from vaportok_rl.version import __version__

_ROOT = "MINARI_DATASETS_PATH"
_DATA, _METADATA = "data", "metadata.json"


def environment_spec(process: TaildropProcess) -> EnvSpec:
    """The specification of a process's environment as plain data, for `gymnasium.make`.

    Raises:
        ValueError: the reward is an object, or its terms are functions, which a file cannot hold.
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


class MinariRecorder:
    """Collects episodes and saves them as one dataset in ``MINARI_DATASETS_PATH``, or Minari's default folder.

    Each path is an episode of L steps: L + 1 observations (the last one twice), the actions as requested by the policy,
    the step rewards, and the scene's seed. ``infos`` holds the other columns of `Rollout.rows`, such as the behaviour
    policy's ``log_prob``; the first entry, of the reset, is 0 or empty. ``dataset.recover_environment()`` gives an
    environment that pays the same rewards for an episode's seed and actions; with ``eval_env=True``, one on the
    held-out clips. All episodes stay in memory until `save`.

    Args:
        name: ``name``, ``name-v1`` or ``namespace/name-v1``; version 0 by default.
        process: the MDP.
        policy: its name, for the dataset's description.

    Raises:
        ModuleNotFoundError: Minari is not installed.
        ValueError: the name is malformed, or the process is not plain data; see `environment_spec`.
        FileExistsError: a dataset of that name exists.
    """

    def __init__(self, name: str, process: TaildropProcess, policy: str) -> None:
        try:
            # An optional dependency.
            self._minari = importlib.import_module("minari")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"Expected Minari for writing a dataset, found none; {install_extra('minari')}, or leave the dataset "
                "out."
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
                    # Lists, because Minari cannot read back one-dimensional arrays.
                    infos={name: [type(column.iloc[0])(), *column] for name, column in figures.items()},
                )
            )

    def _observations(self, episode: Episode) -> Any:
        """Arrays ``[L + 1, ...]``: one, or a dictionary of several."""
        shown = [self.process.observe(episode.scene, np.array([step])) for step in range(self.process.path_length + 1)]
        return self.process.present({name: np.concatenate([each[name] for each in shown]) for name in shown[0]})

    def save(self) -> Path:
        """Writes the dataset, whole or not at all; returns its folder.

        Minari loads every folder with a ``metadata.json``, which it writes first. Here that file comes last: a folder
        left by a killed process has none, is never loaded, and is replaced by the next dataset of that name.

        Raises:
            FileExistsError: a dataset of that name exists by now, or another process writes one.
        """
        self._refuse_if_taken()
        self.folder.mkdir(parents=True, exist_ok=True)
        hold_run_folder(self.folder)
        scratch, data = self.folder / ".part", self.folder / _DATA
        try:
            self._refuse_if_taken()  # again: another process may have finished meanwhile
            self._discard(scratch, data)
            written = self._write(scratch)
            data.mkdir()
            for entry in written.iterdir():
                if entry.name != _METADATA:
                    entry.replace(data / entry.name)
            if hasattr(os, "sync"):  # the episodes reach the disk before the metadata
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
            with contextlib.suppress(OSError):  # not empty after success
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
        """Lets Minari write the dataset below ``root``; returns the folder of its episodes."""
        held_out = copy.deepcopy(self.spec)
        held_out.kwargs["split"] = "test"
        given = os.environ.get(_ROOT)
        os.environ[_ROOT] = str(root)
        try:
            with warnings.catch_warnings():
                # It asks for an author and a permanent link, which this package does not know.
                warnings.filterwarnings("ignore", message=".*is set to None", category=UserWarning)
                self._minari.create_dataset_from_buffers(
                    self.dataset_id,
                    self._buffers,
                    env=self.spec,
                    eval_env=held_out,
                    algorithm_name=self.policy,
                    description=f"{len(self._buffers)} paths of {self.policy} on {self.process.source.describe()}",
                    requirements=[f"vaportok-rl>={__version__}"],
                    # For pyarrow, which is a dependency anyhow.
                    data_format="arrow",
                )
        finally:
            del os.environ[_ROOT]
            if given is not None:
                os.environ[_ROOT] = given
        return root / self.dataset_id / _DATA
