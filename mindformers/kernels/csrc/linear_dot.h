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

// Sums of the lanes of count (a multiple of 4) vectors; sums has room for count rounded up to VL.
MF_INLINE void reduce_lanes(const vf* a, int count, float* sums) {
#if defined(MF_AVX512)
  for (int begin = 0; begin < count; begin += 16) {
    vf q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const vf* p = a + (begin + 4 * i < count ? begin + 4 * i : begin);
      const vf low = _mm512_unpacklo_ps(p[0], p[1]) + _mm512_unpackhi_ps(p[0], p[1]);
      const vf high = _mm512_unpacklo_ps(p[2], p[3]) + _mm512_unpackhi_ps(p[2], p[3]);
      const __m512d l = _mm512_castps_pd(low), h = _mm512_castps_pd(high);
      q[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(l, h)) + _mm512_castpd_ps(_mm512_unpackhi_pd(l, h));
    }
    const vf low = _mm512_shuffle_f32x4(q[0], q[1], 0x88) + _mm512_shuffle_f32x4(q[0], q[1], 0xdd);
    const vf high = _mm512_shuffle_f32x4(q[2], q[3], 0x88) + _mm512_shuffle_f32x4(q[2], q[3], 0xdd);
    vstore(sums + begin, _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xdd));
  }
#else
  for (int i = 0; i < count; ++i) sums[i] = vsum(a[i]);
#endif
}

// R weight rows against a group of activation rows. Rows past the end repeat the last one.
template <class S, int R> struct DotTile {
  const typename S::W* w[R];
  const float* scale[R];  // int8 with groups
  int64_t I, group;       // group: elements that share a scale
  const char* next;       // what to fetch into the second cache level: `lines` cache lines for each line of the rows
  int lines;
};

// out[m * R + r] = w[r] . x[m]; kGroups: each group's sum times its scale. A row alone is read through with four
// accumulators: one stream of memory is what the hardware prefetches best, so it takes no prefetches of ours.
template <class S, bool kGroups, int R, int MR>
static void dot_tile(const DotTile<S, R>& tile, const typename S::X* x, int64_t stride, float* sums) {
  constexpr int kStep = S::kStep, kCount = R * MR;
  constexpr int64_t kElements = 64 / sizeof(typename S::W);  // of a cache line
  constexpr int64_t kLine = kElements > kStep && !kGroups ? kElements : kStep;
  constexpr int kChains = kCount == 1 && !kGroups ? 4 : 1;
  vf total[(kCount + 3) / 4 * 4];
  for (vf& t : total) t = vzero();
  const typename S::W* w[R];
  for (int r = 0; r < R; ++r) w[r] = tile.w[r];
  const char* next = tile.next;
  int g = 0;
  for (int64_t begin = 0; begin < tile.I; begin += tile.group, ++g) {
    typename S::Acc acc[kCount][kChains];
    for (int i = 0; i < kCount; ++i)
      for (int c = 0; c < kChains; ++c) acc[i][c] = S::zero();
    const int64_t end = kGroups ? begin + tile.group : tile.I;
    int64_t k = begin;
    for (; k + kChains * kLine <= end; k += kChains * kLine) {
      if constexpr (kCount > 1) {
        for (int i = 0; i < tile.lines; ++i, next += kLine * sizeof(typename S::W)) __builtin_prefetch(next, 0, 2);
      }
#pragma GCC unroll 16
      for (int u = 0; u < kChains * static_cast<int>(kLine) / kStep; ++u) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const auto weights = S::weights(w[r] + k + u * kStep, kStep);
#pragma GCC unroll 8
          for (int m = 0; m < MR; ++m) S::mac(acc[m * R + r][u % kChains], weights, x + m * stride + k + u * kStep);
        }
      }
    }
    for (; k < end; k += kStep) {
      const int n = end - k < kStep ? static_cast<int>(end - k) : kStep;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const auto weights = S::weights(w[r] + k, n);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) S::mac(acc[m * R + r][0], weights, x + m * stride + k);
      }
    }
