// Convolutions of levels of 8 bits as products of words of 32 bits, which hold four bytes where the processor adds up
// four products of bytes at once, and else two integers of 16 bits, whose two products no processor gets wrong.
#pragma once

#include <cstring>

#include "bands.h"
#include "levels.h"
#include "product.h"

namespace {

#if defined(__AVX512VNNI__)
using Lane = uint8_t;
using Weight = int8_t;
#else
using Lane = int16_t;
using Weight = int16_t;
#endif

constexpr Size EACH = sizeof(int32_t) / sizeof(Lane);

// `sums` and the products of two integers of 16 bits in each word
inline Ints pairs_added(Ints sums, Ints left, Ints right) {
#if defined(__AVX512BW__)
    return sums + (Ints)_mm512_madd_epi16((__m512i)left, (__m512i)right);
#elif defined(__AVX2__)
    return sums + (Ints)_mm256_madd_epi16((__m256i)left, (__m256i)right);
#elif defined(__SSE2__)
    return sums + (Ints)_mm_madd_epi16((__m128i)left, (__m128i)right);
#else
    return sums + (left << 16 >> 16) * (right << 16 >> 16) + (left >> 16) * (right >> 16);
#endif
}

// `sums` and the products of the parts of words
inline Ints added(Ints sums, Ints left, Ints right) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)left, (__m512i)right);
#else
    return pairs_added(sums, left, right);
#endif
}

// As Product: rows of `pieces` pieces of words, panels [pieces, words, 16 filters] of weights, and what follows.
struct WordProduct {
    const Convolution& conv;
    const Lane* a;
    Size lda;
    const Size* offset;
    Size pieces, words;
    const int32_t* b;
    Size at, filter;  // of the first output
    Size rows, panels;
};

template <Size R, Size P, bool TURNED>
inline void tile(const WordProduct& p, Size row, Size panel) {
    constexpr Size V = P * PANEL / LANES;
    Ints sum[R][V] = {};
    const Size lda = p.lda, words = p.words, each = p.pieces * words * PANEL;
    const int32_t* b[P];
    UNROLL for (Size i = 0; i < P; i++) b[i] = p.b + (panel + i) * each;
    for (Size piece = 0; piece < p.pieces; piece++) {
        const Lane* a = p.a + row * lda + p.offset[piece];
        for (Size k = 0; k < words; k++, a += EACH) {
            Ints right[V];
            UNROLL for (Size v = 0; v < V; v++) right[v] = load(b[v * LANES / PANEL] + v * LANES % PANEL);
            UNROLL for (Size r = 0; r < R; r++) {
                int32_t word;
                memcpy(&word, a + r * lda, sizeof(word));
                UNROLL for (Size v = 0; v < V; v++) sum[r][v] = added(sum[r][v], Ints{} + word, right[v]);
            }
            UNROLL for (Size i = 0; i < P; i++) b[i] += PANEL;
        }
    }
    Finish::with(p.conv, [&](auto&& put) {
        for (Size r = 0; r < R; r++) {
            Size at = p.at + (row + r) * p.conv.filters + panel * PANEL, filter = p.filter + panel * PANEL;
            UNROLL for (Size v = 0; v < V; v++) put(sum[r][v], at + v * LANES, filter + v * LANES);
        }
    });
}

// What surrounds images, for some columns.
inline Lane* put_around(const Convolution& conv, Size columns, Lane* to) {
    for (Size i = 0; i < columns; i++)
        for (Size c = 0; c < conv.channels; c++) *to++ = conv.border[c];
    return to;
}

// The input rows from `first` on that a band needs, with their border.
void copy_lanes(const Bands& bands, Size image, Size first, Lane* to) {
    const Convolution& conv = bands.conv;
    for (Size i = 0; i < bands.input_rows(); i++) {
        Size y = first + i, pixel = (image * bands.height + y) * bands.width;
        Size left = conv.images * conv.height * conv.width - pixel, columns = left < bands.width ? left : bands.width;
        if (y < 0 || y >= bands.height) {
            to = put_around(conv, bands.padded, to);
            continue;
        }
        to = put_around(conv, conv.padding, to);
        for (Size j = pixel * conv.channels; j < (pixel + columns) * conv.channels; j++) *to++ = conv.levels[j];
        to = put_around(conv, conv.padding + bands.width - columns, to);
    }
}

