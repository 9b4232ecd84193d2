"""Whole models that no adapter of ours writes, beside the same made of torch's or others' parts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from groundup.models.decoder import Decoder
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import EncoderDecoderConfig
from groundup.models.image import MLPClassifier, VisionTransformer
from groundup.models.image_config import MLPConfig, vit
from groundup.models.presets import llama
from groundup.nn.config import LatentConfig, NormConfig, PositionsConfig
from parity.attention import deepseek_names
from parity.blocks import torch_layer
from parity.harness import EXACT, Case, Pair, Weights, module_function, random_weights
from parity.zoo import ENCODER_DECODERS, VOCABULARY, attending, shape

LENGTH = 37


def transformer_pair(config: EncoderDecoderConfig) -> Pair:
    """The original Transformer out of torch's layers, without the two norms it ends them with."""
    options = {"dim_feedforward": config.feed_forward.width, "dropout": 0.0, "batch_first": True}
    sizes = (config.width, config.attention.num_heads)
    encoder = [nn.TransformerEncoderLayer(*sizes, **options) for _ in range(2)]
    decoder = [nn.TransformerDecoderLayer(*sizes, **options) for _ in range(2)]
    theirs = nn.ModuleDict({"encoder": nn.ModuleList(encoder), "decoder": nn.ModuleList(decoder)})
    table = nn.Embedding(config.vocab_size, config.width)
    ours, theirs["embedding"] = EncoderDecoder(config).eval(), table
    hidden = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [11], [1]])
    future = torch.ones(23, 23).triu(1).bool()

    def translate(weights: Weights) -> Weights:
        found = {"embedding.weight": weights["embedding.weight"]}
        for name in theirs.state_dict():
            stack, layer, *_ = name.split(".")
            if stack == "embedding":
                continue
            prefix = f"{stack}.blocks.{layer}."
            block = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            found |= {f"{stack}.{layer}.{k}": v for k, v in torch_layer(block).items()}
        return found

    def embed(module: nn.ModuleDict, ids: Tensor) -> Tensor:
        x = module["embedding"](ids) * config.width**0.5
        angles = torch.arange(ids.shape[1])[:, None] / 10_000 ** (
            torch.arange(0, config.width, 2) / config.width
        )
        table = torch.empty(ids.shape[1], config.width)
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
        return x + table.to(x.dtype)

    def expected(module: Any, source: Tensor, target: Tensor) -> Tensor:
        x, y = embed(module, source), embed(module, target)
        for layer in module["encoder"]:
            x = layer(x, src_key_padding_mask=hidden)
        for layer in module["decoder"]:
            y = layer(y, x, tgt_mask=future, memory_key_padding_mask=hidden)
        return y @ module["embedding"].weight.T

    source, target = (torch.randint(1, VOCABULARY, (3, length)) for length in (LENGTH, 23))
    return Pair(
        ours=module_function(ours, call=lambda module, s, t: module(s, t, ~hidden)),
        theirs=module_function(theirs, translate, expected),
        weights=random_weights(ours, spread=0.1),
        inputs=(source, target),
    )


