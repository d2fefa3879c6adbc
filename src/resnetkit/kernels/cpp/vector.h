// Vectors of as many floats as a register of the processor holds that this file is compiled for.
//
// Everything here is in an unnamed namespace: the same templates are compiled once for each set of instructions, and
// the linker must not take one for another.
#pragma once

#include <cstddef>
#include <cstdint>

#define UNROLL _Pragma("GCC unroll 16")

namespace {

using Size = std::ptrdiff_t;

constexpr Size PANEL = 16;  // channels and filters come in groups of this many, whatever the registers hold

// ROWS x PANELS * PANEL sums are kept in registers by `product.h`: 28 of 32, 12 of 16, 24 of 32, 8 of 16
#if defined(__AVX512F__)
constexpr Size LANES = 16, ROWS = 14, PANELS = 2;
#elif defined(__AVX2__)
constexpr Size LANES = 8, ROWS = 6, PANELS = 1;
#elif defined(__aarch64__)
constexpr Size LANES = 4, ROWS = 6, PANELS = 1;
#else
constexpr Size LANES = 4, ROWS = 2, PANELS = 1;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef float Unaligned __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }

inline void store(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }

// NaN stays NaN, as in torch
inline Vector relu(Vector value) { return value < 0.0f ? Vector{} : value; }

// the larger one; NaN if one of them is, as in torch
inline Vector larger(Vector a, Vector b) { return (b > a) | (b != b) ? b : a; }

struct Range {
    Size begin, end;
};

inline Size ceil_of(Size a, Size b) { return (a + b - 1) / b; }

}  // namespace
