// Matrix products with sums in registers: what all convolutions come down to.
#pragma once

#include "vector.h"

namespace {

// C = A B, or C += A B, and what follows a convolution.
//
// A row of A is `pieces` pieces of `depth` floats, which lie at a + row * lda + offset[piece]. (The pieces are the rows
// of an image under a kernel, the rows of A the places of the kernel; neighbours overlap, so nothing is copied.)
// B is in panels of 16 columns: B[k][j] = b[j / 16 * panel + k * step + j % 16].
struct Product {
    const float* a;
    Size lda;
    const Size* offset;
    Size pieces, depth;
    const float* b;
    Size panel, step;
    float* c;
    Size ldc;
    Size rows, panels;
    const float* bias = nullptr;      // [columns], is added
    const float* residual = nullptr;  // like c, is added
    bool relu = false;
    bool add = false;  // to what is in c
};

template <Size R, Size V>
inline void finish(const Product& p, Size row, Size column, Vector (&sum)[R][V]) {
    for (Size r = 0; r < R; r++) {
        UNROLL for (Size v = 0; v < V; v++) {
            Size at = (row + r) * p.ldc + column + v * LANES;
            if (p.bias) sum[r][v] += load(p.bias + column + v * LANES);
            if (p.residual) sum[r][v] += load(p.residual + at);
            if (p.add) sum[r][v] += load(p.c + at);
            store(p.c + at, p.relu ? relu(sum[r][v]) : sum[r][v]);
        }
    }
}

// R rows of P panels. TURNED: A is stored with its columns side by side, A[r][k] = a[k * lda + r].
template <Size R, Size P, bool TURNED>
inline void tile(const Product& p, Size row, Size panel) {
    constexpr Size V = P * PANEL / LANES;
    Vector sum[R][V] = {};
    const Size lda = p.lda, step = p.step, depth = p.depth;
    const float* b[P];
    UNROLL for (Size i = 0; i < P; i++) b[i] = p.b + (panel + i) * p.panel;
    for (Size piece = 0; piece < p.pieces; piece++) {
        const float* a = p.a + (TURNED ? row : row * lda) + p.offset[piece];
        const float* ahead = a + R * lda;  // the rows after these
        for (Size k = 0; k < depth; k++) {
            Vector right[V];
            UNROLL for (Size v = 0; v < V; v++) right[v] = load(b[v * LANES / PANEL] + v * LANES % PANEL);
            UNROLL for (Size r = 0; r < R; r++) {
                float left = a[TURNED ? r : r * lda];
                UNROLL for (Size v = 0; v < V; v++) sum[r][v] += left * right[v];
            }
            a += TURNED ? lda : 1;
            if (!TURNED) __builtin_prefetch(ahead + k * PANEL, 0, 3);
            UNROLL for (Size i = 0; i < P; i++) {
                __builtin_prefetch(b[i] + P * p.panel, 0, 2);  // the panels after these
                b[i] += step;
            }
        }
    }
    finish(p, row, panel * PANEL, sum);
}

// The same for any product that has a tile().
template <Size R, Size P, bool TURNED, class Any>
void rows(const Any& p, Size row, Size panel, Size count) {
    if constexpr (R > 0) {
        if (count == R)
            tile<R, P, TURNED>(p, row, panel);
        else
            rows<R - 1, P, TURNED>(p, row, panel, count);
    }
}

// Rows are shared out evenly: 16 are 8 and 8, not 14 and 2, of which the latter would wait for its sums.
template <Size P, bool TURNED, class Any>
void columns(const Any& p, Size panel) {
    Size blocks = (p.rows + ROWS - 1) / ROWS;
    for (Size i = 0; i < blocks; i++) {
        Size first = p.rows * i / blocks, next = p.rows * (i + 1) / blocks;
        rows<ROWS, P, TURNED>(p, first, panel, next - first);
    }
}

template <bool TURNED = false, class Any>
void multiply(const Any& p) {
    Size panel = 0;
    for (; panel + PANELS <= p.panels; panel += PANELS) columns<PANELS, TURNED>(p, panel);
    for (; panel < p.panels; panel++) columns<1, TURNED>(p, panel);
}

}  // namespace
