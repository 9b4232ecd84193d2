"""Pictures are readable in both themes, and equal pictures are equal files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from groundup.config import UserError
from groundup.viz import style

THEMES = {"light": style.LIGHT, "dark": style.DARK}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", THEMES)
def test_text_and_series_stand_out_from_the_surface(name: str) -> None:
    theme = THEMES[name]
    for colour in (theme.ink, theme.muted, *theme.series):
        low, high = sorted([luminance(colour), luminance(theme.surface)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour
    roles = dataclasses.asdict(theme)
    assert len(set(roles.values())) == len(roles), "one colour per role, or to_svg mixes them up"


def drawn(theme: style.Theme = style.LIGHT, text: str = "Loss"):
    figure, axes = style.new_figure(3, 2, theme)
    assert len(axes) == 3
    for index, one in enumerate(axes):
        one.plot([0, 1, 3], [2, index, 1], color=theme.series[index])
        style.caption(one, theme, text, "nats")
    style.legend(axes[0], theme, ["base", "sft"])
    return figure


def test_an_inline_drawing_takes_colours_size_and_font_from_its_page() -> None:
    svg = style.to_svg(drawn(text="a < b"), style.LIGHT, 'loss "over" tokens')
    assert svg.startswith("<svg ") and svg.rstrip().endswith("</svg>")
    assert "var(--first)" in svg and "var(--second)" in svg and "var(--ink)" in svg
    assert not set(re.findall(r"#[0-9a-f]{6}\b", svg)) & set(
        dataclasses.asdict(style.LIGHT).values()
    )
    head = svg[: svg.index(">")]
    assert "viewBox" in head and "width=" not in head and "height=" not in head
    assert "font-family" not in svg and "<metadata" not in svg
    assert "a &lt; b" in svg and 'aria-label="loss &quot;over&quot; tokens"' in svg


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_equal_pictures_are_equal_files(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        style.save(drawn(style.DARK), tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
    assert first == second and len(first) > 1000


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.svg or \.png, not as 'curve\.jpg'"):
        style.save(drawn(), tmp_path / "curve.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.0005, "0.0005"), (12, "12"), (999, "999"), (1000, "1k"), (3412, "3.41k"),
        (999_400, "999k"), (999_600, "1M"), (16_400_000, "16.4M"), (5e9, "5G"), (-2e12, "-2T"),
    ],
)  # fmt: skip
def test_short_numbers(value: float, text: str) -> None:
    assert style.short_number(value) == text
