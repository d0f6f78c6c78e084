// The collapsed attention block after its two matrix products, and its gradient.
//
// The equations are those of tcmgc/heads/parts/collapsed.py, here for a group of queries of one text and W videos.
// S is the number of states (heads x frames). Roots are lower triangular up to rounding, so sums
// skip their upper triangle; its gradient, which is not zero, is computed.

#pragma once

#include "vectors.h"

// Sizes and options of a call.
struct Sizes {
    int64_t texts, queries, columns, heads, frames, videos, dim, threads;
    float attended_eps, mixed_eps;

    int64_t states() const { return heads * frames; }
    int64_t blocks() const { return (videos + W - 1) / W; }
};

// Roots and offsets of one block of W videos, in sequence.
template <typename V>
struct Block {
    V *attended, *mixed, *output, *offset;

    Block(V *start, int64_t S)
        : attended(start), mixed(attended + S * S), output(mixed + (S + 1) * (S + 1)),
          offset(output + (S + 2) * (S + 2))
    {
    }
    static int64_t size(int64_t S) { return S * S + (S + 1) * (S + 1) + (S + 2) * (S + 2) + S; }
};

// Inputs that are the same for all texts, videos innermost: roots [rows, rows, videos], offset [frames, videos]; and
// inputs that are the same for all videos: constants of the sides [texts, columns].
struct Rest {
    const float *attended, *mixed, *output, *offset, *constant_side, *bias_side;
};

// The roots and offsets of the videos from `first` on.
static void gather(const Block<vec> &block, const Rest &from, int64_t first, const Sizes &z)
{
    const int64_t S = z.states(), count = z.videos - first;
    gather(block.attended, from.attended + first, S * S, z.videos, count);
    gather(block.mixed, from.mixed + first, (S + 1) * (S + 1), z.videos, count);
    gather(block.output, from.output + first, (S + 2) * (S + 2), z.videos, count);
    for (int64_t h = 0; h < z.heads; h++)
        gather(block.offset + h * z.frames, from.offset + first, z.frames, z.videos, count);
}

// Softmax over each head's frames, for the queries of a group: of query q, head h and frame f at q row +
// h head + f lanes.
template <int many, typename Number>
INLINE void attend(vec *weights, const Number *logits, int64_t row, int64_t head, int64_t lanes, const vec *offset,
                   const Sizes &z)
{
    for (int64_t h = 0; h < z.heads; h++) {
        vec top[many], total[many] = {};
        for (int q = 0; q < many; q++) top[q] = load(logits + q * row, lanes) + offset[0];
        for (int64_t f = 0; f < z.frames; f++)
            for (int q = 0; q < many; q++) {
                const vec x = load(logits + q * row + f * lanes, lanes) + offset[f];
                weights[f * many + q] = x;
                top[q] = larger(x, top[q]);
            }
        for (int64_t f = 0; f < z.frames; f++)
            for (int q = 0; q < many; q++) {
                const vec x = exponential(weights[f * many + q] - top[q]);
                weights[f * many + q] = x;
                total[q] += x;
            }
        for (int q = 0; q < many; q++) total[q] = 1.0f / total[q];
        for (int64_t f = 0; f < z.frames; f++)
            for (int q = 0; q < many; q++) weights[f * many + q] *= total[q];
        weights += z.frames * many;
        offset += z.frames;
        logits += head;
    }
}

// sums[j] = sum over i of weights[i] root[i + skip][j]: the root's rows from `skip` on, two columns at a time.
template <int many>
INLINE void along(vec *sums, const vec *weights, const vec *root, int64_t S, int64_t skip)
{
    const int64_t width = S + skip;
    for (int64_t j = 0; j < width; j += 2) {
        vec left[many] = {}, right[many] = {};
        const int64_t pair = j + 1 < width;
        for (int64_t i = j > skip ? j - skip : 0; i < S; i++) {
            const vec a = root[(i + skip) * width + j], b = root[(i + skip) * width + j + pair];
            for (int q = 0; q < many; q++) {
                const vec w = weights[i * many + q];
                left[q] += w * a;
                right[q] += w * b;
            }
        }
        for (int q = 0; q < many; q++) {
            sums[(j + pair) * many + q] = right[q];
            sums[j * many + q] = left[q];
        }
    }
}

