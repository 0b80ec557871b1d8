"""Length policies by name: scripted, fitted, oracle and trained."""

from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy

__all__ = ["LengthChoice", "LengthPolicy"]
