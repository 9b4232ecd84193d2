"""Texts with holes: tokens or spans are hidden, and a model learns to say what stood there.

Both functions are pure in their generator: with `np.random.default_rng((seed, step, row))` a batch
is the same in every process and after a resume.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from groundup.config import require
from groundup.data.batch import IGNORE


def mask_tokens(
    ids: np.ndarray,
    generator: np.random.Generator,
    *,
    mask_id: int,
    vocab_size: int,
    keep: Collection[int] = (),
    rate: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """(...) ids -> (...) inputs and (...) targets, IGNORE where nothing is asked: BERT's objective.

    Of the tokens that are none of `keep` (special tokens and padding), a share of `rate` is asked
    for, rounded randomly. Of those 80 % become `mask_id`, 10 % any other token that may be asked,
    10 % stay: what the model sees after training is never masked, so that it must not rely on it.
    Devlin et al. 2018, arXiv:1810.04805, section 3.1.
    """
    require(0 < rate < 1, f"The masking rate should be between 0 and 1, but is {rate}.")
    kept = np.isin(ids, list(keep))
    asked = (generator.random(ids.shape) < rate) & ~kept
    fate = generator.random(ids.shape)
    ordinary = np.setdiff1d(np.arange(vocab_size), [mask_id, *keep])
    inputs = np.where(asked & (fate < 0.8), mask_id, ids)
    replaced = asked & (fate >= 0.8) & (fate < 0.9)
    inputs = np.where(replaced, generator.choice(ordinary, ids.shape), inputs)
    return inputs, np.where(asked, ids, IGNORE)


def corrupt_spans(
    ids: np.ndarray | Sequence[int],
    generator: np.random.Generator,
    *,
    sentinels: Sequence[int],
    end_id: int,
    rate: float = 0.15,
    mean_span: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) ids -> source and target, each ending with `end_id`: T5's objective.

        Thank you [for inviting] me to your party [last] week
        source    Thank you <0> me to your party <1> week </s>
        target    <0> for inviting <1> last </s>

    About `rate` of the tokens are hidden, in spans of about `mean_span`, each of which one of the
    `sentinels` stands for, in their order. The cut into spans is uniform among all with that many.
    Raffel et al. 2019, arXiv:1910.10683, section 3.1.4; their last sentinel in the target, which
    says that no span follows, is `end_id` here as in transformers' examples.
    """
    ids = np.asarray(ids)
    require(0 < rate < 1, f"The corruption rate should be between 0 and 1, but is {rate}.")
    require(mean_span >= 1, f"mean_span should be at least 1, but is {mean_span}.")
    hidden = min(max(round(len(ids) * rate), 1), len(ids) - 1)
    if hidden < 1:  # one token or none: nothing can be hidden beside something that is shown
        return np.append(ids, end_id), np.array([end_id])
    shown = len(ids) - hidden
    spans = max(1, min(round(hidden / mean_span), hidden, shown))
    require(
        spans <= len(sentinels),
        f"{len(ids)} tokens hide {spans} spans, but there are {len(sentinels)} sentinels. Use "
        "shorter texts, a lower rate, or a vocabulary with more of them.",
    )
    hidden_lengths, shown_lengths = (_parts(n, spans, generator) for n in (hidden, shown))
    source: list[int] = []
    target: list[int] = []
    place = 0
    for sentinel, shown_here, hidden_here in zip(
        sentinels[:spans], shown_lengths, hidden_lengths, strict=True
    ):
        source += [*ids[place : place + shown_here], sentinel]
        place += shown_here
        target += [sentinel, *ids[place : place + hidden_here]]
        place += hidden_here
    return np.array([*source, end_id]), np.array([*target, end_id])


def _parts(total: int, count: int, generator: np.random.Generator) -> list[int]:
    """`count` whole numbers from 1 on that sum to `total`, all ways equally likely."""
    cuts = np.sort(generator.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [total]))).astype(int).tolist()
