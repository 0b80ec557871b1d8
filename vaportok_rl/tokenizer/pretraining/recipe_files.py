"""Recipes: files that hold every setting of a pretraining run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """Reads a recipe.

    Args:
        name: of a shipped recipe (``"nano"``), or the path of a TOML file.

    Returns:
        Settings by name, of the command ``pretrain`` and of `PretrainConfig`; arrays as tuples.

    Raises:
        ValueError: there is no such recipe, or it is not TOML.
    """
    shipped = _FOLDER / f"{name}.toml"
    file = shipped if name in recipe_names() else Path(name)
    if not file.is_file():
        raise ValueError(
            f"Expected a recipe among {', '.join(recipe_names())}, or a TOML file, got {name!r}; name one."
        )
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected settings in TOML in {file}, got a syntax error ({error}); correct it.") from error
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
