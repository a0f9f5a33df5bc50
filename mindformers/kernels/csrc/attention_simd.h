// Vector pieces that the attention kernels share: exp2, sums across lanes, transposition, the micro kernel.
#pragma once

#include "attention_tasks.h"
#include "simd.h"

namespace mf {
namespace MF_ISA_NS {

#if defined(MF_AVX512) || defined(__aarch64__)
constexpr int kTileVectors = 4;  // 32 vector registers: 6 x 4 sums
#else
constexpr int kTileVectors = 2;
#endif
constexpr int kTileRows = 6;

MF_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
MF_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
MF_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Calls f with a value of the C++ type of `type`: F32, F16 or BF16.
template <class F> MF_INLINE void with_float(DType type, F f) {
  if (type == F32) return f(float{});
  if (type == F16) return f(f16{});
  f(bf16{});
}

// Minimax of (2^r - 1) / r on [-0.5, 0.5].
constexpr float kExp2[6] = {0x1.62e430p-1f, 0x1.ebfbdcp-3f,  0x1.c6aed6p-5f,
                            0x1.3b2cc4p-7f, 0x1.5f4498p-10f, 0x1.425874p-13f};

// 2^x for x <= 127, relative error below 1e-7; 0 below -150.
MF_INLINE vf vexp2(vf x) {
  x = vmax(vset1(-150.0f), x);
  const vf n = vround(x), r = x - n;
  vf p = vset1(kExp2[5]);
  p = vfma(p, r, vset1(kExp2[4]));
  p = vfma(p, r, vset1(kExp2[3]));
  p = vfma(p, r, vset1(kExp2[2]));
  p = vfma(p, r, vset1(kExp2[1]));
  p = vfma(p, r, vset1(kExp2[0]));
  return vscale2(vfma(p, r, vset1(1.0f)), n);
}

// Lane i of the result: the sum of the lanes of a[i].
#if defined(MF_AVX512)
MF_INLINE vf add_pairs(vf a, vf b) { return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b); }
MF_INLINE vf add_quads(vf a, vf b) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)) + _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
}
MF_INLINE vf sum_lanes(const vf* a) {
  vf u[4];
  for (int i = 0; i < 4; ++i) {
    u[i] = add_quads(add_pairs(a[4 * i], a[4 * i + 1]), add_pairs(a[4 * i + 2], a[4 * i + 3]));
  }
  const vf v = _mm512_shuffle_f32x4(u[0], u[1], 0x44) + _mm512_shuffle_f32x4(u[0], u[1], 0xee);
  const vf w = _mm512_shuffle_f32x4(u[2], u[3], 0x44) + _mm512_shuffle_f32x4(u[2], u[3], 0xee);
  return _mm512_shuffle_f32x4(v, w, 0x88) + _mm512_shuffle_f32x4(v, w, 0xdd);
}
#elif defined(MF_AVX2)
MF_INLINE vf add_pairs(vf a, vf b) { return _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b); }
MF_INLINE vf add_quads(vf a, vf b) {
  const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
  return _mm256_castpd_ps(_mm256_unpacklo_pd(x, y)) + _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
}
MF_INLINE vf sum_lanes(const vf* a) {
  const vf u = add_quads(add_pairs(a[0], a[1]), add_pairs(a[2], a[3]));
  const vf v = add_quads(add_pairs(a[4], a[5]), add_pairs(a[6], a[7]));
  return _mm256_permute2f128_ps(u, v, 0x20) + _mm256_permute2f128_ps(u, v, 0x31);
}
#else
MF_INLINE vf sum_lanes(const vf* a) { return vf{vsum(a[0]), vsum(a[1]), vsum(a[2]), vsum(a[3])}; }
#endif

