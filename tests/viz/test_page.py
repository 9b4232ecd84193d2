"""Pages let no text become markup, and show only what there is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.viz import page


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text(st.characters()))
def test_escaped_text_is_inert_and_encodable(text: str) -> None:
    safe = page.escape(text)
    safe.encode("utf-8")
    assert not set(safe) & set("<>\"'")
    assert "\u202e" not in safe and "\x00" not in safe


def test_escaping_keeps_what_is_harmless() -> None:
    assert page.escape("café\t3 × 7\n日本 🙂") == "café\t3 × 7\n日本 🙂"
    assert page.escape("\ud800<&>") == "?&lt;&amp;&gt;"


def test_a_table_drops_columns_and_itself_when_empty() -> None:
    text = page.table(("stage", "loss", "score"), [("base", "3.1", ""), ("sft\nchat", "2", "")])
    assert "score" not in text and "loss" in text
    assert "<small>chat</small>" in text and "class=grid" in text
    assert page.table(("a", "b"), []) == ""
    assert "class=facts" in page.table(("", ""), [("a", "b")])


def test_a_section_without_content_is_not_there() -> None:
    assert page.section("Data", "", "") == ""
    assert "<h2>A &amp; B</h2>" in page.section("A & B", "<p>x</p>")


def test_a_page_forbids_scripts_and_requests_and_has_both_themes() -> None:
    text = page.page("<title>", ["<p>body</p>"])
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert "<title>&lt;title&gt;</title>" in text
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")
