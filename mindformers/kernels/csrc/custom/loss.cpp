// ops.Custom entries of the loss: mf_cross_entropy and its gradient.
#include "../loss.h"

#include "entry.h"

namespace mf {
namespace {

int read(const Entry& in, CrossEntropyArgs* args) {
  if (in.expect(0, "logits", {F32, F16, BF16}, 2, -1) || in.expect(1, "labels", {I32}, 1, in.dim(0, 0))) return 1;
  *args = {in.params[0], in.dtype(0), in.data<int32_t>(1), in.dim(0, 0), in.dim(0, 1)};
  if (args->vocab < 1) return fail("%s: the rows of logits are empty", in.name);
  return 0;
}

int forward(const Entry& in) {
  CrossEntropyArgs args;
  if (in.expect_count(4) || read(in, &args) || in.expect(2, "weight", {F32}, 1, args.rows) ||
      in.expect(3, "the output", {F32}, -1, 2 * args.rows)) {
    return 1;
  }
  return cross_entropy(args, in.data<float>(2), in.data<float>(3), in.data<float>(3) + args.rows);
}

int backward(const Entry& in) {
  CrossEntropyArgs args;
  if (in.expect_count(5) || read(in, &args) || in.expect(2, "saved", {F32}, 2, 2 * args.rows) ||
      in.expect(3, "scale", {F32}, 1, args.rows) || in.expect(4, "the output", {F32}, -1, args.rows * args.vocab)) {
    return 1;
  }
  return cross_entropy_grad(args, in.data<float>(2) + args.rows, in.data<float>(3), in.data<float>(4));
}

}  // namespace
}  // namespace mf

// 0 logits [N, V] float32 | float16 | bfloat16, 1 labels int32 [N], 2 weight float32 [N]: rows of weight 0 are not read
// -> float32 [2, N]: losses, and log(sum(exp(logits)))
MF_ENTRY(mf_cross_entropy) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_cross_entropy);
    return mf::forward(in);
  });
}

MF_INFER_SHAPE(mf_cross_entropy) {
  static_cast<void>(ndims);
  return {2, shapes[0][0]};
}

// 0 logits, 1 labels as above, 2 what mf_cross_entropy gave, 3 scale float32 [N]: the gradient of each row's loss
// -> float32 [N, V]
MF_ENTRY(mf_cross_entropy_grad) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_cross_entropy_grad);
    return mf::backward(in);
  });
}

MF_INFER_SHAPE(mf_cross_entropy_grad) { return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]); }
