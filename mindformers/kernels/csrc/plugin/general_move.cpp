// Ops that only move elements. Each describes its result as a view of its input (strides may be zero or negative) and
// copies that view: all types, all layouts.
#include <algorithm>
#include <cstring>

#include "../pool.h"
#include "general.h"

namespace mf {
namespace plugin {
namespace {

constexpr const char *kAll = "every type, complex too";

// The same elements in the same order under another shape.
void reshaped(Args &args) {
  const View in = args.input(0), out = args.output(0);
  if (in.size() != out.size()) {
    refuse("%s cannot become %s", shape_text(in.shape).c_str(), shape_text(out.shape).c_str());
  }
  copy_view(in, out.data);
}

void emit(const View &view, const View &out) {
  expect_shape(out, view.shape);
  copy_view(view, out.data);
}

View permuted(const View &in, const std::vector<int64_t> &order) {
  if (order.size() != in.shape.size()) refuse("%zu axes given for a tensor of rank %d", order.size(), in.rank());
  View view = in;
  for (size_t i = 0; i < order.size(); ++i) {
    const int axis = normal_axis(order[i], in.rank());
    view.shape[i] = in.shape[axis];
    view.strides[i] = in.strides[axis];
  }
  return view;
}

View broadcast(const View &in, const std::vector<int64_t> &shape) {
  const size_t extra = shape.size() - in.shape.size();
  if (shape.size() < in.shape.size()) refuse("%s cannot become %s", shape_text(in.shape).c_str(), shape_text(shape).c_str());
  View view{in.data, in.type, shape, std::vector<int64_t>(shape.size(), 0)};
  for (size_t i = 0; i < in.shape.size(); ++i) {
    if (in.shape[i] == shape[extra + i]) {
      view.strides[extra + i] = in.strides[i];
    } else if (in.shape[i] != 1) {
      refuse("%s cannot become %s", shape_text(in.shape).c_str(), shape_text(shape).c_str());
    }
  }
  return view;
}

// One axis of a slice that is written as Python writes it.
struct Range {
  int64_t start, step, count;
};

Range range_of(int64_t length, int64_t begin, int64_t end, int64_t step, bool open_begin, bool open_end) {
  if (step == 0) refuse("a stride of 0");
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
  const auto bounded = [&](int64_t v) { return std::min(std::max(v < 0 ? v + length : v, low), high); };
  const int64_t first = open_begin ? (step > 0 ? low : high) : bounded(begin);
  const int64_t last = open_end ? (step > 0 ? high : low) : bounded(end);
  const int64_t span = step > 0 ? last - first : first - last, pace = step > 0 ? step : -step;
  return {first, step, span > 0 ? (span + pace - 1) / pace : 0};
}

bool bit(int64_t mask, size_t index) { return index < 63 && (mask >> index & 1); }

// begin, end, strides and the five masks of StridedSlice (those of TensorFlow's strided_slice).
View strided_slice(Args &args) {
  const View in = args.input(0);
  const std::vector<int64_t> begin = args.integers(1), end = args.integers(2), step = args.integers(3);
  const int64_t open_begin = args.integer(4), open_end = args.integer(5), ellipsis = args.integer(6),
                fresh = args.integer(7), shrink = args.integer(8);
  const size_t given = begin.size();
  if (end.size() != given || step.size() != given) refuse("begin, end and strides differ in length");
  View view{in.data, in.type, {}, {}};
  size_t axis = 0, named = 0;
  for (size_t i = 0; i < given; ++i) named += !bit(ellipsis, i) && !bit(fresh, i);
  const auto keep = [&](size_t count) {
    for (; count-- && axis < in.shape.size(); ++axis) {
      view.shape.push_back(in.shape[axis]);
      view.strides.push_back(in.strides[axis]);
    }
  };
  for (size_t i = 0; i < given; ++i) {
    if (bit(ellipsis, i)) {
      keep(in.shape.size() > named ? in.shape.size() - named : 0);
    } else if (bit(fresh, i)) {
      view.shape.push_back(1);
      view.strides.push_back(0);
    } else {
      if (axis >= in.shape.size()) refuse("%zu axes sliced of a tensor of rank %d", named, in.rank());
      const int64_t length = in.shape[axis], pace = in.strides[axis++];
      Range range = range_of(length, begin[i], end[i], step[i], bit(open_begin, i), bit(open_end, i));
      if (bit(shrink, i)) {
        range.start = begin[i] < 0 ? begin[i] + length : begin[i];
        if (range.start < 0 || range.start >= length) {
          refuse("index %lld of an axis of length %lld", static_cast<long long>(begin[i]), static_cast<long long>(length));
        }
      } else {
        view.shape.push_back(range.count);
        view.strides.push_back(range.step * pace);
      }
      if (range.count || bit(shrink, i)) view.data = static_cast<char *>(view.data) + range.start * pace * dtype_size(in.type);
    }
  }
  keep(in.shape.size());
  return view;
}

// Each axis with its repeats before it (Tile) or behind it (repeat_interleave), as a view of twice the rank.
View repeated(const View &in, const std::vector<int64_t> &repeats, bool before) {
  View view{in.data, in.type, {}, {}};
  for (size_t i = 0; i < repeats.size(); ++i) {
    if (repeats[i] < 0) refuse("%lld repeats", static_cast<long long>(repeats[i]));
    const bool real = i + in.shape.size() >= repeats.size();
    const size_t axis = i + in.shape.size() - repeats.size();
    const int64_t length = real ? in.shape[axis] : 1, stride = real ? in.strides[axis] : 0;
    for (bool repeat : {before, !before}) {
      view.shape.push_back(repeat ? repeats[i] : length);
      view.strides.push_back(repeat ? 0 : stride);
    }
  }
  return view;
}

// Blocks of `inputs` side by side along an axis of the dense output; each has `outer` blocks of width[i] bytes.
void join(const std::vector<View> &inputs, int64_t outer, const std::vector<int64_t> &width, char *out) {
  int64_t row = 0, column = 0;
  for (int64_t bytes : width) row += bytes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Dense dense(inputs[i]);
    const int64_t bytes = width[i], start = column;
    parallel_for(outer, std::max<int64_t>(1, 65536 / std::max<int64_t>(bytes, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) std::memcpy(out + k * row + start, dense.as<char>() + k * bytes, bytes);
    });
    column += bytes;
  }
}

// The quotients of out by in along the axes, of which the last `count` axes are rolled around.
void roll(const View &in, const std::vector<int64_t> &shifts, const std::vector<int64_t> &axes, const View &out) {
  View target = out;
  if (target.shape.empty()) return copy_view(in, out.data);
  std::vector<int64_t> shift(in.shape.size(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int axis = normal_axis(axes[i], in.rank());
    const int64_t length = std::max<int64_t>(in.shape[axis], 1);
    shift[axis] = ((shift[axis] + shifts[i]) % length + length) % length;
  }
  const Dense dense(in);
  const std::vector<int64_t> strides = dense_strides(in.shape);
  const int last = in.rank() - 1;
  const int64_t width = in.shape[last], rows = width ? in.size() / width : 0, size = dtype_size(in.type);
  parallel_for(rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t rest = row, to = 0;
      for (int axis = last - 1; axis >= 0; --axis) {
        to += (rest % in.shape[axis] + shift[axis]) % in.shape[axis] * strides[axis];
        rest /= in.shape[axis];
      }
      const char *source = dense.as<char>() + row * width * size;
      char *into = out.as<char>() + to * size;
      std::memcpy(into + shift[last] * size, source, (width - shift[last]) * size);
      std::memcpy(into, source + (width - shift[last]) * size, shift[last] * size);
    }
  });
}

}  // namespace
}  // namespace plugin
}  // namespace mf

