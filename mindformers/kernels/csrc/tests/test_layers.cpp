// mf_decoder_layers against the same layers made of the other entries, bit for bit: packed and split products, biases,
// scales, every weight type, several layers and steps; and what it must refuse.
#include "entry_calls.h"

MF_TEST_ENTRY(mf_linear)
MF_TEST_ENTRY(mf_qkv)
MF_TEST_ENTRY(mf_gate_up)
MF_TEST_ENTRY(mf_gate_up_packed)
MF_TEST_ENTRY(mf_paged_attention)
MF_TEST_ENTRY(mf_decoder_layers)

using namespace mf;
using namespace mf::test;

namespace {

constexpr int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kWidth = 64, kInner = 80;
constexpr int64_t kContext = kHeads * kHeadDim, kKv = kKvHeads * kHeadDim;

struct Case {
  DType weight = F32, cache = F32;
  int64_t layers = 2, groups = 1;
  bool packed_qkv = false, packed_gate_up = false, qkv_bias = false, out_bias = false, mlp_bias = false;
  int style = 0, window = 0;
};

struct Product {
  std::vector<Tensor> weights, biases, scales;

  Product(const Case& c, const Shape& rows, int64_t I, bool bias) {
    for (const int64_t O : rows) {
      weights.push_back(random({O, I}, c.weight, 0.1));
      biases.push_back(bias ? random({O}, F16) : absent());
      const Shape shape = c.groups == 1 ? Shape{O} : Shape{O, c.groups};
      scales.push_back(c.weight == I8 ? random(shape, F32, 0.001) : absent());
    }
  }
  bool has_bias() const { return biases[0].type == F16; }
  bool has_scale() const { return weights[0].type == I8; }
  void list(std::vector<Tensor*>* all) {
    for (size_t k = 0; k < weights.size(); ++k) {
      all->push_back(&weights[k]);
      if (has_bias()) all->push_back(&biases[k]);
      if (has_scale()) all->push_back(&scales[k]);
    }
  }
  // x through this product by an entry of its own: x, meta, norm, weights, biases, scales, residual -> out
  Tensor apply(const char* name, EntryFunction* entry, Tensor& x, Tensor* norm, Tensor* residual, int64_t columns) {
    Tensor none = absent(), out({x.shape[0], columns});
    Tensor meta = floats({1e-5, double(norm != nullptr), double(has_bias()), double(has_scale()),
                          double(residual != nullptr)});
    std::vector<Tensor*> all = {&x, &meta, norm != nullptr ? norm : &none};
    for (std::vector<Tensor>* part : {&weights, &biases, &scales}) {
      for (Tensor& tensor : *part) all.push_back(&tensor);
    }
    if (entry == mf_linear) all.push_back(residual != nullptr ? residual : &none);
    all.push_back(&out);
    run(name, entry, all);
    return out;
  }
};

struct Layer {
  Tensor norm, mlp_norm, keys, values;
  Product qkv, out, gate_up, down;

  Layer(const Case& c, const PagedStep& step)
      : norm(random({kWidth}, BF16)), mlp_norm(random({kWidth})), keys(step.cache(kKvHeads, kHeadDim, c.cache)),
        values(step.cache(kKvHeads, kHeadDim, c.cache)),
        qkv(c, c.packed_qkv ? Shape{kContext + 2 * kKv} : Shape{kContext, kKv, kKv}, kWidth, c.qkv_bias),
        out(c, {kWidth}, kContext, c.out_bias),
        gate_up(c, c.packed_gate_up ? Shape{2 * kInner} : Shape{kInner, kInner}, kWidth, c.mlp_bias),
        down(c, {kWidth}, kInner, c.mlp_bias) {}

  std::vector<Tensor*> tensors() {
    std::vector<Tensor*> all = {&norm};
    qkv.list(&all), out.list(&all);
    all.push_back(&keys), all.push_back(&values), all.push_back(&mlp_norm);
    gate_up.list(&all), down.list(&all);
    return all;
  }
};

struct Model {
  Case c;
  PagedStep step;
  std::vector<Layer> layers;
  Tensor x;