#pragma GCC unroll 32
    for (int i = 0; i < kCount; ++i) {
      vf value = S::value(acc[i][0]);
      if constexpr (kChains == 4) value = (value + S::value(acc[i][1])) + (S::value(acc[i][2]) + S::value(acc[i][3]));
      total[i] = kGroups ? vfma(value, vset1(tile.scale[i % R][g]), total[i]) : value;
    }
  }
  if constexpr (kCount == 1) {
    sums[0] = vsum(total[0]);
  } else {
    reduce_lanes(total, (kCount + 3) / 4 * 4, sums);
  }
}

struct DotColumns {
  const LinearWeight* weight;
  int64_t begin, end;     // rows of the weight
  float* out;             // [M, stride], column 0 = row `begin`
  const float* residual;  // the same layout, or nullptr
  int64_t stride;
};

template <class S, bool kGroups, int R, int MR>
static void dot_part(const LinearArgs& args, const PreparedX<typename S::X>& px, const DotTile<S, R>& tile, int64_t j,
                     int64_t count, int64_t m0, const DotColumns& columns) {
  const LinearWeight& weight = *columns.weight;
  float sums[(R * MR + VL - 1) / VL * VL];
  dot_tile<S, kGroups, R, MR>(tile, px.data + m0 * px.stride, px.stride, sums);
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

// out[m, j] = scale * dot + bias + residual for a chunk of weight rows, R at a time, and all activation rows, at most
// kMaxM at a time.
template <class S, bool kGroups, int R, int kMinM, int kMaxM>
static void dot_rows(const LinearArgs& args, const PreparedX<typename S::X>& px, const DotColumns& columns) {
  const LinearWeight& weight = *columns.weight;
  const auto* base = static_cast<const typename S::W*>(weight.data);
  const int64_t parts = (args.M + kMaxM - 1) / kMaxM;
  DotTile<S, R> tile;
  tile.I = args.I;
  tile.group = kGroups ? args.I / args.groups : args.I;
  tile.lines = static_cast<int>((R + parts - 1) / parts);
  for (int64_t j = columns.begin; j < columns.end; j += R) {
    const int64_t count = columns.end - j < R ? columns.end - j : R;
    for (int r = 0; r < R; ++r) {
      const int64_t row = j + (r < count ? r : count - 1);
      tile.w[r] = base + row * weight.row_stride;
      tile.scale[r] = kGroups ? weight.scale + row * args.groups : nullptr;
    }
    tile.next = reinterpret_cast<const char*>(tile.w[0] + R * weight.row_stride);
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t m = args.M * p / parts;
      const int64_t rows = args.M * (p + 1) / parts - m;
      if constexpr (kMaxM - kMinM >= 2) {
        if (rows == kMaxM - 2) dot_part<S, kGroups, R, kMaxM - 2>(args, px, tile, j, count, m, columns);
      }
      if constexpr (kMaxM - kMinM >= 1) {
        if (rows == kMaxM - 1) dot_part<S, kGroups, R, kMaxM - 1>(args, px, tile, j, count, m, columns);
      }
      if (rows == kMaxM) dot_part<S, kGroups, R, kMaxM>(args, px, tile, j, count, m, columns);
      tile.next += args.I * static_cast<int64_t>(sizeof(typename S::W)) * tile.lines;
    }
  }
}

// How many weight rows at a time: as many accumulators as there are registers (those of a group are kept twice).
template <class S, bool kGroups>
static void dot_chunk(const LinearArgs& args, const PreparedX<typename S::X>& px, const DotColumns& columns) {
  if (args.M == 1) return dot_rows<S, kGroups, 1, 1, 1>(args, px, columns);
  if constexpr (VL != 16 || kGroups) {
    if (args.M == 2) return dot_rows<S, kGroups, 4, 2, 2>(args, px, columns);
    return dot_rows<S, kGroups, 4, 1, 3>(args, px, columns);
  } else {
    if (args.M <= 3) return dot_rows<S, kGroups, 8, 2, 3>(args, px, columns);
    if (args.M == 4 || args.M == 7 || args.M == 8) return dot_rows<S, kGroups, 6, 3, 4>(args, px, columns);
    return dot_rows<S, kGroups, 4, 4, 6>(args, px, columns);
  }
}

}  // namespace MF_ISA_NS
}  // namespace mf
