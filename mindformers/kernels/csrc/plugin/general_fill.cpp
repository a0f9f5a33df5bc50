// Ops that make tensors: constants, ranges, triangles, one-hot rows and padding.
#include <algorithm>
#include <cstring>

#include "../pool.h"
#include "general.h"

namespace mf {
namespace plugin {
namespace {

constexpr const char *kAll = "every type, complex too";

template <class U>
void fill_with(const View &out, U value) {
  parallel_for(out.size(), 65536, [&](int64_t begin, int64_t end) {
    std::fill(out.as<U>() + begin, out.as<U>() + end, value);
  });
}

// A scalar argument of any kind (bool, int, float, or a tensor of one element) as a value of `type`, in `bytes`.
void scalar(Args &args, size_t index, DType type, char (&bytes)[16]) {
  const View tensor = args.input(index);
  std::memset(bytes, 0, sizeof bytes);
  if (tensor.data && tensor.size() == 1) return convert(View{tensor.data, tensor.type, {1}, {1}}, type, bytes);
  double number = 0;
  int64_t integer = 0;
  if (tensor.type == BOOL) integer = args.flag(index);
  else if (tensor.type == F32 || tensor.type == F64) number = args.number(index);
  else integer = args.integer(index);
  if (number != 0 || tensor.type == F32 || tensor.type == F64) convert(View{&number, F64, {1}, {1}}, type, bytes);
  else convert(View{&integer, I64, {1}, {1}}, type, bytes);
}

void fill(const View &out, const char (&bytes)[16]) {
  for_bytes(out.type, [&](auto u) {
    std::memcpy(&u, bytes, sizeof u);
    fill_with(out, u);
  });
}

void fill_number(const View &out, int64_t value) {
  char bytes[16] = {};
  convert(View{&value, I64, {1}, {1}}, out.type, bytes);
  fill(out, bytes);
}

// The lower (upper) triangle of the last two axes; the rest is zero.
void triangle(Args &args, bool lower) {
  const View in = args.input(0), out = args.output(0);
  if (in.rank() < 2) refuse("a matrix is expected, but the shape is %s", shape_text(in.shape).c_str());
  const int64_t diagonal = args.integer(1), rows = in.dim(-2), columns = in.dim(-1);
  const Dense dense(in);
  const int64_t size = dtype_size(in.type), all = columns ? in.size() / columns : 0;
  parallel_for(all, std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      // lower keeps the columns up to `edge`, upper those from `edge` on
      const int64_t edge = std::min(std::max<int64_t>(row % rows + diagonal + (lower ? 1 : 0), 0), columns);
      const int64_t first = lower ? 0 : edge, last = lower ? edge : columns;
      char *to = out.as<char>() + row * columns * size;
      std::memset(to, 0, columns * size);
      std::memcpy(to + first * size, dense.as<char>() + (row * columns + first) * size, (last - first) * size);
    }
  });
}

}  // namespace
}  // namespace plugin
}  // namespace mf

using namespace mf;
using namespace mf::plugin;

MF_PLUGIN_OP(ZerosLikeExt, kAll) { fill_number(args.output(0), 0); }
MF_PLUGIN_OP(OnesLikeExt, kAll) { fill_number(args.output(0), 1); }
MF_PLUGIN_OP(OnesLike, kAll) { fill_number(args.output(0), 1); }
MF_PLUGIN_OP(TrilExt, kAll) { triangle(args, true); }
MF_PLUGIN_OP(Triu, kAll) { triangle(args, false); }

MF_PLUGIN_OP(FullLike, kAll) {
  char bytes[16];
  scalar(args, 1, args.output(0).type, bytes);
  fill(args.output(0), bytes);
}

MF_PLUGIN_OP(FillScalar, kAll) {
  char bytes[16];
  scalar(args, 1, args.output(0).type, bytes);
  fill(args.output(0), bytes);
}

