"""What training costs: floating-point operations of all kinds but decoders.

Only matrix multiplications count, forward and backward, a multiply and an add as two:

    a weight                  6 per token: once forward, twice backward
    a weight on pixels        4: pixels need no gradient
    attention to S keys       12 · S · H·E per query and layer; half where only the past is seen

Those of decoders are in `groundup.models.config`.
"""

from __future__ import annotations

from itertools import pairwise

from groundup.models.config import block_weights
from groundup.models.config import flops_per_token as decoder_flops
from groundup.models.encoder_config import EncoderConfig
from groundup.models.encoder_decoder_config import EncoderDecoderConfig
from groundup.models.image_config import MLPConfig, ViTConfig
from groundup.models.recurrent_config import RecurrentConfig
from groundup.models.vision_language_config import VisionLanguageConfig, num_image_tokens
from groundup.nn.recurrent import NUM_GATES


def encoder_flops(config: EncoderConfig, length: int) -> float:
    """Per token of a text of `length`: 6·N + 12·L·T·H·E, and the head's.

    Where a layer has a window w below T, 2·w - 1 - w·(w - 1) / T stands for T. Narrow tables add
    6·D·width to N. A masked head adds 6·(D + V)·width, a token head 6·C·D and its transform; those
    of a sequence head and its pooler are computed once a text, so each token bears its T-th part.
    """
    width, heads, head = config.width, config.attention, config.head
    seen = 0.0
    for layer in range(config.num_layers):
        window = min(heads.window(layer) or length, length)
        all_of_it = window == length
        seen += length if all_of_it else 2 * window - 1 - window * (window - 1) / length
    weights = config.num_layers * block_weights(heads, config.feed_forward, width)
    tables = config.embedding_width or width
    if config.embedding_width is not None:
        weights += tables * width
    per_text = 0
    if head is not None and head.kind == "masked":
        weights += tables * (width + config.vocab_size)
    elif head is not None:
        classes = width * head.num_classes + (width * width if head.transform else 0)
        if head.kind == "token":
            weights += classes
        else:
            per_text = classes + (width * width if config.pooler else 0)
    return 6 * (weights + per_text / length) + 12 * seen * heads.mixing_width


def encoder_decoder_flops(config: EncoderDecoderConfig, length: int) -> float:
    """Per token of a target of `length`, the reading of a source as long included.

    Encoder 6·N + 12·L·T·H·E, decoder the same with half of the scores, looking up the source
    6·(projections) + 12·L·T·H·E, head 6·V·D.
    """
    width, heads = config.width, config.attention
    block = 6 * block_weights(heads, config.feed_forward, width)
    scores = 12 * length * heads.mixing_width
    look_up = 6 * heads.num_weights(width) + scores
    return float(
        config.num_encoder_layers * (block + scores)
        + config.num_decoder_layers * (block + scores // 2 + look_up)
        + 6 * config.vocab_size * width
    )


def recurrent_flops(config: RecurrentConfig) -> float:
    """Per token, at any length: 6·(G·C·(D + C) of the first layer, 2·G·C² of others, V·C)."""
    state, gates = config.state_width, NUM_GATES[config.kind]
    first, other = config.width + state, 2 * state
    weights = gates * state * (first + (config.num_layers - 1) * other)
    return 6.0 * (weights + config.vocab_size * state)


def mlp_flops(config: MLPConfig) -> float:
    """Per image: 4 · the first layer's weights, 6 · those of the others."""
    widths = [config.channels * config.image_size**2, *config.hidden_widths, config.num_classes]
    first, *others = (inputs * outputs for inputs, outputs in pairwise(widths))
    return 4.0 * first + 6.0 * sum(others)


def vit_flops(config: ViTConfig) -> float:
    """Per image of N patches, T = N or N + 1 tokens: 4·N·C·P²·D + T·L·(6·N_block + 12·T·H·E)."""
    patches, width, heads = config.num_patches, config.width, config.attention
    tokens = patches + (config.pooling == "first")
    layer = 6 * block_weights(heads, config.feed_forward, width) + 12 * tokens * heads.mixing_width
    embedding = 4 * patches * config.channels * config.patch_size**2 * width
    return float(embedding + tokens * config.num_layers * layer + 6 * config.num_classes * width)


def vision_language_flops(config: VisionLanguageConfig, length: int) -> float:
    """Per token of a text of `length`, the places of its image included: the decoder's, and a
    share of what its one image costs.
    """
    inner, width, size = config.vision.width, config.language.width, config.vision.image_size
    image = vit_flops(config.vision)
    image += 6 * num_image_tokens(config, size, size) * (inner * width + width * width)
    if config.policy == "queries":
        patches = config.vision.num_patches
        image += 12 * patches * inner * inner + 12 * config.num_queries * patches * inner
    return decoder_flops(config.language, length) + image / length
