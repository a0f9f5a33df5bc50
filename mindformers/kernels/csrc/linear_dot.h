// Few activation rows (decode): dot products along I that read each weight once, straight from memory. Included by
// linear.inc.
//
// A "scheme" says how one weight type is multiplied: the type X of the prepared activations, the step along I, the
// accumulator, and mac(). Past the last whole step the weights are read with a mask; the activations are padded.
#pragma once

#include "linear_x.h"

namespace mf {
namespace MF_ISA_NS {

// Products in float32 of weights of any type.
template <class T> struct FloatScheme {
  using W = T;
  using X = float;
  using Acc = vf;
  static constexpr int kStep = VL;
  MF_INLINE Acc zero() { return vzero(); }
  MF_INLINE vf weights(const W* w, int n) { return n < kStep ? vload_n(w, n) : vload(w); }
  MF_INLINE void mac(Acc& acc, vf w, const X* x) { acc = vfma(w, vload(x), acc); }
  MF_INLINE vf value(Acc acc) { return acc; }
};

#if defined(MF_AVX512_BF16)
MF_INLINE __m512i load_bytes(const void* p, int n) {
  return n < 64 ? _mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, p) : _mm512_loadu_si512(p);
}
MF_INLINE vf dp_bf16(vf acc, __m512i a, __m512i b) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }

struct Bf16Scheme {
  using W = bf16;
  using X = bf16;
  using Acc = vf;
  static constexpr int kStep = 32;
  MF_INLINE Acc zero() { return vzero(); }
  MF_INLINE __m512i weights(const W* w, int n) { return load_bytes(w, n < kStep ? 2 * n : 64); }
  MF_INLINE void mac(Acc& acc, __m512i w, const X* x) { acc = dp_bf16(acc, w, _mm512_loadu_si512(x)); }
  MF_INLINE vf value(Acc acc) { return acc; }
};

// int8 weights by int16 activations, exact in int32: prepare_x chose their range so that no lane overflows.
struct Int8Scheme {
  using W = int8_t;
  using X = int16_t;
  using Acc = __m512i;
  static constexpr int kStep = 32;
  MF_INLINE Acc zero() { return _mm512_setzero_si512(); }
  MF_INLINE __m512i weights(const W* w, int n) {
    const __m256i bytes = n < kStep ? _mm256_maskz_loadu_epi8((1u << n) - 1, w)
                                    : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
    return _mm512_cvtepi8_epi16(bytes);
  }
  MF_INLINE void mac(Acc& acc, __m512i w, const X* x) { acc = _mm512_dpwssd_epi32(acc, w, _mm512_loadu_si512(x)); }
  MF_INLINE vf value(Acc acc) { return _mm512_cvtepi32_ps(acc); }
};

MF_INLINE __m512i int8_to_bf16(const int8_t* w, int n, vf factor) {
  const __m256i bytes = n < 32 ? _mm256_maskz_loadu_epi8((1u << n) - 1, w)
                               : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  const vf low = widen(_mm256_castsi256_si128(bytes)), high = widen(_mm256_extracti128_si256(bytes, 1));
  return (__m512i)_mm512_cvtne2ps_pbh(high * factor, low * factor);
}
#endif

// What a tile of R weight rows needs; rows past the end repeat the last one.
template <class W, int R> struct DotRows {
  const W* w[R];
  const float* scale[R];  // int8 with groups
};

// sums[m * R + r] = w[r] . x[m] over I; `ahead`: bytes to prefetch ahead in each row.
template <class S, int R, int MR>
static void dot_tile(const DotRows<typename S::W, R>& rows, const typename S::X* x, int64_t stride, int64_t I,
                     int64_t, int64_t ahead, float* sums) {
  typename S::Acc acc[MR][R];
  for (int m = 0; m < MR; ++m)
    for (int r = 0; r < R; ++r) acc[m][r] = S::zero();
  const typename S::W* w[R];
  for (int r = 0; r < R; ++r) w[r] = rows.w[r];
  constexpr int64_t kLine = 64 / sizeof(typename S::W);
  constexpr int64_t kUnroll = S::kStep < kLine ? kLine / S::kStep : 1;
  int64_t k = 0;
  for (; k + kUnroll * S::kStep <= I; k += kUnroll * S::kStep) {
    for (int r = 0; r < R; ++r) __builtin_prefetch(reinterpret_cast<const char*>(w[r] + k) + ahead);
#pragma GCC unroll 16
    for (int u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const auto weights = S::weights(w[r] + k + u * S::kStep, S::kStep);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) S::mac(acc[m][r], weights, x + m * stride + k + u * S::kStep);
      }
    }
  }
  for (; k < I; k += S::kStep) {
    const int n = I - k < S::kStep ? static_cast<int>(I - k) : S::kStep;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto weights = S::weights(w[r] + k, n);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) S::mac(acc[m][r], weights, x + m * stride + k);
    }
  }
  for (int m = 0; m < MR; ++m)
    for (int r = 0; r < R; ++r) sums[m * R + r] = vsum(S::value(acc[m][r]));
}

