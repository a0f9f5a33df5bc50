// Running sums.
#include <algorithm>

#include "../pool.h"
#include "general.h"

namespace mf {
namespace plugin {
namespace {

// float32 and the 16-bit floats add up in float64, so that a long axis loses nothing.
template <class T>
using Sum = std::conditional_t<std::is_floating_point_v<Wide<T>>, double,
                               std::conditional_t<is_complex<T>, std::complex<double>, uint64_t>>;

template <class T>
T rounded(Sum<T> sum) {
  if constexpr (is_complex<T>) {
    return T(sum);
  } else {
    return narrowed<T>(static_cast<Wide<T>>(sum));
  }
}

void cumsum(const View &source, int64_t axis, bool exclusive, bool reverse, const View &out) {
  const View in = at_least_1d(source);
  if (in.size() != out.size()) expect_shape(out, in.shape);
  std::unique_ptr<char[]> other;  // the input in the result's type
  View typed = in;
  if (in.type != out.type) {
    other.reset(new char[in.size() * dtype_size(out.type) + 1]);
    convert(in, out.type, other.get());
    typed = View{other.get(), out.type, in.shape, dense_strides(in.shape)};
  }
  const int along = normal_axis(axis, in.rank());
  const Lanes lanes(typed, along), target(View{out.data, out.type, in.shape, dense_strides(in.shape)}, along);
  for_any(out.type, [&](auto t) {
    using T = decltype(t);
    parallel_for(lanes.count, std::max<int64_t>(1, 16384 / std::max<int64_t>(lanes.length, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t lane = begin; lane < end; ++lane) {
        const T *from = typed.as<const T>() + lanes.offset(lane);
        T *to = out.as<T>() + target.offset(lane);
        Sum<T> sum(0);
        for (int64_t k = 0; k < lanes.length; ++k) {
          const int64_t i = reverse ? lanes.length - 1 - k : k;
          const Sum<T> term = static_cast<Sum<T>>(wide(from[i * lanes.step]));
          if (exclusive) to[i * target.step] = rounded<T>(sum);
          sum += term;
          if (!exclusive) to[i * target.step] = rounded<T>(sum);
        }
      }
    });
  });
}

}  // namespace
}  // namespace plugin
}  // namespace mf

using namespace mf;
using namespace mf::plugin;

MF_PLUGIN_OP(CumsumExt, "every type; the sum runs in float64 or int64, the result has `dtype`") {
  cumsum(args.input(0), args.integer(1), false, false, args.output(0));
}

MF_PLUGIN_OP(CumSum, "every type; the sum runs in float64 or int64") {
  cumsum(args.input(0), args.integer(1), args.flag(2), args.flag(3), args.output(0));
}
