// PagedAttention: attention of the newest tokens of each sequence over its blocks of the cache (arXiv:2309.06180).
#include <algorithm>

#include "flash.h"

using namespace mf;
using namespace mf::plugin;

namespace {

// Rows of each sequence, [B + 1]: one a sequence, or as q_seq_lens says.
std::vector<int64_t> first_rows(const std::vector<int64_t> &lengths, int64_t batch, int64_t tokens) {
  std::vector<int64_t> rows(batch + 1, 0);
  if (!lengths.empty() && static_cast<int64_t>(lengths.size()) != batch) {
    refuse("q_seq_lens has %zu entries for %ld sequences", lengths.size(), long(batch));
  }
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = lengths.empty() ? 1 : lengths[b];
    if (length < 0) refuse("q_seq_lens[%ld] is %ld", long(b), long(length));
    rows[b + 1] = rows[b] + length;
  }
  if (rows[batch] != tokens) {
    refuse("query has %ld tokens, but the sequences have %ld", long(tokens), long(rows[batch]));
  }
  return rows;
}

// The last key that each query sees. A mask hides where it is not zero, and what a query sees must be a beginning of
// its sequence; a triangle that does not have the query's shape stands for "causal".
class Horizon {
 public:
  Horizon(const View &mask, bool causal, int64_t tokens) : causal_(causal) {
    if (!mask) return;
    if (mask.rank() < 2) refuse("attn_mask %s is not a matrix", shape_text(mask.shape).c_str());
    values_ = std::make_unique<Floats>(mask);
    columns_ = mask.dim(-1);
    if (mask.size() == tokens * columns_ && (tokens == 1 || mask.dim(-2) != columns_)) return;
    check_triangle(mask);
    values_.reset();
    causal_ = true;
  }

  int32_t last(int64_t row, int64_t causal_last, int64_t context) const {
    if (!values_) return static_cast<int32_t>(causal_ ? causal_last : context - 1);
    if (columns_ < context) refuse("attn_mask has %ld columns for a context of %ld", long(columns_), long(context));
    const float *line = values_->data() + row * columns_;
    int64_t seen = 0;
    while (seen < context && line[seen] == 0.0f) ++seen;
    for (int64_t j = seen; j < context; ++j) {
      if (line[j] == 0.0f) refuse("attn_mask row %ld hides key %ld but not %ld", long(row), long(seen), long(j));
    }
    return static_cast<int32_t>(seen - 1);
  }

 private:
  void check_triangle(const View &mask) const {
    const int64_t side = mask.dim(-2);
    bool triangle = side == columns_ && mask.size() == side * side;
    for (int64_t i = 0; triangle && i < side; ++i) {
      for (int64_t j = 0; j < side; ++j) triangle = triangle && (values_->data()[i * side + j] != 0.0f) == (j > i);
    }
    if (!triangle) refuse("attn_mask %s fits neither the queries nor is it a triangle", shape_text(mask.shape).c_str());
  }

  bool causal_;
  std::unique_ptr<Floats> values_;
  int64_t columns_ = 0;
};

std::vector<int32_t> narrow_ints(const std::vector<int64_t> &values) { return {values.begin(), values.end()}; }

}  // namespace

MF_PLUGIN_OP(PagedAttention,
             "float16, bfloat16 (its type rule refuses float32); masks that hide the end of a sequence; no int8 cache, "
             "no alibi_mask, no mla_v_dim") {
  const View q = args.input(0), out = args.output(0);
  for (const auto &[place, name] : {std::pair<size_t, const char *>{5, "antiquant_scale"},
                                    {6, "antiquant_offset"},
                                    {9, "alibi_mask"}}) {
    if (!args.absent(place)) refuse("%s is not supported on CPU; pass None", name);
  }
  if (args.integer(15) != 0) refuse("mla_v_dim %ld is not supported on CPU", long(args.integer(15)));
  const int64_t heads = args.integer(10), kv_heads = args.integer(12) ? args.integer(12) : heads;
  const PagedCache cache = cache_of(args.dense_input(1, "key_cache"), args.dense_input(2, "value_cache"), kv_heads);
  const int64_t width = heads * cache.head_dim;
  if (width == 0 || q.size() % width) {
    refuse("query %s has no tokens of %ld elements", shape_text(q.shape).c_str(), long(width));
  }
  const int64_t tokens = q.size() / width;
  const View table_view = args.input(3);
  if (table_view.rank() != 2) refuse("block_tables %s is not a matrix", shape_text(table_view.shape).c_str());
  const std::vector<int64_t> context = args.integers(4), lengths = args.integers(8);
  const int64_t batch = static_cast<int64_t>(context.size());
  if (table_view.dim(0) != batch) {
    refuse("block_tables has %ld rows for %ld sequences", long(table_view.dim(0)), long(batch));
  }
  const std::vector<int64_t> rows = first_rows(lengths, batch, tokens);
  const Horizon horizon(args.input(7), args.integer(14) != 0, tokens);
  std::vector<int32_t> positions(tokens);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t row = rows[b]; row < rows[b + 1]; ++row) {
      positions[row] = horizon.last(row, context[b] - (rows[b + 1] - row), context[b]);
    }
  }
  const std::vector<int32_t> tables = narrow_ints(args.integers(3));
  PagedQueries queries;
  queries.rows = tokens;
  queries.sequences = batch;
  queries.first_row = rows.data();
  queries.positions = positions.data();
  queries.tables = tables.data();
  queries.blocks = table_view.dim(1);
  const Dense dense(q);
  check(paged_attention(cache, queries, {dense.data(), q.type, width}, out.data, out.type, heads,
                        static_cast<float>(args.number(11))));
}
