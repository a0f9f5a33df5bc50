// y = rms_norm(x)? W^T + bias + residual, for one activation matrix and one to three weight matrices side by side, with
// the SwiGLU product of two of them as an option.
#pragma once

#include <cstdint>

#include "dtype.h"
#include "isa.h"

namespace mf {

// One weight matrix [rows, I], row-major. `row_stride` in elements (>= I), so that a slice of a matrix needs no copy.
struct LinearWeight {
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t row_stride = 0;
  const void* bias = nullptr;    // [rows] of bias_dtype, or nullptr
  const float* scale = nullptr;  // int8 only: [rows, groups]
};

struct LinearArgs {
  const float* x = nullptr;  // [M, I]
  int64_t M = 0, I = 0;
  int64_t x_stride = 0;  // elements between rows of x (>= I)
  LinearWeight weights[3];
  int weight_count = 1;
  DType weight_dtype = F32;         // F32, F16, BF16 or I8
  DType bias_dtype = F32;           // F32, F16 or BF16
  int64_t groups = 1;               // int8: scales per row; I % groups == 0
  const void* norm = nullptr;       // [I] of norm_dtype: x is replaced by x / sqrt(mean(x^2) + eps) * norm
  DType norm_dtype = F32;           // F32, F16 or BF16
  float eps = 0.0f;
  const float* residual = nullptr;  // [M, all rows], added to the result
  bool swiglu = false;              // weights[0] = gate, weights[1] = up of the same number of rows: silu(gate) * up
  float* out = nullptr;             // [M, all rows], or [M, rows of one] with swiglu
  int64_t out_stride = 0;           // elements between rows of out (and residual)
};

// All of it on the pool's threads. The caller has checked shapes and dtypes. Throws std::bad_alloc.
void linear(const LinearArgs& args);

}  // namespace mf
