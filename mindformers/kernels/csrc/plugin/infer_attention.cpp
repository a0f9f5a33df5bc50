// PromptFlashAttention and IncreFlashAttention: attention of inference, with lengths per sequence.
#include <algorithm>

#include "flash.h"

using namespace mf;
using namespace mf::plugin;

namespace {

int64_t length_of(const std::vector<int64_t> &lengths, int64_t batch, int64_t limit, const char *name) {
  if (lengths.empty()) return limit;
  const int64_t length = lengths[lengths.size() == 1 ? 0 : batch];
  if (length < 0 || length > limit) {
    refuse("%s[%ld] is %ld, outside of 0 ... %ld", name, long(batch), long(length), long(limit));
  }
  return length;
}

std::vector<int64_t> lengths_at(const Args &args, size_t index, int64_t batch, const char *name) {
  const std::vector<int64_t> lengths = args.integers(index);
  if (lengths.size() > 1 && static_cast<int64_t>(lengths.size()) != batch) {
    refuse("%s has %zu entries for %ld sequences", name, lengths.size(), long(batch));
  }
  return lengths;
}

void refuse_given(const Args &args, size_t first, size_t last, const char *what) {
  for (size_t i = first; i <= last; ++i) {
    if (!args.absent(i)) refuse("%s is not supported on CPU; pass None", what);
  }
}

int64_t heads_or(int64_t heads, int64_t fallback) { return heads ? heads : fallback; }

void clear(const View &out) { std::fill_n(out.as<char>(), out.size() * dtype_size(out.type), 0); }

// Attention of the first `queries` queries over the first `keys` keys of one sequence.
void attend(const Sheaf &q, int64_t batch, int64_t queries, const Sheaf &k, const Sheaf &v, int64_t kv_batch,
            int64_t keys, const Sheaf &out, const Sight &sight, const Mask &mask, float scale) {
  FlashShape shape;
  shape.batch = 1;
  shape.heads = q.heads;
  shape.kv_heads = k.heads;
  shape.queries = queries;
  shape.keys = keys;
  shape.head_dim = q.width;
  shape.scale = scale;
  set_band(sight, &shape);
  mask.aim(&shape, batch);
  check(flash_forward(shape, q.at(batch, 0), k.at(kv_batch, 0), v.at(kv_batch, 0), out.at(batch, 0), nullptr, nullptr));
}

void check_heads(const Sheaf &q, const Sheaf &k, const Sheaf &v) {
  if (k.width != q.width || v.width != q.width) refuse("heads of query, key and value must be equally wide");
  if (q.heads % k.heads) refuse("%ld query heads cannot share %ld kv heads", long(q.heads), long(k.heads));
  if (k.length != v.length || k.batch != v.batch) refuse("key and value differ in shape");
}

}  // namespace

MF_PLUGIN_OP(PromptFlashAttention,
             "float16, bfloat16; BSH, BNSD, BSND; sparse_mode 0 to 4, any mask, lengths per sequence; no int8, "
             "no pse_shift") {
  refuse_given(args, 6, 6, "pse_shift");
  refuse_given(args, 7, 11, "quantization");
  const int64_t heads = args.integer(12), layout = args.integer(16), kv_heads = heads_or(args.integer(17), heads);
  const Sheaf q(args.input(0), layout, heads, "query"), k(args.input(1), layout, kv_heads, "key"),
      v(args.input(2), layout, kv_heads, "value");
  const View result = args.output(0);
  const Sheaf out(result, layout, heads, "attention_out");
  check_heads(q, k, v);
  if (k.batch != q.batch) refuse("query and key differ in the batch size");
  Sight sight;
  sight.sparse_mode = args.integer(18);
  sight.pre_tokens = args.integer(14);
  sight.next_tokens = args.integer(15);
  sight.mask = args.input(3);
  sight.check();
  const Mask mask(sight, q.batch, heads, q.length, k.length);
  const auto queries = lengths_at(args, 4, q.batch, "actual_seq_lengths");
  const auto keys = lengths_at(args, 5, q.batch, "actual_seq_lengths_kv");
  const float scale = static_cast<float>(args.number(13));
  clear(result);  // what lies behind a sequence's end
  for (int64_t b = 0; b < q.batch; ++b) {
    attend(q, b, length_of(queries, b, q.length, "actual_seq_lengths"), k, v, b,
           length_of(keys, b, k.length, "actual_seq_lengths_kv"), out, sight, mask, scale);
  }
}

