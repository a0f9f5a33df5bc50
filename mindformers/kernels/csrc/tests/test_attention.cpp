// Paged attention against sums in double: dtypes, head dims, groups, windows, rope styles, ragged batches, long
// contexts, and what must be refused.
#include "../attention.h"

#include "tools.h"

using namespace mf;
using namespace mf::test;

namespace {

struct Case {
  int64_t batch = 1, tokens = 1, heads = 4, kv_heads = 4, head_dim = 64, block_size = 16, rope = 64, window = 0;
  bool interleaved = false;
  DType type = F32;
  int64_t context = 40;  // at most so many tokens lie in the cache before
  bool ragged = true;
};

struct Step {
  Case c;
  std::vector<int64_t> before, real;  // tokens held, tokens of this step, per sequence
  int64_t rows, blocks, slots;
  std::vector<int64_t> first_row;
  std::vector<int32_t> tables, slot_mapping, positions;
  Array qkv, table, keys, values, out;
  std::vector<double> old_keys;
  float scale;

  explicit Step(const Case& c);
  PagedCache cache() { return {keys.data(), values.data(), c.type, slots, c.kv_heads, c.head_dim, c.block_size}; }
  PagedQueries queries() const {
    return {rows, c.batch, first_row.data(), positions.data(), tables.data(), blocks, c.window};
  }
  int run() {
    const Rope rope{table.as<float>(), c.rope, c.interleaved};
    return paged_attention_step(cache(), queries(), qkv.as<float>(), rope, slot_mapping.data(), out.as<float>(),
                                c.heads, scale);
  }
  int64_t slot(int64_t b, int64_t j) const {
    return tables[static_cast<size_t>(b * blocks + j / c.block_size)] * c.block_size + j % c.block_size;
  }
  std::vector<double> rotated(int64_t row, int64_t head) const;
  std::vector<double> expected() const;
};

Step::Step(const Case& given) : c(given) {
  rows = c.batch * c.tokens;
  int64_t longest = 0;
  for (int64_t b = 0; b < c.batch; ++b) {
    before.push_back(c.ragged ? static_cast<int64_t>(generator() % static_cast<uint64_t>(c.context + 1)) : c.context);
    real.push_back(c.ragged ? static_cast<int64_t>(generator() % static_cast<uint64_t>(c.tokens + 1)) : c.tokens);
    longest = std::max(longest, before.back() + real.back());
    first_row.push_back(b * c.tokens);
  }
  first_row.push_back(rows);
  blocks = std::max<int64_t>(1, (longest + c.block_size - 1) / c.block_size);
  std::vector<int32_t> order(static_cast<size_t>(c.batch * blocks + 2));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::shuffle(order.begin(), order.end(), generator);
  tables.assign(order.begin(), order.begin() + c.batch * blocks);
  slots = static_cast<int64_t>(order.size()) * c.block_size;
  keys = randoms(slots * c.kv_heads * c.head_dim, c.type);
  values = randoms(slots * c.kv_heads * c.head_dim, c.type);
  qkv = randoms(rows * (c.heads + 2 * c.kv_heads) * c.head_dim);
  out = randoms(rows * c.heads * c.head_dim);
  table = Array(rows * c.rope);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t t = 0; t < c.tokens; ++t) {
      const bool is_real = t < real[static_cast<size_t>(b)];
      const int64_t position = before[static_cast<size_t>(b)] + t;
      positions.push_back(is_real ? static_cast<int32_t>(position) : 1 << 30);
      slot_mapping.push_back(is_real ? static_cast<int32_t>(slot(b, position)) : -1);
      for (int64_t i = 0; i < c.rope / 2; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(c.rope));
        table.set((b * c.tokens + t) * c.rope + i, std::cos(angle));
        table.set((b * c.tokens + t) * c.rope + c.rope / 2 + i, std::sin(angle));
      }
    }
  }
  old_keys = keys.values();
  scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
}

