// Compiled once for each set of instructions, with KERNELS the name of its table.
#include "kernels.h"

#include "direct.h"
#include "norm.h"
#include "passes.h"
#include "pooling.h"

#if defined(__AMX_BF16__)
#include "flat_gradient.h"
#include "flat_halves.h"
#include "flat_weights.h"

const Kernels KERNELS = {direct_flat, winograd,     convolve_flat, input_gradient_flat, weight_gradient_flat,
                         packed_flat, pack_flat,    transform,     max_pool,            mean_pool,
                         mean,        add_relu,     norm_forward,  norm_backward,       relu_backward};
#else
const Kernels KERNELS = {direct, winograd, convolve, input_gradient, weight_gradient,
                         packed, pack,     transform, max_pool,      mean_pool,
                         mean,   add_relu, norm_forward, norm_backward, relu_backward};
#endif
