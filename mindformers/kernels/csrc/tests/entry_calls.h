// Calls of ops.Custom entries as MindSpore makes them, and what the tests of several entries share.
#pragma once

#include "tools.h"

class AotExtra;

namespace mf {
namespace test {

using Shape = std::vector<int64_t>;
using EntryFunction = int(int, void**, int*, int64_t**, const char**, void*, void*);
using InferShape = std::vector<int64_t>(int*, int64_t**, AotExtra*);
using InferShapes = std::vector<std::vector<int64_t>>(int*, int64_t**, AotExtra*);

struct Tensor : Array {
  Shape shape;

  explicit Tensor(const Shape& sizes, DType dtype = F32) : Array(elements(sizes), dtype), shape(sizes) {}
  static int64_t elements(const Shape& sizes) {
    int64_t product = 1;
    for (const int64_t size : sizes) product *= size;
    return product;
  }
};

inline Tensor random(const Shape& shape, DType type = F32, double scale = 1.0) {
  Tensor tensor(shape, type);
  for (int64_t i = 0; i < tensor.size; ++i) {
    tensor.set(i, type == I8 ? static_cast<double>(generator() % 255) - 127.0 : normal() * scale);
  }
  return tensor;
}

inline Tensor whole(const std::vector<int>& numbers, const Shape& shape, DType type = I32) {
  Tensor tensor(shape, type);
  for (int64_t i = 0; i < tensor.size; ++i) tensor.set(i, numbers[static_cast<size_t>(i)]);
  return tensor;
}

inline Tensor floats(const std::vector<double>& numbers) {
  Tensor tensor(Shape{static_cast<int64_t>(numbers.size())});
  for (int64_t i = 0; i < tensor.size; ++i) tensor.set(i, numbers[static_cast<size_t>(i)]);
  return tensor;
}

inline Tensor absent() { return Tensor({1}); }

// The inputs and then the outputs of one call.
struct Arguments {
  std::vector<void*> params;
  std::vector<int> ndims;
  std::vector<int64_t*> shapes;
  std::vector<const char*> dtypes;

  explicit Arguments(const std::vector<Tensor*>& tensors) {
    for (Tensor* tensor : tensors) {
      params.push_back(tensor->data()), ndims.push_back(static_cast<int>(tensor->shape.size()));
      shapes.push_back(tensor->shape.data()), dtypes.push_back(dtype_name(tensor->type));
    }
  }
  int call(EntryFunction* entry) {
    return entry(static_cast<int>(params.size()), params.data(), ndims.data(), shapes.data(), dtypes.data(), nullptr,
                 nullptr);
  }
};

// Runs an entry that must succeed.
inline void run(const char* name, EntryFunction* entry, const std::vector<Tensor*>& tensors) {
  const int code = Arguments(tensors).call(entry);
  expect_that(code == 0, "%s: %s", name, code != 0 ? mf_last_error() : "");
}

// An entry with tensors of its own.
struct Call {
  const char* name;
  EntryFunction* entry;
  std::vector<Tensor> tensors;

