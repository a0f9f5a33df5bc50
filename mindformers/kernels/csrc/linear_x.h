// The activations as the kernels read them: normalised, converted, every row padded with zeros. Included by linear.inc.
#pragma once

#include "linear.h"
#include "pool.h"
#include "simd.h"

namespace mf {
namespace MF_ISA_NS {

// Elements of a prepared row: a multiple of 64 that covers I, and an odd number of cache lines from row to row, so that
// rows whose length is a power of two do not compete for the same few cache sets.
template <class T> MF_INLINE int64_t padded_stride(int64_t I) {
  const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  int64_t lines = ((I + 63) / 64 * 64) / line;
  if (lines % 2 == 0) ++lines;
  return lines * line;
}

template <class T> struct PreparedX {
  T* data;
  int64_t stride;
  float* scale;  // [M], int16 only: x = data * scale
};

MF_INLINE float load_scalar(const void* p, DType dtype, int64_t i) {
  if (dtype == BF16) return to_float(static_cast<const bf16*>(p)[i]);
  if (dtype == F16) return to_float(static_cast<const f16*>(p)[i]);
  return static_cast<const float*>(p)[i];
}

template <class N> MF_INLINE void normalise(const float* x, const N* weight, float factor, int64_t I, float* out) {
  const vf f = vset1(factor);
  int64_t i = 0;
  for (; i + VL <= I; i += VL) vstore(out + i, vload(x + i) * f * vload(weight + i));
  if (i < I) vstore_n(out + i, vload_n(x + i, I - i) * f * vload_n(weight + i, I - i), I - i);
}

static void rms_norm_row(const float* x, const LinearArgs& args, float* out) {
  const int64_t I = args.I;
  vf s0 = vzero(), s1 = vzero();
  int64_t i = 0;
  for (; i + 2 * VL <= I; i += 2 * VL) {
    const vf a = vload(x + i), b = vload(x + i + VL);
    s0 = vfma(a, a, s0);
    s1 = vfma(b, b, s1);
  }
  for (; i < I; i += VL) {
    const vf a = I - i < VL ? vload_n(x + i, I - i) : vload(x + i);
    s0 = vfma(a, a, s0);
  }
  const float factor = 1.0f / __builtin_sqrtf(vsum(s0 + s1) / static_cast<float>(I) + args.eps);
  if (args.norm_dtype == BF16) {
    normalise(x, static_cast<const bf16*>(args.norm), factor, I, out);
  } else if (args.norm_dtype == F16) {
    normalise(x, static_cast<const f16*>(args.norm), factor, I, out);
  } else {
    normalise(x, static_cast<const float*>(args.norm), factor, I, out);
  }
}

template <class T> MF_INLINE float fill_row(const float* x, int64_t I, T* out, float) {
  int64_t i = 0;
  for (; i + VL <= I; i += VL) vstore(out + i, vload(x + i));
  if (i < I) vstore_n(out + i, vload_n(x + i, I - i), I - i);
  return 1.0f;
}

#if defined(MF_AVX512_BF16)
// x as whole numbers of at most `limit`, with one factor for the row. A row with an infinity or NaN gives NaN.
MF_INLINE float fill_row(const float* x, int64_t I, int16_t* out, float limit) {
  const vf sign = vset1(-0.0f);
  vf top = vzero(), odd = vzero();
  for (int64_t i = 0; i < I; i += VL) {
    const vf a = I - i < VL ? vload_n(x + i, I - i) : vload(x + i);
    top = vmax(top, _mm512_andnot_ps(sign, a));
    odd = odd + a * vzero();  // NaN when a is not finite
  }
  const float largest = vhmax(top);
  const vf factor = vset1(largest > 0 ? limit / largest : 0.0f);
  for (int64_t i = 0; i < I; i += VL) {
    const vf a = I - i < VL ? vload_n(x + i, I - i) : vload(x + i);
    const __m256i q = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a * factor));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), q);
  }
  return largest / limit + vsum(odd);
}
#endif

// All rows of x. `limit`: largest magnitude of an int16 element.
template <class T> static PreparedX<T> prepare_x(const LinearArgs& args, float limit) {
  PreparedX<T> px;
  px.stride = padded_stride<T>(args.I);
  const int64_t numbers = (args.M * px.stride * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  char* block = scratch<char>(kScratchLinearX, numbers + args.M * static_cast<int64_t>(sizeof(float)));
  px.data = reinterpret_cast<T*>(block);
  px.scale = reinterpret_cast<float*>(block + numbers);
  const int64_t grain = args.M * args.I < 65536 ? args.M : 16384 / (args.I + 1) + 1;
  parallel_for(args.M, grain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const float* x = args.x + m * args.x_stride;
      T* out = px.data + m * px.stride;
      if (args.norm != nullptr) {
        float* normed = scratch<float>(kScratchLinearSums, args.I);
        rms_norm_row(x, args, normed);
        x = normed;
      }
      px.scale[m] = fill_row(x, args.I, out, limit);
      __builtin_memset(static_cast<void*>(out + args.I), 0, static_cast<size_t>(px.stride - args.I) * sizeof(T));
    }
  });
  return px;
}

}  // namespace MF_ISA_NS
}  // namespace mf
