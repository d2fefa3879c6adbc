// Winograd's convolutions F(4x4, 3x3) and F(3x3, 3x3): A. Lavin and S. Gray, arXiv 1509.09308, section 4.
//
// A tile of outputs is Y = A' [(G g G') * (B' d B)] A. All of them use the points 0, 1, -1, 2, -2 and infinity, or all
// but -2 for three outputs. G is that of six points for both, so that one set of transformed weights serves tiles of
// 4 x 4, 4 x 3, 3 x 4 and 3 x 3, of which the smaller ones leave out the products at -2; what G lacks for five points
// is in B.
// So 14 outputs are 4 + 4 + 3 + 3, 7 are 4 + 3, and none are computed in vain.
#pragma once

#include "vector.h"

namespace {

constexpr Size POINTS = 6;

// which of the six points the i-th of `count` is
template <Size COUNT>
constexpr Size point(Size i) {
    return COUNT == 5 && i == 4 ? 5 : i;
}

// B' d: COUNT inputs to their values at COUNT points
template <Size COUNT, class Numbers>
inline void from_inputs(Numbers (&d)[COUNT]) {
    if constexpr (COUNT == 6) {
        Numbers even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
        Numbers wide = d[4] - d[2], narrow = d[3] - d[1];
        Numbers last = d[5] - 5 * d[3] + 4 * d[1];
        d[0] = d[4] - 5 * d[2] + 4 * d[0];
        d[1] = even + odd;
        d[2] = even - odd;
        d[3] = wide + 2 * narrow;
        d[4] = wide - 2 * narrow;
        d[5] = last;
    } else {
        Numbers last = d[4] - d[2] - 2 * (d[3] - d[1]);
        Numbers first = 2 * (d[3] - d[1]) - 4 * (d[2] - d[0]);
        Numbers one = 3 * (d[3] - d[2]) - 6 * d[1];
        Numbers minus = d[3] - 3 * d[2] + 2 * d[1];
        d[3] = 4 * (d[3] - d[1]);
        d[0] = first;
        d[1] = one;
        d[2] = minus;
        d[4] = last;
    }
}

// A' m: values at COUNT points to COUNT - 2 outputs
template <Size COUNT>
inline void to_outputs(const Vector (&m)[COUNT], Vector (&y)[COUNT - 2]) {
    Vector sum = m[1] + m[2], difference = m[1] - m[2];
    if constexpr (COUNT == 6) {
        Vector twice = m[3] + m[4], apart = m[3] - m[4];
        y[0] = m[0] + sum + twice;
        y[1] = difference + 2 * apart;
        y[2] = sum + 4 * twice;
        y[3] = difference + 8 * apart + m[5];
    } else {
        y[0] = m[0] + sum + m[3];
        y[1] = difference + 2 * m[3];
        y[2] = sum + 4 * m[3] + m[4];
    }
}

// A y, the transpose: the first COUNT - 2 of `y` to COUNT points
template <Size COUNT>
inline void from_outputs(Vector (&y)[COUNT]) {
    if constexpr (COUNT == 6) {
        Vector even = y[0] + y[2], odd = y[1] + y[3];
        Vector wide = y[0] + 4 * y[2], far = 2 * y[1] + 8 * y[3];
        y[5] = y[3];
        y[1] = even + odd;
        y[2] = even - odd;
        y[3] = wide + far;
        y[4] = wide - far;
    } else {
        Vector even = y[0] + y[2], odd = y[1];
        Vector two = y[0] + 2 * y[1] + 4 * y[2];
        y[4] = y[2];
        y[1] = even + odd;
        y[2] = even - odd;
        y[3] = two;
    }
}

// G g: three weights to six points
inline void from_weights(const Vector (&g)[3], Vector (&u)[POINTS]) {
    Vector even = g[0] + g[2], wide = g[0] + 4 * g[2];
    u[0] = g[0] * (1.0f / 4);
    u[1] = (even + g[1]) * (-1.0f / 6);
    u[2] = (even - g[1]) * (-1.0f / 6);
    u[3] = (wide + 2 * g[1]) * (1.0f / 24);
    u[4] = (wide - 2 * g[1]) * (1.0f / 24);
    u[5] = g[2];
}

// G' u, the transpose: six points to three weights
inline void to_weights(const Vector (&u)[POINTS], Vector (&g)[3]) {
    Vector sum = (u[1] + u[2]) * (-1.0f / 6), difference = (u[1] - u[2]) * (-1.0f / 6);
    Vector twice = (u[3] + u[4]) * (1.0f / 24), apart = (u[3] - u[4]) * (1.0f / 24);
    g[0] = u[0] * (1.0f / 4) + sum + twice;
    g[1] = difference + 2 * apart;
    g[2] = sum + 4 * twice + u[5];
}

}  // namespace
