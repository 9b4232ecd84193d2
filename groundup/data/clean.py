"""Documents that are worth training on: no slurs, no one-sided chats, no (near-)duplicates.

Near-duplicates are found with MinHash signatures and locality-sensitive hashing (Broder 1997,
"On the resemblance and containment of documents"; Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", chapter 3). The signatures only propose pairs: a document is dropped when the
true Jaccard similarity of its word shingles with an earlier document reaches `SIMILAR`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from array import array
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from groundup.data.documents import Document

SHINGLE = 5  # words a shingle spans
SIMILAR = 0.8  # Jaccard similarity from which two documents count as near-duplicates
BANDS, ROWS = 16, 4  # a pair at similarity s is proposed with probability 1 - (1 - s^4)^16

# First 16 hex digits of the SHA-256 of lower-cased words, so that reading this file offends nobody.
# Only words that are hardly ever used in another sense: unambiguous slurs against ethnic and
# religious groups, gay, transgender and disabled people, with their plurals and spellings.
_SLUR_HASHES = """
044eb98b18769b88 08a841e996781e9e 096061cb8644fc13 0ce875d620076b53 0dcc4d3364433181
0f3ceb308e2bd68b 11ee63a73ffec0f0 120f6e5b4ea32f65 1290d04b901d01be 12e6274e4309293e
158869a97379229b 16ea09fc78ca83ca 17a110e533284872 17bde8b4064612e2 1c4bfd100aa92982
1c86838fb43455df 1dd422ae0fd5a86d 1e02eec4f1095143 21a991a802ed50e7 22fc75e65a0e9d34
257a649d2c5cd578 268651b3ece98010 27a62b68179c96f5 27eb0c4ad7072067 325c687181b4f516
332cd2926fba6ee8 333f7618092958c7 33740da8a87dc7de 341d56384afc0f47 3b1e0d7c5dd45583
3c527c5a2c3a6723 3cc0a581d3bbe605 3dd793e153d73e03 3eed6d8f9ba46205 3ff9947148032e99
402f7ebd98864afe 428cc39e867f3776 43508b5c03b8b8ce 43900c1549eeea32 448b303c89bef071
457f002f9240a36a 45cd3e1bb472d8e2 49764bce30ef5e2f 4bfae123d170d6d6 4c58f5d5fe92c3ed
5103639ecfe58d27 517af7ffd9e634d3 58d5ed002eca1b4f 5b3ae48be122f7ed 5c85efe299462baf
619bc82e0d200e4a 63bd9333b1a0b11d 66415f8ce37b74a5 684a154964caa740 693ee9961bef39c1
69f6251dd5c9a15b 6b9b5889dc869d3d 6cfcdedf5407199c 6d1833779e389477 70e4043b678ff365
7122c9a14ba2d20e 7665769cd919bfd3 82159dd02870c13e 83dd8e733b1e2c6e 85580f904474c32c
87d1690e74a1d827 8f5083e3e5c7dc89 94c6d2e10a76c313 96dbb959b3c5bdfb 98b52c4b6b7d1f48
9915ba2d822280f2 9bc997ae6adeaff8 9d454fb8d72af11b 9d57436661e1dce7 9ee4d2748732a9bb
a40ccba874d28799 a7bf072c97a0779f aebbda5a07740a73 b11aa553246593a2 b317f5ca11a7c636
b343ecf1be458f72 b726c4b4a1b4f011 b85d240730657b11 ba59331131251da4 bb209d506bb8b178
bbcd2f1eb11865fd bc87631998abf17b bd331fb1d24298f5 bd3e671a3b71367b c10da7b2b13906ec
c1b4ed05397df5ee c1cabb6f6e431f9c c3de533e9b7fe63b c709d1a287817777 c70e3e7c47f06aee
c74677aba35aef49 ca8aca2ceb3c2d1f cc02032349c833ac cc81b23d0e4fa31f ce20df7259154252
cf024a05e3ca7afe d7cc7ecc7ef00cd6 d873147a3546cd8f da0a6b1b9213d48f dc675e448132fd2a
e299ee3cce48cee9 e742d17ff490c87e e793d67686f2824f ee5a869b5ace6905 eea2991640d1a5ca
eef3bd091670c344 ef6e97ba7fa99b7a f20dd5cbbb376baf f64c6fad9c3c8b57 f76db40040513a9e
f77fd8df7a3b40c8 f99e9002d6d54dbe f9d0d9b18ae9033a
"""
_SLURS = frozenset(int(digits, 16) for digits in _SLUR_HASHES.split())
_WORD = re.compile(r"[^\W_]+")
_GENERATOR = np.random.default_rng(0x5EED)
_MULTIPLIERS = _GENERATOR.integers(0, 2**64, size=BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _GENERATOR.integers(0, 2**64, size=BANDS * ROWS, dtype=np.uint64)
_BAND_MULTIPLIERS = _GENERATOR.integers(0, 2**64, size=(BANDS, ROWS), dtype=np.uint64)


def contains_slur(text: str) -> bool:
    """Whether a word of the text, in any case, is on the list."""
    return not _SLURS.isdisjoint(_word_hashes(text).tolist())


def is_one_sided(document: Document) -> bool:
    """Whether a conversation has no reply in it: nothing a chat model could learn to say."""
    return bool(document.messages) and not any(
        message["role"] == "assistant" and message["content"].strip()
        for message in document.messages
    )


class Deduplicator:
    """Tells new documents from copies of earlier ones.

    Exact copies are known at once. Near-copies are found when all documents have been seen, so
    that little has to be remembered: a document takes about 250 bytes, whatever its length.
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self._keys = array("Q")  # BANDS a document

    def is_copy(self, text: str) -> bool:
        """Whether an earlier text was the same. If not, it is noted, numbered from 0."""
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._digests:
            return True
        self._digests.add(digest)
        keys = (signature(shingles(text)) * _BAND_MULTIPLIERS).sum(axis=1, dtype=np.uint64)
        self._keys.frombytes(keys.tobytes())
        return False

    def near_copies(self, text_of: Callable[[int], str]) -> np.ndarray:
        """(N,) bool: which of the noted documents resemble an earlier one that is none itself.

        `text_of` gives the text of a number; it is asked only for those that share a key.
        """
        keys = np.frombuffer(self._keys, dtype=np.uint64).reshape(-1, BANDS)
        shared = np.stack([_repeated(column) for column in keys.T], axis=1)
        near = np.zeros(len(keys), dtype=bool)
        shingles_of = functools.lru_cache(maxsize=1024)(lambda number: shingles(text_of(number)))
        buckets: dict[int, list[int]] = defaultdict(list)
        for number in np.flatnonzero(shared.any(axis=1)).tolist():
            own = keys[number][shared[number]].tolist()
            candidates = sorted({other for key in own for other in buckets[key]})
            near[number] = any(
                jaccard(shingles_of(number), shingles_of(other)) >= SIMILAR for other in candidates
            )
            if not near[number]:
                for key in own:
                    buckets[key].append(number)
        return near


