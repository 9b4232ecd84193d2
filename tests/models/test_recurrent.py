"""Recurrent language models: they learn a text by heart, and see nothing of the future."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from groundup.config import UserError
from groundup.infer.beam import greedy_batch
from groundup.models.recurrent import RecurrentModel
from groundup.models.recurrent_config import RecurrentConfig
from groundup.nn.recurrent import detached

TEXT = (
    "the wind blew and the old gate sang, a low note and a long one, and nobody came to shut it. "
    "in the morning the gate stood open, and the road behind it was white with frost. "
)
CHARACTERS = sorted(set(TEXT))


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([[CHARACTERS.index(character) for character in text]])


def small(kind: str = "lstm", **changes) -> RecurrentModel:
    torch.manual_seed(0)
    settings = {"vocab_size": len(CHARACTERS), "width": 16, "state_width": 64} | changes
    return RecurrentModel(RecurrentConfig(kind=kind, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_it_learns_a_text_by_heart_and_recites_it(kind):
    """Truncated backpropagation: the state goes on from piece to piece, gradients do not."""
    model = small(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ids = ids_of(TEXT)
    loss = torch.tensor(torch.inf)
    for _ in range(60):
        state = model.init_hidden(1)
        for start in range(0, ids.shape[1] - 1, 40):
            piece = ids[:, start : start + 41]
            logits, state = model.read(piece[:, :-1], detached(state))
            loss = F.cross_entropy(logits.flatten(0, 1), piece[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert loss < 0.15
    prompt, rest = TEXT[:12], TEXT[12:40]
    (said,) = greedy_batch(model, ids_of(prompt).tolist(), max_tokens=len(rest))
    assert "".join(CHARACTERS[i] for i in said) == rest


def test_the_future_is_unseen():
    model = small("gru").eval()
    ids = ids_of(TEXT[:20])
    changed = ids.clone()
    changed[:, 12:] = 0
    torch.testing.assert_close(model(changed)[:, :12], model(ids)[:, :12])


@pytest.mark.parametrize("changes", [{"kind": "ltsm"}, {"state_width": 0}, {"dropout": 1.0}])
def test_impossible_configs_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        RecurrentConfig(**({"vocab_size": 9, "width": 4, "state_width": 4} | changes))
