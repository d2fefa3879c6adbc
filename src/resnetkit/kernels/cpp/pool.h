// Threads that share out the items of a loop, and memory that they compute in.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

class Pool {
  public:
    // runs a function with a value on some threads, as GOMP_parallel of GCC's OpenMP does
    using Team = void (*)(void (*function)(void*), void* value, unsigned threads, unsigned flags);

    // Of threads of its own, or of another library's, which would compete with them where both are used in turns.
    Pool(int threads, Team team);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // work(context, item, worker) for every item from 0 to items - 1; workers count from 0
    using Work = void (*)(void* context, int64_t item, int worker);
    void run(int64_t items, Work work, void* context);

    // at least this many floats, which stay until the next call and start where a page does; nullptr if there are none.
    // The weights that a call makes for itself lie apart from what it computes with them.
    float* room(int64_t floats) { return work_room.take(floats); }
    float* weights(int64_t floats) { return weight_room.take(floats); }

    int size() const { return count; }

    std::mutex alone;  // of the call that is using the pool

  private:
    struct Room {
        float* memory = nullptr;
        int64_t held = 0;

        float* take(int64_t floats);
        ~Room();
    };

    void serve(int worker);
    void take(int worker);
    static void join(void* pool);

    int count;
    Team team;
    std::vector<std::thread> threads;
    std::atomic<uint32_t> round{0};
    std::atomic<int> busy{0};
    std::atomic<int64_t> next{0};
    int64_t items = 0;
    Work work = nullptr;
    void* context = nullptr;
    std::atomic<int> joined{0};
    std::atomic<bool> ended{false};
    int64_t owner;
    Room work_room, weight_room;
};

// for a lambda (item, worker)
template <class Function>
void parallel(Pool& pool, int64_t items, Function&& function) {
    auto call = [](void* context, int64_t item, int worker) { (*static_cast<Function*>(context))(item, worker); };
    pool.run(items, call, const_cast<void*>(static_cast<const void*>(&function)));
}
