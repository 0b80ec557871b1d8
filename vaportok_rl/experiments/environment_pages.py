"""Documentation pages of the environments, rendered from their docstrings.

Run: python -m vaportok_rl.experiments.environment_pages docs/environments
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import gymnasium
import tyro
from gymnasium.envs.registration import EnvSpec, load_env_creator

from vaportok_rl.envs import TaildropSettings
from vaportok_rl.runtime.declared import options_table
from vaportok_rl.runtime.markdown import markdown_table

NAMESPACE = "vaportok"
COMMAND = "python -m vaportok_rl.experiments.environment_pages docs/environments"
INDEX = "README.md"

# Gymnasium's headings, in Gymnasium's order.
HEADINGS = (
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "Vectorized environment",
    "Version History",
)


def registered_environments() -> dict[str, EnvSpec]:
    """The newest registered version of each of the package's environments, by the name of its page."""
    specs = [spec for spec in gymnasium.registry.values() if spec.namespace == NAMESPACE]
    return {
        spec.name.lower().replace("-", "_"): spec for spec in sorted(specs, key=lambda spec: (spec.name, spec.version))
    }


def class_documentation(spec: EnvSpec) -> tuple[str, str]:
    """The docstring of an environment's class as Markdown: the text above the first heading, and the rest.

    Raises:
        ValueError: there is no docstring, or it does not have Gymnasium's headings in Gymnasium's order.
    """
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    # An inherited docstring would describe another environment.
    text = inspect.cleandoc(vars(creator).get("__doc__") or "")
    found = tuple(re.findall(r"^## (.+)$", text, re.MULTILINE))
    if found != HEADINGS:
        raise ValueError(
            f"Expected the docstring of {spec.id} to have the headings {', '.join(HEADINGS)}; got "
            f"{', '.join(found) or 'none'}; add, remove or move headings."
        )
    start = text.index(f"## {HEADINGS[0]}")
    return text[:start].strip(), text[start:].strip()


def environment_page(spec: EnvSpec) -> str:
    """One environment's page: a table of its spaces, how to make it, and its class documentation.

    Raises:
        ValueError: the class documentation is not complete; see `class_documentation`.
    """
    summary, sections = class_documentation(spec)
    env = gymnasium.make(spec).unwrapped
    rows = [("id", spec.id), ("action space", env.action_space), ("observation space", env.observation_space)]
    # Only MO-Gymnasium's environments have this attribute.
    if hasattr(env, "reward_space"):
        rows.append(("reward space", env.reward_space))
    env.close()
    table = markdown_table(("", ""), ((name, f"`{value}`") for name, value in rows), names=2)
    sections = sections.replace("See `TaildropSettings`.", options_table(TaildropSettings))
    return f"""\
<!-- Made from the class documentation by `{COMMAND}`; edit that and run this. -->

# {spec.name}

{summary}

{table}

```python
import gymnasium
import vaportok_rl  # registers the environments

env = gymnasium.make("{spec.id}")
```

{sections}
"""


def index_page(specs: dict[str, EnvSpec]) -> str:
    """The list of environments with the first paragraph of each page, and the gallery's pictures."""
    lines = []
    for name, spec in specs.items():
        first_paragraph = class_documentation(spec)[0].partition("\n\n")[0]
        lines.append(f"- [`{spec.id}`]({name}.md): {first_paragraph}")
    listed = "\n".join(lines)
    return f"""\
<!-- Made from the class documentation by `{COMMAND}`; edit that and run this. -->

# Environments

{listed}

## What the agent decides

Clips from simple to complex, decoded from 1, 4, 16 and all tokens:

![Each row is a clip: the original, then its reconstructions](../images/lengths.png)

One decision as `render()` shows it, with the tokens kept and the unweighted reward terms:

![Original, reconstruction and absolute error beside each other, above bars](../images/rendered_frame.png)
"""


def write_pages(folder: Path) -> list[Path]:
    """Writes a page for every registered environment and an index.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = registered_environments()
    texts = {f"{name}.md": environment_page(spec) for name, spec in specs.items()} | {INDEX: index_page(specs)}
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


def main(folder: Path, /) -> None:
    """Renders the documentation pages of the registered environments.

    Args:
        folder: where to write them.
    """
    for path in write_pages(folder):
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
