// ops.Custom entry of all layers of a step: mf_decoder_layers.
//
// A step of one token runs as long as its weights take to be read; each call into MindSpore's runtime in between costs
// as much as a few layers' norms. So the layers of a pre-norm decoder (attention, then SwiGLU) are one call.
#include <algorithm>
#include <memory>
#include <vector>

#include "linear_entry.h"
#include "paged_entry.h"

namespace mf {
namespace {

constexpr int kMeta = 1, kTable = 6;  // inputs: the meta data, and where the tensors of the layers lie
constexpr int kFirst = 6;              // the first tensor of the layers, once the table is read
constexpr int64_t kColumns = 5;        // of the table
const PagedInputs kStep{2, 0, 0, 3, 4, 5};

struct LayersMeta {
  PagedMeta paged;
  float eps;
  int64_t layers, qkv_products, gate_up_products;
  bool qkv_bias, out_bias, mlp_bias, scale;
};

int read_layers_meta(const Entry& in, LayersMeta* meta) {
  if (in.dtype(kMeta) != F32 || in.size(kMeta) < 15) {
    return fail("%s: meta must be float32 of 15 or more elements", in.name);
  }
  const float* const values = in.data<float>(kMeta);
  if (read_paged_meta(in, values, &meta->paged) || in.whole(values, 8, "number of layers", &meta->layers) ||
      in.whole(values, 9, "number of qkv products", &meta->qkv_products) ||
      in.whole(values, 10, "number of gate and up products", &meta->gate_up_products)) {
    return 1;
  }
  if ((meta->qkv_products != 1 && meta->qkv_products != 3) ||
      (meta->gate_up_products != 1 && meta->gate_up_products != 2)) {
    return fail("%s: %lld qkv and %lld gate and up products; they must be 1 or 3, and 1 or 2", in.name,
                (long long)(meta->qkv_products), (long long)(meta->gate_up_products));
  }
  meta->eps = values[7];
  meta->qkv_bias = values[11] != 0, meta->out_bias = values[12] != 0, meta->mlp_bias = values[13] != 0;
  meta->scale = values[14] != 0;
  return 0;
}

// Hands out the inputs of the layers in their order.
struct Inputs {
  const Entry& in;
  const LayersMeta& meta;
  int at = kFirst;

  // The `count` weights of a product of x [M, I], each followed by its bias and scale.
  int product(int64_t count, bool bias, LinearArgs* args) {
    const LinearFlags flags{meta.eps, args->norm != nullptr, bias, meta.scale, args->residual != nullptr};
    args->eps = meta.eps, args->x_stride = args->I, args->weight_count = static_cast<int>(count);
    for (int k = 0; k < count; ++k) {
      const int weight = at, own_bias = weight + 1, scale = weight + 1 + bias;
      at += 1 + bias + meta.scale;
      if (at > in.count - 1) return fail("%s: too few inputs for %lld layers", in.name, (long long)(meta.layers));
      if (read_linear_weight(in, flags, k, weight, own_bias, scale, args)) return 1;
    }
    return 0;
  }
  int norm(LinearArgs* args) {
    if (at + 1 > in.count - 1) return fail("%s: too few inputs for %lld layers", in.name, (long long)(meta.layers));
    return read_linear_norm(in, at++, args);
  }
};

int expect_rows(const Entry& in, const LinearArgs& args, const char* what, int64_t rows) {
  int64_t found = 0;
  for (int i = 0; i < args.weight_count; ++i) found += args.weights[i].rows;
  return found == rows ? 0
                       : fail("%s: %s has %lld rows, but needs %lld", in.name, what, (long long)(found),
                              (long long)(rows));
}

// What lies between the products of a layer, for M rows; grows with the widest feed-forward block.
struct Buffers {
  std::unique_ptr<float[]> qkv, context, middle, inner;
  int64_t inner_columns = 0;
};

LinearArgs rows_of(const float* x, int64_t M, int64_t I, float* out, int64_t columns) {
  LinearArgs args;
  args.x = x, args.M = M, args.I = I, args.out = out, args.out_stride = columns;
  return args;
}

// x [M, D] -> b.middle = x + attention(norm(x)).
int attention_block(Inputs& inputs, const float* x, int64_t M, int64_t D, Buffers& b) {
  const Entry& in = inputs.in;
  const LayersMeta& meta = inputs.meta;
  const PagedMeta& paged = meta.paged;
  const int64_t width = (paged.heads + 2 * paged.kv_heads) * paged.head_dim, context = paged.heads * paged.head_dim;
  LinearArgs qkv = rows_of(x, M, D, b.qkv.get(), width);
  if (inputs.norm(&qkv) || inputs.product(meta.qkv_products, meta.qkv_bias, &qkv) ||
      expect_rows(in, qkv, "the product of queries, keys and values", width)) {
    return 1;
  }
  LinearArgs out = rows_of(b.context.get(), M, context, b.middle.get(), D);
  out.residual = x;
  if (inputs.product(1, meta.out_bias, &out) || expect_rows(in, out, "the output projection", D)) return 1;
  PagedInputs at = kStep;
  at.keys = inputs.at++, at.values = inputs.at++;
  if (at.values >= in.count - 1) return fail("%s: too few inputs for %lld layers", in.name, (long long)(meta.layers));
  if (check_paged(in, paged, at, M)) return 1;
  linear(qkv);
  if (run_paged(in, paged, at, b.qkv.get(), b.context.get())) return 1;
  linear(out);
  return 0;
}

// b.middle -> out = middle + feed_forward(norm(middle)).
int feed_forward_block(Inputs& inputs, int64_t M, int64_t D, Buffers& b, float* out) {
  const Entry& in = inputs.in;
  const LayersMeta& meta = inputs.meta;
  LinearArgs gate_up = rows_of(b.middle.get(), M, D, nullptr, 0);
  if (inputs.norm(&gate_up) || inputs.product(meta.gate_up_products, meta.mlp_bias, &gate_up)) return 1;
  gate_up.swiglu = true;
  if (meta.gate_up_products == 1 && split_gate_up(in, &gate_up)) return 1;
  const int64_t F = gate_up.weights[0].rows;
  if (expect_rows(in, gate_up, "gate and up", 2 * F)) return 1;
  if (b.inner_columns < F) b.inner.reset(new float[M * F]), b.inner_columns = F;
  gate_up.out = b.inner.get(), gate_up.out_stride = F;
  LinearArgs down = rows_of(b.inner.get(), M, F, out, D);
  down.residual = b.middle.get();
  if (inputs.product(1, meta.mlp_bias, &down) || expect_rows(in, down, "the down projection", D)) return 1;
  linear(gate_up);
  linear(down);
  return 0;
}

int run_layers(const Entry& in) {
  LayersMeta meta{};
  if (in.expect(0, "x", {F32}, 2, -1) || read_layers_meta(in, &meta)) return 1;
  const int64_t M = in.dim(0, 0), D = in.dim(0, 1);
  if (D < 1) return fail("%s: x has no columns", in.name);
  if (in.expect(in.count - 1, "the output", {F32}, -1, M * D)) return 1;
  float* const out = in.data<float>(in.count - 1);
  const PagedMeta& paged = meta.paged;
  Buffers b{std::unique_ptr<float[]>(new float[M * (paged.heads + 2 * paged.kv_heads) * paged.head_dim]),
            std::unique_ptr<float[]>(new float[M * paged.heads * paged.head_dim]),
            std::unique_ptr<float[]>(new float[M * D]), nullptr, 0};
  Inputs inputs{in, meta};
  const float* x = in.data<float>(0);
  if (meta.layers == 0) std::copy(x, x + M * D, out);
  for (int64_t layer = 0; layer < meta.layers; ++layer, x = out) {
    if (attention_block(inputs, x, M, D, b) || feed_forward_block(inputs, M, D, b, out)) return 1;
  }
  return inputs.at == in.count - 1 ? 0
                                   : fail("%s: %lld layers take %d inputs, but got %d", in.name,
                                          (long long)(meta.layers), inputs.at, in.count - 1);
}

// The inputs of an entry, with the tensors of a table in its place.
struct Unfolded {
  std::vector<void*> params;
  std::vector<int> ndims;
  std::vector<int64_t*> shapes;
  std::vector<const char*> dtypes;

