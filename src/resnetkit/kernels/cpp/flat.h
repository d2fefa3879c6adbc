// Convolutions of any kernel and stride as products of matrices in registers: what is read lies flat, so that a tap of
// the kernel is a step in memory. `flat_halves.h` and `flat_bytes.h` say what the elements are, and what follows.
//
// Images [rows, columns, channels] become planes of one chunk of 64 bytes of channels. In them the border at the end of
// a row is that at the begin of the next, and images are as far apart as their borders need; where the stride is two,
// even and odd rows lie apart. Then all outputs are rows of one matrix, each a constant step behind the one before, but
// for some between the rows of an image that nobody reads. Few channels (those of photos) are no such chunks: the taps
// of a row of the kernel are read together.
#pragma once

#include <cstring>

#include "amx.h"
#include "kernels.h"
#include "pool.h"

namespace {

constexpr Size HELD = 1 << 18;        // elements of images, of every kind, that a thread's cache shall hold
constexpr Size HEAVY = 1 << 20;       // weights that threads share out, since each would read all of them
constexpr Size LIGHT = 1 << 19;       // bytes of weights, of every kind, that a thread's cache holds beside them
constexpr Size MOST_STEPS = 49 + 7;   // in a chunk

inline Size up_to(Size value, Size multiple) { return ceil_of(value, multiple) * multiple; }

// What is computed: outputs [rows, columns] of each image from `down` x `across` taps, and where they go.
struct View {
    Convolution conv;  // its x is read, its y is written, with its weights and what follows
    Size height, width, channels, filters;  // of what is read, and of what is written
    Size rows, columns;
    Size stride, dilation, top, left;
    Size down, across;
    // outputs in memory: images of `tall` x `wide`, where these are every `apart`-th from a row and a column on
    Size tall, wide, apart, row, column;
    // the tap of the weights [kernel, kernel] that is the first one, and how far it is to the next
    Size tap_row, tap_column, tap_step;

    explicit View(const Convolution& c)
        : conv(c), height(c.height), width(c.width), channels(c.channels), filters(c.filters), stride(c.stride),
          dilation(c.dilation), top(c.padding), left(c.padding), down(c.kernel), across(c.kernel), apart(1), row(0),
          column(0), tap_row(0), tap_column(0), tap_step(1) {
        rows = tall = outputs(c, c.height);
        columns = wide = outputs(c, c.width);
    }

    static Size outputs(const Convolution& c, Size side) {
        return (side + 2 * c.padding - c.dilation * (c.kernel - 1) - 1) / c.stride + 1;
    }
};

// How elements lie in a chunk: [kinds][rows modulo stride][rows][columns][channels]; halves are of two kinds, the high
// and the low ones.
template <class Element>
struct Flat {
    static constexpr Size STEP = step_of<Element>, KINDS = kinds_of<Element>;

    Size deep, chunks;          // channels of a chunk, and how many there are
    Size pitch, between;        // columns from row to row, and rows from image to image
    Size rows, plane, low, chunk;  // rows of a plane; elements of a plane, of all of one kind, and of a chunk
    Size steps, offset[MOST_STEPS];

    // for `most` images of `band` output rows
    Flat(const View& v, Size most, Size band) {
        deep = v.channels > STEP / 2 ? STEP : v.channels, chunks = ceil_of(v.channels, deep);
        pitch = up_to(v.width + border(v.left, v.columns, v.across, v.width, v), v.stride);
        between = up_to(v.height + border(v.top, v.rows, v.down, v.height, v), v.stride);
        rows = ceil_of((most - 1) * between + v.stride * (band - 1) + reach(v.down, v), v.stride);
        Size behind = (BLOCK * v.stride + reach(v.across, v) + pitch) * deep + STEP;  // is read for nobody
        plane = up_to(rows * pitch * deep + behind, STEP), low = v.stride * plane, chunk = KINDS * low;
        find_steps(v);
    }

    static Size reach(Size taps, const View& v) { return (taps - 1) * v.dilation + 1; }

    static Size border(Size before, Size outputs, Size taps, Size side, const View& v) {
        Size behind = (outputs - 1) * v.stride + reach(taps, v) - before - side;
        return before > behind ? before : behind;
    }

    void find_steps(const View& v) {
        Size line = deep < STEP ? ceil_of(v.across * deep, STEP) : v.across;  // steps of a row of the kernel
        Size next = deep < STEP ? STEP : v.dilation * deep;
        steps = v.down * line;
        for (Size i = 0; i < steps; i++) {
            Size row = i / line * v.dilation;
            offset[i] = row % v.stride * plane + row / v.stride * pitch * deep + i % line * next;
        }
    }

    static bool takes(const Convolution& c) { return c.groups == 1 && (c.channels > STEP / 2 || c.dilation == 1); }

