// Arithmetic on W numbers side by side, one per video.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ivec __attribute__((vector_size(4 * W)));

#define INLINE static inline __attribute__((always_inline))

// Numbers of queries and of columns that share loads: as many as their sums fit into registers,
// of which AVX-512 has twice as many. Arrays of a group are [rows][queries].
constexpr int GROUP = W == 16 ? 8 : 4, WIDE = 2;
constexpr int BACK = 4;  // the same in the gradient, which needs more registers

INLINE vec splat(float x)
{
    return x - vec{};  // a sum with 0 would have to convert -0 to 0
}

INLINE vec load(const float *from, int64_t count)
{
    vec x = {};
    if (count >= W)
        memcpy(&x, from, sizeof x);
    else
        for (int64_t i = 0; i < count; i++) x[i] = from[i];
    return x;
}

// bfloat16 is the upper half of a float.
INLINE vec load(const uint16_t *from, int64_t count)
{
    typedef uint16_t half __attribute__((vector_size(2 * W)));
    half x = {};
    if (count >= W)
        memcpy(&x, from, sizeof x);
    else
        for (int64_t i = 0; i < count; i++) x[i] = from[i];
    return (vec)(__builtin_convertvector(x, ivec) << 16);
}

INLINE void store(float *to, vec x, int64_t count)
{
    if (count >= W)
        memcpy(to, &x, sizeof x);
    else
        for (int64_t i = 0; i < count; i++) to[i] = x[i];
}

INLINE vec larger(vec a, vec b)
{
    return a > b ? a : b;
}

INLINE vec smaller(vec a, vec b)
{
    return a < b ? a : b;
}

INLINE vec inverse_root(vec x)
{
    vec y;
    for (int i = 0; i < W; i++) y[i] = 1.0f / __builtin_sqrtf(x[i]);
    return y;
}

// e^x for x <= 0, and 0 from -87 down.
INLINE vec exponential(vec x)
{
    const float magic = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer
    const ivec there = x > splat(-87.0f);
    x = there ? x : vec{};
    const vec shifted = x * 1.44269504088896341f + magic;
    const vec n = shifted - magic;
    x = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = x * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * (x * x) + x + 1.0f;
    return (vec)(((ivec)y + ((ivec)shifted << 23)) & there);
}

INLINE float total(vec x)
{
    float sum = 0;
    for (int i = 0; i < W; i++) sum += x[i];
    return sum;
}

// Memory for vectors, freed when it goes out of scope.
class Room {
public:
    explicit Room(int64_t count) : vecs((vec *)aligned_alloc(64, (count * sizeof(vec) + 63) / 64 * 64)) {}
    ~Room() { free(vecs); }
    Room(const Room &) = delete;
    Room &operator=(const Room &) = delete;
    vec *const vecs;
};

template <typename Number>
INLINE void gather(vec *to, const Number *from, int64_t rows, int64_t stride, int64_t count)
{
    for (int64_t i = 0; i < rows; i++) to[i] = load(from + i * stride, count);
}

INLINE void scatter(float *to, const vec *from, int64_t rows, int64_t stride, int64_t count)
{
    for (int64_t i = 0; i < rows; i++) store(to + i * stride, from[i], count);
}