using namespace mf;
using namespace mf::plugin;

MF_PLUGIN_OP(Reshape, kAll) { reshaped(args); }
MF_PLUGIN_OP(ExpandDims, kAll) { reshaped(args); }
MF_PLUGIN_OP(Squeeze, kAll) { reshaped(args); }
MF_PLUGIN_OP(Flatten, kAll) { reshaped(args); }
MF_PLUGIN_OP(FlattenExt, kAll) { reshaped(args); }
MF_PLUGIN_OP(Clone, kAll) { reshaped(args); }
MF_PLUGIN_OP(TensorMove, kAll) { reshaped(args); }
MF_PLUGIN_OP(Transpose, kAll) { emit(permuted(args.input(0), args.integers(1)), args.output(0)); }
MF_PLUGIN_OP(StridedSlice, kAll) { emit(strided_slice(args), args.output(0)); }
MF_PLUGIN_OP(BroadcastTo, kAll) { copy_view(broadcast(args.input(0), args.output(0).shape), args.output(0).data); }

MF_PLUGIN_OP(Slice, kAll) {
  View view = args.input(0);
  const std::vector<int64_t> begin = args.integers(1);
  const View out = args.output(0);
  if (begin.size() != view.shape.size() || out.rank() != view.rank()) refuse("begin needs one entry per axis");
  for (int axis = 0; axis < view.rank(); ++axis) {
    if (begin[axis] < 0 || begin[axis] + out.shape[axis] > view.shape[axis]) {
      refuse("[%lld, %lld) of an axis of length %lld", static_cast<long long>(begin[axis]),
             static_cast<long long>(begin[axis] + out.shape[axis]), static_cast<long long>(view.shape[axis]));
    }
    view.data = view.as<char>() + begin[axis] * view.strides[axis] * dtype_size(view.type);
  }
  view.shape = out.shape;
  copy_view(view, out.data);
}

