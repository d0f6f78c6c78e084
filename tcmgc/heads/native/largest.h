// The gradient of choosing the largest values (tcmgc/heads/parts/lanes.py).

#pragma once

#include "threads.h"
#include "vectors.h"

// Gradient of the `kept` largest of `size` values, tensors [outer, size or kept, inner]: each goes to where
// its value came from; equal values share it.
static void gradient_of_largest(int64_t outer, int64_t size, int64_t kept, int64_t inner, int64_t threads,
                                const float *values, const float *top, const float *grad, float *into)
{
    constexpr int64_t TOGETHER = 16;  // vectors an item
    const int64_t blocks = (inner + W - 1) / W, parts = (blocks + TOGETHER - 1) / TOGETHER;
    const auto one = [&](int64_t o, int64_t b) {
        const int64_t count = inner - b * W;
        const float *value = values + o * size * inner + b * W;
        float *to = into + o * size * inner + b * W;
        for (int64_t i = 0; i < size; i++) store(to + i * inner, vec{}, count);
        for (int64_t k = 0; k < kept; k++) {
            const int64_t at = (o * kept + k) * inner + b * W;
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
    };
    in_parallel(outer * parts, threads, [&](auto next) {
        for (int64_t item; (item = next()) >= 0;) {
            const int64_t start = item % parts * TOGETHER;
            for (int64_t b = start; b < std::min(start + TOGETHER, blocks); b++) one(item / parts, b);
        }
    }, Threads::OF_TORCH);
}
