"""The benchmark: versioned tasks with known oracles, a protocol, methods, submissions and a leaderboard.

(The speed of the package itself is measured by the repository's ``benchmarks/``.)
"""

from vaportok_rl.benchmark.arena import Arena, as_act, score_policy
from vaportok_rl.benchmark.tables import find_table
from vaportok_rl.benchmark.tasks import TASKS, Task

__all__ = ["TASKS", "Arena", "Task", "as_act", "find_table", "score_policy"]
