// Flash attention and its gradient against double: dtypes, layouts, groups, causal, band and explicit masks.
#include "../attention.h"

#include "tools.h"

using namespace mf;
using namespace mf::test;

namespace {

struct Case {
  int64_t batch, heads, kv_heads, queries, keys, head_dim, left, right;
  int mask;    // 0 none, 1 [T, S], 2 [B, N, T, S], 3 [B, S]
  int layout;  // 0 BSND, 1 BNSD, 2 SBND
  DType type;
  std::vector<int32_t> limits;  // empty, or the first and the last key of each row [N, T]
};

// A tensor [B, T, N, H] in the case's layout.
struct Tensor {
  Array array;
  Heads heads;
  int64_t b, s, n, h;
  Tensor(const Case& c, int64_t length, int64_t count, DType type)
      : array(randoms(c.batch * length * count * c.head_dim, type)), b(c.batch), s(length), n(count), h(c.head_dim) {
    heads.type = type;
    if (c.layout == 0) heads.b = s * n * h, heads.s = n * h, heads.n = h;
    if (c.layout == 1) heads.b = s * n * h, heads.s = h, heads.n = s * h;
    if (c.layout == 2) heads.b = n * h, heads.s = b * n * h, heads.n = h;
    heads.data = array.data();
  }
  Tensor(const Tensor&) = delete;
  int64_t at(int64_t bi, int64_t si, int64_t ni) const { return bi * heads.b + si * heads.s + ni * heads.n; }
};

struct Expected {
  std::vector<double> out, max, sum, dq, dk, dv;
};

bool visible(const Case& c, const std::vector<uint8_t>& mask, int64_t b, int64_t n, int64_t i, int64_t j) {
  if (j < i - c.left || j > i + c.right) return false;
  const size_t row = static_cast<size_t>(2 * (n * c.queries + i));
  if (!c.limits.empty() && (j < c.limits[row] || j > c.limits[row + 1])) return false;
  const int64_t at = c.mask == 1   ? i * c.keys + j
                     : c.mask == 2 ? ((b * c.heads + n) * c.queries + i) * c.keys + j
                                   : b * c.keys + j;
  return c.mask == 0 || mask[static_cast<size_t>(at)] == 0;
}

Expected reference(const Case& c, const std::vector<uint8_t>& mask, double scale, const Tensor& q, const Tensor& k,
                   const Tensor& v, const Tensor& dout) {
  Expected e;
  e.out.assign(static_cast<size_t>(q.array.size), 0.0);
  e.dq = e.out;
  e.dk.assign(static_cast<size_t>(k.array.size), 0.0);
  e.dv = e.dk;
  const std::vector<double> qs = q.array.values(), ks = k.array.values(), vs = v.array.values(),
                            gs = dout.array.values();
  const size_t h = static_cast<size_t>(c.head_dim);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t n = 0; n < c.heads; ++n) {
      for (int64_t i = 0; i < c.queries; ++i) {
        const int64_t kv = n / (c.heads / c.kv_heads);
        const size_t qi = static_cast<size_t>(q.at(b, i, n));
        const auto at = [&](int64_t j) { return static_cast<size_t>(k.at(b, j, kv)); };  // k and v have one layout
        std::vector<double> p(static_cast<size_t>(c.keys), -INFINITY), dp(static_cast<size_t>(c.keys), 0.0);
        double max = -INFINITY, sum = 0.0, delta = 0.0;
        for (int64_t j = 0; j < c.keys; ++j) {
          if (!visible(c, mask, b, n, i, j)) continue;
          double score = 0.0;
          for (size_t d = 0; d < h; ++d) score += qs[qi + d] * ks[at(j) + d];
          p[static_cast<size_t>(j)] = score * scale;
          max = std::max(max, score * scale);
        }
        for (double& x : p) sum += x = max == -INFINITY ? 0.0 : std::exp(x - max);
        e.max.insert(e.max.end(), 8, sum > 0 ? max : 0.0);
        e.sum.insert(e.sum.end(), 8, sum);
        if (sum == 0.0) continue;
        for (int64_t j = 0; j < c.keys; ++j) {
          double &x = p[static_cast<size_t>(j)], &y = dp[static_cast<size_t>(j)];
          x /= sum;
          for (size_t d = 0; x != 0.0 && d < h; ++d) {
            e.out[qi + d] += x * vs[at(j) + d];
            y += gs[qi + d] * vs[at(j) + d];
            e.dv[at(j) + d] += x * gs[qi + d];
          }
          delta += x * y;
        }
        for (int64_t j = 0; j < c.keys; ++j) {
          const double ds = p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - delta) * scale;
          for (size_t d = 0; ds != 0.0 && d < h; ++d) {
            e.dq[qi + d] += ds * ks[at(j) + d];
            e.dk[at(j) + d] += ds * qs[qi + d];
          }
        }
      }
    }
  }
  return e;
}

void compare(const Case& c, const char* what, const std::vector<double>& want, const Array& got, double tolerance) {
  const double error = error_of(want, got.values(), 1.0);
  expect_that(error <= tolerance,
              "flash %s B %lld N %lld K %lld T %lld S %lld H %lld left %lld right %lld mask %d layout %d %s: error %g",
              what, (long long)c.batch, (long long)c.heads, (long long)c.kv_heads, (long long)c.queries,
              (long long)c.keys, (long long)c.head_dim, (long long)c.left, (long long)c.right, c.mask, c.layout,
              dtype_name(c.type), error);
}