// s, t and l of a group, and the sums they are computed from.
template <int many>
struct Norms {
    vec s[many], t[many], l[many], length[many];
    vec *attended, *mixed, *output;

    static int64_t room(int64_t S) { return GROUP * (3 * S + 3); }

    __attribute__((always_inline)) Norms(vec *sums, const vec *weights, const Block<const vec> &root, const Sizes &z)
        : attended(sums), mixed(attended + many * z.states()), output(mixed + many * (z.states() + 1))
    {
        const int64_t S = z.states();
        along<many>(attended, weights, root.attended, S, 0);
        along<many>(mixed, weights, root.mixed, S, 1);
        along<many>(output, weights, root.output, S, 2);
        vec total[many] = {};
        for (int64_t j = 0; j < S; j++)
            for (int q = 0; q < many; q++) total[q] += attended[j * many + q] * attended[j * many + q];
        for (int q = 0; q < many; q++) {
            s[q] = inverse_root(total[q] + z.attended_eps);
            total[q] = vec{};
        }
        for (int64_t j = 0; j < S + 1; j++)
            for (int q = 0; q < many; q++) {
                const vec x = mixed_part(j, q, root);
                total[q] += x * x;
            }
        for (int q = 0; q < many; q++) {
            t[q] = inverse_root(total[q] + z.mixed_eps);
            total[q] = vec{};
        }
        for (int64_t j = 0; j < S + 2; j++)
            for (int q = 0; q < many; q++) {
                const vec x = output_part(j, q, root, S);
                total[q] += x * x;
            }
        for (int q = 0; q < many; q++) {
            length[q] = total[q];
            l[q] = inverse_root(larger(total[q], splat(1e-24f)));
        }
    }

    __attribute__((always_inline)) vec mixed_part(int64_t j, int q, const Block<const vec> &root) const
    {
        return mixed[j * many + q] * s[q] + root.mixed[j];
    }

    __attribute__((always_inline)) vec output_part(int64_t j, int q, const Block<const vec> &root, int64_t S) const
    {
        return (output[j * many + q] * s[q] + root.output[S + 2 + j]) * t[q] + root.output[j];
    }
};

// found = weights . sides + constant constant_side + bias bias_side, some queries by some columns, with
// stride `column`.
template <int many, int wide>
INLINE void combine(float *found, int64_t stride, const vec *weights, const float *sides, int64_t column,
                    const vec *constant, const vec *bias, const float *constant_side, const float *bias_side,
                    const Sizes &z, int64_t count)
{
    const int64_t S = z.states();
    vec sum[wide][many];
    for (int c = 0; c < wide; c++)
        for (int q = 0; q < many; q++) sum[c][q] = constant[q] * constant_side[c] + bias[q] * bias_side[c];
    for (int64_t i = 0; i < S; i++) {
        vec side[wide];
        for (int c = 0; c < wide; c++) side[c] = load(sides + c * column + i * W, W);
        for (int q = 0; q < many; q++) {
            const vec w = weights[i * many + q];
            for (int c = 0; c < wide; c++) sum[c][q] += w * side[c];
        }
    }
    for (int q = 0; q < many; q++)
        for (int c = 0; c < wide; c++) store(found + (q * z.columns + c) * stride, sum[c][q], count);
}

template <int many, typename Number>
INLINE void forward(float *found, int64_t stride, int64_t count, const Number *logits, int64_t row, int64_t head,
                    int64_t lanes, const float *sides, int64_t column, vec *weights, vec *sums,
                    const Block<const vec> &root, const float *constant_side, const float *bias_side, const Sizes &z)
{
    const int64_t S = z.states();
    attend<many>(weights, logits, row, head, lanes, root.offset, z);
    const Norms<many> n(sums, weights, root, z);
    vec constant[many], gain[many];
    for (int q = 0; q < many; q++) {
        constant[q] = n.t[q] * n.l[q];
        gain[q] = n.s[q] * constant[q];
    }
    for (int64_t i = 0; i < S; i++)
        for (int q = 0; q < many; q++) weights[i * many + q] *= gain[q];
    int64_t c = 0;
    for (; c + WIDE <= z.columns; c += WIDE)
        combine<many, WIDE>(found + c * stride, stride, weights, sides + c * column, column, constant, n.l,
                            constant_side + c, bias_side + c, z, count);
    for (; c < z.columns; c++)
        combine<many, 1>(found + c * stride, stride, weights, sides + c * column, column, constant, n.l,
                         constant_side + c, bias_side + c, z, count);
}

