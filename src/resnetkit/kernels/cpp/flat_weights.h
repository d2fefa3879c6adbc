// Weights as `flat.h` takes them.
#pragma once

#include "flat_halves.h"
#include "passes.h"

namespace {

// The weights of a step: each of its terms is of a tap and a channel, or zero.
struct Terms {
    const View& view;
    const Flat<Half>& flat;
    Strides strides;

    // where a weight lies, or null
    const float* find(const float* from, Size chunk, Size step, Size term) const {
        Size at = flat.find(view, strides, chunk, step, term);
        return at < 0 ? nullptr : from + at;
    }

    // of sixteen filters
    __m512i load(const float* from) const {
        if (!from) return _mm512_setzero_si512();
        if (strides.filter == 1) return _mm512_loadu_si512(from);
        alignas(64) float apart[PANEL];
        UNROLL for (Size k = 0; k < PANEL; k++) apart[k] = from[k * strides.filter];
        return _mm512_load_si512(apart);
    }

    // sixteen terms of sixteen filters; side by side where they lie so in memory
    void load(const float* from, Size chunk, Size step, Size first, __m512i (&terms)[PANEL]) const {
        const float* begin = find(from, chunk, step, first);
        if (begin && strides.channel == 1 && find(from, chunk, step, first + PANEL - 1) == begin + PANEL - 1) {
            for (Size k = 0; k < PANEL; k++) terms[k] = _mm512_loadu_si512(begin + k * strides.filter);
            return transpose(terms);
        }
        for (Size i = 0; i < PANEL; i++) terms[i] = load(find(from, chunk, step, first + i));
    }
};

// [filters / 16, chunks, steps, high and low, 16 pairs, 16 filters, 2]
void pack_view(Pool& pool, const View& view, const float* weight, Strides strides, float* packed) {
    Flat<Half> flat(view, 1, 1);
    Terms terms{view, flat, strides};
    Size all = flat.chunks * flat.steps;
    parallel(pool, view.filters / PANEL, [&](Size panel, int) {
        const float* from = weight + panel * PANEL * strides.filter;
        Half* to = reinterpret_cast<Half*>(packed) + panel * all * 2 * TILE;
        for (Size i = 0; i < 2 * all; i++) {
            __m512i term[PANEL];
            terms.load(from, i / 2 / flat.steps, i / 2 % flat.steps, i % 2 * PANEL, term);
            Half* half = to + i / 2 * 2 * TILE + i % 2 * TILE / 2;
            for (Size j = 0; j < PANEL; j += 2, half += PAIR) {
                Halves halves = split_pairs(_mm512_castsi512_ps(term[j]), _mm512_castsi512_ps(term[j + 1]));
                _mm512_storeu_si512(half, halves.high);
                _mm512_storeu_si512(half + TILE, halves.low);
            }
        }
    });
}

int64_t packed_flat(const Convolution& conv) {
    if (!Flat<Half>::takes(conv)) return packed(conv);
    View view(conv);
    return Flat<Half>(view, 1, 1).weights(view.filters);
}

void pack_flat(Pool& pool, const Convolution& conv, const float* weight, Strides strides, float* to) {
    if (Flat<Half>::takes(conv))
        pack_view(pool, View(conv), weight, strides, to);
    else
        pack(pool, conv, weight, strides, to);
}

// A convolution, with weights packed on the way.
int pass_flat(Pool& pool, View view, const float* weight, Strides strides) {
    float* packed = pool.weights(Flat<Half>(view, 1, 1).weights(view.filters));
    if (!packed) return NO_MEMORY;
    pack_view(pool, view, weight, strides, packed);
    view.conv.weight = packed;
    return run_flat<Half>(pool, view);
}

int convolve_flat(Pool& pool, const Convolution& conv, const float* weight, Strides strides) {
    return pass_flat(pool, View(conv), weight, strides);
}

// Of one axis: the taps through which outputs go back to every `stride`-th input from the one at `first` on. The last
// of them comes first.
struct Back {
    Size count, tap, before;

    Back(const Convolution& conv, Size first) {
        Size least = (first + conv.padding) % conv.stride;
        count = least < conv.kernel ? ceil_of(conv.kernel - least, conv.stride) : 0;
        tap = least + conv.stride * (count - 1);
        before = count - 1 - (first + conv.padding - least) / conv.stride;
    }
};

// Each of stride * stride parts of the inputs is a convolution of the outputs, with those taps that reach it.
int input_gradient_flat(Pool& pool, const Convolution& conv, const float* weight, Strides strides, float* to) {
    View whole(turned(conv, to));
    whole.height = View::outputs(conv, conv.height), whole.width = View::outputs(conv, conv.width);
    whole.tall = conv.height, whole.wide = conv.width;
    whole.stride = 1, whole.apart = conv.stride, whole.tap_step = -conv.stride;
    Size all = conv.images * conv.height * conv.width * conv.channels;
    if (conv.kernel < conv.stride) memset(to, 0, all * sizeof(float));  // no tap reaches some of them
    for (Size i = 0; i < conv.stride * conv.stride; i++) {
        View view = whole;
        view.row = i / conv.stride, view.column = i % conv.stride;
        Back row(conv, view.row), column(conv, view.column);
        view.rows = ceil_of(conv.height - view.row, conv.stride);
        view.columns = ceil_of(conv.width - view.column, conv.stride);
        view.down = row.count, view.top = row.before, view.tap_row = row.tap;
        view.across = column.count, view.left = column.before, view.tap_column = column.tap;
        if (view.rows < 1 || view.columns < 1 || row.count * column.count < 1) continue;
        if (pass_flat(pool, view, weight, {strides.channel, strides.filter, strides.tap}) != DONE) return NO_MEMORY;
    }
    return DONE;
}

}  // namespace
