// How fast this machine reads memory: GB/s of N threads that sum one buffer far larger than the caches.
//   g++ -O3 -march=native -pthread bandwidth.cpp -o bandwidth && ./bandwidth THREADS [MEGABYTES]
// Prints two numbers: the median over the passes with pages of the usual size, and with huge pages where the system
// gives them (each the better of loops with and without software prefetch). Threads take chunks as they finish, so
// that a slow core does not hold the other up.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

typedef uint64_t Vector __attribute__((vector_size(64)));

static const size_t kChunk = 1 << 20;  // bytes a thread takes at a time
static const int kPasses = 9;

static uint64_t sum_chunk(const char* begin, int prefetch) {
  const Vector* p = reinterpret_cast<const Vector*>(begin);
  Vector a{}, b{}, c{}, d{};
  for (size_t i = 0; i < kChunk / sizeof(Vector); i += 4) {
    if (prefetch > 0) {
      for (int k = 0; k < 4; ++k) __builtin_prefetch(reinterpret_cast<const char*>(p + i + k) + prefetch);
    }
    a += p[i];
    b += p[i + 1];
    c += p[i + 2];
    d += p[i + 3];
  }
  const Vector s = a + b + c + d;
  return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

static double pass_gbs(const char* data, size_t chunks, int threads, int prefetch) {
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> total{0};
  const auto work = [&] {
    uint64_t sum = 0;
    for (size_t i; (i = next.fetch_add(1)) < chunks;) sum += sum_chunk(data + i * kChunk, prefetch);
    total += sum;
  };
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (total == 0) std::abort();  // the sum is used, so the reads stay
  return static_cast<double>(chunks * kChunk) / seconds / 1e9;
}

static double median_gbs(size_t chunks, int threads, bool huge_pages) {
  const size_t page = 2 << 20, bytes = (chunks * kChunk + page - 1) / page * page;
  char* data = static_cast<char*>(std::aligned_alloc(page, bytes));
  if (data == nullptr) {
    std::fprintf(stderr, "no memory for %zu MB\n", chunks);
    std::exit(1);
  }
#if defined(__linux__)
  madvise(data, bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
  std::fill(data, data + bytes, 1);
  double best = 0;
  for (const int prefetch : {0, 2048}) {
    std::vector<double> found;
    for (int i = 0; i < kPasses; ++i) found.push_back(pass_gbs(data, chunks, threads, prefetch));
    std::sort(found.begin(), found.end());
    best = std::max(best, found[kPasses / 2]);
  }
  std::free(data);
  return best;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const int megabytes = argc > 2 ? std::atoi(argv[2]) : 512;
  if (threads < 1 || megabytes < 1) {
    std::fprintf(stderr, "usage: bandwidth THREADS [MEGABYTES], both at least 1\n");
    return 2;
  }
  const double small = median_gbs(megabytes, threads, false);
  std::printf("%.2f %.2f\n", small, median_gbs(megabytes, threads, true));
  return 0;
}
