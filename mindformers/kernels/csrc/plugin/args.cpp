#include "args.h"

#include <algorithm>
#include <cstring>

#include "../pool.h"

namespace mf {
namespace plugin {
namespace {

// Copies rows of the last axis; the other axes are counted like the digits of an odometer.
template <typename T>
void copy_rows(const View &from, T *to) {
  const int64_t width = from.shape.back(), step = from.strides.back();
  const int64_t rows = width ? from.size() / width : 0;
  const int outer = from.rank() - 1;
  parallel_for(rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t rest = row, offset = 0;
      for (int axis = outer - 1; axis >= 0; --axis) {
        offset += rest % from.shape[axis] * from.strides[axis];
        rest /= from.shape[axis];
      }
      const T *source = from.as<const T>() + offset;
      T *target = to + row * width;
      if (step == 1) {
        std::memcpy(target, source, width * sizeof(T));
      } else {
        for (int64_t i = 0; i < width; ++i) target[i] = source[i * step];
      }
    }
  });
}

struct Item16 {
  uint64_t low, high;
};

constexpr int64_t kChunk = 65536;  // values converted at a time

}  // namespace

int64_t View::size() const {
  int64_t count = 1;
  for (int64_t length : shape) count *= length;
  return count;
}

bool View::contiguous() const {
  int64_t expected = 1;
  for (int axis = rank() - 1; axis >= 0; --axis) {
    if (shape[axis] == 0) return true;
    if (shape[axis] != 1 && strides[axis] != expected) return false;
    expected *= shape[axis];
  }
  return true;
}

std::string shape_text(const std::vector<int64_t> &shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::vector<int64_t> dense_strides(const std::vector<int64_t> &shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t step = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

void copy_dense(const View &from, void *to) {
  const int64_t count = from.size();
  if (count == 0) return;
  if (from.contiguous()) {
    std::memcpy(to, from.data, count * dtype_size(from.type));
    return;
  }
  switch (dtype_size(from.type)) {
    case 1: return copy_rows(from, static_cast<uint8_t *>(to));
    case 2: return copy_rows(from, static_cast<uint16_t *>(to));
    case 4: return copy_rows(from, static_cast<uint32_t *>(to));
    case 8: return copy_rows(from, static_cast<uint64_t *>(to));
    default: return copy_rows(from, static_cast<Item16 *>(to));
  }
}

Dense::Dense(const View &view) : data_(view.data) {
  if (view.contiguous()) return;
  copy_.reset(new char[view.size() * dtype_size(view.type)]);
  copy_dense(view, copy_.get());
  data_ = copy_.get();
}

Floats::Floats(const View &view) {
  if (!is_float(view.type)) refuse("float32, float16 or bfloat16 expected, but got %s", dtype_name(view.type));
  const void *dense = view.data;
  if (!view.contiguous()) {
    copy_.reset(new char[view.size() * dtype_size(view.type)]);
    copy_dense(view, copy_.get());
    dense = copy_.get();
  }
  data_ = static_cast<const float *>(dense);
  if (view.type != F32) {
    wide_.reset(new float[view.size()]);
    widen(dense, view.type, wide_.get(), view.size());
    copy_.reset();
    data_ = wide_.get();
  }
}

Rows::Rows(const View &view, int axes) : data(view.data), type(view.type) {
  View row = view;
  row.shape.erase(row.shape.begin(), row.shape.begin() + axes);
  row.strides.erase(row.strides.begin(), row.strides.begin() + axes);
  for (int axis = 0; axis < axes; ++axis) rows *= view.shape[axis];
  width = stride = row.size();
  if (view.contiguous()) return;
  bool even = axes > 0 && row.contiguous() && view.strides[axes - 1] >= width;
  for (int axis = 0; axis + 1 < axes; ++axis) {
    even = even && view.strides[axis] == view.shape[axis + 1] * view.strides[axis + 1];
  }
  if (even) {
    stride = view.strides[axes - 1];
    return;
  }
  copy_.reset(new char[view.size() * dtype_size(type)]);
  copy_dense(view, copy_.get());
  data = copy_.get();
}

FloatsOut::FloatsOut(const View &out) : out_(out), data_(out.as<float>()) {
  if (!is_float(out.type)) refuse("float32, float16 or bfloat16 expected, but got %s", dtype_name(out.type));
  if (out.type != F32) {
    wide_.reset(new float[out.size()]);
    data_ = wide_.get();
  }
}

void FloatsOut::store() {
  if (wide_) narrow(data_, out_.data, out_.type, out_.size());
}

void widen(const void *from, DType type, float *to, int64_t count) {
  parallel_for(count, kChunk, [&](int64_t begin, int64_t end) {
    if (type == BF16) {
      for (int64_t i = begin; i < end; ++i) to[i] = to_float(static_cast<const bf16 *>(from)[i]);
    } else {
      for (int64_t i = begin; i < end; ++i) to[i] = to_float(static_cast<const f16 *>(from)[i]);
    }
  });
}

void narrow(const float *from, void *to, DType type, int64_t count) {
  parallel_for(count, kChunk, [&](int64_t begin, int64_t end) {
    if (type == BF16) {
      for (int64_t i = begin; i < end; ++i) from_float(from[i], static_cast<bf16 *>(to) + i);
    } else {
      for (int64_t i = begin; i < end; ++i) from_float(from[i], static_cast<f16 *>(to) + i);
    }
  });
}

bool Args::absent(size_t index) const { return parse_dtype(dtypes_[index]) == NONE; }

View Args::view(size_t index) const {
  View view;
  view.type = parse_dtype(dtypes_[index]);
  view.data = params_[index];
  view.shape.assign(shapes_[index], shapes_[index] + ndims_[index]);
  view.strides = dense_strides(view.shape);
  return view;
}

View Args::input(size_t index) const {
  if (index >= inputs_) refuse("input %zu of %zu does not exist: another MindSpore version?", index, inputs_);
  View view = this->view(index);
  if (!view) return view;
  const auto layout = info_->GetInputTensorLayout(index);
  if (layout && layout->strides.size() == view.shape.size()) {
    view.strides = layout->strides;
    view.data = view.as<char>() + layout->storage_offset * dtype_size(view.type);
  }
  return view;
}

View Args::dense_input(size_t index, const char *name) const {
  View view = input(index);
  if (!view.contiguous()) refuse("%s is written in place and must be contiguous", name);
  return view;
}

View Args::output(size_t index) const {
  if (index >= outputs()) refuse("output %zu of %zu does not exist: another MindSpore version?", index, outputs());
  return view(inputs_ + index);
}

std::vector<int64_t> Args::integers(size_t index) const {
  const char *name = dtypes_[index];
  if (!name || std::strcmp(name, "none") == 0) return {};
  const DType type = parse_dtype(name);
  if (params_[index] && (type == I64 || type == I32) && ndims_[index] >= 1) {
    const View tensor = info_->IsScalarInput(index) ? view(index) : input(index);  // a tuple lies there like a tensor
    const Dense dense(tensor);
    std::vector<int64_t> values(tensor.size());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = type == I64 ? dense.as<int64_t>()[i] : dense.as<int32_t>()[i];
    }
    return values;
  }
  return info_->GetIntVecInput(index);
}

}  // namespace plugin
}  // namespace mf
