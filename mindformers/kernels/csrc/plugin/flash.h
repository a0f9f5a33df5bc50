// What the attention entries share: layouts, masks, sparse modes, and sequences of different lengths.
#pragma once

#include <string>
#include <vector>

#include "../attention.h"
#include "args.h"

namespace mf {
namespace plugin {

// Numbers of MindSpore's layout names.
enum Layout { kBSH = 0, kBNSD = 1, kSBH = 2, kBSND = 3, kTND = 4, kTH = 5 };

// A query, key, value or output tensor of any layout as [batch, sequence, heads, head_dim] with strides.
// Packed layouts (TND, TH) have batch 1 and all tokens in one sequence.
class Sheaf {
 public:
  Sheaf(const View &view, int64_t layout, int64_t heads, const char *name);
  Heads at(int64_t batch, int64_t token) const;  // beginning at that sequence and token
  int64_t batch = 1, length = 0, heads = 1, width = 0;

 private:
  Heads heads_;
  std::unique_ptr<char[]> copy_;
};

// Which keys queries may see, in MindSpore's terms.
struct Sight {
  int64_t sparse_mode = 0;
  int64_t pre_tokens = INT32_MAX, next_tokens = INT32_MAX;
  View mask;  // 1 hides; none, [S1, S2], [B, S1, S2], [B, 1 or N, S1, S2]; ignored by modes 2 to 4

  void check() const;
};

// One call of the kernel: sequence `batch` from these tokens on.
struct Piece {
  int64_t batch, query_start, queries, key_start, keys;
};

// The sequences of packed tensors: cumulative or single lengths (both are in use); none: one sequence.
std::vector<Piece> packed_pieces(const std::vector<int64_t> &query_ends, const std::vector<int64_t> &key_ends,
                                 int64_t queries, int64_t keys);

// A mask as bytes, dense in its last axis.
class Mask {
 public:
  Mask(const Sight &sight, int64_t batch, int64_t heads, int64_t queries, int64_t keys);
  void aim(FlashShape *shape, int64_t batch) const;

 private:
  std::unique_ptr<uint8_t[]> copy_;
  const uint8_t *data_ = nullptr;
  int64_t strides_[3] = {0, 0, 0};
};

// The band of keys that a query sees.
void set_band(const Sight &sight, FlashShape *shape);

// A cache [blocks, block_size, kv_heads, head_dim] or [blocks, block_size, kv_heads * head_dim].
PagedCache cache_of(const View &keys, const View &values, int64_t kv_heads);

}  // namespace plugin
}  // namespace mf
