"""Arguments are declared once: the environments accept exactly the settings."""

import re
from dataclasses import fields
from typing import get_type_hints

import gymnasium

from vaportok_rl.envs import MOTaildropEnv, TaildropArguments, TaildropEnv, TaildropSettings
from vaportok_rl.experiments.environment_pages import environment_page
from vaportok_rl.registration import TAILDROP_ID


def test_the_typed_keywords_are_the_settings() -> None:
    assert get_type_hints(TaildropArguments) == get_type_hints(TaildropSettings)


def test_every_argument_is_documented_where_users_look() -> None:
    page = environment_page(gymnasium.spec(TAILDROP_ID))
    arguments = page[page.index("## Arguments") : page.index("## Vectorized")]
    for field in fields(TaildropSettings):
        assert re.search(rf"^\| `{field.name}` \| `{field.default!r}` \| \S", arguments, re.MULTILINE), field.name


def test_settings_rebuild_the_environment(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3, token_budget=20, obs=("codes",), reward={"scale": 3.0})
    again = TaildropEnv(**env.settings)
    assert again.process.settings == env.process.settings
    assert MOTaildropEnv(**env.settings).process.settings == env.process.settings
