// Ops that pick or place elements by index or by mask. Indices may be negative (counted from the end); one out of range
// is refused by value, before anything is written.
#include <algorithm>
#include <cstring>

#include "../pool.h"
#include "general.h"

namespace mf {
namespace plugin {
namespace {

constexpr const char *kAll = "every type, complex too; indices int32 or int64, checked";

// Dense int64 copies of indices, made non-negative; refuses those outside [-length, length).
std::vector<int64_t> checked(const View &indices, int64_t length) {
  if (indices.type != I64 && indices.type != I32) refuse("indices are int32 or int64, but got %s", dtype_name(indices.type));
  std::vector<int64_t> out(indices.size());
  convert(indices, I64, out.data());
  for (int64_t &index : out) {
    if (index < -length || index >= length) {
      refuse("index %lld is outside [%lld, %lld)", static_cast<long long>(index), static_cast<long long>(-length),
             static_cast<long long>(length));
    }
    if (index < 0) index += length;
  }
  return out;
}

// Positions of an index tensor in the two dense tensors it connects: for element i of `shape`, its lane offset in a
// tensor of shape `other` (equal but along `axis`), where the index replaces the coordinate along `axis`.
struct Pick {
  Pick(const std::vector<int64_t> &shape, const View &other, int axis) : shape_(shape), strides_(other.strides), axis_(axis) {
    for (int i = 0; i < other.rank(); ++i) {
      if (i != axis && shape[i] > other.shape[i]) {
        refuse("index shape %s does not fit into %s", shape_text(shape).c_str(), shape_text(other.shape).c_str());
      }
    }
  }
  int64_t at(int64_t element, int64_t index) const {
    int64_t offset = index * strides_[axis_];
    for (size_t i = shape_.size(); i-- > 0;) {
      if (static_cast<int>(i) != axis_) offset += element % shape_[i] * strides_[i];
      element /= shape_[i];
    }
    return offset;
  }

 private:
  std::vector<int64_t> shape_, strides_;
  int axis_;
};

void gather_elements(const View &source, int64_t dim, const View &indices, const View &out) {
  const View in = at_least_1d(source), index = at_least_1d(indices);
  if (in.rank() != index.rank()) refuse("input has rank %d, index %d", in.rank(), index.rank());
  const int axis = normal_axis(dim, in.rank());
  const std::vector<int64_t> places = checked(index, in.shape[axis]);
  const Pick pick(index.shape, in, axis);
  for_bytes(in.type, [&](auto u) {
    using U = decltype(u);
    parallel_for(index.size(), 8192, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out.as<U>()[i] = in.as<const U>()[pick.at(i, places[i])];
    });
  });
}

// Rows of `width` elements: row places[i] of each of `outer` blocks of `length` rows.
void copy_rows(const Dense &in, int64_t outer, int64_t length, int64_t bytes, const std::vector<int64_t> &places, char *out) {
  const int64_t count = static_cast<int64_t>(places.size());
  parallel_for(outer * count, std::max<int64_t>(1, 32768 / std::max<int64_t>(bytes, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(out + row * bytes, in.as<char>() + (row / count * length + places[row % count]) * bytes, bytes);
    }
  });
}

// A view of `in` repeated to `shape` by broadcasting.
View stretched(const View &in, const std::vector<int64_t> &shape) {
  View view{in.data, in.type, shape, std::vector<int64_t>(shape.size(), 0)};
  const size_t extra = shape.size() - in.shape.size();
  if (in.shape.size() > shape.size()) refuse("%s does not fit into %s", shape_text(in.shape).c_str(), shape_text(shape).c_str());
  for (size_t i = 0; i < in.shape.size(); ++i) {
    if (in.shape[i] == shape[extra + i]) view.strides[extra + i] = in.strides[i];
    else if (in.shape[i] != 1) refuse("%s does not fit into %s", shape_text(in.shape).c_str(), shape_text(shape).c_str());
  }
  return view;
}

}  // namespace
}  // namespace plugin
}  // namespace mf

using namespace mf;
using namespace mf::plugin;

MF_PLUGIN_OP(GatherD, kAll) {
  gather_elements(args.input(0), args.integer(1), args.input(2), args.output(0));
}

MF_PLUGIN_OP(IndexSelect, kAll) {
  const View in = at_least_1d(args.input(0));
  const int axis = normal_axis(args.integer(1), in.rank());
  const std::vector<int64_t> places = checked(args.input(2), in.shape[axis]);
  int64_t outer = 1, width = 1;
  for (int i = 0; i < axis; ++i) outer *= in.shape[i];
  for (int i = axis + 1; i < in.rank(); ++i) width *= in.shape[i];
  const View out = args.output(0);
  if (out.size() != outer * static_cast<int64_t>(places.size()) * width) refuse("unexpected result shape %s", shape_text(out.shape).c_str());
  copy_rows(Dense(in), outer, in.shape[axis], width * dtype_size(in.type), places, out.as<char>());
}

