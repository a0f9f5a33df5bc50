// ops.Custom entries of attention: mf_paged_attention, mf_attention.
#include "../attention.h"

#include <cstring>

#include "entry.h"

namespace mf {
namespace {

// meta of mf_paged_attention.
struct PagedMeta {
  int64_t heads, kv_heads, head_dim, block_size, style, window;
  float scale;
};

int read_meta(const Entry& in, const float* meta, PagedMeta* out) {
  if (in.whole(meta, 0, "number of heads", &out->heads) || in.whole(meta, 1, "number of kv heads", &out->kv_heads) ||
      in.whole(meta, 2, "head dim", &out->head_dim) || in.whole(meta, 3, "block size", &out->block_size) ||
      in.whole(meta, 5, "rope style", &out->style) || in.whole(meta, 6, "window", &out->window)) {
    return 1;
  }
  out->scale = meta[4];
  if (out->heads < 1 || out->kv_heads < 1 || out->head_dim < 1 || out->block_size < 1) {
    return fail("%s: %lld heads, %lld kv heads of %lld, block size %lld: each must be at least 1", in.name,
                static_cast<long long>(out->heads), static_cast<long long>(out->kv_heads),
                static_cast<long long>(out->head_dim), static_cast<long long>(out->block_size));
  }
  if (out->style > 1)
    return fail("%s: rope style is %lld, but must be 0 (halves) or 1 (interleaved)", in.name,
                static_cast<long long>(out->style));
  return 0;
}

int check_paged(const Entry& in, const PagedMeta& meta, int64_t rows) {
  const int64_t width = (meta.heads + 2 * meta.kv_heads) * meta.head_dim;
  if (in.expect(0, "qkv", {F32}, 2, rows * width) || in.expect(1, "rope", {F32}, 2, -1) ||
      in.expect(2, "key_cache", {F32, F16, BF16}, -1, -1) ||
      in.expect(3, "value_cache", {in.dtype(2)}, -1, in.size(2)) || in.expect(4, "block_tables", {I32}, 2, -1) ||
      in.expect(5, "slot_mapping", {I32}, -1, rows) || in.expect(6, "positions", {I32}, 2, rows) ||
      in.expect(8, "the output", {F32}, -1, rows * meta.heads * meta.head_dim)) {
    return 1;
  }
  if (in.dim(1, 0) != rows) {
    return fail("%s: rope has %lld rows, but qkv %lld", in.name, static_cast<long long>(in.dim(1, 0)),
                static_cast<long long>(rows));
  }
  if (in.last(2) != meta.head_dim || in.size(2) % (meta.kv_heads * meta.head_dim) != 0) {
    return fail("%s: key_cache of %lld elements, last axis %lld, does not hold slots of %lld kv heads of %lld", in.name,
                static_cast<long long>(in.size(2)), static_cast<long long>(in.last(2)),
                static_cast<long long>(meta.kv_heads), static_cast<long long>(meta.head_dim));
  }
  if (in.dim(4, 0) != in.dim(6, 0)) {
    return fail("%s: block_tables has %lld sequences, but positions %lld", in.name,
                static_cast<long long>(in.dim(4, 0)), static_cast<long long>(in.dim(6, 0)));
  }
  return 0;
}

int paged_attention_entry(const Entry& in) {
  if (in.expect_count(9)) return 1;
  if (in.dtype(7) != F32 || in.size(7) < 8) return fail("%s: meta must be float32 of 8 or more elements", in.name);
  PagedMeta meta{};
  const int64_t rows = in.dim(0, 0);
  if (read_meta(in, in.data<float>(7), &meta) || check_paged(in, meta, rows)) return 1;
  const PagedCache cache{in.params[2],  in.params[3],  in.dtype(2),    in.size(2) / (meta.kv_heads * meta.head_dim),
                         meta.kv_heads, meta.head_dim, meta.block_size};
  std::vector<int64_t> first_row(static_cast<size_t>(in.dim(6, 0)) + 1);
  for (size_t b = 0; b < first_row.size(); ++b) first_row[b] = static_cast<int64_t>(b) * in.dim(6, 1);
  const PagedQueries queries{rows,         in.dim(6, 0), first_row.data(), in.data<int32_t>(6), in.data<int32_t>(4),
                             in.dim(4, 1), meta.window};
  const Rope rope{in.data<float>(1), in.dim(1, 1), meta.style == 1};
  return paged_attention_step(cache, queries, in.data<float>(0), rope, in.data<int32_t>(5), in.data<float>(8),
                              meta.heads, meta.scale);
}

int attention_entry(const Entry& in) {
  if (in.expect_count(6) || in.expect(0, "q", {F32}, 4, -1) || in.expect(1, "k", {F32}, 4, -1) ||
      in.expect(2, "v", {F32}, 4, in.size(1)) || in.expect(5, "the output", {F32}, -1, in.size(0))) {
    return 1;
  }
  if (in.dtype(4) != F32 || in.size(4) < 3) return fail("%s: meta must be float32 of 3 or more elements", in.name);
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
