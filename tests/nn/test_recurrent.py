"""Recurrent layers and their state; docs/parity.md has them beside torch's."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.recurrent import Recurrent, detached

KINDS = ("rnn", "gru", "lstm")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_pieces_equals_reading_at_once(kind):
    layer = Recurrent(kind, 5, 9, 2)
    x = torch.randn(2, 12, 5)
    whole, last = layer(x)
    first, state = layer(x[:, :5])
    second, state = layer(x[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    assert all(torch.allclose(a, b) for a, b in zip(state, last, strict=True))


def test_a_detached_state_stops_gradients():
    layer = Recurrent("lstm", 5, 9)
    x = torch.randn(1, 4, 5, requires_grad=True)
    _, state = layer(x)
    y, _ = layer(torch.randn(1, 4, 5), detached(state))
    y.sum().backward()
    assert x.grad is None


def test_a_forget_gate_starts_open():
    layer = Recurrent("lstm", 5, 9).layers[0]
    total = layer.input.bias + layer.hidden.bias
    assert total[9:18].tolist() == [1.0] * 9
    assert total[:9].abs().max() < 1
