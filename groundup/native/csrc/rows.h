// A matrix times a few vectors: y[m][n] = sum over k of x[m][k] · w[n][k], for the weight rows
// from..to that one thread has. Reading the weights is the cost, so that a block of them is used for
// several x at once: up to four, or 32 with tiles.

#pragma once

#include <omp.h>

#include "rows_tiles.h"

// Weight rows from..to times all x: y (M, N), rows `stride` apart.
static void multiply(const struct weights *w, int from, int to, const struct operand *x, int rows,
                     float *y, size_t stride) {
#if HAVE_TILES
    if (uses_tiles(rows, w->depth, w->format)) {
        from = multiply_tiles(w, from, to, x, rows, y, stride);
    }
#endif
    int n = from;
    for (; to - n >= 4; n += 4) {
        int m = 0;
        for (; m + 4 <= rows; m += 4) block(w, n, 4, x, m, 4, y, stride);
        for (; m < rows; m++) block(w, n, 4, x, m, 1, y, stride);
    }
    for (; n < to; n++) {
        for (int m = 0; m < rows; m++) block(w, n, 1, x, m, 1, y, stride);
    }
}

// The share of `count` weight rows that is this thread's, in steps of 16.
static inline void share(int count, int *from, int *to) {
    int thread = omp_get_thread_num(), threads = omp_get_num_threads(), steps = (count + 15) / 16;
    *from = 16 * (int)((int64_t)steps * thread / threads);
    int end = 16 * (int)((int64_t)steps * (thread + 1) / threads);
    *to = end < count ? end : count;
}
