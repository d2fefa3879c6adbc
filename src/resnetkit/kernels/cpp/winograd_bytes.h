// Winograd's convolutions of levels with products of integers of 16 bits, for processors that have no better ones.
//
// At the points of `points.h` a tile of levels is exact: no entry of B' d B is larger than (9 * 9 + 3 * 3) * 255 =
// 22,950. Transformed weights are rounded to integers up to 1,400, with a scale for each filter at each pair of points,
// so that the sum over 64 channels fits 32 bits; then it becomes a float. Levels of zero have to be 0.
#pragma once

#include <cmath>

#include "blocks.h"
#include "direct_bytes.h"

namespace {

constexpr Size LARGEST = 1400, DEEP = 64;  // 22950 * 1400 * 64 < 2^31

typedef int16_t Shorts __attribute__((vector_size(PANEL * sizeof(int16_t))));
typedef int16_t UnalignedShorts __attribute__((vector_size(PANEL * sizeof(int16_t)), aligned(2), may_alias));

inline Shorts load_shorts(const uint8_t* from) {
#if defined(__AVX2__)
    return (Shorts)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    typedef uint8_t Group __attribute__((vector_size(PANEL), aligned(1), may_alias));
    return __builtin_convertvector(*reinterpret_cast<const Group*>(from), Shorts);
#endif
}

// A tile of levels at ROWS x COLUMNS points.
template <Size DOWN, Size ACROSS>
inline void spread_levels(const Convolution& conv, Place at, int16_t* v, Size plane) {
    const uint8_t* pixel[DOWN * ACROSS];
    find<DOWN, ACROSS>(conv.levels, conv, conv.channels, at, 1, pixel);
    for (Size c = 0; c < conv.channels; c += PANEL) {
        Shorts half[DOWN][ACROSS];
        UNROLL for (Size j = 0; j < ACROSS; j++) {
            Shorts line[DOWN];
            UNROLL for (Size i = 0; i < DOWN; i++) line[i] = load_shorts(pixel[i * ACROSS + j] + c);
            from_inputs<DOWN>(line);
            UNROLL for (Size i = 0; i < DOWN; i++) half[i][j] = line[i];
        }
        UNROLL for (Size i = 0; i < DOWN; i++) {
            from_inputs<ACROSS>(half[i]);
            int16_t* to = v + plane * POINTS * point<DOWN>(i) + c;
            UNROLL for (Size j = 0; j < ACROSS; j++)
                *reinterpret_cast<UnalignedShorts*>(to + plane * point<ACROSS>(j)) = half[i][j];
        }
    }
}

// As Product: rows of integers of 16 bits, panels [channels / 2, 16 filters, 2] of them, and the scales of the filters.
struct PairProduct {
    const int16_t* a;
    Size lda, depth;
    const int32_t* b;
    const float* scale;
    float* c;
    Size ldc, rows, panels;
};

template <Size R, Size P, bool TURNED>
inline void tile(const PairProduct& p, Size row, Size panel) {
    constexpr Size V = P * PANEL / LANES;
    const Size lda = p.lda, ldc = p.ldc, each = p.depth / 2 * PANEL;
    const int32_t* b[P];
    UNROLL for (Size i = 0; i < P; i++) b[i] = p.b + (panel + i) * each;
    float* c = p.c + row * ldc + panel * PANEL;
    const float* scale = p.scale + panel * PANEL;
    for (Size first = 0; first < p.depth; first += DEEP) {
        Ints sum[R][V] = {};
        const int16_t* a = p.a + row * lda + first;
        const int16_t* end = a + (p.depth - first < DEEP ? p.depth - first : DEEP);
        for (; a < end; a += 2) {
            Ints right[V];
            UNROLL for (Size v = 0; v < V; v++) right[v] = load(b[v * LANES / PANEL] + v * LANES % PANEL);
            UNROLL for (Size r = 0; r < R; r++) {
                int32_t word;
                memcpy(&word, a + r * lda, sizeof(word));
                UNROLL for (Size v = 0; v < V; v++) sum[r][v] = pairs_added(sum[r][v], Ints{} + word, right[v]);
            }
            UNROLL for (Size i = 0; i < P; i++) {
                __builtin_prefetch(b[i] + P * each, 0, 2);  // the panels after these
                b[i] += PANEL;
            }
        }
        for (Size r = 0; r < R; r++) {
            UNROLL for (Size v = 0; v < V; v++) {
                Vector value = __builtin_convertvector(sum[r][v], Vector) * load(scale + v * LANES);
                float* to = c + r * ldc + v * LANES;
                store(to, first ? load(to) + value : value);
            }
        }
    }
}

// As Plan of winograd.h; V holds two integers in the place of a float.
struct BytePlan {
    const Convolution& conv;
    Tiles tiles;
    Blocks blocks;
    const int32_t* weight;  // [36, filters / 16, channels / 2, 16 filters, 2]
    const float* scale;     // [36, filters]

