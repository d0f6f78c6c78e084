// Videos' records as they are stored, one row each, brought into vectors of W videos.

#pragma once

#include "attention.h"
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

// `size` numbers of up to W videos, whose rows are `apart` numbers from one to the next, to vectors that are
// `step` vectors apart. Where there are fewer videos the last one stands in.
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

// Rows [states][depth] of up to W videos, `apart` numbers from one video to the next and `width` from one state
// to the next, to what `multiply` takes: panels [states / 2][depth][2][W] and, of a last odd state, [depth][W].
template <typename Number>
static void panels(float *to, const Number *rows, int64_t apart, int64_t width, int64_t states, int64_t videos,
                   int64_t depth)
{
    for (int64_t s = 0; s < states; s++) {
        const int64_t wide = s + 1 < states || s % 2 ? 2 : 1;
        turned(to + s / 2 * 2 * W * depth + s % 2 * W, wide, rows + s * width, apart, videos, depth);
    }
}

// What tcmgc.heads.parts.attention.CollapsedVideos holds, and how many numbers lie between one video and the
// next in each: a tensor of its own, or a part of a longer row.
struct Record {
    const void *keys, *bias, *outputs, *attended, *mixed, *output;
    const bool *mask;
    int64_t keys_apart, bias_apart, outputs_apart, attended_apart, mixed_apart, output_apart, mask_apart;
    int64_t half;  // numbers are float16, not float32
};

// W videos of a record: keys and outputs in panels, the rest side by side.
struct Videos {
    float *keys, *outputs;
    Block<vec> root;

    static int64_t size(const Sizes &z)
    {
        return (z.frames + z.states()) * z.dim + Block<vec>::size(z.states());
    }

    Videos(vec *start, const Sizes &z)
        : keys((float *)start), outputs(keys + z.frames * z.dim * W),
          root(start + (z.frames + z.states()) * z.dim, z.states())
    {
    }

    void read(const Record &x, int64_t first, int64_t count, const Sizes &z) const
    {
        x.half ? read<::half>(x, first, count, z) : read<float>(x, first, count, z);
    }

private:
    template <typename Number>
    void read(const Record &x, int64_t first, int64_t count, const Sizes &z) const
    {
        const int64_t S = z.states(), F = z.frames, D = z.dim, depth = D / z.heads;
        const auto from = [&](const void *tensor, int64_t apart) { return (const Number *)tensor + first * apart; };
        for (int64_t h = 0; h < z.heads; h++)
            panels(keys + h * depth * F * W, from(x.keys, x.keys_apart) + h * depth, x.keys_apart, D, F, count,
                   depth);
        panels(outputs, from(x.outputs, x.outputs_apart), x.outputs_apart, D, S, count, D);
        const auto side_by_side = [&](vec *to, const void *tensor, int64_t apart, int64_t size) {
            turned((float *)to, 1, from(tensor, apart), apart, count, size);
        };
        side_by_side(root.attended, x.attended, x.attended_apart, S * S);
        side_by_side(root.mixed, x.mixed, x.mixed_apart, (S + 1) * (S + 1));
        side_by_side(root.output, x.output, x.output_apart, (S + 2) * (S + 2));
        side_by_side(root.offset, x.bias, x.bias_apart, F);
        for (int64_t v = 0; v < W; v++) {
            const bool *seen = x.mask + (first + std::min(v, count - 1)) * x.mask_apart;
            for (int64_t f = 0; f < F; f++)
                if (!seen[f]) root.offset[f][v] = -__builtin_inff();
        }
        for (int64_t h = 1; h < z.heads; h++)
            for (int64_t f = 0; f < F; f++) root.offset[h * F + f] = root.offset[f];
    }
};
