// The gradient of weights as products of halves: for each tap, the sum over places of a channel there and a filter
// here.
//
// Inputs and gradients of outputs lie on one grid, so that a tap is a step in memory. Where the stride is two, the
// inputs are four images, of even and odd rows and columns. Gradients are turned, so that places follow each other;
// inputs are in pairs of places, once from every even and once from every odd place on, since a step may be either.
#pragma once

#include "flat.h"
#include "winograd.h"

namespace {

constexpr Size MUCH = 1 << 22;  // floats of both that are held where all threads take part in every sum
constexpr Size NEAR = 4;        // steps of places after which the next tap is taken, while they are in a cache

// Of one axis: which of the `stride` images a tap reads, and how far behind.
struct Shift {
    Size image, places;

    Shift(const Convolution& conv, Size tap) {
        Size from = tap * conv.dilation - conv.padding + conv.stride * conv.kernel * conv.dilation;
        image = from % conv.stride, places = from / conv.stride - conv.kernel * conv.dilation;
    }
};

struct Grid {
    const Convolution& conv;
    Size rows, columns, most;    // of outputs; the longest step of a tap, in either direction
    Size line, lines;            // places from row to row, rows from image to image
    Size images, band;           // of images that are held, or rows of one
    Size places, pitch;          // held, in all; from filter to filter
    Size margin;                 // zeros before and behind the inputs
    Size panels, planes;         // of channels; of images that are read
    Size kind, panel, plane;     // halves of inputs: of high or low ones of either pairs, of a panel, of an image

    Grid(const Convolution& c, Size room) : conv(c), most(0) {
        rows = View::outputs(c, c.height), columns = View::outputs(c, c.width);
        for (Size tap : {Size(0), Size(c.kernel - 1)}) {
            Size far = Shift(c, tap).places;
            most = far > most ? far : -far > most ? -far : most;
        }
        Size half = ceil_of(c.width, c.stride), tall = ceil_of(c.height, c.stride);
        line = (columns > half ? columns : half) + most, lines = (rows > tall ? rows : tall) + most;
        Size each = (c.filters + c.channels * c.stride * c.stride) * line;
        images = room / (each * lines), band = rows;
        images = images < c.images ? images : c.images;
        if (images < 1) {
            band = room / each - 2 * most, images = 1;
            band = band < 1 ? 1 : ceil_of(rows, ceil_of(rows, band));
            lines = band + 2 * most;
        }
        places = up_to(images * lines * line, STEP), margin = up_to(most * (line + 1) + 1, STEP);
        pitch = places / STEP % 2 ? places : places + STEP;  // an odd number of cache lines
        panels = c.channels / PANEL, planes = c.kernel < c.stride ? 1 : c.stride * c.stride;
        kind = (places + 2 * margin) * PANEL, panel = 4 * kind, plane = panels * panel;
    }

    Size parts() const { return ceil_of(conv.images, images) * ceil_of(rows, band); }
    Size gradients() const { return conv.filters * pitch; }       // floats, which are pairs of halves
    Size inputs() const { return planes * plane / 2; }

    Size image_of(Size part) const { return part / ceil_of(rows, band) * images; }
    Size row_of(Size part) const { return part % ceil_of(rows, band) * band; }
};

// 32 places of an array [images, height, width, channels], those of a part from a place of the grid on, and the one
// before them.
struct Places {
    const float* at[STEP + 1];

    // every `apart`-th row and column from `row` and `column` on; `inside` rows of the grid from `first` on are taken
    Places(const Grid& grid, Size part, Size place, const float* from, Size height, Size width, Size channels,
           Size apart, Size row, Size column, Range inside) {
        Size lead = grid.band < grid.rows ? grid.most : 0;
        Size before = place > 0 ? place - 1 : 0, y = before / grid.line, x = before % grid.line;
        at[0] = ZEROS;
        for (Size i = place > 0 ? 0 : 1; i <= STEP; i++) {
            Size image = grid.image_of(part) + y / grid.lines, local = y % grid.lines;
            Size far = grid.row_of(part) + local - lead;
            Size down = far * apart + row, across = x * apart + column;
            bool there = image < grid.conv.images && y < grid.images * grid.lines && far >= inside.begin &&
                         far < inside.end && down >= 0 && down < height && across < width;
            at[i] = there ? from + ((image * height + down) * width + across) * channels : ZEROS;
            if (++x == grid.line) x = 0, y++;
        }
        for (Size i = 0; i < STEP; i++)  // what is next is likely to lie behind
            for (Size c = 0; c < channels; c += PANEL) __builtin_prefetch(at[i] + STEP * channels * apart + c);
    }

