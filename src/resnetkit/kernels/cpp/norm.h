// Batch normalisation in training, with the sum of a shortcut and ReLU behind it: S. Ioffe and C. Szegedy, arXiv
// 1502.03167, algorithm 1. Forward goes twice over memory, backward twice; channels are multiples of 16.
#pragma once

#include <cmath>
#include <cstring>

#include "pool.h"
#include "kernels.h"
#include "vector.h"

namespace {

// Places are cut into parts, always the same ones, so that sums are the same to the bit with any number of threads.
constexpr Size PARTS = 64, LEAST = 32;

struct Parts {
    Size places, size;

    explicit Parts(Size places) : places(places), size(ceil_of(places, PARTS) < LEAST ? LEAST : ceil_of(places, PARTS)) {}

    Size count() const { return ceil_of(places, size); }
    Range part(Size i) const { return {i * size, (i + 1) * size < places ? (i + 1) * size : places}; }
};

// function(channel, index of the first of LANES floats) for all channels of a place
template <class Function>
inline void at_place(const Norm& norm, Size place, Function&& function) {
    for (Size c = 0; c < norm.channels; c += LANES) function(c, place * norm.channels + c);
}

template <class Function>
void at_places(Pool& pool, const Norm& norm, Function&& function) {
    Parts parts(norm.places);
    parallel(pool, parts.count(), [&](Size i, int) {
        Range part = parts.part(i);
        for (Size place = part.begin; place < part.end; place++) at_place(norm, place, function);
    });
}

// What comes back through ReLU; NaN lets it pass, as in torch.
inline Vector passed(const Norm& norm, Size index) {
    Vector gradient = load(norm.gradient + index);
    return norm.relu && norm.y ? (load(norm.y + index) <= 0.0f ? Vector{} : gradient) : gradient;
}

// Two sums a channel over each part: add(place, first sum [channels], second sum [channels]) for each of its places.
template <class Add>
void sum_parts(Pool& pool, const Norm& norm, float* sums, Add&& add) {
    Parts parts(norm.places);
    parallel(pool, parts.count(), [&](Size i, int) {
        float* own = sums + i * 2 * norm.channels;
        memset(own, 0, 2 * norm.channels * sizeof(float));
        Range part = parts.part(i);
        for (Size place = part.begin; place < part.end; place++) add(part.begin, place, own, own + norm.channels);
    });
}

// Mean and variance from those of the parts, whose sums are of distances to their first place: T. Chan, G. Golub and
// R. LeVeque 1979, eq. 2.1.
void join_parts(const Norm& norm, const float* sums) {
    Parts parts(norm.places);
    for (Size c = 0; c < norm.channels; c++) {
        double mean = 0, squares = 0, seen = 0;
        for (Size i = 0; i < parts.count(); i++) {
            Range part = parts.part(i);
            const float* own = sums + i * 2 * norm.channels + c;
            double count = double(part.end - part.begin), sum = own[0], all = seen + count;
            double apart = norm.x[part.begin * norm.channels + c] + sum / count - mean;
            squares += own[norm.channels] - sum * sum / count + apart * apart * seen * count / all;
            mean += apart * count / all;
            seen = all;
        }
        norm.mean[c] = float(mean);
        norm.variance[c] = float(squares > 0 ? squares / seen : 0 * squares);  // NaN stays
    }
}

int norm_forward(Pool& pool, const Norm& norm) {
    float* sums = pool.room(Parts(norm.places).count() * 2 * norm.channels);
    if (!sums) return NO_MEMORY;
    sum_parts(pool, norm, sums, [&](Size first, Size place, float* sum, float* squares) {
        at_place(norm, place, [&](Size c, Size index) {
            Vector apart = load(norm.x + index) - load(norm.x + first * norm.channels + c);
            store(sum + c, load(sum + c) + apart);
            store(squares + c, load(squares + c) + apart * apart);
        });
    });
    join_parts(norm, sums);
    float* scale = sums;
    for (Size c = 0; c < norm.channels; c++) scale[c] = norm.weight[c] / std::sqrt(norm.variance[c] + norm.epsilon);
    at_places(pool, norm, [&](Size c, Size index) {
        Vector y = (load(norm.x + index) - load(norm.mean + c)) * load(scale + c) + load(norm.bias + c);
        if (norm.residual) y += load(norm.residual + index);
        store(norm.y + index, norm.relu ? relu(y) : y);
    });
    return DONE;
}

// Sums over the parts, in double.
inline double total(const Norm& norm, const float* sums, Size offset) {
    double sum = 0;
    for (Size i = 0; i < Parts(norm.places).count(); i++) sum += sums[i * 2 * norm.channels + offset];
    return sum;
}

// Gradients of weight and bias, and of the residual; then of x, by the sums.
int norm_backward(Pool& pool, const Norm& norm) {
    Size channels = norm.channels;
    float* sums = pool.room((Parts(norm.places).count() * 2 + 3) * channels);
    if (!sums) return NO_MEMORY;
    sum_parts(pool, norm, sums, [&](Size, Size place, float* sum, float* product) {
        at_place(norm, place, [&](Size c, Size index) {
            Vector g = passed(norm, index);
            store(sum + c, load(sum + c) + g);
            store(product + c, load(product + c) + g * (load(norm.x + index) - load(norm.mean + c)));
            if (norm.to_residual) store(norm.to_residual + index, g);
        });
    });
    float *scale = sums + Parts(norm.places).count() * 2 * channels, *shift = scale + channels, *slope = shift + channels;
    for (Size c = 0; c < channels; c++) {
        double inverse = 1 / std::sqrt(double(norm.variance[c]) + norm.epsilon), count = double(norm.places);
        double sum = total(norm, sums, c), product = total(norm, sums, channels + c);
        norm.to_bias[c] = float(sum), norm.to_weight[c] = float(product * inverse);
        scale[c] = float(norm.weight[c] * inverse);
        slope[c] = float(-norm.weight[c] * inverse * inverse * inverse * product / count);
        shift[c] = float(-norm.weight[c] * inverse * sum / count);
    }
    if (!norm.to_x) return DONE;
    at_places(pool, norm, [&](Size c, Size index) {
        Vector g = norm.to_residual ? load(norm.to_residual + index) : passed(norm, index);
        Vector apart = load(norm.x + index) - load(norm.mean + c);
        store(norm.to_x + index, g * load(scale + c) + apart * load(slope + c) + load(shift + c));
    });
    return DONE;
}

// What comes back through ReLU alone, and its sum for the bias of a convolution before it.
int relu_backward(Pool& pool, const Norm& norm) {
    float* sums = pool.room(Parts(norm.places).count() * 2 * norm.channels);
    if (!sums) return NO_MEMORY;
    sum_parts(pool, norm, sums, [&](Size, Size place, float* sum, float*) {
        at_place(norm, place, [&](Size c, Size index) {
            Vector g = passed(norm, index);
            store(sum + c, load(sum + c) + g);
            if (norm.to_residual) store(norm.to_residual + index, g);
            store(norm.to_x + index, g * load(norm.weight + c));
        });
    });
    for (Size c = 0; c < norm.channels; c++) norm.to_bias[c] = float(total(norm, sums, c));
    return DONE;
}

}  // namespace
