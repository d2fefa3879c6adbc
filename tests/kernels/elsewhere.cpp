// The kernels without Python, for processors that are emulated: Winograd's convolution and its gradient against the
// direct one, normalisation and its gradients against their formulas, on shapes at random; exits 1 where they differ.
//
//   aarch64-linux-gnu-g++ -std=c++20 -O2 -static -pthread -DKERNELS=BASE -I src/resnetkit/kernels/cpp
//       tests/kernels/elsewhere.cpp src/resnetkit/kernels/cpp/{kernels,pool}.cpp -o elsewhere && qemu-aarch64-static elsewhere
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels.h"
#include "pool.h"

using Floats = std::vector<float>;

static Floats random_floats(int64_t count) {
    Floats found(count);
    for (float& value : found) value = float(rand()) / float(RAND_MAX) - 0.5f;
    return found;
}

static double difference(const Floats& a, const Floats& b) {
    double largest = 0, apart = 0;
    for (size_t i = 0; i < a.size(); i++) {
        largest = std::fmax(largest, std::fabs(a[i]));
        apart = std::fmax(apart, std::fabs(a[i] - b[i]));
    }
    return apart / largest;
}

static Convolution shape() {
    Convolution conv{};
    conv.images = 1 + rand() % 3, conv.height = 1 + rand() % 15, conv.width = 1 + rand() % 15;
    conv.channels = 16 * (1 + rand() % 4), conv.filters = 16 * (1 + rand() % 4);
    conv.kernel = 3, conv.stride = conv.padding = conv.dilation = conv.groups = 1;
    return conv;
}

// of y = sum of products with the weights: the slope of a convolution along one weight is the gradient's entry
static double of_gradient(Pool& pool, Convolution conv, const Floats& x, const Floats& weight, Strides strides) {
    int64_t pixels = conv.images * conv.height * conv.width;
    Floats upstream = random_floats(pixels * conv.filters), found(weight.size()), expected(weight.size());
    conv.x = x.data(), conv.y = upstream.data();
    BASE.weight_gradient(pool, conv, found.data(), strides);
    for (int64_t i = 0; i < pixels; i++) {
        int64_t y = i / conv.width % conv.height, left = i % conv.width;
        for (int64_t tap = 0; tap < 9; tap++) {
            int64_t row = y + tap / 3 - 1, column = left + tap % 3 - 1;
            if (row < 0 || row >= conv.height || column < 0 || column >= conv.width) continue;
            const float* from = &x[(i + (tap / 3 - 1) * conv.width + tap % 3 - 1) * conv.channels];
            for (int64_t k = 0; k < conv.filters; k++)
                for (int64_t c = 0; c < conv.channels; c++)
                    expected[(k * conv.channels + c) * 9 + tap] += from[c] * upstream[i * conv.filters + k];
        }
    }
    return difference(expected, found);
}

// y = relu(weight * (x - mean) / deviation + bias + residual) and its gradients, a channel after the other, in double
static double of_norm(Pool& pool, bool relu, bool with_residual) {
    int64_t places = 2 + rand() % 300, channels = 16 * (1 + rand() % 4), all = places * channels;
    Floats x = random_floats(all), residual = random_floats(all), upstream = random_floats(all);
    Floats weight = random_floats(channels), bias = random_floats(channels), mean(channels), variance(channels);
    Floats y(all), to_x(all), to_residual(all), to_weight(channels), to_bias(channels);
    Norm norm{places, channels, relu, x.data(), with_residual ? residual.data() : nullptr, weight.data(), bias.data(),
              y.data(), mean.data(), variance.data(), upstream.data(), to_x.data(),
              with_residual ? to_residual.data() : nullptr, to_weight.data(), to_bias.data(), 1e-5f};
    BASE.norm_forward(pool, norm);
    BASE.norm_backward(pool, norm);
    Floats answer(all), slope_x(all), slope_weight(channels), slope_bias(channels);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0, passed = 0, product = 0;
        for (int64_t i = c; i < all; i += channels) sum += x[i];
        for (int64_t i = c; i < all; i += channels) squares += std::pow(x[i] - sum / places, 2);
        double inverse = 1 / std::sqrt(squares / places + 1e-5);
        auto unit = [&](int64_t i) { return (x[i] - sum / places) * inverse; };
        auto value = [&](int64_t i) { return weight[c] * unit(i) + bias[c] + (with_residual ? residual[i] : 0); };
        // the sign is that of what was written, since it may be another where a sum is all but zero
        auto slope = [&](int64_t i) { return relu && y[i] <= 0 ? 0.0 : double(upstream[i]); };
        for (int64_t i = c; i < all; i += channels) passed += slope(i), product += slope(i) * unit(i);
        for (int64_t i = c; i < all; i += channels) {
            answer[i] = relu && value(i) < 0 ? 0 : value(i);
            slope_x[i] = weight[c] * inverse * (slope(i) - passed / places - unit(i) * product / places);
        }
        slope_weight[c] = product, slope_bias[c] = passed;
    }
    return std::fmax(std::fmax(difference(answer, y), difference(slope_x, to_x)),
                     std::fmax(difference(slope_weight, to_weight), difference(slope_bias, to_bias)));
}

int main() {
    Pool pool(2, nullptr);
    double worst = 0;
    for (int round = 0; round < 100; round++) {
        Convolution conv = shape();
        int64_t pixels = conv.images * conv.height * conv.width, taps = conv.filters * conv.channels * 9;
        Floats x = random_floats(pixels * conv.channels), weight = random_floats(taps), bias = random_floats(conv.filters);
        Floats one(pixels * conv.filters), other(one.size()), packed(taps), transformed(taps * 4 + 36 * 16);
        Strides strides{conv.channels * 9, 9, 1};
        BASE.pack(pool, conv, weight.data(), strides, packed.data());
        BASE.transform(pool, conv, weight.data(), strides, transformed.data());
        conv.x = x.data(), conv.bias = bias.data(), conv.relu = round % 2;
        conv.weight = packed.data(), conv.y = one.data();
        BASE.direct(pool, conv);
        conv.weight = transformed.data(), conv.y = other.data(), conv.block = round % 3 ? 0 : -5;
        BASE.winograd(pool, conv);
        worst = std::fmax(worst, difference(one, other));
        worst = std::fmax(worst, of_gradient(pool, conv, x, weight, strides));
        worst = std::fmax(worst, of_norm(pool, round % 2, round % 3));
    }
    std::printf("largest difference %.1e of the largest value\n", worst);
    return worst < 5e-5 ? 0 : 1;
}