  void add(void* param, int ndim, int64_t* shape, const char* dtype) {
    params.push_back(param), ndims.push_back(ndim), shapes.push_back(shape), dtypes.push_back(dtype);
  }
  void add(const Entry& in, int i) { add(in.params[i], in.ndims[i], in.shapes[i], in.dtypes[i]); }
};

int decoder_layers_entry(const Entry& in) {
  if (in.expect_count(8)) return 1;
  if (in.dtype(kTable) != I64 || in.ndims[kTable] != 2 || in.shapes[kTable][1] != kColumns) {
    return fail("%s: the table must be int64 [tensors, %lld], got %s of %d dimensions", in.name,
                (long long)(kColumns), in.dtypes[kTable], in.ndims[kTable]);
  }
  Unfolded all;
  for (int i = 0; i < kTable; ++i) all.add(in, i);
  for (int64_t i = 0; i < in.shapes[kTable][0]; ++i) {
    int64_t* const row = in.data<int64_t>(kTable) + i * kColumns;
    if (row[0] == 0 || row[1] < 0 || row[1] >= NONE || row[2] < 1 || row[2] > 2) {
      return fail("%s: row %lld of the table is not address, dtype, dimensions (1 or 2) and sizes", in.name,
                  (long long)(i));
    }
    all.add(reinterpret_cast<void*>(row[0]), static_cast<int>(row[2]), row + 3,
            dtype_name(static_cast<DType>(row[1])));
  }
  all.add(in, kTable + 1);
  return run_layers({in.name, static_cast<int>(all.params.size()), all.params.data(), all.ndims.data(),
                     all.shapes.data(), all.dtypes.data()});
}

}  // namespace
}  // namespace mf

// 0 x float32 [M, D], 1 meta float32: N, K, H, block size, scale, rope style, window, eps, layers, products of queries
// keys and values (1 packed, 3), of gate and up (1 packed, 2), has_bias of qkv, of the output projection, of the feed
// forward block, has_scale; 2 rope float32 [M, R], 3 block_tables int32 [B, blocks], 4 slot_mapping int32 [M],
// 5 positions int32 [B, T], 6 table int64 [tensors, 5]: address, dtype (DType), dimensions and sizes of each tensor
// -> float32 [M, D], the rows behind the last layer.
// The tensors of a layer: norm, products of qkv, output projection, key cache, value cache, norm, products of gate and
// up, down projection; a product is its weight, its bias if any, its scale if any. They are not inputs, because
// MindSpore spends on each input of a graph, at every step, a good part of what reading it takes.
MF_ENTRY(mf_decoder_layers) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_decoder_layers);
    return mf::decoder_layers_entry(in);
  });
}

MF_INFER_SHAPE(mf_decoder_layers) { return {shapes[0][0], shapes[0][1]}; }
