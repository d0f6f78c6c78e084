// Stored rows of videos, float32 or float16, times rows of texts.

#pragma once

#include <utility>

#include "matmul.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

struct half {
    uint16_t bits;
};

INLINE vec load_row(const float *from)
{
    vec x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE vec load_row(const half *from)
{
#if defined(__AVX512F__)
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__) && defined(__AVX__)
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
    typedef uint16_t bits __attribute__((vector_size(2 * W)));
    bits raw;
    memcpy(&raw, from, sizeof raw);
    const ivec x = __builtin_convertvector(raw, ivec);
    const ivec exponent = x & 0x7c00, sign = (x & 0x8000) << 16;
    // Exponents count from 15 in float16, from 127 in float32; subnormals are a sum less its first part.
    const ivec normal = ((x & 0x7fff) << 13) + ((127 - 15) << 23);
    const ivec special = normal + ((128 - 16) << 23);
    const vec small = (vec)(normal + (1 << 23)) - (vec)((ivec{} + 113) << 23);
    const ivec found = exponent == 0x7c00 ? special : (exponent == 0 ? (ivec)small : normal);
    return (vec)(found | sign);
#endif
}

INLINE float number(float x)
{
    return x;
}

INLINE float number(half x)
{
    half row[W] = {x};
    return load_row(row)[0];
}

// The first halves of two vectors interleaved, or their second halves.
template <int first, int... i>
INLINE vec interleaved(vec a, vec b, std::integer_sequence<int, i...>)
{
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (i % 2 * W + i / 2 + first)...);
#else
    return __builtin_shuffle(a, b, ivec{(i % 2 * W + i / 2 + first)...});
#endif
}

// W numbers of each of W rows: vector k gets number k of each row.
INLINE void transpose(vec *x)
{
    constexpr auto all = std::make_integer_sequence<int, W>();
    for (int round = 1; round < W; round *= 2) {
        vec y[W];
        for (int i = 0; i < W / 2; i++) {
            y[2 * i] = interleaved<0>(x[i], x[i + W / 2], all);
            y[2 * i + 1] = interleaved<W / 2>(x[i], x[i + W / 2], all);
        }
        for (int i = 0; i < W; i++) x[i] = y[i];
    }
}

// `size` numbers of up to W videos, whose rows have stride `apart`, to vectors with stride
// `step`. If there are fewer videos, the last one is repeated.
template <typename Number>
static void turned(float *to, int64_t step, const Number *rows, int64_t apart, int64_t videos, int64_t size)
{
    const Number *row[W];
    for (int64_t v = 0; v < W; v++) row[v] = rows + std::min(v, videos - 1) * apart;
    int64_t k = 0;
    for (; k + W <= size; k += W) {
        vec x[W];
        for (int v = 0; v < W; v++) x[v] = load_row(row[v] + k);
        transpose(x);
        for (int i = 0; i < W; i++) memcpy(to + (k + i) * step * W, &x[i], sizeof(vec));
    }
    for (; k < size; k++)
        for (int v = 0; v < W; v++) to[k * step * W + v] = number(row[v][k]);
}

// Rows [states][depth] of up to W videos, with stride `apart` between videos and `width` between
// states, to the input of `multiply`: panels [states / 2][depth][2][W] and, of a last odd state, [depth][W].
template <typename Number>
static void panels(float *to, const Number *rows, int64_t apart, int64_t width, int64_t states, int64_t videos,
                   int64_t depth)
{
    for (int64_t s = 0; s < states; s++) {
        const int64_t wide = s + 1 < states || s % 2 ? 2 : 1;
        turned(to + s / 2 * 2 * W * depth + s % 2 * W, wide, rows + s * width, apart, videos, depth);
    }
}

// Up to this number of texts, the texts' rows are packed into panels, not the videos'.
constexpr int64_t FEW = 3;

