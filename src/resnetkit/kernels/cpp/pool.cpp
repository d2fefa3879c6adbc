#include "pool.h"

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_WIN32)
#include <malloc.h>
#include <process.h>
#else
#include <unistd.h>
#endif

namespace {

constexpr int SPINS = 4000;  // some 50 us: layers follow each other faster than a thread wakes up
constexpr int64_t PAGE = 1 << 21;

void breathe() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

int64_t process() {
#if defined(_WIN32)
    return _getpid();
#else
    return getpid();
#endif
}

float* allocate(int64_t bytes) {
#if defined(_WIN32)
    return static_cast<float*>(_aligned_malloc(bytes, PAGE));
#else
    void* memory = nullptr;
    if (posix_memalign(&memory, PAGE, bytes)) return nullptr;
#if defined(__linux__)
    madvise(memory, bytes, MADV_HUGEPAGE);  // tables of small pages would be read all the time
#endif
    return static_cast<float*>(memory);
#endif
}

void release(float* memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

}  // namespace

Pool::Pool(int size, Team other) : count(size < 1 ? 1 : size), team(other), owner(process()) {
    if (team) return;
    for (int worker = 1; worker < count; worker++) threads.emplace_back([this, worker] { serve(worker); });
}

Pool::~Pool() {
    if (process() != owner) {  // a fork has none of the threads
        for (auto& thread : threads) thread.detach();
        return;
    }
    ended = true;
    round++;
    round.notify_all();
    for (auto& thread : threads) thread.join();
}

void Pool::run(int64_t number, Work what, void* with) {
    items = number, work = what, context = with;
    next = 0;
    bool alone = count == 1 || number < 2 || process() != owner;
    if (alone) return take(0);
    if (team) {
        joined = 0;
        return team(join, this, count, 0);
    }
    busy = count - 1;
    round++;
    round.notify_all();
    take(0);
    for (int spin = 0; busy.load() != 0; spin++) {
        if (spin < SPINS)
            breathe();
        else
            std::this_thread::yield();
    }
}

void Pool::take(int worker) {
    for (int64_t item = next++; item < items; item = next++) work(context, item, worker);
}

void Pool::join(void* pool) {
    Pool* joining = static_cast<Pool*>(pool);
    joining->take(joining->joined++);
}

void Pool::serve(int worker) {
    uint32_t seen = 0;
    while (true) {
        for (int spin = 0; spin < SPINS && round.load() == seen; spin++) breathe();
        round.wait(seen);
        seen++;
        if (ended) return;
        take(worker);
        busy--;
    }
}

float* Pool::Room::take(int64_t floats) {
    if (floats > held) {
        release(memory);
        held = 0;
        int64_t bytes = (floats * static_cast<int64_t>(sizeof(float)) + PAGE - 1) / PAGE * PAGE;
        memory = allocate(bytes);
        if (!memory) return nullptr;
        held = bytes / static_cast<int64_t>(sizeof(float));
    }
    return memory;
}

Pool::Room::~Room() { release(memory); }
