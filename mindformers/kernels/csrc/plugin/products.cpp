#include "products.h"

#include <algorithm>
#include <complex>
#include <cstring>

#include "../linear.h"
#include "../pool.h"

namespace mf {
namespace plugin {
namespace {

constexpr int64_t kTile = 32;  // side of the squares that a transposition moves at a time

template <typename T>
void transpose(const Grid &from, T *to) {
  const int64_t tiles = (from.rows + kTile - 1) / kTile;
  parallel_for(tiles, std::max<int64_t>(1, 16384 / (kTile * std::max<int64_t>(1, from.columns))),
               [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t last = std::min(from.rows, (tile + 1) * kTile);
      for (int64_t left = 0; left < from.columns; left += kTile) {
        const int64_t right = std::min(from.columns, left + kTile);
        for (int64_t i = tile * kTile; i < last; ++i) {
          const T *source = static_cast<const T *>(from.data) + i * from.row_stride;
          for (int64_t j = left; j < right; ++j) to[i * from.columns + j] = source[j * from.column_stride];
        }
      }
    }
  });
}

// A matrix whose rows are contiguous; the grid's own memory where it is so.
struct Packed {
  explicit Packed(const Grid &grid) : Packed(grid, grid.type) {}

  // As `type`, which is the grid's own or float32.
  Packed(const Grid &grid, DType type) : data(grid.data), stride(grid.row_stride) {
    const int64_t count = grid.rows * grid.columns;
    if (grid.column_stride != 1 && grid.columns != 1) {
      copy_.reset(new char[count * dtype_size(grid.type)]);
      switch (dtype_size(grid.type)) {
        case 1: transpose(grid, reinterpret_cast<uint8_t *>(copy_.get())); break;
        case 2: transpose(grid, reinterpret_cast<uint16_t *>(copy_.get())); break;
        case 4: transpose(grid, reinterpret_cast<uint32_t *>(copy_.get())); break;
        case 8: transpose(grid, reinterpret_cast<uint64_t *>(copy_.get())); break;
        default: transpose(grid, reinterpret_cast<std::complex<double> *>(copy_.get())); break;
      }
      data = copy_.get();
      stride = grid.columns;
    }
    if (type == grid.type) return;
    wide_.reset(new float[count]);
    if (stride == grid.columns) {
      widen(data, grid.type, wide_.get(), count);
    } else {
      for (int64_t i = 0; i < grid.rows; ++i) {
        widen(static_cast<const char *>(data) + i * stride * dtype_size(grid.type), grid.type,
              wide_.get() + i * grid.columns, grid.columns);
      }
    }
    data = wide_.get();
    stride = grid.columns;
  }

  const void *data;
  int64_t stride;

 private:
  std::unique_ptr<char[]> copy_;
  std::unique_ptr<float[]> wide_;
};

void multiply_floats(const Grid &a, const Grid &b, const void *bias, void *out) {
  const Packed x(a, F32), w(b);
  std::unique_ptr<float[]> wide;
  LinearArgs args;
  args.x = static_cast<const float *>(x.data);
  args.M = a.rows;
  args.I = a.columns;
  args.x_stride = x.stride;
  args.weights[0].data = w.data;
  args.weights[0].rows = b.rows;
  args.weights[0].row_stride = w.stride;
  args.weights[0].bias = bias;
  args.weight_dtype = b.type;
  args.bias_dtype = b.type;
  args.out = static_cast<float *>(out);
  args.out_stride = b.rows;
  if (b.type != F32) {
    wide.reset(new float[a.rows * b.rows]);
    args.out = wide.get();
  }
  linear(args);
  if (wide) narrow(wide.get(), out, b.type, a.rows * b.rows);
}

template <typename T, typename Sum>
void multiply_plain(const Grid &a, const Grid &b, const void *bias, void *out) {
  const Packed x(a), w(b);
  parallel_for(a.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const T *row = static_cast<const T *>(x.data) + m * x.stride;
      for (int64_t n = 0; n < b.rows; ++n) {
        const T *other = static_cast<const T *>(w.data) + n * w.stride;
        Sum sum = bias ? static_cast<Sum>(static_cast<const T *>(bias)[n]) : Sum();
        for (int64_t k = 0; k < a.columns; ++k) sum += static_cast<Sum>(row[k]) * static_cast<Sum>(other[k]);
        static_cast<T *>(out)[m * b.rows + n] = static_cast<T>(sum);
      }
    }
  });
}

}  // namespace

Grids::Grids(const View &view, bool transpose) {
  if (view.rank() < 2) refuse("a matrix expected, but the shape is %s", shape_text(view.shape).c_str());
  first_ = {view.data, view.type, view.dim(-2), view.dim(-1), view.stride(-2), view.stride(-1)};
  if (transpose) first_ = first_.transposed();
  lead_.assign(view.shape.begin(), view.shape.end() - 2);
  lead_strides_.assign(view.strides.begin(), view.strides.end() - 2);
}

Grid Grids::at(int64_t index) const {
  int64_t offset = 0;
  for (size_t axis = lead_.size(); axis-- > 0;) {
    offset += index % lead_[axis] * lead_strides_[axis];
    index /= lead_[axis];
  }
  Grid grid = first_;
  grid.data = static_cast<const char *>(grid.data) + offset * static_cast<int64_t>(dtype_size(grid.type));
  return grid;
}

void multiply(const Grid &a, const Grid &b, const void *bias, void *out) {
  if (a.rows == 0 || b.rows == 0) return;
  if (a.columns == 0 && !bias) {
    std::memset(out, 0, a.rows * b.rows * dtype_size(b.type));
    return;
  }
  switch (b.type) {
    case F32:
    case F16:
    case BF16: return multiply_floats(a, b, bias, out);
    case F64: return multiply_plain<double, double>(a, b, bias, out);
    case I8: return multiply_plain<int8_t, uint32_t>(a, b, bias, out);
    case I16: return multiply_plain<int16_t, uint32_t>(a, b, bias, out);
    case I32: return multiply_plain<int32_t, uint32_t>(a, b, bias, out);
    case I64: return multiply_plain<int64_t, uint64_t>(a, b, bias, out);
    case U8: return multiply_plain<uint8_t, uint32_t>(a, b, bias, out);
    case U16: return multiply_plain<uint16_t, uint32_t>(a, b, bias, out);
    case U32: return multiply_plain<uint32_t, uint32_t>(a, b, bias, out);
    case U64: return multiply_plain<uint64_t, uint64_t>(a, b, bias, out);
    case C64: return multiply_plain<std::complex<float>, std::complex<float>>(a, b, bias, out);
    case C128: return multiply_plain<std::complex<double>, std::complex<double>>(a, b, bias, out);
    default: refuse("products of %s are not supported", dtype_name(b.type));
  }
}

}  // namespace plugin
}  // namespace mf