// 2 * VL elements as two vectors. Of bf16 the even and the odd ones (which costs no shuffle), else the first and the
// second half; `arrange` puts floats in that order, `restore` undoes it.
template <class T> MF_INLINE void load2(const T* p, vf& a, vf& b) {
  a = vload(p);
  b = vload(p + VL);
}
#if defined(MF_AVX512)
MF_INLINE void split_pairs(__m512i both, vf& a, vf& b) {
  a = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  b = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
#endif
MF_INLINE void load2(const bf16* p, vf& a, vf& b) {
#if defined(MF_AVX512)
  split_pairs(_mm512_loadu_si512(p), a, b);
#elif defined(MF_AVX2)
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  a = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  b = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
#else
  vi both;
  std::memcpy(&both, p, sizeof both);
  a = (vf)(both << 16);
  b = (vf)(both & static_cast<int32_t>(0xffff0000u));
#endif
}
template <class T> constexpr bool splits_pairs() { return DTypeOf<T>::value == BF16; }

template <class T> MF_INLINE void arrange(const float* in, float* out, int64_t width) {
#if defined(MF_AVX512)
  if constexpr (splits_pairs<T>()) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    for (int64_t d = 0; d < width; d += 2 * VL) {
      const vf a = vload(in + d), b = vload(in + d + VL);
      vstore(out + d, _mm512_permutex2var_ps(a, even, b));
      vstore(out + d + VL, _mm512_permutex2var_ps(a, odd, b));
    }
    return;
  }
#endif
  for (int64_t d = 0; d < width; d += 2 * VL) {
    for (int i = 0; i < 2 * VL; ++i) out[d + i] = in[d + (splits_pairs<T>() ? 2 * (i % VL) + i / VL : i)];
  }
}
template <class T> MF_INLINE void restore(const float* in, float* out, int64_t width) {
#if defined(MF_AVX512)
  if constexpr (splits_pairs<T>()) {
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t d = 0; d < width; d += 2 * VL) {
      const vf a = vload(in + d), b = vload(in + d + VL);
      vstore(out + d, _mm512_permutex2var_ps(a, low, b));
      vstore(out + d + VL, _mm512_permutex2var_ps(a, high, b));
    }
    return;
  }
#endif
  for (int64_t d = 0; d < width; d += 2 * VL) {
    for (int i = 0; i < 2 * VL; ++i) out[d + (splits_pairs<T>() ? 2 * (i % VL) + i / VL : i)] = in[d + i];
  }
}

// out[0 ... width) = in * scale, any types.
template <class From, class To> MF_INLINE void convert(const From* in, To* out, int64_t width, float scale) {
  const vf factor = vset1(scale);
  int64_t d = 0;
  for (; d + VL <= width; d += VL) vstore(out + d, vload(in + d) * factor);
  if (d < width) vstore_n(out + d, vload_n(in + d, static_cast<int>(width - d)) * factor, static_cast<int>(width - d));
}
MF_INLINE void load_row(const void* in, DType type, float* out, int64_t width, float scale) {
  with_float(type, [&](auto t) { convert(static_cast<const decltype(t)*>(in), out, width, scale); });
}
template <class From> MF_INLINE void store_row(const From* in, void* out, DType type, int64_t width, float scale) {
  with_float(type, [&](auto t) { convert(in, static_cast<decltype(t)*>(out), width, scale); });
}

// Where rows first ... first + count - 1 of a sequence begin.
MF_INLINE void addresses(const KeyRows& rows, int64_t first, int count, const char** out) {
  if (rows.table == nullptr) {
    for (int i = 0; i < count; ++i) out[i] = rows.data + (first + i) * rows.step;
    return;
  }
  int64_t block = first / rows.block_size, inside = first % rows.block_size;
  for (int i = 0; i < count; ++i) {
    out[i] = rows.data + (rows.table[block] * rows.block_size + inside) * rows.step;
    if (++inside == rows.block_size) inside = 0, ++block;
  }
}

