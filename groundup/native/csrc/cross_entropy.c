// Cross-entropy over the vocabulary: of each row's logits its loss, and the gradient in their place.
//
// A row is read twice, for the sum of the exponentials and for the gradient: softmax(logits), less
// one at the target. Rows whose target is negative lose nothing and have gradient 0.

#include <omp.h>

#include "vector.h"

struct cross_entropy {
    bf16 *logits;            // (M, V), to be replaced by gradients
    const int64_t *targets;  // (M,)
    float *losses;           // (M,) in nats
    int64_t stride;
    int32_t rows, vocab_size, num_threads, unused;
};

int groundup_cross_entropy(const struct cross_entropy *c);

static float cross_entropy_row(bf16 *logits, int size, int64_t target) {
    const __m512 bits = _mm512_set1_ps(1.44269504f);
    __m512 largest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int v = 0; v < size; v += 16) {
        __mmask16 some = lanes(size - v);
        __m512 row = load_bf16(logits + v, size - v);
        largest = _mm512_mask_max_ps(largest, some, largest, row);
    }
    const float top = _mm512_reduce_max_ps(largest);
    const __m512 shift = _mm512_mul_ps(_mm512_set1_ps(top), bits);
    for (int v = 0; v < size; v += 16) {
        __mmask16 some = lanes(size - v);
        __m512 row = load_bf16(logits + v, size - v);
        __m512 weight = power_of_two(_mm512_fmsub_ps(row, bits, shift));
        total = _mm512_mask_add_ps(total, some, total, weight);
    }
    const float sum = _mm512_reduce_add_ps(total);
    const float loss = top + logf(sum) - to_float(logits[target]);
    const __m512 inverse = _mm512_set1_ps(1.0f / sum);
    for (int v = 0; v < size; v += 16) {
        __m512 row = load_bf16(logits + v, size - v);
        __m512 share = _mm512_mul_ps(power_of_two(_mm512_fmsub_ps(row, bits, shift)), inverse);
        if (target >= v && target < v + 16) {
            __mmask16 here = (__mmask16)(1u << (target - v));
            share = _mm512_mask_sub_ps(share, here, share, _mm512_set1_ps(1.0f));
        }
        store_bf16(logits + v, share, size - v);
    }
    return loss;
}

int groundup_cross_entropy(const struct cross_entropy *c) {
    #pragma omp parallel for schedule(static) num_threads(c->num_threads)
    for (int m = 0; m < c->rows; m++) {
        bf16 *row = c->logits + m * c->stride;
        c->losses[m] = 0.0f;
        if (c->targets[m] >= 0) {
            c->losses[m] = cross_entropy_row(row, c->vocab_size, c->targets[m]);
        } else {
            memset(row, 0, (size_t)c->vocab_size * sizeof(bf16));
        }
    }
    return 0;
}