// Head `head` of the row of qkv (queries, then keys), rotated.
std::vector<double> Step::rotated(int64_t row, int64_t head) const {
  const int64_t width = (c.heads + 2 * c.kv_heads) * c.head_dim, half = c.rope / 2;
  std::vector<double> x(static_cast<size_t>(c.head_dim));
  for (int64_t d = 0; d < c.head_dim; ++d) x[static_cast<size_t>(d)] = qkv[row * width + head * c.head_dim + d];
  std::vector<double> y = x;
  for (int64_t i = 0; i < half; ++i) {
    const size_t a = static_cast<size_t>(c.interleaved ? 2 * i : i),
                 b = static_cast<size_t>(c.interleaved ? 2 * i + 1 : i + half);
    const double cosine = table[row * c.rope + i], sine = table[row * c.rope + half + i];
    y[a] = x[a] * cosine - x[b] * sine;
    y[b] = x[b] * cosine + x[a] * sine;
  }
  return y;
}

// From the cache as it is now.
std::vector<double> Step::expected() const {
  std::vector<double> all(static_cast<size_t>(out.size), 0.0);
  const std::vector<double> k = keys.values(), v = values.values();
  for (int64_t m = 0; m < rows; ++m) {
    if (slot_mapping[static_cast<size_t>(m)] < 0) continue;
    const int64_t b = m / c.tokens, position = positions[static_cast<size_t>(m)];
    const int64_t first = c.window > 0 ? std::max<int64_t>(0, position - c.window + 1) : 0;
    for (int64_t n = 0; n < c.heads; ++n) {
      const std::vector<double> q = rotated(m, n);
      std::vector<double> scores;
      double max = -INFINITY, sum = 0.0;
      const auto at = [&](int64_t j) {
        return static_cast<size_t>((slot(b, j) * c.kv_heads + n / (c.heads / c.kv_heads)) * c.head_dim);
      };
      for (int64_t j = first; j <= position; ++j) {
        double score = 0.0;
        for (size_t d = 0; d < q.size(); ++d) score += q[d] * k[at(j) + d];
        scores.push_back(score * static_cast<double>(scale));
        max = std::max(max, scores.back());
      }
      for (double& score : scores) sum += score = std::exp(score - max);
      for (int64_t j = first; j <= position; ++j) {
        const double p = scores[static_cast<size_t>(j - first)] / sum;
        double* const to = &all[static_cast<size_t>((m * c.heads + n) * c.head_dim)];
        for (size_t d = 0; d < q.size(); ++d) to[d] += p * v[at(j) + d];
      }
    }
  }
  return all;
}

// Keys and values lie in their slots, rounded once, and nothing else changed.
void check_written(const Step& step) {
  const Case& c = step.c;
  std::vector<double> expected = step.old_keys;
  for (int64_t m = 0; m < step.rows; ++m) {
    const int64_t slot = step.slot_mapping[static_cast<size_t>(m)];
    for (int64_t h = 0; slot >= 0 && h < c.kv_heads; ++h) {
      const std::vector<double> k = step.rotated(m, c.heads + h);
      for (int64_t d = 0; d < c.head_dim; ++d) {
        const int64_t at = (slot * c.kv_heads + h) * c.head_dim + d, width = (c.heads + 2 * c.kv_heads) * c.head_dim;
        expected[static_cast<size_t>(at)] = k[static_cast<size_t>(d)];
        Array v(1, c.type);
        v.set(0, step.qkv[m * width + (c.heads + c.kv_heads + h) * c.head_dim + d]);
        if (step.values[at] != v[0])
          return expect_that(false, "value of row %lld head %lld", (long long)m, (long long)h);
      }
    }
  }
  const double error = error_of(expected, step.keys.values());
  expect_that(error <= rounding(c.type) + 1e-6, "cache write: error %g", error);
}

// float32 products: 1e-5. Blocks of queries on a bf16 cache round queries and probabilities to bf16 where the CPU has
// products of bf16.
double tolerance(const Case& c) {
  const bool rounds = c.type == BF16 && isa() == Isa::avx512_bf16 && c.tokens * c.heads / c.kv_heads > 1;
  return rounds ? 1.5e-2 : 1e-5;
}

