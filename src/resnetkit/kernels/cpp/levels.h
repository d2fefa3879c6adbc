// Levels of 8 bits, and what becomes of integer sums of their products.
//
// Compiled without contraction of floats, and every operation is one that all processors round alike.
#pragma once

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
    Levels levels = *reinterpret_cast<const UnalignedLevels*>(from);
    return __builtin_convertvector(__builtin_convertvector(levels, Ints), Vector);
}

// The nearest level, from `least` on.
inline void store(uint8_t* to, Vector value, float least) {
    value = value < least ? Vector{} + least : value;
    value = value > 255.0f ? Vector{} + 255.0f : value;
    constexpr float WHOLE = 12582912.0f;  // 1.5 * 2^23: its last bit is 1, so a sum with it is rounded to integers
    Ints bits = reinterpret_cast<Ints>(value + WHOLE) & 255;
    *reinterpret_cast<UnalignedLevels*>(to) = __builtin_convertvector(bits, Levels);
}

// Sums of as many filters as there are lanes, from `filter` on, to the outputs at `at`.
inline void put_sums(const Convolution& conv, Ints sums, Size at, Size filter) {
    Vector y = __builtin_convertvector(sums, Vector) * load(conv.factor + filter) + load(conv.bias + filter);
    if (conv.beside) y += load(conv.beside + at) * conv.share;
    if (conv.to)
        store(conv.to + at, y, conv.least);
    else
        store(conv.y + at, conv.relu ? relu(y) : y);
}

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