  Model(const Case& given, const PagedStep& rows) : c(given), step(rows), x(random({rows.rows(), kWidth})) {
    for (int64_t i = 0; i < c.layers; ++i) layers.emplace_back(c, step);
  }

  Tensor by_entries() {
    Tensor hidden = x;
    Tensor meta =
        floats({kHeads, kKvHeads, kHeadDim, double(step.block_size), 0.25, double(c.style), double(c.window)});
    meta.bytes.resize(static_cast<size_t>(4 * (8 + kContext))), meta.size = meta.shape[0] = 8 + kContext;
    for (Layer& layer : layers) {
      Tensor qkv = layer.qkv.apply("qkv", c.packed_qkv ? mf_linear : mf_qkv, hidden, &layer.norm, nullptr,
                                   kContext + 2 * kKv);
      Tensor context({step.rows(), kContext});
      run("mf_paged_attention", mf_paged_attention,
          {&qkv, &step.rope, &layer.keys, &layer.values, &step.tables, &step.slots, &step.positions, &meta, &context});
      Tensor middle = layer.out.apply("mf_linear", mf_linear, context, nullptr, &hidden, kWidth);
      Tensor inner = layer.gate_up.apply("gate and up", c.packed_gate_up ? mf_gate_up_packed : mf_gate_up, middle,
                                         &layer.mlp_norm, nullptr, kInner);
      hidden = layer.down.apply("mf_linear", mf_linear, inner, nullptr, &middle, kWidth);
    }
    return hidden;
  }

  // The call of mf_decoder_layers; its table has the addresses of this model's tensors.
  Call call() {
    Tensor meta = floats({kHeads, kKvHeads, kHeadDim, double(step.block_size), 0.25, double(c.style), double(c.window),
                          1e-5, double(c.layers), c.packed_qkv ? 1.0 : 3.0, c.packed_gate_up ? 1.0 : 2.0,
                          double(c.qkv_bias), double(c.out_bias), double(c.mlp_bias), double(c.weight == I8)});
    std::vector<Tensor*> all;
    for (Layer& layer : layers) {
      for (Tensor* tensor : layer.tensors()) all.push_back(tensor);
    }
    Tensor table({static_cast<int64_t>(all.size()), 5}, I64);
    int64_t* row = table.as<int64_t>();
    for (Tensor* tensor : all) {
      *row++ = reinterpret_cast<int64_t>(tensor->data()), *row++ = tensor->type;
      *row++ = static_cast<int64_t>(tensor->shape.size()), *row++ = tensor->shape[0];
      *row++ = tensor->shape.size() > 1 ? tensor->shape[1] : 0;
    }
    return {"mf_decoder_layers", mf_decoder_layers,
            {x, meta, step.rope, step.tables, step.slots, step.positions, table, random({step.rows(), kWidth})}};
  }
};

void check(const Case& c, const PagedStep& step) {
  Model model(c, step), twin = model;
  const Tensor want = twin.by_entries();
  Call call = model.call();
  call.run(mf_decoder_layersInferShape);
  bool caches = true;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    caches = caches && model.layers[i].keys.bytes == twin.layers[i].keys.bytes &&
             model.layers[i].values.bytes == twin.layers[i].values.bytes;
  }
  expect_that(call.last().bytes == want.bytes && caches,
              "%lld layers of %s in %lld groups, %lld rows, cache %s, packed %d %d, biases %d %d %d: error %g, "
              "caches %s", (long long)c.layers, dtype_name(c.weight), (long long)c.groups, (long long)step.rows(),
              dtype_name(c.cache), c.packed_qkv, c.packed_gate_up, c.qkv_bias, c.out_bias, c.mlp_bias,
              error_of(want.values(), call.last().values()), caches ? "equal" : "differ");
}

PagedStep any_step(int64_t rows) {
  if (rows == 3 && generator() % 2 == 0) return PagedStep(3, 1, 9, 4, kHeadDim, false);
  return PagedStep(1, rows, pick({0, 9, 70}), 4, pick({kHeadDim, 8}), rows > 1);
}

