// Products of one query with the keys and the values of the paged cache. Included by attention.inc.
//
// Memory is what decoding waits for. Hardware fetches ahead what is read in ascending order, one order for each page:
// so keys are taken four at a time, from four stretches that lie far apart, each read from one end to the other. (Four
// neighbours at a time reach half of that speed, with prefetch instructions 70 %.)
//
// A "path" says how products are made: FloatDecode<T> widens keys and values of any type to float32; PairDecode
// multiplies pairs of bf16, for several queries that share bf16 keys on a CPU with such products.
#pragma once

#include "attention_simd.h"

namespace mf {
namespace MF_ISA_NS {

constexpr int kStreams = 4;               // keys at a time
constexpr int kColumns = VL / kStreams;   // queries at a time: VL scores are summed up together
constexpr int64_t kDecodeChunk = 512;     // keys between two updates of the running softmax
constexpr int64_t kDecodeSteps = kDecodeChunk / kStreams;

// Rows `first` ... `first + count - 1` in order, then the last one again.
class Stretch {
 public:
  void begin(const KeyRows& rows, int64_t first, int64_t count) {
    rows_ = &rows;
    left_ = count - 1;
    block_ = rows.table == nullptr ? 0 : first / rows.block_size;
    const int64_t inside = rows.table == nullptr ? first : first % rows.block_size;
    at = rows.data + (rows.table == nullptr ? first : slot() + inside) * rows.step;
    inside_left_ = rows.table == nullptr ? count : rows.block_size - inside - 1;
  }
  void next() {
    if (left_ == 0) return;
    --left_;
    if (inside_left_-- > 0) {
      at += rows_->step;
      return;
    }
    ++block_;
    at = rows_->data + slot() * rows_->step;
    inside_left_ = rows_->block_size - 1;
  }
  const char* at;

 private:
  int64_t slot() const { return rows_->table[block_] * rows_->block_size; }

  const KeyRows* rows_;
  int64_t left_, inside_left_, block_;
};

// Keys `begin` ... `begin + count - 1` as four stretches: step j has keys j, j + steps, j + 2 steps, j + 3 steps.
struct Stretches {
  Stretch stretch[kStreams];
  int64_t steps;

  Stretches(const KeyRows& rows, int64_t begin, int64_t count) : steps((count + kStreams - 1) / kStreams) {
    for (int i = 0; i < kStreams; ++i) {
      const int64_t first = smaller(i * steps, count - 1);
      stretch[i].begin(rows, begin + first, smaller(steps, count - first));
    }
  }
  void next() {
    for (Stretch& s : stretch) s.next();
  }
};

// What a call works on: H elements of a head; D = H where it is known at compile time, else 0.
template <int D> struct HeadDim {
  int64_t given;

  int64_t size() const { return D > 0 ? D : given; }
  int64_t width() const { return round_up(size(), 2 * VL); }
};

template <int N, int NV> MF_INLINE void load_sums(const float* from, int64_t step, vf (&sums)[N][NV]) {
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
    for (int s = 0; s < NV; ++s) sums[n][s] = vload(from + n * step + s * VL);
  }
}
template <int N, int NV> MF_INLINE void store_sums(float* to, int64_t step, const vf (&sums)[N][NV]) {
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
    for (int s = 0; s < NV; ++s) vstore(to + n * step + s * VL, sums[n][s]);
  }
}

#if defined(MF_AVX512)
MF_INLINE __m512i load_half_n(const void* p, int64_t n) {
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
}
MF_INLINE void load2_n(const bf16* p, int64_t n, vf& a, vf& b) { split_pairs(load_half_n(p, n), a, b); }
template <class T> MF_INLINE void load2_n(const T* p, int64_t n, vf& a, vf& b) {
  a = vload_n(p, static_cast<int>(smaller(n, VL)));
  b = n > VL ? vload_n(p + VL, static_cast<int>(n - VL)) : vzero();
}
#else
template <class T> MF_INLINE void load2_n(const T* p, int64_t n, vf& a, vf& b) {
  T buffer[2 * VL] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  load2(buffer, a, b);
}
#endif

