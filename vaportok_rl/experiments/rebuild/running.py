"""Runs steps in parallel and records which are done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from vaportok_rl.experiments.rebuild.steps import Step, asked
from vaportok_rl.experiments.run_folder import write_json

RECORD_FILE = "steps.json"
_ALWAYS = 1.0
"""A step of fewer minutes is not remembered: what it shows may depend on code as well."""
_PATIENCE = 30.0
"""Seconds that a command has to save what it has when Ctrl-C ends it."""
_BEFORE = ".before"
"""With a number, ends the name of a folder with former results of a long step."""


@dataclass
class Rebuild:
    """The requested steps and their progress.

    Attributes:
        steps: each after those it needs.
        work: folder of each step's folder and log, and of the record of completed steps.
        root: of the repository, where the commands run.
        places: folder of each given option.
        marks: `fingerprints` of the steps.
        console: prints a line when a step starts and ends.
        jobs: steps run in parallel, each on one thread.
        left_out: reason for each step that could not run.
    """

    steps: Sequence[Step]
    work: Path
    root: Path
    places: Mapping[str, str]
    marks: Mapping[str, str]
    console: Console
    jobs: int = 1
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_name = {step.name: step for step in self.steps}
        for step in self.steps:
            lacking = asked(step, by_name) - self.places.keys()
            if lacking:
                self.left_out[step.name] = f"needs --{min(lacking).replace('_', '-')}"

    @property
    def record(self) -> dict[str, dict[str, Any]]:
        """For each step, the ``fingerprint`` of its settings and inputs, and whether it is ``done``."""
        file = self.work / RECORD_FILE
        found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return found

    def is_done(self, step: Step) -> bool:
        """Whether a step's folder is up to date."""
        known = {"fingerprint": self.marks[step.name], "done": True}
        folder = self.work / step.name
        made = folder.is_dir() and all((folder / file).is_file() for file in step.files)
        return bool(step.command) and self.record.get(step.name) == known and made

    def reopen(self, steps: Sequence[Step]) -> None:
        """Makes the commands of these steps run again; one that resumes keeps what it has finished."""
        names = {step.name for step in steps}
        record = self.record.items()
        self._write({name: {**entry, "done": entry["done"] and name not in names} for name, entry in record})

    def run(self) -> list[Step]:
        """Runs the steps that are not done.

        Returns:
            The completed steps.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after the running commands have ended.
        """
        ready = [step for step in self.steps if step.name not in self.left_out]
        fresh = [step for step in ready if step.command and step.minutes < _ALWAYS]
        self.reopen(fresh)
        waiting = [step for step in ready if not self.is_done(step)]
        total, time_left = len(waiting), hours(minutes(waiting, self.jobs))
        self.console.print(
            f"{len(ready) - total} steps are done, {total} to do: about {time_left}, {self.jobs} at once; logs in "
            f"{self.work}",
            highlight=False,
            soft_wrap=True,
        )
        running: dict[str, tuple[Step, subprocess.Popen[bytes], float]] = {}
        try:
            while waiting or running:
                for step in list(waiting):
                    self._drop_or_start(step, waiting, running)
                for name, (step, process, begun) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[name]
                    self._ended(step, process.returncode, time.monotonic() - begun)
                    left = hours(minutes(waiting, self.jobs))
                    self._say(f"{total - len(waiting) - len(running)} of {total} made; about {left} to come")
                time.sleep(0.1)
        except KeyboardInterrupt:
            # The terminal sends Ctrl-C to the commands too; they save and end.
            for _, process, _ in running.values():
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.terminate()
                    process.wait()
            raise
        return [step for step in ready if step.name not in self.left_out]

    def _drop_or_start(
        self,
        step: Step,
        waiting: list[Step],
        running: dict[str, tuple[Step, subprocess.Popen[bytes], float]],
    ) -> None:
        lost = sorted(step.needs & self.left_out.keys())
        if lost:
            waiting.remove(step)
            self.left_out[step.name] = f"needs {lost[0]}"
            return
        blocked = len(running) >= self.jobs or any(other.alone for other, _, _ in running.values())
        unmet = step.needs & ({other.name for other in waiting} | running.keys())
        if blocked or unmet or (step.alone and running):
            return
        waiting.remove(step)
        if not step.command:
            return
        self._say(f"{step.name} begins, about {hours(step.minutes)}")
        running[step.name] = (step, self._start(step), time.monotonic())

    def _start(self, step: Step) -> subprocess.Popen[bytes]:
        folder = self.work / step.name
        begun = {"fingerprint": self.marks[step.name], "done": False}
        if not (step.resumes and self.record.get(step.name) == begun):
            self._clear(step, folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._write({**self.record, step.name: begun})
        folders = {name: str(self.work / name) for name in step.needs}
        words = step.arguments({**folders, **self.places, "out": str(folder)})
        if step.resume_option and any(folder.iterdir()):
            words.append(step.resume_option)
        program = [sys.executable, *(["-m", "vaportok_rl"] if words[0] == "vaportok-rl" else []), *words[1:]]
        # One thread: the same numbers on any number of cores.
        threads = {} if step.alone else {"OMP_NUM_THREADS": "1"}
        with self._log(step).open("wb") as log:
            return subprocess.Popen(
                program, cwd=self.root, env={**os.environ, **threads}, stdout=log, stderr=subprocess.STDOUT
            )

    def _clear(self, step: Step, folder: Path) -> None:
        """Removes the results of other settings; those of a step that resumes took long and are kept beside it."""
        if step.resumes and folder.is_dir() and any(folder.iterdir()):
            number = 1
            while (kept := folder.with_name(f"{folder.name}{_BEFORE}-{number}")).exists():
                number += 1
            folder.rename(kept)
            self._say(
                f"{step.name}: what was in its folder is of other settings, or unknown; kept as {kept}, which may be "
                "deleted"
            )
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _ended(self, step: Step, status: int, seconds: float) -> None:
        missing = [file for file in step.files if not (self.work / step.name / file).is_file()]
        if status == 0 and not missing:
            self._write({**self.record, step.name: {"fingerprint": self.marks[step.name], "done": True}})
            self._say(f"{step.name} is done after {hours(seconds / 60)}")
            return
        why = f"ended with {status}" if status else f"did not write {missing[0]}"
        self.left_out[step.name] = f"failed: {why}, see {self._log(step)}"
        last = self._log(step).read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        self._say("\n".join((f"{step.name} failed: {why}", *last)))

    def _write(self, record: Mapping[str, Any]) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(self.work / RECORD_FILE, record)

    def _log(self, step: Step) -> Path:
        return self.work / f"{step.name}.log"

    def _say(self, text: str) -> None:
        self.console.print(f"{datetime.now():%H:%M} {text}", highlight=False, soft_wrap=True)


def minutes(steps: Sequence[Step], jobs: int) -> float:
    """Estimated time of the steps with ``jobs`` in parallel."""
    return sum(step.minutes / (1 if step.alone else jobs) for step in steps)


def hours(minutes: float) -> str:
    """A readable duration."""
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
