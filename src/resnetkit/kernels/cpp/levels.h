// Levels of 8 bits, and what becomes of integer sums of their products.
//
// Compiled without contraction of floats, and every operation is one that all processors round alike.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "kernels.h"
#include "pool.h"
#include "vector.h"

namespace {

typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef int32_t UnalignedInts __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));
typedef uint8_t Levels __attribute__((vector_size(LANES)));
typedef uint8_t UnalignedLevels __attribute__((vector_size(LANES), aligned(1), may_alias));

inline Ints load(const int32_t* from) { return *reinterpret_cast<const UnalignedInts*>(from); }

inline Vector load(const uint8_t* from) {
#if defined(__AVX512F__)  // compilers take many instructions for it
    Ints wide = (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__AVX2__)
    Ints wide = (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
#else
    Ints wide = __builtin_convertvector(*reinterpret_cast<const UnalignedLevels*>(from), Ints);
#endif
    return __builtin_convertvector(wide, Vector);
}

// The nearest level, from `least` on.
inline void store(uint8_t* to, Vector value, float least) {
    value = value < least ? Vector{} + least : value;
    value = value > 255.0f ? Vector{} + 255.0f : value;
    constexpr float WHOLE = 12582912.0f;  // 1.5 * 2^23: its last bit is 1, so a sum with it is rounded to integers
    Ints bits = reinterpret_cast<Ints>(value + WHOLE);
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)bits));
#else
    *reinterpret_cast<UnalignedLevels*>(to) = __builtin_convertvector(bits & 255, Levels);
#endif
}

// What follows a convolution: a copy, since a write of bytes could change any other value.
struct Finish {
    const float *factor, *bias;
    const uint8_t* beside;
    uint8_t* to;
    float* y;
    float share, least;
    bool rectified;

    explicit Finish(const Convolution& c)
        : factor(c.factor), bias(c.bias), beside(c.beside), to(c.to), y(c.y), share(c.share), least(c.least),
          rectified(c.relu) {}

    static Vector whole(Ints sums) { return __builtin_convertvector(sums, Vector); }
    static Vector whole(Vector sums) { return sums; }

    template <bool ADDS, class Sums>
    Vector value(Sums sums, Size at, Size filter) const {
        Vector value = whole(sums) * load(factor + filter) + load(bias + filter);
        if constexpr (ADDS) value += load(beside + at) * share;
        return value;
    }

    // Sums of as many filters as there are lanes, from `filter` on, to the outputs at `at`.
    template <bool ADDS, bool ROUNDS, class Sums>
    void put(Sums sums, Size at, Size filter) const {
        Vector value = this->value<ADDS>(sums, at, filter);
        if constexpr (ROUNDS)
            store(to + at, value, least);
        else
            store(y + at, rectified ? relu(value) : value);
    }

    // function(finish.put) for what there is to do
    template <class Function>
    static void with(const Convolution& conv, Function&& function) {
        const Finish finish(conv);
        auto put = [&]<bool ADDS, bool ROUNDS>() {
            function([&](auto sums, Size at, Size filter) { finish.put<ADDS, ROUNDS>(sums, at, filter); });
        };
        if (conv.to)
            conv.beside ? put.template operator()<true, true>() : put.template operator()<false, true>();
        else
            conv.beside ? put.template operator()<true, false>() : put.template operator()<false, false>();
    }
};

// The largest of 3 x 3, every second pixel.
void max_levels(Pool& pool, const Convolution& conv) {
    typedef uint8_t Group __attribute__((vector_size(PANEL), aligned(1), may_alias));
    Size rows = (conv.height + 1) / 2, columns = (conv.width + 1) / 2, line = conv.width * conv.channels;
    parallel(pool, conv.images * rows, [&](Size item, int) {
        Size y = item % rows * 2, top = y > 0 ? y - 1 : 0, bottom = y + 2 < conv.height ? y + 2 : conv.height;
        const uint8_t* image = conv.levels + item / rows * conv.height * line;
        for (Size place = 0; place < columns; place++) {
            Size x = place * 2, left = x > 0 ? x - 1 : 0, right = x + 2 < conv.width ? x + 2 : conv.width;
            uint8_t* to = conv.to + (item * columns + place) * conv.channels;
            for (Size c = 0; c < conv.channels; c += PANEL) {
                Group best{};
                for (Size i = top; i < bottom; i++) {
                    for (Size j = left; j < right; j++) {
                        Group next = *reinterpret_cast<const Group*>(image + i * line + j * conv.channels + c);
                        best = next > best ? next : best;
                    }
                }
                *reinterpret_cast<Group*>(to + c) = best;
            }
        }
    });
}

void to_levels(Pool& pool, const Convolution& conv) {
    Size row = conv.width * conv.channels;
    parallel(pool, conv.images * conv.height, [&](Size item, int) {
        for (Size i = item * row; i < (item + 1) * row; i += LANES)
            store(conv.to + i, load(conv.x + i) * conv.share + conv.least, 0);
    });
}

void to_floats(Pool& pool, const Convolution& conv) {
    Size row = conv.width * conv.channels;
    parallel(pool, conv.images * conv.height, [&](Size item, int) {
        for (Size i = item * row; i < (item + 1) * row; i += LANES)
            store(conv.y + i, (load(conv.levels + i) - conv.least) * conv.share);
    });
}

}  // namespace