void check_all() {
  for (const DType type : {F32, F16, BF16, I8}) {
    for (const int64_t rows : {1, 3, 17}) {
      for (int packed = 0; packed < 4; ++packed) {
        Case c;
        c.weight = type, c.layers = pick({1, 2, 4}), c.groups = type == I8 ? pick({1, 2, 16}) : 1;
        c.cache = std::vector<DType>{F32, F16, BF16}[generator() % 3];
        c.packed_qkv = packed % 2 != 0, c.packed_gate_up = packed / 2 != 0;
        c.qkv_bias = generator() % 2 == 0, c.out_bias = generator() % 2 == 0, c.mlp_bias = generator() % 2 == 0;
        c.style = static_cast<int>(generator() % 2), c.window = static_cast<int>(pick({0, 5}));
        check(c, any_step(rows));
      }
    }
  }
}

void check_no_layers() {
  Case c;
  c.layers = 0;
  Model model(c, any_step(3));
  Call call = model.call();
  call.run(mf_decoder_layersInferShape);
  expect_that(call.last().bytes == model.x.bytes, "no layers change x");
}

// One number of one weight, of the last layer, changes the result.
void check_control() {
  Case c;
  Model model(c, any_step(3)), twin = model;
  twin.layers[1].down.weights[0].set(5, 3.0);
  Call call = model.call();
  call.run(mf_decoder_layersInferShape);
  expect_that(error_of(twin.by_entries().values(), call.last().values()) > 1e-3, "a changed weight gives the same");
}

// Refused with `text` after `spoil(model, call)`, where x, the output, the tables and both caches stay as they were.
template <class Spoil> void refused_layers(const Case& c, const char* text, Spoil spoil) {
  Model model(c, PagedStep(2, 3, 6, 4, kHeadDim, true));
  std::vector<std::vector<char>> caches;
  for (const Layer& layer : model.layers) caches.push_back(layer.keys.bytes), caches.push_back(layer.values.bytes);
  refused(model.call(), text, [&](Call& call) { spoil(model, call); });
  for (size_t i = 0; i < model.layers.size(); ++i) {
    expect_that(model.layers[i].keys.bytes == caches[2 * i] && model.layers[i].values.bytes == caches[2 * i + 1],
                "mf_decoder_layers, \"%s\": the cache of layer %zu was written", text, i);
  }
}

// Of split products without biases a layer has 11 tensors: norm, 3, 1, two caches, norm, 2, 1.
int64_t* row_of(Call& call, int64_t layer, int64_t row) { return call[6].as<int64_t>() + 5 * (layer * 11 + row); }

void check_table() {
  const Case c;
  const auto row = [&](const char* text, int64_t layer, int64_t at, int64_t field, int64_t value) {
    refused_layers(c, text, [=](Model&, Call& call) { row_of(call, layer, at)[field] = value; });
  };
  row("row 14 of the table, 0 0 2", 1, 3, 0, 0);
  row("row 14 of the table", 1, 3, 1, -1), row("row 14 of the table", 1, 3, 1, NONE);
  row("row 11 of the table", 1, 0, 2, 0), row("row 11 of the table", 1, 0, 2, 3);
  row("row 14 of the table", 1, 3, 3, -32), row("row 14 of the table", 1, 3, 4, -64);
  row("norm must be a float of [64], got float32 of 63", 1, 7, 3, 63);
  row("norm must be a float of [64], got int8", 1, 7, 1, I8);
  row("weight 2 must be", 1, 3, 4, 63), row("weight 1 must be", 1, 2, 1, I32);
  row("the weights must have one dtype, got float32 and bfloat16", 0, 3, 1, BF16);
  row("float32, float16, bfloat16 or int8 of [O, 64]", 1, 1, 2, 1);
  row("keys and values has 127 rows, but needs 128", 1, 3, 3, 31);
  row("the output projection has 65 rows, but needs 64", 1, 4, 3, 65);
  row("gate and up has 159 rows, but needs 160", 1, 9, 3, 79);
  row("weight 0 must be", 1, 10, 4, 79), row("the down projection has 63 rows, but needs 64", 1, 10, 3, 63);
  row("is int8, which it does not take", 1, 5, 1, I8);
  row("value_cache", 1, 6, 3, 10);
  refused_layers(c, "does not hold slots of 2 kv heads of 16", [](Model&, Call& call) {
    row_of(call, 1, 5)[3] = row_of(call, 1, 6)[3] = 57;
  });
  refused_layers(c, "the cache of layer 1 has 64 elements, but that of layer 0 has", [](Model&, Call& call) {
    row_of(call, 1, 5)[3] = row_of(call, 1, 6)[3] = 4;
  });
  for (const int64_t rows : {21, 16, 12, 5, 0}) {
    refused_layers(c, "too few inputs for 2 layers", [=](Model&, Call& call) {
      const Tensor all = call[6];
      call[6] = Tensor({rows, 5}, I64);
      std::copy(all.bytes.begin(), all.bytes.begin() + rows * 40, call[6].bytes.begin());
    });
  }
  refused_layers(c, "the table must be int64 [tensors, 5], got int64 of 2 dimensions and 88", [](Model&, Call& call) {
    call[6] = Tensor({22, 4}, I64);
  });
  Case whole_scale = c;
  whole_scale.weight = I8;
  refused_layers(whole_scale, "int8 weights need a scale", [](Model&, Call& call) { call[1].set(14, 0.0); });
  Case odd;
  odd.packed_gate_up = true;
  refused_layers(odd, "159 rows, an odd number", [](Model&, Call& call) { call[6].as<int64_t>()[8 * 5 + 3] = 159; });
  refused_layers(odd, "gate and up have no rows", [](Model&, Call& call) { call[6].as<int64_t>()[8 * 5 + 3] = 0; });
}

