// Dense, MatMul, BatchMatMul, MatMulExt, BatchMatMulExt.
#include <algorithm>

#include "../pool.h"
#include "products.h"

using namespace mf;
using namespace mf::plugin;

namespace {

constexpr char kTypes[] = "float32, float16, bfloat16 (sums in float32), float64, integers, complex; any strides";

void check_types(const View &a, const View &b, const View &out) {
  if (a.type != b.type || out.type != a.type) {
    refuse("%s times %s as %s is not supported", dtype_name(a.type), dtype_name(b.type), dtype_name(out.type));
  }
}

// A view with the axes before the last joined into one, where strides allow, else a dense copy held by `rows`.
View as_matrix(const View &view, std::unique_ptr<Rows> *rows) {
  *rows = std::make_unique<Rows>(view, view.rank() - 1);
  View matrix;
  matrix.type = view.type;
  matrix.data = (*rows)->data;
  matrix.shape = {(*rows)->rows, (*rows)->width};
  matrix.strides = {(*rows)->stride, 1};
  return matrix;
}

View row_view(const View &vector, bool column) {
  View matrix = vector;
  matrix.shape.insert(column ? matrix.shape.end() : matrix.shape.begin(), 1);
  matrix.strides.insert(column ? matrix.strides.end() : matrix.strides.begin(), 1);
  return matrix;
}

// Number of the matrix in `lead` that belongs to matrix `index` of the broadcast axes `out`.
int64_t broadcast(const std::vector<int64_t> &lead, const std::vector<int64_t> &out, int64_t index) {
  int64_t number = 0, step = 1;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t digit = index % out[out.size() - 1 - i];
    index /= out[out.size() - 1 - i];
    if (i >= lead.size()) continue;
    const int64_t length = lead[lead.size() - 1 - i];
    if (length != 1) number += digit * step;
    step *= length;
  }
  return number;
}

std::vector<int64_t> broadcast_shape(const std::vector<int64_t> &a, const std::vector<int64_t> &b) {
  std::vector<int64_t> shape(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1, y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1) {
      refuse("batches %s and %s do not fit together", shape_text(a).c_str(), shape_text(b).c_str());
    }
    shape[shape.size() - 1 - i] = x == 1 ? y : x;
  }
  return shape;
}

// out [..., M, N] = a [..., M, K] b [..., K, N] with broadcast leading axes.
void multiply_all(const View &a, bool transpose_a, const View &b, bool transpose_b, const View &out) {
  check_types(a, b, out);
  if (out.size() == 0) return;
  const Grids left(a, transpose_a), right(b, !transpose_b);
  if (left.columns() != right.columns()) {
    refuse("%ld columns times %ld rows", long(left.columns()), long(right.columns()));
  }
  const std::vector<int64_t> lead = broadcast_shape(left.lead(), right.lead());
  int64_t count = 1;
  for (int64_t length : lead) count *= length;
  const int64_t size = left.rows() * right.rows() * static_cast<int64_t>(dtype_size(out.type));
  const auto one = [&](int64_t i) {
    multiply(left.at(broadcast(left.lead(), lead, i)), right.at(broadcast(right.lead(), lead, i)), nullptr,
             out.as<char>() + i * size);
  };
  if (count < num_threads()) {
    for (int64_t i = 0; i < count; ++i) one(i);
  } else {
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) one(i);
    });
  }
}

}  // namespace

MF_PLUGIN_OP(Dense, kTypes) {
  const View x = args.input(0), w = args.input(1), bias = args.input(2), out = args.output(0);
  check_types(x, w, out);
  if (x.rank() < 1 || w.rank() < 1 || w.rank() > 2) {
    refuse("x %s does not fit to weight %s", shape_text(x.shape).c_str(), shape_text(w.shape).c_str());
  }
  if (out.size() == 0) return;
  std::unique_ptr<Rows> rows;
  const Grids left(as_matrix(x, &rows), false), right(w.rank() == 2 ? w : row_view(w, false), false);
  if (left.columns() != right.columns()) {
    refuse("x %s does not fit to weight %s", shape_text(x.shape).c_str(), shape_text(w.shape).c_str());
  }
  if (bias && (bias.type != w.type || bias.size() != right.rows())) {
    refuse("bias %s of %s does not fit to the weight", shape_text(bias.shape).c_str(), dtype_name(bias.type));
  }
  std::unique_ptr<mf::plugin::Dense> dense_bias;
  if (bias) dense_bias = std::make_unique<mf::plugin::Dense>(bias);
  multiply(left.at(0), right.at(0), dense_bias ? dense_bias->data() : nullptr, out.data);
}

MF_PLUGIN_OP(MatMul, kTypes) {
  multiply_all(args.input(0), args.flag(2), args.input(1), args.flag(3), args.output(0));
}

MF_PLUGIN_OP(BatchMatMul, kTypes) {
  multiply_all(args.input(0), args.flag(2), args.input(1), args.flag(3), args.output(0));
}

MF_PLUGIN_OP(BatchMatMulExt, kTypes) { multiply_all(args.input(0), false, args.input(1), false, args.output(0)); }

// As numpy.matmul: vectors are rows on the left and columns on the right.
MF_PLUGIN_OP(MatMulExt, kTypes) {
  View a = args.input(0), b = args.input(1);
  if (a.rank() == 0 || b.rank() == 0) refuse("a scalar is no matrix");
  if (a.rank() == 1) a = row_view(a, false);
  if (b.rank() == 1) b = row_view(b, true);
  std::unique_ptr<Rows> rows;
  if (a.rank() > 2 && b.rank() == 2) a = as_matrix(a, &rows);
  multiply_all(a, false, b, false, args.output(0));
}
