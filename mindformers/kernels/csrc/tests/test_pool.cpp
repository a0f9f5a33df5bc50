// The thread pool: every item once, nested and concurrent calls, exceptions, fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../error.h"
#include "../pool.h"

#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }  // the forked process makes threads
#endif

using namespace mf;

namespace {

std::atomic<int> failures{0};

void expect(bool right, const char* what) {
  if (right) return;
  std::printf("FAILED %s\n", what);
  ++failures;
}

// Items of [0, n) are each seen once, in pieces no larger than the grain unless one thread has them all.
bool each_once(int64_t items, int64_t grain) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
  for (auto& s : seen) s = 0;
  parallel_for(items, grain, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) ++seen[static_cast<size_t>(begin)];
  });
  for (auto& s : seen)
    if (s != 1) return false;
  return true;
}

void test_items() {
  for (int64_t items : {0, 1, 2, 7, 64, 1000})
    for (int64_t grain : {1, 3, 1000}) expect(each_once(items, grain), "every item once");
  for (int i = 0; i < 3000; ++i) expect(each_once(5, 1), "short jobs one after the other");
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // the workers sleep and are woken
    expect(each_once(9, 1), "after a pause");
  }
}

void test_all_threads_take_part() {
  std::atomic<int> inside{0}, most{0};
  parallel_for(num_threads(), 1, [&](int64_t, int64_t) {
    const int now = ++inside;
    for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
    }
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (most < num_threads() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    --inside;
  });
  expect(most == num_threads(), "every thread takes part");
}

void test_nested() {
  std::atomic<int> sum{0};
  parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) parallel_for(10, 1, [&](int64_t b, int64_t e) { sum += static_cast<int>(e - b); });
  });
  expect(sum == 80, "a call from inside a call");
}

void test_concurrent() {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 500; ++i) expect(each_once(17, 2), "calls from several threads");
    });
  }
  for (auto& thread : threads) thread.join();
}

void test_exceptions() {
  for (int i = 0; i < 100; ++i) {
    bool caught = false;
    try {
      parallel_for(50, 1, [&](int64_t begin, int64_t) {
        if (begin == 20) throw std::runtime_error("twenty");
      });
    } catch (const std::runtime_error& error) {
      caught = std::strcmp(error.what(), "twenty") == 0;
    }
    expect(caught, "an exception reaches the caller");
  }
  expect(each_once(30, 1), "the pool works after an exception");
  const int status = guarded([]() -> int { throw std::runtime_error("told"); });
  expect(status != 0 && std::strcmp(mf_last_error(), "told") == 0, "an entry reports an exception");
}

void test_scratch() {
  char* first = scratch<char>(kScratchNorm, 100);
  expect(reinterpret_cast<uintptr_t>(first) % 64 == 0, "scratch memory is aligned");
  expect(scratch<char>(kScratchNorm, 50) == first, "scratch memory is reused");
  std::memset(scratch<char>(kScratchNorm, 100000), 1, 100000);
  expect(scratch<char>(kScratchPlugin, 10) != scratch<char>(kScratchNorm, 10), "each user has its own scratch memory");
}

void test_fork() {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // a hang is a failure too
    for (int i = 0; i < 100; ++i) expect(each_once(40, 1), "a forked process");
    test_all_threads_take_part();
    std::fflush(stdout);
    _exit(failures != 0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  expect(status == 0, "the forked process ended well");
  expect(each_once(40, 1), "the parent after the fork");
}

}  // namespace

int main() {
  if (std::getenv("MF_NUM_THREADS") == nullptr) setenv("MF_NUM_THREADS", "4", 1);
  test_items();
  test_all_threads_take_part();
  test_nested();
  test_concurrent();
  test_exceptions();
  test_scratch();
  test_fork();
  std::printf("pool: %d threads, %d failures\n", num_threads(), failures.load());
  return failures != 0;
}
