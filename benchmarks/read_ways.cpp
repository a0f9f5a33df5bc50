// Whether any way of reading memory is faster than another: GB/s of N threads over one buffer in huge pages.
//   g++ -O3 -march=native -pthread read_ways.cpp -o read_ways && ./read_ways THREADS [MEGABYTES [PASSES]]
// A thread takes a chunk at a time and reads it as one stream or as several that lie apart, with or without software
// prefetch some cache lines ahead. The ways take turns; a line gives the median and the best pass.
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

enum Level { kNone = -1, kNonTemporal = 0, kSecond = 2, kFirst = 3 };

struct Way {
  const char* name;
  uint64_t (*read)(const char*, size_t);
  size_t chunk;  // bytes
  std::vector<double> gbs;
};

template <int kStreams, Level kLevel, int kAhead>
static uint64_t read(const char* data, size_t bytes) {
  const size_t part = bytes / kStreams;
  Vector sums[8] = {};
  for (size_t i = 0; i < part; i += 2 * sizeof(Vector)) {
    for (int s = 0; s < kStreams; ++s) {
      const char* const p = data + s * part + i;
      if constexpr (kLevel != kNone) {
        __builtin_prefetch(p + kAhead * 64, 0, kLevel);
        __builtin_prefetch(p + kAhead * 64 + 64, 0, kLevel);
      }
      sums[2 * s & 7] += *reinterpret_cast<const Vector*>(p);
      sums[(2 * s & 7) + 1] += *reinterpret_cast<const Vector*>(p + sizeof(Vector));
    }
  }
  uint64_t total = 0;
  for (const Vector& sum : sums)
    for (int i = 0; i < 8; ++i) total += sum[i];
  return total;
}

static double pass_gbs(const Way& way, const char* data, size_t bytes, int threads) {
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> total{0};
  const auto work = [&] {
    for (size_t at; (at = next.fetch_add(way.chunk)) < bytes;) total += way.read(data + at, way.chunk);
  };
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (total == 0) std::abort();  // the sum is used, so the reads stay
  return static_cast<double>(bytes) / seconds / 1e9;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2, megabytes = argc > 2 ? std::atoi(argv[2]) : 256;
  const int passes = argc > 3 ? std::atoi(argv[3]) : 25;
  if (threads < 1 || megabytes < 2 || passes < 1) {
    std::fprintf(stderr, "usage: read_ways THREADS [MEGABYTES [PASSES]], at least 1, 2 and 1\n");
    return 2;
  }
  const size_t page = 2 << 20, bytes = static_cast<size_t>(megabytes) / 2 * page;
  char* const data = static_cast<char*>(std::aligned_alloc(page, bytes));
  if (data == nullptr) {
    std::fprintf(stderr, "no memory for %d MB\n", megabytes);
    return 1;
  }
#if defined(__linux__)
  madvise(data, bytes, MADV_HUGEPAGE);
#endif
  std::fill(data, data + bytes, 1);
  const size_t small = 64 << 10, middle = 256 << 10, large = 1 << 20;
  Way ways[] = {
      {"one stream, chunks of 64 KB", read<1, kNone, 0>, small, {}},
      {"one stream, chunks of 1 MB", read<1, kNone, 0>, large, {}},
      {"two streams, 64 KB", read<2, kNone, 0>, small, {}},
      {"four streams, 64 KB", read<4, kNone, 0>, small, {}},
      {"four streams, 1 MB", read<4, kNone, 0>, large, {}},
      {"eight streams, 1 MB", read<8, kNone, 0>, large, {}},
      {"prefetch to L1, 8 lines ahead", read<1, kFirst, 8>, small, {}},
      {"prefetch to L1, 32 lines ahead", read<1, kFirst, 32>, small, {}},
      {"prefetch to L2, 32 lines ahead", read<1, kSecond, 32>, small, {}},
      {"prefetch to L2, 64 lines ahead", read<1, kSecond, 64>, small, {}},
      {"prefetch non-temporal, 16 lines ahead", read<1, kNonTemporal, 16>, small, {}},
      {"two streams, prefetch to L1, 256 KB", read<2, kFirst, 16>, middle, {}},
      {"four streams, prefetch to L1, 1 MB", read<4, kFirst, 16>, large, {}},
  };
  for (int pass = 0; pass < passes; ++pass)
    for (Way& way : ways) way.gbs.push_back(pass_gbs(way, data, bytes, threads));
  for (Way& way : ways) {
    std::sort(way.gbs.begin(), way.gbs.end());
    std::printf("%-40s median %5.1f best %5.1f\n", way.name, way.gbs[way.gbs.size() / 2], way.gbs.back());
  }
  std::free(data);
  return 0;
}