std::vector<uint8_t> make_mask(const Case& c, FlashShape* shape) {
  const int64_t sizes[] = {0, c.queries * c.keys, c.batch * c.heads * c.queries * c.keys, c.batch * c.keys};
  std::vector<uint8_t> mask(static_cast<size_t>(sizes[c.mask]));
  for (uint8_t& hidden : mask) hidden = generator() % 3 == 0 ? 1 + generator() % 255 : 0;
  if (c.mask == 1) shape->mask_s = c.keys;
  if (c.mask == 2)
    shape->mask_b = c.heads * c.queries * c.keys, shape->mask_n = c.queries * c.keys, shape->mask_s = c.keys;
  if (c.mask == 3) shape->mask_b = c.keys;
  return mask;
}

void check(const Case& c) {
  FlashShape shape;
  shape.batch = c.batch, shape.heads = c.heads, shape.kv_heads = c.kv_heads, shape.queries = c.queries,
  shape.keys = c.keys;
  shape.head_dim = c.head_dim, shape.left = c.left, shape.right = c.right;
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  const std::vector<uint8_t> mask = make_mask(c, &shape);
  shape.mask = c.mask == 0 ? nullptr : mask.data();
  if (!c.limits.empty()) shape.limits = c.limits.data(), shape.limits_n = c.queries, shape.limits_s = 1;
  const Tensor q(c, c.queries, c.heads, c.type), k(c, c.keys, c.kv_heads, c.type), v(c, c.keys, c.kv_heads, c.type);
  const Tensor out(c, c.queries, c.heads, c.type), dout(c, c.queries, c.heads, c.type),
      dq(c, c.queries, c.heads, c.type);
  const Tensor dk(c, c.keys, c.kv_heads, c.type), dv(c, c.keys, c.kv_heads, c.type);
  Array max(c.batch * c.heads * c.queries * 8), sum(c.batch * c.heads * c.queries * 8);
  expect_that(flash_forward(shape, q.heads, k.heads, v.heads, out.heads, max.as<float>(), sum.as<float>()) == 0, "%s",
              mf_last_error());
  expect_that(flash_backward(shape, q.heads, k.heads, v.heads, out.heads, dout.heads, max.as<float>(), sum.as<float>(),
                             dq.heads, dk.heads, dv.heads) == 0,
              "%s", mf_last_error());
  const Expected e = reference(c, mask, static_cast<double>(shape.scale), q, k, v, dout);
  const bool rounds = c.type == BF16 && isa() == Isa::avx512_bf16;
  const double products = rounds ? 1.5e-2 : 1e-5;
  compare(c, "out", e.out, out.array, products + rounding(c.type));
  compare(c, "max", e.max, max, products);
  compare(c, "sum", e.sum, sum, products);
  const double gradients =
      c.type == F32 ? 2e-5 : (rounds ? 3e-2 : 5 * rounding(c.type));  // `out` of 16 bits enters them
  compare(c, "dq", e.dq, dq.array, gradients);
  compare(c, "dk", e.dk, dk.array, gradients);
  compare(c, "dv", e.dv, dv.array, gradients);
}

void check_random(int count) {
  for (int i = 0; i < count; ++i) {
    Case c;
    c.batch = pick({1, 1, 2, 3});
    c.kv_heads = pick({1, 2, 3});
    c.heads = c.kv_heads * pick({1, 1, 2, 4});
    c.queries = pick({1, 5, 17, 64, 65, 130});
    c.keys = pick({c.queries, c.queries, 1, 63, 64, 70, 200});
    c.head_dim = pick({32, 64, 64, 80, 128, 40, 6, 256});
    c.left = pick({INT32_MAX, INT32_MAX, 0, 7, 66, c.queries - c.keys + 3});
    c.right = pick({INT32_MAX, 0, 0, 5, c.keys - c.queries, -2});
    c.mask = static_cast<int>(pick({0, 0, 1, 2, 3}));
    c.layout = static_cast<int>(pick({0, 1, 2}));
    c.type = std::vector<DType>{F32, F32, F16, BF16}[generator() % 4];
    for (int64_t row = 0; i % 3 == 0 && row < c.heads * c.queries; ++row) {
      c.limits.push_back(static_cast<int32_t>(pick({0, 0, row % c.queries - 9, 70, c.keys})));
      c.limits.push_back(static_cast<int32_t>(pick({c.keys - 1, row % c.queries, 20, -1})));
    }
    check(c);
  }
}

void check_refusals() {
  FlashShape shape;
  shape.batch = shape.queries = shape.keys = 1, shape.head_dim = 8, shape.heads = 3, shape.kv_heads = 2;
  Heads x;
  expect_error(flash_forward(shape, x, x, x, x, nullptr, nullptr), "3 query heads are not a multiple of 2");
  shape.heads = 2;
  Heads bytes;
  bytes.type = I8;
  expect_error(flash_forward(shape, bytes, x, x, x, nullptr, nullptr), "int8");
  shape.keys = 0, shape.left = INT64_MAX, shape.right = INT64_MIN;
  Array out = randoms(16);
  const Heads y{out.data(), F32, 16, 16, 8};
  expect_that(flash_forward(shape, y, y, y, y, nullptr, nullptr) == 0 && out[0] == 0.0 && out[15] == 0.0,
              "no keys must give zeros");
}

}  // namespace

int main() {
  return each_isa("flash attention", [] {
    check_random(share(80));
    check_refusals();
  });
}
