// Row-wise ops against double, for every dtype and odd widths; gradients against the formula in double.
#include "../norm.h"

#include "tools.h"

using namespace mf;
using namespace mf::test;

namespace {

const std::vector<DType> kTypes = {F32, F16, BF16};
DType any_type() { return kTypes[generator() % 3]; }
constexpr double kExact = 2e-6;

// A matrix whose rows have `gap` unused elements behind them.
struct Rows {
  Array array;
  int64_t stride;
  Rows(int64_t rows, int64_t width, int64_t gap, DType type)
      : array(randoms(rows * (width + gap), type)), stride(width + gap) {}
  Matrix matrix() { return {array.data(), array.type, stride}; }
  double at(int64_t row, int64_t d) const { return array[row * stride + d]; }
};

std::vector<double> dense(const Rows& x, int64_t rows, int64_t width) {
  std::vector<double> all;
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t d = 0; d < width; ++d) all.push_back(x.at(m, d));
  }
  return all;
}

void compare(const char* what, const Rows& got, const std::vector<double>& expected, int64_t rows, int64_t width) {
  const double error = error_of(expected, dense(got, rows, width));
  expect_that(error <= kExact + rounding(got.array.type), "%s [%lld, %lld] %s: error %g", what, (long long)rows,
              (long long)width, dtype_name(got.array.type), error);
}

void check_rms_norm(int64_t rows, int64_t width) {
  const double eps = 0.25;
  Rows x(rows, width, 3, any_type()), y(rows, width, 1, any_type()), dy(rows, width, 2, any_type()),
      dx(rows, width, 0, any_type());
  Array weight = randoms(width, any_type()), rstd(rows), dweight(width);
  expect_that(rms_norm(x.matrix(), weight.data(), weight.type, y.matrix(), rstd.as<float>(), rows, width, 0.25f) == 0,
              "%s", mf_last_error());
  expect_that(rms_norm_grad(dy.matrix(), x.matrix(), rstd.as<float>(), weight.data(), weight.type, dx.matrix(),
                            dweight.as<float>(), rows, width) == 0,
              "%s", mf_last_error());
  std::vector<double> want_y, want_rstd, want_dx, want_dw(static_cast<size_t>(width), 0.0);
  for (int64_t m = 0; m < rows; ++m) {
    double squares = 0.0, dot = 0.0;
    for (int64_t d = 0; d < width; ++d) {
      squares += x.at(m, d) * x.at(m, d);
      dot += x.at(m, d) * dy.at(m, d) * weight[d];
    }
    const double w = static_cast<double>(width), r = 1.0 / std::sqrt(squares / w + eps);
    want_rstd.push_back(r);
    for (int64_t d = 0; d < width; ++d) {
      want_y.push_back(x.at(m, d) * r * weight[d]);
      want_dx.push_back(r * dy.at(m, d) * weight[d] - x.at(m, d) * r * r * r * dot / w);
      want_dw[static_cast<size_t>(d)] += dy.at(m, d) * x.at(m, d) * r;
    }
  }
  compare("rms_norm", y, want_y, rows, width);
  compare("rms_norm dx", dx, want_dx, rows, width);
  expect_that(error_of(want_rstd, rstd.values()) <= kExact, "rms_norm rstd");
  expect_that(error_of(want_dw, dweight.values()) <= 1e-5, "rms_norm dweight");
}

void check_swiglu(int64_t rows, int64_t width) {
  Rows gate(rows, width, 1, any_type()), up(rows, width, 0, any_type()), y(rows, width, 5, any_type());
  Rows dy(rows, width, 0, any_type()), dgate(rows, width, 2, any_type()), dup(rows, width, 0, any_type());
  expect_that(swiglu(gate.matrix(), up.matrix(), y.matrix(), rows, width) == 0, "%s", mf_last_error());
  expect_that(swiglu_grad(dy.matrix(), gate.matrix(), up.matrix(), dgate.matrix(), dup.matrix(), rows, width) == 0,
              "%s", mf_last_error());
  std::vector<double> want_y, want_dgate, want_dup;
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t d = 0; d < width; ++d) {
      const double g = gate.at(m, d), s = 1.0 / (1.0 + std::exp(-g));
      want_y.push_back(g * s * up.at(m, d));
      want_dgate.push_back(dy.at(m, d) * up.at(m, d) * s * (1.0 + g * (1.0 - s)));
      want_dup.push_back(dy.at(m, d) * g * s);
    }
  }
  compare("swiglu", y, want_y, rows, width);
  compare("swiglu dgate", dgate, want_dgate, rows, width);
  compare("swiglu dup", dup, want_dup, rows, width);
}

