"""A scoring engine that remembers scenes whose every length has been scored, so that nothing is decoded twice."""

from __future__ import annotations

import copy

from torch import Tensor

from vaportok_rl.envs import Outcome, Scene, ScoringEngine, TaildropProcess
from vaportok_rl.envs.table.engine import TableEngine


class KnownOutcomes(ScoringEngine):
    """`ScoringEngine` that looks up the scenes it was told about, and scores all others as ever.

    Args:
        engine: scores what is not known.
    """

    def __init__(self, engine: ScoringEngine) -> None:
        super().__init__(engine.world, engine.max_batch_tokens, bits=engine.bits, distances=engine.distances)
        self._known: tuple[Scene, Outcome] | None = None

    def remember(self, scene: Scene, every: Outcome) -> None:
        """Keeps every length's outcome of a scene, in place of the last one kept."""
        self._known = scene, every

    def score(self, scene: Scene, n_tokens: Tensor) -> Outcome:
        """See `ScoringEngine.score`."""
        if self._known is not None and scene is self._known[0]:
            return self._known[1].take(n_tokens)
        return super().score(scene, n_tokens)

    def score_all(self, scene: Scene) -> Outcome:
        """See `ScoringEngine.score_all`."""
        if self._known is not None and scene is self._known[0]:
            return self._known[1]
        return super().score_all(scene)


def remembering(process: TaildropProcess) -> TaildropProcess:
    """The same process, over an engine that remembers what `HeldOut` scores; over a table, itself."""
    if isinstance(process.engine, TableEngine):
        return process
    twin = copy.copy(process)
    twin.engine = KnownOutcomes(process.engine)
    return twin
