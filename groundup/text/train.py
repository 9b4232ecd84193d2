"""Training a tokenizer of any kind from an iterable of texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from groundup.text.config import NUM_BYTES, SPECIAL_TOKENS, TokenizerConfig
from groundup.text.split import EACH_CHARACTER, PATTERNS, stretches, well_formed
from groundup.text.tokenizer import Tokenizer, from_vocabulary
from groundup.text.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# rustbpe reads ahead BUFFER texts; short stretches keep that below about 30 MB.
_STRETCH = 1 << 14
_BUFFER = 1024


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Train on `texts`; the same texts in the same order always give the same tokenizer.

    Words never reach across two texts. A text too small for `config.vocab_size` (or none at all)
    gives a smaller vocabulary; for "bpe" a warning is logged then.
    """
    texts = _limited(texts, config.max_characters)
    room = config.vocab_size - NUM_BYTES - len(SPECIAL_TOKENS)
    if config.kind == "bpe":
        pattern = PATTERNS[config.pattern]
        vocabulary = Vocabulary.grown("bpe", pattern, _merged_pieces(texts, room, pattern))
        if len(vocabulary) < config.vocab_size:
            logger.warning(
                "The text is too small for a vocabulary of %d: no pairs are left to merge. "
                "The tokenizer has %d ids.",
                config.vocab_size,
                len(vocabulary),
            )
    elif config.kind == "char":
        vocabulary = Vocabulary.grown("char", EACH_CHARACTER, _frequent_characters(texts, room))
    elif config.kind == "word":
        pattern = PATTERNS[config.pattern]
        vocabulary = Vocabulary.grown("word", pattern, _frequent_words(texts, room, pattern))
    else:
        vocabulary = Vocabulary.grown("byte", "", [])
    return from_vocabulary(vocabulary)


def _merged_pieces(texts: Iterable[str], room: int, pattern: str) -> list[bytes]:
    """The most frequent pairs, merged one after the other; of equals, the pair of lowest ids."""
    import rustbpe

    trainer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train_from_iterator(iter(texts), NUM_BYTES + room, _BUFFER, pattern)
    pieces = sorted((id, bytes(piece)) for piece, id in trainer.get_mergeable_ranks())
    return [piece for id, piece in pieces if id >= NUM_BYTES]


def _frequent_characters(texts: Iterable[str], room: int) -> list[bytes]:
    """The most frequent characters beyond ASCII, in the order of Unicode."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    ranked = sorted((c for c in counts if ord(c) > 127), key=lambda c: (-counts[c], c))
    return [character.encode() for character in sorted(ranked[:room])]


def _frequent_words(texts: Iterable[str], room: int, pattern: str) -> list[bytes]:
    """The most frequent words of more than one byte; of equals, the first in Unicode order."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    split = Split(Regex(pattern), "isolated")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in split.pre_tokenize_str(text))
    longer = (word for word in counts if len(word.encode()) > 1)
    return [word.encode() for word in sorted(longer, key=lambda w: (-counts[w], w))[:room]]


def _limited(texts: Iterable[str], max_characters: int) -> Iterator[str]:
    left = max_characters
    for text in texts:
        for stretch in stretches(well_formed(text[:left]), _STRETCH):
            yield stretch
            left -= len(stretch)
        if left <= 0:
            return