    Size floats() const { return chunks * chunk * Size(sizeof(Element)) / 4; }
    Size panel() const { return chunks * steps * KINDS * PANEL * STEP; }  // elements of the weights of 16 filters
    Size weights(Size filters) const { return filters / PANEL * panel() * Size(sizeof(Element)) / 4; }  // in floats

    // Where a term of a step is among weights, or -1 where it is zero.
    Size find(const View& v, Strides strides, Size chunk, Size step, Size term) const {
        bool few = deep < STEP;
        Size line = steps / v.down, inside = step % line * STEP + term;
        Size column = few ? inside / deep : step % line;
        Size channel = few ? inside % deep : chunk * STEP + term;
        if (column >= v.across || channel >= v.channels) return -1;
        Size row = v.tap_row + step / line * v.tap_step;
        Size tap = row * v.conv.kernel + v.tap_column + column * v.tap_step;
        return channel * strides.channel + tap * strides.tap;
    }
};

// How a convolution is shared out: some output rows of an image, or some images; and some panels of filters.
struct Shares {
    Size images, pixels, places;  // pixels of all inputs and of all outputs
    Size most, band, wide;

    // For a 1x1 convolution all pixels of all images are one image, of which the last row may be shorter.
    Shares(View& v, Size threads)
        : images(v.conv.images), pixels(images * v.height * v.width), places(images * v.tall * v.wide) {
        bool point = v.down * v.across * v.stride * v.apart == 1 && !v.top && !v.left && !v.conv.pixels;
        if (point) {
            Size some = HELD / 4 / v.channels < 2 * BLOCK ? 2 * BLOCK : HELD / 4 / v.channels;
            v.width = v.columns = v.wide = 2 * BLOCK;
            v.height = v.rows = v.tall = ceil_of(pixels, v.width);
            images = most = 1, band = limited_to(some / v.width, v.height, threads);
        } else {
            Size row = (v.width + v.left) * v.channels * v.stride, each = v.rows * row;
            most = each < HELD ? limited_to(HELD / each, images, threads) : 1;
            band = each < HELD ? v.rows : ceil_of(v.rows, ceil_of(each, HELD));
        }
        Size panels = v.filters / PANEL, weights = v.filters * v.down * v.across * v.channels;
        wide = panels;
        if (weights > HEAVY) {
            wide = up_to(ceil_of(panels, 2 * threads), 2);
            if (band == v.rows && !point) most = limited_to(most * threads, images, 1);
        } else if (images < threads && !point) {
            band = ceil_of(v.rows, up_to(ceil_of(v.rows, band), threads));
        }
    }

    // at most `some` of `all`, so that there are as many parts as threads, or twice as many, ...
    static Size limited_to(Size some, Size all, Size threads) {
        some = some < 1 ? 1 : some;
        return ceil_of(all, up_to(ceil_of(all, some), threads));
    }
};

// The images from `image` on, `count` of them, from a row of outputs on, with their borders.
template <class Element>
void put_images(const View& v, const Shares& shares, const Flat<Element>& flat, Range images, Range rows, float* line,
                Element* to) {
    Size first = rows.begin * v.stride - v.top, count = images.end - images.begin;
    Size all = (count - 1) * flat.between + v.stride * (rows.end - rows.begin - 1) + flat.reach(v.down, v);
    for (Size i = 0; i < up_to(all, v.stride) + v.stride; i++) {
        if (i % v.stride >= flat.reach(v.down, v)) continue;  // no tap reads them
        Size image = count > 1 ? i / flat.between : 0, y = first + i - image * flat.between;
        Element* row = to + i % v.stride * flat.plane + i / v.stride * flat.pitch * flat.deep;
        Size index = ((images.begin + image) * v.height + y) * v.width;
        Size columns = shares.pixels - index < v.width ? shares.pixels - index : v.width;
        if (i >= all || y < 0 || y >= v.height || image >= count || columns <= 0) {
            Size few = ceil_of(flat.STEP, flat.deep) + v.across * v.dilation;
            put_border(v, flat, i >= all ? few : flat.pitch, row);
            continue;
        }
        put_border(v, flat, v.left, row);
        put_row(v, flat, index, columns, line, row + v.left * flat.deep);
        put_border(v, flat, flat.pitch - v.left - columns, row + (v.left + columns) * flat.deep);
    }
}

// Where the outputs of rows of the matrix go, in pixels, -1 for nowhere; how many rows there are.
template <class Element>
Size find_places(const View& v, const Shares& shares, const Flat<Element>& flat, Range images, Range rows,
                 int32_t* places) {
    Size line = flat.pitch / v.stride, band = rows.end - rows.begin, count = 0;
    for (Size image = images.begin; image < images.end; image++) {
        Size lines = image + 1 < images.end ? flat.between / v.stride : band;
        for (Size row = 0; row < lines; row++, count += line) {
            Size y = v.row + (rows.begin + row) * v.apart, first = (image * v.tall + y) * v.wide + v.column;
            for (Size column = 0; column < line; column++) {
                Size index = first + column * v.apart;
                bool there = row < band && column < v.columns && index < shares.places;
                places[count + column] = there ? int32_t(index) : -1;
            }
        }
    }
    for (Size i = count; i < up_to(count, BLOCK); i++) places[i] = -1;
    return count;
}

// From row to row of sums of all filters: an odd number of cache lines.
inline Size sums_stride(const View& v) { return v.filters / PANEL % 2 ? v.filters : v.filters + PANEL; }

// Sums [32, stride] on their way to outputs, a few rows at a time; put_outputs() says what they become.
template <class Number>
struct Leaving {
    const View& view;
    Size stride, each;  // rows at a time
    const Number* sums = nullptr;
    const int32_t* places = nullptr;
    Size filter = 0, panels = 0, row = BLOCK;

