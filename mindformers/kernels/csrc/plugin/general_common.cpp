#include "general.h"

#include <algorithm>
#include <cstring>

#include "../pool.h"

namespace mf {
namespace plugin {
namespace {

constexpr int64_t kTile = 32;  // elements a side of a block of a transposed copy

// Joins axes that lie behind each other in memory and drops those of length 1.
View merged(const View &view) {
  View out = view;
  out.shape.clear();
  out.strides.clear();
  for (int axis = 0; axis < view.rank(); ++axis) {
    if (view.shape[axis] == 1) continue;
    if (!out.shape.empty() && out.strides.back() == view.shape[axis] * view.strides[axis]) {
      out.shape.back() *= view.shape[axis];
      out.strides.back() = view.strides[axis];
    } else {
      out.shape.push_back(view.shape[axis]);
      out.strides.push_back(view.strides[axis]);
    }
  }
  if (out.shape.empty()) {
    out.shape = {1};
    out.strides = {1};
  }
  return out;
}

// A copy whose last axis is strided and where `fast` is the axis that is contiguous in `from`: in blocks, so that each
// line of the cache that is read is used as a whole.
template <class U>
void copy_transposed(const View &from, int fast, U *to) {
  const int last = from.rank() - 1;
  const std::vector<int64_t> out_strides = dense_strides(from.shape);
  View outer = from, outer_to = from;
  outer_to.strides = out_strides;
  for (View *view : {&outer, &outer_to}) {
    view->shape.erase(view->shape.begin() + last);
    view->strides.erase(view->strides.begin() + last);
  }
  const Lanes source(outer, fast), target(outer_to, fast);
  const int64_t rows = from.shape[fast], columns = from.shape[last], step = from.strides[last];
  const int64_t tiles = (rows + kTile - 1) / kTile, out_step = out_strides[fast];
  const int64_t grain = std::max<int64_t>(1, 16384 / (kTile * std::max<int64_t>(columns, 1)));
  parallel_for(source.count * tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t lane = item / tiles, row = item % tiles * kTile, height = std::min(kTile, rows - row);
      const U *in = from.as<const U>() + source.offset(lane) + row;
      U *out = to + target.offset(lane) + row * out_step;
      for (int64_t left = 0; left < columns; left += kTile) {
        const int64_t right = std::min(left + kTile, columns);
        for (int64_t r = 0; r < height; ++r) {
          for (int64_t c = left; c < right; ++c) out[r * out_step + c] = in[c * step + r];
        }
      }
    }
  });
}

template <class From, class To>
To converted(From value) {
  const auto v = wide(value);
  if constexpr (std::is_same_v<To, bool>) {
    return v != decltype(v)(0);
  } else if constexpr (is_complex<To>) {
    if constexpr (is_complex<From>) {
      return To(v);
    } else {
      return To(static_cast<typename To::value_type>(v));
    }
  } else if constexpr (is_complex<From>) {
    return narrowed<To>(static_cast<Wide<To>>(v.real()));
  } else {
    return narrowed<To>(static_cast<Wide<To>>(v));
  }
}

}  // namespace

int normal_axis(int64_t axis, int rank) {
  const int axes = std::max(rank, 1);
  if (axis < -axes || axis >= axes) {
    refuse("axis %lld is outside [%d, %d)", static_cast<long long>(axis), -axes, axes);
  }
  return static_cast<int>(axis < 0 ? axis + axes : axis);
}

View at_least_1d(View view) {
  if (view.shape.empty()) {
    view.shape = {1};
    view.strides = {1};
  }
  return view;
}

Lanes::Lanes(const View &view, int axis) : length(view.shape[axis]), step(view.strides[axis]) {
  for (int i = 0; i < view.rank(); ++i) {
    if (i == axis) continue;
    shape_.push_back(view.shape[i]);
    strides_.push_back(view.strides[i]);
    count *= view.shape[i];
  }
}

int64_t Lanes::offset(int64_t lane) const {
  int64_t offset = 0;
  for (size_t axis = shape_.size(); axis-- > 0;) {
    offset += lane % shape_[axis] * strides_[axis];
    lane /= shape_[axis];
  }
  return offset;
}

void copy_view(const View &from, void *to) {
  if (from.data == to && from.contiguous()) return;  // an output may share its input's memory
  if (from.size() == 0) return;
  const View view = merged(from);
  if (view.strides.back() != 1) {
    const auto fast = std::find(view.strides.begin(), view.strides.end(), 1);
    if (fast != view.strides.end() && view.size() >= 1024) {
      return for_bytes(view.type, [&](auto u) {
        copy_transposed(view, static_cast<int>(fast - view.strides.begin()), static_cast<decltype(u) *>(to));
      });
    }
  }
  copy_dense(view, to);
}

void convert(const View &from, DType type, void *to) {
  if (from.type == type) return copy_view(from, to);
  const Dense dense(from);
  for_any(from.type, [&](auto f) {
    for_any(type, [&](auto t) {
      const auto *in = dense.as<decltype(f)>();
      auto *out = static_cast<decltype(t) *>(to);
      parallel_for(from.size(), 65536, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = converted<decltype(f), decltype(t)>(in[i]);
      });
    });
  });
}

void expect_shape(const View &out, const std::vector<int64_t> &shape) {
  if (out.shape != shape) {
    refuse("the result has shape %s but MindSpore expects %s", shape_text(shape).c_str(), shape_text(out.shape).c_str());
  }
}

}  // namespace plugin
}  // namespace mf
