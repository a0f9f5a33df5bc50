// Linear layers against sums in double, for every weight type, instruction set, odd size and fused part.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "../linear.h"
#include "../pool.h"
#include "tools.h"

using namespace mf;

namespace {

std::mt19937 generator(7);

double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(generator); }
int64_t pick(std::initializer_list<int64_t> from) { return from.begin()[generator() % from.size()]; }

// Numbers in a given dtype, at an address that is aligned for the element only.
struct Array {
  DType dtype = F32;
  std::vector<char> bytes;
  int64_t size = 0;
  char* data() { return bytes.data() + (dtype_size(dtype)); }
  double get(int64_t i) {
    char* p = data() + i * dtype_size(dtype);
    if (dtype == F32) return *reinterpret_cast<float*>(p);
    if (dtype == F16) return to_float(*reinterpret_cast<f16*>(p));
    if (dtype == BF16) return to_float(*reinterpret_cast<bf16*>(p));
    return *reinterpret_cast<int8_t*>(p);
  }
};

Array random_array(DType dtype, int64_t size, double low = -1, double high = 1) {
  Array a;
  a.dtype = dtype;
  a.size = size;
  a.bytes.resize(static_cast<size_t>((size + 1) * dtype_size(dtype)));
  for (int64_t i = 0; i < size; ++i) {
    char* p = a.data() + i * dtype_size(dtype);
    const float value = static_cast<float>(uniform(low, high));
    if (dtype == F32) from_float(value, reinterpret_cast<float*>(p));
    if (dtype == F16) from_float(value, reinterpret_cast<f16*>(p));
    if (dtype == BF16) from_float(value, reinterpret_cast<bf16*>(p));
    if (dtype == I8) *reinterpret_cast<int8_t*>(p) = static_cast<int8_t>(generator() % 256);
  }
  return a;
}

struct Case {
  int64_t M, I;
  std::vector<int64_t> rows;
  DType weight, bias_dtype = F32, norm_dtype = F32;
  int64_t groups = 1;
  bool bias = false, norm = false, residual = false, swiglu = false;
  std::string text() const {
    std::string out = "M=" + std::to_string(M) + " I=" + std::to_string(I) + " rows=";
    for (int64_t r : rows) out += std::to_string(r) + ",";
    return out + " " + dtype_name(weight) + " groups=" + std::to_string(groups) + (bias ? " bias" : "") +
           (norm ? " norm" : "") + (residual ? " residual" : "") + (swiglu ? " swiglu" : "");
  }
};

// Relative L2 error that the dtype allows.
double tolerance(const Case& c) { return c.weight == BF16 || c.weight == I8 ? 1e-2 : c.swiglu ? 4e-6 : 2e-6; }

// The exact results; `spread`: how large each would be if the terms of its sum had random signs. Rounding is relative
// to that, also where they happen to cancel.
std::vector<double> exact(const Case& c, Array& x, std::vector<Array>& w, std::vector<Array>& bias,
                          std::vector<Array>& scale, Array& norm, Array& residual, int64_t x_stride, int64_t w_stride,
                          std::vector<double>* spread) {
  int64_t total = 0;
  for (int64_t r : c.rows) total += r;
  std::vector<double> y(static_cast<size_t>(c.M * total));
  spread->assign(y.size(), 0.0);
  std::vector<double> weights, biases;  // [total, I], [total]
  for (size_t k = 0; k < c.rows.size(); ++k) {
    for (int64_t r = 0; r < c.rows[k]; ++r) {
      for (int64_t i = 0; i < c.I; ++i) {
        const double s = c.weight == I8 ? scale[k].get(r * c.groups + i / (c.I / c.groups)) : 1;
        weights.push_back(w[k].get(r * w_stride + i) * s);
      }
      biases.push_back(c.bias ? bias[k].get(r) : 0);
    }
  }
  std::vector<double> row(static_cast<size_t>(c.I));
  for (int64_t m = 0; m < c.M; ++m) {
    double squares = 0;
    for (int64_t i = 0; i < c.I; ++i) squares += x.get(m * x_stride + i) * x.get(m * x_stride + i);
    const double factor = c.norm ? 1 / std::sqrt(squares / c.I + 1e-5f) : 1;
    for (int64_t i = 0; i < c.I; ++i) row[i] = x.get(m * x_stride + i) * factor * (c.norm ? norm.get(i) : 1);
    for (int64_t column = 0; column < total; ++column) {
      const double *const left = row.data(), *const right = weights.data() + column * c.I;
      double sum = 0, terms = 0;
      for (int64_t i = 0; i < c.I; ++i) {
        const double term = left[i] * right[i];
        sum += term;
        terms += term * term;
      }
      y[m * total + column] = sum + biases[column];
      (*spread)[m * total + column] = std::sqrt(terms);
    }
  }
  if (c.swiglu) {
    const int64_t F = c.rows[0];
    std::vector<double> z(static_cast<size_t>(c.M * F)), of_product(z.size());
    for (int64_t i = 0; i < c.M * F; ++i) {
      const int64_t gate_at = i / F * 2 * F + i % F, up_at = gate_at + F;
      const double silu = y[gate_at] / (1 + std::exp(-y[gate_at]));
      z[i] = silu * y[up_at];
      of_product[i] = std::fabs(silu) * (*spread)[up_at] + std::fabs(y[up_at]) * (*spread)[gate_at];
    }
    y = z;
    *spread = of_product;
  }
  for (size_t i = 0; c.residual && i < y.size(); ++i) y[i] += residual.get(static_cast<int64_t>(i));
  return y;
}

