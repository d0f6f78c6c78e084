// TC-MGC's stored records of videos, loaded into vectors of W videos.

#pragma once

#include "attention.h"
#include "rows.h"

// The tensors of tcmgc.heads.parts.attention.CollapsedVideos, and each one's stride between videos: each is
// a separate tensor, or a part of a longer row.
struct Record {
    const void *keys, *bias, *outputs, *attended, *mixed, *output;
    const bool *mask;
    int64_t keys_apart, bias_apart, outputs_apart, attended_apart, mixed_apart, output_apart, mask_apart;
    int64_t half;  // numbers are float16, not float32
};

// Roots and offsets of W videos of a record.
template <typename Number>
static void read_roots(const Block<vec> &to, const Record &x, int64_t first, int64_t count, const Sizes &z)
{
    const int64_t S = z.states(), F = z.frames;
    const auto read = [&](vec *into, const void *tensor, int64_t apart, int64_t size) {
        turned((float *)into, 1, (const Number *)tensor + first * apart, apart, count, size);
    };
    read(to.attended, x.attended, x.attended_apart, S * S);
    read(to.mixed, x.mixed, x.mixed_apart, (S + 1) * (S + 1));
    read(to.output, x.output, x.output_apart, (S + 2) * (S + 2));
    read(to.offset, x.bias, x.bias_apart, F);
    for (int64_t v = 0; v < W; v++) {
        const bool *seen = x.mask + (first + std::min(v, count - 1)) * x.mask_apart;
        for (int64_t f = 0; f < F; f++)
            if (!seen[f]) to.offset[f][v] = -__builtin_inff();
    }
    for (int64_t h = 1; h < z.heads; h++)
        for (int64_t f = 0; f < F; f++) to.offset[h * F + f] = to.offset[f];
}

// W videos of a record in panels: for many texts, since packing costs as much as half a text's products.
struct Panels {
    float *keys, *outputs;
    static int64_t size(const Sizes &z) { return (z.frames + z.states()) * z.dim; }

    Panels(vec *start, const Sizes &z) : keys((float *)start), outputs(keys + z.frames * z.dim * W) {}

    template <typename Number>
    void read(const Record &x, int64_t first, int64_t count, const Sizes &z) const
    {
        const int64_t S = z.states(), F = z.frames, D = z.dim, depth = D / z.heads;
        const Number *from = (const Number *)x.keys + first * x.keys_apart;
        for (int64_t h = 0; h < z.heads; h++)
            panels(keys + h * depth * F * W, from + h * depth, x.keys_apart, D, F, count, depth);
        from = (const Number *)x.outputs + first * x.outputs_apart;
        panels(outputs, from, x.outputs_apart, D, S, count, D);
    }

    // [rows][states][W], with row stride `stride`.
    void multiply(float *logits, float *sides, int64_t stride, const float *queries, const float *columns,
                  const Sizes &z) const
    {
        const int64_t S = z.states(), F = z.frames, D = z.dim, depth = D / z.heads;
        for (int64_t h = 0; h < z.heads; h++)
            ::multiply(logits + h * F * W, stride, queries + h * depth, D, z.queries, keys + h * depth * F * W, F,
                       depth);
        ::multiply(sides, stride, columns, D, z.columns, outputs, S, D);
    }
};
