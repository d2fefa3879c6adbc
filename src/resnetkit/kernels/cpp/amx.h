// Products of matrices in the registers that AMX has for them: eight of 16 rows of 64 bytes. Their elements are halves,
// summed up in floats, or bytes (those of A without a sign, those of B with one), summed up in integers.
#pragma once

#include <type_traits>

#include "halves.h"

namespace {

using Byte = uint8_t;

template <class Element>
constexpr Size step_of = 64 / sizeof(Element);  // terms of a sum that one instruction adds
template <class Element>
constexpr Size kinds_of = std::is_same_v<Element, Half> ? 2 : 1;
template <class Element>
using sum_of = std::conditional_t<std::is_same_v<Element, Half>, float, int32_t>;

constexpr Size STEP = step_of<Half>;
constexpr Size TILE = PANEL * STEP;    // halves in a register
constexpr Size BLOCK = 2 * PANEL;      // rows, and columns, of sums that are kept in registers

struct alignas(64) Registers {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The registers are this thread's while one of these is there.
struct Taken {
    Taken() {
        static const Registers ALL;
        _tile_loadconfig(&ALL);
    }
    ~Taken() { _tile_release(); }
};

// What is added up: `chunks` times `steps` registers of A, and as many of B.
struct Sum {
    Size chunks, steps;
    const Size* offset;  // in A, of each step from the begin of its chunk
    Size chunk;          // elements from one to the next
    Size row, low;       // elements from one row of A to the next, and from its high to its low halves
    Size panel;          // elements from a panel of B to the next
    Size next = 2 * TILE, behind = TILE;  // from a register of B to the next, and from its high to its low halves
};

// The products of a register of A, and the one below it, with one of B, and that of the next panel.
template <Size R, Size P>
inline void step(const Sum& sum, const Half* high, const Half* b) {
    const Half* low = high + sum.low;
    const Size row = sum.row * sizeof(Half), below = PANEL * sum.row;
    _tile_loadd(4, high, row);
    if constexpr (R == 2) _tile_loadd(5, high + below, row);
    _tile_loadd(6, b + sum.behind, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (R == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (P == 2) _tile_loadd(7, b + sum.panel + sum.behind, 64);
    if constexpr (P == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (R == 2 && P == 2) _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (R == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (P == 2) _tile_loadd(7, b + sum.panel, 64);
    if constexpr (P == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (R == 2 && P == 2) _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(4, low, row);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (P == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (R == 2) _tile_loadd(5, low + below, row);
    if constexpr (R == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (R == 2 && P == 2) _tile_dpbf16ps(3, 5, 7);
}

template <Size R, Size P>
inline void step(const Sum& sum, const Byte* a, const Byte* b) {
    _tile_loadd(4, a, sum.row);
    _tile_loadd(6, b, 64);
    _tile_dpbusd(0, 4, 6);
    if constexpr (R == 2) _tile_loadd(5, a + PANEL * sum.row, sum.row);
    if constexpr (R == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (P == 2) _tile_loadd(7, b + sum.panel, 64);
    if constexpr (P == 2) _tile_dpbusd(1, 4, 7);
    if constexpr (R == 2 && P == 2) _tile_dpbusd(3, 5, 7);
}

// `sums` [32, stride] = A B, or += A B, for 16 R rows and P panels of columns. meanwhile(), which the processor does
// while the registers are at work, is called with each step.
template <Size R, Size P, bool ADD, class Element, class Meanwhile>
inline void add_up(const Sum& sum, const Element* a, const Element* b, sum_of<Element>* sums, Size stride,
                   Meanwhile&& meanwhile) {
    const Size bytes = stride * sizeof(*sums);
    auto* next = sums + PANEL * stride;
    asm volatile("" ::: "memory");  // what is read has been written
    if constexpr (ADD) {
        _tile_loadd(0, sums, bytes);
        if constexpr (P == 2) _tile_loadd(1, sums + PANEL, bytes);
        if constexpr (R == 2) _tile_loadd(2, next, bytes);
        if constexpr (R == 2 && P == 2) _tile_loadd(3, next + PANEL, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (Size chunk = 0; chunk < sum.chunks; chunk++, a += sum.chunk) {
        for (Size index = 0; index < sum.steps; index++, b += sum.next) {
            step<R, P>(sum, a + sum.offset[index], b);
            meanwhile();
        }
    }
    _tile_stored(0, sums, bytes);
    if constexpr (P == 2) _tile_stored(1, sums + PANEL, bytes);
    if constexpr (R == 2) _tile_stored(2, next, bytes);
    if constexpr (R == 2 && P == 2) _tile_stored(3, next + PANEL, bytes);
}

// the same for as many rows and panels as there are, at most two of each
template <bool ADD, class Element, class Meanwhile>
inline void add_up(Size rows, Size panels, const Sum& sum, const Element* a, const Element* b, sum_of<Element>* sums,
                   Size stride, Meanwhile&& meanwhile) {
    if (rows > 1 && panels > 1)
        add_up<2, 2, ADD>(sum, a, b, sums, stride, meanwhile);
    else if (rows > 1)
        add_up<2, 1, ADD>(sum, a, b, sums, stride, meanwhile);
    else if (panels > 1)
        add_up<1, 2, ADD>(sum, a, b, sums, stride, meanwhile);
    else
        add_up<1, 1, ADD>(sum, a, b, sums, stride, meanwhile);
}

}  // namespace
