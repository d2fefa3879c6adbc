// A float as the sum of two bfloat16, its high and its low half: 16 of its 24 bits, so that the sum of the products
// high * high + high * low + low * high differs from a product of floats by some 2^-17 of it.
//
// Where a float is not finite, its low half is not a number, and neither are the sums.
#pragma once

#include <immintrin.h>

#include "vector.h"

namespace {

using Half = uint16_t;

constexpr Size PAIR = 2 * PANEL;  // floats that become a register of halves

struct Halves {
    __m512i high, low;
};

// of 16 floats and the 16 after them
inline Halves split(__m512 first, __m512 second) {
    __m512i high = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    __m512i before = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(high));
    __m512i behind = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1));
    first -= _mm512_castsi512_ps(_mm512_slli_epi32(before, 16));
    second -= _mm512_castsi512_ps(_mm512_slli_epi32(behind, 16));
    return {high, (__m512i)_mm512_cvtne2ps_pbh(second, first)};
}

// the same with each float of the first beside that of the second
inline Halves split_pairs(__m512 first, __m512 second) {
    alignas(64) static const Half BESIDE[PAIR] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i beside = _mm512_load_si512(BESIDE);
    Halves apart = split(first, second);
    return {_mm512_permutexvar_epi16(beside, apart.high), _mm512_permutexvar_epi16(beside, apart.low)};
}

// the lowest `count` of 16 or of 32 lanes
inline __mmask16 lanes(Size count) { return count >= PANEL ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

// of `count` floats, at most 32; the others are zeros
inline Halves split_some(const float* from, Size count) {
    return split(_mm512_maskz_loadu_ps(lanes(count), from), _mm512_maskz_loadu_ps(lanes(count - PANEL), from + PANEL));
}

inline void store_some(Half* to, __m512i halves, Size count) {
    _mm512_mask_storeu_epi16(to, lanes(count) | __mmask32(lanes(count - PANEL)) << PANEL, halves);
}

// 16 rows of 16 pairs of halves to their columns: each of four rounds interleaves the first rows with the last ones
inline void transpose(__m512i (&rows)[PANEL]) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i last = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    for (int round = 0; round < 4; round++) {
        __m512i mixed[PANEL];
        UNROLL for (Size i = 0; i < PANEL / 2; i++) {
            mixed[2 * i] = _mm512_permutex2var_epi32(rows[i], first, rows[i + PANEL / 2]);
            mixed[2 * i + 1] = _mm512_permutex2var_epi32(rows[i], last, rows[i + PANEL / 2]);
        }
        UNROLL for (Size i = 0; i < PANEL; i++) rows[i] = mixed[i];
    }
}

}  // namespace
