// TC-MGC's similarity of all texts with all videos: products, their gradient, and scores.
//
// float32, contiguous, videos innermost. No result depends on the number of threads.
// A function that needs working memory returns 0, or 1 if the allocation fails.

#pragma once

#include <type_traits>

#include "attention.h"
#include "contrasts.h"
#include "records.h"
#include "threads.h"

// Both matrix products: logits [texts, queries, heads, frames x videos], sides [texts, columns, states x
// videos], in blocks of W videos, [states, W] each (the last one narrower).
template <typename Number>
struct Operands {
    const Number *logits, *sides;
};

// The texts' side: queries [texts, queries, dim], columns [texts, columns, dim], constants of the
// sides [texts, columns].
struct Texts {
    const float *queries, *columns, *constant_side, *bias_side;
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

// Normalised products of one text and W videos, group of queries by group: `place(query)` returns
// the destination of the [group, columns] products, with stride `stride` and `count` of each vector,
// and `use(query, group)` is called when they are complete.
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
static int products_of_all(const Sizes &z, const Operands<float> &operands, const Rest &rest, float *found)
{
    const int64_t S = z.states(), V = z.videos, C = z.columns;
    return in_parallel(z.blocks() * z.texts, z.threads, [&](auto next) {
        const Room mine(products_space(z) + Block<vec>::size(S));
        if (!mine.vecs) return;
        const Block<vec> root(mine.vecs + products_space(z), S);
        int64_t ready = -1;
        for (int64_t item; (item = next()) >= 0;) {
            const int64_t b = item / z.texts, text = item % z.texts;
            if (b != ready) gather(root, rest, b * W, z);
            ready = b;
            products([&](int64_t q) { return found + (text * z.queries + q) * C * V + b * W; },
                     [](int64_t, int64_t) {}, V, V - b * W, mine.vecs, Block<const vec>(mine.vecs + products_space(z), S),
                     Found<float>::of(operands, z, text, b), rest.constant_side + text * C, rest.bias_side + text * C,
                     z);
        }
    }, Threads::OF_TORCH);
}

// Scores [contrasts, texts, videos]; word_mask [texts, words]. `begin(block, room)` loads W videos and
// returns their roots, `find(text, block, room)` computes the products of one text with them; they have `extra`
// vectors of working memory.
template <typename Begin, typename Find>
static int scores_of(const Sizes &z, const float *constants, const float *biases, const Contrasts &contrasts,
                     const Aggregations &by, const bool *word_mask, float *scores, int64_t extra, Begin begin,
                     Find find)
{
    // Texts that are processed together with W videos: enough that loading the videos costs little in comparison.
    constexpr int64_t TOGETHER = 16;
    const int64_t V = z.videos, C = z.columns, words = contrasts.words;
    const int64_t own = products_space(z), parts = (z.texts + TOGETHER - 1) / TOGETHER;
    return in_parallel(z.blocks() * parts, z.threads, [&](auto next) {
        const Room mine(GROUP * C + own + Scorer::room(words) + extra), places(Scorer::indices(words));
        if (!mine.vecs || !places.vecs) return;
        vec *const group = mine.vecs, *const space = group + GROUP * C, *const more = space + own;
        Scorer scorer(contrasts, by, more + extra, (int64_t *)places.vecs);
        int64_t ready = -1;
        for (int64_t item; (item = next()) >= 0;) {
            const int64_t b = item / parts, start = item % parts * TOGETHER;
            const Block<const vec> root = begin(b, more, b == ready);
            ready = b;
            for (int64_t text = start; text < std::min(start + TOGETHER, z.texts); text++) {
                scorer.begin(word_mask + text * words);
                products([&](int64_t) { return (float *)group; },
                         [&](int64_t query, int64_t count) {
                             for (int64_t q = 0; q < count; q++) scorer.take(query + q, group + q * C);
                         },
                         W, W, space, root, find(text, b, more), constants + text * C, biases + text * C, z);
                scorer.finish(scores + text * V + b * W, z.texts * V, V - b * W);
            }
        }
    });
}

// From vectors of texts and records of videos, without storing either matrix product in memory.
template <typename Number>
static int scores_of_records(const Sizes &z, const Texts &texts, const Record &record, const Contrasts &contrasts,
                             const Aggregations &by, const bool *word_mask, float *scores)
{
    const int64_t S = z.states(), F = z.frames, Q = z.queries, C = z.columns, D = z.dim;
    const int64_t block = Block<vec>::size(S), found = (Q + C) * S;
    const auto run = [&](int64_t extra, auto begin, auto find) {
        return scores_of(z, texts.constant_side, texts.bias_side, contrasts, by, word_mask, scores,
                         found + block + extra, begin, find);
    };
    const auto read = [&](int64_t b, vec *room) {
        read_roots<Number>(Block<vec>(room + found, S), record, b * W, std::min<int64_t>(W, z.videos - b * W), z);
    };
    const auto products = [&](vec *room) {
        return Found<float>{(float *)room, (float *)(room + Q * S), S * W, F * W, S * W, W};
    };
    if (z.texts > FEW) {
        const auto begin = [&](int64_t b, vec *room, bool ready) {
            if (!ready) {
                read(b, room);
                Panels(room + found + block, z)
                    .read<Number>(record, b * W, std::min<int64_t>(W, z.videos - b * W), z);
            }
            return Block<const vec>(room + found, S);
        };
        const auto find = [&](int64_t text, int64_t, vec *room) {
            Panels(room + found + block, z)
                .multiply((float *)room, (float *)(room + Q * S), S * W, texts.queries + text * Q * D,
                          texts.columns + text * C * D, z);
            return products(room);
        };
        return run(Panels::size(z), begin, find);
    }
    const int64_t of_queries = TextPanels::size(Q, D), of_text = of_queries + TextPanels::size(C, D);
    const Room panels(z.texts * of_text);
    if (!panels.vecs) return 1;
    const auto queries = [&](int64_t text) {
        return TextPanels(panels.vecs + text * of_text, texts.queries + text * Q * D, Q, z.heads, D);
    };
    const auto columns = [&](int64_t text) {
        return TextPanels(panels.vecs + text * of_text + of_queries, texts.columns + text * C * D, C, 1, D);
    };
    for (int64_t text = 0; text < z.texts; text++) queries(text).fill(), columns(text).fill();
    const auto begin = [&](int64_t b, vec *room, bool ready) {
        if (!ready) read(b, room);
        return Block<const vec>(room + found, S);
    };
    const auto find = [&](int64_t text, int64_t b, vec *room) {
        const int64_t first = b * W, count = std::min<int64_t>(W, z.videos - first);
        queries(text).multiply((float *)room, S * W, (const Number *)record.keys + first * record.keys_apart,
                               record.keys_apart, F, count, room + found + block);
        columns(text).multiply((float *)(room + Q * S), S * W,
                               (const Number *)record.outputs + first * record.outputs_apart, record.outputs_apart,
                               S, count, room + found + block);
        return products(room);
    };
    return run(std::max(TextPanels::room(Q, S, D), TextPanels::room(C, S, D)), begin, find);
}

// From both products in bfloat16.
static int scores_of_products(const Sizes &z, const Operands<uint16_t> &operands, const Rest &rest,
                              const Contrasts &contrasts, const Aggregations &by, const bool *word_mask,
                              float *scores)
{
    const int64_t S = z.states();
    const auto begin = [&](int64_t b, vec *room, bool ready) {
        if (!ready) gather(Block<vec>(room, S), rest, b * W, z);
        return Block<const vec>(room, S);
    };
    const auto find = [&](int64_t text, int64_t b, vec *) { return Found<uint16_t>::of(operands, z, text, b); };
    return scores_of(z, rest.constant_side, rest.bias_side, contrasts, by, word_mask, scores, Block<vec>::size(S),
                     begin, find);
}

// Destinations of the gradient: shapes as in Operands and Rest, except for the constants of the sides,
// which are per block of W videos, [blocks, texts, columns].
struct Grown {
    float *logits, *sides, *attended, *mixed, *output, *constant_side, *bias_side;
};

static int gradient_of_products(const Sizes &z, const Operands<float> &operands, const Rest &x, const float *grad,
                                const Grown &grown)
{
    const int64_t S = z.states(), Q = z.queries, C = z.columns, V = z.videos, size = Block<vec>::size(S);
    return in_parallel(z.blocks(), z.threads, [&](auto next) {
        const Room mine(products_space(z) + BACK * C + 2 * size + C * S + 2 * C + BACK * S + BACK * (S + 2));
        if (!mine.vecs) return;
        vec *const weights = mine.vecs, *const side = weights + BACK * S, *const sums = side + C * S;
        vec *const given = sums + Norms<BACK>::room(S), *const roots = given + BACK * C, *const of_root = roots + size;
        vec *const of_side = of_root + size, *const of_constant = of_side + C * S;
        vec *const of_weights = of_constant + 2 * C, *const of_sums = of_weights + BACK * S;
        const Gradients into{Block<vec>(of_root, S), of_side, of_constant, of_constant + C, of_weights, of_sums};
        const Block<const vec> root(roots, S);
        for (int64_t b; (b = next()) >= 0;) {
            const int64_t first = b * W, count = V - first;
            gather(Block<vec>(roots, S), x, first, z);
            for (int64_t i = 0; i < size; i++) of_root[i] = vec{};
            for (int64_t text = 0; text < z.texts; text++) {
                const auto found = Found<float>::of(operands, z, text, b);
                const float *from = grad + text * Q * C * V + first;
                const float *constants = x.constant_side + text * C, *biases = x.bias_side + text * C;
                float *to = grown.logits + text * Q * S * V + first * z.frames;
                for (int64_t c = 0; c < C; c++)
                    gather(side + c * S, found.sides + c * found.column, S, found.lanes, count);
                for (int64_t i = 0; i < C * S + 2 * C; i++) of_side[i] = vec{};
                int64_t q = 0;
                for (; q + BACK <= Q; q += BACK)
                    backward<BACK>(to + q * S * V, into, from + q * C * V, found.logits + q * S * V, side, weights,
                                   sums, given, root, constants, biases, z, count);
                for (; q < Q; q++)
                    backward<1>(to + q * S * V, into, from + q * C * V, found.logits + q * S * V, side, weights,
                                sums, given, root, constants, biases, z, count);
                for (int64_t c = 0; c < C; c++)
                    scatter(grown.sides + (text * C + c) * S * V + first * S, of_side + c * S, S, found.lanes, count);
                const int64_t row = (b * z.texts + text) * C;
                for (int64_t c = 0; c < C; c++) {
                    grown.constant_side[row + c] = total(into.constant_side[c]);
                    grown.bias_side[row + c] = total(into.bias_side[c]);
                }
            }
            scatter(grown.attended + first, into.root.attended, S * S, V, count);
            scatter(grown.mixed + first, into.root.mixed, (S + 1) * (S + 1), V, count);
            scatter(grown.output + first, into.root.output, (S + 2) * (S + 2), V, count);
        }
    }, Threads::OF_TORCH);
}