// A text's rows in panels: for few texts. Videos' rows are then read in place, and only products are transposed.
class TextPanels {
public:
    // Rows beyond the last full vector, if they would fill only a small part of one.
    static int64_t loose(int64_t rows) { return rows % W <= 2 ? rows % W : 0; }
    static int64_t vectors(int64_t rows) { return (rows - loose(rows) + W - 1) / W; }
    static int64_t size(int64_t rows, int64_t dim) { return vectors(rows) * dim; }

    // Working memory that `multiply` needs for this many rows of a video, over all heads.
    static int64_t room(int64_t rows, int64_t states, int64_t dim)
    {
        return states * vectors(rows) * W + 2 * states * W + states * dim / W + 1;
    }

    TextPanels(vec *start, const float *text, int64_t rows, int64_t heads, int64_t dim)
        : panel((float *)start), text(text), rows(rows), heads(heads), depth(dim / heads)
    {
    }

    void fill() const
    {
        const int64_t D = heads * depth, n = vectors(rows);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t j = 0; j < n; j++)
                turned(panel + h * depth * n * W + j / 2 * 2 * W * depth + j % 2 * W, j + 1 < n || j % 2 ? 2 : 1,
                       text + j * W * D + h * depth, D, std::min<int64_t>(W, rows - j * W), depth);
    }

    // to [rows][heads x states][W], with row stride `stride`: products with the `states` rows of each of W
    // videos, with stride `apart` between videos.
    template <typename Number>
    void multiply(float *to, int64_t stride, const Number *videos, int64_t apart, int64_t states, int64_t count,
                  vec *space) const
    {
        const int64_t D = heads * depth, n = vectors(rows), S = states * heads, full = rows - loose(rows);
        vec *const products = space, *const sums = products + S * n * W;
        float *const copy = (float *)(sums + 2 * S * W);
        const int64_t calls = std::max<int64_t>(1, (n + 1) / 2 * ((states + ROWS - 1) / ROWS) * depth);
        for (int64_t v = 0; v < W; v++) {
            const Number *const from = videos + std::min(v, count - 1) * apart;
            const float *const row = widened(copy, from, states * D);
            for (int64_t h = 0; h < heads; h++) {
                const Number *const next = from + apart + h * states * depth;
                ::multiply((float *)(products + (v * S + h * states) * n), n * W, row + h * depth, D, states,
                           panel + h * depth * n * W, n, depth,
                           {(const char *)next, states * depth * (int64_t)sizeof(Number) / calls});
            }
            for (int64_t q = full; q < rows; q++)
                for (int64_t s = 0; s < S; s++)
                    sums[((q - full) * S + s) * W + v] =
                        lanewise(row + s % states * D + s / states * depth, text + q * D + s / states * depth);
        }
        for (int64_t s = 0; s < S; s++)
            turned(to + s * W, stride / W, (float *)(products + s * n), S * n * W, W, full);
        for (int64_t q = full; q < rows; q++)
            for (int64_t s = 0; s < S; s++) {
                vec *const x = sums + ((q - full) * S + s) * W;
                transpose(x);
                for (int i = 1; i < W; i++) x[0] += x[i];
                memcpy(to + q * stride + s * W, x, sizeof *x);
            }
    }

private:
    float *panel;
    const float *text;
    int64_t rows, heads, depth;

    static const float *widened(float *, const float *row, int64_t) { return row; }

    static const float *widened(float *copy, const half *row, int64_t size)
    {
        int64_t k = 0;
        for (; k + W <= size; k += W) store(copy + k, load_row(row + k), W);
        for (; k < size; k++) copy[k] = number(row[k]);
        return copy;
    }

    // A vector whose elements sum to the product of two rows.
    vec lanewise(const float *a, const float *b) const
    {
        vec sum[4] = {};
        int64_t k = 0;
        for (; k + 4 * W <= depth; k += 4 * W)
            for (int i = 0; i < 4; i++) sum[i] += load(a + k + i * W, W) * load(b + k + i * W, W);
        for (; k < depth; k += W) sum[0] += load(a + k, depth - k) * load(b + k, depth - k);
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
};
