// Convolutions of any kernel and stride as matrix products.
//
// The places of a kernel along an output row are the rows of a matrix, each `kernel` pieces of kernel * channels
// floats, which lie in the image as they are; where there is a border of zeros, or pixels are to be normalised, some
// rows of the image are copied first.
#pragma once

#include <cstring>

#include "pool.h"
#include "product.h"
#include "kernels.h"

namespace {

constexpr Size BAND = 1 << 16;  // floats of input that a thread's cache shall hold
constexpr Size KERNEL = 49;     // pieces at most

// A convolution cut into bands of output rows. For a 1x1 convolution all pixels of all images are one image, whose rows
// are as long as suits the cache.
struct Bands {
    const Convolution& conv;
    Size images, height, width;  // of the input
    Size rows, columns, places;  // of the output: of an image, and pixels in all
    bool copied;
    Size padded;                 // columns of the input as it is read
    Size offset[KERNEL], pieces, depth;
    Size band, wide;             // output rows, and panels of filters, at a time

    Bands(const Convolution& c, Size threads) : conv(c), images(c.images), height(c.height), width(c.width) {
        Size pixels = images * height * width;
        bool flat = c.kernel == 1 && c.stride == 1 && !c.padding && !c.pixels;
        if (flat) flatten(pixels, threads);
        Size reach = c.dilation * (c.kernel - 1) + 1;
        rows = (height + 2 * c.padding - reach) / c.stride + 1;
        columns = (width + 2 * c.padding - reach) / c.stride + 1;
        places = flat ? pixels : images * rows * columns;
        copied = c.padding || c.pixels;
        padded = width + 2 * c.padding;
        find_pieces();
        share(threads);
    }

    void flatten(Size pixels, Size threads) {
        Size some = BAND / conv.channels < 4 * ROWS ? 4 * ROWS : BAND / conv.channels;
        Size parts = ceil_of(ceil_of(pixels, some), threads) * threads;
        images = 1, width = ceil_of(pixels, parts), height = ceil_of(pixels, width);
    }

    void find_pieces() {
        bool whole = conv.dilation == 1 && conv.groups == 1;  // then what a kernel takes of a row lies side by side
        Size taps = whole ? 1 : conv.kernel;
        pieces = conv.kernel * taps, depth = conv.kernel / taps * conv.channels / conv.groups;
        for (Size i = 0; i < pieces; i++) offset[i] = (i / taps * padded + i % taps) * conv.dilation * conv.channels;
    }

    // Few items are cut smaller: by filters where the weights are large, so that they are read once, else by rows.
    void share(Size threads) {
        Size panels = conv.filters / PANEL, least = 4 * threads;
        band = BAND / (padded * conv.channels * conv.stride) + 1;
        band = band < rows ? band : rows;
        wide = panels;
        if (images * ceil_of(rows, band) >= least) return;
        if (pieces * depth * conv.filters > 4 * BAND)
            wide = ceil_of(ceil_of(panels, 4), PANELS) * PANELS;
        else
            band = ceil_of(rows, ceil_of(least, images));
    }

    Size input_rows() const { return (band - 1) * conv.stride + conv.dilation * (conv.kernel - 1) + 1; }
    Size floats() const { return copied ? ceil_of(input_rows() * padded * conv.channels, PANEL) * PANEL : 0; }
};

// The input rows from `first` on that a band needs, with its border.
void copy_band(const Bands& bands, Size image, Size first, float* to) {
    const Convolution& conv = bands.conv;
    Size line = bands.padded * conv.channels, margin = conv.padding * conv.channels;
    Size inside = conv.width * conv.channels;
    for (Size i = 0; i < bands.input_rows(); i++, to += line) {
        Size y = first + i;
        if (y < 0 || y >= conv.height) {
            memset(to, 0, line * sizeof(float));
            continue;
        }
        Size index = (image * conv.height + y) * inside;
        memset(to, 0, margin * sizeof(float));
        if (conv.pixels)
            for (Size j = 0; j < inside; j++)
                to[margin + j] = float(conv.pixels[index + j]) * conv.scale[j] + conv.shift[j];
        else
            memcpy(to + margin, conv.x + index, inside * sizeof(float));
        memset(to + margin + inside, 0, margin * sizeof(float));
    }
}

// The outputs of a band for some panels of filters, those of one group at a time.
void multiply_band(const Bands& bands, const float* input, Size image, Size begin, Size end, Range panels) {
    const Convolution& conv = bands.conv;
    Size line = conv.stride * bands.padded * conv.channels, each = conv.filters / PANEL / conv.groups;
    Product p{};
    p.lda = conv.stride * conv.channels;
    p.offset = bands.offset, p.pieces = bands.pieces, p.depth = bands.depth;
    p.panel = bands.pieces * bands.depth * PANEL, p.step = PANEL;
    p.relu = conv.relu, p.ldc = conv.filters;
    for (Size panel = panels.begin; panel < panels.end; panel += p.panels) {
        Size group = panel / each, next = (group + 1) * each < panels.end ? (group + 1) * each : panels.end;
        Size filter = panel * PANEL;
        p.panels = next - panel < PANELS ? next - panel : PANELS;
        p.b = conv.weight + panel * p.panel;
        p.bias = conv.bias ? conv.bias + filter : nullptr;
        for (Size row = begin; row < end; row++) {
            Size place = (image * bands.rows + row) * bands.columns;
            p.a = input + (row - begin) * line + group * bands.depth;
            p.rows = bands.columns < bands.places - place ? bands.columns : bands.places - place;
            p.c = conv.y + place * conv.filters + filter;
            p.residual = conv.residual ? conv.residual + place * conv.filters + filter : nullptr;
            multiply(p);
        }
    }
}

int direct(Pool& pool, const Convolution& conv) {
    Bands bands(conv, pool.size());
    Size panels = conv.filters / PANEL, across = ceil_of(panels, bands.wide), down = ceil_of(bands.rows, bands.band);
    float* room = pool.room(bands.floats() * pool.size() + 1);
    if (!room) return NO_MEMORY;
    parallel(pool, bands.images * down * across, [&](Size item, int worker) {
        Size panel = item % across * bands.wide, image = item / across / down;
        Size begin = item / across % down * bands.band, end = begin + bands.band;
        end = end < bands.rows ? end : bands.rows;
        Size first = begin * conv.stride - conv.padding, last = panel + bands.wide;
        const float* input = conv.x + (image * bands.height + first) * bands.width * conv.channels;
        if (bands.copied) {
            float* own = room + worker * bands.floats();
            copy_band(bands, image, first, own);
            input = own;
        }
        multiply_band(bands, input, image, begin, end, {panel, last < panels ? last : panels});
    });
    return DONE;
}

int64_t packed(const Convolution& conv) {
    return conv.kernel * conv.kernel * conv.channels / conv.groups * conv.filters;
}

// [filters, channels / groups, kernel, kernel] to [filters / 16, kernel * kernel * channels / groups, 16]
void pack(Pool& pool, const Convolution& conv, const float* weight, Strides strides, float* to_panels) {
    Size taps = conv.kernel * conv.kernel, channels = conv.channels / conv.groups;
    parallel(pool, conv.filters / PANEL, [&](Size group, int) {
        float* to = to_panels + group * taps * channels * PANEL;
        for (Size tap = 0; tap < taps; tap++)
            for (Size c = 0; c < channels; c++)
                for (Size k = 0; k < PANEL; k++)
                    *to++ = weight[(group * PANEL + k) * strides.filter + c * strides.channel + tap * strides.tap];
    });
}

}  // namespace
