"""Runs the tutorials as they stand and writes them with their outputs: `python docs/execute.py FOLDER`."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode


def as_terminal(text: str) -> str:
    """What a terminal shows in the end: progress bars overwrite their line; colours are left out."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", re.split(r"\x1b\[2K|\r", line)[-1]) for line in lines)


def shown(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs without standard error, and with standard output in one piece."""
    found: list[NotebookNode] = []
    for output in outputs:
        if output.output_type != "stream":
            found.append(output)
        elif output.name == "stdout" and found and found[-1].output_type == "stream":
            found[-1].text += output.text
        elif output.name == "stdout":
            found.append(output)
    for output in found:
        if output.output_type == "stream":
            output.text = as_terminal(output.text)
    return found


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
                cell.outputs = shown(cell.outputs)
        text = nbformat.writes(notebook).replace(f"{folder.resolve()}/", "")  # some commands print whole paths
        text = re.sub(r"(events\.out\.tfevents)[\w.-]+", r"\1", text)  # holds the time and the machine's name
        (folder / source.name).write_text(text, encoding="utf-8")
        print(f"{source.stem}: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
