// Times of attention: ./bench_attention [runs] [decode|prefill|flash]. The shortest of the runs, since other programs
// may use the machine.
#include <ctime>

#include "../attention.h"
#include "../pool.h"
#include "tools.h"

using namespace mf;
using namespace mf::test;

namespace {

int runs = 15;

// Seconds of one call of f(i), i < kinds: the mean over i of the shortest time, and the same of the process's CPU time.
struct Time {
  double wall = 0.0, cpu = 0.0;
};

double now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class F> Time shortest(int64_t kinds, F f) {
  std::vector<Time> best(static_cast<size_t>(kinds), Time{1e30, 1e30});
  for (int run = 0; run < runs; ++run) {
    for (int64_t i = 0; i < kinds; ++i) {
      const double cpu = now(CLOCK_PROCESS_CPUTIME_ID), wall = now(CLOCK_MONOTONIC);
      f(i);
      Time& time = best[static_cast<size_t>(i)];
      time.wall = std::min(time.wall, now(CLOCK_MONOTONIC) - wall);
      time.cpu = std::min(time.cpu, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
  }
  Time mean;
  for (const Time& time : best)
    mean.wall += time.wall / static_cast<double>(kinds), mean.cpu += time.cpu / static_cast<double>(kinds);
  return mean;
}

// As many layers as it takes to leave the caches: each call reads keys that were not touched for long.
void bench_paged(int64_t batch, int64_t tokens, int64_t context, int64_t heads, int64_t kv_heads, int64_t head_dim,
                 DType type) {
  const int64_t block = 16, rows = batch * tokens, blocks = (context + tokens + block - 1) / block;
  const int64_t slots = batch * blocks * block, floats = slots * kv_heads * head_dim;
  const int64_t bytes = 2 * batch * (context + tokens) * kv_heads * head_dim * dtype_size(type);
  const int64_t layers = tokens > 1 ? 1 : std::max<int64_t>(1, std::min<int64_t>(12, (int64_t{96} << 20) / bytes));
  std::vector<Array> keys, values;
  for (int64_t i = 0; i < layers; ++i) {
    keys.emplace_back(floats, type);
    values.emplace_back(floats, type);
    for (int64_t j = 0; i == 0 && j < floats; ++j) keys[0].set(j, 0.01 * static_cast<double>(j % 97));
    keys.back().bytes = keys[0].bytes;
    values.back().bytes = keys[0].bytes;
  }
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
  const Time time = shortest(layers, [&](int64_t i) {
    const size_t layer = static_cast<size_t>(i);
    const PagedCache cache{keys[layer].data(), values[layer].data(), type, slots, kv_heads, head_dim, block};
    if (paged_attention_step(cache, queries, reinterpret_cast<const float*>(qkv.bytes.data()),
                             {reinterpret_cast<const float*>(table.bytes.data()), head_dim, false}, slot_mapping.data(),
                             out.as<float>(), heads, 0.125f) != 0) {
      std::printf("%s\n", mf_last_error());
    }
  });
  const double seconds = time.wall;
  const double visible = static_cast<double>(context) + 0.5 * static_cast<double>(tokens + 1);
  std::printf(
      "paged %-8s B %2lld T %4lld context %5lld heads %2lld/%2lld of %3lld: %9.1f us (cpu %9.1f) %6.1f GB/s %7.1f "
      "GFLOP/s\n",
      dtype_name(type), (long long)batch, (long long)tokens, (long long)context, (long long)heads, (long long)kv_heads,
      (long long)head_dim, seconds * 1e6, time.cpu * 1e6, static_cast<double>(bytes) / seconds * 1e-9,
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
  const Time forward = shortest(1, [&](int64_t) {
    flash_forward(shape, view(q, heads), view(k, kv_heads), view(v, kv_heads), view(out, heads), max.as<float>(),
                  sum.as<float>());
  });
  const Time backward = shortest(1, [&](int64_t) {
    flash_backward(shape, view(q, heads), view(k, kv_heads), view(v, kv_heads), view(out, heads), view(dout, heads),
                   max.as<float>(), sum.as<float>(), view(dq, heads), view(dk, kv_heads), view(dv, kv_heads));
  });
  const double product = static_cast<double>(batch * heads * head_dim * tokens * (tokens + 1)) * 1e-9;
  std::printf(
      "flash %-8s B %2lld T %4lld heads %2lld/%2lld of %3lld: forward %8.1f us (cpu %8.1f) %6.1f GFLOP/s, backward "
      "%8.1f us (cpu %8.1f) %6.1f GFLOP/s\n",
      dtype_name(type), (long long)batch, (long long)tokens, (long long)heads, (long long)kv_heads, (long long)head_dim,
      forward.wall * 1e6, forward.cpu * 1e6, 2 * product / forward.wall, backward.wall * 1e6, backward.cpu * 1e6,
      5 * product / backward.wall);
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
