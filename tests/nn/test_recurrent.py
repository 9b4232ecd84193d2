"""Recurrent cells against torch's layers, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.nn.recurrent import Recurrent, detached

KINDS = ("rnn", "gru", "lstm")
THEIRS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def pair(kind: str, layers: int) -> tuple[Recurrent, nn.RNNBase]:
    torch.manual_seed(1)
    ours = Recurrent(kind, 7, 11, layers)  # type: ignore[arg-type]
    theirs = THEIRS[kind](7, 11, layers, batch_first=True)
    for number, layer in enumerate(ours.layers):
        state = {
            f"weight_ih_l{number}": layer.input.weight,
            f"weight_hh_l{number}": layer.hidden.weight,
            f"bias_ih_l{number}": layer.input.bias,
            f"bias_hh_l{number}": layer.hidden.bias,
        }
        for name, tensor in state.items():
            getattr(theirs, name).data.copy_(tensor)
    return ours, theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("method", ["loop", "forward"])
def test_equal_to_torch_forward_and_backward(kind, layers, method):
    ours, theirs = pair(kind, layers)
    x = torch.randn(3, 13, 7, requires_grad=True)
    state = tuple(torch.randn(layers, 3, 11) for _ in ours.new_state(3))
    y, last = getattr(ours, method)(x, state)
    expected, expected_last = theirs(x, state if kind == "lstm" else state[0])
    expected_last = expected_last if kind == "lstm" else (expected_last,)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)
    for part, expected_part in zip(last, expected_last, strict=True):
        torch.testing.assert_close(part, expected_part, atol=1e-6, rtol=1e-5)

    slope = torch.randn(y.shape)
    (own,) = torch.autograd.grad((y * slope).sum(), x, retain_graph=True)
    (other,) = torch.autograd.grad((expected * slope).sum(), x, retain_graph=True)
    torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5)
    (y * slope).sum().backward()
    (expected * slope).sum().backward()
    for number, layer in enumerate(ours.layers):
        for name, tensor in (("ih", layer.input), ("hh", layer.hidden)):
            weight = getattr(theirs, f"weight_{name}_l{number}")
            bias = getattr(theirs, f"bias_{name}_l{number}")
            torch.testing.assert_close(tensor.weight.grad, weight.grad, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(tensor.bias.grad, bias.grad, atol=1e-5, rtol=1e-4)


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