MF_PLUGIN_OP(GatherNd, kAll) {
  const View in = args.input(0), indices = args.input(1), out = args.output(0);
  const int64_t depth = indices.rank() ? indices.dim(-1) : 0;
  if (depth < 1 || depth > in.rank()) refuse("indices of %lld coordinates for a tensor of rank %d", static_cast<long long>(depth), in.rank());
  int64_t rows = 1, width = 1;
  for (int i = 0; i < depth; ++i) rows *= in.shape[i];
  for (int i = static_cast<int>(depth); i < in.rank(); ++i) width *= in.shape[i];
  if (indices.type != I64 && indices.type != I32) refuse("indices are int32 or int64, but got %s", dtype_name(indices.type));
  std::vector<int64_t> coordinates(indices.size()), places(depth ? indices.size() / depth : 0);
  convert(indices, I64, coordinates.data());
  for (size_t i = 0; i < places.size(); ++i) {
    for (int64_t axis = 0; axis < depth; ++axis) {
      const int64_t index = coordinates[i * depth + axis], length = in.shape[axis];
      if (index < -length || index >= length) {
        refuse("index %lld of an axis of length %lld", static_cast<long long>(index), static_cast<long long>(length));
      }
      places[i] = places[i] * length + (index < 0 ? index + length : index);
    }
  }
  if (out.size() != static_cast<int64_t>(places.size()) * width) refuse("unexpected result shape %s", shape_text(out.shape).c_str());
  copy_rows(Dense(in), 1, rows, width * dtype_size(in.type), places, out.as<char>());
}

MF_PLUGIN_OP(Select, "every type, complex too; condition bool; broadcasts") {
  const View out = args.output(0);
  const Dense condition(stretched(args.input(0), out.shape)), yes(stretched(args.input(1), out.shape)),
      no(stretched(args.input(2), out.shape));
  if (args.input(0).type != BOOL) refuse("the condition is bool, but got %s", dtype_name(args.input(0).type));
  for (size_t i : {1, 2}) {
    if (args.input(i).type != out.type) refuse("both values have the result's type");
  }
  for_bytes(out.type, [&](auto u) {
    using U = decltype(u);
    parallel_for(out.size(), 32768, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out.as<U>()[i] = condition.as<bool>()[i] ? yes.as<U>()[i] : no.as<U>()[i];
    });
  });
}

// var [B, N, S, D]: updates [B', N, U, D] overwrite U places along the axis (-2 or -1) from indices [B'] on, or, with
// indices [B', 2], of sequence indices[:, 0] from indices[:, 1] on.
MF_PLUGIN_OP(KVCacheScatterUpdate, "every type, complex too; indices int32 or int64, checked") {
  const View var = args.dense_input(0, "var"), indices = args.input(1), updates = args.input(2), out = args.output(0);
  if (var.rank() != 4 || updates.rank() != 4 || var.type != updates.type) refuse("var and updates have rank 4 and one type");
  const int axis = normal_axis(args.integer(3), 4);
  const bool pairs = indices.rank() == 2 && indices.shape[1] == 2;
  if (axis < 2 || !(indices.rank() == 1 || pairs)) refuse("axis is -2 or -1, indices have shape [B] or [B, 2]");
  if (indices.type != I64 && indices.type != I32) refuse("indices are int32 or int64, but got %s", dtype_name(indices.type));
  std::vector<int64_t> where(indices.size());
  convert(indices, I64, where.data());
  const int64_t batch = updates.shape[0], span = updates.shape[axis], length = var.shape[axis], other = axis == 2 ? 3 : 2;
  if (indices.shape[0] != batch || updates.shape[1] != var.shape[1] || updates.shape[other] != var.shape[other]) {
    refuse("updates %s do not fit into %s", shape_text(updates.shape).c_str(), shape_text(var.shape).c_str());
  }
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t row = pairs ? where[2 * b] : b, start = pairs ? where[2 * b + 1] : where[b];
    if (row < 0 || row >= var.shape[0] || start < 0 || start + span > length) {
      refuse("places [%lld, %lld) of sequence %lld, but var is %s", static_cast<long long>(start),
             static_cast<long long>(start + span), static_cast<long long>(row), shape_text(var.shape).c_str());
    }
  }
  const Dense source(updates);
  const int64_t size = dtype_size(var.type), heads = var.shape[1], keep = axis == 2 ? 1 : var.shape[2];
  const int64_t unit = (axis == 2 ? var.shape[3] : 1) * size, line = length * unit, piece = span * unit;
  parallel_for(batch * heads, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / heads, row = pairs ? where[2 * b] : b, start = pairs ? where[2 * b + 1] : where[b];
      char *to = var.as<char>() + (row * heads + i % heads) * keep * line + start * unit;
      for (int64_t k = 0; k < keep; ++k) std::memcpy(to + k * line, source.as<char>() + (i * keep + k) * piece, piece);
    }
  });
  if (out.data && out.data != var.data) copy_view(var, out.data);
}
