"""Hints at mistyped names."""

from __future__ import annotations

import pytest

from vaportok_rl.clips.suggestion import closest_name, did_you_mean

KNOWN = ("latents", "complexity", "codes", "clip")


@pytest.mark.parametrize(("given", "meant"), [("latent", "latents"), ("complexty", "complexity"), ("cilp", "clip")])
def test_a_slip_of_the_finger_is_recognised(given: str, meant: str) -> None:
    assert closest_name(given, KNOWN) == meant
    assert did_you_mean(given, iter(KNOWN), "choose one.") == f"did you mean '{meant}'?"


@pytest.mark.parametrize("given", ["", "velocity", "xyz"])
def test_a_name_that_resembles_none_gets_the_other_advice(given: str) -> None:
    assert closest_name(given, KNOWN) is None
    assert did_you_mean(given, KNOWN, "choose one.") == "choose one."


def test_where_nothing_is_known_nothing_is_suggested() -> None:
    assert did_you_mean("nano", (), "train one.") == "train one."


def test_of_several_alike_the_closest_is_suggested() -> None:
    assert closest_name("min_token", ["max_tokens", "min_tokens", "token_budget"]) == "min_tokens"
