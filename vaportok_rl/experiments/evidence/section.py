"""What each study of the source's evidence writes: a section of docs/results.md, a CSV and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.runtime.whole_writes import whole_write


def verdict(low: float, high: float, neutral: float = 0.0) -> str:
    """Whether the source's claim that a value is above ``neutral`` holds, given the value's interval."""
    return "holds" if low > neutral else "does not hold" if high < neutral else "undecided"


def picture(name: str, caption: str) -> str:
    """The study's picture, for a page in ``docs/``."""
    return f"![{caption}](images/evidence/{name}.png)"


def write_section(
    out: Path,
    name: str,
    paragraphs: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    drawn: Figure | None,
    console: Console,
) -> None:
    """Writes ``NAME.md``, ``NAME.csv`` and ``NAME.png`` and prints the section.

    Args:
        out: an existing folder.
        name: of the study.
        paragraphs: of the section, in Markdown.
        rows: of the CSV.
        drawn: the picture; None if it is written already.
        console: for the section.
    """
    with whole_write(out / f"{name}.csv") as scratch:
        pd.DataFrame(rows).to_csv(scratch, index=False)
    if drawn is not None:
        save_figure(drawn, out / f"{name}.png")
    text = "\n\n".join(paragraphs)
    with whole_write(out / f"{name}.md") as scratch:
        scratch.write_text(text + "\n")
    console.print(text, highlight=False, soft_wrap=True)
