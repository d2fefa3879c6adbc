// Compiled once for each set of instructions, with KERNELS the name of its table.
#include "kernels.h"

#include "direct.h"
#include "pooling.h"
#include "winograd.h"

const Kernels KERNELS = {direct, winograd, weight_gradient, pack, transform, max_pool, mean_pool, mean, add_relu};
