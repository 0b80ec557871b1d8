"""Agents: GRPO, the Stable-Baselines3 policy over the taildrop module, baselines and oracles."""

from vaportok_rl.agents.comparison import Comparison, HeldOut, PolicyScore
from vaportok_rl.agents.grpo.algorithm import GRPO
from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy
from vaportok_rl.agents.lengths.specs import build_length_policy
from vaportok_rl.agents.oracle import best_fixed_length, oracle_lengths
from vaportok_rl.agents.policy import TaildropPolicy

__all__ = [
    "GRPO",
    "Comparison",
    "HeldOut",
    "LengthChoice",
    "LengthPolicy",
    "PolicyScore",
    "TaildropPolicy",
    "best_fixed_length",
    "build_length_policy",
    "oracle_lengths",
]
