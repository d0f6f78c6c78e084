// From products to the scores of the contrasts (Eq. 12-30), for one text and W videos.
//
// tcmgc/heads/parts/reorganise.py and tcmgc/heads/parts/aggregate.py do the same for all pairs at once.

#pragma once

#include "vectors.h"

enum Mode : int64_t { NONE, REMOVE, FUSE };

struct Contrasts {
    int64_t words, kept_words, kept_frames;
    // Columns of the products: the sentence and the words, as they are compared with the video.
    int64_t whole, local;
    Mode video_word, sentence_frame, frame_word_words, frame_word_frames;
    int64_t masked;  // padded words are excluded
    int64_t count;   // number of contrasts in use
    // Index of each contrast's scores; -1 if it is not used.
    int64_t to_video_sentence, to_video_word, to_sentence_frame, to_frame_word;
    float temperature;
};

// Matrices of the aggregations, [slots, slots]; null for a plain softmax.
struct Aggregations {
    const float *video_word, *sentence_frame, *first_frames, *then_words, *first_words, *then_frames;
};

// The k largest of n values in descending order, and the others if `rest` is not null.
// Padded with -inf if there are fewer.
template <int k>
INLINE void largest_few(vec *top, vec *rest, const vec *values, int64_t stride, int64_t n)
{
    vec kept[k];
    for (int i = 0; i < k; i++) kept[i] = splat(-__builtin_inff());
    for (int64_t j = 0; j < n; j++) {
        vec value = values[j * stride];
        for (int i = 0; i < k; i++) {
            const vec high = larger(kept[i], value);
            value = smaller(kept[i], value);
            kept[i] = high;
        }
        if (rest) rest[j] = value;
    }
    for (int i = 0; i < k; i++) top[i] = kept[i];
}

static void largest(vec *top, vec *spare, const vec *values, int64_t stride, int64_t n, int64_t k)
{
    while (k > 4) {
        largest_few<4>(top, spare, values, stride, n);
        top += 4, k -= 4, values = spare, stride = 1;
    }
    switch (k) {
    case 1: return largest_few<1>(top, nullptr, values, stride, n);
    case 2: return largest_few<2>(top, nullptr, values, stride, n);
    case 3: return largest_few<3>(top, nullptr, values, stride, n);
    case 4: return largest_few<4>(top, nullptr, values, stride, n);
    }
}

// All but the k largest as one, weighted by a softmax over their own values (Algorithm 2).
// The counts determine how many of those equal to the k-th belong to the rest.
static vec fused(const vec *top, const vec *values, int64_t stride, int64_t n, int64_t k)
{
    const vec threshold = top[k - 1], following = top[k];
    vec below = {}, total = {}, sum = {};
    for (int64_t j = 0; j < n; j++) {
        const vec value = values[j * stride];
        const ivec smaller_one = value < threshold;
        const vec weight = smaller_one ? exponential(value - following) : vec{};
        below += smaller_one ? splat(1.0f) : vec{};
        total += weight;
        sum += weight * value;
    }
    const vec tied = larger(splat((float)(n - k)) - below, vec{});
    return (sum + tied * following) / (total + tied);
}

// SR along one axis. Fills `slots` with the positions of the results, and returns their number.
static int64_t reorganise(vec *to, int64_t *slots, const vec *values, int64_t stride, const int64_t *places,
                          int64_t n, Mode mode, int64_t k, bool masked, vec *spare)
{
    if (mode == NONE) {
        for (int64_t j = 0; j < n; j++) {
            to[j] = values[j * stride];
            slots[j] = places[j];
        }
        return n;
    }
    const int64_t kept = n < k ? n : k;
    const bool more = mode == FUSE && n > k;
    largest(to, spare, values, stride, n, kept + more);
    for (int64_t j = 0; j < kept; j++) slots[j] = j;
    if (mode == REMOVE || (masked && !more)) return kept;
    to[kept] = more ? fused(to, values, stride, n, k) : vec{};
    slots[kept] = k;
    return kept + 1;
}

INLINE void softmax(vec *weights, const vec *x, int64_t n, float factor)
{
    vec top = x[0], total = {};
    for (int64_t i = 1; i < n; i++) top = larger(x[i], top);
    for (int64_t i = 0; i < n; i++) total += weights[i] = exponential((x[i] - top) * factor);
    total = 1.0f / total;
    for (int64_t i = 0; i < n; i++) weights[i] *= total;
}

// ISA of n values in these slots (Eq. 18-21); a softmax-weighted sum if there is no matrix.
static vec aggregate(const vec *values, const int64_t *slots, int64_t n, const float *matrix, int64_t size,
                     float factor, vec *spare)
{
    vec *weights = spare, *mixed = spare + n;
    softmax(weights, values, n, factor);
    if (matrix) {
        for (int64_t i = 0; i < n; i++) {
            vec sum = {};
            for (int64_t j = 0; j < n; j++) sum += weights[j] * matrix[slots[i] * size + slots[j]];
            mixed[i] = sum;
        }
        softmax(weights, mixed, n, factor);
    }
    vec sum = {};
    for (int64_t i = 0; i < n; i++) sum += weights[i] * values[i];
    return sum;
}

