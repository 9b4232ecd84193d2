"""Recurrent layers: RNN, GRU and LSTM cells from scratch, and torch's fused kernels.

A recurrent layer reads a sequence from left to right and keeps what it has read in a state of fixed
size. C is the width of that state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["rnn", "gru", "lstm"]
State = tuple[Tensor, ...]
"""(hidden,) or, for the LSTM, (hidden, cell); each (L, B, C)."""
NUM_GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def rnn_cell(from_input: Tensor, from_hidden: Tensor, state: State) -> State:
    """(B, C), (B, C), ((B, C),) -> ((B, C),): tanh of the sum. Elman 1990."""
    return (torch.tanh(from_input + from_hidden),)


def gru_cell(from_input: Tensor, from_hidden: Tensor, state: State) -> State:
    """(B, 3·C), (B, 3·C), ((B, C),) -> ((B, C),): old and new state, blended by a gate.

        r, z = σ(reset), σ(update);  n = tanh(input + r ⊙ hidden);  h = (1 - z) ⊙ n + z ⊙ h

    Cho et al. 2014, arXiv:1406.1078; the reset gate acts after the matrix, as in cuDNN.
    """
    reset_in, update_in, new_in = from_input.chunk(3, dim=-1)
    reset_hidden, update_hidden, new_hidden = from_hidden.chunk(3, dim=-1)
    reset = torch.sigmoid(reset_in + reset_hidden)
    update = torch.sigmoid(update_in + update_hidden)
    new = torch.tanh(new_in + reset * new_hidden)
    return ((1 - update) * new + update * state[0],)


def lstm_cell(from_input: Tensor, from_hidden: Tensor, state: State) -> State:
    """(B, 4·C), (B, 4·C), ((B, C), (B, C)) -> ((B, C), (B, C)): hidden and cell.

        i, f, o = σ(input), σ(forget), σ(output);  c = f ⊙ c + i ⊙ tanh(new);  h = o ⊙ tanh(c)

    The cell is changed by addition alone, so what f keeps near 1 is remembered, and its gradient
    does not vanish. Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000.
    """
    gates = from_input + from_hidden
    keep_new, keep_old, new, show = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(keep_old) * state[1] + torch.sigmoid(keep_new) * torch.tanh(new)
    return torch.sigmoid(show) * torch.tanh(cell), cell


CELLS: dict[str, Callable[[Tensor, Tensor, State], State]] = {
    "rnn": rnn_cell,
    "gru": gru_cell,
    "lstm": lstm_cell,
}


class RecurrentLayer(nn.Module):
    """The weights of one layer: `input` (G·C, D) and `hidden` (G·C, C), a block of rows per gate.

    Gates stand in torch's order: reset, update, new; input, forget, new, output. Both maps have a
    bias, as torch's have; only the GRU needs both.
    """

    def __init__(self, kind: Kind, inputs: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, NUM_GATES[kind] * width)
        self.hidden = nn.Linear(width, NUM_GATES[kind] * width)


class Recurrent(nn.Module):
    """(B, T, D) and a state -> (B, T, C) and the state after the last token.

    `forward` runs torch's fused kernel, `loop` the cells above, one token after the other; they are
    equal. With `dropout`, the output of every layer but the last is dropped out in training.
    """

    def __init__(
        self, kind: Kind, inputs: int, width: int, num_layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.kind, self.width, self.dropout = kind, width, dropout
        self.layers = nn.ModuleList(
            RecurrentLayer(kind, inputs if layer == 0 else width, width)
            for layer in range(num_layers)
        )
        self.initialize()

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.new_state(x.shape[0]) if state is None else state
        parameters: list[Tensor] = []
        for layer in self._stack():
            parameters += [layer.input.weight, layer.hidden.weight]
            parameters += [layer.input.bias, layer.hidden.bias]
        settings = (parameters, True, len(self.layers), self.dropout, self.training, False, True)
        if self.kind == "lstm":
            y, hidden, cell = torch.lstm(x, list(state), *settings)
            return y, (hidden, cell)
        run = torch.gru if self.kind == "gru" else torch.rnn_tanh
        y, hidden = run(x, state[0], *settings)
        return y, (hidden,)

    def loop(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """As `forward`, without the fused kernel and without dropout: the definition."""
        state = self.new_state(x.shape[0]) if state is None else state
        cell, last = CELLS[self.kind], []
        for number, layer in enumerate(self._stack()):
            own = tuple(part[number] for part in state)
            outputs = []
            for token in x.unbind(1):
                own = cell(layer.input(token), layer.hidden(own[0]), own)
                outputs.append(own[0])
            x = torch.stack(outputs, 1)
            last.append(own)
        return x, tuple(torch.stack(part) for part in zip(*last, strict=True))

    def new_state(self, batch: int) -> State:
        """Zeros, in the weights' format: nothing has been read."""
        weight = next(self.parameters())
        shape = (len(self.layers), batch, self.width)
        return tuple(weight.new_zeros(shape) for _ in range(2 if self.kind == "lstm" else 1))

    @torch.no_grad()
    def initialize(self) -> None:
        """Uniform in ±1/√C; an LSTM's forget gate starts open, by a bias of 1.

        Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network Architectures".
        """
        bound = 1 / math.sqrt(self.width)
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)
        if self.kind == "lstm":
            for layer in self._stack():
                layer.input.bias[self.width : 2 * self.width] = 1.0
                layer.hidden.bias[self.width : 2 * self.width] = 0.0

    def _stack(self) -> list[RecurrentLayer]:
        return [layer for layer in self.layers if isinstance(layer, RecurrentLayer)]


class StateCache:
    """A state in the place of a key/value cache: what generation asks of one, it can do.

    It has one size however much has been read, but knows no way back except to the beginning.
    """

    def __init__(self, state: State, length: int = 0) -> None:
        self.state, self.length = state, length

    def reachable(self, length: int) -> int:
        """The length nearest to `length`, and not above it, that `truncate` can go back to."""
        return length if length == self.length else 0

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on, which must be `reachable`."""
        assert self.reachable(length) == length, (length, self.length)
        if length < self.length:
            self.state, self.length = tuple(part.new_zeros(part.shape) for part in self.state), 0

    def expand(self, copies: int) -> StateCache:
        """A new cache with every row repeated `copies` times, neighbours first."""
        batch = self.state[0].shape[1]
        return self.select([row for row in range(batch) for _ in range(copies)])

    def select(self, rows: Sequence[int]) -> StateCache:
        """A new cache of some of the rows, in the order given; a row may be taken twice."""
        return StateCache(tuple(part[:, list(rows)] for part in self.state), self.length)


def detached(state: State) -> State:
    """The state without its history: gradients stop here (truncated backpropagation in time)."""
    return tuple(part.detach() for part in state)