inline Size words_of(const Bands& bands) { return ceil_of(bands.depth, EACH); }

// The outputs of a band for some panels of filters.
void multiply_lanes(const Bands& bands, const Lane* input, Size image, Range rows, Range panels) {
    const Convolution& conv = bands.conv;
    const int32_t* weight = reinterpret_cast<const int32_t*>(conv.weight);
    Size words = words_of(bands), line = conv.stride * bands.padded * conv.channels;
    for (Size panel = panels.begin; panel < panels.end; panel += PANELS) {
        for (Size row = rows.begin; row < rows.end; row++) {
            Size place = (image * bands.rows + row) * bands.columns;
            WordProduct p{conv, input + (row - rows.begin) * line, conv.stride * conv.channels};
            p.offset = bands.offset, p.pieces = bands.pieces, p.words = words;
            p.b = weight + panel * bands.pieces * words * PANEL;
            p.at = place * conv.filters + panel * PANEL, p.filter = panel * PANEL;
            p.rows = bands.columns < bands.places - place ? bands.columns : bands.places - place;
            p.panels = panels.end - panel < PANELS ? panels.end - panel : PANELS;
            multiply(p);
        }
    }
}

int direct_bytes(Pool& pool, const Convolution& conv) {
    Bands bands(conv, pool.size());
    Size panels = conv.filters / PANEL, across = ceil_of(panels, bands.wide), down = ceil_of(bands.rows, bands.band);
    Size lanes = bands.input_rows() * bands.padded * conv.channels + PANEL;  // the last words read some for nobody
    Size each = ceil_of(lanes * Size(sizeof(Lane)), 64) * PANEL;
    float* room = pool.room(each * pool.size());
    if (!room) return NO_MEMORY;
    parallel(pool, bands.images * down * across, [&](Size item, int worker) {
        Size panel = item % across * bands.wide, image = item / across / down;
        Size begin = item / across % down * bands.band, end = begin + bands.band;
        Size last = panel + bands.wide < panels ? panel + bands.wide : panels;
        Lane* own = reinterpret_cast<Lane*>(room + worker * each);
        copy_lanes(bands, image, begin * conv.stride - conv.padding, own);
        multiply_lanes(bands, own, image, {begin, end < bands.rows ? end : bands.rows}, {panel, last});
    });
    return DONE;
}

int64_t packed_bytes(const Convolution& conv) {
    Bands bands(conv, 1);
    return bands.pieces * words_of(bands) * conv.filters;
}

// [filters / 16, pieces, words, 16 filters, parts of a word]
void pack_bytes(Pool& pool, const Convolution& conv, const int8_t* weight, int8_t* packed) {
    Bands bands(conv, 1);
    Size words = words_of(bands), taps = conv.kernel * conv.kernel, across = conv.kernel / (bands.pieces / conv.kernel);
    parallel(pool, conv.filters / PANEL, [&](Size panel, int) {
        Weight* to = reinterpret_cast<Weight*>(packed) + panel * bands.pieces * words * PANEL * EACH;
        for (Size i = 0; i < bands.pieces * words * EACH; i++) {
            Size piece = i / (words * EACH), term = i % (words * EACH), tap = piece * across + term / conv.channels;
            for (Size k = 0; k < PANEL; k++) {
                Size filter = (panel * PANEL + k) * conv.channels * taps;
                Weight value = term < bands.depth ? weight[filter + term % conv.channels * taps + tap] : 0;
                to[(i / EACH * PANEL + k) * EACH + i % EACH] = value;
            }
        }
    });
}

}  // namespace