    BytePlan(const Convolution& c, Size threads)
        : conv(c), tiles(c.images, c.height, c.width), blocks(c, tiles.count(), threads, c.channels / 2) {
        weight = reinterpret_cast<const int32_t*>(c.weight), scale = c.weight + PAIRS * c.channels / 2 * c.filters;
    }

    Size count() const { return ceil_of(tiles.count(), blocks.tiles); }

    Range block(Size i) const { return part_of({0, tiles.count()}, i, blocks.tiles); }

    // function<DOWN, ACROSS>(tile, place) for some tiles
    template <class Function>
    void each(Range part, Function&& function) const {
        tiles.each_kind(part.begin, part.end, [&](Size kind, Size from, Size to) {
            with_points(kind, [&]<Size DOWN, Size ACROSS>() {
                for (Size tile = from; tile < to; tile++)
                    function.template operator()<DOWN, ACROSS>(tile, tiles.place(kind, tile));
            });
        });
    }

    void enter(Range part, Size begin, float* v) const {
        each(part, [&]<Size DOWN, Size ACROSS>(Size tile, Place at) {
            float* first = v + (tile - begin) * blocks.row_in;
            spread_levels<DOWN, ACROSS>(conv, at, reinterpret_cast<int16_t*>(first), 2 * blocks.plane_in);
        });
    }

    void leave(Range part, Size begin, const float* m) const {
        Finish::with(conv, [&](auto&& put) {
            auto finish = [&](Size k) { return [&put, k](Vector y, Size at) { put(y, at, k); }; };
            each(part, [&]<Size DOWN, Size ACROSS>(Size tile, Place at) {
                gather<DOWN, ACROSS>(m + (tile - begin) * blocks.row_out, blocks.plane_out, conv, at, finish);
            });
        });
    }

    void product(Size pair, Range block, Range panels, const float* v, float* m) const {
        Range some = tiles.having(pair / POINTS, pair % POINTS, block.begin, block.end);
        PairProduct p{};
        p.a = reinterpret_cast<const int16_t*>(v + pair * blocks.plane_in + some.begin * blocks.row_in);
        p.lda = 2 * blocks.row_in, p.depth = conv.channels;
        p.b = weight + (pair * conv.filters / PANEL + panels.begin) * conv.channels / 2 * PANEL;
        p.scale = scale + pair * conv.filters + panels.begin * PANEL;
        p.c = m + pair * blocks.plane_out + some.begin * blocks.row_out + panels.begin * PANEL, p.ldc = blocks.row_out;
        p.rows = some.end - some.begin, p.panels = panels.end - panels.begin;
        multiply(p);
    }
};

int winograd_bytes(Pool& pool, const Convolution& conv) { return convolve_blocks(pool, BytePlan(conv, pool.size())); }

// What `transform` gives, [36, filters / 16, channels, 16] with 16 floats behind each of the 36, to what is read here.
void round_transformed(Pool& pool, const Convolution& conv, const float* from, float* to) {
    Size groups = conv.filters / PANEL, each = conv.channels * PANEL;
    float* scales = to + PAIRS * conv.channels / 2 * conv.filters;
    parallel(pool, PAIRS * groups, [&](Size i, int) {
        const float* first = from + i / groups * (groups * each + PANEL) + i % groups * each;
        int16_t* rounded = reinterpret_cast<int16_t*>(to) + i * each;
        for (Size k = 0; k < PANEL; k++) {
            float most = 0;
            for (Size c = 0; c < conv.channels; c++) most = std::fmax(most, std::fabs(first[c * PANEL + k]));
            float scale = most > 0 ? most / LARGEST : 1.0f;
            for (Size c = 0; c < conv.channels; c++)
                rounded[(c / 2 * PANEL + k) * 2 + c % 2] = int16_t(std::lrint(first[c * PANEL + k] / scale));
            scales[i * PANEL + k] = scale;
        }
    });
}

}  // namespace
