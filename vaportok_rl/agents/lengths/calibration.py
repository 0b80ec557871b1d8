"""Training scenes with every length scored, on which policies without a network are fitted."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.agents.comparison import HeldOut
from vaportok_rl.agents.oracle import best_fixed_length
from vaportok_rl.envs import TaildropProcess

CALIBRATION_SCENES = 8
# Candidates scored in one go; bounds the memory of terms that look at single tokens.
_CHUNK = 512


class Calibration:
    """Scenes of the training split, whichever split the process is on, scored when first asked for and then shared.

    What is fitted here knows as little about held-out clips as a trained policy does.

    Args:
        process: clips, reward and token range.
        scenes: how many training scenes to try every length on.
    """

    def __init__(self, process: TaildropProcess, scenes: int = CALIBRATION_SCENES) -> None:
        self.process = process
        self.scenes = scenes
        self._scored: dict[int, HeldOut] = {}

    def scored(self, scenes: int | None = None) -> HeldOut:
        """Training scenes with the outcome of every length; ``scenes`` of them if given."""
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
        """The fixed length that earns the most on the training scenes."""
        training = self.scored()
        return best_fixed_length(training.every, training.process.reward, training.process.token_range)

    def best_candidate(self, lengths: Tensor) -> int:
        """Which of C ways to keep tokens earns the most on the training scenes.

        Args:
            lengths: ``int64 [C, P, L]`` in 1 … K.
        """
        training = self.scored()
        judge = training.process.judge
        earned = [judge(some, training.every.take).rewards.total.mean(1) for some in lengths.split(_CHUNK)]
        return int(torch.cat(earned).argmax())
