#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

namespace mf {
namespace {

constexpr int kMaxThreads = 256;
constexpr auto kSpin = std::chrono::microseconds(30);

thread_local bool inside_pool = false;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Cores allowed by the cgroup's CPU quota (version 2, then 1); 0 when there is no limit.
int cgroup_cores() {
  double quota = -1, period = -1;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(file, "%lf %lf", &quota, &period) != 2) quota = -1;  // "max 100000": no limit
    std::fclose(file);
  } else if (std::FILE* quota_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) {
    if (std::fscanf(quota_file, "%lf", &quota) != 1) quota = -1;
    std::fclose(quota_file);
    if (std::FILE* period_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r")) {
      if (std::fscanf(period_file, "%lf", &period) != 1) period = -1;
      std::fclose(period_file);
    }
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period + 0.5)) : 0;
}

// Digits and nothing else; an empty variable is one that is not set.
int count_threads() {
  const char* const text = std::getenv("MF_NUM_THREADS");
  if (text != nullptr && *text != '\0') {
    int wanted = 0;
    const char* at = text;
    for (; *at >= '0' && *at <= '9' && wanted <= kMaxThreads; ++at) wanted = 10 * wanted + (*at - '0');
    if (*at != '\0' || wanted < 1 || wanted > kMaxThreads) {
      throw std::runtime_error(std::string("MF_NUM_THREADS='") + text + "' is no number of threads from 1 to " +
                               std::to_string(kMaxThreads));
    }
    return wanted;
  }
  cpu_set_t allowed;
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) cores = CPU_COUNT(&allowed);
  const int quota = cgroup_cores();
  if (quota > 0) cores = std::min(cores, quota);
  return std::min(std::max(cores, 1), kMaxThreads);
}

// One job at a time. `state_` packs the job's number, whether it still takes workers, and how many are in it, so that a
// worker enters only a job that is open and the caller leaves only when nobody is inside: the caller never waits for a
// worker that is asleep or has no core.
class Pool {
 public:
  bool try_acquire() { return busy_.try_lock(); }

  void run(int64_t items, int64_t grain, void (*call)(void*, int64_t, int64_t), void* body) {
    std::lock_guard<std::mutex> held(busy_, std::adopt_lock);
    start_workers();
    items_ = items;
    grain_ = grain;
    call_ = call;
    body_ = body;
    error_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    state_.store((state_.load(std::memory_order_relaxed) & kNumberMask) + kNumberStep + kOpen);
    if (sleepers_.load() > 0) {
      { std::lock_guard<std::mutex> lock(sleep_mutex_); }
      wake_.notify_all();
    }
    work();
    state_.fetch_and(~kOpen);
    for (int spins = 0; (state_.load(std::memory_order_acquire) & kInsideMask) != 0; ++spins) {
      spins < 2000 ? pause_cpu() : static_cast<void>(sched_yield());
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr uint64_t kInsideMask = 0xffff, kOpen = 0x10000, kNumberStep = 0x20000;
  static constexpr uint64_t kNumberMask = ~uint64_t{0x1ffff};

  void start_workers() {
    if (started_) return;
    started_ = true;
    for (int i = 1; i < num_threads(); ++i) {
      try {
        std::thread([this] { worker(); }).detach();
      } catch (const std::system_error&) {
        return;  // no more threads to be had: the work is done by fewer
      }
    }
  }

  void work() {
    inside_pool = true;
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= items_) break;
      try {
        call_(body_, begin, std::min(begin + grain_, items_));
      } catch (...) {
        next_.store(items_, std::memory_order_relaxed);
        std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
    inside_pool = false;
  }

  void worker() {
    uint64_t done = 0;
    for (;;) {
      uint64_t state = wait_after(done);
      done = state & kNumberMask;
      while ((state & kOpen) != 0 && (state & kNumberMask) == done) {
        if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
        work();
        state_.fetch_sub(1, std::memory_order_release);
        break;
      }
    }
  }

  // The state once a job other than number `done` is there: spins for a moment, then sleeps.
  uint64_t wait_after(uint64_t done) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        const uint64_t state = state_.load(std::memory_order_acquire);
        if ((state & kNumberMask) != done) return state;
        pause_cpu();
      }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    sleepers_.fetch_add(1);
    while ((state_.load() & kNumberMask) == done) wake_.wait(lock);
    sleepers_.fetch_sub(1);
    return state_.load(std::memory_order_acquire);
  }

  std::mutex busy_, sleep_mutex_, error_mutex_;
  std::condition_variable wake_;
  bool started_ = false;
  int64_t items_ = 0, grain_ = 1;
  void (*call_)(void*, int64_t, int64_t) = nullptr;
  void* body_ = nullptr;
  std::exception_ptr error_;
  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int64_t> next_{0};
};

std::atomic<Pool*> pool{nullptr};

// The pool lives as long as the process: its workers may sleep in it while the process ends. A forked child has none of
// the workers, so it makes a new pool.
Pool* get_pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    pool.store(nullptr);
    inside_pool = false;
  });
  (void)registered;
  Pool* current = pool.load(std::memory_order_acquire);
  if (current != nullptr) return current;
  Pool* made = new Pool;
  if (pool.compare_exchange_strong(current, made)) return made;
  delete made;
  return current;
}

struct Scratch {
  void* data[kScratchSlots] = {};
  int64_t size[kScratchSlots] = {};
  ~Scratch() {
    for (void* block : data) std::free(block);
  }
};

}  // namespace

int num_threads() {
  static const int count = count_threads();
  return count;
}

void* scratch_bytes(ScratchSlot slot, int64_t bytes) {
  static thread_local Scratch mine;
  if (mine.size[slot] < bytes) {
    const int64_t size = (std::max(bytes, mine.size[slot] * 3 / 2) + 4095) / 4096 * 4096;
    std::free(mine.data[slot]);
    mine.size[slot] = 0;
    mine.data[slot] = std::aligned_alloc(64, static_cast<size_t>(size));
    if (mine.data[slot] == nullptr) throw std::bad_alloc();
    mine.size[slot] = size;
  }
  return mine.data[slot];
}

namespace detail {

void run(int64_t items, int64_t grain, void (*call)(void*, int64_t, int64_t), void* body) {
  if (items <= 0) return;
  if (inside_pool || items <= grain || num_threads() == 1) return call(body, 0, items);
  Pool* const current = get_pool();
  if (!current->try_acquire()) return call(body, 0, items);
  current->run(items, grain, call, body);
}

}  // namespace detail
}  // namespace mf