MF_PLUGIN_OP(Tile, kAll) {
  const View in = args.input(0), out = args.output(0);
  std::vector<int64_t> repeats = args.integers(1);
  if (repeats.size() < in.shape.size()) repeats.insert(repeats.begin(), in.shape.size() - repeats.size(), 1);
  const View view = repeated(in, repeats, true);
  if (view.size() != out.size()) expect_shape(out, view.shape);
  copy_view(view, out.data);
}

MF_PLUGIN_OP(RepeatInterleaveInt, kAll) {
  View in = at_least_1d(args.input(0));
  const View out = args.output(0);
  const Dense flat(in);
  if (args.absent(2)) in = View{const_cast<void *>(flat.data()), in.type, {in.size()}, {1}};
  std::vector<int64_t> repeats(in.shape.size(), 1);
  repeats[args.absent(2) ? 0 : normal_axis(args.integer(2), in.rank())] = args.integer(1);
  const View view = repeated(in, repeats, false);
  if (view.size() != out.size()) expect_shape(out, view.shape);
  copy_view(view, out.data);
}

MF_PLUGIN_OP(StackExt, kAll) {
  const View out = args.output(0);
  const size_t count = args.inputs() - 1;
  const int axis = normal_axis(args.integer(count), out.rank());
  int64_t outer = 1;
  for (int i = 0; i < axis; ++i) outer *= out.shape[i];
  std::vector<View> inputs;
  for (size_t i = 0; i < count; ++i) inputs.push_back(args.input(i));
  if (out.size() == 0) return;
  const int64_t bytes = inputs[0].size() / outer * dtype_size(out.type);
  for (const View &in : inputs) {
    if (in.size() * static_cast<int64_t>(count) != out.size()) expect_shape(out, in.shape);
  }
  join(inputs, outer, std::vector<int64_t>(count, bytes), out.as<char>());
}

MF_PLUGIN_OP(Roll, kAll) {
  const View in = args.input(0), out = args.output(0);
  const std::vector<int64_t> shifts = args.integers(1), axes = args.integers(2);
  if (axes.empty()) {
    const Dense dense(in);
    View flat{const_cast<void *>(dense.data()), in.type, {in.size()}, {1}};
    return roll(flat, shifts, {0}, View{out.data, out.type, {in.size()}, {1}});
  }
  if (axes.size() != shifts.size()) refuse("%zu shifts for %zu axes", shifts.size(), axes.size());
  roll(in, shifts, axes, out);
}
