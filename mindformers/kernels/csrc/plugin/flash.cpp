#include "flash.h"

#include <algorithm>

namespace mf {
namespace plugin {
namespace {

bool packed(int64_t layout) { return layout == kTND || layout == kTH; }

// Lengths of sequences given as ends (non-decreasing, the last is the total) or as lengths (their sum is the total).
std::vector<int64_t> lengths_of(const std::vector<int64_t> &given, int64_t total, const char *name) {
  std::vector<int64_t> lengths = given;
  int64_t sum = 0;
  for (int64_t value : given) sum += value;
  if (!given.empty() && given.back() == total) {
    for (size_t i = given.size(); i-- > 1;) lengths[i] = given[i] - given[i - 1];
  } else if (sum != total) {
    refuse("%s end at %ld, but the tensor has %ld tokens", name, long(given.empty() ? 0 : given.back()), long(total));
  }
  for (int64_t length : lengths) {
    if (length < 0) refuse("%s decrease", name);
  }
  return lengths;
}

}  // namespace

Sheaf::Sheaf(const View &view, int64_t layout, int64_t head_count, const char *name) : heads(head_count) {
  static const int kRanks[] = {3, 4, 3, 4, 3, 2};
  if (layout < 0 || layout > kTH) refuse("input_layout number %ld is not known", long(layout));
  if (view.rank() != kRanks[layout]) {
    refuse("%s %s does not have the %d axes of its layout", name, shape_text(view.shape).c_str(), kRanks[layout]);
  }
  if (!is_float(view.type)) refuse("%s must be float32, float16 or bfloat16, but is %s", name, dtype_name(view.type));
  if (head_count < 1) refuse("%s has %ld heads", name, long(head_count));
  const bool split = layout == kBNSD || layout == kBSND || layout == kTND;  // heads have an axis of their own
  const int head_axis = layout == kBNSD ? 1 : view.rank() - 2;
  width = split ? view.dim(-1) : view.dim(-1) / heads;
  if (split ? view.dim(head_axis) != heads : view.dim(-1) % heads != 0) {
    refuse("%s %s does not have %ld heads", name, shape_text(view.shape).c_str(), long(heads));
  }
  View dense = view;
  if (!view.rows_contiguous()) {
    copy_.reset(new char[view.size() * dtype_size(view.type)]);
    copy_dense(view, copy_.get());
    dense.data = copy_.get();
    dense.strides = dense_strides(view.shape);
  }
  const int sequence_axis = layout == kBNSD ? 2 : layout == kSBH || packed(layout) ? 0 : 1;
  length = view.dim(sequence_axis);
  heads_.data = dense.data;
  heads_.type = view.type;
  heads_.s = dense.stride(sequence_axis);
  heads_.n = split ? dense.stride(head_axis) : width;
  if (!packed(layout)) {
    batch = view.dim(layout == kSBH ? 1 : 0);
    heads_.b = dense.stride(layout == kSBH ? 1 : 0);
  }
}

Heads Sheaf::at(int64_t b, int64_t token) const {
  Heads from = heads_;
  from.data = static_cast<char *>(heads_.data) + (b * heads_.b + token * heads_.s) * dtype_size(heads_.type);
  return from;
}

void Sight::check() const {
  if (sparse_mode < 0 || sparse_mode > 4) {
    refuse("sparse_mode %ld is not supported; 0 to 4 are", long(sparse_mode));
  }
  if (sparse_mode == 1 && !mask) refuse("sparse_mode 1 needs attn_mask");
}

std::vector<Piece> packed_pieces(const std::vector<int64_t> &query_ends, const std::vector<int64_t> &key_ends,
                                 int64_t queries, int64_t keys) {
  if (query_ends.empty() && key_ends.empty()) return {{0, 0, queries, 0, keys}};
  const auto query_lengths = lengths_of(query_ends.empty() ? key_ends : query_ends, queries, "actual_seq_qlen");
  const auto key_lengths = lengths_of(key_ends.empty() ? query_ends : key_ends, keys, "actual_seq_kvlen");
  if (query_lengths.size() != key_lengths.size()) {
    refuse("actual_seq_qlen has %zu sequences, actual_seq_kvlen %zu", query_lengths.size(), key_lengths.size());
  }
  std::vector<Piece> pieces;
  int64_t query = 0, key = 0;
  for (size_t i = 0; i < query_lengths.size(); ++i) {
    pieces.push_back({0, query, query_lengths[i], key, key_lengths[i]});
    query += query_lengths[i];
    key += key_lengths[i];
  }
  return pieces;
}

Mask::Mask(const Sight &sight, int64_t batch, int64_t heads, int64_t queries, int64_t keys) {
  const View &mask = sight.mask;
  if (!mask || sight.sparse_mode >= 2) return;
  const int rank = mask.rank();
  bool fits = rank >= 2 && rank <= 4 && mask.dim(-1) >= keys && mask.dim(-2) >= queries;
  if (rank >= 3) fits = fits && (mask.dim(0) == 1 || mask.dim(0) == batch);
  if (rank == 4) fits = fits && (mask.dim(1) == 1 || mask.dim(1) == heads);
  if (!fits) {
    refuse("attn_mask %s does not fit to %ld sequences, %ld heads, %ld queries and %ld keys",
           shape_text(mask.shape).c_str(), long(batch), long(heads), long(queries), long(keys));
  }
  std::vector<int64_t> strides = mask.strides;
  data_ = mask.as<uint8_t>();
  if (dtype_size(mask.type) != 1 || !mask.rows_contiguous()) {
    const Dense dense(mask);
    const int64_t count = mask.size();
    copy_.reset(new uint8_t[count]);
    if (dtype_size(mask.type) == 1) {
      std::copy_n(dense.as<uint8_t>(), count, copy_.get());
    } else {
      View flat = mask;
      flat.data = const_cast<void *>(dense.data());
      flat.strides = dense_strides(mask.shape);
      const Floats values(flat);
      for (int64_t i = 0; i < count; ++i) copy_[i] = values.data()[i] != 0.0f;
    }
    data_ = copy_.get();
    strides = dense_strides(mask.shape);
  }
  strides_[2] = strides[rank - 2];
  if (rank == 4 && mask.dim(1) > 1) strides_[1] = strides[1];
  if (rank >= 3 && mask.dim(0) > 1) strides_[0] = strides[0];
}

void Mask::aim(FlashShape *shape, int64_t batch) const {
  if (!data_) return;
  shape->mask = data_ + batch * strides_[0];
  shape->mask_b = strides_[0];
  shape->mask_n = strides_[1];
  shape->mask_s = strides_[2];
}

void set_band(const Sight &sight, FlashShape *shape) {
  const int64_t shift = shape->keys - shape->queries;
  switch (sight.sparse_mode) {
    case 0:
      if (sight.mask) {
        shape->left = sight.pre_tokens;
        shape->right = sight.next_tokens;
      }
      break;
    case 2:
      shape->right = 0;
      break;
    case 3:
      shape->right = shift;
      break;
    case 4:
      shape->left = sight.pre_tokens - shift;
      shape->right = sight.next_tokens + shift;
      break;
    default:
      break;
  }
}

PagedCache cache_of(const View &keys, const View &values, int64_t kv_heads) {
  if (keys.shape != values.shape || keys.type != values.type) refuse("key_cache and value_cache differ");
  if (keys.rank() < 3) refuse("key_cache %s is not [blocks, block_size, ...]", shape_text(keys.shape).c_str());
  PagedCache cache;
  cache.keys = keys.data;
  cache.values = values.data;
  cache.type = keys.type;
  cache.slots = keys.dim(0) * keys.dim(1);
  cache.block_size = keys.dim(1);
  cache.kv_heads = kv_heads;
  const int64_t width = keys.size() / std::max<int64_t>(1, cache.slots);
  if (kv_heads < 1 || width % kv_heads) refuse("a slot of %ld elements has no %ld heads", long(width), long(kv_heads));
  cache.head_dim = width / kv_heads;
  return cache;
}

}  // namespace plugin
}  // namespace mf
