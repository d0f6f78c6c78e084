// Choosing the largest values along an axis, and its gradient (tcmgc/heads/parts/lanes.py).

#pragma once

#include "contrasts.h"
#include "threads.h"

// Calls one(outer, first of W inner positions, room) for all of them, with `extra` vectors of working memory.
template <typename One>
static int each_column(int64_t outer, int64_t inner, int64_t threads, int64_t extra, const One &one)
{
    constexpr int64_t TOGETHER = 16;  // vectors per item
    const int64_t blocks = (inner + W - 1) / W, parts = (blocks + TOGETHER - 1) / TOGETHER;
    return in_parallel(outer * parts, threads, [&](auto next) {
        const Room room(extra + 1);
        if (!room.vecs) return;
        for (int64_t item; (item = next()) >= 0;) {
            const int64_t start = item % parts * TOGETHER;
            for (int64_t b = start; b < std::min(start + TOGETHER, blocks); b++) one(item / parts, b * W, room.vecs);
        }
    }, Threads::OF_TORCH);
}

// The `kept` largest of `size` values in descending order, tensors [outer, size or kept, inner].
static int largest_of_all(int64_t outer, int64_t size, int64_t kept, int64_t inner, int64_t threads,
                          const float *values, float *top)
{
    return each_column(outer, inner, threads, 2 * size + kept, [&](int64_t o, int64_t first, vec *room) {
        vec *const value = room, *const spare = value + size, *const found = spare + size;
        const int64_t count = inner - first;
        gather(value, values + o * size * inner + first, size, inner, count);
        largest(found, spare, value, 1, size, kept);
        scatter(top + o * kept * inner + first, found, kept, inner, count);
    });
}

// Gradient of the `kept` largest of `size` values, tensors [outer, size or kept, inner]: each goes to its
// value's source; equal values share it.
static int gradient_of_largest(int64_t outer, int64_t size, int64_t kept, int64_t inner, int64_t threads,
                               const float *values, const float *top, const float *grad, float *into)
{
    return each_column(outer, inner, threads, 0, [&](int64_t o, int64_t first, vec *) {
        const int64_t count = inner - first;
        const float *value = values + o * size * inner + first;
        float *to = into + o * size * inner + first;
        for (int64_t i = 0; i < size; i++) store(to + i * inner, vec{}, count);
        for (int64_t k = 0; k < kept; k++) {
            const int64_t at = (o * kept + k) * inner + first;
            const vec wanted = load(top + at, count);
            vec same = {};
            for (int64_t i = 0; i < size; i++)
                same += load(value + i * inner, count) == wanted ? splat(1.0f) : vec{};
            const vec part = load(grad + at, count) / same;
            for (int64_t i = 0; i < size; i++) {
                const vec more = load(value + i * inner, count) == wanted ? part : vec{};
                store(to + i * inner, load(to + i * inner, count) + more, count);
            }
        }
    });
}
