// Convolutions of levels of 8 bits by registers for matrices, see `flat.h`.
#pragma once

#include "direct_bytes.h"
#include "flat.h"

namespace {

constexpr Size CHUNK = step_of<Byte>;

// the lowest `count` of 64 bytes
inline __mmask64 bytes(Size count) { return count >= CHUNK ? ~__mmask64(0) : (__mmask64(1) << count) - 1; }

inline void put_row(const View& v, const Flat<Byte>& flat, Size index, Size columns, float*, Byte* to) {
    const Byte* from = v.conv.levels + index * v.channels;
    if (flat.deep < CHUNK) {
        memcpy(to, from, columns * v.channels);
        return;
    }
    for (Size chunk = 0; chunk < flat.chunks; chunk++, to += flat.chunk) {
        __mmask64 some = bytes(v.channels - chunk * CHUNK);
        const Byte* next = from + chunk * CHUNK;
        for (Size i = 0; i < columns; i++, next += v.channels)
            _mm512_storeu_si512(to + i * CHUNK, _mm512_maskz_loadu_epi8(some, next));
    }
}

inline void put_border(const View& v, const Flat<Byte>& flat, Size columns, Byte* to) {
    if (flat.deep < CHUNK) {
        for (Size i = 0; i < columns; i++)
            for (Size c = 0; c < flat.deep; c++) *to++ = v.conv.border[c];
        return;
    }
    for (Size chunk = 0; chunk < flat.chunks; chunk++, to += flat.chunk) {
        __m512i border = _mm512_maskz_loadu_epi8(bytes(v.channels - chunk * CHUNK), v.conv.border + chunk * CHUNK);
        for (Size i = 0; i < columns; i++) _mm512_storeu_si512(to + i * CHUNK, border);
    }
}

inline void put_outputs(const View& v, const int32_t* sums, Size place, Range filters) {
    for (Size filter = filters.begin; filter < filters.end; filter += LANES, sums += LANES)
        put_sums(v.conv, load(sums), place + filter, filter);
}

int direct_flat(Pool& pool, const Convolution& conv) {
    return Flat<Byte>::takes(conv) ? run_flat<Byte>(pool, View(conv)) : direct_bytes(pool, conv);
}

int64_t packed_flat(const Convolution& conv) {
    if (!Flat<Byte>::takes(conv)) return packed_bytes(conv);
    View view(conv);
    return Flat<Byte>(view, 1, 1).weights(view.filters);
}

// [filters / 16, chunks, steps, 16 fours, 16 filters, 4]
void pack_flat(Pool& pool, const Convolution& conv, const int8_t* weight, int8_t* packed) {
    if (!Flat<Byte>::takes(conv)) return pack_bytes(pool, conv, weight, packed);
    View view(conv);
    Flat<Byte> flat(view, 1, 1);
    Size taps = conv.kernel * conv.kernel, filter = conv.channels * taps;
    parallel(pool, view.filters / PANEL, [&](Size panel, int) {
        int8_t* to = packed + panel * flat.panel();
        for (Size step = 0; step < flat.chunks * flat.steps; step++, to += PANEL * CHUNK) {
            for (Size term = 0; term < CHUNK; term++) {
                Size at = flat.find(view, {filter, taps, 1}, step / flat.steps, step % flat.steps, term);
                for (Size k = 0; k < PANEL; k++)
                    to[(term / 4 * PANEL + k) * 4 + term % 4] = at < 0 ? 0 : weight[(panel * PANEL + k) * filter + at];
            }
        }
    });
}

}  // namespace
