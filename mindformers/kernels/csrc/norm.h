// Row-wise ops of a decoder layer: RMS norm, SwiGLU, rotary tables, embedding.
//
// Rows are [rows, width]; the elements of a row are contiguous, strides are in elements. Arithmetic is float32.
// Every function returns 0, or non-zero with the reason in mf::last_error().
#pragma once

#include <cstdint>

#include "dtype.h"

namespace mf {

// A matrix whose rows are contiguous.
struct Matrix {
  void* data = nullptr;
  DType type = DType::F32;  // F32, F16 or BF16 unless said otherwise
  int64_t stride = 0;       // elements from row to row
};

// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps) (arXiv:1910.07467). rstd: float32 [rows] or null.
// y.data null: only rstd is wanted.
int rms_norm(const Matrix& x, const void* weight, DType weight_type, const Matrix& y, float* rstd, int64_t rows,
             int64_t width, float eps);

// dx and dweight (float32 [width], overwritten) of rms_norm.
int rms_norm_grad(const Matrix& dy, const Matrix& x, const float* rstd, const void* weight, DType weight_type,
                  const Matrix& dx, float* dweight, int64_t rows, int64_t width);

// y = silu(gate) * up (arXiv:2002.05202).
int swiglu(const Matrix& gate, const Matrix& up, const Matrix& y, int64_t rows, int64_t width);

// dgate and dup of swiglu.
int swiglu_grad(const Matrix& dy, const Matrix& gate, const Matrix& up, const Matrix& dgate, const Matrix& dup,
                int64_t rows, int64_t width);

// table [rows, 2 * half] = cos(position * inv_freq) * factor, then the sines.
int rope_table(const int32_t* positions, const float* inv_freq, float factor, float* table, int64_t rows, int64_t half);

// out[i] = weight[ids[i]], weight [vocab, width] of any float type or I8; an id outside 0 ... vocab - 1 is an error.
int embedding(const void* ids, DType id_type, int64_t count, const Matrix& weight, int64_t vocab, const Matrix& out,
              int64_t width);

}  // namespace mf