void check(const Case& c) {
  Step step(c);
  const int code = step.run();
  expect_that(code == 0, "paged attention: %s", code != 0 ? mf_last_error() : "");
  check_written(step);
  const double error = error_of(step.expected(), step.out.values());
  expect_that(
      error <= tolerance(c),
      "paged attention B %lld T %lld N %lld K %lld H %lld block %lld R %lld window %lld type %s context %lld: error %g",
      (long long)c.batch, (long long)c.tokens, (long long)c.heads, (long long)c.kv_heads, (long long)c.head_dim,
      (long long)c.block_size, (long long)c.rope, (long long)c.window, dtype_name(c.type), (long long)c.context, error);
}

void check_random(int count) {
  for (int i = 0; i < count; ++i) {
    Case c;
    c.batch = pick({1, 1, 2, 3, 5, 16});
    c.tokens = pick({1, 1, 1, 2, 3, 7, 13});
    c.kv_heads = pick({1, 2, 3, 4});
    c.heads = c.kv_heads * pick({1, 1, 2, 3, 4, 6, 7, 8, 9, 16});
    c.head_dim = pick({32, 64, 64, 80, 96, 128, 40, 256, 36, 8, 6});
    c.rope = pick({c.head_dim, c.head_dim, c.head_dim / 2 / 2 * 2, 2, 0});
    c.interleaved = generator() % 2 == 0;
    c.block_size = pick({16, 16, 32, 64, 128, 1, 24});
    c.window = pick({0, 0, 1, 5, 33, 1000});
    c.type = std::vector<DType>{F32, F16, BF16}[generator() % 3];
    c.context = pick({0, 5, 40, 70, 300, 600});
    check(c);
  }
}

void check_long() {
  using Groups = std::vector<int64_t>;
  for (const DType type : {F32, F16, BF16}) {
    for (const int64_t group : share(4) > 1 ? Groups{1, 4, 16} : Groups{4}) {
      Case c;
      c.heads = 2 * group, c.kv_heads = 2, c.type = type, c.context = 1500, c.ragged = false;
      check(c);
      c.window = 700;
      check(c);
      c.window = 0, c.tokens = 37, c.context = 200;
      check(c);
    }
  }
}

// A context that grows by one token sees the same as one call over all of it.
void check_growth() {
  Case c;
  c.context = 0, c.tokens = 37, c.ragged = false, c.head_dim = c.rope = 32;
  Step whole(c);
  expect_that(whole.run() == 0, "growth: %s", mf_last_error());
  std::vector<double> got;
  Array keys(whole.keys.size), values(whole.keys.size);
  for (int64_t t = 0; t < c.tokens; ++t) {
    const int64_t width = (c.heads + 2 * c.kv_heads) * c.head_dim, first_row[2] = {0, 1};
    Array out(c.heads * c.head_dim);
    PagedCache cache = whole.cache();
    cache.keys = keys.data(), cache.values = values.data();
    const PagedQueries queries{
        1, 1, first_row, &whole.positions[static_cast<size_t>(t)], whole.tables.data(), whole.blocks, 0};
    const int code = paged_attention_step(
        cache, queries, whole.qkv.as<float>() + t * width, {whole.table.as<float>() + t * c.rope, c.rope, false},
        &whole.slot_mapping[static_cast<size_t>(t)], out.as<float>(), c.heads, whole.scale);
    expect_that(code == 0, "growth: token %lld", (long long)t);
    const std::vector<double> row = out.values();
    got.insert(got.end(), row.begin(), row.end());
  }
  const double error = error_of(whole.out.values(), got);
  expect_that(error <= 2e-6, "a prompt at once and token by token differ by %g", error);
}

