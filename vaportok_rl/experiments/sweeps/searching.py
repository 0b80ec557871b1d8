"""A sweep by Optuna; workers share one study through its storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaportok_rl.experiments.sweeps.plan import Search
from vaportok_rl.experiments.sweeps.running import Row, Worker
from vaportok_rl.runtime.held_folders import hold_run_folder, release_run_folder
from vaportok_rl.runtime.messages import install_extra
from vaportok_rl.runtime.seeds import derive_seed

_JOURNAL = "journal:"
# Attributes of a trial.
_ROWS, _NOTES = "rows", "notes"
# Attribute of a study.
_DISTANCES = "distances"


def open_study(search: Search, name: str) -> Any:
    """The study of this name, created if missing.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: the storage is not reachable.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Expected the package optuna for [optuna], got none; {install_extra('sweep')}."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage: Any = search.storage
        if storage.startswith(_JOURNAL):
            backend = optuna.storages.journal.JournalFileBackend(storage.removeprefix(_JOURNAL))
            storage = optuna.storages.JournalStorage(backend)
        return optuna.create_study(storage=storage, study_name=name, direction=search.direction, load_if_exists=True)
    except Exception as error:  # each database has its own error types
        raise ValueError(
            f"Expected a reachable storage, got {search.storage!r} ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); check the address, or use "
            "journal:FILE."
        ) from error


def search(worker: Worker) -> list[Row] | None:
    """Runs trials until the study has enough; first resumes the unfinished ones of this folder.

    Returns:
        The rows of all finished trials, by trial and seed; None while other workers still run some.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after saving; the next call resumes the run.
        ValueError: the storage cannot be reached, or its trials were judged by another feature network or generator.
    """
    import optuna

    plan = worker.plan
    assert plan.search is not None
    study = open_study(plan.search, f"vaportok-{plan.identity}")
    known = study.user_attrs.get(_DISTANCES, worker.distances)
    if known != worker.distances:
        raise ValueError(
            f"Expected the feature network and the generator that judged the earlier trials ({known}), got others "
            f"({worker.distances}); restore their files, or choose another --out and storage."
        )
    study.set_user_attr(_DISTANCES, worker.distances)
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=(states.RUNNING,)):
        folder = worker.out / "trials" / str(trial.number)
        if folder.is_dir() and len(trial.params) == len(plan.search.space):
            try:
                hold_run_folder(folder)
            except FileExistsError:
                continue
            _make(worker, study, optuna.trial.Trial(study, trial._trial_id), trial.params)
            release_run_folder(folder)
    while sum(trial.state != states.FAIL for trial in study.get_trials(deepcopy=False)) < plan.search.trials:
        trial = study.ask()
        if trial.number >= plan.search.trials:  # another worker was faster
            study.tell(trial, state=states.FAIL)
            break
        folder = worker.out / "trials" / str(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        hold_run_folder(folder)
        # A trial's settings depend on its number and the earlier trials, not on the worker.
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(plan.identity, trial.number) % 2**32)
        _make(worker, study, trial, {name: _suggest(trial, name, own) for name, own in plan.search.space.items()})
        release_run_folder(folder)
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == states.RUNNING for trial in trials):
        return None
    complete = [trial.user_attrs for trial in trials if trial.state == states.COMPLETE]
    for own in complete:
        worker.notes |= own[_NOTES]
    return [row for own in complete for row in own[_ROWS]]


def _make(worker: Worker, study: Any, trial: Any, changes: Mapping[str, Any]) -> None:
    plan = worker.plan
    assert plan.search is not None
    rows = [worker.make(f"trial-{trial.number:03d}", changes, seed) for seed in plan.seeds]
    trial.set_user_attr(_ROWS, rows)
    trial.set_user_attr(_NOTES, worker.notes)
    study.tell(trial, sum(row[plan.search.metric] for row in rows) / len(rows))


def _suggest(trial: Any, name: str, choices: Any) -> Any:
    if not isinstance(choices, Mapping):
        return trial.suggest_categorical(name, list(choices))
    low, high = choices["low"], choices["high"]
    log, step = choices.get("log", False), choices.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log, step=step or 1)
    return trial.suggest_float(name, float(low), float(high), log=log, step=step)
