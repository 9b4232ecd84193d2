// One step of a decoder: a few tokens through all layers in one parallel region.
//
// Each thread has its own columns of every product, and prepares the activations for itself: they
// are small, and copying them is cheaper than waiting. The barriers are those of the mathematics:
// after the projections, after the keys are in the cache, after attention, after each residual.

#include "step_attention.h"

static void normalise(const struct model *model, const struct norm *norm, const float *from,
                      float *to, int width) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    float mean = 0.0f;
    if (model->layer_norm) {
        for (int k = 0; k < width; k += 16) {
            sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes(width - k), from + k));
        }
        mean = _mm512_reduce_add_ps(sum) / (float)width;
    }
    for (int k = 0; k < width; k += 16) {
        __mmask16 some = lanes(width - k);
        __m512 x = _mm512_maskz_loadu_ps(some, from + k);
        x = _mm512_maskz_sub_ps(some, x, _mm512_set1_ps(mean));
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    float scale = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)width + model->norm_eps);
    for (int k = 0; k < width; k += 16) {
        __mmask16 some = lanes(width - k);
        __m512 x = _mm512_maskz_loadu_ps(some, from + k);
        x = _mm512_mul_ps(_mm512_sub_ps(x, _mm512_set1_ps(mean)), _mm512_set1_ps(scale));
        x = _mm512_mul_ps(x, _mm512_maskz_loadu_ps(some, norm->weight + k));
        if (norm->bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(some, norm->bias + k));
        _mm512_mask_storeu_ps(to + k, some, x);
    }
}

static void embed(const struct model *model, const struct tokens *tokens, float *stream) {
    const int width = model->width;
    for (int m = 0; m < tokens->count; m++) {
        const bf16 *row = model->embedding + (size_t)tokens->ids[m] * width;
        const float *place = NULL;
        if (model->positions) place = model->positions + (size_t)tokens->positions[m] * width;
        for (int k = 0; k < width; k++) {
            float x = to_float(row[k]) * model->embedding_scale;
            stream[(size_t)m * width + k] = place ? x + place[k] : x;
        }
    }
}

static void add_bias(float *y, size_t stride, const float *bias, int rows, int from, int to) {
    if (!bias) return;
    for (int m = 0; m < rows; m++) {
        for (int n = from; n < to; n++) y[m * stride + n] += bias[n];
    }
}

// y = W x + bias for this thread's columns.
static void project(const struct weights *w, const float *bias, const float *x, size_t x_stride,
                    int rows, float *y, size_t stride, struct own *own) {
    int from, to;
    share(w->num_rows, &from, &to);
    prepare(&own->operand, x, x_stride, rows, w->depth, w->format);
    multiply(w, from, to, &own->operand, rows, y, stride);
    add_bias(y, stride, bias, rows, from, to);
}

// stream += W x + bias, likewise.
static void join(const struct weights *w, const float *bias, const float *x, size_t x_stride,
                 int rows, float *stream, struct own *own) {
    int from, to;
    share(w->num_rows, &from, &to);
    prepare(&own->operand, x, x_stride, rows, w->depth, w->format);
    multiply(w, from, to, &own->operand, rows, own->rows, (size_t)w->num_rows);
    add_bias(own->rows, (size_t)w->num_rows, bias, rows, from, to);
    for (int m = 0; m < rows; m++) {
        size_t row = (size_t)m * w->num_rows;
        for (int n = from; n < to; n++) stream[row + n] += own->rows[row + n];
    }
}

static inline __m512 sigmoid(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 e = exponential(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return _mm512_div_ps(one, _mm512_add_ps(one, e));
}

static __m512 activate(__m512 x, int activation) {
    __m512 zero = _mm512_setzero_ps();
    if (activation == SILU) return _mm512_mul_ps(x, sigmoid(x));
    if (activation == RELU) return _mm512_max_ps(x, zero);
    if (activation == RELU_SQUARED) {
        x = _mm512_max_ps(x, zero);
        return _mm512_mul_ps(x, x);
    }
    if (activation == GELU_TANH) {  // (1 + tanh(u)) / 2 = sigmoid(2u)
        __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
        __m512 u = _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x);
        return _mm512_mul_ps(x, sigmoid(_mm512_mul_ps(u, _mm512_set1_ps(1.5957691216f))));
    }
    float lane[16];
    _mm512_storeu_ps(lane, x);
    for (int i = 0; i < 16; i++) lane[i] *= 0.5f * (1.0f + erff(lane[i] * 0.70710678f));
    return _mm512_loadu_ps(lane);
}

