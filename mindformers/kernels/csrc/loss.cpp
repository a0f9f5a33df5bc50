// Checks of the arguments, and the split over threads, of cross entropy.
#include "loss.h"

#include <cstring>

#include "error.h"
#include "pool.h"

namespace mf {
namespace {

const LossTable& kernels() {
  static const LossTable& table = MF_PICK(loss_table);
  return table;
}

const char* row_of(const CrossEntropyArgs& args, int64_t row) {
  return static_cast<const char*>(args.logits) + row * args.vocab * dtype_size(args.logits_type);
}

float at(const CrossEntropyArgs& args, const char* row, int64_t index) {
  if (args.logits_type == F16) return to_float(reinterpret_cast<const f16*>(row)[index]);
  if (args.logits_type == BF16) return to_float(reinterpret_cast<const bf16*>(row)[index]);
  return reinterpret_cast<const float*>(row)[index];
}

// `counts[r]` is zero for rows whose label is not looked at.
int check(const CrossEntropyArgs& args, const float* counts) {
  for (int64_t row = 0; row < args.rows; ++row) {
    if (counts[row] != 0.0f && (args.labels[row] < 0 || args.labels[row] >= args.vocab)) {
      return fail("cross entropy: label %d of row %lld is outside [0, %lld)", static_cast<int>(args.labels[row]),
                  static_cast<long long>(row), static_cast<long long>(args.vocab));
    }
  }
  return 0;
}

}  // namespace

int cross_entropy(const CrossEntropyArgs& args, const float* weight, float* loss, float* lse) {
  if (check(args, weight)) return 1;
  parallel_for(args.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      loss[r] = lse[r] = 0.0f;
      if (weight[r] == 0.0f) continue;
      const char* row = row_of(args, r);
      lse[r] = kernels().log_sum_exp(row, args.logits_type, args.vocab);
      loss[r] = lse[r] - at(args, row, args.labels[r]);
    }
  });
  return 0;
}

int cross_entropy_grad(const CrossEntropyArgs& args, const float* lse, const float* scale, float* grad) {
  if (check(args, scale)) return 1;
  parallel_for(args.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* out = grad + r * args.vocab;
      if (scale[r] == 0.0f) {
        std::memset(out, 0, static_cast<size_t>(args.vocab) * sizeof(float));
        continue;
      }
      kernels().softmax_grad(row_of(args, r), args.logits_type, args.vocab, lse[r], scale[r], out);
      out[args.labels[r]] -= scale[r];
    }
  });
  return 0;
}

}  // namespace mf
