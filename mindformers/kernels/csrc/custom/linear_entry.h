// How ops.Custom entries read the arguments of a product.
//
// x float32 [M, I]; weights float32 | float16 | bfloat16 | int8 [O, I]; norm [I] and bias [O] any of those floats;
// scale float32 [O] or [O, groups]. An input that is absent by its flag is not looked at.
#pragma once

#include "../linear.h"
#include "entry.h"

namespace mf {

inline bool is_float(DType dtype) { return dtype == F32 || dtype == F16 || dtype == BF16; }

struct LinearFlags {
  float eps;
  bool norm, bias, scale, residual;
};

inline int read_linear_meta(const Entry& in, int index, LinearFlags* flags) {
  if (in.expect_meta(index, 5)) return 1;
  const float* meta = static_cast<const float*>(in.params[index]);
  *flags = {meta[0], meta[1] != 0, meta[2] != 0, meta[3] != 0, meta[4] != 0};
  return 0;
}

inline int read_linear_norm(const Entry& in, int norm, LinearArgs* args) {
  if (!is_float(in.dtype(norm)) || in.size(norm) != args->I) {
    return fail("%s: norm must be a float of [%lld], got %s of %lld elements", in.name, (long long)(args->I),
                in.dtypes[norm], (long long)(in.size(norm)));
  }
  args->norm = in.params[norm];
  args->norm_dtype = in.dtype(norm);
  return 0;
}

// x and the norm weight.
inline int read_linear_x(const Entry& in, const LinearFlags& flags, int norm, LinearArgs* args) {
  if (in.dtype(0) != F32 || in.ndims[0] != 2) {
    return fail("%s: x must be float32 [M, I], got %s of %d dimensions", in.name, in.dtypes[0], in.ndims[0]);
  }
  args->x = static_cast<const float*>(in.params[0]);
  args->M = in.shapes[0][0];
  args->I = args->x_stride = in.shapes[0][1];
  args->eps = flags.eps;
  if (args->I < 1) return fail("%s: x has no columns", in.name);
  return flags.norm ? read_linear_norm(in, norm, args) : 0;
}

// Weight number k from inputs w, bias, scale.
inline int read_linear_weight(const Entry& in, const LinearFlags& flags, int k, int w, int bias, int scale,
                              LinearArgs* args) {
  const DType dtype = in.dtype(w);
  if ((!is_float(dtype) && dtype != I8) || in.ndims[w] != 2 || in.shapes[w][1] != args->I) {
    return fail("%s: weight %d must be float32, float16, bfloat16 or int8 of [O, %lld], got %s of %d dimensions and "
                "%lld elements", in.name, k, (long long)(args->I), in.dtypes[w], in.ndims[w],
                (long long)(in.size(w)));
  }
  LinearWeight& weight = args->weights[k];
  weight = {in.params[w], in.shapes[w][0], args->I, nullptr, nullptr};
  if (k > 0 && dtype != args->weight_dtype) {
    return fail("%s: the weights must have one dtype, got %s and %s", in.name, dtype_name(args->weight_dtype),
                in.dtypes[w]);
  }
  args->weight_dtype = dtype;
  if (flags.scale != (dtype == I8)) {
    return fail("%s: %s weights %s", in.name, in.dtypes[w], flags.scale ? "take no scale" : "need a scale");
  }
  if (flags.scale) {
    const int64_t groups = in.ndims[scale] == 2 ? in.shapes[scale][1] : 1;
    if (in.dtype(scale) != F32 || in.size(scale) != weight.rows * groups || groups < 1 || args->I % groups != 0 ||
        (k > 0 && groups != args->groups)) {
      return fail("%s: scale %d must be float32 [%lld] or [%lld, groups] with groups that divide %lld, got %s of %lld "
                  "elements in %lld groups", in.name, k, (long long)(weight.rows), (long long)(weight.rows),
                  (long long)(args->I), in.dtypes[scale], (long long)(in.size(scale)),
                  (long long)(groups));
    }
    args->groups = groups;
    weight.scale = static_cast<const float*>(in.params[scale]);
  }
  if (flags.bias) {
    if (!is_float(in.dtype(bias)) || in.size(bias) != weight.rows || (k > 0 && in.dtype(bias) != args->bias_dtype)) {
      return fail("%s: bias %d must be a float of [%lld], of the same dtype as the others, got %s of %lld elements",
                  in.name, k, (long long)(weight.rows), in.dtypes[bias], (long long)(in.size(bias)));
    }
    args->bias_dtype = in.dtype(bias);
    weight.bias = in.params[bias];
  }
  return 0;
}

// The rows of one weight, [gate; up], as two; the product of both is SwiGLU's.
inline int split_gate_up(const Entry& in, LinearArgs* args) {
  LinearWeight &gate = args->weights[0], &up = args->weights[1];
  if (gate.rows % 2 != 0) return fail("%s: the weight has %lld rows, an odd number", in.name, (long long)(gate.rows));
  const int64_t F = gate.rows = gate.rows / 2;
  up = gate;
  up.data = static_cast<const char*>(gate.data) + F * gate.row_stride * dtype_size(args->weight_dtype);
  if (gate.bias != nullptr) up.bias = static_cast<const char*>(gate.bias) + F * dtype_size(args->bias_dtype);
  if (gate.scale != nullptr) up.scale = gate.scale + F * args->groups;
  args->weight_count = 2;
  args->swiglu = true;
  return 0;
}

inline int run_linear(const Entry& in, int out, LinearArgs* args) {
  int64_t columns = 0;
  for (int i = 0; i < args->weight_count; ++i) columns += args->weights[i].rows;
  if (args->swiglu) columns = args->weights[0].rows;
  if (in.dtype(out) != F32 || in.size(out) != args->M * columns) {
    return fail("%s: the output must be float32 [%lld, %lld], got %s of %lld elements", in.name, (long long)(args->M),
                (long long)(columns), in.dtypes[out], (long long)(in.size(out)));
  }
  args->out = static_cast<float*>(in.params[out]);
  args->out_stride = columns;
  linear(*args);
  return 0;
}

}  // namespace mf
