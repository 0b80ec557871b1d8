"""Pictures of the explorer's page for the documentation.

Run: python -m vaportok_rl.experiments.explorer.screenshots explorer.html FOLDER
"""

from __future__ import annotations

from pathlib import Path

import tyro

from vaportok_rl.experiments.explorer.browser import Chromium

SHOTS = {
    "explorer.png": (1000, 1060, False),
    "explorer-narrow.png": (360, 740, False),
    "explorer-dark.png": (1000, 1060, True),
}
"""Width and height in pixels and whether dark, by file."""


def main(page: Path, folder: Path, /) -> None:
    """Takes a wide, a narrow and a dark picture.

    Args:
        page: that `vaportok-rl explore` wrote.
        folder: where to write the PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Chromium() as browser:
        for name, (width, height, dark) in SHOTS.items():
            browser.show(width, height, dark)
            browser.open(page)
            # Decoded, and still: the same page gives the same picture.
            browser.evaluate("ready.then(() => { at('play').click(); state.frame = 0; drawVideos(); })")
            browser.screenshot(folder / name)
            print(folder / name)


if __name__ == "__main__":
    tyro.cli(main)
