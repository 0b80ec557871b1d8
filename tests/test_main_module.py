from __future__ import annotations

import subprocess
import sys

from vaportok_rl.version import __version__


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vaportok_rl", "info"], capture_output=True, text=True, check=True, timeout=300
    )
    assert f"vaportok-rl {__version__}" in done.stdout
    assert "640 bits" in done.stdout
