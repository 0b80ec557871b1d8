"""A command's ``--help`` in under a second: stand-ins take the place of libraries that take seconds to import."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

# What the package's modules name while they are imported; the options themselves are plain Python types.
_STOOD_IN = (
    *("av", "decord", "einops", "huggingface_hub", "imageio", "lpips", "matplotlib", "pandas", "pyarrow"),
    *("safetensors", "scipy", "stable_baselines3", "tensorboard", "torch", "torchmetrics", "torchvision", "typeguard"),
)


class _Anything(type):
    """A class that has every attribute, may be subscripted, united and called, and decorates without effect."""

    def __getattr__(cls, name: str) -> Any:
        return _stand_in(name)

    def __getitem__(cls, key: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:
        return cls

    __ror__ = __or__

    def __call__(cls, *given: Any, **options: Any) -> Any:
        if len(given) == 1 and not options and isinstance(given[0], (FunctionType, type)):
            return given[0]
        return super().__call__(*given, **options)


class _Base(metaclass=_Anything):
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __init_subclass__(cls, **_: Any) -> None: ...

    def __call__(self, function: Any = None, *_: Any, **__: Any) -> Any:
        return function


def _stand_in(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(name, (_Base,), {})


class StandIns(MetaPathFinder, Loader):
    """Finds an empty module that has every attribute where a slow library is imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """See `importlib.abc.MetaPathFinder`."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in _STOOD_IN else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See `importlib.abc.Loader`."""
        module = ModuleType(spec.name)
        module.__dict__["__getattr__"] = _stand_in
        return module

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""


def stand_in() -> None:
    """From now on, slow libraries that are not imported yet never will be: for a process that prints help and ends."""
    sys.meta_path.insert(0, StandIns())
