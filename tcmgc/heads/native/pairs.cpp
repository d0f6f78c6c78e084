// What Python calls: products, scores, and the gradient of products, over all texts and videos.
//
// float32, contiguous, videos innermost. No result depends on the number of threads.
// A function that needs room to work returns 0, or 1 when there is none.

#include <type_traits>

#include "block.h"
#include "contrasts.h"
#include "matmul.h"

// Both matrix products: logits [texts, queries, heads, frames x videos], sides [texts, columns, states x
// videos], in blocks of W videos, [states, W] each (the last one narrower).
template <typename Number>
struct Operands {
    const Number *logits, *sides;
};

// What they are the products of: queries [texts, queries, dim], columns [texts, columns, dim], keys
// [heads, frames x videos, dim / heads], outputs [states x videos, dim], in the same blocks; and room for
// (frames + states) x W x blocks x dim numbers.
struct Factors {
    const float *queries, *columns, *keys, *outputs;
    float *room;
};

// The three roots [rows, rows, videos], offset [frames, videos], constants of the sides [texts, columns].
struct Rest {
    const float *attended, *mixed, *output, *offset, *constant_side, *bias_side;
};

// The products of one text and W videos: logits of query q, head h and frame f at q row + h head + f lanes,
// sides of column c and state i at c column + i lanes.
template <typename Number>
struct Found {
    const Number *logits, *sides;
    int64_t row, head, column, lanes;

    static Found of(const Operands<Number> &x, const Sizes &z, int64_t text, int64_t block)
    {
        const int64_t S = z.states(), all = S * z.videos, first = block * W;
        return {x.logits + text * z.queries * all + first * z.frames,
                x.sides + text * z.columns * all + first * S,
                all, z.frames * z.videos, all, std::min<int64_t>(W, z.videos - first)};
    }
};

// Normalised products of one text and W videos, a group of queries after the other: `place(query)` says
// where the [group, columns] of them go, `stride` numbers from one to the next and `count` of each vector,
// and `use(query, group)` is told that they are there.
template <typename Number, typename Place, typename Use>
static void products(Place place, Use use, int64_t stride, int64_t count, vec *space, const Block<const vec> &root,
                     const Found<Number> &x, const float *constants, const float *biases, const Sizes &z)
{
    const int64_t S = z.states(), Q = z.queries, C = z.columns;
    vec *const weights = space, *const copy = weights + GROUP * S, *const sums = copy + C * S;
    const bool ready = std::is_same_v<Number, float> && x.lanes == W;
    const float *const sides = ready ? (const float *)x.sides : (const float *)copy;
    const int64_t column = ready ? x.column : S * W;
    if (!ready)
        for (int64_t c = 0; c < C; c++) gather(copy + c * S, x.sides + c * x.column, S, x.lanes, x.lanes);
    for (int64_t q = 0; q < Q;) {
        const auto group = [&](auto size) {
            forward<size>(place(q), stride, count, x.logits + q * x.row, x.row, x.head, x.lanes, sides, column, weights,
                          sums, root, constants, biases, z);
            use(q, size);
            q += size;
        };
        if (q + GROUP <= Q)
            group(std::integral_constant<int, GROUP>());
        else if (q + 4 <= Q)
            group(std::integral_constant<int, 4>());
        else
            group(std::integral_constant<int, 1>());
    }
}

static int64_t products_space(const Sizes &z)
{
    return (GROUP + z.columns) * z.states() + Norms<GROUP>::room(z.states());
}

// found [texts, queries, columns, videos].
extern "C" int pairs_forward(const Sizes *sizes, const Operands<float> *operands, const Rest *rest, float *found)
{
    const Sizes &z = *sizes;
    const int64_t S = z.states(), V = z.videos, C = z.columns, size = Block<vec>::size(S);
    const Room packed(z.blocks() * size);
    if (!packed.vecs) return 1;
    pack(packed.vecs, rest->attended, rest->mixed, rest->output, rest->offset, z);
    int failed = 0;
#pragma omp parallel num_threads(z.threads) reduction(| : failed)
    {
        const Room mine(products_space(z));
        failed = !mine.vecs;
#pragma omp for collapse(2) schedule(static)
        for (int64_t text = 0; text < z.texts; text++)
            for (int64_t b = 0; b < z.blocks(); b++) {
                if (failed) continue;
                products([&](int64_t q) { return found + (text * z.queries + q) * C * V + b * W; },
                         [](int64_t, int64_t) {}, V, V - b * W, mine.vecs,
                         Block<const vec>(packed.vecs + b * size, S), Found<float>::of(*operands, z, text, b),
                         rest->constant_side + text * C, rest->bias_side + text * C, z);
            }
    }
    return failed;
}

