// Attention on CPU: over the paged cache (decode and prefill), and flash attention with its gradient.
//
// Shape legend: B sequences, T queries and S keys of a sequence, N query heads, K kv heads, G = N / K, H head dim,
// M rows (all queries of all sequences). Query head n reads kv head n / G. Scores and sums are float32; no [T, S]
// matrix is stored. Every function returns 0, or non-zero with the reason in mf::last_error() and nothing written.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace mf {

// A paged cache [slots, K, H]: block b of a table holds slots b * block_size ... (b + 1) * block_size - 1.
struct PagedCache {
  void* keys = nullptr;
  void* values = nullptr;
  DType type = DType::F32;  // F32, F16 or BF16; keys and values are rounded once, when they are written
  int64_t slots = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t block_size = 0;
};

// Rows of heads: head n of row m begins at data + (m * row_stride + n * H) elements.
struct HeadRows {
  const void* data = nullptr;
  DType type = DType::F32;
  int64_t row_stride = 0;
};

// Rotary embedding of the first `width` elements of each head: table [M, width], cosines first, then sines.
struct Rope {
  const float* table = nullptr;
  int64_t width = 0;         // R, even, at most H; 0: none
  bool interleaved = false;  // pairs (2i, 2i+1), else (i, i + R/2)
};

// Which keys each query row sees.
struct PagedQueries {
  int64_t rows = 0;                    // M
  int64_t sequences = 0;               // B
  const int64_t* first_row = nullptr;  // [B + 1] rows of sequence b: first_row[b] ... first_row[b + 1] - 1
  const int32_t* positions = nullptr;  // [M] the query sees keys 0 ... position; negative: padding, its output is zeros
  const int32_t* tables = nullptr;     // [B, blocks] block ids
  int64_t blocks = 0;
  int64_t window = 0;  // only the last `window` keys up to the position; 0: all
};

// ReshapeAndCache: write k and v [M, K, H] to slots[m]; -1 skips the row. Types other than the cache's are converted.
int write_cache(const PagedCache& cache, const HeadRows& k, const HeadRows& v, const int32_t* slots, int64_t rows);

// Rounding: keys and values once, when they are written. A query and its probabilities stay float32, except that
// several queries that share bf16 keys (of one kv head, or of a prompt) use products of bf16 where the CPU has them,
// and round both to bf16 for them; sums are float32 always.

// PagedAttention: out [M, N, H] = softmax(q k^T * scale) v over each query's keys; `out` may be the memory of q.
int paged_attention(const PagedCache& cache, const PagedQueries& queries, const HeadRows& q, void* out, DType out_type,
                    int64_t heads, float scale);

// One step of a layer: rope on q and k, write k and v to slots[m] (-1 = padding), then paged attention of the real
// rows. qkv float32 [M, (N + 2K) * H] = q heads, k heads, v heads; out float32 [M, N * H], zeros for padding. The
// positions of padding rows are ignored.
int paged_attention_step(const PagedCache& cache, const PagedQueries& queries, const float* qkv, const Rope& rope,
                         const int32_t* slots, float* out, int64_t heads, float scale);

// A tensor [B, T, N, H] of any layout: strides in elements; the H elements of a head are contiguous.
struct Heads {
  void* data = nullptr;
  DType type = DType::F32;  // F32, F16 or BF16
  int64_t b = 0, s = 0, n = 0;
};

struct FlashShape {
  int64_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, head_dim = 0;
  float scale = 1.0f;
  // Query i sees key j when i - left <= j <= i + right. Causal with queries the last of the keys: right = S - T.
  int64_t left = INT32_MAX, right = INT32_MAX;
  // Optional, non-zero = hidden: element (b, n, i, j) at mask[b * mask_b + n * mask_n + i * mask_s + j].
  const uint8_t* mask = nullptr;
  int64_t mask_b = 0, mask_n = 0, mask_s = 0;
  // Optional, pairs of the first and the last key that a query may see (last < first: none), in addition to the above:
  // that of (b, n, i) is number b * limits_b + n * limits_n + i * limits_s. Blocks that nobody sees are not computed.
  const int32_t* limits = nullptr;
  int64_t limits_b = 0, limits_n = 0, limits_s = 0;

  int64_t first_key(int64_t b, int64_t n, int64_t i) const {
    const int64_t by_band = i - left > 0 ? i - left : 0, by_limit = limits == nullptr ? 0 : limit(b, n, i)[0];
    return by_band > by_limit ? by_band : by_limit;
  }
  int64_t last_key(int64_t b, int64_t n, int64_t i) const {
    const int64_t by_band = i + right < keys - 1 ? i + right : keys - 1;
    const int64_t by_limit = limits == nullptr ? keys - 1 : limit(b, n, i)[1];
    return by_band < by_limit ? by_band : by_limit;
  }

 private:
  const int32_t* limit(int64_t b, int64_t n, int64_t i) const {
    return limits + 2 * (b * limits_b + n * limits_n + i * limits_s);
  }
};

// out = softmax(q k^T * scale) v. A query that sees no key gives zeros. `softmax_max` and `softmax_sum` may be null,
// else float32 [B, N, T, 8]: the row's largest score and sum of exp(score - max), 8 copies (FlashAttentionScore);
// a row without keys has max 0 and sum 0.
int flash_forward(const FlashShape& shape, const Heads& q, const Heads& k, const Heads& v, const Heads& out,
                  float* softmax_max, float* softmax_sum);

// Gradients of flash_forward from its output and statistics (arXiv:2205.14135, algorithm 4); products in float32.
int flash_backward(const FlashShape& shape, const Heads& q, const Heads& k, const Heads& v, const Heads& out,
                   const Heads& dout, const float* softmax_max, const float* softmax_sum, const Heads& dq,
                   const Heads& dk, const Heads& dv);

}  // namespace mf
