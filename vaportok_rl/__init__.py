"""Adaptive video tokenization as a reinforcement-learning environment."""

from vaportok_rl.version import __version__

__all__ = ["__version__"]
