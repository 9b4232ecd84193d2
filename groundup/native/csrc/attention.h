// Causal attention for training, in bf16 with softmax in fp32: what forward and backward share.
//
// One item of work is one head of one row: T queries and keys of E channels. Query i sees the keys
// first[i]..i, which expresses windows and documents alike.

#pragma once

#include <limits.h>

#include "packing.h"

// (B, T, heads, E) bf16 with any strides, in elements; channels lie next to each other.
struct heads {
    bf16 *data;
    int64_t row, token, head;
};

struct attention {
    struct heads query, key, value, out;
    const int32_t *first;  // (B, T): the first key each query sees, not decreasing; NULL: all 0
    float *log_sums;       // (B, H, T): log2 of each query's sum of 2^score
    int32_t rows, length, num_heads, num_kv_heads, head_width, num_threads;
    float scale;
};

struct gradients {
    struct heads out;                // given
    struct heads query, key, value;  // to be written
};

int groundup_attention(const struct attention *a);
int groundup_attention_backward(const struct attention *a, const struct gradients *g);

static inline bf16 *head_of(const struct heads *heads, int row, int head) {
    return heads->data + row * heads->row + head * heads->head;
}

// The first key each query of a row sees; for queries that are padding, one it cannot reach.
static void first_keys(const struct attention *a, int row, int32_t *to) {
    for (int t = 0; t < padded(a->length, BLOCK); t++) {
        to[t] = INT_MAX;
        if (t < a->length) to[t] = a->first ? a->first[(size_t)row * a->length + t] : 0;
    }
}
