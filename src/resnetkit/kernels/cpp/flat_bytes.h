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

// The levels of 64 filters: whoever packs integers into bytes brings them between 0 and 255.
template <bool ADDS>
inline void put_chunk(const Finish& finish, const int32_t* sums, Size at, Size filter) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i whole[CHUNK / PANEL];
    UNROLL for (Size i = 0; i < CHUNK / PANEL; i++)
        whole[i] = _mm512_cvtps_epi32(
            (__m512)finish.value<ADDS>(load(sums + i * PANEL), at + i * PANEL, filter + i * PANEL));
    __m512i first = _mm512_packs_epi32(whole[0], whole[1]), last = _mm512_packs_epi32(whole[2], whole[3]);
    __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(first, last));
    _mm512_storeu_si512(finish.to + at, _mm512_max_epu8(bytes, _mm512_set1_epi8(char(finish.least))));
}

inline void put_outputs(const View& v, const int32_t* sums, Size place, Range filters) {
    const Finish finish(v.conv);
    Size filter = filters.begin;
    if (finish.to && finish.beside)
        for (; filter + CHUNK <= filters.end; filter += CHUNK, sums += CHUNK)
            put_chunk<true>(finish, sums, place + filter, filter);
    else if (finish.to)
        for (; filter + CHUNK <= filters.end; filter += CHUNK, sums += CHUNK)
            put_chunk<false>(finish, sums, place + filter, filter);
    if (filter == filters.end) return;
    Finish::with(v.conv, [&](auto&& put) {
        for (; filter < filters.end; filter += LANES, sums += LANES) put(load(sums), place + filter, filter);
    });
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
