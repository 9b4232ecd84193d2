// The step's attention: keys and values into the pages of the cache, and queries against them.

#pragma once

#include <omp.h>

#include "step.h"

struct scratch {     // shared by all threads; M tokens
    float *stream;   // (M, D) the residual stream
    float *heads;    // (M, (H + 2K)·E) queries, keys and values
    float *mixed;    // (M, H·E) what attention found
    float *hidden;   // (M, 2F)
};

struct own {         // of one thread
    struct operand operand;
    float *rows;     // (M, widest input) normalised
    float *scores;   // (heads of a group, positions padded to 16)
};

// One head's query or key: norm, then rotation, in place.
static void turn(const struct model *model, const float *weight, int position, float *head) {
    const int width = model->head_width, half = width / 2;
    if (weight) {
        float squares = 0.0f;
        for (int e = 0; e < width; e++) squares += head[e] * head[e];
        float scale = 1.0f / sqrtf(squares / (float)width + model->norm_eps);
        for (int e = 0; e < width; e++) head[e] *= scale * weight[e];
    }
    if (!model->cosine) return;
    const float *cosine = model->cosine + (size_t)position * half;
    const float *sine = model->sine + (size_t)position * half;
    int apart = model->interleaved ? 1 : half, step = model->interleaved ? 2 : 1;
    for (int i = 0; i < half; i++) {
        float first = head[i * step], second = head[i * step + apart];
        head[i * step] = first * cosine[i] - second * sine[i];
        head[i * step + apart] = second * cosine[i] + first * sine[i];
    }
}

static size_t page_start(const struct model *model, const struct cache *cache, int layer, int page,
                         int head) {
    size_t index = ((size_t)layer * cache->num_pages + page) * model->num_kv_heads + head;
    return index * PAGE * model->head_width;
}

// A token's key and value of one head into the cache.
static void remember(const struct model *model, const struct cache *cache, int layer,
                     const int32_t *table, int position, int head, const float *key,
                     const float *value) {
    const int width = model->head_width, place = position % PAGE;
    size_t start = page_start(model, cache, layer, table[position / PAGE], head);
    bf16 *keys = cache->keys + start, *values = cache->values + start + (size_t)place * width;
    for (int e = 0; e < width; e++) {
        keys[((size_t)(e / 2) * PAGE + place) * 2 + e % 2] = to_bf16(key[e]);
        values[e] = to_bf16(value[e]);
    }
}

// Queries of `group` heads that share keys and values -> what each found, (group, E).
static void attend(const struct model *model, const struct cache *cache, int layer,
                   const int32_t *table, int position, int kv_head, const float *queries,
                   int group, float *found, float *scores) {
    const int width = model->head_width, window = model->layers[layer].window;
    const int first = window && position >= window ? position - window + 1 : 0;
    const int first_page = first / PAGE, last_page = position / PAGE;
    const int span = (last_page - first_page + 1) * PAGE;
    const float to_bits = model->score_scale * 1.44269504f;  // 2^x below, not e^x
    for (int page = first_page; page <= last_page; page++) {
        const bf16 *keys = cache->keys + page_start(model, cache, layer, table[page], kv_head);
        __m512i place = _mm512_add_epi32(_mm512_set1_epi32(page * PAGE), _mm512_setr_epi32(
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        __mmask16 seen = _mm512_cmple_epi32_mask(place, _mm512_set1_epi32(position)) &
                         _mm512_cmpge_epi32_mask(place, _mm512_set1_epi32(first));
        for (int h = 0; h < group; h++) {
            const float *query = queries + (size_t)h * width;
            __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
            for (int e = 0; e < width; e += 2) {
                __m512i pair = _mm512_loadu_si512(keys + (size_t)e * PAGE);
                __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
                __m512 high = _mm512_castsi512_ps(
                    _mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000)));
                even = _mm512_fmadd_ps(low, _mm512_set1_ps(query[e]), even);
                odd = _mm512_fmadd_ps(high, _mm512_set1_ps(query[e + 1]), odd);
            }
            __m512 score = _mm512_mul_ps(_mm512_add_ps(even, odd), _mm512_set1_ps(to_bits));
            score = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen, score);
            _mm512_storeu_ps(scores + (size_t)h * span + (page - first_page) * PAGE, score);
        }
    }
    for (int h = 0; h < group; h++) {
        float *row = scores + (size_t)h * span;
        __m512 largest = _mm512_loadu_ps(row), total = _mm512_setzero_ps();
        for (int k = 16; k < span; k += 16) {
            largest = _mm512_max_ps(largest, _mm512_loadu_ps(row + k));
        }
        __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        for (int k = 0; k < span; k += 16) {
            __m512 weight = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(row + k), top));
            total = _mm512_add_ps(total, weight);
            _mm512_storeu_ps(row + k, weight);
        }
        float *out = found + (size_t)h * width;
        const float inverse = 1.0f / _mm512_reduce_add_ps(total);
        for (int e = 0; e < width; e += 16) {
            __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
            __mmask16 some = lanes(width - e);
            for (int page = first_page; page <= last_page; page++) {
                size_t start = page_start(model, cache, layer, table[page], kv_head);
                const bf16 *values = cache->values + start + e;
                const float *weight = row + (page - first_page) * PAGE;
                int count = page == last_page ? position % PAGE + 1 : PAGE;
                for (int k = 0; k < count; k++) {
                    __m512 value = load_bf16(values + (size_t)k * width, width - e);
                    sum[k % 2] = _mm512_fmadd_ps(_mm512_set1_ps(weight[k]), value, sum[k % 2]);
                }
            }
            __m512 whole = _mm512_mul_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_set1_ps(inverse));
            _mm512_mask_storeu_ps(out + e, some, whole);
        }
    }
}

static void attention(const struct model *model, const struct cache *cache,
                      const struct tokens *tokens, int index, struct scratch *shared,
                      struct own *own) {
    const struct layer *layer = &model->layers[index];
    const int heads = model->num_heads, kv_heads = model->num_kv_heads, width = model->head_width;
    const size_t stride = (size_t)(heads + 2 * kv_heads) * width;
    #pragma omp for schedule(static)
    for (int item = 0; item < tokens->count * (heads + kv_heads); item++) {
        int m = item / (heads + kv_heads), head = item % (heads + kv_heads);
        float *place = shared->heads + m * stride + (size_t)head * width;
        int position = tokens->positions[m];
        if (head < heads) {
            turn(model, layer->query_norm, position, place);
        } else {
            turn(model, layer->key_norm, position, place);
            remember(model, cache, index, tokens->tables + (size_t)m * tokens->table_length,
                     position, head - heads, place, place + (size_t)kv_heads * width);
        }
    }
    // Heads that share keys are done together, unless that would leave threads without work.
    const int sharing = heads / kv_heads;
    const int group = tokens->count * kv_heads >= 4 * omp_get_num_threads() ? sharing : 1;
    #pragma omp for schedule(dynamic, 1)
    for (int item = 0; item < tokens->count * heads / group; item++) {
        int m = item / (heads / group), head = item % (heads / group) * group;
        attend(model, cache, index, tokens->tables + (size_t)m * tokens->table_length,
               tokens->positions[m], head / sharing, shared->heads + m * stride + (size_t)head * width,
               group, shared->mixed + ((size_t)m * heads + head) * width, own->scores);
    }
}
