"""Imports a user's function by name."""

from __future__ import annotations

import importlib
from typing import Any


def import_by_name(path: str, kind: str) -> Any:
    """Imports the object named as ``module:name``.

    Args:
        path: the module, dotted, and the name in it.
        kind: what it is, for messages; begins with a consonant.

    Raises:
        ValueError: the text is not of that form, the module does not import, or there is no such name in it.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"Expected a {kind} as 'module:name', got {path!r}; for example my_module:my_function.")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # the module is a stranger's code and may raise anything
        raise ValueError(
            f"Expected an importable {kind} at {path!r}, got {type(error).__name__}: {error}; is the module on "
            "PYTHONPATH?"
        ) from error