// VL vectors as the columns of what they were the rows of.
#if defined(MF_AVX512)
MF_INLINE void transpose(vf* r) {
  vf t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d x = _mm512_castps_pd(t[i + j]), y = _mm512_castps_pd(t[i + j + 2]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}
#elif defined(MF_AVX2)
MF_INLINE void transpose(vf* r) {
  vf t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m256d x = _mm256_castps_pd(t[i + j]), y = _mm256_castps_pd(t[i + j + 2]);
      r[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
      r[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
    }
  }
  for (int i = 0; i < 4; ++i) {
    const vf low = r[i], high = r[i + 4];
    r[i] = _mm256_permute2f128_ps(low, high, 0x20);
    r[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
  }
}
#else
MF_INLINE void transpose(vf* r) {
  const vf a = r[0], b = r[1], c = r[2], d = r[3];
  for (int i = 0; i < 4; ++i) r[i] = vf{a[i], b[i], c[i], d[i]};
}
#endif

// C [MR, NV * VL] (+)= A [MR, k] B [k, NV * VL]; element (i, j) of A at a[i * a_row + j * a_step].
template <int MR, int NV>
MF_INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t ldb, float* c,
                    int64_t ldc, bool add) {
  vf sum[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) sum[i][j] = add ? vload(c + i * ldc + j * VL) : vzero();
  }
  for (int64_t p = 0; p < k; ++p, a += a_step, b += ldb) {
    vf right[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) right[j] = vload(b + j * VL);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const vf left = vset1(a[i * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[i][j] = vfma(left, right[j], sum[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) vstore(c + i * ldc + j * VL, sum[i][j]);
  }
}

#if defined(MF_AVX512_BF16)
// The same on pairs of bf16 along k; a, b, k, the strides of A and ldb count pairs (uint32).
template <int MR, int NV>
MF_INLINE void tile(int64_t k, const uint32_t* a, int64_t a_row, int64_t a_step, const uint32_t* b, int64_t ldb,
                    float* c, int64_t ldc, bool add) {
  vf sum[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) sum[i][j] = add ? vload(c + i * ldc + j * VL) : vzero();
  }
  for (int64_t p = 0; p < k; ++p, a += a_step, b += ldb) {
    __m512bh right[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) right[j] = (__m512bh)_mm512_loadu_si512(b + j * VL);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const __m512bh left = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i * a_row]));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) vstore(c + i * ldc + j * VL, sum[i][j]);
  }
}
#endif

// One row of tiles: C [m <= 6, n] (+)= A B, n a multiple of VL.
template <int MR, class E>
static void tile_row(int64_t n, int64_t k, const E* a, int64_t a_row, int64_t a_step, const E* b, int64_t ldb, float* c,
                     int64_t ldc, bool add) {
  int64_t j = 0;
  for (; j + kTileVectors * VL <= n; j += kTileVectors * VL) {
    tile<MR, kTileVectors>(k, a, a_row, a_step, b + j, ldb, c + j, ldc, add);
  }
  const int64_t rest = (n - j) / VL;
  if constexpr (kTileVectors > 2) {
    if (rest == 3) return tile<MR, 3>(k, a, a_row, a_step, b + j, ldb, c + j, ldc, add);
    if (rest == 2) return tile<MR, 2>(k, a, a_row, a_step, b + j, ldb, c + j, ldc, add);
  }
  if (rest == 1) tile<MR, 1>(k, a, a_row, a_step, b + j, ldb, c + j, ldc, add);
}

// C [m, n] (+)= A [m, k] B [k, n], row-major B and C, n a multiple of VL; A as in `tile`.
template <class E>
MF_INLINE void multiply(int64_t m, int64_t n, int64_t k, const E* a, int64_t a_row, int64_t a_step, const E* b,
                        int64_t ldb, float* c, int64_t ldc, bool add) {
  for (; m > 0; m -= kTileRows, a += kTileRows * a_row, c += kTileRows * ldc) {
    switch (m) {
      case 1:
        tile_row<1>(n, k, a, a_row, a_step, b, ldb, c, ldc, add);
        break;
      case 2:
        tile_row<2>(n, k, a, a_row, a_step, b, ldb, c, ldc, add);
        break;
      case 3:
        tile_row<3>(n, k, a, a_row, a_step, b, ldb, c, ldc, add);
        break;
      case 4:
        tile_row<4>(n, k, a, a_row, a_step, b, ldb, c, ldc, add);
        break;
      case 5:
        tile_row<5>(n, k, a, a_row, a_step, b, ldb, c, ldc, add);
        break;
      default:
        tile_row<6>(n, k, a, a_row, a_step, b, ldb, c, ldc, add);
        break;
    }
  }
}

}  // namespace MF_ISA_NS
}  // namespace mf
