// Products of weights and a few x with tiles: 16 or 32 of each at once.

#pragma once

#include "rows_vectors.h"

#if HAVE_TILES
// y of `outputs` weight rows and up to 16 x from their sums, a row of lanes for each weight row.
static void scatter(float sums[16][16], int n, int outputs, int m, int rows, float *y,
                    size_t stride) {
    for (int j = 0; j < 16 && m + j < rows; j++) {
        for (int i = 0; i < outputs; i++) y[(m + j) * stride + n + i] = sums[i][j];
    }
}

// 32 weight rows (16 unless `two`) times 32 x (16 unless `wide`).
INLINE void tile_block_bf16(const struct weights *w, int n, int two, const struct operand *x, int m,
                            int wide, int rows, float *y, size_t stride) {
    const size_t depth = w->depth;
    const bf16 *left = (const bf16 *)w->values + n * depth;
    const uint32_t *right = x->tiles + m * depth / 2;
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (size_t k = 0; k < depth; k += 32) {
        tile_load(4, left + k, depth * 2);
        tile_load(6, right + k * 8, 64);
        tile_bf16(0, 4, 6);
        if (wide) {
            tile_load(7, right + depth * 8 + k * 8, 64);
            tile_bf16(1, 4, 7);
        }
        if (two) {
            tile_load(5, left + 16 * depth + k, depth * 2);
            tile_bf16(2, 5, 6);
            if (wide) tile_bf16(3, 5, 7);
        }
    }
    _Alignas(64) float sums[4][16][16];
    tile_store(0, sums[0], 64);
    tile_store(1, sums[1], 64);
    tile_store(2, sums[2], 64);
    tile_store(3, sums[3], 64);
    for (int i = 0; i <= two; i++) {
        for (int j = 0; j <= wide; j++) {
            scatter(sums[2 * i + j], n + 16 * i, 16, m + 16 * j, rows, y, stride);
        }
    }
}

// 16 weight rows of int8 times 16 x. A group's sums leave their tile to be scaled.
static void tile_block_int8(const struct weights *w, int n, const struct operand *x, int m,
                             int rows, float *y, size_t stride) {
    const int width = padded(w->depth, GROUP), groups = width / GROUP;
    _Alignas(64) int32_t whole[16][16];
    _Alignas(64) float sums[16][16] = {{0}};
    for (int g = 0; g < groups; g++) {
        const size_t lane = (size_t)m * groups + g * 16;
        tile_load(0, x->zeros_by_lane + lane, 0);  // the same for every weight row
        tile_load(6, x->tiles + (size_t)m * width / 4 + g * 256, 64);
        tile_load(4, (const uint8_t *)w->values + (size_t)n * width + g * GROUP, width);
        tile_int8(0, 4, 6);
        tile_store(0, whole, 64);
        const __m512 units = _mm512_loadu_ps(x->scales_by_lane + lane);
        for (int i = 0; i < 16; i++) {
            __m512 part = _mm512_cvtepi32_ps(_mm512_load_si512(whole[i]));
            _mm512_store_ps(sums[i], _mm512_fmadd_ps(units, part, _mm512_load_ps(sums[i])));
        }
    }
    for (int i = 0; i < 16; i++) {
        const __m512 scale = _mm512_set1_ps(((const float *)w->scales)[n + i]);
        _mm512_store_ps(sums[i], _mm512_mul_ps(scale, _mm512_load_ps(sums[i])));
    }
    scatter(sums, n, 16, m, rows, y, stride);
}

// 64 int4 weights of a row as bf16.
static inline void unpack_int4(const struct weights *w, int n, int g, bf16 *low, bf16 *high) {
    const __m512i whole = load_int4(w, n, g);
    __m512 part[4], scale, least;
    load_scales(w, n, g, &scale, &least);
    const __m512 scales[2] = {_mm512_shuffle_f32x4(scale, scale, 0x00),
                              _mm512_shuffle_f32x4(scale, scale, 0xff)};
    const __m512 leasts[2] = {_mm512_shuffle_f32x4(least, least, 0x00),
                              _mm512_shuffle_f32x4(least, least, 0xff)};
    const __m128i quarters[4] = {
        _mm512_castsi512_si128(whole), _mm512_extracti32x4_epi32(whole, 1),
        _mm512_extracti32x4_epi32(whole, 2), _mm512_extracti32x4_epi32(whole, 3)};
    for (int i = 0; i < 4; i++) {
        const __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(quarters[i]));
        part[i] = _mm512_fmadd_ps(scales[i / 2], value, leasts[i / 2]);
    }
    _mm512_storeu_si512(low, narrow_pair(part[0], part[1]));
    _mm512_storeu_si512(high, narrow_pair(part[2], part[3]));
}

// Up to 16 weight rows of int4 times 32 x (16 unless `wide`).
INLINE void tile_block_int4(const struct weights *w, int n, int outputs, const struct operand *x,
                            int m, int wide, int rows, float *y, size_t stride) {
    const size_t width = padded(w->depth, GROUP);
    const uint32_t *right = x->tiles + m * width / 2;
    _Alignas(64) bf16 halves[2][16][32] = {{{0}}};
    _Alignas(64) float sums[2][16][16];
    tile_zero(0);
    tile_zero(1);
    for (size_t g = 0; g < width / GROUP; g++) {
        for (int i = 0; i < outputs; i++) unpack_int4(w, n + i, g, halves[0][i], halves[1][i]);
        for (int half = 0; half < 2; half++) {
            const uint32_t *from = right + (2 * g + half) * 256;
            tile_load(4, halves[half], 64);
            tile_load(6, from, 64);
            tile_bf16(0, 4, 6);
            if (wide) {
                tile_load(7, from + width * 8, 64);
                tile_bf16(1, 4, 7);
            }
        }
    }
    tile_store(0, sums[0], 64);
    tile_store(1, sums[1], 64);
    for (int j = 0; j <= wide; j++) scatter(sums[j], n, outputs, m + 16 * j, rows, y, stride);
}

// As many weight rows as tiles can take, of int4 all; returns the first that is left.
static int multiply_tiles(const struct weights *w, int from, int to, const struct operand *x,
                          int rows, float *y, size_t stride) {
    int n = from;
    while (to - n >= (w->format == FORMAT_INT4 ? 1 : 16)) {
        const int outputs = to - n < 16 ? to - n : 16;
        const int two = w->format == FORMAT_BF16 && to - n >= 32;
        for (int m = 0; m < rows; m += 32) {
            const int wide = rows - m > 16;
            if (w->format == FORMAT_INT8) {
                tile_block_int8(w, n, x, m, rows, y, stride);
                if (wide) tile_block_int8(w, n, x, m + 16, rows, y, stride);
            } else if (w->format == FORMAT_INT4) {
                if (wide) tile_block_int4(w, n, outputs, x, m, 1, rows, y, stride);
                if (!wide) tile_block_int4(w, n, outputs, x, m, 0, rows, y, stride);
            } else {
                if (two && wide) tile_block_bf16(w, n, 1, x, m, 1, rows, y, stride);
                if (two && !wide) tile_block_bf16(w, n, 1, x, m, 0, rows, y, stride);
                if (!two && wide) tile_block_bf16(w, n, 0, x, m, 1, rows, y, stride);
                if (!two && !wide) tile_block_bf16(w, n, 0, x, m, 0, rows, y, stride);
            }
        }
        n += two ? 32 : outputs;
    }
    return n;
}
#endif
