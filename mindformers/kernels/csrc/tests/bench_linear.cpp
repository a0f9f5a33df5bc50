// Times linear layers of two Llama models: bench_linear [dtype] [M]. The weights of each shape fill 192 MiB and are
// used in turn, so that they come from memory as they do in a model. GB/s counts the weights, "read" is a plain loop
// that sums other parts of that memory (the limit), GFLOP/s counts 2 M I O. Best of many short bursts: the machine may
// be shared.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../linear.h"
#include "../pool.h"

using namespace mf;

namespace {

constexpr int64_t kBytes = 192 << 20;
volatile int64_t sink;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double read_all(const char* data, int64_t bytes) {
  constexpr int64_t chunk = 65536;
  const double begin = seconds();
  parallel_for(bytes / chunk, 1, [&](int64_t c, int64_t end) {
    const int64_t* p = reinterpret_cast<const int64_t*>(data + c * chunk);
    const int64_t* stop = reinterpret_cast<const int64_t*>(data + end * chunk);
    int64_t sums[8] = {};
    for (; p < stop; p += 8)
      for (int i = 0; i < 8; ++i) sums[i] += p[i];
    sink = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
  });
  return seconds() - begin;
}

void bench(DType dtype, int64_t groups, int64_t O, int64_t I, int64_t M, char* memory) {
  const int64_t bytes = O * I * dtype_size(dtype), copies = std::max<int64_t>(1, kBytes / bytes);
  std::vector<float> x(static_cast<size_t>(M * I), 0.5f), out(static_cast<size_t>(M * O));
  std::vector<float> scale(static_cast<size_t>(O * groups), 0.01f);
  LinearArgs args;
  args.x = x.data();
  args.M = M;
  args.I = args.x_stride = I;
  args.weight_dtype = dtype;
  args.groups = groups;
  args.out = out.data();
  args.out_stride = O;
  double best = 1e9, read = 1e9;
  const int64_t wanted = (4 << 20) / (bytes * std::max<int64_t>(1, M / 8));
  const int64_t burst = std::max<int64_t>(1, std::min(copies, wanted));
  const int64_t read_bytes = burst * bytes / 65536 * 65536;
  int64_t at = 0;
  const double until = seconds() + 0.4;
  for (int run = 0; run < 5 || seconds() < until; ++run) {
    if (at + 2 * burst > copies) at = 0;
    if (M <= 16) read = std::min(read, read_all(memory + at * bytes, read_bytes));
    if (at + 2 * burst <= copies) at += burst;
    const double begin = seconds();
    for (int64_t c = at; c < at + burst; ++c) {
      args.weights[0] = {memory + c * bytes, O, I, nullptr, dtype == I8 ? scale.data() : nullptr};
      linear(args);
    }
    best = std::min(best, (seconds() - begin) / static_cast<double>(burst));
    at += burst;
  }
  const double limit = static_cast<double>(read_bytes) / read;
  std::printf("%-9s g=%-4lld %5lldx%-5lld M=%-4lld %9.1f us %7.1f GB/s", dtype_name(dtype), (long long)groups,
              (long long)O, (long long)I, (long long)M, best * 1e6, bytes / best * 1e-9);
  if (M <= 16) std::printf(" (read %5.1f: %3.0f %%)", limit * 1e-9, 100 * (bytes / best) / limit);
  std::printf(" %8.1f GFLOP/s\n", 2.0 * M * I * O / best * 1e-9);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  const int64_t shapes[][2] = {{768, 768},   {2048, 768},  {768, 2048}, {32000, 768},
                               {2048, 2048}, {8192, 2048}, {2048, 8192}};
  char* memory = static_cast<char*>(std::aligned_alloc(1 << 21, kBytes + (1 << 21)));
#if defined(__linux__)
  madvise(memory, kBytes, MADV_HUGEPAGE);  // as the loader does with weights
#endif
  for (int64_t i = 0; i < kBytes / 4; ++i) {  // small numbers in every dtype
    const uint32_t pattern[] = {0x3c003c00u, 0x3c103c20u, 0x3b803ba0u};
    reinterpret_cast<uint32_t*>(memory)[i] = pattern[i % 3];
  }
  std::printf("%s, %d threads\n", mf_isa(), num_threads());
  for (int64_t M : {1, 8, 128, 512}) {
    if (argc > 2 && M != std::atoll(argv[2])) continue;
    for (DType dtype : {F32, BF16, F16, I8}) {
      if (!only.empty() && only != dtype_name(dtype)) continue;
      for (const auto& shape : shapes) {
        if (M > 16 && shape[0] == 32000) continue;
        bench(dtype, 1, shape[0], shape[1], M, memory);
        if (dtype == I8 && shape[0] == 2048) bench(dtype, shape[1] / 64, shape[0], shape[1], M, memory);
      }
    }
  }
  std::free(memory);
}