    Halves pair(Size i, Size channel) const { return split_pairs(load(i, channel), load(i + 1, channel)); }

    __m512 load(Size i, Size channel) const {
        return at[i] == ZEROS ? _mm512_setzero_ps() : _mm512_loadu_ps(at[i] + channel);
    }
};

// Gradients of outputs to [filters, places] of high and of low halves.
void turn_gradients(const Grid& grid, Size part, Size place, Half* high, Half* low) {
    const Convolution& conv = grid.conv;
    Size first = grid.row_of(part), last = first + grid.band < grid.rows ? first + grid.band : grid.rows;
    Places places(grid, part, place, conv.y, grid.rows, grid.columns, conv.filters, 1, 0, 0, {first, last});
    for (Size filter = 0; filter < conv.filters; filter += PANEL) {
        __m512i above[PANEL], below[PANEL];
        for (Size i = 0; i < PANEL; i++) {
            Halves halves = places.pair(2 * i + 1, filter);
            above[i] = halves.high, below[i] = halves.low;
        }
        transpose(above);
        transpose(below);
        Size to = filter * grid.pitch + place;
        for (Size i = 0; i < PANEL; i++, to += grid.pitch) {
            _mm512_storeu_si512(high + to, above[i]);
            _mm512_storeu_si512(low + to, below[i]);
        }
    }
}

// Inputs to [planes][channels / 16][from even, odd places on][high, low][pairs of places][16 channels][2].
void pair_inputs(const Grid& grid, Size part, Size place, Half* to) {
    const Convolution& conv = grid.conv;
    for (Size plane = 0; plane < grid.planes; plane++) {
        Places places(grid, part, place, conv.x, conv.height, conv.width, conv.channels, conv.stride,
                      plane / conv.stride, plane % conv.stride, {-grid.most, conv.height});
        Half* first = to + plane * grid.plane + (grid.margin + place) * PANEL;
        for (Size panel = 0; panel < grid.panels; panel++, first += grid.panel) {
            for (Size i = 0; i < STEP; i++) {
                Halves halves = places.pair(i, panel * PANEL);
                Half* pair = first + (i % 2 ? i / 2 : 2 * grid.kind / PAIR + i / 2 - 1) * PAIR;
                _mm512_storeu_si512(pair, halves.high);
                _mm512_storeu_si512(pair + grid.kind, halves.low);
            }
        }
    }
}

// What `pair_inputs` leaves as it is: what lies before and behind, and the pair of the last place and the one after it.
void clear_margins(const Grid& grid, Half* inputs) {
    Size before = grid.margin * PANEL, behind = before + PAIR;
    for (Half* end = inputs + grid.planes * grid.plane; inputs < end; inputs += grid.kind) {
        memset(inputs, 0, before * sizeof(Half));
        memset(inputs + grid.kind - behind, 0, behind * sizeof(Half));
    }
}

// Sums [filters / 32, channels / 32, taps][32 filters, 32 channels]: where those of the first tap are.
inline Size sums_of(const Convolution& conv, Size filter, Size channel) {
    Size block = filter / BLOCK * ceil_of(conv.channels, BLOCK) + channel / BLOCK;
    return block * conv.kernel * conv.kernel * BLOCK * BLOCK;
}

// The sums over all places of a part, for some filters and panels of channels.
void add_taps(const Grid& grid, const Half* gradients, const Half* inputs, Range filters, Range panels, float* sums,
              bool add) {
    const Convolution& conv = grid.conv;
    Size steps = grid.places / STEP, offset[NEAR], low = grid.gradients();
    for (Size i = 0; i < NEAR; i++) offset[i] = i * STEP;
    for (Size step = 0; step < steps; step += NEAR) {
        Sum sum{1, steps - step < NEAR ? steps - step : NEAR, offset, 0, grid.pitch, low, grid.panel, TILE, grid.kind};
        for (Size panel = panels.begin; panel < panels.end; panel += 2) {
            for (Size filter = filters.begin; filter < filters.end; filter += BLOCK) {
                Size rows = filters.end - filter < BLOCK ? 1 : 2, some = panels.end - panel < 2 ? 1 : 2;
                for (Size tap = 0; tap < conv.kernel * conv.kernel; tap++) {
                    Shift row(conv, tap / conv.kernel), column(conv, tap % conv.kernel);
                    Size plane = row.image * conv.stride + column.image, far = row.places * grid.line + column.places;
                    Size pairs = (grid.margin + step * STEP + far) >> 1;
                    const Half* a = gradients + filter * grid.pitch + step * STEP;
                    const Half* b = inputs + plane * grid.plane + panel * sum.panel + (far & 1) * 2 * grid.kind;
                    float* to = sums + sums_of(conv, filter, panel * PANEL) + tap * BLOCK * BLOCK;
                    if (add || step)
                        add_up<true>(rows, some, sum, a, b + pairs * PAIR, to, BLOCK, [] {});
                    else
                        add_up<false>(rows, some, sum, a, b + pairs * PAIR, to, BLOCK, [] {});
                }
            }
        }
    }
}

// Sums of `copies` to the gradient of the weights, where it lies.
void leave_sums(Pool& pool, const Convolution& conv, const float* sums, Size copies, float* gradient, Strides strides) {
    Size taps = conv.kernel * conv.kernel, whole = sums_of(conv, up_to(conv.filters, BLOCK), 0);
    parallel(pool, conv.filters, [&](Size filter, int) {
        for (Size tap = 0; tap < taps; tap++) {
            float* to = gradient + filter * strides.filter + tap * strides.tap;
            for (Size c = 0; c < conv.channels; c += PANEL) {
                Size row = (tap * BLOCK + filter % BLOCK) * BLOCK;
                const float* from = sums + sums_of(conv, filter, c) + row + c % BLOCK;
                Vector sum = load(from);
                for (Size copy = 1; copy < copies; copy++) sum += load(from + copy * whole);
                if (strides.channel == 1)
                    store(to + c, sum);
                else
                    for (Size i = 0; i < PANEL; i++) to[(c + i) * strides.channel] = sum[i];
            }
        }
    });
}

// Each thread adds up a share of the parts, always the same one, so that sums are the same to the bit every time.
void add_apart(Pool& pool, const Grid& grid, Size copies, float* sums, Size whole, float* room) {
    Size each = grid.gradients() + grid.inputs(), share = ceil_of(grid.parts(), copies);
    parallel(pool, copies, [&](Size copy, int) {
        Half *gradients = reinterpret_cast<Half*>(room + copy * each), *inputs = gradients + 2 * grid.gradients();
        Size begin = copy * share, end = begin + share < grid.parts() ? begin + share : grid.parts();
        if (begin >= end) memset(sums + copy * whole, 0, whole * sizeof(float));
        clear_margins(grid, inputs);
        for (Size part = begin; part < end; part++) {
            for (Size place = 0; place < grid.places; place += STEP) {
                turn_gradients(grid, part, place, gradients, gradients + grid.gradients());
                pair_inputs(grid, part, place, inputs);
            }
            Taken registers;
            Range filters{0, grid.conv.filters}, panels{0, grid.panels};
            add_taps(grid, gradients, inputs, filters, panels, sums + copy * whole, part > begin);
        }
    });
}

// All threads take part in every one; each takes some filters and channels.
void add_together(Pool& pool, const Grid& grid, float* sums, float* room) {
    constexpr Size WIDE = 2 * BLOCK;
    Half *gradients = reinterpret_cast<Half*>(room), *inputs = gradients + 2 * grid.gradients();
    Size across = ceil_of(grid.conv.filters, WIDE), halves = grid.panels > 1 ? 2 : 1;
    Size wide = up_to(ceil_of(grid.panels, halves), 2), down = ceil_of(grid.panels, wide);
    clear_margins(grid, inputs);
    for (Size part = 0; part < grid.parts(); part++) {
        parallel(pool, grid.places / STEP, [&](Size i, int) {
            turn_gradients(grid, part, i * STEP, gradients, gradients + grid.gradients());
            pair_inputs(grid, part, i * STEP, inputs);
        });
        parallel(pool, across * down, [&](Size i, int) {
            Size filter = i / down * WIDE, panel = i % down * wide;
            Range filters{filter, filter + WIDE < grid.conv.filters ? filter + WIDE : grid.conv.filters};
            Range panels{panel, panel + wide < grid.panels ? panel + wide : grid.panels};
            Taken registers;
            add_taps(grid, gradients, inputs, filters, panels, sums, part > 0);
        });
    }
}

int weight_gradient_flat(Pool& pool, const Convolution& conv, float* gradient, Strides strides) {
    bool own = conv.channels * conv.filters <= SMALL;
    Grid grid(conv, own ? HELD : MUCH);
    Size copies = own ? pool.size() : 1, whole = sums_of(conv, up_to(conv.filters, BLOCK), 0);
    float* sums = pool.room(copies * (whole + grid.gradients() + grid.inputs()));
    if (!sums) return NO_MEMORY;
    if (own)
        add_apart(pool, grid, copies, sums, whole, sums + copies * whole);
    else
        add_together(pool, grid, sums, sums + whole);
    leave_sums(pool, conv, sums, copies, gradient, strides);
    return DONE;
}

}  // namespace
