// The formats weights are kept in, and the activations they are multiplied with.
//
//   bf16   w as it is; x rounded to bf16
//   int8   w = (q - 128) · scale[n]
//   int4   w = q · scale[n][k / 32] + least[n][k / 32]
//
// Bytes are multiplied with bytes: x is rounded to 8 bits with a scale for each 64 of a row, because
// a few channels are hundreds of times larger than the rest and would leave these nothing with one
// scale for all. Products of a group are summed exactly, in int32; all else in fp32.
//
// x is prepared once (`struct operand`), filled up with zeros to whole vectors. Of the weights
// nothing beyond a row's end is read.

#pragma once

#include "tiles.h"

#define GROUP 64  // as many bytes as a vector has; two groups of int4

enum format { FORMAT_BF16, FORMAT_INT8, FORMAT_INT4 };

struct weights {
    const void *values;  // bf16 (N, K); int8 (N, K); int4 (N, K / 2), two to a byte: quantize.py
    const void *scales;  // int8 (N,) float; int4 (N, K / 32, 2) fp16, scale and least
    int32_t format;
    int32_t num_rows;  // N
    int32_t depth;     // K; rows of int8 and int4 are filled up to a multiple of 64
    int32_t unused;
};

// Activations as the kernels read them, (M, K) filled up. `tiles` and what is `by_lane` hold them
// again for tiles: 16 rows x next to each other.
struct operand {
    void *values;            // bf16 (M, K), or bytes (M, K)
    float *scales;           // (M, K / 64)
    int32_t *sums;           // (M, K / 64, 16): of four neighbouring bytes
    uint32_t *tiles;         // (M / 16, K / one tile's, 16 words, 16)
    float *scales_by_lane;   // (M / 16, K / 64, 16)
    int32_t *zeros_by_lane;  // (M / 16, K / 64, 16): -128 times the sum of the 64
};

static inline int padded(int count, int to) { return (count + to - 1) / to * to; }

static inline int padded_depth(int depth, int format) {
    return padded(depth, format == FORMAT_BF16 ? 32 : GROUP);
}

// Bytes an operand of so many rows needs, for any format.
static inline size_t operand_size(size_t rows, size_t depth) {
    const size_t width = (depth + 63) / 64 * 64, many = (rows + 15) / 16 * 16;
    return rows * width * 2 + many * width * 2 + rows * (width / GROUP) * (4 + 64) +
           many * (width / GROUP) * (4 + 4) + 6 * 64;
}

// `count` bytes out of one block, each piece on a cache line of its own.
static inline void *cut(char **block, size_t count) {
    void *start = *block;
    if (*block) *block += (count + 63) / 64 * 64;
    return start;
}

static inline struct operand cut_operand(char **block, size_t rows, size_t depth) {
    const size_t width = (depth + 63) / 64 * 64, many = (rows + 15) / 16 * 16;
    return (struct operand){
        .values = cut(block, rows * width * 2),
        .scales = cut(block, rows * (width / GROUP) * 4),
        .sums = cut(block, rows * (width / GROUP) * 64),
        .tiles = cut(block, many * width * 2),
        .scales_by_lane = cut(block, many * (width / GROUP) * 4),
        .zeros_by_lane = cut(block, many * (width / GROUP) * 4),
    };
}

// Whether tiles are used: they take 16 rows for the price of one. bf16 weights are read where they
// lie, so that their rows have to be whole vectors.
static inline int uses_tiles(int rows, int depth, int format) {
    return HAVE_TILES && rows > 1 && (format != FORMAT_BF16 || depth % 32 == 0);
}

// Whether x is bf16: int4 weights become bf16 on their way into a tile, where two groups would be
// summed as one.
static inline int is_half(int rows, int depth, int format) {
    return format == FORMAT_BF16 || (format == FORMAT_INT4 && uses_tiles(rows, depth, format));
}