INLINE int64_t slots_of(int64_t size, Mode mode, int64_t kept)
{
    return mode == NONE ? size : kept + (mode == FUSE);
}

// Scores of the contrasts that take part, of one text and W videos, from products that come row by row:
// the sentence's first, then the words'. A row is reorganised while it is in the L1 cache.
class Scorer {
public:
    static int64_t room(int64_t words) { return 2 * (words + 1) * (words + 1) + 6 * (words + 2); }
    static int64_t indices(int64_t words) { return 4 * (words + 1); }

    // `start` and `index`: memory for this many vectors and numbers.
    Scorer(const Contrasts &contrasts, const Aggregations &aggregations, vec *start, int64_t *index)
        : c(contrasts), by(aggregations), size(c.words + 1), rows(start), columns(rows + size * size),
          first(columns + size * size), along_words(first + size + 1), along_frames(along_words + size + 1),
          values(along_frames + size + 1), spare(values + size + 1), places(index), row_slots(places + size),
          column_slots(row_slots + size), vector_slots(column_slots + size)
    {
    }

    void begin(const bool *word_mask)
    {
        n = next = wide = 0;
        for (int64_t i = 0; i < c.words; i++)
            if (!c.masked || word_mask[i]) places[n++] = i;
    }

    void take(int64_t query, const vec *row)
    {
        if (!query) {
            if (c.to_video_sentence >= 0) scores[c.to_video_sentence] = row[c.whole];
            if (c.to_video_word >= 0)
                scores[c.to_video_word] = vector(present(row + 1), c.video_word, c.kept_words, by.video_word);
            return;
        }
        if (next == n || places[next] != query - 1) return;
        first[next] = row[0];
        if (c.to_frame_word >= 0)
            wide = reorganise(rows + next * size, row_slots, present(row + c.local), 1, places, n,
                              c.frame_word_words, c.kept_words, c.masked, spare);
        next++;
    }

    void finish(float *to, int64_t stride, int64_t count)
    {
        if (c.to_sentence_frame >= 0)
            scores[c.to_sentence_frame] = vector(first, c.sentence_frame, c.kept_frames, by.sentence_frame);
        if (c.to_frame_word >= 0) scores[c.to_frame_word] = frame_word();
        for (int64_t g = 0; g < c.count; g++) store(to + g * stride, scores[g], count);
    }

private:
    const Contrasts &c;
    const Aggregations &by;
    const int64_t size;
    vec *const rows, *const columns, *const first, *const along_words, *const along_frames, *const values,
        *const spare;
    int64_t *const places, *const row_slots, *const column_slots, *const vector_slots;
    int64_t n, next, wide;
    vec scores[4];

    // The values of a row for words that are not masked.
    const vec *present(const vec *row)
    {
        if (n == c.words) return row;
        for (int64_t i = 0; i < n; i++) values[i] = row[places[i]];
        return values;
    }

    vec vector(const vec *x, Mode mode, int64_t kept, const float *matrix)
    {
        vec *const to = along_words;
        const int64_t count = reorganise(to, vector_slots, x, 1, places, n, mode, kept, c.masked, spare);
        return aggregate(to, vector_slots, count, matrix, slots_of(c.words, mode, kept), 1.0f / c.temperature, spare);
    }

    // Bi-SR along the frames of the remaining words, then Bi-ISA in both orders.
    vec frame_word()
    {
        const float factor = 1.0f / c.temperature;
        int64_t tall = 0;
        for (int64_t w = 0; w < wide; w++)
            tall = reorganise(columns + w * size, column_slots, rows + w, size, places, n, c.frame_word_frames,
                              c.kept_frames, c.masked, spare);
        const int64_t word_size = slots_of(c.words, c.frame_word_words, c.kept_words);
        const int64_t frame_size = slots_of(c.words, c.frame_word_frames, c.kept_frames);
        for (int64_t w = 0; w < wide; w++)
            along_words[w] = aggregate(columns + w * size, column_slots, tall, by.first_frames, frame_size, factor,
                                       spare);
        for (int64_t f = 0; f < tall; f++) {
            for (int64_t w = 0; w < wide; w++) values[w] = columns[w * size + f];
            along_frames[f] = aggregate(values, row_slots, wide, by.first_words, word_size, factor, spare);
        }
        const vec words = aggregate(along_words, row_slots, wide, by.then_words, word_size, factor, spare);
        const vec frames = aggregate(along_frames, column_slots, tall, by.then_frames, frame_size, factor, spare);
        return (words + frames) * 0.5f;
    }
};
