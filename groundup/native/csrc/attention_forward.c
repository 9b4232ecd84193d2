// out = softmax(scale · q kᵀ) v, 32 queries at a time: their scores against all keys they may see
// fit the cache, so that softmax needs one pass and no rescaling.

#include "attention.h"

#if HAVE_TILES
struct own {
    uint32_t *keys, *values;  // packed, of one key/value head
    bf16 *queries, *weights;  // (T, E); (32, T)
    float *scores, *found;    // (32, T); (32, E)
    int32_t *first;           // (T,)
    int packed;               // which row and key/value head they are of
};

// Scores (32, to - from) -> weights 2^(score - largest), and for each query 1 / their sum.
static void softmax(const struct attention *a, struct own *own, int start, int from, int to,
                    float *log_sums, float *inverse) {
    const size_t stride = padded(a->length, BLOCK);
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 scale = _mm512_set1_ps(a->scale * 1.44269504f);
    for (int i = 0; i < BLOCK; i++) {
        float *row = own->scores + i * stride;
        const __m512i last = _mm512_set1_epi32(start + i);
        const __m512i first = _mm512_set1_epi32(own->first[start + i]);
        __m512 largest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
        for (int k = from; k < to; k += 16) {
            __m512i key = _mm512_add_epi32(count, _mm512_set1_epi32(k));
            __mmask16 seen = _mm512_cmple_epi32_mask(key, last) &
                             _mm512_cmpge_epi32_mask(key, first);
            __m512 score = _mm512_mul_ps(_mm512_loadu_ps(row + k), scale);
            score = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen, score);
            largest = _mm512_max_ps(largest, score);
            _mm512_storeu_ps(row + k, score);
        }
        float top = _mm512_reduce_max_ps(largest);
        __m512 shift = _mm512_set1_ps(top == -INFINITY ? 0.0f : top);  // padding sees nothing
        for (int k = from; k < to; k += 32) {
            __m512 low = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(row + k), shift));
            __m512 high = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(row + k + 16), shift));
            total = _mm512_add_ps(total, _mm512_add_ps(low, high));
            _mm512_storeu_si512(own->weights + i * stride + k, narrow_pair(low, high));
        }
        float sum = _mm512_reduce_add_ps(total);
        inverse[i] = sum == 0.0f ? 0.0f : 1.0f / sum;
        if (start + i < a->length) log_sums[start + i] = top + log2f(sum);
    }
}

static void attend_block(const struct attention *a, struct own *own, int start, bf16 *out,
                         float *log_sums) {
    const size_t stride = padded(a->length, BLOCK), wide = padded(a->head_width, 32);
    const int from = own->first[start] / BLOCK * BLOCK, to = start + BLOCK;
    for (int k = from; k < to; k += BLOCK) {
        clear_tiles();
        accumulate(own->queries + start * wide, wide, own->keys + (size_t)k / 16 * (wide / 32) * 256,
                   256, wide / 32 * 256, wide / 32);
        store_tiles(own->scores + k, stride);
    }
    float inverse[BLOCK];
    softmax(a, own, start, from, to, log_sums, inverse);
    for (size_t e = 0; e < wide; e += 32) {
        clear_tiles();
        accumulate(own->weights + from, stride,
                   own->values + ((size_t)from / 32 * (wide / 16) + e / 16) * 256,
                   wide / 16 * 256, 256, (to - from) / 32);
        store_tiles(own->found + e, wide);
    }
    for (int i = 0; i < BLOCK && start + i < a->length; i++) {
        bf16 *row = out + (start + i) * a->out.token;
        for (int e = 0; e < a->head_width; e += 16) {
            __m512 found = _mm512_loadu_ps(own->found + i * wide + e);
            store_bf16(row + e, _mm512_mul_ps(found, _mm512_set1_ps(inverse[i])), a->head_width - e);
        }
    }
}

static void attend_head(const struct attention *a, struct own *own, int row, int head) {
    const int kv_head = head / (a->num_heads / a->num_kv_heads);
    const int length = a->length, width = a->head_width;
    if (own->packed != row * a->num_kv_heads + kv_head) {
        const bf16 *keys = head_of(&a->key, row, kv_head);
        const bf16 *values = head_of(&a->value, row, kv_head);
        pack_transposed(keys, a->key.token, length, width, own->keys);
        pack_pairs(values, a->value.token, length, width, own->values);
        own->packed = row * a->num_kv_heads + kv_head;
        first_keys(a, row, own->first);
    }
    copy_rows(head_of(&a->query, row, head), a->query.token, length, width, own->queries);
    float *log_sums = a->log_sums + ((size_t)row * a->num_heads + head) * length;
    for (int start = 0; start < length; start += BLOCK) {
        attend_block(a, own, start, head_of(&a->out, row, head), log_sums);
    }
}
#endif

// Returns 0, -1 when there is no memory, -2 where there are no tiles.
int groundup_attention(const struct attention *a) {
#if HAVE_TILES
    const size_t tokens = padded(a->length, BLOCK), wide = padded(a->head_width, 32);
    const size_t size = tokens * wide * 6 + tokens * BLOCK * 6 + BLOCK * wide * 4 + tokens * 4;
    int failed = 0;
    #pragma omp parallel num_threads(a->num_threads)
    {
        char *block = aligned_alloc(64, (size + 8 * 64) / 64 * 64), *left = block;
        struct own own = {
            .keys = cut(&left, tokens * wide * 2),
            .values = cut(&left, tokens * wide * 2),
            .queries = cut(&left, tokens * wide * 2),
            .weights = cut(&left, tokens * BLOCK * 2),
            .scores = cut(&left, tokens * BLOCK * 4),
            .found = cut(&left, BLOCK * wide * 4),
            .first = cut(&left, tokens * 4),
            .packed = -1,
        };
        if (!block) {
            #pragma omp atomic write
            failed = -1;
        }
        tiles_begin();
        #pragma omp for schedule(static)
        for (int item = 0; item < a->rows * a->num_heads; item++) {
            if (block) attend_head(a, &own, item / a->num_heads, item % a->num_heads);
        }
        tiles_end();
        free(block);
    }
    return failed;
#else
    (void)a;
    return -2;
#endif
}
