"""Passages of pages that commands write, between marks."""

from __future__ import annotations

import pytest

from vaportok_rl.runtime.markdown import first_table, passage_names, replace_passage


def test_a_passage_is_replaced_and_the_rest_is_kept() -> None:
    page = "x\n\n<!-- begin: a -->\nold\n<!-- end: a -->\n<!-- begin: b -->\n<!-- end: b -->\ny\n"
    once = replace_passage(page, "a", "new\nlines\n\n")
    assert once == page.replace("old", "new\nlines")
    assert replace_passage(once, "a", "new\nlines") == once
    assert passage_names(page) == ["a", "b"]


@pytest.mark.parametrize("text", ["", "<!-- end: a -->\n<!-- begin: a -->\n", "<!-- begin: a -->\n"])
def test_a_page_without_the_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"begin: a.*once each"):
        replace_passage(text, "a", "b")


def test_the_first_table() -> None:
    assert first_table("text\n\n| a |\n| - |\n| 1 |\n\n| b |\n| - |\n") == "| a |\n| - |\n| 1 |"
    with pytest.raises(ValueError, match="Expected a page with a table"):
        first_table("none")
