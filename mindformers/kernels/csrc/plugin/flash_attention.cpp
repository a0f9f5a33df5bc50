// FlashAttentionScore and its gradient (arXiv:2205.14135, 2307.08691): training and prefill.
#include <algorithm>

#include "flash.h"

using namespace mf;
using namespace mf::plugin;

namespace {

// Where the attributes lie in the lists of inputs.
struct Places {
  size_t shift, drop, padding, mask, prefix, query_lengths, key_lengths, heads;
};
constexpr Places kForward = {3, 4, 5, 6, 7, 8, 9, 10};
constexpr Places kBackward = {4, 5, 6, 7, 12, 13, 14, 15};

struct Plan {
  Plan(Args &args, const Places &places)
      : heads(args.integer(places.heads)), layout(args.integer(places.heads + 6)),
        q(args.input(0), layout, heads, "query"), k(args.input(1), layout, kv_heads(args, q.width), "key"),
        v(args.input(2), layout, k.heads, "value") {
    for (const auto &[place, name] : {std::pair<size_t, const char *>{places.shift, "real_shift"},
                                      {places.drop, "drop_mask"},
                                      {places.padding, "padding_mask"},
                                      {places.prefix, "prefix"}}) {
      if (!args.absent(place)) refuse("%s is not supported on CPU; pass None", name);
    }
    if (args.number(places.heads + 1) != 1.0) {
      refuse("keep_prob %g: dropout is not supported on CPU; pass 1.0", args.number(places.heads + 1));
    }
    scale = static_cast<float>(args.number(places.heads + 2));
    sight.pre_tokens = args.integer(places.heads + 3);
    sight.next_tokens = args.integer(places.heads + 4);
    sight.sparse_mode = args.integer(places.heads + 7);
    sight.mask = args.input(places.mask);
    check_shapes();
    if (layout == kTND || layout == kTH) {
      pieces = packed_pieces(args.integers(places.query_lengths), args.integers(places.key_lengths), q.length,
                             k.length);
      if (pieces.size() > 1 && sight.mask && sight.sparse_mode < 2) {
        refuse("attn_mask of several packed sequences needs sparse_mode 2, 3 or 4");
      }
    } else {
      pieces = {{0, 0, q.length, 0, k.length}};
    }
  }

  FlashShape shape(const Piece &piece, const Mask &mask) const {
    FlashShape shape;
    shape.batch = q.batch;
    shape.heads = heads;
    shape.kv_heads = k.heads;
    shape.queries = piece.queries;
    shape.keys = piece.keys;
    shape.head_dim = q.width;
    shape.scale = scale;
    set_band(sight, &shape);
    mask.aim(&shape, 0);
    return shape;
  }

  int64_t heads, layout;
  Sheaf q, k, v;
  float scale;
  Sight sight;
  std::vector<Piece> pieces;

 private:
  int64_t kv_heads(Args &args, int64_t width) const {
    const View key = args.input(1);
    if (layout == kBNSD) return key.rank() == 4 ? key.dim(1) : 0;
    if (layout == kBSND || layout == kTND) return key.rank() >= 3 ? key.dim(-2) : 0;
    if (key.rank() == 0 || width == 0 || key.dim(-1) % width) {
      refuse("key %s has no whole number of heads of width %ld", shape_text(key.shape).c_str(), long(width));
    }
    return key.dim(-1) / width;
  }

  void check_shapes() const {
    sight.check();
    if (k.width != q.width || v.width != q.width) refuse("heads of query, key and value must be equally wide");
    if (k.batch != q.batch || v.batch != q.batch) refuse("query, key and value differ in the batch size");
    if (v.length != k.length) refuse("key has %ld tokens, value %ld", long(k.length), long(v.length));
    if (heads % k.heads) refuse("%ld query heads cannot share %ld kv heads", long(heads), long(k.heads));
  }
};

// The statistics of packed layouts are declared as [T, N, D], of which 8 values per row are used.
float *statistics(const View &view, const Plan &plan) {
  const int64_t needed = plan.q.batch * plan.q.length * plan.heads * 8;
  if (view.size() < needed) refuse("the layout needs heads of at least 8 elements");
  return view.as<float>();
}

}  // namespace

MF_PLUGIN_OP(FlashAttentionScore,
             "float32, float16, bfloat16; BSH, BNSD, SBH, BSND, TND, TH; grouped kv heads; sparse_mode 0 to 4, any "
             "mask; no dropout, real_shift, prefix") {
  const Plan plan(args, kForward);
  const View maximum = args.output(0), sum = args.output(1), spare = args.output(2);
  const Sheaf out(args.output(3), plan.layout, plan.heads, "attention_out");
  const Mask mask(plan.sight, plan.q.batch, plan.heads, plan.q.length, plan.k.length);
  float *max_data = statistics(maximum, plan), *sum_data = statistics(sum, plan);
  if (spare.data) std::fill_n(spare.as<char>(), spare.size() * dtype_size(spare.type), 0);
  for (const Piece &piece : plan.pieces) {
    const int64_t row = piece.query_start * plan.heads * 8;
    check(flash_forward(plan.shape(piece, mask), plan.q.at(0, piece.query_start), plan.k.at(0, piece.key_start),
                        plan.v.at(0, piece.key_start), out.at(0, piece.query_start), max_data + row, sum_data + row));
  }
}

MF_PLUGIN_OP(FlashAttentionScoreGrad, "as FlashAttentionScore") {
  const Plan plan(args, kBackward);
  const Sheaf dy(args.input(3), plan.layout, plan.heads, "dy");
  const Sheaf out(args.input(11), plan.layout, plan.heads, "attention_in");
  const Sheaf dq(args.output(0), plan.layout, plan.heads, "dq"), dk(args.output(1), plan.layout, plan.k.heads, "dk"),
      dv(args.output(2), plan.layout, plan.k.heads, "dv");
  const Floats maximum(args.input(8)), sum(args.input(9));
  statistics(args.input(8), plan);
  const Mask mask(plan.sight, plan.q.batch, plan.heads, plan.q.length, plan.k.length);
  for (const Piece &piece : plan.pieces) {
    const int64_t row = piece.query_start * plan.heads * 8, start = piece.query_start, key = piece.key_start;
    check(flash_backward(plan.shape(piece, mask), plan.q.at(0, start), plan.k.at(0, key), plan.v.at(0, key),
                         out.at(0, start), dy.at(0, start), maximum.data() + row, sum.data() + row, dq.at(0, start),
                         dk.at(0, key), dv.at(0, key)));
  }
}