// Scores [contrasts, texts, videos] from what `found(text, block, room)` gives, with `extra` vectors of room;
// word_mask [texts, words].
template <typename Find>
static int scores_of(const Sizes &z, const Rest &rest, const Contrasts &contrasts, const Aggregations &by,
                     const bool *word_mask, float *scores, int64_t extra, Find found)
{
    const int64_t S = z.states(), V = z.videos, C = z.columns, size = Block<vec>::size(S), words = contrasts.words;
    const int64_t own = products_space(z);
    const Room packed(z.blocks() * size);
    if (!packed.vecs) return 1;
    pack(packed.vecs, rest.attended, rest.mixed, rest.output, rest.offset, z);
    int failed = 0;
#pragma omp parallel num_threads(z.threads) reduction(| : failed)
    {
        const Room mine(GROUP * C + own + Scorer::room(words) + extra), places(Scorer::indices(words));
        failed = !mine.vecs || !places.vecs;
        vec *const group = mine.vecs, *const space = group + GROUP * C, *const more = space + own;
        Scorer scorer(contrasts, by, more + extra, (int64_t *)places.vecs);
        // Videos are the outer loop: theirs is the larger part, and stays in the cache for all texts.
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < z.blocks(); b++)
            for (int64_t text = 0; text < z.texts; text++) {
                if (failed) continue;
                scorer.begin(word_mask + text * words);
                products([&](int64_t) { return (float *)group; },
                         [&](int64_t query, int64_t count) {
                             for (int64_t q = 0; q < count; q++) scorer.take(query + q, group + q * C);
                         },
                         W, W, space, Block<const vec>(packed.vecs + b * size, S), found(text, b, (float *)more),
                         rest.constant_side + text * C, rest.bias_side + text * C, z);
                scorer.finish(scores + text * V + b * W, z.texts * V, V - b * W);
            }
    }
    return failed;
}

// From vectors of texts and videos, without either matrix product ever in memory.
extern "C" int pairs_scores(const Sizes *sizes, const Factors *factors, const Rest *rest, const Contrasts *contrasts,
                            const Aggregations *by, const bool *word_mask, float *scores)
{
    const Sizes &z = *sizes;
    const Factors &x = *factors;
    const int64_t S = z.states(), F = z.frames, V = z.videos, Q = z.queries, C = z.columns, D = z.dim;
    const int64_t depth = D / z.heads, block = S * D;
    float *const keys = x.room, *const outputs = keys + z.blocks() * F * D * W;
#pragma omp parallel for num_threads(z.threads) schedule(static)
    for (int64_t b = 0; b < z.blocks(); b++) {
        const int64_t first = b * W, count = std::min<int64_t>(W, V - first);
        for (int64_t h = 0; h < z.heads; h++)
            panels(keys + (b * D + h * depth) * F * W, x.keys + (h * F * V + first * F) * depth, F, count, depth);
        panels(outputs + b * block * W, x.outputs + first * block, S, count, D);
    }
    const auto found = [&](int64_t text, int64_t b, float *room) {
        float *const logits = room, *const sides = room + Q * S * W;
        for (int64_t h = 0; h < z.heads; h++)
            multiply(logits + h * F * W, S * W, x.queries + text * Q * D + h * depth, D, Q,
                     keys + (b * D + h * depth) * F * W, F, depth);
        multiply(sides, S * W, x.columns + text * C * D, D, C, outputs + b * block * W, S, D);
        return Found<float>{logits, sides, S * W, F * W, S * W, W};
    };
    return scores_of(z, *rest, *contrasts, *by, word_mask, scores, (Q + C) * S, found);
}

// From both products in bfloat16.
extern "C" int pairs_scores_bf16(const Sizes *sizes, const Operands<uint16_t> *operands, const Rest *rest,
                                 const Contrasts *contrasts, const Aggregations *by, const bool *word_mask,
                                 float *scores)
{
    const auto found = [&](int64_t text, int64_t b, float *) {
        return Found<uint16_t>::of(*operands, *sizes, text, b);
    };
    return scores_of(*sizes, *rest, *contrasts, *by, word_mask, scores, 0, found);
}