void check_meta_and_step() {
  const Case c;
  const auto meta = [&](const char* text, int64_t at, double value) {
    refused_layers(c, text, [=](Model&, Call& call) { call[1].set(at, value); });
  };
  meta("the number of layers, is -1", 8, -1), meta("too few inputs for 3 layers", 8, 3);
  meta("too few inputs for 2147483", 8, 2147483520.0), meta("1 layers take 17 inputs, but got 28", 8, 1);
  meta("2 qkv and 2 gate and up products", 9, 2), meta("3 qkv and 3 gate and up products", 10, 3);
  meta("number of heads, is nan", 0, NAN), meta("1073741824 kv heads", 1, 1 << 30), meta("has 128 rows", 0, 8);
  meta("bias 0 must be", 11, 1), meta("take no scale", 14, 1);
  const auto step = [&](const char* text, int64_t input, int64_t at, double value) {
    refused_layers(c, text, [=](Model&, Call& call) { call[input].set(at, value); });
  };
  step("block_tables[1, 1] is 7, but the cache has 7 blocks", 3, 4, 7), step("block_tables[0, 0] is -1", 3, 0, -1);
  step("slot_mapping[4] is 29, but the cache has 29 slots", 4, 4, 29), step("slot_mapping[1] is -2", 4, 1, -2);
  step("position -1 of row 3", 5, 3, -1), step("position 12 of row 0", 5, 0, 12);
  const auto input = [&](const char* text, int64_t at, const Tensor& tensor) {
    refused_layers(c, text, [=](Model&, Call& call) { call[at] = tensor; });
  };
  input("x has no columns", 0, Tensor({6, 0})), input("the output (input 28) has 384", 0, random({5, kWidth}));
  input("needs 378", 0, Tensor({6, 63}));
  input("float32 of 14", 1, Tensor({14})), input("rope has 5 rows", 2, random({5, kHeadDim}));
  input("rope width is 18", 2, random({6, 18})), input("has 3 sequences", 3, Tensor({3, 3}, I32));
  input("has 5 elements, but needs 6", 4, Tensor({5}, I32)), input("needs 6", 5, Tensor({2, 2}, I32));
}

void check_inputs() {
  Model model(Case{}, PagedStep(2, 3, 6, 4, kHeadDim, true));
  check_arguments(model.call(), {0, 2, 4, 5, 6, 7});
}

}  // namespace

int main() {
  return each_isa("decoder layers", [] {
    check_all();
    check_no_layers();
    check_control();
    check_inputs();
    check_table();
    check_meta_and_step();
  });
}
