// Convolutions of any kernel and stride as matrix products.
//
// The places of a kernel along an output row are the rows of a matrix, each `kernel` pieces of kernel * channels
// floats, which lie in the image as they are; where there is a border of zeros, or pixels are to be normalised, some
// rows of the image are copied first.
#pragma once

#include <cstring>

#include "bands.h"
#include "pool.h"
#include "product.h"

namespace {

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
