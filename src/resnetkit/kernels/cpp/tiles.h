// How images are covered with tiles of 4 x 4, 4 x 3, 3 x 4 and 3 x 3 outputs, and where each tile lies.
#pragma once

#include "kernels.h"
#include "points.h"

namespace {

// An axis of tiles of four outputs, and after them of three: those that need the fewest points.
struct Axis {
    Size fours, threes;

    Size count(Size outputs) const { return outputs == 4 ? fours : threes; }
    Size start(Size outputs, Size i) const { return outputs == 4 ? 4 * i : 4 * fours + 3 * i; }
};

inline Axis cover(Size length) {
    Axis best{0, (length + 2) / 3};
    for (Size fours = 1; fours <= (length + 3) / 4; fours++) {
        Size rest = length - 4 * fours;
        Axis found{fours, rest > 0 ? (rest + 2) / 3 : 0};
        if (6 * found.fours + 5 * found.threes < 6 * best.fours + 5 * best.threes) best = found;
    }
    return best;
}

// Kinds of tiles in an order in which those that have a product at a given pair of points are neighbours.
constexpr Size KINDS = 4;
constexpr Size TALL[KINDS] = {4, 4, 3, 3}, WIDE[KINDS] = {3, 4, 4, 3};

struct Place {
    Size image, y, x;
};

// All tiles of some images, by kind, then by image, row and column.
struct Tiles {
    Axis down, across;
    Size first[KINDS + 1];  // tile of each kind

    Tiles(Size images, Size height, Size width) : down(cover(height)), across(cover(width)), first{} {
        for (Size kind = 0; kind < KINDS; kind++)
            first[kind + 1] = first[kind] + images * down.count(TALL[kind]) * across.count(WIDE[kind]);
    }

    Size count() const { return first[KINDS]; }

    Place place(Size kind, Size tile) const {
        Size columns = across.count(WIDE[kind]), rows = down.count(TALL[kind]), i = tile - first[kind];
        Size row = i / columns % rows;
        return {i / columns / rows, down.start(TALL[kind], row), across.start(WIDE[kind], i % columns)};
    }

    // the tiles from `begin` to `end` that have a product at a pair of points, counted from `begin`
    Range having(Size row, Size column, Size begin, Size end) const {
        Size from = column == 4 ? first[1] : 0, to = row == 4 ? first[2] : column == 4 ? first[3] : first[4];
        from = from < begin ? begin : from, to = to > end ? end : to;
        return {from - begin, (to < from ? from : to) - begin};
    }

    // function(kind, from, to) for each kind that there is from `begin` to `end`
    template <class Function>
    void each_kind(Size begin, Size end, Function&& function) const {
        for (Size kind = 0; kind < KINDS; kind++) {
            Size from = first[kind] < begin ? begin : first[kind], to = first[kind + 1] > end ? end : first[kind + 1];
            if (from < to) function(kind, from, to);
        }
    }
};

}  // namespace