template <class T> struct FloatDecode {
  using Key = T;
  using Q = float;

  static void prepare(const float* row, int64_t width, float* q) { arrange<T>(row, q, width); }
  static void finish(const float* acc, int64_t width, float* row) { restore<T>(acc, row, width); }

  // sum[n * kStreams] = the products of QT queries, lane by lane, with one key.
  template <int QT, int D> MF_INLINE void products(const float* q, int64_t q_step, const T* key, HeadDim<D> dim,
                                                   vf* sum) {
    vf low[QT], high[QT];
#pragma GCC unroll 4
    for (int n = 0; n < QT; ++n) low[n] = high[n] = vzero();
    const int64_t whole = dim.size() / (2 * VL) * (2 * VL);
    for (int64_t d = 0; d < whole; d += 2 * VL) {
      vf a, b;
      load2(key + d, a, b);
      add<QT>(q + d, q_step, a, b, low, high);
    }
    if (D == 0 && whole < dim.size()) {
      vf a, b;
      load2_n(key + whole, dim.size() - whole, a, b);
      add<QT>(q + whole, q_step, a, b, low, high);
    }
#pragma GCC unroll 4
    for (int n = 0; n < QT; ++n) sum[n * kStreams] = low[n] + high[n];
  }
  template <int QT> MF_INLINE void add(const float* q, int64_t q_step, vf a, vf b, vf* low, vf* high) {
#pragma GCC unroll 4
    for (int n = 0; n < QT; ++n) {
      low[n] = vfma(a, vload(q + n * q_step), low[n]);
      high[n] = vfma(b, vload(q + n * q_step + VL), high[n]);
    }
  }

  // acc[n, d ... d + 2 * VL * SP) += weights[n, 0 ... 3] * the four rows.
  template <int QT, int SP, int D>
  MF_INLINE void values_at(const char* const* rows, int64_t d, HeadDim<D> dim, const float* weights, float* acc,
                           int64_t step) {
    vf sums[QT][2 * SP];
    load_sums(acc + d, step, sums);
    const bool whole = D > 0 || d + 2 * VL * SP <= dim.size();
#pragma GCC unroll 4
    for (int i = 0; i < kStreams; ++i) {
      const T* const row = reinterpret_cast<const T*>(rows[i]) + d;
      vf v[2 * SP];
#pragma GCC unroll 2
      for (int s = 0; s < SP; ++s) {
        if (whole) load2(row + 2 * VL * s, v[2 * s], v[2 * s + 1]);
        else load2_n(row + 2 * VL * s, dim.size() - d - 2 * VL * s, v[2 * s], v[2 * s + 1]);
      }
#pragma GCC unroll 4
      for (int n = 0; n < QT; ++n) {
        const vf weight = vset1(weights[n * kStreams + i]);
#pragma GCC unroll 4
        for (int s = 0; s < 2 * SP; ++s) sums[n][s] = vfma(weight, v[s], sums[n][s]);
      }
    }
    store_sums(acc + d, step, sums);
  }
};

#if defined(MF_AVX512_BF16)
// Of two values the sums take pairs of one element each, in the order in which unpacking leaves them.
struct PairDecode {
  using Key = bf16;
  using Q = bf16;

  static void prepare(const float* row, int64_t width, bf16* q) { convert(row, q, width, 1.0f); }
  static void finish(const float* acc, int64_t width, float* row) {
    const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t d = 0; d < width; d += 32) {
      const vf a = vload(acc + d), b = vload(acc + d + VL);
      vstore(row + d, _mm512_permutex2var_ps(a, low, b));
      vstore(row + d + VL, _mm512_permutex2var_ps(a, high, b));
    }
  }

  MF_INLINE __m512i load(const bf16* p, int64_t n) { return n >= 32 ? _mm512_loadu_si512(p) : load_half_n(p, n); }

  template <int QT, int D> MF_INLINE void products(const bf16* q, int64_t q_step, const bf16* key, HeadDim<D> dim,
                                                   vf* sum) {
#pragma GCC unroll 4
    for (int n = 0; n < QT; ++n) sum[n * kStreams] = vzero();
    for (int64_t d = 0; d < dim.size(); d += 32) {
      const __m512bh k = (__m512bh)load(key + d, dim.size() - d);
#pragma GCC unroll 4
      for (int n = 0; n < QT; ++n) {
        const __m512bh left = (__m512bh)_mm512_loadu_si512(q + n * q_step + d);
        sum[n * kStreams] = _mm512_dpbf16_ps(sum[n * kStreams], left, k);
      }
    }
  }

  template <int QT, int SP, int D>
  MF_INLINE void values_at(const char* const* rows, int64_t d, HeadDim<D> dim, const bf16* weights, float* acc,
                           int64_t step) {
    vf sums[QT][2 * SP];
    load_sums(acc + d, step, sums);
#pragma GCC unroll 2
    for (int i = 0; i < kStreams; i += 2) {
      __m512bh v[2 * SP];
#pragma GCC unroll 2
      for (int s = 0; s < SP; ++s) {
        const int64_t at = d + 32 * s, left = dim.size() - at;
        const __m512i x = load(reinterpret_cast<const bf16*>(rows[i]) + at, left);
        const __m512i y = load(reinterpret_cast<const bf16*>(rows[i + 1]) + at, left);
        v[2 * s] = (__m512bh)_mm512_unpacklo_epi16(x, y);
        v[2 * s + 1] = (__m512bh)_mm512_unpackhi_epi16(x, y);
      }
#pragma GCC unroll 4
      for (int n = 0; n < QT; ++n) {
        int32_t pair;
        std::memcpy(&pair, weights + n * kStreams + i, sizeof pair);
        const __m512bh weight = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int s = 0; s < 2 * SP; ++s) sums[n][s] = _mm512_dpbf16_ps(sums[n][s], weight, v[s]);
      }
    }
    store_sums(acc + d, step, sums);
  }
};
#endif

