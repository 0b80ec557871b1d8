"""Length policies by name, as the command line and scripts write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from vaportok_rl.agents.callable_policy import load_callable
from vaportok_rl.agents.lengths import (
    LengthPolicy,
    best_fixed_lengths,
    best_for_each_clip,
    complexity_lengths,
    fixed_lengths,
    pretrained_lengths,
    random_lengths,
    threshold_lengths,
)
from vaportok_rl.agents.saved_agents import ALGORITHMS, agent_lengths, grpo_lengths
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.tokenizer.error_threshold import Search

_BY_NAME: dict[str, Callable[[TaildropProcess], LengthPolicy]] = {
    "random": lambda process: random_lengths,
    "best-fixed": best_fixed_lengths,
    "argmax": pretrained_lengths,
    "complexity": complexity_lengths,
    "oracle": best_for_each_clip,
}


def build_length_policy(spec: str, process: TaildropProcess) -> LengthPolicy:
    """A policy by name.

    | spec | lengths |
    |---|---|
    | ``random`` | uniform over 1 … K |
    | ``fixed:N`` | N for every clip |
    | ``best-fixed`` | the fixed length that earns the most on training scenes |
    | ``argmax`` | what the pretrained taildrop module keeps (all K where its strategy is ``naive``) |
    | ``complexity`` | the mean of the Gaussian prior for the clip's complexity score |
    | ``threshold:X``, ``threshold:X:binary`` | the fewest with a mean squared error of at most X |
    | ``oracle`` | those that earn the most, found by scoring all |
    | a path | of the agent that GRPO saved in a run folder or a file |
    | ``ppo:PATH`` | of an agent that another algorithm saved; the names are those of `ALGORITHMS` |
    | ``module:name`` | of an importable function; see `ScriptedPolicy` |

    Args:
        spec: see above; the first that fits.
        process: the decision process it will be used on.

    Raises:
        ValueError: there is no such policy, or its number or agent does not fit the process.
        FileNotFoundError: a path without an agent.
        ModuleNotFoundError: the package of an agent's algorithm is not installed.
    """
    if spec in _BY_NAME:
        return _BY_NAME[spec](process)
    name, _, value = spec.partition(":")
    if ":" in spec and name == "fixed":
        if not value.isdecimal():
            raise ValueError(f"Expected fixed:N with a whole number N, got {spec!r}; for example fixed:16.")
        return fixed_lengths(int(value), process.tokens)
    if ":" in spec and name == "threshold":
        return threshold_lengths(process, *_threshold(spec, value))
    path = Path(spec).expanduser()
    if path.exists():
        return grpo_lengths(path, process)
    if ":" in spec and name in ALGORITHMS:
        return agent_lengths(name, Path(value).expanduser(), process)
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", spec):
        return load_callable(spec)
    close = difflib.get_close_matches(name, (*_BY_NAME, "fixed", "threshold", *ALGORITHMS), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "check the path."
    raise ValueError(
        f"Expected a policy {', '.join(_BY_NAME)}, fixed:N, threshold:X, the path of a trained agent, ppo:PATH or "
        f"module:name, got {spec!r}; {hint}"
    )


def _threshold(spec: str, value: str) -> tuple[float, Search]:
    number, _, search = value.partition(":")
    try:
        threshold = float(number)
    except ValueError as error:
        raise ValueError(
            f"Expected threshold:X with a mean squared error X, got {spec!r}; for example threshold:0.004."
        ) from error
    if search not in ("", *get_args(Search)):
        raise ValueError(
            f"Expected threshold:X, threshold:X:linear or threshold:X:binary, got {spec!r}; choose one of them."
        )
    return threshold, cast(Search, search or "linear")
