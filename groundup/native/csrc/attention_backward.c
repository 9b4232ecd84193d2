// Gradients of attention. With p the weights and d = p · (dout vᵀ - sum(out · dout)) · scale:
//
//   dv = pᵀ dout        dk = dᵀ q        dq = d k
//
// The weights are computed again from the scores and `log_sums`. For 32 keys at a time pᵀ and dᵀ
// (keys by queries) are made for all queries that see them, which gives dv and dk of these keys;
// dᵀ is kept for SPAN keys, after which they are added to dq. Heads that share keys are one item
// of work, so that no two threads write one gradient.

#include "attention.h"

#define SPAN 256  // keys whose d is kept: 1 MB at 2048 queries

#if HAVE_TILES
struct own {
    bf16 *key_rows, *value_rows;         // (T, E): left operands
    bf16 *key_columns;                   // (E, T): left operand
    uint32_t *queries, *out_gradients;   // transposed: right operands
    uint32_t *query_pairs, *out_pairs;   // by pairs of tokens: right operands
    bf16 *weights, *deltas;              // pᵀ and dᵀ of 32 keys, (32, T)
    uint32_t *kept;                      // d of SPAN keys, (T / 16, SPAN / 32) right operands
    float *scores, *products;            // (32, 32)
    float *key_sums, *value_sums;        // (T, E) gradients, over the heads that share them
    float *query_sums;                   // (E, T)
    float *dots;                         // (T,) sum(out · dout)
    int32_t *first;                      // (T,)
};

