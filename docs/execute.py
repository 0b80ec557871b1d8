"""Runs the tutorials as they stand and writes them with their outputs: `python docs/execute.py FOLDER`."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(folder: Path) -> None:
    """Executes every notebook of ``docs/tutorials`` in the folder; standard error and times are left out."""
    for source in sorted((Path(__file__).parent / "tutorials").glob("*.ipynb")):
        started = time.monotonic()
        notebook = nbformat.read(source, as_version=4)
        NotebookClient(
            notebook, timeout=1200, record_timing=False, resources={"metadata": {"path": str(folder)}}
        ).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        text = nbformat.writes(notebook).replace(f"{folder.resolve()}/", "")  # some commands print whole paths
        text = re.sub(r"(events\.out\.tfevents)[\w.-]+", r"\1", text)  # holds the time and the machine's name
        (folder / source.name).write_text(text, encoding="utf-8")
        print(f"{source.stem}: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
