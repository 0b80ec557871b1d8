"""The example scripts, importable by name."""

from pathlib import Path

import pytest
from torch.distributions import Distribution

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    # TorchRL and skrl switch off the argument checks of all distributions when they are imported; the tests that follow
    # get them back.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)