static void prepare_bf16(bf16 *to, const float *x, int depth, int width) {
    for (int k = 0; k < width; k += 16) {
        store_bf16(to + k, _mm512_maskz_loadu_ps(lanes(depth - k), x + k), 16);
    }
}

// 64 floats, or as many as are left -> bytes from -127 to 127; returns what a unit is worth, NaN
// where one of them is not finite.
static float prepare_group(int8_t *to, const float *x, int left) {
    __m512 part[4], largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps();
    for (int i = 0; i < 4; i++) {
        part[i] = _mm512_maskz_loadu_ps(lanes(left - 16 * i), x + 16 * i);
        largest = _mm512_max_ps(largest, _mm512_abs_ps(part[i]));
        poison = _mm512_fmadd_ps(part[i], _mm512_setzero_ps(), poison);
    }
    const float limit = _mm512_reduce_max_ps(largest);
    const __m512 inverse = _mm512_set1_ps(limit > 1e-30f ? 127.0f / limit : 0.0f);
    for (int i = 0; i < 4; i++) {
        __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(part[i], inverse));
        _mm_storeu_si128((__m128i *)(to + 16 * i), _mm512_cvtsepi32_epi8(whole));
    }
    return limit / 127.0f + _mm512_reduce_add_ps(poison);
}

static void prepare_bytes(struct operand *to, int m, const float *x, int depth) {
    const int width = padded(depth, GROUP), groups = width / GROUP;
    int8_t *bytes = (int8_t *)to->values + (size_t)m * width;
    for (int g = 0; g < groups; g++) {
        int8_t *group = bytes + g * GROUP;
        to->scales[m * groups + g] = prepare_group(group, x + g * GROUP, depth - g * GROUP);
        __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1),
                                           _mm512_loadu_si512(group));
        _mm512_storeu_si512(to->sums + ((size_t)m * groups + g) * 16, sums);
    }
}

// The prepared values once more for tiles, `words` of 4 bytes a row; rows beyond M are zeros.
static void prepare_tiles(struct operand *to, int rows, int words) {
    for (int m = 0; m < rows; m += 16) {
        for (int word = 0; word < words; word += 16) {
            __m512i block[16];
            for (int i = 0; i < 16; i++) {
                block[i] = _mm512_setzero_si512();
                const uint32_t *row = (uint32_t *)to->values + (size_t)(m + i) * words;
                if (m + i < rows) block[i] = _mm512_loadu_si512(row + word);
            }
            transpose(block);
            uint32_t *tile = to->tiles + (size_t)m * words + word * 16;
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(tile + i * 16, block[i]);
        }
    }
}

static void prepare_lanes(struct operand *to, int rows, int groups) {
    for (int m = 0; m < padded(rows, 16); m++) {
        for (int g = 0; g < groups; g++) {
            const size_t place = ((size_t)(m / 16) * groups + g) * 16 + m % 16;
            const size_t from = (size_t)m * groups + g;
            to->scales_by_lane[place] = 0.0f;
            to->zeros_by_lane[place] = 0;
            if (m >= rows) continue;
            const __m512i sums = _mm512_loadu_si512(to->sums + from * 16);
            to->scales_by_lane[place] = to->scales[from];
            to->zeros_by_lane[place] = -128 * _mm512_reduce_add_epi32(sums);
        }
    }
}

// fp32 x (M, K), rows `stride` apart -> what weights of this format are multiplied with.
static void prepare(struct operand *to, const float *x, size_t stride, int rows, int depth,
                    int format) {
    const int width = padded_depth(depth, format), half = is_half(rows, depth, format);
    for (int m = 0; m < rows; m++) {
        if (half) {
            prepare_bf16((bf16 *)to->values + (size_t)m * width, x + m * stride, depth, width);
        } else {
            prepare_bytes(to, m, x + m * stride, depth);
        }
    }
    if (!uses_tiles(rows, depth, format)) return;
    prepare_tiles(to, rows, half ? width / 2 : width / 4);
    if (!half) prepare_lanes(to, rows, width / GROUP);
}
