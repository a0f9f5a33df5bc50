// ops.Custom entries of the linear layers: mf_linear, mf_qkv, mf_gate_up, mf_gate_up_packed.
//
// x float32 [M, I]; weights float32 | float16 | bfloat16 | int8 [O, I]; norm [I] and bias [O] any of those floats;
// scale float32 [O] or [O, groups]; meta float32: eps, has_norm, has_bias, has_scale, has_residual. An input that is
// absent by its flag is not looked at.
#include "linear_entry.h"


using namespace mf;

// 0 x, 1 meta, 2 norm, 3 w, 4 bias, 5 scale, 6 residual [M, O] -> float32 [M, O]
MF_ENTRY(mf_linear) {
  return guarded([&] {
    const Entry in = MF_ENTRY_ARGUMENTS(mf_linear);
    LinearArgs args;
    LinearFlags flags{};
    if (in.expect_count(8) || read_linear_meta(in, 1, &flags) ||
        read_linear_x(in, flags, 2, &args) || read_linear_weight(in, flags, 0, 3, 4, 5, &args)) {
      return 1;
    }
    if (flags.residual) {
      if (in.dtype(6) != F32 || in.size(6) != args.M * args.weights[0].rows) {
        return fail("mf_linear: residual must be float32 [%lld, %lld], got %s of %lld elements",
                    (long long)(args.M), (long long)(args.weights[0].rows), in.dtypes[6],
                    (long long)(in.size(6)));
      }
      args.residual = static_cast<const float*>(in.params[6]);
    }
    return run_linear(in, 7, &args);
  });
}

MF_INFER_SHAPE(mf_linear) { return {shapes[0][0], shapes[3][0]}; }

// 0 x, 1 meta, 2 norm, 3-5 wq wk wv, 6-8 biases, 9-11 scales -> float32 [M, Oq + Ok + Ov]
MF_ENTRY(mf_qkv) {
  return guarded([&] {
    const Entry in = MF_ENTRY_ARGUMENTS(mf_qkv);
    LinearArgs args;
    LinearFlags flags{};
    if (in.expect_count(13) || read_linear_meta(in, 1, &flags) || read_linear_x(in, flags, 2, &args)) {
      return 1;
    }
    args.weight_count = 3;
    for (int k = 0; k < 3; ++k) {
      if (read_linear_weight(in, flags, k, 3 + k, 6 + k, 9 + k, &args)) return 1;
    }
    return run_linear(in, 12, &args);
  });
}

MF_INFER_SHAPE(mf_qkv) { return {shapes[0][0], shapes[3][0] + shapes[4][0] + shapes[5][0]}; }

// 0 x, 1 meta, 2 norm, 3-4 gate and up, 5-6 biases, 7-8 scales -> float32 [M, F] = silu(gate) * up
MF_ENTRY(mf_gate_up) {
  return guarded([&] {
    const Entry in = MF_ENTRY_ARGUMENTS(mf_gate_up);
    LinearArgs args;
    LinearFlags flags{};
    if (in.expect_count(10) || read_linear_meta(in, 1, &flags) || read_linear_x(in, flags, 2, &args)) return 1;
    args.weight_count = 2;
    args.swiglu = true;
    for (int k = 0; k < 2; ++k) {
      if (read_linear_weight(in, flags, k, 3 + k, 5 + k, 7 + k, &args)) return 1;
    }
    if (args.weights[0].rows != args.weights[1].rows) {
      return fail("mf_gate_up: gate has %lld rows and up %lld", (long long)(args.weights[0].rows),
                  (long long)(args.weights[1].rows));
    }
    return run_linear(in, 9, &args);
  });
}

MF_INFER_SHAPE(mf_gate_up) { return {shapes[0][0], shapes[3][0]}; }

// 0 x, 1 meta, 2 norm, 3 w [2F, I], the gate's rows first, 4 bias, 5 scale -> float32 [M, F] = silu(gate) * up
MF_ENTRY(mf_gate_up_packed) {
  return guarded([&] {
    const Entry in = MF_ENTRY_ARGUMENTS(mf_gate_up_packed);
    LinearArgs args;
    LinearFlags flags{};
    if (in.expect_count(7) || read_linear_meta(in, 1, &flags) || read_linear_x(in, flags, 2, &args) ||
        read_linear_weight(in, flags, 0, 3, 4, 5, &args)) {
      return 1;
    }
    if (split_gate_up(in, &args)) return 1;
    return run_linear(in, 6, &args);
  });
}

MF_INFER_SHAPE(mf_gate_up_packed) { return {shapes[0][0], shapes[3][0] / 2}; }
