// ops.Custom entries of attention that trains: mf_flash_forward and mf_flash_backward.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "../attention.h"
#include "../pool.h"
#include "entry.h"

namespace mf {
namespace {

constexpr float kMasked = -1e4f;          // an additive mask of this or less hides a key
constexpr float kNoKeys = 1e30f;          // log-sum-exp of a row that sees no key: all its probabilities become 0
constexpr int64_t kMaskAtOnce = 1 << 14;  // elements of the mask that a thread takes at a time
constexpr int kCopies = 8;                // of the statistics of a row, see flash_forward

// An additive mask [B | 1, K | 1, Q | 1, S] as the first and last key of each row, and as bytes where keys between
// them are hidden too.
class Mask {
 public:
  int read(const Entry& in, int input, const FlashShape& shape) {
    const int64_t wanted[] = {shape.batch, shape.heads, shape.queries, shape.keys};
    if (in.expect(input, "mask", {F32}, 4, -1)) return 1;
    for (int d = 0; d < 4; ++d) {
      if (in.dim(input, d) != wanted[d] && (d == 3 || in.dim(input, d) != 1)) {
        return fail("%s: axis %d of the mask is %lld, but must be %lld%s", in.name, d,
                    static_cast<long long>(in.dim(input, d)), static_cast<long long>(wanted[d]), d < 3 ? " or 1" : "");
      }
    }
    data_ = in.data<float>(input);
    keys_ = shape.keys;
    rows_ = keys_ == 0 ? 0 : in.size(input) / keys_;
    strides_[2] = in.dim(input, 2) == 1 ? 0 : 1;
    strides_[1] = in.dim(input, 1) == 1 ? 0 : in.dim(input, 2);
    strides_[0] = in.dim(input, 0) == 1 ? 0 : in.dim(input, 1) * in.dim(input, 2);
    return scan(in);
  }

  void aim(FlashShape* shape) const {
    if (rows_ == 0) return;
    shape->limits = limits_.get();
    shape->limits_b = strides_[0], shape->limits_n = strides_[1], shape->limits_s = strides_[2];
    shape->mask = hidden_.get();
    shape->mask_b = strides_[0] * keys_, shape->mask_n = strides_[1] * keys_, shape->mask_s = strides_[2] * keys_;
  }

 private:
  int scan(const Entry& in) {
    limits_.reset(new int32_t[2 * rows_ + 2]);
    std::atomic<bool> holes{false}, soft{false};
    const int64_t at_once = std::max<int64_t>(1, kMaskAtOnce / std::max<int64_t>(1, keys_));
    parallel_for(rows_, at_once, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* const mask = data_ + row * keys_;
        int64_t first = 0, last = keys_ - 1, seen = 0, hidden = 0;
        while (first < keys_ && mask[first] <= kMasked) ++first;
        while (last > first && mask[last] <= kMasked) --last;
        if (first == keys_) last = -1;
        for (int64_t j = first; j <= last; ++j) seen += mask[j] == 0.0f, hidden += mask[j] <= kMasked;
        if (hidden > 0) holes.store(true, std::memory_order_relaxed);
        if (seen + hidden != last - first + 1 && last >= first) soft.store(true, std::memory_order_relaxed);
        limits_[2 * row] = static_cast<int32_t>(first), limits_[2 * row + 1] = static_cast<int32_t>(last);
      }
    });
    if (soft.load()) {
      return fail("%s: the mask must be 0 where a query may look and %g or less elsewhere", in.name,
                  static_cast<double>(kMasked));
    }
    if (!holes.load()) return 0;
    hidden_.reset(new uint8_t[rows_ * keys_]);
    parallel_for(rows_ * keys_, kMaskAtOnce, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) hidden_[i] = data_[i] <= kMasked;
    });
    return 0;
  }

  const float* data_ = nullptr;
  int64_t rows_ = 0, keys_ = 0;
  int64_t strides_[3] = {0, 0, 0};  // in rows
  std::unique_ptr<int32_t[]> limits_;
  std::unique_ptr<uint8_t[]> hidden_;
};

struct Attention {
  FlashShape shape;
  Mask mask;
  Heads q, k, v;

  // A tensor of the shape of q (queries) or k (keys).
  Heads heads(const Entry& in, int i, int64_t length) const {
    const int64_t head_dim = shape.head_dim;
    return {in.params[i], F32, shape.heads * length * head_dim, head_dim, length * head_dim};
  }

