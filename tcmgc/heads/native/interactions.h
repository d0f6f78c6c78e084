// Similarities from all products of words with frames, which stay in the cache.
//
// tcmgc/heads/parts/interactions.py does the same for all pairs at once.

#pragma once

#include "rows.h"
#include "threads.h"

// Sizes of a call. Words [texts, words, dim]; frames [videos, frames, dim], with stride `apart` between videos.
struct Pairs {
    int64_t texts, words, videos, frames, dim, threads, apart;
    int64_t half;  // frames are float16, not float32
};

// Passes the products of one text and W videos, [words][frames], to `use(text, first video, products, room)`;
// calls `begin(first video, room)` before, when the videos change. `extent` returns how many of a text's words
// are needed; `extra` vectors of working memory are for `use`.
template <typename Number, typename Extent, typename Begin, typename Use>
static int products_of_pairs(const Pairs &z, const float *words, const void *frames, int64_t extra, Extent extent,
                             Begin begin, Use use)
{
    constexpr int64_t TOGETHER = 16;
    const int64_t N = z.words, F = z.frames, D = z.dim, blocks = (z.videos + W - 1) / W;
    // Texts of few words are multiplied together; otherwise there are fewer sums than the processor can overlap.
    const int64_t many = std::max<int64_t>(1, N < 6 ? ROWS / N : 1);
    const int64_t parts = (z.texts + TOGETHER - 1) / TOGETHER;
    const auto rows_of = [&](int64_t first) { return (const Number *)frames + first * z.apart; };
    if (z.texts > FEW)
        return in_parallel(blocks * parts, z.threads, [&](auto next) {
            const Room mine(F * D + many * N * F + extra);
            if (!mine.vecs) return;
            vec *const panel = mine.vecs, *const found = panel + F * D, *const room = found + many * N * F;
            int64_t ready = -1;
            for (int64_t item; (item = next()) >= 0;) {
                const int64_t b = item / parts, start = item % parts * TOGETHER, first = b * W;
                if (b != ready) {
                    panels((float *)panel, rows_of(first), z.apart, D, F, std::min<int64_t>(W, z.videos - first), D);
                    begin(first, room);
                }
                ready = b;
                const int64_t end = std::min(start + TOGETHER, z.texts);
                for (int64_t text = start; text < end; text += many) {
                    const int64_t group = std::min(many, end - text);
                    const int64_t rows = many > 1 ? group * N : extent(text);
                    multiply((float *)found, F * W, words + text * N * D, D, rows, (float *)panel, F, D);
                    for (int64_t i = 0; i < group; i++) use(text + i, first, found + i * N * F, room);
                }
            }
        });
    const int64_t size = TextPanels::size(N, D), space = TextPanels::room(N, F, D);
    const Room texts(z.texts * size);
    if (!texts.vecs) return 1;
    const auto panel = [&](int64_t text) {
        return TextPanels(texts.vecs + text * size, words + text * N * D, extent(text), 1, D);
    };
    for (int64_t text = 0; text < z.texts; text++) panel(text).fill();
    return in_parallel(blocks, z.threads, [&](auto next) {
        const Room mine(N * F + space + extra);
        if (!mine.vecs) return;
        vec *const found = mine.vecs, *const room = found + N * F;
        for (int64_t b; (b = next()) >= 0;) {
            const int64_t first = b * W;
            begin(first, room);
            for (int64_t text = 0; text < z.texts; text++) {
                panel(text).multiply((float *)found, F * W, rows_of(first), z.apart, F,
                                     std::min<int64_t>(W, z.videos - first), room + extra);
                use(text, first, found, room);
            }
        }
    });
}

// Weights [texts, words] and [videos, frames], masks likewise; null if nothing is masked, or if there is no second
// side.
struct MaxInteraction {
    const float *words;
    const void *frames;
    const float *word_weights, *frame_weights;
    const bool *word_mask, *frame_mask;
};