void check(const Case& c) {
  const int64_t x_stride = c.I + pick({0, 3}), w_stride = c.I + pick({0, 5});
  int64_t total = 0;
  for (int64_t r : c.rows) total += r;
  if (c.swiglu) total = c.rows[0];
  Array x = random_array(F32, c.M * x_stride), norm = random_array(c.norm_dtype, c.I, 0.5, 1.5);
  Array residual = random_array(F32, c.M * total);
  std::vector<Array> w, bias, scale;
  LinearArgs args;
  for (int64_t rows : c.rows) {
    w.push_back(random_array(c.weight, rows * w_stride));
    bias.push_back(random_array(c.bias_dtype, rows));
    scale.push_back(random_array(F32, rows * c.groups, 0.002, 0.02));
  }
  args.x = reinterpret_cast<float*>(x.data());
  args.M = c.M;
  args.I = c.I;
  args.x_stride = x_stride;
  args.weight_count = static_cast<int>(c.rows.size());
  for (size_t k = 0; k < c.rows.size(); ++k) {
    args.weights[k] = {w[k].data(), c.rows[k], w_stride, c.bias ? bias[k].data() : nullptr,
                       c.weight == I8 ? reinterpret_cast<float*>(scale[k].data()) : nullptr};
  }
  args.weight_dtype = c.weight;
  args.bias_dtype = c.bias_dtype;
  args.groups = c.groups;
  args.norm = c.norm ? norm.data() : nullptr;
  args.norm_dtype = c.norm_dtype;
  args.eps = 1e-5f;
  args.residual = c.residual ? reinterpret_cast<float*>(residual.data()) : nullptr;
  args.swiglu = c.swiglu;
  std::vector<float> out(static_cast<size_t>(c.M * total) + 2, 12345.0f);
  args.out = out.data() + 1;
  args.out_stride = total;
  linear(args);
  std::vector<double> spread;
  const std::vector<double> want = exact(c, x, w, bias, scale, norm, residual, x_stride, w_stride, &spread);
  double error = 0, size = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (out[i + 1] - want[i]) * (out[i + 1] - want[i]);
    size += std::max(want[i] * want[i], spread[i] * spread[i]);
  }
  const double relative = std::sqrt(error / size);
  const bool kept = out.front() == 12345.0f && out.back() == 12345.0f;
  if (!(relative <= tolerance(c)) || !kept) {
    std::printf("FAILED %s: relative error %.3g%s\n", c.text().c_str(), relative, kept ? "" : ", wrote outside");
    ++test::failures;
  }
}

Case random_case() {
  Case c;
  const DType types[] = {F32, F16, BF16, I8}, floats[] = {F32, F16, BF16};
  c.weight = types[generator() % 4];
  c.bias_dtype = floats[generator() % 3];
  c.norm_dtype = floats[generator() % 3];
  c.M = pick({0, 1, 1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 31, 50});
  c.I = pick({1, 2, 15, 31, 33, 64, 96, 100, 127, 256, 321, 768});
  c.swiglu = generator() % 4 == 0;
  const int64_t rows = pick({1, 2, 3, 5, 16, 31, 32, 33, 47, 70});
  c.rows = {rows};
  if (c.swiglu) {
    c.rows = {rows, rows};
  } else if (generator() % 3 == 0) {
    c.rows = {rows, pick({1, 4, 33}), pick({1, 7, 32})};
  }
  if (c.weight == I8 && c.I % 3 == 0 && c.I > 33) c.groups = pick({1, 3});
  if (c.weight == I8 && c.I % 64 == 0) c.groups = pick({1, c.I / 32, c.I / 64});
  c.bias = generator() % 2 != 0;
  c.norm = generator() % 2 != 0;
  c.residual = generator() % 2 != 0;
  return c;
}

void check_all() {
  for (int i = 0; i < test::share(500); ++i) check(random_case());
  for (DType type : {F32, F16, BF16, I8}) {  // several blocks of I and of M
    Case c;
    c.M = 250;
    c.I = 2500;
    c.rows = {35};
    c.weight = type;
    c.norm = true;
    check(c);
    c.M = 3;
    c.I = 40000;
    check(c);
  }
}

// int8: the largest numbers everywhere must not overflow, and one large activation must not drown the others.
void check_int8_range() {
  for (int64_t I : {64, 4096, 70000}) {
    std::vector<float> x(static_cast<size_t>(I), 1.0f), out(1), scale(1, 1.0f);
    std::vector<int8_t> w(static_cast<size_t>(I), -128);
    LinearArgs args;
    args.x = x.data();
    args.M = 1;
    args.I = args.x_stride = I;
    args.weights[0] = {w.data(), 1, I, nullptr, scale.data()};
    args.weight_dtype = I8;
    args.out = out.data();
    args.out_stride = 1;
    linear(args);
    if (std::fabs(out[0] / (-128.0 * I) - 1) > 1e-3) {
      std::printf("FAILED int8 range I=%lld: %g\n", static_cast<long long>(I), out[0]);
      ++test::failures;
    }
    x[0] = 200;
    w[0] = 0;
    linear(args);
    if (std::fabs(out[0] / (-128.0 * (I - 1)) - 1) > 1e-2) {
      std::printf("FAILED int8 outlier I=%lld: %g\n", static_cast<long long>(I), out[0]);
      ++test::failures;
    }
    x[0] = NAN;
    linear(args);
    if (!std::isnan(out[0])) {
      std::printf("FAILED int8 NaN I=%lld: %g\n", static_cast<long long>(I), out[0]);
      ++test::failures;
    }
  }
}

}  // namespace

int main() {
  return test::each_isa("linear", [] {
    check_all();
    check_int8_range();
  });
}
