// 3x3 convolutions of stride 1 with fewer multiplications, and the gradient of their weights; formulas in `points.h`,
// the order of work in `blocks.h`.
#pragma once

#include <cstring>

#include "blocks.h"

namespace {

constexpr Size WHOLE[1] = {0};

template <Size COUNT, bool OUTPUTS>
inline void to_points(Vector (&d)[COUNT]) {
    if constexpr (OUTPUTS)
        from_outputs<COUNT>(d);
    else
        from_inputs<COUNT>(d);
}

// A tile at ROWS x COLUMNS points: of inputs, or of gradients of outputs, of which there are two fewer each way.
template <Size DOWN, Size ACROSS, bool OUTPUTS>
inline void spread(const float* images, const Convolution& conv, Size channels, Place at, float* v, Size plane) {
    constexpr Size HEIGHT = OUTPUTS ? DOWN - 2 : DOWN, WIDTH = OUTPUTS ? ACROSS - 2 : ACROSS;
    const float* pixel[HEIGHT * WIDTH];
    find<HEIGHT, WIDTH>(images, conv, channels, at, OUTPUTS ? 0 : 1, pixel);
    for (Size c = 0; c < channels; c += LANES) {
        Vector half[DOWN][ACROSS];
        UNROLL for (Size j = 0; j < WIDTH; j++) {
            Vector line[DOWN];
            UNROLL for (Size i = 0; i < HEIGHT; i++) line[i] = load(pixel[i * WIDTH + j] + c);
            to_points<DOWN, OUTPUTS>(line);
            UNROLL for (Size i = 0; i < DOWN; i++) half[i][j] = line[i];
        }
        UNROLL for (Size i = 0; i < DOWN; i++) {
            to_points<ACROSS, OUTPUTS>(half[i]);
            float* to = v + plane * POINTS * point<DOWN>(i) + c;
            UNROLL for (Size j = 0; j < ACROSS; j++) store(to + plane * point<ACROSS>(j), half[i][j]);
        }
    }
}

// Floats of a pair of points of transformed weights; with a cache line behind them, or all 36 would fall into one place
// of a cache.
inline Size plane_of(const Convolution& conv) { return conv.channels * conv.filters + PANEL; }

// A convolution cut into blocks of tiles.
struct Plan {
    const Convolution& conv;
    Tiles tiles;
    Blocks blocks;

    Plan(const Convolution& conv, Size threads)
        : conv(conv), tiles(conv.images, conv.height, conv.width), blocks(conv, tiles.count(), threads, conv.channels) {}

    Size count() const { return ceil_of(tiles.count(), blocks.tiles); }

    Range block(Size i) const { return part_of({0, tiles.count()}, i, blocks.tiles); }

    // some tiles of a block that starts with `begin`, to V: of the inputs
    void enter(Range part, Size begin, float* v) const {
        enter<false>(part, begin, conv.x, conv.channels, v, blocks.row_in, blocks.plane_in);
    }

    // the same of the gradients of the outputs
    void enter_gradients(Range part, Size begin, float* z) const {
        enter<true>(part, begin, conv.y, conv.filters, z, blocks.row_out, blocks.plane_out);
    }

    // M to some tiles of the outputs, with what follows the convolution
    void leave(Range part, Size begin, const float* m) const {
        auto finish = [&](Size k) {
            Vector bias = conv.bias ? load(conv.bias + k) : Vector{};
            Vector factor = conv.factor ? load(conv.factor + k) : Vector{} + 1.0f;
            return [=, this](Vector y, Size place) {
                y = y * factor + bias;
                if (conv.residual) y += load(conv.residual + place);
                store(conv.y + place, conv.relu ? relu(y) : y);
            };
        };
        tiles.each_kind(part.begin, part.end, [&](Size kind, Size from, Size to) {
            with_points(kind, [&]<Size DOWN, Size ACROSS>() {
                for (Size tile = from; tile < to; tile++) {
                    const float* first = m + (tile - begin) * blocks.row_out;
                    gather<DOWN, ACROSS>(first, blocks.plane_out, conv, tiles.place(kind, tile), finish);
                }
            });
        });
    }

