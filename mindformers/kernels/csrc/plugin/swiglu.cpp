// Swiglu (arXiv:2002.05202): silu(first half) * second half of one axis, and its gradient.
#include "../norm.h"
#include "args.h"

using namespace mf;
using namespace mf::plugin;

namespace {

// The two halves of axis `dim` of dense memory: `rows` pieces of `width` elements, `stride` apart; the second half
// begins `second` elements after the first.
struct Halves {
  int64_t rows = 1, width = 1, stride = 1, second = 1;

  Halves(const std::vector<int64_t> &shape, int64_t dim) {
    const int64_t rank = static_cast<int64_t>(shape.size());
    const int64_t axis = dim < 0 ? dim + rank : dim;
    if (axis < 0 || axis >= rank) refuse("dim %ld is outside of shape %s", long(dim), shape_text(shape).c_str());
    if (shape[axis] % 2) refuse("axis %ld of %s is odd: it has no halves", long(axis), shape_text(shape).c_str());
    for (int64_t i = 0; i < axis; ++i) rows *= shape[i];
    for (int64_t i = axis; i < rank; ++i) stride *= shape[i];
    width = second = stride / 2;
    if (rows == 1 && axis + 1 < rank && shape[axis] > 0) {  // cut into rows again, for the threads
      rows = shape[axis] / 2;
      width = stride = rows ? second / rows : 0;
    }
  }
};

Matrix half(const void *data, DType type, int64_t offset, int64_t stride) {
  return {static_cast<char *>(const_cast<void *>(data)) + offset * dtype_size(type), type, stride};
}

}  // namespace

MF_PLUGIN_OP(Swiglu, "float32, float16, bfloat16; any axis") {
  const View x = args.input(0), y = args.output(0);
  if (!is_float(x.type)) refuse("float32, float16 or bfloat16 expected, but got %s", dtype_name(x.type));
  const Halves halves(x.shape, args.integer(1));
  if (x.size() == 0) return;
  const Dense dense(x);
  check(swiglu(half(dense.data(), x.type, 0, halves.stride), half(dense.data(), x.type, halves.second, halves.stride),
               {y.data, y.type, halves.width}, halves.rows, halves.width));
}

MF_PLUGIN_OP(SwigluGrad, "float32, float16, bfloat16; any axis") {
  const View dy = args.input(0), x = args.input(1), dx = args.output(0);
  if (!is_float(x.type)) refuse("float32, float16 or bfloat16 expected, but got %s", dtype_name(x.type));
  const Halves halves(x.shape, args.integer(2));
  if (x.size() == 0) return;
  const Dense dense(x), dense_dy(dy);
  check(swiglu_grad({const_cast<void *>(dense_dy.data()), dy.type, halves.width},
                    half(dense.data(), x.type, 0, halves.stride),
                    half(dense.data(), x.type, halves.second, halves.stride),
                    half(dx.data, dx.type, 0, halves.stride), half(dx.data, dx.type, halves.second, halves.stride),
                    halves.rows, halves.width));
}
