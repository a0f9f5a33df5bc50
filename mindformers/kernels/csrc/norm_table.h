// The kernels of norm.inc: each works on rows begin ... end - 1 on one thread.
#pragma once

#include "isa.h"
#include "norm.h"

namespace mf {

struct NormTable {
  void (*rms_norm)(const Matrix& x, const void* weight, DType weight_type, const Matrix& y, float* rstd, int64_t begin,
                   int64_t end, int64_t width, float eps);
  // Adds to dweight.
  void (*rms_norm_grad)(const Matrix& dy, const Matrix& x, const float* rstd, const void* weight, DType weight_type,
                        const Matrix& dx, float* dweight, int64_t begin, int64_t end, int64_t width);
  void (*swiglu)(const Matrix& gate, const Matrix& up, const Matrix& y, int64_t begin, int64_t end, int64_t width);
  void (*swiglu_grad)(const Matrix& dy, const Matrix& gate, const Matrix& up, const Matrix& dgate, const Matrix& dup,
                      int64_t begin, int64_t end, int64_t width);
  // Row `to` of out = row `from` of x, converted; x may be I8.
  void (*copy_row)(const Matrix& x, int64_t from, const Matrix& out, int64_t to, int64_t width);
};

MF_DECLARE_VARIANTS(NormTable, norm_table)

}  // namespace mf
