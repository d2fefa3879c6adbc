// How the 36 matrix products of Winograd's convolutions are shared out, whatever their numbers are.
//
// For each of the 36 pairs of points, V[tile][channel] holds the transformed inputs of some tiles, and the products
// M[tile][filter] = V U are a matrix product with the transformed weights U[channel][filter]. Where U is small, each
// thread takes blocks of tiles whose V and M fit its cache. Where U is large it is read once for all tiles, shared out
// by pairs of points.
#pragma once

#include "pool.h"
#include "product.h"
#include "tiles.h"

namespace {

constexpr Size PAIRS = POINTS * POINTS;
constexpr Size CACHE = 1 << 18;    // floats of V and M that a thread's cache shall hold
constexpr Size SMALL = 128 * 128;  // channels * filters up to which U may be read for every block of tiles
constexpr Size GROUP = 6 << 20;    // floats of V and M that are held otherwise
constexpr Size MOST = 8192;        // channels

alignas(64) const float ZEROS[MOST] = {};

// Tiles at a time, whether each thread has its own, and the layout of their 36 matrices: the distances of rows and of
// matrices are odd numbers of cache lines, so that what is written at once does not fall into one place of a cache.
struct Blocks {
    bool own;
    Size tiles, row_in, row_out, plane_in, plane_out;

    static Size odd_lines(Size floats) { return (floats + PANEL - 1) / PANEL / 2 * 2 * PANEL + PANEL; }

    // for so many floats of inputs of a tile at a pair of points
    Blocks(const Convolution& conv, Size count, Size threads, Size wide) {
        Size each = PAIRS * (wide + conv.filters);
        own = conv.block ? conv.block > 0 : conv.channels * conv.filters <= SMALL;
        tiles = conv.block ? (own ? conv.block : -conv.block) : (own ? CACHE : GROUP) / each;
        tiles = tiles < 1 ? 1 : tiles;
        Size share = own ? ceil_of(count, threads) : count;
        tiles = ceil_of(share, ceil_of(share, tiles));
        row_in = odd_lines(wide), row_out = odd_lines(conv.filters);
        plane_in = odd_lines(tiles * row_in), plane_out = odd_lines(tiles * row_out);
    }

    Size floats() const { return PAIRS * (plane_in + plane_out); }
};

// The pixels of a tile and a border of `margin` around it, from its corner on; zeros for those outside of the image.
template <Size HEIGHT, Size WIDTH, class Number>
inline void find(const Number* images, const Convolution& conv, Size channels, Place at, Size margin,
                 const Number* (&pixel)[HEIGHT * WIDTH]) {
    for (Size i = 0; i < HEIGHT; i++) {
        for (Size j = 0; j < WIDTH; j++) {
            Size y = at.y + i - margin, x = at.x + j - margin;
            bool inside = y >= 0 && y < conv.height && x >= 0 && x < conv.width;
            Size index = (at.image * conv.height + y) * conv.width + x;
            pixel[i * WIDTH + j] = inside ? images + index * channels : reinterpret_cast<const Number*>(ZEROS);
        }
    }
}

// A tile's products to outputs, which are given to finish(filter)(outputs, place); those beyond the image are left out.
template <Size DOWN, Size ACROSS, class Finish>
inline void gather(const float* m, Size plane, const Convolution& conv, Place at, Finish&& finish) {
    Size height = conv.height - at.y < DOWN - 2 ? conv.height - at.y : DOWN - 2;
    Size width = conv.width - at.x < ACROSS - 2 ? conv.width - at.x : ACROSS - 2;
    for (Size k = 0; k < conv.filters; k += LANES) {
        Vector half[DOWN - 2][ACROSS];
        auto put = finish(k);
        UNROLL for (Size j = 0; j < ACROSS; j++) {
            Vector line[DOWN], out[DOWN - 2];
            const float* from = m + plane * point<ACROSS>(j) + k;
            UNROLL for (Size i = 0; i < DOWN; i++) line[i] = load(from + plane * POINTS * point<DOWN>(i));
            to_outputs<DOWN>(line, out);
            UNROLL for (Size i = 0; i < DOWN - 2; i++) half[i][j] = out[i];
        }
        for (Size i = 0; i < height; i++) {
            Vector out[ACROSS - 2];
            to_outputs<ACROSS>(half[i], out);
            Size index = (at.image * conv.height + at.y + i) * conv.width + at.x;
            for (Size j = 0; j < width; j++) put(out[j], (index + j) * conv.filters + k);
        }
    }
}

// function.template operator()<points down, points across>() of a kind of tiles
template <class Function>
inline void with_points(Size kind, Function&& function) {
    switch (kind) {
        case 0: return function.template operator()<6, 5>();
        case 1: return function.template operator()<6, 6>();
        case 2: return function.template operator()<5, 6>();
        default: return function.template operator()<5, 5>();
    }
}

// `size` of a range from the i-th such part on
inline Range part_of(Range whole, Size i, Size size) {
    Size begin = whole.begin + i * size, end = begin + size;
    return {begin, end < whole.end ? end : whole.end};
}

// function(tiles) for some tiles of a block at a time
template <class Function>
void share_tiles(Pool& pool, Range block, Function&& function) {
    constexpr Size FEW = 4;
    parallel(pool, ceil_of(block.end - block.begin, FEW), [&](Size i, int) { function(part_of(block, i, FEW)); });
}

// function(pair of points, range of `count`) for `width` at a time
template <class Function>
void share_pairs(Pool& pool, Size count, Size width, Function&& function) {
    Size groups = ceil_of(count, width);
    parallel(pool, PAIRS * groups,
             [&](Size i, int) { function(i / groups, part_of({0, count}, i % groups, width)); });
}

// Each thread takes whole blocks.
template <class Plan>
void convolve_apart(Pool& pool, const Plan& plan, float* room) {
    Size panels = plan.conv.filters / PANEL;
    parallel(pool, plan.count(), [&](Size i, int worker) {
        Range block = plan.block(i);
        float *v = room + worker * plan.blocks.floats(), *m = v + PAIRS * plan.blocks.plane_in;
        plan.enter(block, block.begin, v);
        for (Size pair = 0; pair < PAIRS; pair++) plan.product(pair, block, {0, panels}, v, m);
        plan.leave(block, block.begin, m);
    });
}

// All threads take part in every block.
template <class Plan>
void convolve_together(Pool& pool, const Plan& plan, float* v) {
    float* m = v + PAIRS * plan.blocks.plane_in;
    for (Size i = 0; i < plan.count(); i++) {
        Range block = plan.block(i);
        share_tiles(pool, block, [&](Range part) { plan.enter(part, block.begin, v); });
        share_pairs(pool, plan.conv.filters / PANEL, 4 * PANELS,
                    [&](Size pair, Range panels) { plan.product(pair, block, panels, v, m); });
        share_tiles(pool, block, [&](Range part) { plan.leave(part, block.begin, m); });
    }
}

template <class Plan>
int convolve_blocks(Pool& pool, const Plan& plan) {
    float* room = pool.room(plan.blocks.floats() * (plan.blocks.own ? pool.size() : 1));
    if (!room) return NO_MEMORY;
    if (plan.blocks.own)
        convolve_apart(pool, plan, room);
    else
        convolve_together(pool, plan, room);
    return DONE;
}

}  // namespace
