// Entries of ops.Custom for attention: a step over the paged cache against the function behind it, attention without a
// cache and its gradient against sums in double, and what they must refuse.
#include "../attention.h"
#include "entry_calls.h"

MF_TEST_ENTRY(mf_paged_attention)
MF_TEST_ENTRY(mf_attention)
MF_TEST_ENTRY_OF_SEVERAL(mf_flash_forward)
MF_TEST_ENTRY_OF_SEVERAL(mf_flash_backward)

using namespace mf;
using namespace mf::test;

namespace {

// --- mf_paged_attention

struct Heads3 {
  int64_t heads, kv_heads, head_dim;
};

Call paged_call(const PagedStep& step, const Heads3& h, DType type, int style, int window) {
  const int64_t width = h.heads * h.head_dim, all = (h.heads + 2 * h.kv_heads) * h.head_dim;
  std::vector<double> meta = {double(h.heads), double(h.kv_heads), double(h.head_dim), double(step.block_size), 0.25,
                              double(style), double(window), 0.0};
  meta.resize(static_cast<size_t>(8 + width), 0.0);
  return {"mf_paged_attention", mf_paged_attention,
          {random({step.rows(), all}), step.rope, step.cache(h.kv_heads, h.head_dim, type),
           step.cache(h.kv_heads, h.head_dim, type), step.tables, step.slots, step.positions, floats(meta),
           random({step.rows(), width})}};
}

// The same by `paged_attention_step`; returns its output, and the caches as it leaves them.
std::vector<Tensor> by_step(const PagedStep& step, const Heads3& h, Call call, int style, int window) {
  std::vector<int64_t> first_row;
  for (int64_t b = 0; b <= step.batch; ++b) first_row.push_back(b * step.tokens);
  const PagedCache cache{call[2].data(), call[3].data(), call[2].type, step.slot_count(),
                         h.kv_heads,     h.head_dim,     step.block_size};
  const PagedQueries queries{step.rows(), step.batch, first_row.data(), call[6].as<int32_t>(), call[4].as<int32_t>(),
                             step.blocks(), window};
  const Rope rope{call[1].as<float>(), call[1].shape[1], style == 1};
  expect_that(paged_attention_step(cache, queries, call[0].as<float>(), rope, call[5].as<int32_t>(),
                                   call[8].as<float>(), h.heads, 0.25f) == 0,
              "paged_attention_step: %s", mf_last_error());
  return {call[8], call[2], call[3]};
}

void check_paged() {
  for (const DType type : {F32, F16, BF16}) {
    for (const int64_t tokens : {1, 3, 17}) {
      for (const int style : {0, 1}) {
        const Heads3 h{4, 2, 16};
        const int window = static_cast<int>(pick({0, 3, 100}));
        const PagedStep step(pick({1, 3}), tokens, pick({0, 5, 70}), 4, pick({16, 8, 0}), tokens > 1);
        Call call = paged_call(step, h, type, style, window);
        const std::vector<Tensor> want = by_step(step, h, call, style, window);
        call.run(mf_paged_attentionInferShape);
        expect_that(call[8].bytes == want[0].bytes && call[2].bytes == want[1].bytes && call[3].bytes == want[2].bytes,
                    "mf_paged_attention of %lld tokens on %s", (long long)tokens, dtype_name(type));
      }
    }
  }
}

void check_paged_refusals() {
  const PagedStep step(2, 3, 6, 4, 16, true);
  const Call good = paged_call(step, {4, 2, 16}, F16, 0, 0);
  check_arguments(good, {0, 1, 2, 3, 5, 6, 8});
  const auto meta = [&](const char* text, int64_t at, double value) {
    refused(good, text, [=](Call& c) { c[7].set(at, value); });
  };
  meta("number of heads, is -4", 0, -4), meta("number of heads, is 2.5", 0, 2.5);
  meta("number of heads, is nan", 0, NAN);
  meta("0 heads", 0, 0), meta("0 kv heads", 1, 0), meta("kv heads of 0", 2, 0), meta("block size 0", 3, 0);
  meta("1073741824 heads", 0, 1 << 30), meta("the rope style, is -1", 5, -1), meta("rope style is 2", 5, 2);
  meta("the window, is inf", 6, INFINITY), meta("window, is -1", 6, -1);
  refused(good, "float32 of 7", [](Call& c) { c[7] = Tensor({7}); });
  refused(good, "not a multiple of 3", [](Call& c) {
    c[7].set(0, 4), c[7].set(1, 3), c[0] = random({6, 160});
    c[2] = c[3] = random({30, 16}, F16);
  });
  refused(good, "rope has 5 rows, but the step 6", [](Call& c) { c[1] = random({5, 16}); });
  refused(good, "rope width is 18", [](Call& c) { c[1] = random({6, 18}); });
  refused(good, "value_cache (input 3) is float32", [](Call& c) { c[3] = random(c[3].shape); });
  refused(good, "does not hold slots of 2 kv heads of 16", [](Call& c) { c[2] = c[3] = random({51, 16}, F16); });
  refused(good, "block_tables has 3 sequences, but positions 2", [](Call& c) { c[4] = Tensor({3, 3}, I32); });
  refused(good, "slot_mapping (input 5) has 5 elements, but needs 6", [](Call& c) { c[5] = Tensor({5}, I32); });
  refused(good, "slot_mapping[4] is 29, but the cache has 29 slots", [](Call& c) { c[5].set(4, 29); });
  refused(good, "slot_mapping[1] is -2", [](Call& c) { c[5].set(1, -2); });
  refused(good, "position -1 of row 3", [](Call& c) { c[6].set(3, -1); });
  refused(good, "position 12 of row 0 (sequence 0) is outside its block table of 3 blocks of 4",
          [](Call& c) { c[6].set(0, 12); });
  refused(good, "block_tables[1, 1] is 7, but the cache has 7 blocks", [](Call& c) { c[4].set(4, 7); });
  refused(good, "block_tables[0, 0] is -1", [](Call& c) { c[4].set(0, -1); });
}

// --- attention without a cache: q [B, N, T, H], k and v [B, N, S, H]; `sees(b, n, i, j)`

struct Sums {
  std::vector<double> out, lse, dq, dk, dv;
};

template <class Sees>
Sums attention_of(const Shape& q_shape, int64_t keys, const std::vector<double>& q, const std::vector<double>& k,
                  const std::vector<double>& v, const std::vector<double>& dout, double scale, Sees sees) {
  const int64_t queries = q_shape[2], h = q_shape[3];
  Sums s{std::vector<double>(q.size(), 0.0), {}, std::vector<double>(q.size(), 0.0),
         std::vector<double>(k.size(), 0.0), std::vector<double>(k.size(), 0.0)};
  for (int64_t row = 0; row < q_shape[0] * q_shape[1] * queries; ++row) {
    const int64_t head = row / queries, i = row % queries;
    std::vector<double> p(static_cast<size_t>(keys), 0.0);
    double sum = 0.0, delta = 0.0;
    const auto dot = [&](const std::vector<double>& a, const std::vector<double>& b, int64_t j) {
      double total = 0.0;
      for (int64_t d = 0; d < h; ++d) total += a[row * h + d] * b[(head * keys + j) * h + d];
      return total;
    };
    for (int64_t j = 0; j < keys; ++j) {
      if (sees(head / q_shape[1], head % q_shape[1], i, j)) sum += p[j] = std::exp(dot(q, k, j) * scale);
    }
    s.lse.push_back(sum > 0.0 ? std::log(sum) : 1e30);
    for (int64_t j = 0; j < keys; ++j) {
      p[j] = sum > 0.0 ? p[j] / sum : 0.0;
      delta += p[j] * dot(dout, v, j);
      for (int64_t d = 0; d < h; ++d) s.out[row * h + d] += p[j] * v[(head * keys + j) * h + d];
    }
    for (int64_t j = 0; j < keys; ++j) {
      const double ds = p[j] * (dot(dout, v, j) - delta) * scale;
      for (int64_t d = 0; d < h; ++d) {
        const int64_t key = (head * keys + j) * h + d;
        s.dq[row * h + d] += ds * k[key], s.dk[key] += ds * q[row * h + d], s.dv[key] += p[j] * dout[row * h + d];
      }
    }
  }
  return s;
}

// [B, S, K, H] as [B, N, S, H], each kv head for all its query heads; the other way round with the sizes exchanged.
std::vector<double> by_head(const Tensor& x, int64_t heads) {
  std::vector<double> all;
  const int64_t s = x.shape[1], k = x.shape[2], h = x.shape[3];
  for (int64_t at = 0; at < x.shape[0] * heads * s * h; ++at) {
    const int64_t b = at / (heads * s * h), n = at / (s * h) % heads, i = at / h % s;
    all.push_back(x[((b * s + i) * k + n / (heads / k)) * h + at % h]);
  }
  return all;
}

Call attention_call(int64_t batch, int64_t queries, int64_t keys, double causal, double window) {
  Tensor keep({batch, keys}, I32);
  for (int64_t i = 0; i < keep.size; ++i) keep.set(i, generator() % 4 != 0);
  return {"mf_attention", mf_attention,
          {random({batch, queries, 4, 12}), random({batch, keys, 2, 12}), random({batch, keys, 2, 12}), keep,
           floats({0.3, causal, window}), random({batch, queries, 4, 12})}};
}

void check_attention() {
  for (int i = 0; i < 12; ++i) {
    const int64_t queries = pick({1, 3, 17}), keys = queries + pick({0, 0, 9});
    const int64_t causal = i % 2, window = pick({0, 1, 4});
    Call call = attention_call(2, queries, keys, double(causal), double(window));
    const std::vector<double> q = by_head(call[0], 4);
    const Sums want = attention_of({2, 4, queries, 12}, keys, q, by_head(call[1], 4), by_head(call[2], 4), q, 0.3,
                                   [&](int64_t b, int64_t, int64_t row, int64_t j) {
                                     const int64_t at = row + keys - queries;
                                     return call[3][b * keys + j] != 0.0 && (causal == 0 || j <= at) &&
                                            (window == 0 || j > at - window);
                                   });
    call.run(mf_attentionInferShape);
    const double error = error_of(want.out, by_head(call[5], 4));
    expect_that(error <= 1e-5, "mf_attention of %lld queries, %lld keys, causal %lld, window %lld: error %g",
                (long long)queries, (long long)keys, (long long)causal, (long long)window, error);
  }
  const Call good = attention_call(2, 3, 5, 1, 0);
  check_arguments(good, {0, 1, 2, 3, 5});
  refused(good, "float32 of 2", [](Call& c) { c[4] = floats({1, 0}); });
  refused(good, "the causal flag, is 0.5", [](Call& c) { c[4].set(1, 0.5); });
  refused(good, "the window, is -3", [](Call& c) { c[4].set(2, -3); });
  refused(good, "4 query heads are not a multiple of 3", [](Call& c) { c[1] = c[2] = random({2, 5, 3, 12}); });
  refused(good, "does not fit k or v", [](Call& c) { c[2] = random({2, 2, 5, 12}); });
  refused(good, "keep (input 3) has 3 dimensions", [](Call& c) { c[3] = Tensor({2, 5, 1}, I32); });
}

// --- attention that trains: 0-2 q, k, v, 3 mask, 4 scale, then output and log-sum-exp

Call flash_call(int64_t queries, int64_t keys, const Shape& mask_shape) {
  Tensor mask(mask_shape);
  for (int64_t i = 0; i < mask.size; ++i) mask.set(i, generator() % 3 == 0 ? -1e4 : 0.0);
  return {"mf_flash_forward", mf_flash_forward,
          {random({2, 3, queries, 12}), random({2, 3, keys, 12}), random({2, 3, keys, 12}), mask, floats({0.3}),
           random({2, 3, queries, 12}), random({2, 3, queries})}};
}

Call backward_of(const Call& forward) {
  const std::vector<Tensor>& t = forward.tensors;
  return {"mf_flash_backward", mf_flash_backward,
          {t[0], t[1], t[2], t[3], t[4], t[5], t[6], random(t[0].shape), random(t[0].shape), random(t[1].shape),
           random(t[2].shape)}};
}

void check_flash() {
  for (int i = 0; i < 12; ++i) {
    const int64_t queries = pick({1, 3, 17}), keys = pick({1, 5, 70});
    const Shape m{pick({1, 2}), pick({1, 3}), pick({1, queries}), keys};
    Call call = flash_call(queries, keys, m);
    for (int64_t j = 0; j < keys; ++j) call[3].set(j, -1e5);  // a row that sees nothing
    Call back = backward_of(call);
    const Sums want = attention_of(call[0].shape, keys, call[0].values(), call[1].values(), call[2].values(),
                                   back[7].values(), 0.3, [&](int64_t b, int64_t n, int64_t row, int64_t j) {
                                     const int64_t at = (m[0] > 1 ? b : 0) * m[1] + (m[1] > 1 ? n : 0);
                                     return call[3][(at * m[2] + (m[2] > 1 ? row : 0)) * keys + j] == 0.0;
                                   });
    call.run(mf_flash_forwardInferShape);
    back[5] = call[5], back[6] = call[6];
    back.run(mf_flash_backwardInferShape);
    std::vector<double> lse = call[6].values(), want_lse = want.lse;
    for (size_t row = 0; row < lse.size(); ++row) {
      if (lse[row] > 1e29 && want_lse[row] > 1e29) lse[row] = want_lse[row] = 0.0;  // sees no key
    }
    expect_that(error_of(want_lse, lse, 1.0) <= 1e-5, "log-sum-exp: error %g", error_of(want_lse, lse, 1.0));
    const std::pair<const std::vector<double>*, Tensor*> pairs[] = {
        {&want.out, &call[5]}, {&want.dq, &back[8]}, {&want.dk, &back[9]}, {&want.dv, &back[10]}};
    for (int p = 0; p < 4; ++p) {
      const double error = error_of(*pairs[p].first, pairs[p].second->values(), 1.0);
      expect_that(error <= 2e-5, "flash: result %d of %lld queries, %lld keys: error %g", p, (long long)queries,
                  (long long)keys, error);
    }
  }
}

void check_flash_refusals() {
  const Call good = flash_call(3, 5, {2, 1, 3, 5});
  const Call back = backward_of(good);
  check_arguments(good, {0, 1, 2, 3, 5, 6});
  check_arguments(back, {0, 1, 2, 3, 5, 6, 7, 8, 9, 10});
  for (const Call& call : {good, back}) {
    refused(call, "the mask must be 0 where a query may look and -10000 or less", [](Call& c) { c[3].set(7, -5.0); });
    refused(call, "the mask must be 0", [](Call& c) { c[3].set(29, NAN); });
    refused(call, "axis 1 of the mask is 2, but must be 3 or 1", [](Call& c) { c[3] = Tensor({2, 2, 3, 5}); });
    refused(call, "axis 3 of the mask is 1, but must be 5", [](Call& c) { c[3] = Tensor({1, 1, 3, 1}); });
    refused(call, "k [1, 3, 5, 12] does not fit q [2, 3, 3, 12]", [](Call& c) { c[1] = random({1, 3, 5, 12}); });
    refused(call, "k [2, 1, 5, 12] does not fit", [](Call& c) { c[1] = random({2, 1, 5, 12}); });
    refused(call, "v (input 2) has 3 dimensions", [](Call& c) { c[2] = random({2, 15, 12}); });
    refused(call, "meta must be float32", [](Call& c) { c[4] = Tensor({0}); });
  }
}

}  // namespace

int main() {
  return each_isa("entries of attention", [] {
    check_paged();
    check_paged_refusals();
    check_attention();
    check_flash();
    check_flash_refusals();
  });
}
