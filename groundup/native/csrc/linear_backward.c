// The weight gradient of a linear layer: dw (N, K) = gᵀ x, summed over all rows of g (M, N) and
// x (M, K), in bf16 with sums in fp32.
//
// Rows are taken CHUNK at a time. Of a chunk all threads pack x together, then each packs its own
// columns of g, turned by 90 degrees, and adds the chunk to its own rows of dw.

#include "packing.h"

#define CHUNK 512

struct linear {
    const bf16 *gradients, *inputs;  // (M, N), (M, K)
    int64_t gradient_stride, input_stride;
    float *weights;                  // (N, K) to be written
    int32_t rows, outputs, depth, num_threads;
};

int groundup_linear_backward(const struct linear *l);

#if HAVE_TILES
// The columns from..to of CHUNK rows of g -> left operands, (columns / 16, CHUNK / 32) tiles.
static void pack_gradients(const struct linear *l, int start, int from, int to, uint32_t *packed) {
    for (int n = from; n < to; n += 32) {
        for (int m = 0; m < CHUNK; m += 32) {
            __m512i low[16], high[16];
            for (int pair = 0; pair < 16; pair++) {
                const int row = start + m + 2 * pair;
                __m512i even = channels(l->gradients, l->gradient_stride, row, l->rows, n,
                                        l->outputs);
                __m512i odd = channels(l->gradients, l->gradient_stride, row + 1, l->rows, n,
                                       l->outputs);
                low[pair] = words(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd));
                high[pair] = words(_mm512_extracti64x4_epi64(even, 1),
                                   _mm512_extracti64x4_epi64(odd, 1));
            }
            transpose(low);
            transpose(high);
            uint32_t *tile = packed + ((size_t)(n - from) / 16 * (CHUNK / 32) + m / 32) * 256;
            for (int i = 0; i < 16; i++) {
                _mm512_storeu_si512(tile + i * 16, low[i]);
                _mm512_storeu_si512(tile + CHUNK / 32 * 256 + i * 16, high[i]);
            }
        }
    }
}

// 32 columns of CHUNK rows of x -> right operands, (2, CHUNK / 32) tiles.
static void pack_inputs(const struct linear *l, int start, int column, uint32_t *packed) {
    for (int pair = 0; pair < CHUNK / 2; pair++) {
        const int row = start + 2 * pair;
        __m512i even = channels(l->inputs, l->input_stride, row, l->rows, column, l->depth);
        __m512i odd = channels(l->inputs, l->input_stride, row + 1, l->rows, column, l->depth);
        uint32_t *word = packed + pair * 16;
        _mm512_storeu_si512(word, words(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd)));
        _mm512_storeu_si512(word + CHUNK / 32 * 256, words(_mm512_extracti64x4_epi64(even, 1),
                                                           _mm512_extracti64x4_epi64(odd, 1)));
    }
}

// sums (32, 32) of a matrix `stride` wide += 32 packed outputs · 32 packed inputs.
static void add_chunk(float *sums, size_t stride, const uint32_t *left, const uint32_t *right,
                      int first) {
    const size_t column = CHUNK / 32 * 256;
    if (first) {
        clear_tiles();
    } else {
        load_tiles(sums, stride);
    }
    for (int m = 0; m < CHUNK / 32; m++) {
        tile_load(4, left + m * 256, 64);
        tile_load(6, right + m * 256, 64);
        tile_bf16(0, 4, 6);
        tile_load(7, right + column + m * 256, 64);
        tile_bf16(1, 4, 7);
        tile_load(5, left + column + m * 256, 64);
        tile_bf16(2, 5, 6);
        tile_bf16(3, 5, 7);
    }
    store_tiles(sums, stride);
}
#endif

// Returns 0, -1 when there is no memory, -2 where there are no tiles.
int groundup_linear_backward(const struct linear *l) {
#if HAVE_TILES
    const int outputs = padded(l->outputs, 32), depth = padded(l->depth, 32);
    const size_t column = CHUNK / 32 * 256;  // words of 16 columns of a chunk
    uint32_t *inputs = aligned_alloc(64, depth / 16 * column * 4);
    uint32_t *gradients = aligned_alloc(64, outputs / 16 * column * 4);
    float *sums = aligned_alloc(64, (size_t)outputs * depth * 4);
    const int failed = !inputs || !gradients || !sums;
    if (!failed) {
        #pragma omp parallel num_threads(l->num_threads)
        {
            const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
            const int from = outputs / 32 * thread / threads * 32;
            const int to = outputs / 32 * (thread + 1) / threads * 32;
            tiles_begin();
            for (int start = 0; start < l->rows; start += CHUNK) {
                #pragma omp for schedule(static)
                for (int k = 0; k < depth; k += 32) {
                    pack_inputs(l, start, k, inputs + k / 16 * column);
                }
                pack_gradients(l, start, from, to, gradients + from / 16 * column);
                for (int n = from; n < to; n += 32) {
                    for (int k = 0; k < depth; k += 32) {
                        add_chunk(sums + (size_t)n * depth + k, depth, gradients + n / 16 * column,
                                  inputs + k / 16 * column, start == 0);
                    }
                }
                #pragma omp barrier
            }
            tiles_end();
            for (int n = from; n < to && n < l->outputs; n++) {
                memcpy(l->weights + (size_t)n * l->depth, sums + (size_t)n * depth,
                       (size_t)l->depth * 4);
            }
        }
    }
    free(inputs);
    free(gradients);
    free(sums);
    return failed ? -1 : 0;
#else
    (void)l;
    return -2;
#endif
}
