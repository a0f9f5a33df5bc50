// ReshapeAndCache: keys and values of a step into the slots of a paged cache, in place.
#include <algorithm>
#include <cstring>

#include "../pool.h"
#include "args.h"

using namespace mf;
using namespace mf::plugin;

namespace {

// Copies row i of `from` [tokens, width] to row slots[i] of `cache` [slots, width]; negative slots are skipped.
void write_rows(const Rows &from, const View &cache, const std::vector<int64_t> &slots, int64_t width) {
  const int64_t size = dtype_size(from.type);
  parallel_for(static_cast<int64_t>(slots.size()), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (slots[i] < 0) continue;
      std::memcpy(cache.as<char>() + slots[i] * width * size,
                  static_cast<const char *>(from.data) + i * from.stride * size, width * size);
    }
  });
}

// Elements of a slot: the cache is [blocks, block_size, kv_heads, head_dim] or [blocks, block_size, width].
int64_t slot_width(const View &cache) {
  if (cache.rank() < 3) refuse("cache of shape %s is not [blocks, block_size, ...]", shape_text(cache.shape).c_str());
  return cache.size() / std::max<int64_t>(1, cache.dim(0) * cache.dim(1));
}

void write_cache(const View &values, const View &cache, const std::vector<int64_t> &slots, const char *name) {
  const int64_t width = slot_width(cache), tokens = static_cast<int64_t>(slots.size());
  if (values.type != cache.type) {
    refuse("%s is %s, its cache %s", name, dtype_name(values.type), dtype_name(cache.type));
  }
  if (values.size() != tokens * width) {
    refuse("%s %s does not hold %ld tokens of the cache's %ld elements", name, shape_text(values.shape).c_str(),
           long(tokens), long(width));
  }
  const int64_t room = cache.dim(0) * cache.dim(1);
  for (int64_t slot : slots) {
    if (slot >= room) refuse("slot %ld is past the end of the cache, which has %ld slots", long(slot), long(room));
  }
  int axes = 0;  // the axes that count tokens
  for (int64_t count = 1; axes < values.rank() && count < tokens; ++axes) count *= values.dim(axes);
  write_rows(Rows(values, tokens ? std::max(axes, 1) : 0), cache, slots, width);
}

}  // namespace

MF_PLUGIN_OP(ReshapeAndCache, "every dtype, cache of the same; slots int32 or int64, -1 is skipped") {
  const View key = args.input(0), value = args.input(1), slot_tensor = args.input(4);
  const View key_cache = args.dense_input(2, "key_cache"), value_cache = args.input(3), out = args.output(0);
  const std::vector<int64_t> slots = args.integers(4);
  if (slot_tensor.type != I32 && slot_tensor.type != I64) refuse("slot_mapping must be int32 or int64");
  if (value && !value_cache.contiguous()) refuse("value_cache is written in place and must be contiguous");
  write_cache(key, key_cache, slots, "key");
  if (value) write_cache(value, value_cache, slots, "value");
  if (out.data && out.type == key.type && out.size() == key.size()) copy_dense(key, out.data);
}
