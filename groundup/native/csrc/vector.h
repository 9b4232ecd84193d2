// AVX-512 in the few forms the kernels need: bf16 and fp32, sums over lanes, 2^x, blocks of memory.

#pragma once

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;  // the upper half of a float

// 16 bf16 -> 16 floats: the same bits, with zeros below.
static inline __m512 widen(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// The first lanes of 16, as many as are left before the end.
static inline __mmask16 lanes(int left) {
    return left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
}

// 16 bf16, or as many as are left: zeros after them, and nothing beyond is read.
static inline __m512 load_bf16(const bf16 *from, int left) {
    return widen(_mm256_maskz_loadu_epi16(lanes(left), from));
}

#ifdef __AVX512BF16__
// 16 floats -> 16 bf16, to the nearest, ties to even.
static inline __m256i narrow(__m512 values) { return (__m256i)_mm512_cvtneps_pbh(values); }
// 32 floats -> 32 bf16, `low` first.
static inline __m512i narrow_pair(__m512 low, __m512 high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}
#else
static inline __m256i narrow(__m512 values) {
    __m512i bits = _mm512_castps_si512(values);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
static inline __m512i narrow_pair(__m512 low, __m512 high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(narrow(low)), narrow(high), 1);
}
#endif

// 16 floats as bf16, or as many as are left.
static inline void store_bf16(bf16 *to, __m512 values, int left) {
    _mm256_mask_storeu_epi16(to, lanes(left), narrow(values));
}

static inline float to_float(bf16 value) {
    union { uint32_t bits; float value; } both = {(uint32_t)value << 16};
    return both.value;
}

static inline bf16 to_bf16(float value) {
    return (bf16)_mm_extract_epi16(_mm256_castsi256_si128(narrow(_mm512_set1_ps(value))), 0);
}

// sum + the products of 32 bf16 with 32 others, two to a lane.
static inline __m512 dot_bf16(__m512 sum, __m512i a, __m512i b) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    __m512 a_low = _mm512_castsi512_ps(_mm512_slli_epi32(a, 16));
    __m512 b_low = _mm512_castsi512_ps(_mm512_slli_epi32(b, 16));
    __m512 a_high = _mm512_castsi512_ps(_mm512_and_si512(a, upper));
    __m512 b_high = _mm512_castsi512_ps(_mm512_and_si512(b, upper));
    return _mm512_fmadd_ps(a_high, b_high, _mm512_fmadd_ps(a_low, b_low, sum));
#endif
}

// 2^x to 2e-7 relative: a polynomial for the fraction, the exponent for the rest. NaN stays NaN,
// below 2^-126 is 0: scores that far below the largest one weigh nothing.
static inline __m512 power_of_two(__m512 x) {
    const __m512 lowest = _mm512_set1_ps(-126.0f);
    __mmask16 vanishing = _mm512_cmp_ps_mask(x, lowest, _CMP_LT_OQ);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 fraction = _mm512_sub_ps(x, whole);
    __m512 sum = _mm512_set1_ps(1.53533e-4f);
    sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(1.33988e-3f));
    sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(9.61844e-3f));
    sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(5.55033e-2f));
    sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(2.40226e-1f));
    sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(6.93147e-1f));
    sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(1.0f));
    return _mm512_mask_mov_ps(_mm512_scalef_ps(sum, whole), vanishing, _mm512_setzero_ps());
}

static inline __m512 exponential(__m512 x) {
    return power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)));
}

// 16 rows of 16 words -> the same with rows and columns exchanged.
static inline void transpose(__m512i rows[16]) {
    __m512i half[16];
    for (int i = 0; i < 8; i++) {
        half[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        half[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        rows[4 * i] = _mm512_unpacklo_epi64(half[4 * i], half[4 * i + 2]);
        rows[4 * i + 1] = _mm512_unpackhi_epi64(half[4 * i], half[4 * i + 2]);
        rows[4 * i + 2] = _mm512_unpacklo_epi64(half[4 * i + 1], half[4 * i + 3]);
        rows[4 * i + 3] = _mm512_unpackhi_epi64(half[4 * i + 1], half[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {  // now by quarters of 128 bits
        half[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
        half[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
        half[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
        half[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm512_shuffle_i32x4(half[i], half[i + 8], 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(half[i], half[i + 8], 0xdd);
        rows[i + 4] = _mm512_shuffle_i32x4(half[i + 4], half[i + 12], 0x88);
        rows[i + 12] = _mm512_shuffle_i32x4(half[i + 4], half[i + 12], 0xdd);
    }
}