// What the gradient is written to: shapes as in Operands and Rest, but for the constants of the sides,
// which come for each block of W videos, [blocks, texts, columns].
struct Grown {
    float *logits, *sides, *attended, *mixed, *output, *constant_side, *bias_side;
};

extern "C" int pairs_backward(const Sizes *sizes, const Operands<float> *operands, const Rest *rest,
                              const float *grad, const Grown *grown)
{
    const Sizes &z = *sizes;
    const Rest &x = *rest;
    const int64_t S = z.states(), Q = z.queries, C = z.columns, V = z.videos, size = Block<vec>::size(S);
    const Room packed(z.blocks() * size);
    if (!packed.vecs) return 1;
    pack(packed.vecs, x.attended, x.mixed, x.output, x.offset, z);
    int failed = 0;
#pragma omp parallel num_threads(z.threads) reduction(| : failed)
    {
        const Room mine(products_space(z) + BACK * C + size + C * S + 2 * C + BACK * S + BACK * (S + 2));
        failed = !mine.vecs;
        vec *const weights = mine.vecs, *const side = weights + BACK * S, *const sums = side + C * S;
        vec *const given = sums + Norms<BACK>::room(S), *const of_root = given + BACK * C;
        vec *const of_side = of_root + size, *const of_constant = of_side + C * S;
        vec *const of_weights = of_constant + 2 * C, *const of_sums = of_weights + BACK * S;
        const Gradients into{Block<vec>(of_root, S), of_side, of_constant, of_constant + C, of_weights, of_sums};
#pragma omp for schedule(static)
        for (int64_t b = 0; b < z.blocks(); b++) {
            if (failed) continue;
            const int64_t first = b * W, count = V - first;
            const Block<const vec> root(packed.vecs + b * size, S);
            for (int64_t i = 0; i < size; i++) of_root[i] = vec{};
            for (int64_t text = 0; text < z.texts; text++) {
                const auto found = Found<float>::of(*operands, z, text, b);
                const float *from = grad + text * Q * C * V + first;
                const float *constants = x.constant_side + text * C, *biases = x.bias_side + text * C;
                float *to = grown->logits + text * Q * S * V + first * z.frames;
                for (int64_t c = 0; c < C; c++)
                    gather(side + c * S, found.sides + c * found.column, S, found.lanes, count);
                for (int64_t i = 0; i < C * S + 2 * C; i++) of_side[i] = vec{};
                int64_t q = 0;
                for (; q + BACK <= Q; q += BACK)
                    backward<BACK>(to + q * S * V, into, from + q * C * V, found.logits + q * S * V, side,
                                   weights, sums, given, root, constants, biases, z, count);
                for (; q < Q; q++)
                    backward<1>(to + q * S * V, into, from + q * C * V, found.logits + q * S * V, side, weights,
                                sums, given, root, constants, biases, z, count);
                for (int64_t c = 0; c < C; c++)
                    scatter(grown->sides + (text * C + c) * S * V + first * S, of_side + c * S, S, found.lanes, count);
                const int64_t row = (b * z.texts + text) * C;
                for (int64_t c = 0; c < C; c++) {
                    grown->constant_side[row + c] = total(into.constant_side[c]);
                    grown->bias_side[row + c] = total(into.bias_side[c]);
                }
            }
            scatter(grown->attended + first, into.root.attended, S * S, V, count);
            scatter(grown->mixed + first, into.root.mixed, (S + 1) * (S + 1), V, count);
            scatter(grown->output + first, into.root.output, (S + 2) * (S + 2), V, count);
        }
    }
    return failed;
}

// Gradient of the `kept` largest of `size` values, tensors [outer, size or kept, inner]: each goes to where
// its value came from; equal values share it.
extern "C" void largest_backward(int64_t outer, int64_t size, int64_t kept, int64_t inner, int64_t threads,
                                 const float *values, const float *top, const float *grad, float *into)
{
    const int64_t blocks = (inner + W - 1) / W;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t o = 0; o < outer; o++)
        for (int64_t b = 0; b < blocks; b++) {
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
        }
}

// Videos side by side.
extern "C" int pairs_lanes() { return W; }