// Scores of HT kv heads by QT queries (HT * QT = kColumns) and four keys: lane (t * QT + n) * kStreams + i is kv head
// t, query n, key i. q is [kv heads, queries] rows of `width`, `group` queries a kv head; the last head stands in for
// those that are not there.
template <class Path, int QT, int D>
MF_INLINE vf decode_scores(const typename Path::Q* q, int64_t group, const char* const* rows, int64_t heads,
                           HeadDim<D> dim) {
  constexpr int HT = kColumns / QT;
  const int64_t width = dim.width(), bytes = dim.size() * int64_t{sizeof(typename Path::Key)};
  vf sum[VL];
#pragma GCC unroll 4
  for (int t = 0; t < HT; ++t) {
    const int64_t h = HT == 1 ? 0 : smaller(t, heads - 1);
#pragma GCC unroll 4
    for (int i = 0; i < kStreams; ++i) {
      const auto* const key = reinterpret_cast<const typename Path::Key*>(rows[i] + h * bytes);
      Path::template products<QT, D>(q + h * group * width, width, key, dim, sum + t * QT * kStreams + i);
    }
  }
  return sum_lanes(sum);
}

// acc of QT queries of one kv head += weights [QT, kStreams] * the four rows.
template <class Path, int QT, int D>
MF_INLINE void decode_values(const typename Path::Q* weights, const char* const* rows, HeadDim<D> dim, float* acc) {
  int64_t d = 0;
  if constexpr (kTileVectors > 2 || QT == 1) {
    for (; d + 4 * VL <= dim.size(); d += 4 * VL) {
      Path::template values_at<QT, 2, D>(rows, d, dim, weights, acc, dim.width());
    }
  }
  for (; d < dim.size(); d += 2 * VL) Path::template values_at<QT, 1, D>(rows, d, dim, weights, acc, dim.width());
}

// The largest, or the sum, of each four lanes, in all four of them.
#if defined(MF_AVX512)
MF_INLINE vf max_of_four(vf a) {
  a = vmax(a, _mm512_permute_ps(a, 0xb1));
  return vmax(a, _mm512_permute_ps(a, 0x4e));
}
#elif defined(MF_AVX2)
MF_INLINE vf max_of_four(vf a) {
  a = vmax(a, _mm256_permute_ps(a, 0xb1));
  return vmax(a, _mm256_permute_ps(a, 0x4e));
}
#else
MF_INLINE vf max_of_four(vf a) { return vset1(vhmax(a)); }
#endif

// Scores [steps, VL] become weights relative to the running maximum; what sums shrink by, lane by lane, is returned.
template <class Q> MF_INLINE vf decode_softmax(const float* scores, int64_t steps, Q* weights, float* max, float* sum) {
  vf top = vload(max);
  for (int64_t j = 0; j < steps; ++j) top = vmax(top, vload(scores + j * VL));
  top = max_of_four(top);
  const vf shrink = vexp2(vload(max) - top);
  vf total = vload(sum) * shrink;
  for (int64_t j = 0; j < steps; ++j) {
    vstore(weights + j * VL, vexp2(vload(scores + j * VL) - top));
    total = total + vload(weights + j * VL);
  }
  vstore(max, top);
  vstore(sum, total);
  return shrink;
}

}  // namespace MF_ISA_NS
}  // namespace mf