namespace {

// Keys and values lie in blocks: key [blocks, block_size, kv_heads * head_dim].
void attend_blocks(const Args &args, const View &q, const View &key, const View &value, size_t base, int64_t heads,
                   int64_t kv_heads, int64_t layout, float scale) {
  const View tables = args.input(base + 10);
  const std::vector<int64_t> lengths = args.integers(base + 1), blocks = args.integers(base + 10);
  const int64_t batch = q.dim(0);
  if (layout != kBSH || key.rank() != 3) refuse("block_table needs the layout BSH");
  if (tables.rank() != 2 || tables.dim(0) != batch) refuse("block_table %s", shape_text(tables.shape).c_str());
  if (static_cast<int64_t>(lengths.size()) != batch) refuse("block_table needs actual_seq_lengths of each sequence");
  if (!key.contiguous() || !value.contiguous()) refuse("the blocks of keys and values must be contiguous");
  const std::vector<int32_t> table(blocks.begin(), blocks.end());
  std::vector<int32_t> positions(batch);
  std::vector<int64_t> rows(batch + 1);
  for (int64_t b = 0; b < batch; ++b) {
    positions[b] = static_cast<int32_t>(lengths[b] - 1);
    rows[b + 1] = b + 1;
  }
  PagedQueries queries;
  queries.rows = queries.sequences = batch;
  queries.first_row = rows.data();
  queries.positions = positions.data();
  queries.tables = table.data();
  queries.blocks = tables.dim(1);
  const Dense dense(q);
  check(paged_attention(cache_of(key, value, kv_heads), queries, {dense.data(), q.type, q.dim(-1)},
                        args.output(0).data, args.output(0).type, heads, scale));
}

}  // namespace

// Keys and values come as lists: one tensor of the whole batch, or one for each sequence.
MF_PLUGIN_OP(IncreFlashAttention,
             "float32, float16, bfloat16; BSH, BNSD, BSND; masks, lengths per sequence, block_table; no int8, "
             "no pse_shift, no kv_padding_size") {
  const size_t list = (args.inputs() - 19) / 2, base = 1 + 2 * list;  // base: attn_mask
  refuse_given(args, base + 2, base + 2, "pse_shift");
  refuse_given(args, base + 3, base + 9, "quantization");
  refuse_given(args, base + 11, base + 11, "kv_padding_size");
  const int64_t heads = args.integer(base + 12), layout = args.integer(base + 13);
  const int64_t kv_heads = heads_or(args.integer(base + 15), heads);
  const float scale = static_cast<float>(args.number(base + 14));
  if (!args.absent(base + 10)) {
    if (!args.absent(base)) refuse("attn_mask together with block_table is not supported on CPU");
    return attend_blocks(args, args.input(0), args.input(1), args.input(1 + list), base, heads, kv_heads, layout,
                         scale);
  }
  const Sheaf q(args.input(0), layout, heads, "query");
  const Sheaf out(args.output(0), layout, heads, "attention_out");
  if (list != 1 && static_cast<int64_t>(list) != q.batch) refuse("%zu keys for %ld sequences", list, long(q.batch));
  Sight sight;
  sight.mask = args.input(base);
  if (sight.mask && sight.mask.rank() == 2) {  // [B, S]
    sight.mask.shape.insert(sight.mask.shape.begin() + 1, 1);
    sight.mask.strides.insert(sight.mask.strides.begin() + 1, 0);
  }
  const auto lengths = lengths_at(args, base + 1, q.batch, "actual_seq_lengths");
  for (int64_t b = 0; b < q.batch; ++b) {
    const size_t entry = list == 1 ? 0 : b;
    const Sheaf k(args.input(1 + entry), layout, kv_heads, "key");
    const Sheaf v(args.input(1 + list + entry), layout, kv_heads, "value");
    check_heads(q, k, v);
    const int64_t kv_batch = list == 1 ? b : 0;
    if (kv_batch >= k.batch) refuse("query has %ld sequences, key %ld", long(q.batch), long(k.batch));
    const Mask mask(sight, q.batch, heads, q.length, k.length);
    const int64_t keys = length_of(lengths, b, k.length, "actual_seq_lengths");
    attend(q, b, q.length, k, v, kv_batch, keys, out, sight, mask, scale);
  }
}