    // M = V U at a pair of points, for some panels of filters
    void product(Size pair, Range block, Range panels, const float* v, float* m) const {
        Range some = tiles.having(pair / POINTS, pair % POINTS, block.begin, block.end);
        Size panel = conv.channels * PANEL;
        Product p{};
        p.a = v + pair * blocks.plane_in + some.begin * blocks.row_in, p.lda = blocks.row_in;
        p.offset = WHOLE, p.pieces = 1, p.depth = conv.channels;
        p.b = conv.weight + pair * plane_of(conv) + panels.begin * panel, p.panel = panel, p.step = PANEL;
        p.c = m + pair * blocks.plane_out + some.begin * blocks.row_out + panels.begin * PANEL, p.ldc = blocks.row_out;
        p.rows = some.end - some.begin, p.panels = panels.end - panels.begin;
        multiply(p);
    }

    // V' Z at a pair of points, for some channels: [channels, filters], or added to what is there
    void outer(Size pair, Range block, Range channels, const float* v, const float* z, float* u, bool add) const {
        Range some = tiles.having(pair / POINTS, pair % POINTS, block.begin, block.end);
        Product p{};
        p.a = v + pair * blocks.plane_in + some.begin * blocks.row_in + channels.begin, p.lda = blocks.row_in;
        p.offset = WHOLE, p.pieces = 1, p.depth = some.end - some.begin;
        p.b = z + pair * blocks.plane_out + some.begin * blocks.row_out, p.panel = PANEL, p.step = blocks.row_out;
        p.c = u + pair * plane_of(conv) + channels.begin * conv.filters, p.ldc = conv.filters;
        p.rows = channels.end - channels.begin, p.panels = conv.filters / PANEL, p.add = add;
        multiply<true>(p);
    }

