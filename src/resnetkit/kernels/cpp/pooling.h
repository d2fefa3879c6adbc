// What lies between convolutions; channels are multiples of 16.
#pragma once

#include "pool.h"
#include "kernels.h"
#include "vector.h"

namespace {

// function(image, row, column, what of the output is to be written) for every second pixel, rows shared out
template <class Function>
void every_second(Pool& pool, const Convolution& conv, Function&& function) {
    Size rows = (conv.height + 1) / 2, columns = (conv.width + 1) / 2;
    parallel(pool, conv.images * rows, [&](Size item, int) {
        for (Size x = 0; x < columns; x++)
            function(item / rows, item % rows * 2, x * 2, conv.y + (item * columns + x) * conv.channels);
    });
}

inline Size limited(Size value, Size end) { return value < 0 ? 0 : value < end ? value : end; }

inline const float* pixel(const Convolution& conv, Size image, Size y, Size x) {
    return conv.x + ((image * conv.height + y) * conv.width + x) * conv.channels;
}

void max_pool(Pool& pool, const Convolution& conv) {
    every_second(pool, conv, [&](Size image, Size y, Size x, float* to) {
        Size top = limited(y - 1, conv.height), bottom = limited(y + 2, conv.height);
        Size left = limited(x - 1, conv.width), right = limited(x + 2, conv.width);
        for (Size c = 0; c < conv.channels; c += LANES) {
            Vector best = load(pixel(conv, image, top, left) + c);
            for (Size i = top; i < bottom; i++)
                for (Size j = left; j < right; j++) best = larger(best, load(pixel(conv, image, i, j) + c));
            store(to + c, best);
        }
    });
}

void mean_pool(Pool& pool, const Convolution& conv) {
    every_second(pool, conv, [&](Size image, Size y, Size x, float* to) {
        Size bottom = limited(y + 2, conv.height), right = limited(x + 2, conv.width);
        float share = 1.0f / float((bottom - y) * (right - x));
        for (Size c = 0; c < conv.channels; c += LANES) {
            Vector sum{};
            for (Size i = y; i < bottom; i++)
                for (Size j = x; j < right; j++) sum += load(pixel(conv, image, i, j) + c);
            store(to + c, sum * share);
        }
    });
}

void mean(Pool& pool, const Convolution& conv) {
    Size pixels = conv.height * conv.width;
    parallel(pool, conv.images, [&](Size image, int) {
        for (Size c = 0; c < conv.channels; c += LANES) {
            Vector sum{};
            for (Size i = 0; i < pixels; i++) sum += load(conv.x + (image * pixels + i) * conv.channels + c);
            store(conv.y + image * conv.channels + c, sum * (1.0f / float(pixels)));
        }
    });
}

void add_relu(Pool& pool, const Convolution& conv) {
    Size row = conv.width * conv.channels;
    parallel(pool, conv.images * conv.height, [&](Size item, int) {
        for (Size i = item * row; i < (item + 1) * row; i += LANES)
            store(conv.y + i, relu(load(conv.x + i) + load(conv.residual + i)));
    });
}

}  // namespace