static float product(const bf16 *a, const bf16 *b, int width) {
    __m512 sum = _mm512_setzero_ps();
    for (int e = 0; e < width; e += 16) {
        sum = _mm512_fmadd_ps(load_bf16(a + e, width - e), load_bf16(b + e, width - e), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

// (T, E) packed as words of two channels -> (E, T).
static void unpack_columns(const uint32_t *packed, int tokens, int wide, bf16 *to) {
    for (int t = 0; t < tokens; t += 16) {
        for (int e = 0; e < wide; e += 32, packed += 256) {
            for (int pair = 0; pair < 16; pair++) {
                __m512i both = _mm512_loadu_si512(packed + pair * 16);
                bf16 *even = to + (size_t)(e + 2 * pair) * tokens + t;
                _mm256_storeu_si256((__m256i *)even, _mm512_cvtepi32_epi16(both));
                _mm256_storeu_si256((__m256i *)(even + tokens),
                                    _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
            }
        }
    }
}

// pᵀ and dᵀ of 32 keys and 32 queries from their scores and products, into their rows and, in
// pairs of keys, into `kept`, whose tiles of 16 queries lie `apart`.
static void differentiate(const struct attention *a, struct own *own, const float *log_sums,
                          int key, int query, uint32_t *kept, size_t apart) {
    const size_t stride = padded(a->length, BLOCK);
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 scale = _mm512_set1_ps(a->scale);
    const __m512 bits = _mm512_set1_ps(a->scale * 1.44269504f);
    for (int half = 0; half < 2; half++) {
        const int q = query + 16 * half;
        const __mmask16 real = lanes(a->length - q);
        const __m512 log_sum = _mm512_maskz_loadu_ps(real, log_sums + q);
        const __m512 dot = _mm512_loadu_ps(own->dots + q);
        const __m512i last = _mm512_add_epi32(count, _mm512_set1_epi32(q));
        const __m512i first = _mm512_loadu_si512(own->first + q);
        for (int pair = 0; pair < 16; pair++) {
            __m256i halves[2];
            for (int i = 0; i < 2; i++) {
                const int row = 2 * pair + i;
                const __m512i here = _mm512_set1_epi32(key + row);
                const __mmask16 seen = real & _mm512_cmple_epi32_mask(here, last) &
                                       _mm512_cmpge_epi32_mask(here, first);
                __m512 score = _mm512_loadu_ps(own->scores + row * BLOCK + 16 * half);
                __m512 weight = power_of_two(_mm512_fmsub_ps(score, bits, log_sum));
                weight = _mm512_maskz_mov_ps(seen, weight);
                __m512 delta = _mm512_loadu_ps(own->products + row * BLOCK + 16 * half);
                delta = _mm512_mul_ps(_mm512_sub_ps(delta, dot), scale);
                delta = _mm512_maskz_mul_ps(seen, delta, weight);
                store_bf16(own->weights + row * stride + q, weight, 16);
                halves[i] = narrow(delta);
                _mm256_storeu_si256((__m256i *)(own->deltas + row * stride + q), halves[i]);
            }
            _mm512_storeu_si512(kept + half * apart + pair * 16, words(halves[0], halves[1]));
        }
    }
}

// sums (32, E) += left (32 keys, the queries from..to) · right, whose tiles begin at token 0.
static void add_keys(float *sums, const bf16 *left, size_t stride, const uint32_t *right, int wide,
                     int from, int to) {
    for (int e = 0; e < wide; e += 32) {
        load_tiles(sums + e, wide);
        accumulate(left + from, stride, right + ((size_t)from / 32 * (wide / 16) + e / 16) * 256,
                   (size_t)wide / 16 * 256, 256, (to - from) / 32);
        store_tiles(sums + e, wide);
    }
}

// The end of the queries that see any of 32 keys.
static int end_of_queries(const struct attention *a, const struct own *own, int key) {
    int end = padded(a->length, BLOCK);
    while (end > key + BLOCK && own->first[end - BLOCK] >= key + BLOCK) end -= BLOCK;
    return end;
}

// Query gradients from the d of the keys start..stop.
static void add_queries(const struct attention *a, struct own *own, int start, int stop) {
    const size_t tokens = padded(a->length, BLOCK), wide = padded(a->head_width, 32);
    for (size_t query = start; query < tokens; query += BLOCK) {
        int from = own->first[query] / BLOCK * BLOCK, to = (int)query + BLOCK;
        from = from > start ? from : start;
        to = to < stop ? to : stop;
        if (from >= to) continue;
        const uint32_t *kept = own->kept + (query / 16 * (SPAN / 32) + (from - start) / 32) * 256;
        for (size_t e = 0; e < wide; e += 32) {
            float *sums = own->query_sums + e * tokens + query;
            load_tiles(sums, tokens);
            accumulate(own->key_columns + e * tokens + from, tokens, kept, 256, SPAN / 32 * 256,
                       (to - from) / 32);
            store_tiles(sums, tokens);
        }
    }
}

static void keys_of_block(const struct attention *a, struct own *own, const float *log_sums,
                          int key, int start) {
    const size_t tokens = padded(a->length, BLOCK), wide = padded(a->head_width, 32);
    const int end = end_of_queries(a, own, key);
    for (int query = key; query < end; query += BLOCK) {
        const size_t right = (size_t)query / 16 * (wide / 32) * 256;
        clear_tiles();
        accumulate(own->key_rows + key * wide, wide, own->queries + right, 256, wide / 32 * 256,
                   wide / 32);
        store_tiles(own->scores, BLOCK);
        clear_tiles();
        accumulate(own->value_rows + key * wide, wide, own->out_gradients + right, 256,
                   wide / 32 * 256, wide / 32);
        store_tiles(own->products, BLOCK);
        uint32_t *kept = own->kept + ((size_t)query / 16 * (SPAN / 32) + (key - start) / 32) * 256;
        differentiate(a, own, log_sums, key, query, kept, SPAN / 32 * 256);
    }
    add_keys(own->value_sums + key * wide, own->weights, tokens, own->out_pairs, wide, key, end);
    add_keys(own->key_sums + key * wide, own->deltas, tokens, own->query_pairs, wide, key, end);
}

static void write_rows(const float *sums, size_t wide, const struct heads *to, int row, int head,
                       int length, int width) {
    bf16 *out = head_of(to, row, head);
    for (int t = 0; t < length; t++) {
        for (int e = 0; e < width; e += 16) {
            store_bf16(out + t * to->token + e, _mm512_loadu_ps(sums + t * wide + e), width - e);
        }
    }
}

static void query_gradients(const struct attention *a, const struct gradients *g, struct own *own,
                            int row, int head) {
    const size_t tokens = padded(a->length, BLOCK);
    bf16 *out = head_of(&g->query, row, head);
    for (int t = 0; t < a->length; t += 16) {
        for (int e = 0; e < a->head_width; e += 16) {
            __m512i block[16];
            for (int i = 0; i < 16; i++) {
                block[i] = _mm512_loadu_si512(own->query_sums + (e + i) * tokens + t);
            }
            transpose(block);
            for (int i = 0; i < 16 && t + i < a->length; i++) {
                store_bf16(out + (t + i) * g->query.token + e, _mm512_castsi512_ps(block[i]),
                           a->head_width - e);
            }
        }
    }
}

static void differentiate_head(const struct attention *a, const struct gradients *g,
                               struct own *own, int row, int head) {
    const int length = a->length, width = a->head_width, tokens = padded(length, BLOCK);
    const size_t wide = padded(width, 32);
    const bf16 *query = head_of(&a->query, row, head), *out = head_of(&a->out, row, head);
    const bf16 *gradient = head_of(&g->out, row, head);
    const float *log_sums = a->log_sums + ((size_t)row * a->num_heads + head) * length;
    pack_transposed(query, a->query.token, length, width, own->queries);
    pack_pairs(query, a->query.token, length, width, own->query_pairs);
    pack_transposed(gradient, g->out.token, length, width, own->out_gradients);
    pack_pairs(gradient, g->out.token, length, width, own->out_pairs);
    for (int t = 0; t < tokens; t++) {
        own->dots[t] = 0.0f;
        if (t < length) {
            own->dots[t] = product(out + t * a->out.token, gradient + t * g->out.token, width);
        }
    }
    memset(own->query_sums, 0, wide * tokens * 4);
    for (int start = 0; start < tokens; start += SPAN) {
        const int stop = start + SPAN < tokens ? start + SPAN : tokens;
        for (int key = start; key < stop; key += BLOCK) keys_of_block(a, own, log_sums, key, start);
        add_queries(a, own, start, stop);
    }
    query_gradients(a, g, own, row, head);
}

static void differentiate_group(const struct attention *a, const struct gradients *g,
                                struct own *own, int row, int kv_head) {
    const int length = a->length, width = a->head_width, tokens = padded(length, BLOCK);
    const int group = a->num_heads / a->num_kv_heads;
    const size_t wide = padded(width, 32);
    const bf16 *keys = head_of(&a->key, row, kv_head);
    pack_transposed(keys, a->key.token, length, width, own->queries);  // for the columns alone
    unpack_columns(own->queries, tokens, wide, own->key_columns);
    copy_rows(keys, a->key.token, length, width, own->key_rows);
    copy_rows(head_of(&a->value, row, kv_head), a->value.token, length, width, own->value_rows);
    first_keys(a, row, own->first);
    memset(own->key_sums, 0, wide * tokens * 4);
    memset(own->value_sums, 0, wide * tokens * 4);
    for (int i = 0; i < group; i++) differentiate_head(a, g, own, row, kv_head * group + i);
    write_rows(own->key_sums, wide, &g->key, row, kv_head, length, width);
    write_rows(own->value_sums, wide, &g->value, row, kv_head, length, width);
}
#endif

// Returns 0, -1 when there is no memory, -2 where there are no tiles.
int groundup_attention_backward(const struct attention *a, const struct gradients *g) {
#if HAVE_TILES
    const size_t tokens = padded(a->length, BLOCK), wide = padded(a->head_width, 32);
    const size_t matrix = tokens * wide;
    const size_t size = matrix * (7 * 2 + 3 * 4) + tokens * (2 * BLOCK * 2 + SPAN * 2 + 4 + 4) +
                        2 * BLOCK * BLOCK * 4 + 16 * 64;
    int failed = 0;
    #pragma omp parallel num_threads(a->num_threads)
    {
        char *block = aligned_alloc(64, (size + 63) / 64 * 64), *left = block;
        struct own own = {
            .key_rows = cut(&left, matrix * 2),
            .value_rows = cut(&left, matrix * 2),
            .key_columns = cut(&left, matrix * 2),
            .queries = cut(&left, matrix * 2),
            .out_gradients = cut(&left, matrix * 2),
            .query_pairs = cut(&left, matrix * 2),
            .out_pairs = cut(&left, matrix * 2),
            .weights = cut(&left, tokens * BLOCK * 2),
            .deltas = cut(&left, tokens * BLOCK * 2),
            .kept = cut(&left, tokens * SPAN * 2),
            .scores = cut(&left, BLOCK * BLOCK * 4),
            .products = cut(&left, BLOCK * BLOCK * 4),
            .key_sums = cut(&left, matrix * 4),
            .value_sums = cut(&left, matrix * 4),
            .query_sums = cut(&left, matrix * 4),
            .dots = cut(&left, tokens * 4),
            .first = cut(&left, tokens * 4),
        };
        if (!block) {
            #pragma omp atomic write
            failed = -1;
        }
        tiles_begin();
        #pragma omp for schedule(static)
        for (int item = 0; item < a->rows * a->num_kv_heads; item++) {
            if (block) {
                differentiate_group(a, g, &own, item / a->num_kv_heads, item % a->num_kv_heads);
            }
        }
        tiles_end();
        free(block);
    }
    return failed;
#else
    (void)a, (void)g;
    return -2;
#endif
}
