// A convolution cut into parts that a thread's cache holds.
#pragma once

#include "kernels.h"
#include "vector.h"

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

}  // namespace
