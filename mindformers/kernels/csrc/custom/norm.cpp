// ops.Custom entries of the row-wise ops: mf_rope_table, mf_embedding, mf_rms_norm, mf_swiglu, and gradients.
#include "../norm.h"

#include <memory>

#include "entry.h"

namespace mf {
namespace {

int read_number(const Entry& in, int i, float* value) {
  if (in.expect_meta(i, 1)) return 1;
  *value = in.data<float>(i)[0];
  return 0;
}

int rope_table_entry(const Entry& in) {
  float factor = 1.0f;
  if (in.expect_count(4) || in.expect(0, "positions", {I32}, -1, -1) || in.expect(1, "inv_freq", {F32}, 1, -1) ||
      read_number(in, 2, &factor) || in.expect(3, "the output", {F32}, -1, 2 * in.size(0) * in.size(1))) {
    return 1;
  }
  return rope_table(in.data<int32_t>(0), in.data<float>(1), factor, in.data<float>(3), in.size(0), in.size(1));
}

int embedding_entry(const Entry& in) {
  if (in.expect_count(3) || in.expect(0, "ids", {I32, I64}, -1, -1) ||
      in.expect(1, "weight", {F32, F16, BF16, I8}, 2, -1) ||
      in.expect(2, "the output", {F32}, -1, in.size(0) * in.last(1))) {
    return 1;
  }
  const int64_t width = in.last(1);
  return embedding(in.params[0], in.dtype(0), in.size(0), {in.params[1], in.dtype(1), width}, in.dim(1, 0),
                   {in.params[2], F32, width}, width);
}

int rms_norm_entry(const Entry& in) {
  float eps = 0.0f;
  const int64_t width = in.count > 0 ? in.last(0) : 0;
  if (in.expect_count(4) || in.expect(0, "x", {F32, F16, BF16}, -1, -1) ||
      in.expect(1, "weight", {F32, F16, BF16}, -1, width) || read_number(in, 2, &eps) ||
      in.expect(3, "the output", {F32}, -1, in.size(0))) {
    return 1;
  }
  if (width < 1) return fail("%s: the rows of x are empty", in.name);
  return rms_norm({in.params[0], in.dtype(0), width}, in.params[1], in.dtype(1), {in.params[3], F32, width}, nullptr,
                  in.size(0) / width, width, eps);
}

int swiglu_entry(const Entry& in) {
  if (in.expect_count(3) || in.expect(0, "gate", {F32, F16, BF16}, -1, -1) ||
      in.expect(1, "up", {F32, F16, BF16}, -1, in.size(0)) || in.expect(2, "the output", {F32}, -1, in.size(0))) {
    return 1;
  }
  const int64_t width = in.last(0);
  if (width < 1) return 0;
  return swiglu({in.params[0], in.dtype(0), width}, {in.params[1], in.dtype(1), width}, {in.params[2], F32, width},
                in.size(0) / width, width);
}

int rms_norm_grad_entry(const Entry& in) {
  float eps = 0.0f;
  const int64_t width = in.count > 0 ? in.last(0) : 0;
  if (in.expect_count(6, 2) || in.expect(0, "x", {F32, F16, BF16}, -1, -1) ||
      in.expect(1, "weight", {F32, F16, BF16}, -1, width) || read_number(in, 2, &eps) ||
      in.expect(3, "dy", {F32}, -1, in.size(0)) || in.expect(4, "dx", {F32}, -1, in.size(0)) ||
      in.expect(5, "dweight", {F32}, -1, width)) {
    return 1;
  }
  if (width < 1) return fail("%s: the rows of x are empty", in.name);
  const int64_t rows = in.size(0) / width;
  const Matrix x{in.params[0], in.dtype(0), width};
  const std::unique_ptr<float[]> rstd(new float[rows]);
  if (rms_norm(x, in.params[1], in.dtype(1), {nullptr, F32, width}, rstd.get(), rows, width, eps)) return 1;
  return rms_norm_grad({in.params[3], F32, width}, x, rstd.get(), in.params[1], in.dtype(1), {in.params[4], F32, width},
                       in.data<float>(5), rows, width);
}

int swiglu_grad_entry(const Entry& in) {
  if (in.expect_count(5, 2) || in.expect(0, "gate", {F32, F16, BF16}, -1, -1)) return 1;
  const int64_t size = in.size(0), width = in.last(0);
  if (in.expect(1, "up", {F32, F16, BF16}, -1, size) || in.expect(2, "dy", {F32}, -1, size) ||
      in.expect(3, "dgate", {F32}, -1, size) || in.expect(4, "dup", {F32}, -1, size)) {
    return 1;
  }
  if (width < 1) return 0;
  return swiglu_grad({in.params[2], F32, width}, {in.params[0], in.dtype(0), width}, {in.params[1], in.dtype(1), width},
                     {in.params[3], F32, width}, {in.params[4], F32, width}, size / width, width);
}

}  // namespace
}  // namespace mf

// 0 positions int32 of any shape (M of them), 1 inv_freq float32 [R / 2], 2 meta float32: factor of cosines and sines
// -> float32 [M, R], cosines first
MF_ENTRY(mf_rope_table) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_rope_table);
    return mf::rope_table_entry(in);
  });
}

MF_INFER_SHAPE(mf_rope_table) { return {mf::elements(shapes[0], ndims[0]), shapes[1][0] < 0 ? -1 : 2 * shapes[1][0]}; }

// 0 ids int32 | int64 of any shape, 1 weight float32 | float16 | bfloat16 | int8 [V, D] -> float32 [number of ids, D]
MF_ENTRY(mf_embedding) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_embedding);
    return mf::embedding_entry(in);
  });
}

MF_INFER_SHAPE(mf_embedding) { return {mf::elements(shapes[0], ndims[0]), shapes[1][1]}; }

// 0 x [..., D], 1 weight [D], each float32 | float16 | bfloat16, 2 meta float32: eps -> float32, the shape of x
MF_ENTRY(mf_rms_norm) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_rms_norm);
    return mf::rms_norm_entry(in);
  });
}

MF_INFER_SHAPE(mf_rms_norm) { return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]); }

// 0 gate, 1 up of one shape, each float32 | float16 | bfloat16 -> float32 silu(gate) * up
MF_ENTRY(mf_swiglu) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_swiglu);
    return mf::swiglu_entry(in);
  });
}

MF_INFER_SHAPE(mf_swiglu) { return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]); }

// 0 x, 1 weight, 2 meta as mf_rms_norm, 3 float32 gradient of its output -> float32 gradients of x and of weight
MF_ENTRY(mf_rms_norm_grad) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_rms_norm_grad);
    return mf::rms_norm_grad_entry(in);
  });
}

MF_INFER_SHAPES(mf_rms_norm_grad) {
  return {std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]), std::vector<int64_t>(shapes[1], shapes[1] + ndims[1])};
}

MF_INFER_TYPES(mf_rms_norm_grad, 2, 2)

// 0 gate, 1 up as mf_swiglu, 2 float32 gradient of its output -> float32 gradients of gate and up
MF_ENTRY(mf_swiglu_grad) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_swiglu_grad);
    return mf::swiglu_grad_entry(in);
  });
}

MF_INFER_SHAPES(mf_swiglu_grad) {
  const std::vector<int64_t> shape(shapes[0], shapes[0] + ndims[0]);
  return {shape, shape};
}

MF_INFER_TYPES(mf_swiglu_grad, 2, 2)
