// Products of weights and a few x with vectors alone: AVX-512, and its dot products of bytes.

#pragma once

#include "formats.h"

static inline __m512i load_int8(const struct weights *w, int n, int g) {
    const size_t width = padded(w->depth, GROUP);
    return _mm512_loadu_si512((const uint8_t *)w->values + n * width + g * GROUP);
}

// 64 numbers from 0 to 15: the lower halves of 32 bytes, then the upper ones.
static inline __m512i load_int4(const struct weights *w, int n, int g) {
    const size_t width = padded(w->depth, GROUP);
    const uint8_t *from = (const uint8_t *)w->values + (n * width + g * GROUP) / 2;
    __m256i pairs = _mm256_loadu_si256((const __m256i *)from), low = _mm256_set1_epi8(15);
    __m256i upper = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), low);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_and_si256(pairs, low)), upper, 1);
}

// The scales of these 64, and their least values: those of the first 32 in the lower 8 lanes.
static inline void load_scales(const struct weights *w, int n, int g, __m512 *scale,
                               __m512 *least) {
    const uint16_t *from = (const uint16_t *)w->scales + ((size_t)n * padded(w->depth, GROUP) / 32 +
                                                          2 * g) * 2;
    __m512 both = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)from)));
    const __m512i scales = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    *scale = _mm512_permutexvar_ps(scales, both);
    *least = _mm512_permutexvar_ps(_mm512_add_epi32(scales, _mm512_set1_epi32(1)), both);
}

// The blocks below are inlined with constant `nw` and `mx`, so that `sum` stays in registers.
#define INLINE static inline __attribute__((always_inline))

INLINE void block_bf16(const struct weights *w, int n, int nw, const struct operand *x, int m,
                       int mx, float *y, size_t stride) {
    const int depth = w->depth, width = padded(depth, 32);
    const bf16 *rows = (const bf16 *)w->values + (size_t)n * depth;
    const bf16 *vectors = (const bf16 *)x->values + (size_t)m * width;
    __m512 sum[4][4];
    for (int i = 0; i < nw; i++) {
        for (int j = 0; j < mx; j++) sum[i][j] = _mm512_setzero_ps();
    }
    for (int k = 0; k < depth; k += 32) {
        __mmask32 some = depth - k >= 32 ? 0xffffffff : (1u << (depth - k)) - 1;
        __m512i along[4];
        for (int j = 0; j < mx; j++) along[j] = _mm512_loadu_si512(vectors + (size_t)j * width + k);
        for (int i = 0; i < nw; i++) {
            __m512i row = _mm512_maskz_loadu_epi16(some, rows + (size_t)i * depth + k);
            for (int j = 0; j < mx; j++) sum[i][j] = dot_bf16(sum[i][j], row, along[j]);
        }
    }
    for (int j = 0; j < mx; j++) {
        for (int i = 0; i < nw; i++) {
            y[(m + j) * stride + n + i] = _mm512_reduce_add_ps(sum[i][j]);
        }
    }
}

INLINE void block_int8(const struct weights *w, int n, int nw, const struct operand *x, int m,
                       int mx, float *y, size_t stride) {
    const int width = padded(w->depth, GROUP), groups = width / GROUP;
    const int8_t *vectors = (const int8_t *)x->values + (size_t)m * width;
    __m512 sum[4][4];
    for (int i = 0; i < nw; i++) {
        for (int j = 0; j < mx; j++) sum[i][j] = _mm512_setzero_ps();
    }
    for (int g = 0; g < groups; g++) {
        __m512i along[4], zero[4];
        for (int j = 0; j < mx; j++) {
            along[j] = _mm512_loadu_si512(vectors + (size_t)j * width + g * GROUP);
            zero[j] = _mm512_loadu_si512(x->sums + ((size_t)(m + j) * groups + g) * 16);
            zero[j] = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(zero[j], 7));
        }
        for (int i = 0; i < nw; i++) {
            const __m512i row = load_int8(w, n + i, g);
            for (int j = 0; j < mx; j++) {
                __m512 whole = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero[j], row, along[j]));
                __m512 unit = _mm512_set1_ps(x->scales[(m + j) * groups + g]);
                sum[i][j] = _mm512_fmadd_ps(unit, whole, sum[i][j]);
            }
        }
    }
    for (int j = 0; j < mx; j++) {
        for (int i = 0; i < nw; i++) {
            const float scale = ((const float *)w->scales)[n + i];
            y[(m + j) * stride + n + i] = scale * _mm512_reduce_add_ps(sum[i][j]);
        }
    }
}

INLINE void block_int4(const struct weights *w, int n, int nw, const struct operand *x, int m,
                       int mx, float *y, size_t stride) {
    const int width = padded(w->depth, GROUP), groups = width / GROUP;
    const int8_t *vectors = (const int8_t *)x->values + (size_t)m * width;
    __m512 sum[4][4];
    for (int i = 0; i < nw; i++) {
        for (int j = 0; j < mx; j++) sum[i][j] = _mm512_setzero_ps();
    }
    for (int g = 0; g < groups; g++) {
        __m512i along[4];
        __m512 sums[4], unit[4];
        for (int j = 0; j < mx; j++) {
            const size_t place = (size_t)(m + j) * groups + g;
            along[j] = _mm512_loadu_si512(vectors + (size_t)j * width + g * GROUP);
            sums[j] = _mm512_cvtepi32_ps(_mm512_loadu_si512(x->sums + place * 16));
            unit[j] = _mm512_set1_ps(x->scales[place]);
        }
        for (int i = 0; i < nw; i++) {
            const __m512i row = load_int4(w, n + i, g);
            __m512 scale, least;
            load_scales(w, n + i, g, &scale, &least);
            for (int j = 0; j < mx; j++) {
                __m512i whole = _mm512_dpbusd_epi32(_mm512_setzero_si512(), row, along[j]);
                __m512 part = _mm512_mul_ps(least, sums[j]);
                part = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(whole), part);
                sum[i][j] = _mm512_fmadd_ps(unit[j], part, sum[i][j]);
            }
        }
    }
    for (int j = 0; j < mx; j++) {
        for (int i = 0; i < nw; i++) {
            y[(m + j) * stride + n + i] = _mm512_reduce_add_ps(sum[i][j]);
        }
    }
}

INLINE void block(const struct weights *w, int n, int nw, const struct operand *x, int m, int mx,
                  float *y, size_t stride) {
    if (w->format == FORMAT_BF16) {
        block_bf16(w, n, nw, x, m, mx, y, stride);
    } else if (w->format == FORMAT_INT8) {
        block_int8(w, n, nw, x, m, mx, y, stride);
    } else {
        block_int4(w, n, nw, x, m, mx, y, stride);
    }
}