// scores [sides, texts, videos]
template <typename Number>
static int max_interaction(const Pairs &z, const MaxInteraction &x, int64_t zero, float *scores)
{
    const int64_t N = z.words, F = z.frames, V = z.videos;
    const vec none = splat(-__builtin_inff()), absent = zero ? vec{} : none;
    const auto extent = [&](int64_t text) {
        int64_t n = N;
        while (x.word_mask && n > 1 && !x.word_mask[text * N + n - 1]) n--;
        return n;
    };
    // Working memory: weights, masks, best words.
    const auto begin = [&](int64_t first, vec *room) {
        for (int64_t f = 0; f < F; f++)
            for (int64_t v = 0; v < W; v++) {
                const int64_t at = std::min(first + v, V - 1) * F + f;
                room[f][v] = x.frame_weights ? x.frame_weights[at] : 0.0f;
                room[F + f][v] = !x.frame_mask || x.frame_mask[at] ? 1.0f : 0.0f;
            }
    };
    const auto use = [&](int64_t text, int64_t first, const vec *products, vec *room) {
        const vec *const weights = room, *const seen = room + F;
        vec *const best_word = room + 2 * F;
        const bool *const mask = x.word_mask ? x.word_mask + text * N : nullptr;
        const int64_t n = extent(text);
        bool all = true;
        for (int64_t w = 0; mask && w < N; w++) all = all && mask[w];
        for (int64_t f = 0; f < F; f++) best_word[f] = all ? none : absent;
        vec score = {};
        for (int64_t w = 0; w < n; w++) {
            if (mask && !mask[w]) continue;
            vec best = none;
            for (int64_t f = 0; f < F; f++) {
                vec found = products[w * F + f];
                if (x.frame_mask) found = seen[f] > vec{} ? found : absent;
                best = larger(best, found);
                best_word[f] = larger(best_word[f], found);
            }
            score += x.word_weights[text * N + w] * best;
        }
        store(scores + text * V + first, score, V - first);
        if (!x.frame_weights) return;
        score = vec{};
        for (int64_t f = 0; f < F; f++) score += weights[f] * (seen[f] > vec{} ? best_word[f] : vec{});
        store(scores + (z.texts + text) * V + first, score, V - first);
    };
    return products_of_pairs<Number>(z, x.words, x.frames, 3 * F, extent, begin, use);
}

// Attention over the products. Matrices are transposed, [to, from]; if one axis has one entry, only `first_words`
// is given, which is the matrix of the other axis.
struct ProductAttention {
    const float *words;
    const void *frames;
    const float *first_words, *then_frames, *first_frames, *then_words;
};

// Reduces values x[i along + j across], i < n, for each j < m: their sum weighted by softmax(factor x) through a
// matrix, and with `again` a second softmax. `space`: 2 n m + m vectors.
static void attended(vec *to, const vec *x, int64_t n, int64_t along, int64_t m, int64_t across, const float *matrix,
                     float factor, bool again, vec *space)
{
    vec *const weights = space, *const mixed = weights + n * m, *const scale = mixed + n * m;
    for (int64_t j = 0; j < m; j++) {
        const int64_t wide = j + 1 < m || j % 2 ? 2 : 1;
        const vec *const from = x + j * across;
        vec *const into = weights + j / 2 * 2 * n + j % 2;
        vec top = from[0], total = {};
        for (int64_t i = 1; i < n; i++) top = larger(from[i * along], top);
        for (int64_t i = 0; i < n; i++) total += into[i * wide] = exponential((from[i * along] - top) * factor);
        scale[j] = 1.0f / total;
    }
    multiply((float *)mixed, m * W, matrix, n, n, (float *)weights, m, n);
    for (int64_t j = 0; j < m; j++) {
        const vec *const from = x + j * across, *const by = mixed + j;
        vec sum = {}, total = {};
        if (again) {
            const vec more = scale[j] * factor;
            vec top = by[0] * more;
            for (int64_t i = 1; i < n; i++) top = larger(by[i * m] * more, top);
            for (int64_t i = 0; i < n; i++) {
                const vec weight = exponential(by[i * m] * more - top);
                total += weight;
                sum += weight * from[i * along];
            }
            to[j] = sum / total;
        } else {
            for (int64_t i = 0; i < n; i++) sum += by[i * m] * from[i * along];
            to[j] = sum * scale[j];
        }
    }
}

// scores [texts, videos]
template <typename Number>
static int attended_products(const Pairs &z, const ProductAttention &x, float temperature, int64_t again,
                             float *scores)
{
    const int64_t N = z.words, F = z.frames, V = z.videos;
    const float factor = 1.0f / temperature;
    const auto use = [&](int64_t text, int64_t first, const vec *products, vec *room) {
        vec *const line = room, *const space = line + std::max(N, F);
        vec one, other;
        if (x.then_frames) {
            attended(line, products, N, F, F, 1, x.first_words, factor, again, space);
            attended(&one, line, F, 1, 1, 0, x.then_frames, factor, again, space);
            attended(line, products, F, 1, N, F, x.first_frames, factor, again, space);
            attended(&other, line, N, 1, 1, 0, x.then_words, factor, again, space);
            one = (one + other) * 0.5f;
        } else {
            attended(&one, products, N * F, 1, 1, 0, x.first_words, factor, again, space);
        }
        store(scores + text * V + first, one, V - first);
    };
    const auto extent = [&](int64_t) { return N; };
    const int64_t extra = std::max(N, F) + 2 * N * F + std::max(N, F) + 1;
    return products_of_pairs<Number>(z, x.words, x.frames, extra, extent, [](int64_t, vec *) {}, use);
}
