// Vectors of VL floats of the translation unit's instruction set: loads and stores of float, bf16, f16 and int8, and
// the few operations the kernels need. + - * / work on vf as they are.
#pragma once

#include <cstdint>
#include <cstring>

#include "dtype.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef MF_ISA_NS
#define MF_ISA_NS portable
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define MF_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MF_AVX2 1
#endif
#if defined(MF_AVX512) && defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define MF_AVX512_BF16 1
#endif
#define MF_INLINE static inline __attribute__((always_inline, unused))

namespace mf {
namespace MF_ISA_NS {

#if defined(MF_AVX512)

constexpr int VL = 16;
using vf = __m512;
MF_INLINE vf vset1(float a) { return _mm512_set1_ps(a); }
MF_INLINE vf vload(const float* p) { return _mm512_loadu_ps(p); }
MF_INLINE vf widen(__m256i h, bf16) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
MF_INLINE vf widen(__m256i h, f16) { return _mm512_cvtph_ps(h); }
MF_INLINE vf widen(__m128i b) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)); }
MF_INLINE vf vload(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), bf16{}); }
MF_INLINE vf vload(const f16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), f16{}); }
MF_INLINE vf vload(const int8_t* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
MF_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
MF_INLINE vf vload_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
MF_INLINE vf vload_n(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p), bf16{}); }
MF_INLINE vf vload_n(const f16* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p), f16{}); }
MF_INLINE vf vload_n(const int8_t* p, int n) { return widen(_mm_maskz_loadu_epi8(first(n), p)); }
MF_INLINE __m256i narrow(vf a, f16) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
MF_INLINE __m256i narrow(vf a, bf16) {
#if defined(MF_AVX512_BF16)
  __m256bh h = _mm512_cvtneps_pbh(a);
  __m256i bits;
  std::memcpy(&bits, &h, sizeof bits);
  return bits;
#else
  const __m512i u = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
#endif
}
MF_INLINE void vstore(float* p, vf a) { _mm512_storeu_ps(p, a); }
MF_INLINE void vstore_n(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, first(n), a); }
template <class H> MF_INLINE void vstore(H* p, vf a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a, H{}));
}
template <class H> MF_INLINE void vstore_n(H* p, vf a, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(a, H{})); }
MF_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
MF_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
MF_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
MF_INLINE float vsum(vf a) { return _mm512_reduce_add_ps(a); }
MF_INLINE float vhmax(vf a) { return _mm512_reduce_max_ps(a); }
MF_INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
MF_INLINE vf vscale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }

#elif defined(MF_AVX2)

constexpr int VL = 8;
using vf = __m256;
MF_INLINE vf vset1(float a) { return _mm256_set1_ps(a); }
MF_INLINE vf vload(const float* p) { return _mm256_loadu_ps(p); }
MF_INLINE vf vload(const bf16* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
MF_INLINE vf vload(const f16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
MF_INLINE vf vload(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
MF_INLINE void vstore(float* p, vf a) { _mm256_storeu_ps(p, a); }
MF_INLINE void vstore(f16* p, vf a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
MF_INLINE void vstore(bf16* p, vf a) {
  const __m256i u = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
MF_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
MF_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
MF_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
MF_INLINE float vsum(vf a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
MF_INLINE float vhmax(vf a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
MF_INLINE vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a * 2^n for whole n in [-252, 254], in two steps since 2^n itself may not be a float.
MF_INLINE vf vscale2(vf a, vf n) {
  const __m256i k = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(k, 1), bias = _mm256_set1_epi32(127);
  const vf one = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const vf two = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, half), bias), 23));
  return a * one * two;
}

#else  // GCC vector extensions: SSE2 on x86-64, NEON on aarch64

constexpr int VL = 4;
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint16_t vu16 __attribute__((vector_size(8)));
typedef int8_t vi8 __attribute__((vector_size(4)));
MF_INLINE vf vset1(float a) { return vf{a, a, a, a}; }
MF_INLINE vf vload(const float* p) {
  vf a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
MF_INLINE vi load_u16(const void* p) {
  vu16 h;
  std::memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, vi);
}
MF_INLINE vf vload(const bf16* p) { return (vf)(load_u16(p) << 16); }
MF_INLINE vf vload(const f16* p) {
  const vi h = load_u16(p), rest = (h & 0x7fff) << 13;
  const vi special = (h & 0x7c00) == 0x7c00;  // infinity, NaN
  const vi magnitude = (vi)((vf)rest * vset1(0x1p112f));
  return (vf)(((h & 0x8000) << 16) | (special & (rest | 0x7f800000)) | (~special & magnitude));
}
MF_INLINE vf vload(const int8_t* p) {
  vi8 b;
  std::memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, vf);
}
MF_INLINE void vstore(float* p, vf a) { std::memcpy(p, &a, sizeof a); }
template <class H> MF_INLINE void vstore(H* p, vf a) {
  for (int i = 0; i < VL; ++i) from_float(a[i], p + i);
}
MF_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
MF_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
MF_INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }
MF_INLINE vf vmin(vf a, vf b) { return vselect(a < b, a, b); }
MF_INLINE float vsum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
MF_INLINE float vhmax(vf a) {
  const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
  return x > y ? x : y;
}
MF_INLINE vf vround(vf a) { return (a + 12582912.0f) - 12582912.0f; }  // |a| < 2^22
MF_INLINE vf vscale2(vf a, vf n) {
  const vi k = __builtin_convertvector(n, vi), half = k >> 1;
  return a * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
}

#endif

MF_INLINE vf vzero() { return vset1(0.0f); }

#if !defined(MF_AVX512)
// The first n (< VL) elements, zeros behind them.
template <class T> MF_INLINE vf vload_n(const T* p, int n) {
  T buffer[VL] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  return vload(buffer);
}
template <class T> MF_INLINE void vstore_n(T* p, vf a, int n) {
  T buffer[VL];
  vstore(buffer, a);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
}
#endif

// exp(x) within 2 units in the last place; 0 below -104 (also -inf), inf above 88.8, NaN for NaN.
MF_INLINE vf vexp(vf x) {
  x = vmin(vset1(89.0f), vmax(vset1(-105.0f), x));  // the constant first: the second operand comes back when it is NaN
  const vf n = vround(x * vset1(1.44269504f));
  vf r = vfma(n, vset1(-0.693359375f), x);
  r = vfma(n, vset1(2.12194440e-4f), r);
  vf p = vset1(1.3981999507e-3f);
  p = vfma(p, r, vset1(8.3334519073e-3f));
  p = vfma(p, r, vset1(4.1665795894e-2f));
  p = vfma(p, r, vset1(1.6666665459e-1f));
  p = vfma(p, r, vset1(0.5f));
  p = vfma(p, r * r, r + vset1(1.0f));
  return vscale2(p, n);
}

MF_INLINE vf vsilu(vf x) { return x / (vset1(1.0f) + vexp(vzero() - x)); }

}  // namespace MF_ISA_NS
}  // namespace mf
