// Matrices of bf16 copied into the forms that tiles read, and products of blocks of 32 by 32.
//
// A left operand lies in rows; a right one in pairs of rows, see tiles.h. Both are filled up with
// zeros to multiples of 32, so that shapes and strides can be any.

#pragma once

#include <omp.h>

#include "rows.h"

#define BLOCK 32  // two tiles by two, in registers 0 to 3

// 32 columns of row t from column e on; zeros beyond the last row and column.
static inline __m512i channels(const bf16 *from, int64_t stride, int t, int length, int e,
                               int width) {
    if (t >= length) return _mm512_setzero_si512();
    __mmask32 some = width - e >= 32 ? 0xffffffff : (1u << (width - e)) - 1;
    return _mm512_maskz_loadu_epi16(some, from + t * stride + e);
}

// -> (T, E) padded: a left operand, 16 tokens by 32 channels.
static void copy_rows(const bf16 *from, int64_t stride, int length, int width, bf16 *to) {
    const int tokens = padded(length, BLOCK), wide = padded(width, 32);
    for (int t = 0; t < tokens; t++) {
        for (int e = 0; e < wide; e += 32) {
            _mm512_storeu_si512(to + (size_t)t * wide + e,
                                channels(from, stride, t, length, e, width));
        }
    }
}

// -> the transpose as a right operand, (T / 16, E / 32) tiles of 16 pairs of channels by 16 tokens.
static void pack_transposed(const bf16 *from, int64_t stride, int length, int width, uint32_t *to) {
    const int tokens = padded(length, BLOCK), wide = padded(width, 32);
    for (int t = 0; t < tokens; t += 16) {
        for (int e = 0; e < wide; e += 32, to += 256) {
            __m512i block[16];
            for (int i = 0; i < 16; i++) {
                block[i] = channels(from, stride, t + i, length, e, width);
            }
            transpose(block);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * 16, block[i]);
        }
    }
}

// 16 low and 16 high halves -> 16 words.
static inline __m512i words(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// -> a right operand, (T / 32, E / 16) tiles of 16 pairs of tokens by 16 channels.
static void pack_pairs(const bf16 *from, int64_t stride, int length, int width, uint32_t *to) {
    const int tokens = padded(length, BLOCK), wide = padded(width, 32);
    for (int t = 0; t < tokens; t += 32) {
        uint32_t *tiles = to + (size_t)t / 32 * (wide / 16) * 256;
        for (int pair = 0; pair < 16; pair++) {
            for (int e = 0; e < wide; e += 32) {
                __m512i even = channels(from, stride, t + 2 * pair, length, e, width);
                __m512i odd = channels(from, stride, t + 2 * pair + 1, length, e, width);
                uint32_t *word = tiles + (size_t)e / 16 * 256 + pair * 16;
                _mm512_storeu_si512(word, words(_mm512_castsi512_si256(even),
                                                _mm512_castsi512_si256(odd)));
                _mm512_storeu_si512(word + 256, words(_mm512_extracti64x4_epi64(even, 1),
                                                      _mm512_extracti64x4_epi64(odd, 1)));
            }
        }
    }
}

#if HAVE_TILES
// Registers 0 to 3 += left (32 rows, `steps` · 32) · right (two columns of tiles). Tiles of the
// right operand lie `apart` words after each other along the sum, the two columns `across`.
static inline __attribute__((always_inline)) void accumulate(
    const bf16 *left, size_t stride, const uint32_t *right, size_t apart, size_t across, int steps) {
    for (int k = 0; k < steps; k++) {
        tile_load(4, left + k * 32, stride * 2);
        tile_load(6, right + k * apart, 64);
        tile_bf16(0, 4, 6);
        tile_load(7, right + k * apart + across, 64);
        tile_bf16(1, 4, 7);
        tile_load(5, left + 16 * stride + k * 32, stride * 2);
        tile_bf16(2, 5, 6);
        tile_bf16(3, 5, 7);
    }
}

static inline void clear_tiles(void) {
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
}

// Registers 0 to 3 as a block of 32 by 32 floats.
static inline void store_tiles(float *to, size_t stride) {
    tile_store(0, to, stride * 4);
    tile_store(1, to + 16, stride * 4);
    tile_store(2, to + 16 * stride, stride * 4);
    tile_store(3, to + 16 * stride + 16, stride * 4);
}

static inline void load_tiles(const float *from, size_t stride) {
    tile_load(0, from, stride * 4);
    tile_load(1, from + 16, stride * 4);
    tile_load(2, from + 16 * stride, stride * 4);
    tile_load(3, from + 16 * stride + 16, stride * 4);
}
#endif
