"""Training batches in a fixed order, decoded in advance by worker processes."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.clips.source import ClipSource
from vaportok_rl.runtime.messages import warn_user
from vaportok_rl.runtime.ranks import Processes

# Batches that a worker prepares: enough to hide uneven decoding times.
_PREFETCHED = 2


@dataclass(frozen=True)
class _Delivery:
    """A worker's result for one step. Exceptions are values: torch would rebuild them from a string."""

    clips: Tensor | None
    error: Exception | None
    notices: list[str]
    skipped: dict[Path, str]


class ClipLoader:
    """The batches of a training run: each step's clips in the order of `ClipOrder`; footage is augmented.

    Step ``s`` takes positions ``s * batch_size … (s + 1) * batch_size - 1`` of the order. Each rank loads a contiguous
    block of them, so all ranks together see what a single process would. The batches do not depend on the number of
    workers, on the first step, or on earlier batches, and the global random state is not touched.

    Workers are spawned processes with one thread each; a fork would break decoding threads. They ignore Ctrl-C and end
    with the process that started them. As always with spawned processes, a script keeps its code under
    ``if __name__ == "__main__":``.

    Args:
        source: training clips; with workers it must pickle.
        batch_size: clips per step, over all ranks.
        seed: of order and augmentation.
        workers: number of decoding processes; 0 decodes in this process, between the steps.
        processes: the ranks.

    Attributes:
        order: the order of the clips.
        skipped: the files in which something could not be read so far, by any worker, and why.

    Raises:
        ValueError: an argument is out of its range, the source is empty, or the batch does not divide evenly.
    """

    def __init__(
        self,
        source: ClipSource,
        batch_size: int,
        *,
        seed: int,
        workers: int = 0,
        processes: Processes = Processes(),  # noqa: B008 (it is frozen)
    ) -> None:
        if len(source) < 1:
            raise ValueError(f"Expected a source with at least one clip, got none ({source.describe()}); add videos.")
        if workers < 0:
            raise ValueError(f"Expected workers of at least 0, got {workers}; pass 0 to decode in this process.")
        if batch_size < 1 or batch_size % processes.count:
            raise ValueError(
                f"Expected a batch that divides evenly among {processes.count} processes, got batch_size={batch_size}; "
                f"pass a multiple of {processes.count}."
            )
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.processes = processes
        self.order = ClipOrder(len(source), seed)
        self.skipped: dict[Path, str] = dict(source.skipped)
        self._named: set[str] = set()

    @property
    def local_batch_size(self) -> int:
        """Clips per step in this process."""
        return self.batch_size // self.processes.count

    def clips_at(self, position: int, count: int) -> Tensor:
        """The clips at positions ``position … position + count - 1`` of the order, loaded in this process.

        Returns:
            ``uint8 [count, C, T, H, W]``.
        """
        indices, visits = self.order.take(position, count), self.order.visits(position, count)
        clips = self.source.training_batch(indices, visits, self.seed).clips
        self.skipped.update(self.source.skipped)
        return clips

    def first_clips(self, count: int, batch_size: int = 64) -> Iterator[Tensor]:
        """The first clips of the order without augmentation, the same on every rank.

        Args:
            count: maximum number; a source with fewer clips gives each once.
            batch_size: clips per batch.

        Yields:
            ``uint8 [at most batch_size, C, T, H, W]``.
        """
        count = min(count, len(self.source))
        for start in range(0, count, batch_size):
            yield self.source.batch(self.order.take(start, min(batch_size, count - start))).clips

    def batches(self, first_step: int = 0) -> Generator[Tensor, None, None]:
        """This rank's part of the batches of steps ``first_step, first_step + 1, …``, without end.

        Closing (or dropping) the iterator stops its workers.

        Yields:
            ``uint8 [local_batch_size, C, T, H, W]``.

        Raises:
            Exception: of the source, in this process or in a worker.

        Warns:
            UserWarning: of the source; each message once over all workers.
        """
        return self._in_workers(first_step) if self.workers else self._in_process(first_step)

    def _share(self, step: int) -> Tensor:
        """This rank's clips of a step."""
        local = self.local_batch_size
        return self.clips_at(step * self.batch_size + self.processes.rank * local, local)

    def _in_process(self, first_step: int) -> Generator[Tensor, None, None]:
        for step in itertools.count(first_step):
            yield self._share(step)

    def _in_workers(self, first_step: int) -> Generator[Tensor, None, None]:
        loader = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=cast(Sampler[int], itertools.count(first_step)),
            num_workers=self.workers,
            multiprocessing_context="spawn",
            worker_init_fn=_prepare_worker,
            prefetch_factor=_PREFETCHED,
            # Without one, the loader draws a number from the global generator.
            generator=torch.Generator(),
        )
        with _interrupts_held():
            deliveries = cast(Iterator[_Delivery], iter(loader))
        for delivery in deliveries:
            self.skipped.update(delivery.skipped)
            for notice in delivery.notices:
                if notice not in self._named:
                    self._named.add(notice)
                    warn_user(notice)
            if delivery.clips is None:
                raise delivery.error or RuntimeError("Expected clips or an error from a worker, got neither.")
            yield delivery.clips


class _Steps(Dataset[_Delivery]):
    """A rank's part of each step, as a worker computes it."""

    def __init__(self, loader: ClipLoader) -> None:
        self.loader = loader

    def __getitem__(self, step: int) -> _Delivery:
        clips, failure = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # Of a library that draws clips, for its developers.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                clips = self.loader._share(step)
            except Exception as error:
                failure = _portable(error)
        return _Delivery(clips, failure, [str(notice.message) for notice in caught], dict(self.loader.skipped))


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or a `RuntimeError` that quotes it if it cannot be pickled."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    told = "".join(traceback.format_exception(error))
    if not isinstance(copy, type(error)):
        return RuntimeError(f"A worker that decodes clips failed:\n{told}")
    error.add_note(f"Raised in a worker that decodes clips:\n{told}")
    return error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Blocks Ctrl-C in this thread, and for good in processes started meanwhile.

    Otherwise it would kill workers that are still importing, and with them the training.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker(_: int) -> None:
    """Leaves Ctrl-C to the training process, and exits without taking the interpreter down.

    A decoding thread that still runs then would abort the process, and the loader would report a killed worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Finalize(None, os._exit, (0,), exitpriority=-100)