// The same for int8 weights with a scale per group of `group` elements: each group's sum is scaled.
template <class S, int R, int MR>
static void dot_tile_groups(const DotRows<int8_t, R>& rows, const typename S::X* x, int64_t stride, int64_t I,
                            int64_t group, int64_t ahead, float* sums) {
  vf total[MR][R];
  for (int m = 0; m < MR; ++m)
    for (int r = 0; r < R; ++r) total[m][r] = vzero();
  int64_t g = 0;
  for (int64_t begin = 0; begin < I; begin += group, ++g) {
    typename S::Acc acc[MR][R];
    for (int m = 0; m < MR; ++m)
      for (int r = 0; r < R; ++r) acc[m][r] = S::zero();
    const int64_t end = begin + group;
    for (int64_t k = begin; k < end; k += S::kStep) {
      const int n = end - k < S::kStep ? static_cast<int>(end - k) : S::kStep;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        if (k % 64 == 0) __builtin_prefetch(reinterpret_cast<const char*>(rows.w[r] + k) + ahead);
        const auto weights = S::weights(rows.w[r] + k, n);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) S::mac(acc[m][r], weights, x + m * stride + k);
      }
    }
    for (int r = 0; r < R; ++r) {
      const vf scale = vset1(rows.scale[r][g]);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) total[m][r] = vfma(S::value(acc[m][r]), scale, total[m][r]);
    }
  }
  for (int m = 0; m < MR; ++m)
    for (int r = 0; r < R; ++r) sums[m * R + r] = vsum(total[m][r]);
}

constexpr int64_t kPrefetchBytes = 4096;

// Weight rows in a tile of MR activation rows: as many accumulators as there are registers.
constexpr int kRegisters = VL == 16 ? 32 : 16;
constexpr int kMaxDotM = VL == 16 ? 8 : 4;
constexpr int dot_rows(int MR, bool groups) {
  const int r = (kRegisters - (VL == 16 ? 8 : 4)) / (groups ? 2 * MR : MR);
  return r < 1 ? 1 : r > 4 ? 4 : r;
}

struct DotColumns {
  const LinearWeight* weight;
  int64_t begin, end;  // rows of the weight
  float* out;             // [M, stride], column 0 = row `begin`
  const float* residual;  // the same layout, or nullptr
  int64_t stride;
};

// out[m, j] = scale * dot + bias + residual for a chunk of weight rows and MR activation rows.
template <class S, bool kGroups, int MR>
static void dot_chunk(const LinearArgs& args, const PreparedX<typename S::X>& px, int64_t m0, const DotColumns& columns) {
  using W = typename S::W;
  constexpr int R = dot_rows(MR, kGroups);
  const LinearWeight& weight = *columns.weight;
  const W* base = static_cast<const W*>(weight.data);
  const int64_t tile_bytes = R * weight.row_stride * static_cast<int64_t>(sizeof(W));
  const int64_t ahead = tile_bytes < kPrefetchBytes ? tile_bytes : kPrefetchBytes;
  for (int64_t j = columns.begin; j < columns.end; j += R) {
    DotRows<W, R> rows;
    const int64_t count = columns.end - j < R ? columns.end - j : R;
    for (int r = 0; r < R; ++r) {
      const int64_t row = j + (r < count ? r : count - 1);
      rows.w[r] = base + row * weight.row_stride;
      rows.scale[r] = kGroups ? weight.scale + row * args.groups : nullptr;
    }
    float sums[MR * R];
    if constexpr (kGroups) {
      dot_tile_groups<S, R, MR>(rows, px.data + m0 * px.stride, px.stride, args.I, args.I / args.groups, ahead, sums);
    } else {
      dot_tile<S, R, MR>(rows, px.data + m0 * px.stride, px.stride, args.I, 0, ahead, sums);
    }
    for (int64_t r = 0; r < count; ++r) {
      const float scale = !kGroups && weight.scale != nullptr ? weight.scale[j + r] : 1.0f;
      const float bias = weight.bias != nullptr ? load_scalar(weight.bias, args.bias_dtype, j + r) : 0.0f;
      for (int m = 0; m < MR; ++m) {
        const int64_t at = (m0 + m) * columns.stride + j - columns.begin + r;
        const float value = sums[m * R + r] * (scale * px.scale[m0 + m]) + bias;
        columns.out[at] = columns.residual != nullptr ? value + columns.residual[at] : value;
      }
    }
  }
}

template <class S, bool kGroups> struct DotTable {
  using Chunk = void (*)(const LinearArgs&, const PreparedX<typename S::X>&, int64_t, const DotColumns&);
  static Chunk get(int64_t rows) {
    if constexpr (kMaxDotM == 8) {
      static constexpr Chunk table[] = {dot_chunk<S, kGroups, 1>, dot_chunk<S, kGroups, 2>, dot_chunk<S, kGroups, 3>,
                                        dot_chunk<S, kGroups, 4>, dot_chunk<S, kGroups, 5>, dot_chunk<S, kGroups, 6>,
                                        dot_chunk<S, kGroups, 7>, dot_chunk<S, kGroups, 8>};
      return table[rows - 1];
    } else {
      static constexpr Chunk table[] = {dot_chunk<S, kGroups, 1>, dot_chunk<S, kGroups, 2>, dot_chunk<S, kGroups, 3>,
                                        dot_chunk<S, kGroups, 4>};
      return table[rows - 1];
    }
  }
};

}  // namespace MF_ISA_NS
}  // namespace mf