// Accumulators of the gradient of a block's videos, and working memory.
struct Gradients {
    Block<vec> root;  // offset: not used
    vec *sides, *constant_side, *bias_side;
    vec *of_weights, *of_sums;
};

// grown[i][j] += sum over the group of by[j] weights[i]
template <int many>
INLINE void outer(vec *grown, const vec *weights, const vec *by, int64_t S, int64_t width)
{
    for (int64_t i = 0; i < S; i++) {
        vec w[many];
        for (int q = 0; q < many; q++) w[q] = weights[i * many + q];
        for (int64_t j = 0; j < width; j++) {
            vec sum = grown[i * width + j];
            for (int q = 0; q < many; q++) sum += by[j * many + q] * w[q];
            grown[i * width + j] = sum;
        }
    }
}

// into[i] += factor sum over j of by[j] root[i + skip][j], the lower triangle
template <int many>
INLINE void across(vec *into, const vec *by, const vec *root, const vec *factor, int64_t S, int64_t skip)
{
    const int64_t width = S + skip;
    for (int64_t i = 0; i < S; i++) {
        vec sum[many] = {};
        for (int64_t j = 0; j <= i + skip; j++) {
            const vec r = root[(i + skip) * width + j];
            for (int q = 0; q < many; q++) sum[q] += by[j * many + q] * r;
        }
        for (int q = 0; q < many; q++) into[i * many + q] += factor[q] * sum[q];
    }
}

// of_weights[i] = sum over columns of given[c] sides[c][i], `wide` states at a time
template <int many, int wide>
INLINE void gathered(vec *of_weights, const vec *given, const vec *sides, int64_t C, int64_t S)
{
    vec sum[wide][many] = {};
    for (int64_t c = 0; c < C; c++) {
        vec side[wide];
        for (int i = 0; i < wide; i++) side[i] = sides[c * S + i];
        for (int q = 0; q < many; q++) {
            const vec g = given[c * many + q];
            for (int i = 0; i < wide; i++) sum[i][q] += g * side[i];
        }
    }
    for (int i = 0; i < wide; i++)
        for (int q = 0; q < many; q++) of_weights[i * many + q] = sum[i][q];
}

