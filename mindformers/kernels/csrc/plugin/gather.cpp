// Gather: slices of an axis by index, for every dtype.
#include <algorithm>
#include <cstring>

#include "../pool.h"
#include "args.h"

using namespace mf;
using namespace mf::plugin;

namespace {

int64_t product(const std::vector<int64_t> &shape, int64_t begin, int64_t end) {
  int64_t count = 1;
  for (int64_t i = begin; i < end; ++i) count *= shape[i];
  return count;
}

int64_t axis_in(int64_t axis, int64_t rank, const char *name) {
  if (axis < -rank || axis >= rank) refuse("%s %ld is outside of the %ld axes", name, long(axis), long(rank));
  return axis < 0 ? axis + rank : axis;
}

// The indices as 0 ... length - 1.
std::vector<int64_t> rows_of(const Dense &dense, const View &indices, int64_t length) {
  std::vector<int64_t> rows(indices.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t index = indices.type == I64 ? dense.as<int64_t>()[i] : dense.as<int32_t>()[i];
    if (index < -length || index >= length) {
      refuse("index %ld is outside of the axis of %ld", long(index), long(length));
    }
    rows[i] = index < 0 ? index + length : index;
  }
  return rows;
}

}  // namespace

MF_PLUGIN_OP(Gather, "every dtype; indices int32 or int64, negative ones count from the end; batch_dims") {
  const View x = args.input(0), indices = args.input(1), out = args.output(0);
  if (out.size() == 0) return;
  if (indices.type != I32 && indices.type != I64) refuse("indices must be int32 or int64");
  const int64_t axis = axis_in(args.integer(2), x.rank(), "axis");
  int64_t batch_dims = args.integer(3);
  if (batch_dims < 0) batch_dims += indices.rank();
  if (batch_dims < 0 || batch_dims > axis || batch_dims > indices.rank()) {
    refuse("batch_dims %ld does not fit to axis %ld", long(args.integer(3)), long(axis));
  }
  const Dense dense(x), dense_indices(indices);
  const int64_t length = x.dim(static_cast<int>(axis)), size = static_cast<int64_t>(dtype_size(x.type));
  const int64_t batch = product(x.shape, 0, batch_dims), outer = product(x.shape, batch_dims, axis);
  const int64_t inner = product(x.shape, axis + 1, x.rank()) * size;
  const int64_t picks = product(indices.shape, batch_dims, indices.rank());
  const std::vector<int64_t> rows = rows_of(dense_indices, indices, length);
  parallel_for(batch * outer * picks, std::max<int64_t>(1, 16384 / std::max<int64_t>(inner, 1)),
               [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / picks * length + rows[i / (outer * picks) * picks + i % picks];
      std::memcpy(out.as<char>() + i * inner, dense.as<char>() + row * inner, inner);
    }
  });
}
