"""A checker for Gymnasium vector environments."""

from vaportok_rl.envs.vector_checker.checker import check_vector_env

__all__ = ["check_vector_env"]
