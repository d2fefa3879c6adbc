// Convolutions of floats as products of halves, see `flat.h`.
#pragma once

#include "direct.h"
#include "flat.h"

namespace {

// A row of floats [columns, channels] as halves.
inline void put_halves(const Flat<Half>& flat, const float* from, Size columns, Size channels, Half* to) {
    if (flat.deep < STEP) {
        for (Size i = 0; i < columns * channels; i += PAIR) {
            Halves halves = split_some(from + i, columns * channels - i);
            store_some(to + i, halves.high, columns * channels - i);
            store_some(to + flat.low + i, halves.low, columns * channels - i);
        }
        return;
    }
    for (Size i = 0; i < columns; i++, to += STEP) {
        for (Size chunk = 0; chunk < flat.chunks; chunk++) {
            Size channel = chunk * STEP;
            Halves halves = split_some(from + i * channels + channel, channels - channel);
            _mm512_storeu_si512(to + chunk * flat.chunk, halves.high);
            _mm512_storeu_si512(to + chunk * flat.chunk + flat.low, halves.low);
        }
    }
}

// A row of an image, in `line` as floats where it is of pixels that are normalised first.
inline void put_row(const View& v, const Flat<Half>& flat, Size index, Size columns, float* line, Half* to) {
    const Convolution& conv = v.conv;
    const float* from = line;
    if (conv.pixels) {
        const uint8_t* pixels = conv.pixels + index * v.channels;
        for (Size i = 0; i < columns * v.channels; i++) line[i] = float(pixels[i]) * conv.scale[i] + conv.shift[i];
    } else {
        from = conv.x + index * v.channels;
    }
    put_halves(flat, from, columns, v.channels, to);
}

inline void put_border(const View&, const Flat<Half>& flat, Size columns, Half* to) {
    Size bytes = columns * flat.deep * sizeof(Half);
    for (Size chunk = 0; bytes > 0 && chunk < flat.chunks; chunk++, to += flat.chunk) {
        memset(to, 0, bytes);
        memset(to + flat.low, 0, bytes);
    }
}

// Sums of some filters to a place of the output, with what follows the convolution.
inline void put_outputs(const View& v, const float* sums, Size place, Range filters) {
    const Convolution& conv = v.conv;
    for (Size column = filters.begin; column < filters.end; column += PANEL, sums += PANEL) {
        Vector y = load(sums);
        if (conv.factor) y *= load(conv.factor + column);
        if (conv.bias) y += load(conv.bias + column);
        if (conv.residual) y += load(conv.residual + place + column);
        store(conv.y + place + column, conv.relu ? relu(y) : y);
    }
}

int direct_flat(Pool& pool, const Convolution& conv) {
    return Flat<Half>::takes(conv) ? run_flat<Half>(pool, View(conv)) : direct(pool, conv);
}

}  // namespace
