// The C interface, which `library.py` declares for ctypes.
#include <exception>

#if defined(WITH_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"
#include "pool.h"

#if defined(_WIN32)
#define PUBLIC extern "C" __declspec(dllexport)
#else
#define PUBLIC extern "C" __attribute__((visibility("default")))
#endif

namespace {

const Kernels& kernels(int level) {
#if defined(WITH_AMX)
    if (level == 3) return AMX;
#endif
#if defined(__x86_64__)
    if (level == 2) return AVX512;
    if (level == 1) return AVX2;
#endif
    return BASE;
}

const ByteKernels& byte_kernels(int level) {
#if defined(WITH_AMX)
    if (level == 3) return AMX_BYTES;
#endif
#if defined(__x86_64__)
    if (level == 4) return VNNI_BYTES;
    if (level == 2) return AVX512_BYTES;
    if (level == 1) return AVX2_BYTES;
#endif
    return BASE_BYTES;
}

// function(pool) of a pool that nobody else uses meanwhile
template <class Function>
int alone(void* pool, Function&& function) {
    Pool& threads = *static_cast<Pool*>(pool);
    std::lock_guard<std::mutex> alone(threads.alone);
    return function(threads);
}

template <class Function>
int with(void* pool, int level, Function&& function) {
    return alone(pool, [&](Pool& p) { return function(kernels(level), p); });
}

template <class Function>
int with_bytes(void* pool, int level, Function&& function) {
    return alone(pool, [&](Pool& p) { return function(byte_kernels(level), p); });
}

#if defined(WITH_AMX)
// Whether the processor has its instructions, and the system lets this process have its registers.
bool has_amx() {
    unsigned a, b, c, d, more, none;
    constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25, AVX512_BF16 = 1u << 5;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &more, &none, &none, &none)) return false;
    if ((d & (BF16 | TILE | INT8)) != (BF16 | TILE | INT8) || (more & AVX512_BF16) == 0) return false;
    constexpr int REQUEST = 0x1023, REGISTERS = 18;  // ARCH_REQ_XCOMP_PERM of Linux
    return syscall(SYS_arch_prctl, REQUEST, REGISTERS) == 0;
}
#endif

}  // namespace

// the highest set of instructions that this processor has: 0 what its family begins with, 1 AVX2 and FMA, 2 AVX-512,
// 3 AMX for bfloat16 and bytes
PUBLIC int resnetkit_level() {
#if defined(WITH_AMX)
    static const bool amx = has_amx();
    if (amx) return 3;
#endif
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

// the same for levels of 8 bits: 4 is AVX-512 with VNNI, where `level` is 2
PUBLIC int resnetkit_byte_level(int level) {
#if defined(__x86_64__)
    if (level == 2 && __builtin_cpu_supports("avx512vnni")) return 4;
#endif
    return level;
}

// null where threads cannot be had; with `team` the threads are another library's
PUBLIC void* resnetkit_pool(int threads, Pool::Team team) {
    try {
        return new Pool(threads, team);
    } catch (const std::exception&) {
        return nullptr;
    }
}

PUBLIC void resnetkit_end(void* pool) { delete static_cast<Pool*>(pool); }

PUBLIC int resnetkit_direct(void* pool, int level, const Convolution* conv) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.direct(p, *conv); });
}

PUBLIC int resnetkit_winograd(void* pool, int level, const Convolution* conv) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.winograd(p, *conv); });
}

PUBLIC int resnetkit_convolve(void* pool, int level, const Convolution* conv, const float* weight, const Strides* at) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.convolve(p, *conv, weight, *at); });
}

PUBLIC int resnetkit_input_gradient(void* pool, int level, const Convolution* conv, const float* weight,
                                    const Strides* at, float* to) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.input_gradient(p, *conv, weight, *at, to); });
}

PUBLIC int resnetkit_weight_gradient(void* pool, int level, const Convolution* conv, float* gradient,
                                      const Strides* at) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.weight_gradient(p, *conv, gradient, *at); });
}

PUBLIC int64_t resnetkit_packed(int level, const Convolution* conv) { return kernels(level).packed(*conv); }

PUBLIC int resnetkit_pack(void* pool, int level, const Convolution* conv, const float* weight, const Strides* at,
                          float* to) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.pack(p, *conv, weight, *at, to), DONE; });
}

PUBLIC int resnetkit_transform(void* pool, int level, const Convolution* conv, const float* weight, const Strides* at,
                               float* to) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.transform(p, *conv, weight, *at, to), DONE; });
}

PUBLIC int resnetkit_max_pool(void* pool, int level, const Convolution* conv) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.max_pool(p, *conv), DONE; });
}

PUBLIC int resnetkit_mean_pool(void* pool, int level, const Convolution* conv) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.mean_pool(p, *conv), DONE; });
}

PUBLIC int resnetkit_mean(void* pool, int level, const Convolution* conv) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.mean(p, *conv), DONE; });
}

PUBLIC int resnetkit_add_relu(void* pool, int level, const Convolution* conv) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.add_relu(p, *conv), DONE; });
}

PUBLIC int resnetkit_norm_forward(void* pool, int level, const Norm* norm) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.norm_forward(p, *norm); });
}

PUBLIC int resnetkit_norm_backward(void* pool, int level, const Norm* norm) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.norm_backward(p, *norm); });
}

PUBLIC int resnetkit_relu_backward(void* pool, int level, const Norm* norm) {
    return with(pool, level, [&](const Kernels& k, Pool& p) { return k.relu_backward(p, *norm); });
}

PUBLIC int resnetkit_direct_bytes(void* pool, int level, const Convolution* conv) {
    return with_bytes(pool, level, [&](const ByteKernels& k, Pool& p) { return k.direct(p, *conv); });
}

PUBLIC int64_t resnetkit_packed_bytes(int level, const Convolution* conv) {
    return byte_kernels(level).packed(*conv);
}

PUBLIC int resnetkit_pack_bytes(void* pool, int level, const Convolution* conv, const int8_t* weight, int8_t* to) {
    return with_bytes(pool, level, [&](const ByteKernels& k, Pool& p) { return k.pack(p, *conv, weight, to), DONE; });
}

PUBLIC int resnetkit_winograd_bytes(void* pool, int level, const Convolution* conv) {
    return with_bytes(pool, level, [&](const ByteKernels& k, Pool& p) { return k.winograd(p, *conv); });
}

PUBLIC int resnetkit_round_transformed(void* pool, int level, const Convolution* conv, const float* from, float* to) {
    return with_bytes(pool, level,
                      [&](const ByteKernels& k, Pool& p) { return k.round_transformed(p, *conv, from, to), DONE; });
}

PUBLIC int resnetkit_max_levels(void* pool, int level, const Convolution* conv) {
    return with_bytes(pool, level, [&](const ByteKernels& k, Pool& p) { return k.max_pool(p, *conv), DONE; });
}

PUBLIC int resnetkit_to_levels(void* pool, int level, const Convolution* conv) {
    return with_bytes(pool, level, [&](const ByteKernels& k, Pool& p) { return k.to_levels(p, *conv), DONE; });
}

PUBLIC int resnetkit_to_floats(void* pool, int level, const Convolution* conv) {
    return with_bytes(pool, level, [&](const ByteKernels& k, Pool& p) { return k.to_floats(p, *conv), DONE; });
}
