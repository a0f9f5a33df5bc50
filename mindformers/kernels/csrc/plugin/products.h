// Matrix products of any dtype and any layout, for the MatMul family.
#pragma once

#include "args.h"

namespace mf {
namespace plugin {

// A matrix in memory; strides in elements, either may be 1.
struct Grid {
  const void *data = nullptr;
  DType type = F32;
  int64_t rows = 0, columns = 0, row_stride = 0, column_stride = 1;

  Grid transposed() const { return {data, type, columns, rows, column_stride, row_stride}; }
};

// A view with its last two axes as a matrix, the others counting matrices.
class Grids {
 public:
  Grids(const View &view, bool transpose);
  Grid at(int64_t index) const;                     // the matrix with that number
  const std::vector<int64_t> &lead() const { return lead_; }
  int64_t rows() const { return first_.rows; }
  int64_t columns() const { return first_.columns; }

 private:
  Grid first_;
  std::vector<int64_t> lead_, lead_strides_;
};

// out [a.rows, b.rows] = a b^T + bias; a, b, bias and out have one dtype, out is dense. bias: [b.rows], or null.
// float32, float16 and bfloat16 accumulate in float32, integers in their own type (they wrap around), others in theirs.
void multiply(const Grid &a, const Grid &b, const void *bias, void *out);

}  // namespace plugin
}  // namespace mf
