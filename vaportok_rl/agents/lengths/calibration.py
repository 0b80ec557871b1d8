"""Training scenes with all lengths scored, for fitting policies without a network."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.agents.comparison import HeldOut
from vaportok_rl.agents.oracle import best_fixed_length
from vaportok_rl.envs import TaildropProcess

CALIBRATION_SCENES = 8
# Candidates scored at once; bounds the memory of terms that read single tokens.
_CHUNK = 512


class Calibration:
    """Scored scenes of the training split, for an MDP of any split; cached.

    Args:
        process: clips, reward and token range.
        scenes: number of training scenes.
    """

    def __init__(self, process: TaildropProcess, scenes: int = CALIBRATION_SCENES) -> None:
        self.process = process
        self.scenes = scenes
        self._scored: dict[int, HeldOut] = {}

    def scored(self, scenes: int | None = None) -> HeldOut:
        """Training scenes with the outcomes of all lengths."""
        count = scenes or self.scenes
        if count not in self._scored:
            training = self.process
            if self.process.settings.split != "train":
                arguments = self.process.settings.as_arguments()
                arguments["split"] = "train"
                training = TaildropProcess(**arguments)
                training.reward = self.process.reward
            self._scored[count] = HeldOut(training, count)
        return self._scored[count]

    def best_fixed(self) -> int:
        """The fixed length with the highest reward on the training scenes."""
        training = self.scored()
        return best_fixed_length(training.every, training.process.reward, training.process.token_range)

    def best_candidate(self, lengths: Tensor) -> int:
        """The index of the candidate lengths, ``int64 [C, P, L]``, with the highest reward on the training scenes."""
        training = self.scored()
        judge = training.process.judge
        earned = [judge(some, training.every.take).rewards.total.mean(1) for some in lengths.split(_CHUNK)]
        return int(torch.cat(earned).argmax())