MF_PLUGIN_OP(Arange, "every real type") {
  const View out = args.output(0);
  char start_bytes[16], step_bytes[16];
  for_real(out.type, [&](auto t) {
    using T = decltype(t);
    // whole numbers exactly, the rest in float64: start + i * step has one rounding
    using Exact = std::conditional_t<std::is_integral_v<T>, int64_t, double>;
    scalar(args, 0, std::is_integral_v<T> ? I64 : F64, start_bytes);
    scalar(args, 2, std::is_integral_v<T> ? I64 : F64, step_bytes);
    Exact start, step;
    std::memcpy(&start, start_bytes, sizeof start);
    std::memcpy(&step, step_bytes, sizeof step);
    for (int64_t i = 0; i < out.size(); ++i) out.as<T>()[i] = narrowed<T>(static_cast<Wide<T>>(start + static_cast<Exact>(i) * step));
  });
}

// depth comes from the result's shape; a label outside [0, depth) gives a row of off values, as MindSpore documents.
MF_PLUGIN_OP(OneHotExt, "labels int32, int64, uint8; every result type") {
  const View labels = args.input(0), out = args.output(0);
  char on[16], off[16];
  scalar(args, 2, out.type, on);
  scalar(args, 3, out.type, off);
  const int axis = normal_axis(args.integer(4), out.rank());
  const int64_t depth = out.shape[axis];
  std::vector<int64_t> places(labels.size());
  convert(labels, I64, places.data());
  fill(out, off);
  const int64_t size = dtype_size(out.type);
  int64_t inner = 1;
  for (int i = axis + 1; i < out.rank(); ++i) inner *= out.shape[i];
  for (int64_t i = 0; i < static_cast<int64_t>(places.size()); ++i) {
    if (places[i] < 0 || places[i] >= depth) continue;
    std::memcpy(out.as<char>() + ((i / inner * depth + places[i]) * inner + i % inner) * size, on, size);
  }
}

// padding: (left, right) of the last axis, then of the one before it, ...; a negative count cuts.
MF_PLUGIN_OP(ConstantPadND, kAll) {
  View in = args.input(0);
  const View out = args.output(0);
  const std::vector<int64_t> padding = args.integers(1);
  if (padding.size() % 2 || padding.size() / 2 > in.shape.size()) refuse("%zu pad counts for rank %d", padding.size(), in.rank());
  char bytes[16];
  scalar(args, 2, out.type, bytes);
  fill(out, bytes);
  View target{out.data, out.type, in.shape, out.strides};
  for (size_t k = 0; k < padding.size() / 2; ++k) {
    const int axis = in.rank() - 1 - static_cast<int>(k);
    const int64_t left = padding[2 * k], right = padding[2 * k + 1];
    if (in.shape[axis] + left + right != out.shape[axis]) refuse("unexpected result shape %s", shape_text(out.shape).c_str());
    in.data = in.as<char>() + std::max<int64_t>(-left, 0) * in.strides[axis] * dtype_size(in.type);
    target.data = target.as<char>() + std::max<int64_t>(left, 0) * target.strides[axis] * dtype_size(in.type);
    in.shape[axis] = std::max<int64_t>(in.shape[axis] + std::min<int64_t>(left, 0) + std::min<int64_t>(right, 0), 0);
  }
  target.shape = in.shape;
  if (in.size() == 0) return;
  if (in.rank() == 0) return copy_view(in, out.data);
  const int last = in.rank() - 1;
  const Lanes from(in, last), to(target, last);
  for_bytes(in.type, [&](auto u) {
    using U = decltype(u);
    parallel_for(from.count, std::max<int64_t>(1, 16384 / from.length), [&](int64_t begin, int64_t end) {
      for (int64_t lane = begin; lane < end; ++lane) {
        const U *source = in.as<const U>() + from.offset(lane);
        U *into = target.as<U>() + to.offset(lane);
        for (int64_t i = 0; i < from.length; ++i) into[i] = source[i * from.step];
      }
    });
  });
}
