// What is compiled for each set of instructions, and what it is told.
#pragma once

#include <cstdint>

class Pool;

// A convolution of images [images, height, width, channels]; filters are multiples of 16, and channels too but for
// `direct`.
struct Convolution {
    int64_t images, height, width, channels, filters;
    int64_t kernel, stride, padding, dilation;
    int64_t groups;  // of channels, each with its filters, which are a multiple of 16; `direct` only
    int64_t relu;
    const float* x;
    const uint8_t* pixels;  // instead of x: normalised to pixel * scale + shift
    const float* scale;     // [width, channels]
    const float* shift;     // [width, channels]
    const float* weight;    // as `pack` or `transform` gives it
    const float* factor;    // [filters], of what the convolution gives; or null; `winograd` only
    const float* bias;      // [filters], or null
    const float* residual;  // like y, or null
    float* y;               // [images, rows, columns, filters]
    int64_t block;          // tiles at a time in `winograd`; 0: what fits the cache
    // of ByteKernels, whose arrays are levels of 8 bits. Outputs are sum * factor + bias + beside * share, all in levels
    // of the output, at least `least`; where `y` is given they are left as floats
    const uint8_t* levels;
    const uint8_t* beside;  // like the outputs, or null
    const uint8_t* border;  // [channels], what lies around an image
    uint8_t* to;
    float share, least;
};

// Where the weights [filters, channels, kernel, kernel] of a convolution lie, in floats from one to the next.
struct Strides {
    int64_t filter, channel, tap;
};

// Batch normalisation of x [places, channels] by its own mean and variance, plus residual, then ReLU.
struct Norm {
    int64_t places, channels;
    int64_t relu;
    const float* x;
    const float* residual;  // like x, or null
    const float* weight;    // [channels]
    const float* bias;
    float* y;               // like x
    float* mean;            // [channels]; found by forward, needed by backward
    float* variance;
    const float* gradient;  // of y
    float* to_x;            // gradients: of x, or null
    float* to_residual;     // of residual, or null
    float* to_weight;
    float* to_bias;
    float epsilon;
};

struct Kernels {
    int (*direct)(Pool&, const Convolution&);
    int (*winograd)(Pool&, const Convolution&);
    // with weights as they are, which are prepared on the way: for those that change with every step
    int (*convolve)(Pool&, const Convolution&, const float* weight, Strides);
    // of y, which is read, with respect to x or to the weights, which are written
    int (*input_gradient)(Pool&, const Convolution&, const float* weight, Strides, float* gradient);
    int (*weight_gradient)(Pool&, const Convolution&, float* gradient, Strides);
    // [filters, channels / groups, kernel, kernel] as `direct` takes them, and how many floats these are: panels
    // [filters / 16, kernel * kernel * channels / groups, 16], or what `flat.h` says
    int64_t (*packed)(const Convolution&);
    void (*pack)(Pool&, const Convolution&, const float* weight, Strides, float* packed);
    // [filters, channels, 3, 3] to [36, filters / 16, channels, 16], each of the 36 with 16 floats behind it
    void (*transform)(Pool&, const Convolution&, const float* weight, Strides, float* transformed);
    // [images, height, width, channels] to the largest of 3 x 3, or the mean of 2 x 2, every second pixel
    void (*max_pool)(Pool&, const Convolution&);
    void (*mean_pool)(Pool&, const Convolution&);
    // [images, height, width, channels] to [images, channels]
    void (*mean)(Pool&, const Convolution&);
    // y = relu(x + residual)
    void (*add_relu)(Pool&, const Convolution&);
    int (*norm_forward)(Pool&, const Norm&);
    int (*norm_backward)(Pool&, const Norm&);
    // gradient where y is above zero, to to_residual and, summed up, to_bias; times weight to to_x
    int (*relu_backward)(Pool&, const Norm&);
};

// The same of levels of 8 bits; every set of instructions gives the same ones.
struct ByteKernels {
    int (*direct)(Pool&, const Convolution&);
    // [filters, channels, kernel, kernel] as `direct` takes them, and how many floats these fill
    int64_t (*packed)(const Convolution&);
    void (*pack)(Pool&, const Convolution&, const int8_t* weight, int8_t* packed);
    // 3x3, stride 1, in fewer products of more bits, with weights that are rounded once more
    int (*winograd)(Pool&, const Convolution&);
    // what `transform` gives as `winograd` takes it: in 18 * channels * filters + 36 * filters floats
    void (*round_transformed)(Pool&, const Convolution&, const float* transformed, float* rounded);
    void (*max_pool)(Pool&, const Convolution&);
    // x * share + least, rounded
    void (*to_levels)(Pool&, const Convolution&);
    // (levels - least) * share
    void (*to_floats)(Pool&, const Convolution&);
};

extern const ByteKernels BASE_BYTES, AVX2_BYTES, AVX512_BYTES, VNNI_BYTES, AMX_BYTES;
extern const Kernels BASE, AVX2, AVX512, AMX;

constexpr int DONE = 0, NO_MEMORY = 1;
