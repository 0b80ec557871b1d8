"""Copies the steps' results into README and ``docs/`` and reports which metrics changed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vaportok_rl.experiments.rebuild.figures import changes
from vaportok_rl.experiments.rebuild.steps import Step
from vaportok_rl.runtime.markdown import markdown_table, replace_passage
from vaportok_rl.runtime.whole_writes import whole_write


def publish(steps: Sequence[Step], work: Path, root: Path, names: Mapping[str, str]) -> list[str]:
    """Copies the steps' files to their places and writes their passages.

    Args:
        steps: completed ones.
        work: parent of the steps' folders.
        root: of the repository.
        names: replacements, in pages, for paths of this machine.

    Returns:
        The files written, relative to the root.
    """
    pages: dict[str, bytes] = {}
    for step in steps:
        for source, target in step.files.items():
            content = (work / step.name / source).read_bytes()
            pages[target] = content if not target.endswith(".md") else _renamed(content.decode(), names).encode()
        for passage in step.passages:
            page = pages.get(passage.page) or (root / passage.page).read_bytes()
            content_now = _renamed(passage.write(work), names)
            pages[passage.page] = replace_passage(page.decode(), passage.name, content_now).encode()
    for target, content in pages.items():
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        with whole_write(root / target) as scratch:
            scratch.write_bytes(content)
    return sorted(pages)


def committed(root: Path, targets: Sequence[str]) -> dict[str, bytes]:
    """These files at the last commit, or as they are now without git; missing files are left out."""
    found = {}
    for target in targets:
        shown = subprocess.run(["git", "show", f"HEAD:./{target}"], cwd=root, capture_output=True, check=False)
        if shown.returncode == 0:
            found[target] = shown.stdout
        elif (root / target).is_file():
            found[target] = (root / target).read_bytes()
    return found


def report(before: Mapping[str, bytes], root: Path, written: Sequence[str], times: Sequence[str]) -> tuple[str, int]:
    """The changes since the last commit.

    Args:
        before: from `committed`.
        root: of the repository.
        written: the files.
        times: pages of times, which are not compared.

    Returns:
        A table of the files with, below it, a line for each metric that changed by more than its interval; and the
        number of these lines.
    """
    rows, lines = [], []
    for target in written:
        old, new = before.get(target), (root / target).read_bytes()
        state = "new" if old is None else "as before" if old == new else "changed"
        row = [target, state, "", "", ""]
        if target in times:
            row[2] = "times"
        elif target.endswith(".md") and old is not None:
            count, differ, beyond = changes(old.decode(), new.decode())
            row[2:] = [str(count), str(differ), str(len(beyond))]
            lines += [f"- {target}: {line}" for line in beyond]
        rows.append(row)
    table = markdown_table(("written", "", "numbers", "differ", "beyond their intervals"), rows, names=2)
    told = "\n".join(lines) or "No number changed by more than its 95 % interval."
    return f"{table}\n\n{told}", len(lines)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for place, name in names.items():
        text = text.replace(place, name)
    return text
