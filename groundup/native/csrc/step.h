// What a decoder is to the native step: numbers, and pointers to weights that Python owns.
// groundup/native/step.py mirrors these structures field by field.

#pragma once

#include "rows.h"

#define PAGE 16  // tokens of a page of the cache; as many floats as a vector has

enum activation { SILU, GELU, GELU_TANH, RELU, RELU_SQUARED };

struct norm {
    const float *weight;  // (D,)
    const float *bias;    // (D,) for a LayerNorm that has one, else NULL
};

struct layer {
    struct norm attention_norm, feed_forward_norm;
    const float *query_norm, *key_norm;       // (E,), RMSNorm; NULL for none
    struct weights projection;                // queries, keys and values: ((H + 2K)·E, D)
    struct weights out;                       // (D, H·E)
    struct weights up;                        // (F, D), or gate and up below each other: (2F, D)
    struct weights down;                      // (D, F)
    const float *projection_bias, *out_bias;  // NULL for none
    const float *up_bias, *down_bias;
    int32_t window;  // how many keys it sees; 0 for all
    int32_t unused;
};

struct model {
    const struct layer *layers;
    const bf16 *embedding;        // (V, D)
    const float *positions;       // (context, D) to add, or NULL
    const float *cosine, *sine;   // (context, E / 2), or NULL
    struct norm final_norm;
    struct weights head;          // (V, D)
    const float *head_bias;       // NULL for none
    int32_t num_layers, width, num_heads, num_kv_heads, head_width, feed_forward_width, vocab_size;
    int32_t interleaved;  // RoPE turns neighbours, not halves
    int32_t layer_norm;   // LayerNorm, not RMSNorm
    int32_t gated, activation;
    float norm_eps, score_scale, embedding_scale;
};

// Keys and values of all layers, in pages of 16 tokens.
// Keys of a page and head lie as (E / 2, 16 tokens, 2): a vector holds one pair of channels of all
// tokens, and scores need no sums over lanes. Values lie as (16 tokens, E).
struct cache {
    bf16 *keys, *values;  // (num_layers, num_pages, K, 16 · E)
    int32_t num_pages, unused;
};

// The tokens of a step, of any sequences. Those of one sequence stand in order; each sees what its
// table holds up to its own position, itself included.
struct tokens {
    const int64_t *ids;        // (M,)
    const int32_t *positions;  // (M,)
    const int32_t *tables;     // (M, table_length): the pages of the token's sequence
    const int32_t *wanted;     // (num_wanted,): which of the M are to have logits
    int32_t count, table_length, num_wanted, num_threads;
};

// logits (num_wanted, V). Returns 0, or -1 when there is no memory.
int groundup_step(const struct model *model, const struct cache *cache, const struct tokens *tokens,
                  float *logits);
