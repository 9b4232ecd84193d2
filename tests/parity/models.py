"""Whole models beside transformers': logits and all gradients, through the adapters' own names."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from groundup.models.adapters import t5
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import EncoderConfig
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import EncoderDecoderConfig
from groundup.models.huggingface import to_hf_config, to_hf_state
from groundup.models.kinds import layout_for
from parity.harness import BOTH, EXACT, Case, Pair, Weights, module_function, random_weights, smooth
from parity.zoo import ENCODER_DECODERS, ENCODERS, PUBLISHED, VOCABULARY

LENGTH = 37


def decoder_pair(config: DecoderConfig) -> Pair:
    """A decoder and the transformers model that its adapter says is equal."""
    fields = to_hf_config(config)
    # Their grouped kernel for experts asks for widths that are multiples of 16 bytes.
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**fields), experts_implementation="eager"
    )
    ours = Decoder(config).eval()

    def translate(weights: Weights) -> Weights:
        return in_memory(to_hf_state(config, weights))

    def logits(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids, use_cache=False).logits

    return Pair(
        ours=module_function(ours),
        theirs=module_function(theirs.eval(), translate, logits),
        weights=random_weights(ours),
        inputs=(torch.randint(0, VOCABULARY, (2, LENGTH)),),
    )


def encoder_pair(config: EncoderConfig) -> Pair:
    """An encoder and its head, with padded rows and, where they are told apart, two types of text.

    Without a head, its vectors, and the summary of a pooler.
    """
    layout, fields = layout_for(config)
    assert layout is not None
    architecture = getattr(transformers, fields["architectures"][0])
    theirs = architecture(transformers.AutoConfig.for_model(**fields)).eval()
    ours = Encoder(config).eval()
    lengths = torch.tensor([LENGTH, 11, 1] * 4)  # rows enough for a mean over one vector for each
    visible = torch.arange(LENGTH) < lengths[:, None]
    pooled = config.head is None and config.pooler

    def expected(model: nn.Module, ids: Tensor, *types: Tensor) -> Tensor:
        typed = {"token_type_ids": types[0]} if types else {}
        found = model(ids, attention_mask=visible.long(), **typed)
        if config.head is not None:
            return _real(found.logits, visible)
        vectors = _real(found.last_hidden_state, visible).flatten()
        return torch.cat((vectors, found.pooler_output.flatten())) if pooled else vectors

    def mine(model: Encoder, ids: Tensor, *types: Tensor) -> Tensor:
        if config.head is not None:
            return _real(model(ids, visible, *types), visible)
        hidden = model.hidden(ids, visible, *types)
        vectors = _real(hidden, visible).flatten()
        return torch.cat((vectors, model.summary(hidden, visible).flatten())) if pooled else vectors

    # Their padding id, which BERT has at 0, gets no gradient.
    ids, types = (torch.randint(start, stop, visible.shape) for start, stop in ((1, 131), (0, 2)))
    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs, lambda w: layout.to_hf_state(config, w), expected),
        weights=random_weights(ours, spread=0.1),
        inputs=(ids, types) if config.num_types else (ids,),
    )


def _real(output: Tensor, visible: Tensor) -> Tensor:
    """Without what is said of padding, which nobody reads."""
    return output * visible[:, :, None] if output.ndim == 3 else output


def encoder_decoder_pair(config: EncoderDecoderConfig) -> Pair:
    """An encoder-decoder with padded sources."""
    fields = t5.to_hf_config(config)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**fields)).eval()
    if not config.tie_embeddings:  # it ties them all the same, until they are taken apart
        theirs.lm_head.weight = nn.Parameter(torch.empty_like(theirs.lm_head.weight))
    ours = EncoderDecoder(config).eval()
    visible = torch.arange(LENGTH) < torch.tensor([[LENGTH], [11], [1]])

    def logits(model: nn.Module, source: Tensor, target: Tensor) -> Tensor:
        return model(source, attention_mask=visible.long(), decoder_input_ids=target).logits

    def mine(model: nn.Module, source: Tensor, target: Tensor) -> Tensor:
        return model(source, target, visible)

    source, target = (torch.randint(1, VOCABULARY, (3, length)) for length in (LENGTH, 23))
    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs, lambda w: t5.to_hf_state(config, w), logits),
        weights=random_weights(ours, spread=0.05),  # scores are not divided by √E: they grow fast
        inputs=(source, target),
    )


def in_memory(state: Weights) -> Weights:
    """A file's tensors as transformers holds them: each layer's experts in two tensors."""
    kept, layers = {}, {}
    for name, tensor in state.items():
        name = name.replace("block_sparse_moe", "mlp")
        found = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", name)
        if found is None:
            kept[name] = tensor
        else:
            layers.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = tensor
    for layer, experts in layers.items():
        parts = [experts[number] for number in sorted(experts)]
        gate, up, down = ("w1", "w3", "w2") if "w1" in parts[0] else _NAMES
        kept[f"{layer}.gate_up_proj"] = torch.stack([torch.cat((p[gate], p[up])) for p in parts])
        kept[f"{layer}.down_proj"] = torch.stack([p[down] for p in parts])
    return kept


_NAMES = ("gate_proj", "up_proj", "down_proj")


def cases() -> dict[str, Case]:
    """Every preset that transformers has too."""
    found: dict[str, Case] = {}
    for name, config in PUBLISHED.items():
        dtypes = BOTH if smooth(config.feed_forward) else EXACT
        architecture = _architecture(to_hf_config(config))
        found[name] = Case(architecture, partial(decoder_pair, config), dtypes)
    for name, config in ENCODERS.items():
        architecture = _architecture(layout_for(config)[1])
        found[name] = Case(architecture, partial(encoder_pair, config))
    for name, config in ENCODER_DECODERS.items():
        if name.startswith("t5"):
            dtypes = BOTH if smooth(config.feed_forward) else EXACT
            architecture = _architecture(t5.to_hf_config(config))
            found[name] = Case(architecture, partial(encoder_decoder_pair, config), dtypes)
    return found


def _architecture(fields: dict[str, Any]) -> str:
    return f"transformers {fields['architectures'][0]}"