// The parts without rope: write_cache, paged_attention on 16-bit queries and outputs, packed rows of several lengths.
void check_parts() {
  for (const DType type : {F32, F16, BF16}) {
    Case c;
    c.batch = 3, c.tokens = 4, c.heads = 6, c.kv_heads = 2, c.type = type, c.rope = 0;
    Step step(c);
    const int64_t width = (c.heads + 2 * c.kv_heads) * c.head_dim, q_width = c.heads * c.head_dim;
    Array half(step.qkv.size, type);
    for (int64_t i = 0; i < half.size; ++i) {
      half.set(i, step.qkv[i]);
      step.qkv.set(i, half[i]);
    }
    const char* const base = half.as<char>();
    const int64_t bytes = dtype_size(type), kv = c.kv_heads * c.head_dim;
    const HeadRows k{base + q_width * bytes, type, width}, v{base + (q_width + kv) * bytes, type, width};
    expect_that(write_cache(step.cache(), k, v, step.slot_mapping.data(), step.rows) == 0, "write_cache: %s",
                mf_last_error());
    check_written(step);
    PagedQueries queries = step.queries();
    std::vector<int32_t> positions = step.positions;
    for (size_t m = 0; m < positions.size(); ++m) positions[m] = step.slot_mapping[m] < 0 ? -1 : positions[m];
    queries.positions = positions.data();
    Array out(step.out.size, type);
    const int code = paged_attention(step.cache(), queries, {base, type, width}, out.data(), type, c.heads, step.scale);
    expect_that(code == 0, "paged_attention: %s", mf_last_error());
    const double error = error_of(step.expected(), out.values());
    expect_that(error <= rounding(type) + tolerance(c), "paged_attention on %s: error %g", dtype_name(type), error);
  }
}

// A wrong argument is named, and nothing is written.
void check_refusals() {
  Case c;
  c.batch = 2, c.tokens = 3, c.ragged = false;
  const auto refused = [&](const char* text, auto spoil) {
    Step step(c);
    const std::vector<char> keys = step.keys.bytes, values = step.values.bytes, out = step.out.bytes;
    spoil(step);
    expect_error(step.run(), text);
    expect_that(step.keys.bytes == keys && step.values.bytes == values && step.out.bytes == out,
                "%s: something was written", text);
  };
  refused("slot_mapping[5] is 99999", [](Step& s) { s.slot_mapping[5] = 99999; });
  refused("slot_mapping[2] is -2", [](Step& s) { s.slot_mapping[2] = -2; });
  refused("position -7 of row 4", [](Step& s) { s.positions[4] = -7; });
  refused("position 1000000 of row 1", [](Step& s) { s.positions[1] = 1000000; });
  refused("block_tables[1, 2] is 123456", [](Step& s) { s.tables[static_cast<size_t>(s.blocks + 2)] = 123456; });
  refused("block_tables[0, 0] is -1", [](Step& s) { s.tables[0] = -1; });
  refused("rope width is 66", [](Step& s) { s.c.rope = 66; });
  refused("rope width is 3", [](Step& s) { s.c.rope = 3; });
  refused("not a multiple", [](Step& s) { s.c.heads = 3, s.c.kv_heads = 2; });
  refused("window is -1", [](Step& s) { s.c.window = -1; });
  refused("dtype int8", [](Step& s) { s.c.type = I8; });
  // what no query reads may be anything
  Case windowed = c;
  windowed.window = 4;
  Step step(windowed);
  step.tables[0] = -1;
  expect_that(step.run() == 0, "a block outside the window was looked at: %s", mf_last_error());
}

// A key that is off by one slot must be seen.
void check_control() {
  Case c;
  c.ragged = false;
  Step step(c);
  expect_that(step.run() == 0, "control: %s", mf_last_error());
  std::swap(step.tables[0], step.tables[2]);  // the last block is not full
  expect_that(error_of(step.expected(), step.out.values()) > 1e-2, "exchanged blocks give the same answer");
}

}  // namespace

int main() {
  return each_isa("paged attention", [] {
    check_random(share(60));
    check_long();
    check_growth();
    check_parts();
    check_refusals();
    check_control();
  });
}