    void begin(const Number* from, const int32_t* to, Size first, Size some) {
        sums = from, places = to, filter = first, panels = some, row = 0;
    }

    void operator()() {
        for (Size last = row + each < BLOCK ? row + each : BLOCK; row < last; row++) put();
    }

    void end() {
        for (; row < BLOCK; row++) put();
    }

  private:
    void put() {
        Range some{filter, filter + panels * PANEL};
        if (places[row] >= 0) put_outputs(view, sums + row * stride, places[row] * view.filters, some);
    }
};

// All outputs of some images and rows, for some panels of filters. Where the weights stay in a cache, all filters of a
// place come after each other, else all places of two panels.
template <class Element>
void multiply_flat(const View& v, const Flat<Element>& flat, const Element* a, const int32_t* places, Size all,
                   Range panels, float* room) {
    using Number = sum_of<Element>;
    constexpr Size TILE = flat.STEP * PANEL;
    Sum sum{flat.chunks, flat.steps, flat.offset, flat.chunk, v.stride * flat.deep, flat.low, flat.panel()};
    sum.next = flat.KINDS * TILE, sum.behind = TILE;
    const Element* weight = reinterpret_cast<const Element*>(v.conv.weight);
    bool light = (panels.end - panels.begin) * sum.panel * Size(sizeof(Element)) <= LIGHT * flat.KINDS;
    Size wide = light ? panels.end - panels.begin : 2, number = 0;
    Size stride = sums_stride(v), steps = flat.chunks * flat.steps * ceil_of(wide, 2);
    Leaving<Number> leaving{v, stride, ceil_of(BLOCK, steps)};
    for (Size first = panels.begin; first < panels.end; first += wide) {
        Size last = first + wide < panels.end ? first + wide : panels.end;
        for (Size i = 0; i < all; i += BLOCK) {
            Number* own = reinterpret_cast<Number*>(room) + number++ % 2 * BLOCK * stride;
            for (Size panel = first; panel < last; panel += 2) {
                Size some = last - panel < 2 ? 1 : 2;
                add_up<false>(all - i > PANEL ? 2 : 1, some, sum, a + i * sum.row, weight + panel * sum.panel,
                              own + (panel - first) * PANEL, stride, leaving);
            }
            leaving.end();
            leaving.begin(own, places + i, first * PANEL, last - first);
        }
    }
    leaving.end();
}

template <class Element>
int run_flat(Pool& pool, View v) {
    Shares shares(v, pool.size());
    Flat<Element> flat(v, shares.most, shares.band);
    Size panels = v.filters / PANEL, across = ceil_of(panels, shares.wide), down = ceil_of(v.rows, shares.band);
    Size groups = ceil_of(shares.images, shares.most), line = flat.pitch / v.stride;
    Size places = up_to((flat.rows + flat.between) * line + BLOCK, PANEL), row = up_to(v.width * v.channels, PANEL);
    Size sums = 2 * BLOCK * sums_stride(v), each = up_to(flat.floats(), PANEL) + places + row + sums;
    float* room = pool.room(each * pool.size());
    if (!room) return NO_MEMORY;
    parallel(pool, groups * down * across, [&](Size item, int worker) {
        float *pixels = room + worker * each, *to = pixels + row + places + sums;
        int32_t* table = reinterpret_cast<int32_t*>(pixels + row);
        Element* elements = reinterpret_cast<Element*>(to);
        Size group = item / across / down * shares.most, first = item / across % down * shares.band;
        Range images{group, group + shares.most < shares.images ? group + shares.most : shares.images};
        Range rows{first, first + shares.band < v.rows ? first + shares.band : v.rows};
        Size panel = item % across * shares.wide, last = panel + shares.wide < panels ? panel + shares.wide : panels;
        put_images(v, shares, flat, images, rows, pixels, elements);
        Size all = find_places(v, shares, flat, images, rows, table);
        Taken registers;
        multiply_flat(v, flat, elements, table, all, {panel, last}, pixels + row + places);
    });
    return DONE;
}

}  // namespace
