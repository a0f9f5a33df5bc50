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
  if (in.expect_meta(kMeta, 15)) return 1;
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

  int too_few() const { return fail("%s: too few inputs for %lld layers", in.name, (long long)(meta.layers)); }
  // The `count` weights of a product of x [M, I], each followed by its bias and scale.
  int product(int64_t count, bool bias, LinearArgs* args) {
    const LinearFlags flags{meta.eps, args->norm != nullptr, bias, meta.scale, args->residual != nullptr};
    args->eps = meta.eps, args->x_stride = args->I, args->weight_count = static_cast<int>(count);
    for (int k = 0; k < count; ++k) {
      const int weight = at, own_bias = weight + 1, scale = weight + 1 + bias;
      at += 1 + bias + meta.scale;
      if (at > in.count - 1) return too_few();
      if (read_linear_weight(in, flags, k, weight, own_bias, scale, args)) return 1;
    }
    return 0;
  }
  int norm(LinearArgs* args) {
    if (at + 1 > in.count - 1) return too_few();
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

// What lies between the products of a layer, for M rows.
struct Buffers {
  std::unique_ptr<float[]> qkv, context, middle, inner;
};

// The products of one layer, and where its cache is; checked, with no place for their results yet.
struct Layer {
  LinearArgs qkv, out, gate_up, down;
  PagedInputs at = kStep;
};

LinearArgs columns_of(int64_t M, int64_t I) {
  LinearArgs args;
  args.M = M, args.I = I;
  return args;
}

int read_attention(Inputs& inputs, int64_t M, int64_t D, Layer* layer) {
  const Entry& in = inputs.in;
  const LayersMeta& meta = inputs.meta;
  const PagedMeta& paged = meta.paged;
  const int64_t context = paged.heads * paged.head_dim;
  layer->qkv = columns_of(M, D), layer->out = columns_of(M, context);
  if (inputs.norm(&layer->qkv) || inputs.product(meta.qkv_products, meta.qkv_bias, &layer->qkv) ||
      expect_rows(in, layer->qkv, "the product of queries, keys and values",
                  context + 2 * paged.kv_heads * paged.head_dim) ||
      inputs.product(1, meta.out_bias, &layer->out) || expect_rows(in, layer->out, "the output projection", D)) {
    return 1;
  }
  layer->at.keys = inputs.at++, layer->at.values = inputs.at++;
  if (layer->at.values >= in.count - 1) return inputs.too_few();
  return check_paged(in, paged, layer->at, M);
}

int read_feed_forward(Inputs& inputs, int64_t M, int64_t D, Layer* layer) {
  const Entry& in = inputs.in;
  const LayersMeta& meta = inputs.meta;
  LinearArgs& gate_up = layer->gate_up = columns_of(M, D);
  if (inputs.norm(&gate_up) || inputs.product(meta.gate_up_products, meta.mlp_bias, &gate_up)) return 1;
  gate_up.swiglu = true;
  if (meta.gate_up_products == 1 && split_gate_up(in, &gate_up)) return 1;
  const int64_t F = gate_up.weights[0].rows;
  if (F < 1) return fail("%s: gate and up have no rows", in.name);
  layer->down = columns_of(M, F);
  return expect_rows(in, gate_up, "gate and up", 2 * F) || inputs.product(1, meta.mlp_bias, &layer->down) ||
         expect_rows(in, layer->down, "the down projection", D);
}

// All that the step needs, before anything of it is computed: a step that is refused has written nothing.
int read_layers(const Entry& in, const LayersMeta& meta, int64_t M, int64_t D, std::vector<Layer>* layers) {
  Inputs inputs{in, meta};
  layers->reserve(static_cast<size_t>(std::min<int64_t>(meta.layers, in.count / 8)));  // of 8 tensors at least
  for (int64_t i = 0; i < meta.layers; ++i) {
    layers->emplace_back();
    Layer& layer = layers->back();
    if (read_attention(inputs, M, D, &layer) || read_feed_forward(inputs, M, D, &layer)) return 1;
    // the slots and blocks of the step are looked at in the first layer
    const int64_t size = in.size(layer.at.keys), first = in.size((*layers)[0].at.keys);
    if (size != first) {
      return fail("%s: the cache of layer %lld has %lld elements, but that of layer 0 has %lld", in.name,
                  (long long)(i), (long long)(size), (long long)(first));
    }
  }
  return inputs.at == in.count - 1 ? 0
                                   : fail("%s: %lld layers take %d inputs, but got %d", in.name,
                                          (long long)(meta.layers), inputs.at, in.count - 1);
}

void run_product(LinearArgs* args, const float* x, const float* residual, float* out) {
  args->x = x, args->residual = residual, args->out = out, args->out_stride = 0;
  const int count = args->swiglu ? 1 : args->weight_count;
  for (int i = 0; i < count; ++i) args->out_stride += args->weights[i].rows;
  linear(*args);
}

int run_layers(const Entry& in) {
  LayersMeta meta{};
  if (in.expect(0, "x", {F32}, 2, -1) || read_layers_meta(in, &meta)) return 1;
  const int64_t M = in.dim(0, 0), D = in.dim(0, 1);
  if (D < 1) return fail("%s: x has no columns", in.name);
  std::vector<Layer> layers;
  if (in.expect(in.count - 1, "the output", {F32}, -1, M * D) || read_layers(in, meta, M, D, &layers)) return 1;
  float* const out = in.data<float>(in.count - 1);
  const float* x = in.data<float>(0);
  if (layers.empty()) std::copy(x, x + M * D, out);
  int64_t inner = 0;
  for (const Layer& layer : layers) inner = std::max(inner, layer.down.I);
  const PagedMeta& paged = meta.paged;
  const auto rows_of = [M](int64_t columns) { return std::unique_ptr<float[]>(new float[M * columns]); };
  const Buffers b{rows_of((paged.heads + 2 * paged.kv_heads) * paged.head_dim), rows_of(paged.heads * paged.head_dim),
                  rows_of(D), rows_of(inner)};
  for (Layer& layer : layers) {
    run_product(&layer.qkv, x, nullptr, b.qkv.get());
    if (run_paged(in, paged, layer.at, b.qkv.get(), b.context.get())) return 1;
    run_product(&layer.out, b.context.get(), x, b.middle.get());
    run_product(&layer.gate_up, b.middle.get(), nullptr, b.inner.get());
    run_product(&layer.down, b.inner.get(), b.middle.get(), out);
    x = out;
  }
  return 0;
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
    return fail("%s: the table must be int64 [tensors, %lld], got %s of %d dimensions and %lld elements", in.name,
                (long long)(kColumns), in.dtypes[kTable], in.ndims[kTable], (long long)(in.size(kTable)));
  }
  Unfolded all;
  for (int i = 0; i < kTable; ++i) all.add(in, i);
  for (int64_t i = 0; i < in.shapes[kTable][0]; ++i) {
    int64_t* const row = in.data<int64_t>(kTable) + i * kColumns;
    if (row[0] == 0 || row[1] < 0 || row[1] >= NONE || row[2] < 1 || row[2] > 2 || row[3] < 0 ||
        (row[2] == 2 && row[4] < 0)) {
      return fail("%s: row %lld of the table, %lld %lld %lld %lld %lld, is not address, dtype, dimensions (1 or 2) and "
                  "sizes", in.name, (long long)(i), (long long)(row[0]), (long long)(row[1]), (long long)(row[2]),
                  (long long)(row[3]), (long long)(row[4]));
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
