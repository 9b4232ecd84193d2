"""Self-contained HTML pages: one file, no script, no network, light and dark, fit for a phone.

Whatever a model wrote is untrusted: every text passes through `escape`, and the page's content
policy forbids scripts and requests even if one were forgotten.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from groundup.viz.style import DARK, LIGHT, css_variables

STYLE_SHEET = Path(__file__).with_name("page.css")
# C0 and C1 controls but tab and newline, and the marks that reorder the text around them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document around the sections in `body`."""
    style = STYLE_SHEET.read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title>
<style>
:root {{ {css_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(DARK)} }} }}
{style}</style>
</head>
<body>
<main>
{"".join(body)}</main>
</body>
</html>
"""


def escape(text: object) -> str:
    """Any object's text, safe inside an element or a quoted attribute, and encodable as UTF-8."""
    whole = str(text).encode("utf-8", errors="replace").decode("utf-8")
    return html.escape(_UNSAFE.sub("\N{REPLACEMENT CHARACTER}", whole))


def section(title: str, *content: str, hint: str = "") -> str:
    """A titled section; empty when it has no content, so that a page shows only what there is."""
    if not any(content):
        return ""
    note = f"<p class=hint>{escape(hint)}</p>\n" if hint else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{note}{''.join(content)}</section>\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts: the first column names the row, the others are figures.

    A column without a single text is left out; so is a table without a row. Without headings it
    is a list of facts, whose values may be long and wrap.
    """
    body = list(rows)
    used = [i for i in range(len(header)) if i == 0 or any(row[i] for row in body)]
    if not body:
        return ""
    head = "".join(f"<th scope=col>{escape(header[i])}</th>" for i in used)
    lines = (
        "<tr>"
        + "".join(f"<td>{escape(row[i])}</td>" if i else _row_name(row[0]) for i in used)
        + "</tr>\n"
        for row in body
    )
    head_row = f"<thead><tr>{head}</tr></thead>\n" if any(header) else ""
    kind = "grid" if any(header) else "facts"
    inside = f"{head_row}<tbody>\n{''.join(lines)}</tbody>"
    return f"<div class=wide><table class={kind}>\n{inside}</table></div>\n"


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Big figures, each (value, what it is)."""
    items = (
        f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>\n"
        for value, name in figures
    )
    inside = "".join(items)
    return f"<div class=tiles>\n{inside}</div>\n" if inside else ""


def conversation(turns: Iterable[tuple[str, str]]) -> str:
    """Chat bubbles from (role, text): the user's on the right, all others on the left."""
    bubbles = (
        f'<div class="turn {escape(role)}" dir=auto><span>{escape(role.replace("_", " "))}</span>'
        f"{escape(text)}</div>\n"
        for role, text in turns
    )
    return f"<div class=chat>\n{''.join(bubbles)}</div>\n"


def folded(title: str, *content: str) -> str:
    """Content behind a line that opens it."""
    return f"<details><summary>{escape(title)}</summary>\n{''.join(content)}</details>\n"


def preformatted(text: str) -> str:
    """Text as it is, with its line breaks."""
    return f"<pre dir=auto>{escape(text)}</pre>\n"


def _row_name(text: str) -> str:
    """The first line names the row; a second says more about it, smaller."""
    name, _, more = text.partition("\n")
    small = f"<small>{escape(more)}</small>" if more else ""
    return f"<th scope=row>{escape(name)}{small}</th>"
