// Functions called by Python, and the layout of the structs that it fills.

#include <cstddef>

#include "interactions.h"
#include "largest.h"
#include "similarity.h"

extern "C" {

int tcmgc_products(const Sizes *sizes, const Operands<float> *operands, const Rest *rest, float *found)
{
    return products_of_all(*sizes, *operands, *rest, found);
}

int tcmgc_products_backward(const Sizes *sizes, const Operands<float> *operands, const Rest *rest, const float *grad,
                            const Grown *grown)
{
    return gradient_of_products(*sizes, *operands, *rest, grad, *grown);
}

int tcmgc_scores(const Sizes *sizes, const Texts *texts, const Record *record, const Contrasts *contrasts,
                 const Aggregations *by, const bool *word_mask, float *scores)
{
    const auto of = record->half ? scores_of_records<half> : scores_of_records<float>;
    return of(*sizes, *texts, *record, *contrasts, *by, word_mask, scores);
}

int tcmgc_scores_bf16(const Sizes *sizes, const Operands<uint16_t> *operands, const Rest *rest,
                      const Contrasts *contrasts, const Aggregations *by, const bool *word_mask, float *scores)
{
    return scores_of_products(*sizes, *operands, *rest, *contrasts, *by, word_mask, scores);
}

int tcmgc_largest(int64_t outer, int64_t size, int64_t kept, int64_t inner, int64_t threads, const float *values,
                  float *top)
{
    return largest_of_all(outer, size, kept, inner, threads, values, top);
}

int tcmgc_largest_backward(int64_t outer, int64_t size, int64_t kept, int64_t inner, int64_t threads,
                           const float *values, const float *top, const float *grad, float *into)
{
    return gradient_of_largest(outer, size, kept, inner, threads, values, top, grad, into);
}

int tcmgc_max_interaction(const Pairs *pairs, const MaxInteraction *given, int64_t zero, float *scores)
{
    return (pairs->half ? max_interaction<half> : max_interaction<float>)(*pairs, *given, zero, scores);
}

int tcmgc_attended_products(const Pairs *pairs, const ProductAttention *given, float temperature, int64_t again,
                            float *scores)
{
    const auto of = pairs->half ? attended_products<half> : attended_products<float>;
    return of(*pairs, *given, temperature, again, scores);
}

// Number of videos side by side.
int tcmgc_lanes()
{
    return W;
}
}

// Each member of the structs above, and each complete struct: structs.py compares them with its own.
struct Member {
    const char *name;
    int64_t offset, size;
};

typedef Operands<float> Products;
#define WHOLE(type) {#type, 0, sizeof(type)}
#define MEMBER(type, name) {#type "." #name, offsetof(type, name), sizeof(type::name)}

static const Member members[] = {
    WHOLE(Sizes), MEMBER(Sizes, texts), MEMBER(Sizes, queries), MEMBER(Sizes, columns), MEMBER(Sizes, heads),
    MEMBER(Sizes, frames), MEMBER(Sizes, videos), MEMBER(Sizes, dim), MEMBER(Sizes, threads),
    MEMBER(Sizes, attended_eps), MEMBER(Sizes, mixed_eps),

    WHOLE(Contrasts), MEMBER(Contrasts, words), MEMBER(Contrasts, kept_words), MEMBER(Contrasts, kept_frames),
    MEMBER(Contrasts, whole), MEMBER(Contrasts, local), MEMBER(Contrasts, video_word),
    MEMBER(Contrasts, sentence_frame), MEMBER(Contrasts, frame_word_words), MEMBER(Contrasts, frame_word_frames),
    MEMBER(Contrasts, masked), MEMBER(Contrasts, count), MEMBER(Contrasts, to_video_sentence),
    MEMBER(Contrasts, to_video_word), MEMBER(Contrasts, to_sentence_frame), MEMBER(Contrasts, to_frame_word),
    MEMBER(Contrasts, temperature),

    WHOLE(Aggregations), MEMBER(Aggregations, video_word), MEMBER(Aggregations, sentence_frame),
    MEMBER(Aggregations, first_frames), MEMBER(Aggregations, then_words), MEMBER(Aggregations, first_words),
    MEMBER(Aggregations, then_frames),

    WHOLE(Texts), MEMBER(Texts, queries), MEMBER(Texts, columns), MEMBER(Texts, constant_side),
    MEMBER(Texts, bias_side),

    WHOLE(Record), MEMBER(Record, keys), MEMBER(Record, bias), MEMBER(Record, outputs), MEMBER(Record, attended),
    MEMBER(Record, mixed), MEMBER(Record, output), MEMBER(Record, mask), MEMBER(Record, keys_apart),
    MEMBER(Record, bias_apart), MEMBER(Record, outputs_apart), MEMBER(Record, attended_apart),
    MEMBER(Record, mixed_apart), MEMBER(Record, output_apart), MEMBER(Record, mask_apart), MEMBER(Record, half),

    WHOLE(Products), MEMBER(Products, logits), MEMBER(Products, sides),

    WHOLE(Rest), MEMBER(Rest, attended), MEMBER(Rest, mixed), MEMBER(Rest, output), MEMBER(Rest, offset),
    MEMBER(Rest, constant_side), MEMBER(Rest, bias_side),

    WHOLE(Grown), MEMBER(Grown, logits), MEMBER(Grown, sides), MEMBER(Grown, attended), MEMBER(Grown, mixed),
    MEMBER(Grown, output), MEMBER(Grown, constant_side), MEMBER(Grown, bias_side),

    WHOLE(Pairs), MEMBER(Pairs, texts), MEMBER(Pairs, words), MEMBER(Pairs, videos), MEMBER(Pairs, frames),
    MEMBER(Pairs, dim), MEMBER(Pairs, threads), MEMBER(Pairs, apart), MEMBER(Pairs, half),

    WHOLE(MaxInteraction), MEMBER(MaxInteraction, words), MEMBER(MaxInteraction, frames),
    MEMBER(MaxInteraction, word_weights), MEMBER(MaxInteraction, frame_weights),
    MEMBER(MaxInteraction, word_mask), MEMBER(MaxInteraction, frame_mask),

    WHOLE(ProductAttention), MEMBER(ProductAttention, words), MEMBER(ProductAttention, frames),
    MEMBER(ProductAttention, first_words), MEMBER(ProductAttention, then_frames),
    MEMBER(ProductAttention, first_frames), MEMBER(ProductAttention, then_words),
};

extern "C" const Member *tcmgc_members(int64_t *count)
{
    *count = sizeof members / sizeof *members;
    return members;
}
