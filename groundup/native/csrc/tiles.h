// AMX: eight registers of 16 rows of 64 bytes, and instructions that multiply two into a third.
//
//   tile_bf16(c, a, b)   c[m][n] += sum over k of a[m][k] · b[k][n]   fp32 += bf16 (16, 32) · bf16 (32, 16)
//   tile_int8(c, a, b)   the same with a unsigned, b signed           int32 += (16, 64) · (64, 16)
//
// The right operand lies in words of 4 bytes: row p holds, for each n, b[2p][n] and b[2p + 1][n]
// (four neighbours for bytes). The numbers of registers have to be constants.
//
// With GROUNDUP_SOFTWARE_TILES the instructions are plain C: for tests on CPUs without AMX, and
// for sanitizers, which do not know tiles.

#pragma once


#include "vector.h"

#if defined(GROUNDUP_SOFTWARE_TILES)
#define HAVE_TILES 1

struct tile { _Alignas(64) uint8_t rows[16][64]; };
static _Thread_local struct tile tile_registers[8];

static inline void tiles_begin(void) {}
static inline void tiles_end(void) {}

static inline void tile_zero(int c) { memset(&tile_registers[c], 0, sizeof(struct tile)); }

static inline void tile_load(int to, const void *from, size_t stride) {
    for (int i = 0; i < 16; i++) {
        memcpy(tile_registers[to].rows[i], (const char *)from + i * stride, 64);
    }
}

static inline void tile_store(int from, void *to, size_t stride) {
    for (int i = 0; i < 16; i++) {
        memcpy((char *)to + i * stride, tile_registers[from].rows[i], 64);
    }
}

static inline void tile_bf16(int c, int a, int b) {
    float sum[16][16];
    bf16 left[16][32], right[16][32];
    memcpy(sum, &tile_registers[c], sizeof sum);
    memcpy(left, &tile_registers[a], sizeof left);
    memcpy(right, &tile_registers[b], sizeof right);
    for (int m = 0; m < 16; m++) {
        for (int p = 0; p < 16; p++) {
            for (int n = 0; n < 16; n++) {
                sum[m][n] += to_float(left[m][2 * p]) * to_float(right[p][2 * n]) +
                             to_float(left[m][2 * p + 1]) * to_float(right[p][2 * n + 1]);
            }
        }
    }
    memcpy(&tile_registers[c], sum, sizeof sum);
}

static inline void tile_int8(int c, int a, int b) {
    int32_t sum[16][16];
    uint8_t left[16][64];
    int8_t right[16][64];
    memcpy(sum, &tile_registers[c], sizeof sum);
    memcpy(left, &tile_registers[a], sizeof left);
    memcpy(right, &tile_registers[b], sizeof right);
    for (int m = 0; m < 16; m++) {
        for (int p = 0; p < 64; p++) {
            for (int n = 0; n < 16; n++) sum[m][n] += left[m][p] * right[p / 4][4 * n + p % 4];
        }
    }
    memcpy(&tile_registers[c], sum, sizeof sum);
}

#elif defined(__AMX_BF16__) && defined(__AMX_INT8__) && !defined(GROUNDUP_NO_TILES)
#define HAVE_TILES 1

#define tile_zero(c) _tile_zero(c)
#define tile_load(to, from, stride) _tile_loadd(to, from, stride)
#define tile_store(from, to, stride) _tile_stored(from, to, stride)
#define tile_bf16(c, a, b) _tile_dpbf16ps(c, a, b)
#define tile_int8(c, a, b) _tile_dpbusd(c, a, b)

// All eight registers as large as they can be. Each thread needs this before it touches one, and
// lets go of them afterwards: until then the system saves 8 kB more whenever it switches threads.
static inline void tiles_begin(void) {
    struct __attribute__((packed)) {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    _tile_loadconfig(&shape);
}

static inline void tiles_end(void) { _tile_release(); }

#else
#define HAVE_TILES 0
static inline void tiles_begin(void) {}
static inline void tiles_end(void) {}
#endif
