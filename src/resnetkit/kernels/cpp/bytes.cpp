// As kernels.cpp: compiled once for each set of instructions, with KERNELS the name of its table.
#include "direct_bytes.h"
#include "levels.h"
#include "winograd_bytes.h"

#if defined(__AMX_INT8__)
#include "flat_bytes.h"

const ByteKernels KERNELS = {direct_flat, packed_flat, pack_flat, winograd_bytes, round_transformed,
                             max_levels, to_levels, to_floats};
#else
const ByteKernels KERNELS = {direct_bytes, packed_bytes, pack_bytes, winograd_bytes, round_transformed,
                             max_levels, to_levels, to_floats};
#endif
