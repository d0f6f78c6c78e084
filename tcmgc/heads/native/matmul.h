// Matrix products of one text's rows with the rows of W videos, which stay in the L1 and L2 caches.

#pragma once

#include <algorithm>

#include "vectors.h"

// Rows processed together, times two vectors of columns: as many sums as there are registers.
constexpr int ROWS = W == 16 ? 12 : 6;

// Data needed next, prefetched while products are computed, `step` bytes each time.
struct Ahead {
    const char *at = nullptr;
    int64_t step = 0;
};

template <int rows, int wide>
INLINE void kernel(float *to, int64_t stride, const float *left, int64_t apart, const float *panel, int64_t depth,
                   Ahead &ahead)
{
    vec sum[rows][wide] = {};
    for (int64_t k = 0; k < depth; k++) {
        __builtin_prefetch(ahead.at + k * ahead.step, 0, 2);
        vec right[wide];
        for (int c = 0; c < wide; c++) right[c] = load(panel + (k * wide + c) * W, W);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < wide; c++) sum[r][c] += splat(left[r * apart + k]) * right[c];
    }
    ahead.at += depth * ahead.step;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < wide; c++) store(to + r * stride + c * W, sum[r][c], W);
}

template <int rows>
static void rows_by_panel(int64_t count, int64_t wide, float *to, int64_t stride, const float *left, int64_t apart,
                          const float *panel, int64_t depth, Ahead &ahead)
{
    if constexpr (rows > 1)
        if (count < rows) return rows_by_panel<rows - 1>(count, wide, to, stride, left, apart, panel, depth, ahead);
    if (wide > 1)
        kernel<rows, 2>(to, stride, left, apart, panel, depth, ahead);
    else
        kernel<rows, 1>(to, stride, left, apart, panel, depth, ahead);
}

// to [rows][states][W], with row stride `stride`: rows of `left`, with stride `apart`, times the
// packed panels.
static void multiply(float *to, int64_t stride, const float *left, int64_t apart, int64_t rows, const float *panel,
                     int64_t states, int64_t depth, Ahead ahead = {})
{
    const int64_t blocks = (rows + ROWS - 1) / ROWS;
    for (int64_t s = 0; s < states; s += 2)
        for (int64_t i = 0; i < blocks; i++) {
            const int64_t start = rows * i / blocks, count = rows * (i + 1) / blocks - start;
            rows_by_panel<ROWS>(count, states - s, to + start * stride + s * W, stride, left + start * apart, apart,
                                panel + s * W * depth, depth, ahead);
        }
}
