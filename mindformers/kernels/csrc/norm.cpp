// Checks of the arguments, and the split over threads, of the row-wise ops.
#include "norm.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "error.h"
#include "norm_table.h"
#include "pool.h"

namespace mf {
namespace {

constexpr int64_t kAtOnce = 1 << 14;  // elements a thread takes at a time

const NormTable& kernels() {
  static const NormTable& table = MF_PICK(norm_table);
  return table;
}

int64_t rows_at_once(int64_t width) { return std::max<int64_t>(1, kAtOnce / std::max<int64_t>(1, width)); }

int check_float(const char* op, std::initializer_list<DType> types) {
  for (const DType type : types) {
    if (type != F32 && type != F16 && type != BF16) {
      return fail("%s: dtype %s; float32, float16 or bfloat16 is needed", op, dtype_name(type));
    }
  }
  return 0;
}

}  // namespace

int rms_norm(const Matrix& x, const void* weight, DType weight_type, const Matrix& y, float* rstd, int64_t rows,
             int64_t width, float eps) {
  return guarded([&] {
    if (check_float("rms_norm", {x.type, weight_type, y.type})) return 1;
    if (width < 1) return fail("rms_norm: the rows are empty");
    parallel_for(rows, rows_at_once(width), [&](int64_t begin, int64_t end) {
      kernels().rms_norm(x, weight, weight_type, y, rstd, begin, end, width, eps);
    });
    return 0;
  });
}

int rms_norm_grad(const Matrix& dy, const Matrix& x, const float* rstd, const void* weight, DType weight_type,
                  const Matrix& dx, float* dweight, int64_t rows, int64_t width) {
  return guarded([&] {
    if (check_float("rms_norm_grad", {dy.type, x.type, weight_type, dx.type})) return 1;
    if (width < 1) return fail("rms_norm_grad: the rows are empty");
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(4 * num_threads(), rows / rows_at_once(width)));
    const std::unique_ptr<float[]> sums(new float[parts * width]());
    parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        kernels().rms_norm_grad(dy, x, rstd, weight, weight_type, dx, sums.get() + p * width, rows * p / parts,
                                rows * (p + 1) / parts, width);
      }
    });
    for (int64_t d = 0; d < width; ++d) {
      float sum = 0.0f;
      for (int64_t p = 0; p < parts; ++p) sum += sums[p * width + d];
      dweight[d] = sum;
    }
    return 0;
  });
}

int swiglu(const Matrix& gate, const Matrix& up, const Matrix& y, int64_t rows, int64_t width) {
  return guarded([&] {
    if (check_float("swiglu", {gate.type, up.type, y.type})) return 1;
    parallel_for(rows, rows_at_once(width),
                 [&](int64_t begin, int64_t end) { kernels().swiglu(gate, up, y, begin, end, width); });
    return 0;
  });
}

int swiglu_grad(const Matrix& dy, const Matrix& gate, const Matrix& up, const Matrix& dgate, const Matrix& dup,
                int64_t rows, int64_t width) {
  return guarded([&] {
    if (check_float("swiglu_grad", {dy.type, gate.type, up.type, dgate.type, dup.type})) return 1;
    parallel_for(rows, rows_at_once(width), [&](int64_t begin, int64_t end) {
      kernels().swiglu_grad(dy, gate, up, dgate, dup, begin, end, width);
    });
    return 0;
  });
}

int rope_table(const int32_t* positions, const float* inv_freq, float factor, float* table, int64_t rows,
               int64_t half) {
  return guarded([&] {
    parallel_for(rows, std::max<int64_t>(1, 512 / std::max<int64_t>(1, half)), [&](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m) {
        for (int64_t i = 0; i < half; ++i) {
          const float angle = static_cast<float>(positions[m]) * inv_freq[i];
          table[2 * half * m + i] = std::cos(angle) * factor;
          table[2 * half * m + half + i] = std::sin(angle) * factor;
        }
      }
    });
    return 0;
  });
}

int embedding(const void* ids, DType id_type, int64_t count, const Matrix& weight, int64_t vocab, const Matrix& out,
              int64_t width) {
  return guarded([&] {
    if (id_type != I32 && id_type != I64)
      return fail("embedding: ids are %s; int32 or int64 is needed", dtype_name(id_type));
    if (weight.type != I8 && check_float("embedding", {weight.type})) return 1;
    if (check_float("embedding", {out.type})) return 1;
    const auto id = [&](int64_t i) {
      return id_type == I32 ? static_cast<const int32_t*>(ids)[i] : static_cast<const int64_t*>(ids)[i];
    };
    for (int64_t i = 0; i < count; ++i) {
      if (id(i) < 0 || id(i) >= vocab) {
        return fail("embedding: ids[%lld] is %lld, but the table has %lld rows", static_cast<long long>(i),
                    static_cast<long long>(id(i)), static_cast<long long>(vocab));
      }
    }
    parallel_for(count, rows_at_once(width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernels().copy_row(weight, id(i), out, i, width);
    });
    return 0;
  });
}

}  // namespace mf
