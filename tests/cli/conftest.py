"""What a command line that is refused says."""

from collections.abc import Callable

import pytest

from vaportok_rl.cli.main import main


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that is to fail; returns what it printed, on one line."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return run