// hidden[:, n] = activation(up[:, n]), times the second half where it is gated, for this thread's n.
static void feed_forward_up(const struct model *model, const struct layer *layer,
                            const struct scratch *shared, int rows, struct own *own) {
    const int width = model->feed_forward_width;
    const size_t stride = (size_t)(model->gated ? 2 : 1) * width;
    int from, to;
    share(width, &from, &to);
    prepare(&own->operand, own->rows, model->width, rows, model->width, layer->up.format);
    multiply(&layer->up, from, to, &own->operand, rows, shared->hidden, stride);
    add_bias(shared->hidden, stride, layer->up_bias, rows, from, to);
    if (model->gated) {
        multiply(&layer->up, width + from, width + to, &own->operand, rows, shared->hidden, stride);
        add_bias(shared->hidden, stride, layer->up_bias, rows, width + from, width + to);
    }
    for (int m = 0; m < rows; m++) {
        float *row = shared->hidden + m * stride;
        for (int n = from; n < to; n += 16) {
            __mmask16 some = lanes(to - n);
            __m512 x = activate(_mm512_maskz_loadu_ps(some, row + n), model->activation);
            if (model->gated) x = _mm512_mul_ps(x, _mm512_maskz_loadu_ps(some, row + width + n));
            _mm512_mask_storeu_ps(row + n, some, x);
        }
    }
}

static void normalise_rows(const struct model *model, const struct norm *norm, const float *stream,
                           int rows, float *to) {
    const size_t width = model->width;
    for (int m = 0; m < rows; m++) {
        normalise(model, norm, stream + m * width, to + m * width, model->width);
    }
}

static void run_layer(const struct model *model, const struct cache *cache,
                      const struct tokens *tokens, int index, struct scratch *shared,
                      struct own *own) {
    const struct layer *layer = &model->layers[index];
    const int rows = tokens->count, mixed = model->num_heads * model->head_width;
    const size_t hidden = (size_t)(model->gated ? 2 : 1) * model->feed_forward_width;
    normalise_rows(model, &layer->attention_norm, shared->stream, rows, own->rows);
    project(&layer->projection, layer->projection_bias, own->rows, model->width, rows,
            shared->heads, layer->projection.num_rows, own);
    #pragma omp barrier
    attention(model, cache, tokens, index, shared, own);
    join(&layer->out, layer->out_bias, shared->mixed, mixed, rows, shared->stream, own);
    #pragma omp barrier
    normalise_rows(model, &layer->feed_forward_norm, shared->stream, rows, own->rows);
    feed_forward_up(model, layer, shared, rows, own);
    #pragma omp barrier
    join(&layer->down, layer->down_bias, shared->hidden, hidden, rows, shared->stream, own);
    #pragma omp barrier
}

static void run_head(const struct model *model, const struct tokens *tokens,
                     const struct scratch *shared, float *logits, struct own *own) {
    const size_t width = model->width;
    for (int i = 0; i < tokens->num_wanted; i++) {
        const float *from = shared->stream + tokens->wanted[i] * width;
        normalise(model, &model->final_norm, from, own->rows + i * width, model->width);
    }
    project(&model->head, model->head_bias, own->rows, width, tokens->num_wanted, logits,
            model->vocab_size, own);
}

static size_t largest(size_t a, size_t b) { return a > b ? a : b; }

int groundup_step(const struct model *model, const struct cache *cache, const struct tokens *tokens,
                  float *logits) {
    const size_t rows = tokens->count, mixed = (size_t)model->num_heads * model->head_width;
    const size_t heads = mixed + 2 * (size_t)model->num_kv_heads * model->head_width;
    const size_t hidden = (size_t)(model->gated ? 2 : 1) * model->feed_forward_width;
    const size_t depth = largest(largest(model->width, mixed), model->feed_forward_width) + 64;
    const size_t group = model->num_heads / model->num_kv_heads;
    const size_t shared_bytes = rows * (model->width + heads + mixed + hidden) * 4 + 4 * 64;
    const size_t scores = group * (size_t)tokens->table_length * PAGE * 4;
    const size_t own_bytes = operand_size(rows, depth) + rows * depth * 4 + scores + 2 * 64;
    char *block = aligned_alloc(64, (shared_bytes + 63) / 64 * 64), *left = block;
    struct scratch shared = {
        .stream = cut(&left, rows * model->width * 4),
        .heads = cut(&left, rows * heads * 4),
        .mixed = cut(&left, rows * mixed * 4),
        .hidden = cut(&left, rows * hidden * 4),
    };
    int failed = !block;
    if (!failed) embed(model, tokens, shared.stream);
    #pragma omp parallel num_threads(tokens->num_threads)
    {
        char *private = aligned_alloc(64, (own_bytes + 63) / 64 * 64), *rest = private;
        struct own own = {0};
        own.operand = cut_operand(&rest, rows, depth);
        own.rows = cut(&rest, rows * depth * 4);
        own.scores = cut(&rest, scores);
        if (!private) {
            #pragma omp atomic write
            failed = 1;
        }
        #pragma omp barrier
        if (!failed) {
            tiles_begin();
            for (int index = 0; index < model->num_layers; index++) {
                run_layer(model, cache, tokens, index, &shared, &own);
            }
            run_head(model, tokens, &shared, logits, &own);
            tiles_end();
        }
        free(private);
    }
    free(block);
    return failed ? -1 : 0;
}
