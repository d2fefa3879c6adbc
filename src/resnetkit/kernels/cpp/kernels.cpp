// Compiled once for each set of instructions, with KERNELS the name of its table.
#include "kernels.h"

#include "direct.h"
#include "norm.h"
#include "pooling.h"
#include "winograd.h"

const Kernels KERNELS = {direct,    winograd, weight_gradient, pack,         transform,     max_pool,
                         mean_pool, mean,     add_relu,        norm_forward, norm_backward, relu_backward};