def deepseek_pair() -> Pair:
    """Latent attention in every layer, and dense networks, as in DeepSeek-V2's first layers."""
    config = attending(
        llama(**shape(width=42)),
        latent=LatentConfig(rank=8, rope_width=4, value_width=5, query_rank=9),
    )
    positions = PositionsConfig(layout="interleaved")
    config = replace(config, positions=positions, norm=NormConfig(eps=1e-6))
    fields = transformers.DeepseekV2Config(
        vocab_size=VOCABULARY, hidden_size=42, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, intermediate_size=70, max_position_embeddings=53,
        q_lora_rank=9, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=20, v_head_dim=5,
        rms_norm_eps=1e-6, first_k_dense_replace=3,
    )  # fmt: skip
    theirs = transformers.DeepseekV2ForCausalLM(fields).eval()
    ours = Decoder(config).eval()
    names = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
    names |= {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    names |= {f"feed_forward.{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}

    def translate(weights: Weights) -> Weights:
        found = {}
        for layer in range(config.num_layers):
            start = f"blocks.{layer}.attention."
            mine = {k.removeprefix(start): w for k, w in weights.items() if k.startswith(start)}
            attention = deepseek_names(mine)
            found |= {f"model.layers.{layer}.self_attn.{k}": w for k, w in attention.items()}
        for name, tensor in weights.items():
            module = name.removesuffix(".weight")
            if module.startswith("blocks."):
                _, layer, part = module.split(".", 2)
                if part in names:
                    found[f"model.layers.{layer}.{names[part]}.weight"] = tensor
            else:
                found[f"{names[module]}.weight"] = tensor
        return found

    def logits(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids, use_cache=False).logits

    return Pair(
        ours=module_function(ours),
        theirs=module_function(theirs, translate, logits),
        weights=random_weights(ours),
        inputs=(torch.randint(0, VOCABULARY, (2, LENGTH)),),
    )


def vit_pair() -> Pair:
    """A vision transformer; patches through a matrix here, through a convolution there."""
    config = vit(image_size=21, patch_size=7, num_classes=11, channels=3, width=42, num_heads=3)
    fields = transformers.ViTConfig(
        hidden_size=42, num_hidden_layers=4, num_attention_heads=3, intermediate_size=168,
        image_size=21, patch_size=7, num_channels=3, num_labels=11, layer_norm_eps=1e-6,
    )  # fmt: skip
    theirs = transformers.ViTForImageClassification(fields).eval()
    ours = VisionTransformer(config).eval()
    names = {"attention_norm": "layernorm_before", "feed_forward_norm": "layernorm_after"}
    names |= {"feed_forward.up": "mlp.fc1", "feed_forward.down": "mlp.fc2"}
    names |= {f"attention.{n}": f"attention.{n[0]}_proj" for n in ("query", "key", "value", "out")}

    def translate(weights: Weights) -> Weights:
        found = {
            "vit.embeddings.cls_token": weights["class_token"][None, None],
            "vit.embeddings.position_embeddings": weights["position_embedding.weight"][None],
        }
        whole = {"embedding": "embeddings.patch_embeddings.projection", "final_norm": "layernorm"}
        for name, tensor in weights.items():
            module, _, leaf = name.rpartition(".")
            if name == "embedding.weight":
                tensor = tensor.view(42, 3, 7, 7)
            if module.startswith("blocks."):
                _, layer, part = module.split(".", 2)
                found[f"vit.layers.{layer}.{names[part]}.{leaf}"] = tensor
            elif module in whole:
                found[f"vit.{whole[module]}.{leaf}"] = tensor
            elif module == "head":
                found[f"classifier.{leaf}"] = tensor
        return found

    return Pair(
        ours=module_function(ours),
        theirs=module_function(theirs, translate, lambda module, images: module(images).logits),
        weights=random_weights(ours, spread=0.1),
        inputs=(torch.randn(3, 3, 21, 21),),
    )


def mlp_pair() -> Pair:
    """An image classifier of dense layers."""
    config = MLPConfig(
        image_size=7, channels=3, num_classes=11, hidden_widths=(29, 13), activation="silu"
    )
    ours = MLPClassifier(config).eval()
    theirs = nn.Sequential(
        nn.Flatten(), nn.Linear(147, 29), nn.SiLU(), nn.Linear(29, 13), nn.SiLU(),
        nn.Linear(13, 11),
    )  # fmt: skip
    names = {"layers.0": "1", "layers.1": "3", "head": "5"}

    def translate(weights: Weights) -> Weights:
        parts = ((*name.rpartition("."), tensor) for name, tensor in weights.items())
        return {f"{names[module]}.{leaf}": tensor for module, _, leaf, tensor in parts}

    images = torch.randn(5, 3, 7, 7)
    theirs_of = module_function(theirs, translate)
    return Pair(module_function(ours), theirs_of, random_weights(ours), (images,))


def cases() -> dict[str, Case]:
    """The original Transformer, latent attention in a whole decoder, image classifiers."""
    layers = "nn.TransformerEncoderLayer, nn.TransformerDecoderLayer"
    original = partial(transformer_pair, ENCODER_DECODERS["transformer"])
    return {
        "transformer": Case(layers, original, EXACT),
        "deepseek-latent": Case("transformers DeepseekV2ForCausalLM", deepseek_pair),
        "vit": Case("transformers ViTForImageClassification", vit_pair),
        "mlp": Case("nn.Sequential", mlp_pair),
    }