  std::vector<Tensor*> pointers() {
    std::vector<Tensor*> all;
    for (Tensor& tensor : tensors) all.push_back(&tensor);
    return all;
  }
  Tensor& operator[](int64_t i) { return tensors[static_cast<size_t>(i)]; }
  Tensor& last() { return tensors.back(); }
  int code() { return Arguments(pointers()).call(entry); }
  void run(InferShape* infer) {
    test::run(name, entry, pointers());
    Arguments in(pointers());
    expect_that(infer(in.ndims.data(), in.shapes.data(), nullptr) == last().shape, "%s: inferred shape", name);
  }
  void run(InferShapes* infer) {
    test::run(name, entry, pointers());
    Arguments in(pointers());
    const auto shapes = infer(in.ndims.data(), in.shapes.data(), nullptr);
    for (size_t i = 0; i < shapes.size(); ++i) {
      expect_that(shapes[i] == tensors[tensors.size() - shapes.size() + i].shape, "%s: inferred shape %zu", name, i);
    }
  }
};

// After `spoil(call)` the entry refuses with a message that holds `text`, and has written nothing.
template <class Spoil> void refused(Call call, const char* text, Spoil spoil) {
  spoil(call);
  const std::vector<Tensor> before = call.tensors;
  const int code = call.code();
  expect_that(code != 0 && std::strstr(mf_last_error(), text) != nullptr,
              "%s: expected an error with \"%s\", got %d \"%s\"", call.name, text, code,
              code != 0 ? mf_last_error() : "");
  for (size_t i = 0; i < before.size(); ++i) {
    expect_that(call.tensors[i].bytes == before[i].bytes, "%s, \"%s\": tensor %zu was written", call.name, text, i);
  }
}

// What every entry refuses: a tensor more or less, a dtype that nobody takes, and of the tensors numbered `sized` no
// axes at all and a last axis that is longer than the others say.
inline void check_arguments(const Call& good, const std::vector<int64_t>& sized) {
  refused(good, "takes", [](Call& c) { c.tensors.pop_back(); });
  refused(good, "takes", [](Call& c) { c.tensors.push_back(absent()); });
  refused(good, "takes", [](Call& c) { c.tensors.clear(); });
  for (int64_t i = 0; i < static_cast<int64_t>(good.tensors.size()); ++i) {
    refused(good, "bool", [i](Call& c) { c[i] = Tensor(c[i].shape, BOOL); });
  }
  for (const int64_t i : sized) {
    if (good.tensors[static_cast<size_t>(i)].size > 1) {
      refused(good, good.name, [i](Call& c) { c[i] = Tensor(Shape{}, c[i].type); });
    }
    refused(good, "", [i](Call& c) {
      Shape shape = c[i].shape;
      ++shape.back();
      c[i] = Tensor(shape, c[i].type);
    });
  }
}

// Which keys the rows of a step over a paged cache see. Every sequence holds `context` tokens and gets `tokens` more;
// the last of several in a sequence is padding, where `padding` says so.
struct PagedStep {
  int64_t batch, tokens, context, block_size;
  Tensor rope, tables, slots, positions;

  PagedStep(int64_t b, int64_t t, int64_t past, int64_t block, int64_t rope_width, bool padding)
      : batch(b), tokens(t), context(past), block_size(block), rope(random({b * t, rope_width})),
        tables({b, blocks()}, I32), slots({b * t}, I32), positions({b, t}, I32) {
    // backwards, so that no sequence owns block 0
    for (int64_t i = 0; i < b * blocks(); ++i) tables.set(i, static_cast<double>(b * blocks() - i));
    for (int64_t m = 0; m < b * t; ++m) {
      const int64_t position = past + m % t;
      const bool real = !padding || t == 1 || m % t < t - 1;
      const int64_t in_block = static_cast<int64_t>(tables[m / t * blocks() + position / block]);
      positions.set(m, real ? static_cast<double>(position) : -5.0);
      slots.set(m, real ? static_cast<double>(in_block * block + position % block) : -1.0);
    }
  }
  int64_t rows() const { return batch * tokens; }
  int64_t blocks() const { return (context + tokens + block_size - 1) / block_size; }
  int64_t slot_count() const { return (batch * blocks() + 1) * block_size + 1; }  // and the spare one
  Tensor cache(int64_t kv_heads, int64_t head_dim, DType type) const {
    return random({slot_count() * kv_heads, head_dim}, type);
  }
};

}  // namespace test
}  // namespace mf

#define MF_TEST_ENTRY(name)            \
  extern "C" mf::test::EntryFunction name; \
  extern "C" mf::test::InferShape name##InferShape;
#define MF_TEST_ENTRY_OF_SEVERAL(name) \
  extern "C" mf::test::EntryFunction name; \
  extern "C" mf::test::InferShapes name##InferShape;
