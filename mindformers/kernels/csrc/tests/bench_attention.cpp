// Times of attention: ./bench_attention [runs] [decode|prefill|flash]. The shortest of the runs, since other programs
// may use the machine. "read" is a plain loop that sums as many bytes of the same memory, the limit of decoding.
#include <ctime>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../attention.h"
#include "../pool.h"
#include "tools.h"

using namespace mf;
using namespace mf::test;

namespace {

int runs = 15;

volatile int64_t sink;

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Seconds of one call of f(i), i < kinds: the mean over i of the shortest time.
template <class F> double shortest(int64_t kinds, F f) {
  std::vector<double> best(static_cast<size_t>(kinds), 1e30);
  for (int run = 0; run < runs; ++run) {
    for (int64_t i = 0; i < kinds; ++i) {
      const double begin = now();
      f(i);
      best[static_cast<size_t>(i)] = std::min(best[static_cast<size_t>(i)], now() - begin);
    }
  }
  double sum = 0.0;
  for (const double time : best) sum += time;
  return sum / static_cast<double>(kinds);
}

void read_all(const char* data, int64_t bytes) {
  parallel_for(bytes / 32768, 1, [&](int64_t c, int64_t end) {
    const int64_t* p = reinterpret_cast<const int64_t*>(data + c * 32768);
    const int64_t* const stop = reinterpret_cast<const int64_t*>(data + end * 32768);
    int64_t sums[8] = {};
    for (; p < stop; p += 8)
      for (int i = 0; i < 8; ++i) sums[i] += p[i];
    sink = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
  });
}

// Caches in huge pages, as models have them.
struct Memory {
  static constexpr int64_t kBytes = int64_t{320} << 20;
  char* data = static_cast<char*>(std::aligned_alloc(1 << 21, kBytes));
  Memory() {
#if defined(__linux__)
    madvise(data, kBytes, MADV_HUGEPAGE);
#endif
    for (int64_t i = 0; i < kBytes / 4; ++i) {  // small numbers in every dtype
      const uint32_t pattern[] = {0x3c003c00u, 0x3c103c20u, 0x3b803ba0u};
      reinterpret_cast<uint32_t*>(data)[i] = pattern[i % 3];
    }
  }
  ~Memory() { std::free(data); }
};

// As many layers as it takes to leave the caches: each call reads keys that were not touched for long.
void bench_paged(int64_t batch, int64_t tokens, int64_t context, int64_t heads, int64_t kv_heads, int64_t head_dim,
                 DType type) {
  const int64_t block = 16, rows = batch * tokens, blocks = (context + tokens + block - 1) / block;
  const int64_t slots = batch * blocks * block, array = slots * kv_heads * head_dim * dtype_size(type);
  const int64_t bytes = 2 * batch * (context + tokens) * kv_heads * head_dim * dtype_size(type);
  const int64_t layers = tokens > 1 ? 1 : std::max<int64_t>(1, std::min<int64_t>(24, Memory::kBytes / (2 * array)));
  static const Memory memory;
  const Array qkv = randoms(rows * (heads + 2 * kv_heads) * head_dim), table = randoms(rows * head_dim);
  Array out(rows * heads * head_dim);
  std::vector<int32_t> tables, slot_mapping, positions;
  std::vector<int64_t> first_row = {0};
  for (int64_t i = 0; i < batch * blocks; ++i) tables.push_back(static_cast<int32_t>(i));
  for (int64_t b = 0; b < batch; ++b) {
    first_row.push_back((b + 1) * tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      positions.push_back(static_cast<int32_t>(context + t));
      slot_mapping.push_back(static_cast<int32_t>(b * blocks * block + context + t));
    }
  }
  const PagedQueries queries{rows, batch, first_row.data(), positions.data(), tables.data(), blocks, 0};
  const double read = shortest(layers, [&](int64_t i) { read_all(memory.data + 2 * i * array, bytes); });
  const double seconds = shortest(layers, [&](int64_t i) {
    char* const keys = memory.data + 2 * i * array;
    const PagedCache cache{keys, keys + array, type, slots, kv_heads, head_dim, block};
    if (paged_attention_step(cache, queries, reinterpret_cast<const float*>(qkv.bytes.data()),
                             {reinterpret_cast<const float*>(table.bytes.data()), head_dim, false}, slot_mapping.data(),
                             out.as<float>(), heads, 0.125f) != 0) {
      std::printf("%s\n", mf_last_error());
    }
  });
  const double visible = static_cast<double>(context) + 0.5 * static_cast<double>(tokens + 1);
  std::printf(
      "paged %-8s B %2lld T %4lld context %5lld heads %2lld/%2lld of %3lld: %9.1f us %6.1f GB/s (read %5.1f: %3.0f %%) "
      "%7.1f GFLOP/s\n",
      dtype_name(type), (long long)batch, (long long)tokens, (long long)context, (long long)heads, (long long)kv_heads,
      (long long)head_dim, seconds * 1e6, static_cast<double>(bytes) / seconds * 1e-9,
      static_cast<double>(bytes) / read * 1e-9, 100 * read / seconds,
      4.0 * static_cast<double>(rows * heads * head_dim) * visible / seconds * 1e-9);
}

void bench_flash(int64_t batch, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim, DType type) {
  FlashShape shape;
  shape.batch = batch, shape.heads = heads, shape.kv_heads = kv_heads, shape.queries = shape.keys = tokens;
  shape.head_dim = head_dim, shape.scale = 0.125f, shape.right = 0;
  Array q = randoms(batch * tokens * heads * head_dim, type), k = randoms(batch * tokens * kv_heads * head_dim, type),
        v = k;
  Array out = q, dout = q, dq = q, dk = k, dv = k, max(batch * tokens * heads * 8), sum(batch * tokens * heads * 8);
  const auto view = [&](Array& x, int64_t n) {
    return Heads{x.data(), type, tokens * n * head_dim, n * head_dim, head_dim};
  };
  const double forward = shortest(1, [&](int64_t) {
    flash_forward(shape, view(q, heads), view(k, kv_heads), view(v, kv_heads), view(out, heads), max.as<float>(),
                  sum.as<float>());
  });
  const double backward = shortest(1, [&](int64_t) {
    flash_backward(shape, view(q, heads), view(k, kv_heads), view(v, kv_heads), view(out, heads), view(dout, heads),
                   max.as<float>(), sum.as<float>(), view(dq, heads), view(dk, kv_heads), view(dv, kv_heads));
  });
  const double product = static_cast<double>(batch * heads * head_dim * tokens * (tokens + 1)) * 1e-9;
  std::printf(
      "flash %-8s B %2lld T %4lld heads %2lld/%2lld of %3lld: forward %8.1f us %6.1f GFLOP/s, backward %8.1f us "
      "%6.1f GFLOP/s\n",
      dtype_name(type), (long long)batch, (long long)tokens, (long long)heads, (long long)kv_heads, (long long)head_dim,
      forward * 1e6, 2 * product / forward, backward * 1e6, 5 * product / backward);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) runs = std::atoi(argv[1]);
  const std::string only = argc > 2 ? argv[2] : "";
  std::printf("%s, %d threads\n", mf_isa(), num_threads());
  if (only.empty() || only == "decode") {
    for (const DType type : {BF16, F32}) {
      for (const int64_t context : {128, 500, 2000, 8000}) bench_paged(1, 1, context, 12, 12, 64, type);
    }
    bench_paged(1, 1, 2000, 12, 12, 64, F16);
    bench_paged(1, 1, 128, 32, 8, 64, BF16);
    bench_paged(1, 1, 2000, 32, 8, 64, BF16);
    bench_paged(1, 1, 2000, 32, 8, 128, BF16);
    bench_paged(1, 1, 2000, 32, 1, 64, BF16);
    bench_paged(8, 1, 128, 12, 12, 64, BF16);
    bench_paged(8, 1, 1000, 12, 12, 64, BF16);
  }
  if (only.empty() || only == "prefill") {
    for (const DType type : {BF16, F32}) {
      bench_paged(1, 128, 0, 12, 12, 64, type);
      bench_paged(1, 512, 0, 12, 12, 64, type);
      bench_paged(1, 128, 0, 32, 8, 64, type);
      bench_paged(1, 512, 0, 32, 8, 64, type);
      bench_paged(1, 512, 7680, 12, 12, 64, type);
    }
  }
  if (only.empty() || only == "flash") {
    for (const DType type : {F32, BF16}) {
      bench_flash(4, 256, 12, 12, 64, type);
      bench_flash(1, 1024, 32, 8, 64, type);
    }
  }
  return 0;
}