def shingles(text: str) -> np.ndarray:
    """(S,) uint64: sorted distinct hashes of every `SHINGLE` words in a row.

    Case and punctuation do not count. A text of fewer words is one shingle.
    """
    hashes = _word_hashes(text)
    span = min(SHINGLE, len(hashes))
    mixed = np.zeros(len(hashes) - span + 1, dtype=np.uint64)
    for position in range(span):  # a polynomial in an odd base, modulo 2**64
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + hashes[position : position + len(mixed)]
    return np.unique(mixed)


def signature(shingle_hashes: np.ndarray) -> np.ndarray:
    """(S,) -> (BANDS, ROWS) uint64 MinHash: for each hash function the least value in the set."""
    least = np.full(BANDS * ROWS, 2**64 - 1, dtype=np.uint64)
    for start in range(0, len(shingle_hashes), 4096):  # bounds the memory of a very long document
        block = shingle_hashes[start : start + 4096]
        hashed = block[None, :] * _MULTIPLIERS[:, None] + _OFFSETS[:, None]
        least = np.minimum(least, hashed.min(axis=1))
    return least.reshape(BANDS, ROWS)


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Size of the intersection over size of the union of two sorted sets of distinct hashes."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def _repeated(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N,) bool: which values occur more than once."""
    order = np.argsort(values)
    same = values[order[1:]] == values[order[:-1]]
    found = np.zeros(len(values), dtype=bool)
    found[order[1:][same]] = found[order[:-1][same]] = True
    return found


class _WordHashes(dict[str, int]):
    """First 8 bytes of the SHA-256 of a word, computed once."""

    def __missing__(self, word: str) -> int:
        if len(self) >= 2**20:
            self.clear()
        digest = hashlib.sha256(word.encode()).digest()
        value = self[word] = int.from_bytes(digest[:8], "big")
        return value


_HASHES = _WordHashes()


@functools.lru_cache(maxsize=1)  # the slur filter and the shingles ask for the same text in a row
def _word_hashes(text: str) -> np.ndarray:
    """(W,) uint64, one a word; case and punctuation do not count. Without words: of the text."""
    words = _WORD.findall(text.lower()) or [text]
    return np.fromiter(map(_HASHES.__getitem__, words), dtype=np.uint64, count=len(words))
