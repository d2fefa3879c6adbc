// The passes of training, whose weights change with every step; that of weights is in `winograd.h`.
#pragma once

#include "winograd.h"

namespace {

int convolve(Pool& pool, const Convolution& conv, const float* weight, Strides strides) {
    float* transformed = pool.weights(PAIRS * plane_of(conv));
    if (!transformed) return NO_MEMORY;
    transform(pool, conv, weight, strides, transformed);
    Convolution whole = conv;
    whole.weight = transformed;
    return winograd(pool, whole);
}

// From outputs back to inputs: of y, and nothing follows.
inline Convolution turned(const Convolution& conv, float* to) {
    Convolution back = conv;
    back.channels = conv.filters, back.filters = conv.channels, back.x = conv.y, back.y = to;
    back.factor = back.bias = back.residual = nullptr, back.relu = 0;
    return back;
}

// The gradient of the inputs is a convolution with the taps in the other order.
int input_gradient(Pool& pool, const Convolution& conv, const float* weight, Strides strides, float* to) {
    return convolve(pool, turned(conv, to), weight + 8 * strides.tap, {strides.channel, strides.filter, -strides.tap});
}

}  // namespace