void check_rope_table() {
  const int64_t half = 17;
  std::vector<int32_t> positions = {0, 1, 31, 4095, 131071};
  Array freq(half), table(static_cast<int64_t>(positions.size()) * 2 * half);
  for (int64_t i = 0; i < half; ++i) freq.set(i, std::pow(10000.0, -static_cast<double>(i) / half));
  expect_that(rope_table(positions.data(), freq.as<float>(), 1.5f, table.as<float>(),
                         static_cast<int64_t>(positions.size()), half) == 0,
              "rope_table");
  std::vector<double> want(static_cast<size_t>(table.size));
  for (size_t m = 0; m < positions.size(); ++m) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(positions[m]) * freq.as<float>()[i];  // float32, as the reference models
      want[m * 2 * half + static_cast<size_t>(i)] = 1.5 * std::cos(static_cast<double>(angle));
      want[m * 2 * half + static_cast<size_t>(half + i)] = 1.5 * std::sin(static_cast<double>(angle));
    }
  }
  expect_that(error_of(want, table.values()) <= 1e-6, "rope_table: error %g", error_of(want, table.values()));
}

void check_embedding() {
  for (const DType type : {F32, F16, BF16, I8}) {
    const int64_t vocab = 11, width = 530;
    Array weight = randoms(vocab * width, type, type == I8 ? 40.0 : 1.0);
    std::vector<int64_t> ids = {10, 0, 3, 3};
    Array out(4 * width, F32);
    const Matrix table{weight.data(), type, width}, rows{out.data(), F32, width};
    expect_that(embedding(ids.data(), I64, 4, table, vocab, rows, width) == 0, "%s", mf_last_error());
    std::vector<double> want;
    for (const int64_t id : ids) {
      for (int64_t d = 0; d < width; ++d) want.push_back(weight[id * width + d]);
    }
    expect_that(out.values() == want, "embedding of %s", dtype_name(type));
    std::vector<int32_t> wrong = {1, -5};
    expect_error(embedding(wrong.data(), I32, 2, table, vocab, rows, width), "ids[1] is -5, but the table has 11 rows");
    wrong[1] = 11;
    expect_error(embedding(wrong.data(), I32, 2, table, vocab, rows, width), "ids[1] is 11");
    expect_that(out.values() == want, "a refused embedding wrote something");
  }
}

void check_edges() {
  Array weight = randoms(4), x(4), y(4);
  x.as<float>()[1] = NAN;
  expect_that(rms_norm({x.data(), F32, 4}, weight.data(), F32, {y.data(), F32, 4}, nullptr, 1, 4, 1e-6f) == 0 &&
                  std::isnan(y[0]),
              "NaN must reach the output");
  expect_that(rms_norm({x.data(), F32, 4}, weight.data(), F32, {y.data(), F32, 4}, nullptr, 0, 4, 1e-6f) == 0,
              "no rows");
  expect_error(rms_norm({x.data(), I8, 4}, weight.data(), F32, {y.data(), F32, 4}, nullptr, 1, 4, 1e-6f), "int8");
  Array far(4);
  for (int64_t i = 0; i < 4; ++i) far.set(i, i < 2 ? -1000.0 : 1000.0);
  expect_that(
      swiglu({far.data(), F32, 4}, {far.data(), F32, 4}, {y.data(), F32, 4}, 1, 4) == 0 && y[0] == 0.0 && y[3] == 1e6,
      "swiglu of large numbers: %g %g", y[0], y[3]);
}

}  // namespace

int main() {
  return each_isa("row-wise ops", [] {
    for (const int64_t width : {1, 7, 16, 37, 64, 511, 512, 513, 768, 2048, 2051}) {
      for (const int64_t rows : {1, 5, 41}) {
        check_rms_norm(rows, width);
        check_swiglu(rows, width);
      }
    }
    check_rope_table();
    check_embedding();
    check_edges();
  });
}