  int read(const Entry& in) {
    if (in.expect(0, "q", {F32}, 4, -1) || in.expect(1, "k", {F32}, 4, -1)) return 1;
    shape.batch = in.dim(0, 0), shape.heads = shape.kv_heads = in.dim(0, 1), shape.queries = in.dim(0, 2);
    shape.head_dim = in.dim(0, 3), shape.keys = in.dim(1, 2);
    const int64_t size = shape.batch * shape.heads * shape.keys * shape.head_dim;
    if (in.dim(1, 0) != shape.batch || in.dim(1, 1) != shape.heads || in.dim(1, 3) != shape.head_dim) {
      return fail("%s: k [%lld, %lld, %lld, %lld] does not fit q [%lld, %lld, %lld, %lld]", in.name,
                  static_cast<long long>(in.dim(1, 0)), static_cast<long long>(in.dim(1, 1)),
                  static_cast<long long>(shape.keys), static_cast<long long>(in.dim(1, 3)),
                  static_cast<long long>(shape.batch), static_cast<long long>(shape.heads),
                  static_cast<long long>(shape.queries), static_cast<long long>(shape.head_dim));
    }
    if (in.expect(2, "v", {F32}, 4, size) || mask.read(in, 3, shape)) return 1;
    if (in.expect_meta(4, 1)) return 1;
    shape.scale = in.data<float>(4)[0];
    mask.aim(&shape);
    q = heads(in, 0, shape.queries), k = heads(in, 1, shape.keys), v = heads(in, 2, shape.keys);
    return 0;
  }

  int64_t rows() const { return shape.batch * shape.heads * shape.queries; }
};

int forward(const Entry& in) {
  Attention at;
  if (in.expect_count(7, 2) || at.read(in) || in.expect(5, "the output", {F32}, -1, in.size(0)) ||
      in.expect(6, "log-sum-exp", {F32}, -1, at.rows())) {
    return 1;
  }
  const std::unique_ptr<float[]> max(new float[at.rows() * kCopies]), sum(new float[at.rows() * kCopies]);
  if (flash_forward(at.shape, at.q, at.k, at.v, at.heads(in, 5, at.shape.queries), max.get(), sum.get())) return 1;
  float* const lse = in.data<float>(6);
  for (int64_t row = 0; row < at.rows(); ++row) {
    const float total = sum[row * kCopies];
    lse[row] = total > 0.0f ? max[row * kCopies] + std::log(total) : kNoKeys;
  }
  return 0;
}

int backward(const Entry& in) {
  Attention at;
  if (in.expect_count(11, 3) || at.read(in) || in.expect(5, "the output", {F32}, 4, in.size(0)) ||
      in.expect(6, "log-sum-exp", {F32}, 3, at.rows()) || in.expect(7, "dout", {F32}, 4, in.size(0)) ||
      in.expect(8, "dq", {F32}, 4, in.size(0)) || in.expect(9, "dk", {F32}, 4, in.size(1)) ||
      in.expect(10, "dv", {F32}, 4, in.size(1))) {
    return 1;
  }
  const std::unique_ptr<float[]> max(new float[at.rows() * kCopies]), sum(new float[at.rows() * kCopies]);
  const float* const lse = in.data<float>(6);
  for (int64_t row = 0; row < at.rows(); ++row) {
    max[row * kCopies] = lse[row];
    sum[row * kCopies] = lse[row] < kNoKeys ? 1.0f : 0.0f;
  }
  const int64_t queries = at.shape.queries, keys = at.shape.keys;
  return flash_backward(at.shape, at.q, at.k, at.v, at.heads(in, 5, queries), at.heads(in, 7, queries), max.get(),
                        sum.get(), at.heads(in, 8, queries), at.heads(in, 9, keys), at.heads(in, 10, keys));
}

}  // namespace
}  // namespace mf

// 0 q float32 [B, K, Q, H], the queries of each kv head, 1-2 k and v float32 [B, K, S, H], 3 additive mask float32
// [B | 1, K | 1, Q | 1, S]: 0, or -10000 and less, 4 meta float32: scale -> float32 [B, K, Q, H], and the log-sum-exp
// of each row's scores [B, K, Q]. A query that sees no key gives zeros.
MF_ENTRY(mf_flash_forward) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_flash_forward);
    return mf::forward(in);
  });
}

MF_INFER_SHAPES(mf_flash_forward) {
  return {std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]), std::vector<int64_t>(shapes[0], shapes[0] + 3)};
}

MF_INFER_TYPES(mf_flash_forward, 2, 0)

// 0-4 as above, 5-6 what mf_flash_forward gave, 7 dout float32 [B, K, Q, H] -> gradients of q, k and v
MF_ENTRY(mf_flash_backward) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_flash_backward);
    return mf::backward(in);
  });
}

MF_INFER_SHAPES(mf_flash_backward) {
  std::vector<std::vector<int64_t>> out;
  for (int i = 0; i < 3; ++i) out.emplace_back(shapes[i], shapes[i] + ndims[i]);
  return out;
}

MF_INFER_TYPES(mf_flash_backward, 3, 0)