template <int many>
INLINE void backward(float *into_logits, const Gradients &into, const float *grad, const float *logits,
                     const vec *sides, vec *weights, vec *sums, vec *given, const Block<const vec> &root,
                     const float *constant_side, const float *bias_side, const Sizes &z, int64_t count)
{
    const int64_t S = z.states(), C = z.columns, V = z.videos, lanes = count < W ? count : W;
    attend<many>(weights, logits, S * V, z.frames * V, lanes, root.offset, z);
    const Norms<many> n(sums, weights, root, z);
    const vec *s = n.s, *t = n.t, *l = n.l;
    vec of_constant[many] = {}, of_bias[many] = {}, of_gain[many] = {}, of_s[many], of_t[many], both[many];
    for (int64_t c = 0; c < C; c++) {
        vec constant_sum = {}, bias_sum = {};
        for (int q = 0; q < many; q++) {
            const vec g = load(grad + (q * C + c) * V, count);
            given[c * many + q] = g;
            of_constant[q] += g * constant_side[c];
            of_bias[q] += g * bias_side[c];
            constant_sum += g * (t[q] * l[q]);
            bias_sum += g * l[q];
        }
        into.constant_side[c] += constant_sum;
        into.bias_side[c] += bias_sum;
    }
    int64_t i = 0;
    for (; i + 3 <= S; i += 3) gathered<many, 3>(into.of_weights + i * many, given, sides + i, C, S);
    for (; i < S; i++) gathered<many, 1>(into.of_weights + i * many, given, sides + i, C, S);
    for (int64_t c = 0; c < C; c++)
        for (int q = 0; q < many; q++) given[c * many + q] *= s[q] * t[q] * l[q];
    for (int64_t c = 0; c < C; c++)
        for (int64_t i = 0; i < S; i++) {
            vec sum = into.sides[c * S + i];
            for (int q = 0; q < many; q++) sum += given[c * many + q] * weights[i * many + q];
            into.sides[c * S + i] = sum;
        }
    for (int64_t i = 0; i < S; i++)
        for (int q = 0; q < many; q++) {
            of_gain[q] += into.of_weights[i * many + q] * weights[i * many + q];
            into.of_weights[i * many + q] *= s[q] * t[q] * l[q];
        }

    // l, from the output root
    vec pull[many], through_s[many] = {}, through_t[many] = {};
    for (int q = 0; q < many; q++) {
        of_s[q] = of_gain[q] * t[q] * l[q];
        of_t[q] = of_gain[q] * s[q] * l[q] + of_constant[q] * l[q];
        const vec of_l = of_gain[q] * s[q] * t[q] + of_constant[q] * t[q] + of_bias[q];
        pull[q] = n.length[q] > splat(1e-24f) ? -of_l * l[q] * l[q] * l[q] : vec{};
        both[q] = s[q] * t[q];
    }
    for (int64_t j = 0; j < S + 2; j++) {
        vec constant_sum = {}, bias_sum = {};
        for (int q = 0; q < many; q++) {
            const vec by = pull[q] * n.output_part(j, q, root, S);
            through_s[q] += by * n.output[j * many + q];
            through_t[q] += by * root.output[S + 2 + j];
            constant_sum += by * t[q];
            bias_sum += by;
            into.of_sums[j * many + q] = by;
        }
        into.root.output[j] += bias_sum;
        into.root.output[S + 2 + j] += constant_sum;
    }
    across<many>(into.of_weights, into.of_sums, root.output, both, S, 2);
    for (int64_t j = 0; j < S + 2; j++)
        for (int q = 0; q < many; q++) into.of_sums[j * many + q] *= both[q];
    outer<many>(into.root.output + 2 * (S + 2), weights, into.of_sums, S, S + 2);

    // t, from the mixed root
    for (int q = 0; q < many; q++) {
        of_s[q] += through_s[q] * t[q];
        of_t[q] += through_s[q] * s[q] + through_t[q];
        pull[q] = -of_t[q] * t[q] * t[q] * t[q];
    }
    for (int64_t j = 0; j < S + 1; j++) {
        vec constant_sum = {};
        for (int q = 0; q < many; q++) {
            const vec by = pull[q] * n.mixed_part(j, q, root);
            of_s[q] += by * n.mixed[j * many + q];
            constant_sum += by;
            into.of_sums[j * many + q] = by;
        }
        into.root.mixed[j] += constant_sum;
    }
    across<many>(into.of_weights, into.of_sums, root.mixed, s, S, 1);
    for (int64_t j = 0; j < S + 1; j++)
        for (int q = 0; q < many; q++) into.of_sums[j * many + q] *= s[q];
    outer<many>(into.root.mixed + S + 1, weights, into.of_sums, S, S + 1);

    // s, from the attended root
    vec one[many];
    for (int q = 0; q < many; q++) {
        one[q] = splat(1.0f);
        pull[q] = -of_s[q] * s[q] * s[q] * s[q];
    }
    for (int64_t j = 0; j < S; j++)
        for (int q = 0; q < many; q++) into.of_sums[j * many + q] = pull[q] * n.attended[j * many + q];
    across<many>(into.of_weights, into.of_sums, root.attended, one, S, 0);
    outer<many>(into.root.attended, weights, into.of_sums, S, S);

    // the softmax
    for (int64_t h = 0; h < z.heads; h++) {
        const int64_t start = h * z.frames, end = start + z.frames;
        vec mean[many] = {};
        for (int64_t f = start; f < end; f++)
            for (int q = 0; q < many; q++) mean[q] += weights[f * many + q] * into.of_weights[f * many + q];
        for (int64_t f = start; f < end; f++)
            for (int q = 0; q < many; q++)
                store(into_logits + q * S * V + h * z.frames * V + (f - start) * lanes,
                      weights[f * many + q] * (into.of_weights[f * many + q] - mean[q]), count);
    }
}