  private:
    template <bool OUTPUTS>
    void enter(Range part, Size begin, const float* images, Size channels, float* v, Size row, Size plane) const {
        tiles.each_kind(part.begin, part.end, [&](Size kind, Size from, Size to) {
            with_points(kind, [&]<Size DOWN, Size ACROSS>() {
                for (Size tile = from; tile < to; tile++) {
                    Place at = tiles.place(kind, tile);
                    spread<DOWN, ACROSS, OUTPUTS>(images, conv, channels, at, v + (tile - begin) * row, plane);
                }
            });
        });
    }
};

int winograd(Pool& pool, const Convolution& conv) { return convolve_blocks(pool, Plan(conv, pool.size())); }

// 16 channels and 16 filters of weights: they are read and written where they lie in runs as long as possible, since a
// step from filter to filter falls into the same place of a cache again and again.
using Square = float[9][PANEL][PANEL];  // tap, channel, filter

// move(where a weight lies, its place in the square) for each of them
template <class Move>
inline void each_weight(Strides strides, Square& square, Move&& move) {
    bool apart = strides.filter >= strides.channel;
    Size far = apart ? strides.filter : strides.channel, near = apart ? strides.channel : strides.filter;
    for (Size i = 0; i < PANEL; i++)
        for (Size tap = 0; tap < 9; tap++)
            for (Size j = 0; j < PANEL; j++)
                move(i * far + j * near + tap * strides.tap, apart ? square[tap][j][i] : square[tap][i][j]);
}

// function(channel, filter) of the first ones of each square
template <class Function>
void each_square(Pool& pool, const Convolution& conv, Function&& function) {
    Size across = conv.filters / PANEL, down = conv.channels / PANEL;
    parallel(pool, down * across, [&](Size i, int) { function(i % down * PANEL, i / down * PANEL); });
}

// The gradient of transformed weights, `copies` of [36, channels, filters] to add up, to that of the weights.
void to_gradient(Pool& pool, const Convolution& conv, const float* u, Size copies, float* gradient, Strides strides) {
    Size plane = plane_of(conv);
    each_square(pool, conv, [&](Size channel, Size filter) {
        Square square;
        for (Size i = 0; i < PANEL * PANEL; i += LANES) {
            Size c = i / PANEL, k = i % PANEL;
            Vector half[3][POINTS], line[POINTS], out[3];
            for (Size column = 0; column < POINTS; column++) {
                for (Size row = 0; row < POINTS; row++) {
                    const float* from = u + (row * POINTS + column) * plane + (channel + c) * conv.filters + filter + k;
                    line[row] = load(from);
                    for (Size copy = 1; copy < copies; copy++) line[row] += load(from + copy * PAIRS * plane);
                }
                to_weights(line, out);
                for (Size row = 0; row < 3; row++) half[row][column] = out[row];
            }
            for (Size row = 0; row < 3; row++) {
                to_weights(half[row], out);
                for (Size column = 0; column < 3; column++) store(square[3 * row + column][c] + k, out[column]);
            }
        }
        float* to = gradient + filter * strides.filter + channel * strides.channel;
        each_weight(strides, square, [&](Size place, float& weight) { to[place] = weight; });
    });
}

// Each thread adds up a share of the blocks, always the same one, so that sums are the same to the bit every time.
void add_shares(Pool& pool, const Plan& plan, Size copies, float* u, float* room) {
    const Convolution& conv = plan.conv;
    Size whole = PAIRS * plane_of(conv), share = ceil_of(plan.count(), copies);
    parallel(pool, copies, [&](Size copy, int) {
        float *v = room + copy * plan.blocks.floats(), *z = v + PAIRS * plan.blocks.plane_in, *sums = u + copy * whole;
        Range mine = part_of({0, plan.count()}, copy, share);
        if (mine.begin >= mine.end) memset(sums, 0, whole * sizeof(float));
        for (Size i = mine.begin; i < mine.end; i++) {
            Range block = plan.block(i);
            plan.enter(block, block.begin, v);
            plan.enter_gradients(block, block.begin, z);
            for (Size pair = 0; pair < PAIRS; pair++)
                plan.outer(pair, block, {0, conv.channels}, v, z, sums, i > mine.begin);
        }
    });
}

// All threads take part in every block.
void add_blocks(Pool& pool, const Plan& plan, float* u, float* v) {
    float* z = v + PAIRS * plan.blocks.plane_in;
    for (Size i = 0; i < plan.count(); i++) {
        Range block = plan.block(i);
        share_tiles(pool, block, [&](Range part) {
            plan.enter(part, block.begin, v);
            plan.enter_gradients(part, block.begin, z);
        });
        share_pairs(pool, plan.conv.channels, 8 * ROWS,
                    [&](Size pair, Range some) { plan.outer(pair, block, some, v, z, u, i > 0); });
    }
}

int weight_gradient(Pool& pool, const Convolution& conv, float* gradient, Strides strides) {
    Plan plan(conv, pool.size());
    Size copies = plan.blocks.own ? pool.size() : 1, sums = PAIRS * plane_of(conv) * copies;
    float* u = pool.room(sums + plan.blocks.floats() * copies);
    if (!u) return NO_MEMORY;
    if (plan.blocks.own)
        add_shares(pool, plan, copies, u, u + sums);
    else
        add_blocks(pool, plan, u, u + sums);
    to_gradient(pool, conv, u, copies, gradient, strides);
    return DONE;
}

// [filters, channels, 3, 3] to [36, filters / 16, channels, 16], each of the 36 with 16 floats behind it
void transform(Pool& pool, const Convolution& conv, const float* weight, Strides strides, float* transformed) {
    Size plane = plane_of(conv);
    each_square(pool, conv, [&](Size channel, Size filter) {
        Square square;
        const float* from = weight + filter * strides.filter + channel * strides.channel;
        each_weight(strides, square, [&](Size place, float& one) { one = from[place]; });
        for (Size i = 0; i < PANEL * PANEL; i += LANES) {
            Size c = i / PANEL, k = i % PANEL;
            Vector half[POINTS][3], line[3], out[POINTS];
            for (Size column = 0; column < 3; column++) {
                for (Size row = 0; row < 3; row++) line[row] = load(square[3 * row + column][c] + k);
                from_weights(line, out);
                for (Size row = 0; row < POINTS; row++) half[row][column] = out[row];
            }
            float* to = transformed + filter * conv.channels + (channel + c) * PANEL + k;
            for (Size row = 0; row < POINTS; row++) {
                from_weights(half[row], out);
                for (Size column = 0; column < POINTS; column++)
                    store(to + (row * POINTS + column) * plane, out[column]);
            }
        }
    });
}

}  // namespace
