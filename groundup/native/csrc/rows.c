// One matrix times a few vectors, as an operation of its own.

#include "rows.h"

struct rows {
    struct weights weights;
    const float *inputs;  // (M, K)
    float *outputs;       // (M, N)
    int32_t rows, num_threads;
};

int groundup_rows(const struct rows *r);

// Returns 0, or -1 when there is no memory.
int groundup_rows(const struct rows *r) {
    const struct weights *w = &r->weights;
    char *block = aligned_alloc(64, (operand_size(r->rows, w->depth) + 63) / 64 * 64);
    char *left = block;
    if (!block) return -1;
    struct operand operand = cut_operand(&left, r->rows, w->depth);
    prepare(&operand, r->inputs, w->depth, r->rows, w->depth, w->format);
    #pragma omp parallel num_threads(r->num_threads)
    {
        int from, to;
        share(w->num_rows, &from, &to);
        tiles_begin();
        multiply(w, from, to, &operand, r->rows, r->outputs, w->num_rows);
        tiles_end();
    }
    free(block);
    return 0;
}
