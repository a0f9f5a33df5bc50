// Cross entropy of rows of logits, forward and backward, without a copy of the logits.
#pragma once

#include <cstdint>

#include "dtype.h"
#include "isa.h"

namespace mf {

struct CrossEntropyArgs {
  const void* logits = nullptr;  // [rows, vocab] of logits_type, contiguous
  DType logits_type = F32;       // F32, F16 or BF16
  const int32_t* labels = nullptr;  // [rows]
  int64_t rows = 0, vocab = 0;
};

// loss[r] = lse[r] - logits[r, label], lse[r] = log(sum(exp(logits[r]))); both 0 where weight[r] is 0, and the row is
// not read. A label outside [0, vocab) of a row that counts is an error. Returns 0 or a failure.
int cross_entropy(const CrossEntropyArgs& args, const float* weight, float* loss, float* lse);

// grad [rows, vocab] float32, overwritten: (exp(logits - lse) - one_hot(label)) * scale[r]; zero where scale[r] is 0.
int cross_entropy_grad(const CrossEntropyArgs& args, const float* lse, const float* scale, float* grad);

struct LossTable {
  float (*log_sum_exp)(const void* row, DType type, int64_t vocab);
  void (*softmax_grad)(const void* row, DType type, int64_t vocab, float lse, float scale, float* grad);
};

MF_DECLARE_VARIANTS(LossTable, loss_table)

}  // namespace mf
