// How ops.Custom entries read the arguments of attention over the paged cache.
#pragma once

#include "../attention.h"
#include "entry.h"

namespace mf {

constexpr int64_t kMostHeads = 1 << 20;  // of the sizes in meta: products of three of them stay far below 2^63

// meta of a paged attention: N, K, H, block size, scale, rope style (0 halves, 1 interleaved), window (0 none).
struct PagedMeta {
  int64_t heads, kv_heads, head_dim, block_size, style, window;
  float scale;
};

inline int read_paged_meta(const Entry& in, const float* meta, PagedMeta* out) {
  if (in.whole(meta, 0, "number of heads", &out->heads) || in.whole(meta, 1, "number of kv heads", &out->kv_heads) ||
      in.whole(meta, 2, "head dim", &out->head_dim) || in.whole(meta, 3, "block size", &out->block_size) ||
      in.whole(meta, 5, "rope style", &out->style) || in.whole(meta, 6, "window", &out->window)) {
    return 1;
  }
  out->scale = meta[4];
  for (const int64_t value : {out->heads, out->kv_heads, out->head_dim, out->block_size}) {
    if (value >= 1 && value <= kMostHeads) continue;
    return fail("%s: %lld heads, %lld kv heads of %lld, block size %lld: each must be 1 ... %lld", in.name,
                static_cast<long long>(out->heads), static_cast<long long>(out->kv_heads),
                static_cast<long long>(out->head_dim), static_cast<long long>(out->block_size),
                static_cast<long long>(kMostHeads));
  }
  if (out->style > 1)
    return fail("%s: rope style is %lld, but must be 0 (halves) or 1 (interleaved)", in.name,
                static_cast<long long>(out->style));
  return 0;
}

// Which inputs are what.
struct PagedInputs {
  int rope, keys, values, tables, slots, positions;
};

inline int check_paged(const Entry& in, const PagedMeta& meta, const PagedInputs& at, int64_t rows) {
  if (in.expect(at.rope, "rope", {F32}, 2, -1) || in.expect(at.keys, "key_cache", {F32, F16, BF16}, -1, -1) ||
      in.expect(at.values, "value_cache", {in.dtype(at.keys)}, -1, in.size(at.keys)) ||
      in.expect(at.tables, "block_tables", {I32}, 2, -1) || in.expect(at.slots, "slot_mapping", {I32}, -1, rows) ||
      in.expect(at.positions, "positions", {I32}, 2, rows)) {
    return 1;
  }
  if (in.dim(at.rope, 0) != rows) {
    return fail("%s: rope has %lld rows, but the step %lld", in.name, static_cast<long long>(in.dim(at.rope, 0)),
                static_cast<long long>(rows));
  }
  if (in.last(at.keys) != meta.head_dim || in.size(at.keys) % (meta.kv_heads * meta.head_dim) != 0) {
    return fail("%s: key_cache of %lld elements, last axis %lld, does not hold slots of %lld kv heads of %lld", in.name,
                static_cast<long long>(in.size(at.keys)), static_cast<long long>(in.last(at.keys)),
                static_cast<long long>(meta.kv_heads), static_cast<long long>(meta.head_dim));
  }
  if (in.dim(at.tables, 0) != in.dim(at.positions, 0)) {
    return fail("%s: block_tables has %lld sequences, but positions %lld", in.name,
                static_cast<long long>(in.dim(at.tables, 0)), static_cast<long long>(in.dim(at.positions, 0)));
  }
  return 0;
}

// qkv [M, (N + 2K) * H] -> out [M, N * H], of inputs that `check_paged` has seen.
inline int run_paged(const Entry& in, const PagedMeta& meta, const PagedInputs& at, const float* qkv, float* out) {
  const int64_t sequences = in.dim(at.positions, 0), width = in.dim(at.positions, 1);
  const PagedCache cache{in.params[at.keys], in.params[at.values], in.dtype(at.keys),
                         in.size(at.keys) / (meta.kv_heads * meta.head_dim), meta.kv_heads, meta.head_dim,
                         meta.block_size};
  std::vector<int64_t> first_row(static_cast<size_t>(sequences) + 1);
  for (size_t b = 0; b < first_row.size(); ++b) first_row[b] = static_cast<int64_t>(b) * width;
  const PagedQueries queries{sequences * width, sequences, first_row.data(), in.data<int32_t>(at.positions),
                             in.data<int32_t>(at.tables), in.dim(at.tables, 1), meta.window};
  const Rope rope{in.data<float>(at.rope), in.dim(at.rope, 1), meta.style == 1};
  return paged_attention_step(cache, queries, qkv, rope, in.data<int32_t>(at.slots), out, meta.heads, meta.scale);
}

}  // namespace mf
