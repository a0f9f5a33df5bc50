// Entries of ops.Custom that work on rows: products, norms, rotary tables, embedding, copies of cache rows, loss. Their
// results against the functions behind them or plain loops, and what they must refuse.
#include "../linear.h"
#include "../norm.h"
#include "entry_calls.h"

MF_TEST_ENTRY(mf_linear)
MF_TEST_ENTRY(mf_qkv)
MF_TEST_ENTRY(mf_gate_up)
MF_TEST_ENTRY(mf_gate_up_packed)
MF_TEST_ENTRY(mf_rope_table)
MF_TEST_ENTRY(mf_embedding)
MF_TEST_ENTRY(mf_rms_norm)
MF_TEST_ENTRY(mf_swiglu)
MF_TEST_ENTRY_OF_SEVERAL(mf_rms_norm_grad)
MF_TEST_ENTRY_OF_SEVERAL(mf_swiglu_grad)
MF_TEST_ENTRY(mf_copy_rows)
MF_TEST_ENTRY(mf_cross_entropy)
MF_TEST_ENTRY(mf_cross_entropy_grad)

using namespace mf;
using namespace mf::test;

namespace {

constexpr double kEps = 0.25;  // and as a float
const std::vector<DType> kFloats = {F32, F16, BF16}, kWeights = {F32, F16, BF16, I8};

bool flip() { return generator() % 2 == 0; }
DType any_float() { return kFloats[generator() % 3]; }

void expect_same(const Call& call, int64_t i, const Tensor& want) {
  expect_that(call.tensors[static_cast<size_t>(i)].bytes == want.bytes,
              "%s: tensor %lld is not what the function gives", call.name, (long long)i);
}

// --- products: x, meta, norm, weights, biases, scales, residual where there is one -> output

struct Product {
  const char* name;
  EntryFunction* entry;
  InferShape* infer;
  Shape rows;  // of each weight
  bool takes_residual, swiglu;
};

const Product kProducts[] = {{"mf_linear", mf_linear, mf_linearInferShape, {41}, true, false},
                             {"mf_qkv", mf_qkv, mf_qkvInferShape, {32, 8, 9}, false, false},
                             {"mf_gate_up", mf_gate_up, mf_gate_upInferShape, {37, 37}, false, true},
                             {"mf_gate_up_packed", mf_gate_up_packed, mf_gate_up_packedInferShape, {74}, false, true}};

struct ProductCase {
  int64_t M, I;
  DType weight;
  int64_t groups;
  bool norm, bias, residual;
};

int64_t columns_of(const Product& product) {
  int64_t columns = 0;
  for (const int64_t rows : product.rows) columns += rows;
  return product.swiglu ? columns / 2 : columns;
}

Call call_of(const Product& product, const ProductCase& c) {
  Call call{product.name, product.entry, {}};
  const bool residual = product.takes_residual && c.residual, scale = c.weight == I8;
  const DType bias = any_float();
  call.tensors = {random({c.M, c.I}), floats({kEps, double(c.norm), double(c.bias), double(scale), double(residual)}),
                  c.norm ? random({c.I}, any_float()) : absent()};
  for (const int64_t rows : product.rows) call.tensors.push_back(random({rows, c.I}, c.weight));
  for (const int64_t rows : product.rows) call.tensors.push_back(c.bias ? random({rows}, bias) : absent());
  for (const int64_t rows : product.rows) {
    const Shape shape = c.groups == 1 && flip() ? Shape{rows} : Shape{rows, c.groups};
    call.tensors.push_back(scale ? random(shape, F32, 0.01) : absent());
  }
  if (product.takes_residual) call.tensors.push_back(residual ? random({c.M, product.rows[0]}) : absent());
  call.tensors.push_back(random({c.M, columns_of(product)}));
  return call;
}

// What `linear` gives for the same tensors; a packed weight is given as its two halves.
Tensor by_linear(const Product& product, const ProductCase& c, Call call) {
  LinearArgs args;
  args.x = call[0].as<float>(), args.M = c.M, args.I = args.x_stride = c.I, args.eps = static_cast<float>(kEps);
  if (c.norm) args.norm = call[2].data(), args.norm_dtype = call[2].type;
  const int64_t count = static_cast<int64_t>(product.rows.size());
  const bool packed = product.swiglu && count == 1;
  args.weight_count = static_cast<int>(packed ? 2 : count), args.swiglu = product.swiglu;
  args.weight_dtype = c.weight, args.bias_dtype = call[3 + count].type, args.groups = c.groups;
  for (int64_t k = 0; k < args.weight_count; ++k) {
    const int64_t from = packed ? 0 : k, rows = product.rows[static_cast<size_t>(from)] / (packed ? 2 : 1);
    const int64_t skip = packed ? k * rows : 0;
    Tensor &weight = call[3 + from], &bias = call[3 + count + from], &scale = call[3 + 2 * count + from];
    args.weights[k] = {weight.as<char>() + skip * c.I * dtype_size(c.weight), rows, c.I,
                       c.bias ? bias.as<char>() + skip * dtype_size(bias.type) : nullptr,
                       c.weight == I8 ? scale.as<float>() + skip * c.groups : nullptr};
  }
  if (product.takes_residual && c.residual) args.residual = call[6].as<float>();
  Tensor out = call.last();
  args.out = out.as<float>(), args.out_stride = out.shape[1];
  linear(args);
  return out;
}

void check_products() {
  for (const Product& product : kProducts) {
    for (const DType type : kWeights) {
      for (const int64_t M : {1, 3, 17}) {
        for (const int64_t groups : type == I8 ? Shape{1, 3, 96} : Shape{1}) {
          const ProductCase c{M, 96, type, groups, flip(), flip(), flip()};
          Call call = call_of(product, c);
          const Tensor want = by_linear(product, c, call);
          call.run(product.infer);
          expect_same(call, static_cast<int64_t>(call.tensors.size()) - 1, want);
        }
      }
    }
  }
}

// The control of the comparison above: each part that the meta data names changes the result.
void check_that_parts_count() {
  for (const int64_t part : {0, 1, 2, 4}) {
    const ProductCase c{3, 96, I8, 1, true, true, true};
    Call call = call_of(kProducts[0], c);
    const Tensor want = by_linear(kProducts[0], c, call);
    call[1].set(part, part == 0 ? 9.0 : 0.0);
    call.run(mf_linearInferShape);
    expect_that(call.last().bytes != want.bytes, "meta[%lld] is not looked at", (long long)part);
  }
}

void check_product_refusals() {
  for (const Product& product : kProducts) {
    const int64_t count = static_cast<int64_t>(product.rows.size());
    const Call good = call_of(product, {3, 96, I8, 4, true, true, true});
    std::vector<int64_t> longer;
    for (int64_t i = 0; i < static_cast<int64_t>(good.tensors.size()); ++i) {
      if (i != 1) longer.push_back(i);
    }
    check_arguments(good, longer);
    refused(good, "x has no columns", [](Call& c) { c[0] = Tensor({3, 0}); });
    refused(good, "meta must be float32 of 5 or more elements, got float32 of 4",
            [](Call& c) { c[1] = floats({0.1, 1, 1, 1}); });
    refused(good, "norm must be a float of [96], got float32 of 95", [](Call& c) { c[2] = random({95}); });
    refused(good, "[O, 96]", [](Call& c) { c[3] = random({c[3].shape[0], 95}, I8); });
    refused(good, "[O, 96]", [](Call& c) { c[3] = random({c[3].shape[0], 32, 3}, I8); });
    refused(good, "int8 weights need a scale", [](Call& c) { c[1].set(3, 0.0); });
    refused(good, "groups that divide 96", [&](Call& c) { c[3 + 2 * count] = random({product.rows[0], 5}); });
    refused(good, "groups that divide 96", [&](Call& c) { c[3 + 2 * count] = random({product.rows[0] - 1, 4}); });
    refused(good, "groups that divide 96", [&](Call& c) { c[3 + 2 * count] = random({product.rows[0], 4}, F16); });
    refused(good, "groups that divide 96", [&](Call& c) { c[3 + 2 * count] = Tensor({product.rows[0], 0}); });
    refused(good, "bias 0 must be a float", [&](Call& c) { c[3 + count] = random({product.rows[0] - 1}); });
    refused(good, "bias 0 must be a float", [&](Call& c) { c[3 + count] = random({product.rows[0]}, I8); });
    const Call plain = call_of(product, {3, 96, BF16, 1, true, true, true});
    refused(plain, "bfloat16 weights take no scale", [](Call& c) { c[1].set(3, 1.0); });
    if (count == 1) continue;
    refused(plain, "must have one dtype, got bfloat16 and float16",
            [](Call& c) { c[4] = random(c[4].shape, F16); });
    refused(plain, "of the same dtype as the others",
            [&](Call& c) { c[4 + count] = random(c[4 + count].shape, c[4 + count].type == F32 ? F16 : F32); });
    refused(good, "scale 1 must be", [&](Call& c) { c[4 + 2 * count] = random({product.rows[1]}); });
  }
  refused(call_of(kProducts[0], {3, 96, F32, 1, false, false, true}),
          "residual must be float32 [3, 41], got float32 of 82", [](Call& c) { c[6] = random({2, 41}); });
  refused(call_of(kProducts[2], {3, 96, F32, 1, false, false, true}), "gate has 37 rows and up 36",
          [](Call& c) { c[4] = random({36, 96}); });
  refused(call_of(kProducts[3], {3, 96, F32, 1, false, false, true}), "75 rows, an odd number",
          [](Call& c) { c[3] = random({75, 96}); });
}

// --- rows

void check_rope_table() {
  Call call{"mf_rope_table", mf_rope_table,
            {whole({0, 7, 131071, 2}, {2, 2}), random({5}), floats({1.5}), Tensor({4, 10})}};
  Tensor want({4, 10});
  rope_table(call[0].as<int32_t>(), call[1].as<float>(), 1.5f, want.as<float>(), 4, 5);
  check_arguments(call, {0, 1, 3});
  refused(call, "meta must be float32", [](Call& c) { c[2] = Tensor({0}); });
  call.run(mf_rope_tableInferShape);
  expect_same(call, 3, want);
}

void check_embedding() {
  for (const DType type : kWeights) {
    for (const DType ids : {I32, I64}) {
      Call call{"mf_embedding", mf_embedding, {Tensor({2, 2}, ids), random({11, 7}, type), random({4, 7})}};
      const int numbers[] = {10, 0, 3, 3};
      for (int i = 0; i < 4; ++i) {
        if (ids == I64) call[0].as<int64_t>()[i] = numbers[i];
        else call[0].as<int32_t>()[i] = numbers[i];
      }
      std::vector<double> want;
      for (const int id : numbers) {
        for (int64_t d = 0; d < 7; ++d) want.push_back(call[1][id * 7 + d]);
      }
      check_arguments(call, {0, 1, 2});
      refused(call, "ids[2] is 11, but the table has 11 rows", [&](Call& c) {
        if (ids == I64) c[0].as<int64_t>()[2] = 11;
        else c[0].as<int32_t>()[2] = 11;
      });
      refused(call, "ids[3] is -1", [&](Call& c) {
        std::memset(c[0].as<char>() + 3 * dtype_size(ids), 255, static_cast<size_t>(dtype_size(ids)));
      });
      call.run(mf_embeddingInferShape);
      expect_that(call.last().values() == want, "embedding of %s", dtype_name(type));
    }
  }
}

void check_norms() {
  for (int i = 0; i < 12; ++i) {
    const int64_t width = i == 0 ? 7 : pick({1, 7, 64, 531});
    const Shape shape{2, 3, width};
    Call call{"mf_rms_norm", mf_rms_norm,
              {random(shape, any_float()), random({width}, any_float()), floats({kEps}), random(shape)}};
    Tensor want(shape), rstd({6});
    const Matrix x{call[0].data(), call[0].type, width};
    rms_norm(x, call[1].data(), call[1].type, {want.data(), F32, width}, rstd.as<float>(), 6, width, float(kEps));
    if (i == 0) check_arguments(call, {0, 1, 3});
    refused(call, "rows of x are empty", [](Call& c) { c[0] = Tensor({2, 3, 0}), c[1] = Tensor({0}), c[3] = c[0]; });
    call.run(mf_rms_normInferShape);
    expect_same(call, 3, want);
    Call grad{"mf_rms_norm_grad", mf_rms_norm_grad,
              {call[0], call[1], call[2], random(shape), random(shape), random({width})}};
    Tensor dx(shape), dweight({width});
    rms_norm_grad({grad[3].data(), F32, width}, x, rstd.as<float>(), call[1].data(), call[1].type,
                  {dx.data(), F32, width}, dweight.as<float>(), 6, width);
    if (i == 0) check_arguments(grad, {0, 1, 3, 4, 5});
    grad.run(mf_rms_norm_gradInferShape);
    expect_same(grad, 4, dx), expect_same(grad, 5, dweight);
  }
}

void check_swiglu() {
  for (int i = 0; i < 12; ++i) {
    const int64_t width = i == 0 ? 7 : pick({1, 7, 64, 531});
    const Shape shape{2, 3, width};
    Call call{"mf_swiglu", mf_swiglu, {random(shape, any_float()), random(shape, any_float()), random(shape)}};
    Call grad{"mf_swiglu_grad", mf_swiglu_grad, {call[0], call[1], random(shape), random(shape), random(shape)}};
    if (i == 0) check_arguments(call, {0, 1, 2}), check_arguments(grad, {0, 1, 2, 3, 4});
    const Matrix gate{call[0].data(), call[0].type, width}, up{call[1].data(), call[1].type, width};
    Tensor want(shape), dgate(shape), dup(shape);
    swiglu(gate, up, {want.data(), F32, width}, 6, width);
    swiglu_grad({grad[2].data(), F32, width}, gate, up, {dgate.data(), F32, width}, {dup.data(), F32, width}, 6, width);
    call.run(mf_swigluInferShape), grad.run(mf_swiglu_gradInferShape);
    expect_same(call, 2, want), expect_same(grad, 3, dgate), expect_same(grad, 4, dup);
  }
}

void check_copy_rows() {
  for (const DType type : kFloats) {
    Call call{"mf_copy_rows", mf_copy_rows,
              {random({9, 5}, type), whole({0, 8}, {2}), whole({3, 1}, {2}), Tensor({1})}};
    Tensor want = call[0];
    for (int64_t d = 0; d < 5; ++d) want.set(3 * 5 + d, want[d]), want.set(5 + d, want[8 * 5 + d]);
    check_arguments(call, {1, 2, 3});
    refused(call, "row 9 is outside the cache of 9 rows", [](Call& c) { c[1].set(1, 9); });
    refused(call, "row -1 is outside the cache of 9 rows", [](Call& c) { c[2].set(1, -1); });
    refused(call, "has 3 dimensions, but needs 2", [](Call& c) { c[0].shape = {9, 5, 1}; });
    refused(call, "int64", [](Call& c) { c[1] = Tensor({2}, I64); });
    call.run(mf_copy_rowsInferShape);
    expect_same(call, 0, want);
  }
}

// --- loss

void check_cross_entropy() {
  for (const DType type : kFloats) {
    const int64_t rows = 3, vocab = 301;
    Call call{"mf_cross_entropy", mf_cross_entropy,
              {random({rows, vocab}, type, 3.0), whole({300, -100, 0}, {rows}), floats({1, 0, 0.5}),
               random({2, rows})}};
    std::vector<double> saved(2 * rows, 0.0), grad(rows * vocab, 0.0);
    const double scales[] = {0.5, 0.0, -2.0};
    for (int64_t r = 0; r < rows; r += 2) {  // row 1 has weight 0 and a label of nothing
      const int64_t label = r == 0 ? 300 : 0;
      double sum = 0.0;
      for (int64_t j = 0; j < vocab; ++j) sum += std::exp(call[0][r * vocab + j]);
      saved[r] = std::log(sum) - call[0][r * vocab + label], saved[rows + r] = std::log(sum);
      for (int64_t j = 0; j < vocab; ++j) {
        grad[r * vocab + j] = (std::exp(call[0][r * vocab + j]) / sum - (j == label)) * scales[r];
      }
    }
    check_arguments(call, {1, 2, 3});
    refused(call, "label 301 of row 2 is outside [0, 301)", [](Call& c) { c[1].set(2, 301); });
    refused(call, "label -100 of row 1", [](Call& c) { c[2].set(1, 1); });
    call.run(mf_cross_entropyInferShape);
    expect_that(error_of(saved, call.last().values()) <= 2e-6, "cross entropy");
    Call back{"mf_cross_entropy_grad", mf_cross_entropy_grad,
              {call[0], call[1], call.last(), floats({0.5, 0, -2}), random({rows, vocab})}};
    check_arguments(back, {0, 1, 2, 3, 4});
    refused(back, "label 301 of row 0", [](Call& c) { c[1].set(0, 301); });
    refused(back, "label -100 of row 1", [](Call& c) { c[3].set(1, 1); });
    back.run(mf_cross_entropy_gradInferShape);
    expect_that(error_of(grad, back.last().values()) <= 2e-6, "gradient of cross entropy");
  }
}

}  // namespace

int main() {
  return each_isa("entries on rows", [] {
    check_products();
    check_that_parts_count();
    check_product_refusals();
    check_rope_table();
    check_embedding();
    check_norms();
    check_swiglu();
    check_copy_rows();
    check_cross_entropy();
  });
}
