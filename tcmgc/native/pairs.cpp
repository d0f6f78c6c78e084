// What Python calls: products, scores, and the gradient of products, over all texts and videos.
//
// float32, contiguous, videos innermost. No result depends on the number of threads.
// A function that needs room to work returns 0, or 1 when there is none.

#include "block.h"
#include "contrasts.h"

#include <algorithm>
#include <type_traits>

// Tensors: logits [texts, queries, heads, frames x videos], sides [texts, columns, states x videos], both
// in blocks of W videos, [states, W] each (the last one narrower); the three roots [rows, rows, videos],
// offset [frames, videos], both sides' constants [texts, columns].
struct Operands {
    const void *logits, *sides;  // float, or bfloat16 where the function says so
    const float *attended, *mixed, *output, *offset, *constant_side, *bias_side;
};

// Products of one text and W videos, a group of queries after the other: `place(query)` says where the
// [group, columns] of them go, `stride` numbers from one to the next, and `use(query, group)` is told that
// they are there.
template <typename Number, typename Place, typename Use>
static void products(Place place, Use use, int64_t stride, vec *space, const Block<const vec> &root, int64_t text,
                     int64_t first, const Operands &x, const Sizes &z)
{
    const int64_t S = z.states(), Q = z.queries, C = z.columns, V = z.videos, count = V - first;
    vec *const weights = space, *const copy = weights + GROUP * S, *const sums = copy + C * S;
    const Number *logits = (const Number *)x.logits + text * Q * S * V + first * z.frames;
    const Number *columns = (const Number *)x.sides + text * C * S * V + first * S;
    const float *constants = x.constant_side + text * C, *biases = x.bias_side + text * C;
    const bool ready = std::is_same_v<Number, float> && count >= W;
    const float *const sides = ready ? (const float *)columns : (const float *)copy;
    const int64_t column = ready ? S * V : S * W;
    if (!ready)
        for (int64_t c = 0; c < C; c++) gather(copy + c * S, columns + c * S * V, S, std::min<int64_t>(count, W), count);
    for (int64_t q = 0; q < Q;) {
        const auto group = [&](auto size) {
            // Columns of the next videos' sides.
            const int64_t next = q + size;
            for (int64_t c = C * q / Q; c < C * next / Q; c++) fetch(columns + W * S + c * S * V, S, W);
            forward<size>(place(q), stride, logits + q * S * V, sides, column, weights, sums, root, constants,
                          biases, z, count);
            use(q, size);
            q = next;
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
extern "C" int pairs_forward(const Sizes *sizes, const Operands *operands, float *found)
{
    const Sizes &z = *sizes;
    const Operands &x = *operands;
    const int64_t S = z.states(), V = z.videos, size = Block<vec>::size(S), row = z.columns * V;
    const Room packed(z.blocks() * size);
    if (!packed.vecs) return 1;
    pack(packed.vecs, x.attended, x.mixed, x.output, x.offset, z);
    int failed = 0;
#pragma omp parallel num_threads(z.threads) reduction(| : failed)
    {
        const Room mine(products_space(z));
        failed = !mine.vecs;
#pragma omp for collapse(2) schedule(static)
        for (int64_t text = 0; text < z.texts; text++)
            for (int64_t b = 0; b < z.blocks(); b++)
                if (!failed)
                    products<float>([&](int64_t q) { return found + (text * z.queries + q) * row + b * W; },
                                    [](int64_t, int64_t) {}, V, mine.vecs,
                                    Block<const vec>(packed.vecs + b * size, S), text, b * W, x, z);
    }
    return failed;
}

template <typename Number>
static int scores_of(const Sizes &z, const Operands &x, const Contrasts &contrasts, const Aggregations &by,
                     const bool *word_mask, float *scores)
{
    const int64_t S = z.states(), V = z.videos, C = z.columns, size = Block<vec>::size(S), words = contrasts.words;
    const int64_t own = products_space(z);
    const Room packed(z.blocks() * size);
    if (!packed.vecs) return 1;
    pack(packed.vecs, x.attended, x.mixed, x.output, x.offset, z);
    int failed = 0;
#pragma omp parallel num_threads(z.threads) reduction(| : failed)
    {
        const Room mine(GROUP * C + own + Scorer::room(words)), places(Scorer::indices(words));
        failed = !mine.vecs || !places.vecs;
        vec *const found = mine.vecs, *const space = found + GROUP * C;
        Scorer scorer(contrasts, by, space + own, (int64_t *)places.vecs);
#pragma omp for collapse(2) schedule(static)
        for (int64_t text = 0; text < z.texts; text++)
            for (int64_t b = 0; b < z.blocks(); b++) {
                if (failed) continue;
                scorer.begin(word_mask + text * words);
                products<Number>([&](int64_t) { return (float *)found; },
                                 [&](int64_t query, int64_t group) {
                                     for (int64_t q = 0; q < group; q++) scorer.take(query + q, found + q * C);
                                 },
                                 W, space, Block<const vec>(packed.vecs + b * size, S), text, b * W, x, z);
                scorer.finish(scores + text * V + b * W, z.texts * V, V - b * W);
            }
    }
    return failed;
}

// scores [contrasts, texts, videos]; word_mask [texts, words]. Logits and sides may be bfloat16.
extern "C" int pairs_scores(const Sizes *sizes, const Operands *operands, const Contrasts *contrasts,
                            const Aggregations *by, const bool *word_mask, int64_t bf16, float *scores)
{
    const auto run = bf16 ? scores_of<uint16_t> : scores_of<float>;
    return run(*sizes, *operands, *contrasts, *by, word_mask, scores);
}

// What the gradient is written to: shapes as in Operands, but for those of the two sides, which come
// for each block of W videos, [blocks, texts, columns].
struct Grown {
    float *logits, *sides, *attended, *mixed, *output, *constant_side, *bias_side;
};

extern "C" int pairs_backward(const Sizes *sizes, const Operands *operands, const float *grad, const Grown *grown)
{
    const Sizes &z = *sizes;
    const Operands &x = *operands;
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
            const int64_t first = b * W, count = V - first, wide = std::min<int64_t>(count, W);
            const Block<const vec> root(packed.vecs + b * size, S);
            for (int64_t i = 0; i < size; i++) of_root[i] = vec{};
            for (int64_t text = 0; text < z.texts; text++) {
                const float *logits = (const float *)x.logits + text * Q * S * V + first * z.frames;
                const float *from = grad + text * Q * C * V + first;
                const float *constants = x.constant_side + text * C, *biases = x.bias_side + text * C;
                float *to = grown->logits + text * Q * S * V + first * z.frames;
                for (int64_t c = 0; c < C; c++)
                    gather(side + c * S, (const float *)x.sides + (text * C + c) * S * V + first * S, S, wide, count);
                for (int64_t i = 0; i < C * S + 2 * C; i++) of_side[i] = vec{};
                int64_t q = 0;
                for (; q + BACK <= Q; q += BACK)
                    backward<BACK>(to + q * S * V, into, from + q * C * V, logits + q * S * V, side, weights,
                                    sums, given, root, constants, biases, z, count);
                for (; q < Q; q++)
                    backward<1>(to + q * S * V, into, from + q * C * V, logits + q * S * V, side, weights, sums,
                                given, root, constants, biases, z, count);
                for (int64_t c = 0; c < C; c++)
                    scatter(grown->sides + (text * C + c) * S * V + first * S, of_side + c * S, S, wide, count);
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
