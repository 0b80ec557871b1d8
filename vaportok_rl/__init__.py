"""Adaptive video tokenization as a reinforcement-learning environment.

Importing the package registers its environments with Gymnasium; the modules behind them load on first use.
"""

from vaportok_rl.registration import register_environments
from vaportok_rl.version import __version__

register_environments()

__all__ = ["__version__", "register_environments"]
