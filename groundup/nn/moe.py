"""Mixture of experts: a router sends each token through a few of many feed-forward networks.

The parameters grow with the number of experts, the work per token does not. Shazeer et al. 2017,
arXiv:1701.06538. Legend beside the usual: N tokens (B·T), X experts, k experts per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.config import ExpertsConfig, FeedForwardConfig
from groundup.nn.grouped_linear import grouped_linear

Activation = Callable[[Tensor], Tensor]


class Routing(NamedTuple):
    """Where every token goes; the k choices of a token stand from the best to the last."""

    experts: Tensor
    """(N, k) int64: the chosen experts."""
    weights: Tensor
    """(N, k): what their outputs are multiplied by; 0 where dropped."""
    kept: Tensor | None
    """(N, k) bool: False where an expert was full; None when there was no limit."""
    scores: Tensor
    """(N, X): each token's scores divided by their sum, in fp32."""


class StackedLinear(nn.Module):
    """The matrices (X, out, in) of X linear maps without bias, in one parameter."""

    def __init__(self, number: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, outputs, inputs))


class Router(nn.Module):
    """(N, D) -> Routing. Scores are fp32 whatever the model is: ties would otherwise be common.

    Of equal scores the expert with the lower number wins. With balance "bias", the buffer `bias`
    (X,) is added to the scores for the choice alone; `balance_experts` moves it.
    """

    bias: Tensor | None

    def __init__(self, width: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.scorer = nn.Linear(width, config.num_experts, bias=False)
        self.register_buffer(
            "bias", torch.zeros(config.num_experts) if config.balance == "bias" else None
        )

    def forward(self, x: Tensor) -> Routing:
        config = self.config
        logits = self.scorer(x).float()
        scores = logits.softmax(-1) if config.score == "softmax" else logits.sigmoid()
        preferred = scores.detach() if self.bias is None else scores.detach() + self.bias
        # topk leaves the order of ties open; a stable sort does not.
        experts = preferred.sort(dim=-1, descending=True, stable=True).indices[:, : config.top_k]
        weights = scores.gather(-1, experts)
        if config.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        weights, kept = weights * config.scale, None
        if self.training and config.capacity_factor is not None:
            limit = math.ceil(config.capacity_factor * experts.numel() / config.num_experts)
            kept = within_capacity(experts, config.num_experts, limit)
            weights = weights * kept
        weights = weights.to(x.dtype)
        return Routing(experts, weights, kept, scores / scores.sum(-1, keepdim=True))


class MixtureOfExperts(nn.Module):
    """(B, T, D) -> (B, T, D): Σ weight · expert(x) over a token's k experts [+ shared(x)].

        x ─┬─ router ─ k experts and their weights ─┐
           ├─ sort by expert ─ experts ─ undo ──────┴─ weighted sum ─ + ─ y
           └─ shared ─────────────────────────────────────────────────┘

    Training leaves behind `load` (X,), the choices that fell on each expert, and `dropped`, how
    many of them found it full, both since the last `balance_experts`; and `auxiliary_loss`, the
    last forward pass's.
    """

    def __init__(
        self,
        width: int,
        config: FeedForwardConfig,
        activation: Activation,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        assert config.experts is not None
        self.config, self.dropout = config.experts, config.dropout
        number = config.experts.num_experts
        self.router = Router(width, config.experts)
        gated = config.kind == "gated"
        self.gate = StackedLinear(number, width, config.width) if gated else None
        self.up = StackedLinear(number, width, config.width)
        self.down = StackedLinear(number, config.width, width)
        self.shared = shared
        self.activation = activation
        self.load: Tensor | None = None
        self.dropped: Tensor | None = None
        self.auxiliary_loss: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        routing = self.router(flat)
        if self.training:
            self._observe(routing)
        gate = None if self.gate is None else self.gate.weight
        y = grouped_experts(
            flat, routing, gate, self.up.weight, self.down.weight, self.activation
        ).view_as(x)
        if self.shared is not None:
            y = y + self.shared(x)
        return F.dropout(y, self.dropout, self.training) if self.dropout else y

    def _observe(self, routing: Routing) -> None:
        load = load_of(routing.experts, self.config.num_experts)
        kept = routing.kept
        dropped = load.new_zeros(()) if kept is None else (~kept).sum().float()
        self.load = load if self.load is None else self.load + load
        self.dropped = dropped if self.dropped is None else self.dropped + dropped
        weighed = self.config.balance == "loss" and torch.is_grad_enabled()
        self.auxiliary_loss = balance_loss(routing) if weighed else None


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """(): the weighted balance losses of a model's last forward pass; None where there is none."""
    terms = [
        module.config.loss_weight * module.auxiliary_loss
        for module in model.modules()
        if isinstance(module, MixtureOfExperts) and module.auxiliary_loss is not None
    ]
    return torch.stack(terms).sum() if terms else None


@torch.no_grad()
def balance_experts(
    model: nn.Module, total: Callable[[list[float]], list[float]] = list
) -> dict[str, Any]:
    """After an optimizer step: move the routers' biases, and say how busy the experts were.

    A bias goes up by `bias_rate` where an expert had less than an equal share, and down where it
    had more. `total` sums numbers over the processes of a run. Per layer, "load" holds each
    expert's share of the choices, "entropy" that of these shares (1 = all equal), "dropped" the
    share of the choices that found an expert full. Empty without experts or training passes.
    """
    figures: dict[str, Any] = {"load": [], "entropy": [], "dropped": []}
    for module in model.modules():
        if not isinstance(module, MixtureOfExperts) or module.load is None:
            continue
        assert module.dropped is not None
        *loads, dropped = total([*module.load.tolist(), module.dropped.item()])
        load = torch.tensor(loads, dtype=torch.float64)
        share = load / load.sum()
        bias = module.router.bias
        if bias is not None:
            step = (share.mean() - share).sign().to(bias)
            bias += module.config.bias_rate * step
        entropy = torch.special.entr(share).sum().item() / max(math.log(len(loads)), 1e-9)
        figures["load"].append([round(value, 4) for value in share.tolist()])
        figures["entropy"].append(round(entropy, 4))
        figures["dropped"].append(round(dropped / load.sum().item(), 4))
        module.load = module.dropped = None
    return figures if figures["load"] else {}


def loop_experts(
    x: Tensor,
    routing: Routing,
    gate: Tensor | None,
    up: Tensor,
    down: Tensor,
    activation: Activation,
) -> Tensor:
    """(N, D), gate and up (X, F, D), down (X, D, F) -> (N, D): one expert after the other.

    The definition, and what `grouped_experts` is tested against.
    """
    y = torch.zeros_like(x)
    for expert in range(len(up)):
        chosen = routing.experts == expert
        token, choice = torch.where(chosen if routing.kept is None else chosen & routing.kept)
        inputs = x[token]
        hidden = F.linear(inputs, up[expert])
        if gate is None:
            hidden = activation(hidden)
        else:
            hidden = activation(F.linear(inputs, gate[expert])) * hidden
        outputs = F.linear(hidden, down[expert])
        y = y.index_add(0, token, outputs * routing.weights[token, choice, None])
    return y


def grouped_experts(
    x: Tensor,
    routing: Routing,
    gate: Tensor | None,
    up: Tensor,
    down: Tensor,
    activation: Activation,
) -> Tensor:
    """As `loop_experts`, over the tokens sorted by expert: every expert's are then in one piece."""
    number, k = len(up), routing.experts.shape[1]
    chosen = routing.experts
    if routing.kept is not None:
        chosen = chosen.masked_fill(~routing.kept, number)  # behind all experts, and cut off below
    order = chosen.flatten().argsort(stable=True)
    counts = load_of(chosen, number + 1)[:number].long()
    if routing.kept is not None:
        order = _kept(order, counts)
    sorted_x = x.index_select(0, order // k)
    hidden = grouped_linear(sorted_x, up, counts)
    if gate is None:
        hidden = activation(hidden)
    else:
        hidden = activation(grouped_linear(sorted_x, gate, counts)) * hidden
    outputs = grouped_linear(hidden, down, counts)
    outputs = outputs * routing.weights.flatten().index_select(0, order)[:, None]
    return torch.zeros_like(x).index_add(0, order // k, outputs.to(x.dtype))


@torch.compiler.disable()
def _kept(order: Tensor, counts: Tensor) -> Tensor:
    return order[: int(counts.sum())]


def within_capacity(experts: Tensor, number: int, limit: int) -> Tensor:
    """(N, k) choices -> (N, k) bool: those an expert has room for, if it takes at most `limit`.

    All first choices are served before any second choice, each in the order of the tokens.
    Lepikhin et al. 2020 (GShard), arXiv:2006.16668.
    """
    by_rank = experts.t().flatten()
    places = F.one_hot(by_rank, number).cumsum(0).gather(1, by_rank[:, None]) - 1
    return (places < limit).view(experts.shape[1], -1).t()


def balance_loss(routing: Routing) -> Tensor:
    """() = X · Σ_x (share of the choices that fell on x) · (mean score of x); 1 when balanced.

    Only the scores carry a gradient: an expert chosen often is made less likely. Fedus et al. 2021
    (Switch), arXiv:2101.03961, equation 4, with the k choices of a token counted 1/k each.
    """
    number = routing.scores.shape[-1]
    share = load_of(routing.experts, number) / routing.experts.numel()
    return number * (share * routing.scores.mean(0)).sum()


def load_of(experts: Tensor, number: int) -> Tensor:
    """(N, k) -> (X,) fp32: how many choices fell on each expert."""
    ones = torch.ones(experts.numel(), device=experts.device)
    return ones.new_zeros(number).scatter_add_(0, experts.flatten(), ones)
