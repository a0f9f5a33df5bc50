// ops.Custom entries of attention: mf_paged_attention, mf_attention.
#include <cstring>

#include "paged_entry.h"

namespace mf {
namespace {

int paged_attention_entry(const Entry& in) {
  if (in.expect_count(9) || in.expect_meta(7, 8)) return 1;
  PagedMeta meta{};
  const PagedInputs at{1, 2, 3, 4, 5, 6};
  const int64_t rows = in.dim(0, 0);
  if (read_paged_meta(in, in.data<float>(7), &meta) ||
      in.expect(0, "qkv", {F32}, 2, rows * (meta.heads + 2 * meta.kv_heads) * meta.head_dim) ||
      in.expect(8, "the output", {F32}, -1, rows * meta.heads * meta.head_dim) || check_paged(in, meta, at, rows)) {
    return 1;
  }
  return run_paged(in, meta, at, in.data<float>(0), in.data<float>(8));
}

int attention_entry(const Entry& in) {
  if (in.expect_count(6) || in.expect(0, "q", {F32}, 4, -1) || in.expect(1, "k", {F32}, 4, -1) ||
      in.expect(2, "v", {F32}, 4, in.size(1)) || in.expect(5, "the output", {F32}, -1, in.size(0))) {
    return 1;
  }
  if (in.expect_meta(4, 3)) return 1;
  const float* const meta = in.data<float>(4);
  int64_t causal = 0, window = 0;
  if (in.whole(meta, 1, "causal flag", &causal) || in.whole(meta, 2, "window", &window)) return 1;
  FlashShape shape;
  shape.batch = in.dim(0, 0), shape.queries = in.dim(0, 1), shape.heads = in.dim(0, 2), shape.head_dim = in.dim(0, 3);
  shape.keys = in.dim(1, 1), shape.kv_heads = in.dim(1, 2);
  shape.scale = meta[0];
  if (in.dim(1, 0) != shape.batch || in.dim(1, 3) != shape.head_dim ||
      std::memcmp(in.shapes[1], in.shapes[2], 4 * sizeof(int64_t)) != 0) {
    return fail("%s: q [%lld, %lld, %lld, %lld] does not fit k or v", in.name, static_cast<long long>(shape.batch),
                static_cast<long long>(shape.queries), static_cast<long long>(shape.heads),
                static_cast<long long>(shape.head_dim));
  }
  if (in.expect(3, "keep", {I32}, 2, shape.batch * shape.keys)) return 1;
  const int64_t offset = shape.keys - shape.queries;  // the queries are the last of the keys
  if (causal != 0) shape.right = offset;
  if (window > 0) shape.left = window - 1 - offset;
  std::vector<uint8_t> hidden(static_cast<size_t>(shape.batch * shape.keys));
  const int32_t* const keep = in.data<int32_t>(3);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = keep[i] == 0;
  shape.mask = hidden.data();
  shape.mask_b = shape.keys;
  const auto heads = [&](int i, int64_t s, int64_t n) {
    return Heads{in.params[i], F32, s * n * shape.head_dim, n * shape.head_dim, shape.head_dim};
  };
  return flash_forward(shape, heads(0, shape.queries, shape.heads), heads(1, shape.keys, shape.kv_heads),
                       heads(2, shape.keys, shape.kv_heads), heads(5, shape.queries, shape.heads), nullptr, nullptr);
}

}  // namespace
}  // namespace mf

// 0 qkv float32 [M, (N + 2K) * H], 1 rope float32 [M, R], 2-3 key and value cache [slots * K, H] float32 | float16 |
// bfloat16, written in place, 4 block_tables int32 [B, blocks], 5 slot_mapping int32 [M] (-1 = padding),
// 6 positions int32 [B, T], 7 meta float32 [8 + N * H]: N, K, H, block size, scale, rope style (0 halves, 1
// interleaved), window (0 none); its length tells the width of the output -> float32 [M, N * H]
MF_ENTRY(mf_paged_attention) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_paged_attention);
    return mf::paged_attention_entry(in);
  });
}

MF_INFER_SHAPE(mf_paged_attention) {
  (void)ndims;
  return {shapes[0][0], shapes[7][0] - 8};
}

// 0 q float32 [B, T, N, H], 1-2 k and v float32 [B, S, K, H], 3 keep int32 [B, S] (0 hides a key), 4 meta float32:
// scale, causal, window (0 none) -> float32 [B, T, N, H]. The queries are the last T of the S; one that sees no key
// gives zeros.
MF_ENTRY(mf_attention) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_attention);
    return mf::attention_entry(in);
  });
}

MF_INFER_SHAPE(mf_attention) { return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]); }
