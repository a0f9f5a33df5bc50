// Many activation rows (prefill, training): tiles of outer products. The weights are not repacked at load; each task
// transposes the rows of its panel into columns once and uses them for all its activation rows. Included by linear.inc.
#pragma once

#include "linear_dot.h"

namespace mf {
namespace MF_ISA_NS {

constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * VL;       // weight rows in a panel
constexpr int kMaxGemmM = VL == 16 ? 12 : 6;     // activation rows in a tile
constexpr int64_t kBlockM = 240;                 // activation rows of a task
constexpr int64_t kBlockBytes = 4096;            // of I at a time, in bytes of a prepared row

// Where the columns of a panel come from: vector v holds VL rows of one weight from `row[v]` on. `out`: column of the
// result for vector 0.
struct PanelColumns {
  const LinearWeight* weight[kPanelVectors];
  int64_t row[kPanelVectors];
  int64_t out;

  int64_t row_of(int v, int r) const {
    return row[v] + r < weight[v]->rows ? row[v] + r : weight[v]->rows - 1;  // past the end: the last one again
  }
};

// Weight rows that a tile fetches into the second cache level for the panel after this one.
struct Ahead {
  const char* row[kPanel];
  int count;
};

// PanelType P: float, one row of I per step; bf16, two rows of I per step (dpbf16).
template <class P> struct Step;
template <> struct Step<float> {
  static constexpr int kDepth = 1;
  MF_INLINE vf mac(vf acc, const float* x, vf w) { return vfma(vset1(*x), w, acc); }
  MF_INLINE vf load(const float* panel) { return vload(panel); }
};
#if defined(MF_AVX512_BF16)
template <> struct Step<bf16> {
  static constexpr int kDepth = 2;
  MF_INLINE vf mac(vf acc, const bf16* x, __m512i w) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    return dp_bf16(acc, _mm512_set1_epi32(pair), w);
  }
  MF_INLINE __m512i load(const bf16* panel) { return _mm512_loadu_si512(panel); }
};
#endif

// tile[m, :] (+)= x[m] . panel over `steps` steps; a step of the weights is `ahead_step` bytes.
template <class P, int MR>
static void gemm_tile(const P* x, int64_t stride, const P* panel, int64_t steps, bool add, const Ahead& ahead,
                      int64_t ahead_step, float* tile) {
  constexpr int kDepth = Step<P>::kDepth;
  vf acc[MR][kPanelVectors];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kPanelVectors; ++v) acc[m][v] = add ? vload(tile + m * kPanel + v * VL) : vzero();
  for (int64_t s = 0; s < steps; ++s) {
    if (s % 16 == 0) {
      for (int i = 0; i < ahead.count; ++i) __builtin_prefetch(ahead.row[i] + s * ahead_step, 0, 2);
    }
    const auto w0 = Step<P>::load(panel), w1 = Step<P>::load(panel + kDepth * VL);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      acc[m][0] = Step<P>::mac(acc[m][0], x + m * stride, w0);
      acc[m][1] = Step<P>::mac(acc[m][1], x + m * stride, w1);
    }
    x += kDepth;
    panel += kDepth * kPanel;
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kPanelVectors; ++v) vstore(tile + m * kPanel + v * VL, acc[m][v]);
}

template <class P> using GemmTile = void (*)(const P*, int64_t, const P*, int64_t, bool, const Ahead&, int64_t, float*);
template <class P> MF_INLINE GemmTile<P> gemm_tile_for(int64_t rows) {
  static constexpr GemmTile<P> small[] = {gemm_tile<P, 1>, gemm_tile<P, 2>, gemm_tile<P, 3>,
                                          gemm_tile<P, 4>, gemm_tile<P, 5>, gemm_tile<P, 6>};
  if constexpr (kMaxGemmM == 12) {
    static constexpr GemmTile<P> large[] = {gemm_tile<P, 7>,  gemm_tile<P, 8>,  gemm_tile<P, 9>,
                                            gemm_tile<P, 10>, gemm_tile<P, 11>, gemm_tile<P, 12>};
    if (rows > 6) return large[rows - 7];
  }
  return small[rows - 1];
}

#if defined(MF_AVX512)
// 16 vectors of 16 32-bit numbers, rows to columns.
MF_INLINE void transpose16(__m512i* a) {
  __m512i b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
    a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
    a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
    a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88);
    b[4 + i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
    b[8 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
    b[12 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_i32x4(b[i], b[8 + i], 0x88);
    a[8 + i] = _mm512_shuffle_i32x4(b[i], b[8 + i], 0xdd);
    a[4 + i] = _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0x88);
    a[12 + i] = _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0xdd);
  }
}

// 16 32-bit numbers of a weight row: floats, or pairs of bf16. n elements are there.
template <class W> MF_INLINE __m512i panel_row(const W* w, int n, vf factor, float) {
  return _mm512_castps_si512((n < VL ? vload_n(w, n) : vload(w)) * factor);
}
#if defined(MF_AVX512_BF16)
MF_INLINE __m512i panel_row(const bf16* w, int n, vf, bf16) { return load_bytes(w, n < 32 ? 2 * n : 64); }
MF_INLINE __m512i panel_row(const int8_t* w, int n, vf factor, bf16) { return int8_to_bf16(w, n, factor); }
#endif

template <class P, class W>
static void pack_vector(const LinearArgs& args, const PanelColumns& columns, int v, int64_t k0, int64_t k1, P* out) {
  const LinearWeight& weight = *columns.weight[v];
  constexpr int kDepth = Step<P>::kDepth, kRun = 16 * kDepth;
  const int64_t group = args.groups > 1 ? args.I / args.groups : 0;
  const W* w[VL];
  const float* scale[VL];
  for (int r = 0; r < VL; ++r) {
    const int64_t at = columns.row_of(v, r);
    w[r] = static_cast<const W*>(weight.data) + at * weight.row_stride;
    scale[r] = group != 0 ? weight.scale + at * args.groups : nullptr;
  }
  for (int64_t k = k0; k < k1; k += kRun, out += kRun * kPanel) {
    const int n = k1 - k < kRun ? static_cast<int>(k1 - k) : kRun;
    __m512i block[VL];
#pragma GCC unroll 16
    for (int r = 0; r < VL; ++r) {
      const vf factor = group != 0 ? vset1(scale[r][k / group]) : vset1(1.0f);
      block[r] = panel_row(w[r] + k, n, factor, P{});
    }
    transpose16(block);
    const int steps = (n + kDepth - 1) / kDepth;
    for (int s = 0; s < steps; ++s) _mm512_storeu_si512(out + s * kDepth * kPanel, block[s]);
  }
}
#else
template <class P, class W>
static void pack_vector(const LinearArgs& args, const PanelColumns& columns, int v, int64_t k0, int64_t k1, P* out) {
  const LinearWeight& weight = *columns.weight[v];
  const int64_t group = args.groups > 1 ? args.I / args.groups : 0;
  for (int r = 0; r < VL; ++r) {
    const int64_t at = columns.row_of(v, r);
    const W* w = static_cast<const W*>(weight.data) + at * weight.row_stride;
    for (int64_t k = k0; k < k1; k += VL) {
      const int n = k1 - k < VL ? static_cast<int>(k1 - k) : VL;
      const vf values = n < VL ? vload_n(w + k, n) : vload(w + k);
      const float factor = group != 0 ? weight.scale[at * args.groups + k / group] : 1.0f;
      for (int i = 0; i < n; ++i) out[(k - k0 + i) * kPanel + r] = values[i] * factor;
    }
  }
}
#endif

// Columns v of the tile, finished: scale, bias.
MF_INLINE void column_factors(const LinearArgs& args, const PanelColumns& columns, int v, vf* scale, vf* bias) {
  const LinearWeight& weight = *columns.weight[v];
  float scales[VL], biases[VL];
  for (int r = 0; r < VL; ++r) {
    const int64_t at = columns.row_of(v, r);
    scales[r] = weight.scale != nullptr && args.groups == 1 ? weight.scale[at] : 1.0f;
    biases[r] = weight.bias != nullptr ? load_scalar(weight.bias, args.bias_dtype, at) : 0.0f;
  }
  *scale = vload(scales);
  *bias = vload(biases);
}

MF_INLINE void store_columns(const LinearArgs& args, int64_t m, int64_t column, int64_t count, vf value) {
  const int64_t at = m * args.out_stride + column;
  if (count >= VL) {
    vstore(args.out + at, args.residual != nullptr ? value + vload(args.residual + at) : value);
  } else if (count > 0) {
    vstore_n(args.out + at, args.residual != nullptr ? value + vload_n(args.residual + at, count) : value, count);
  }
}

// Scale, bias, SwiGLU, residual of a tile.
static void finish_tile(const LinearArgs& args, const PanelColumns& columns, int64_t m0, int64_t rows,
                        const float* tile) {
  vf scale[kPanelVectors], bias[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    column_factors(args, columns, v, &scale[v], &bias[v]);
  }
  for (int64_t m = 0; m < rows; ++m) {
    const vf first = vfma(vload(tile + m * kPanel), scale[0], bias[0]);
    const vf second = vfma(vload(tile + m * kPanel + VL), scale[1], bias[1]);
    const int64_t left = columns.weight[0]->rows - columns.row[0];
    if (args.swiglu) {
      store_columns(args, m0 + m, columns.out, left, vsilu(first) * second);
    } else {
      store_columns(args, m0 + m, columns.out, left, first);
      store_columns(args, m0 + m, columns.out + VL, left - VL, second);
    }
  }
}

// The rows that tile t of `tiles` fetches ahead: its share of the panel `columns`, from element k on.
template <class W> static Ahead fetch_ahead(const PanelColumns& columns, int64_t k, int64_t t, int64_t tiles) {
  Ahead ahead;
  ahead.count = 0;
  for (int64_t r = kPanel * t / tiles; r < kPanel * (t + 1) / tiles; ++r) {
    const int v = static_cast<int>(r / VL);
    const LinearWeight& weight = *columns.weight[v];
    const W* row = static_cast<const W*>(weight.data) + columns.row_of(v, static_cast<int>(r % VL)) * weight.row_stride;
    ahead.row[ahead.count++] = reinterpret_cast<const char*>(row + k);
  }
  return ahead;
}

// One panel against activation rows [m0, m1). `next`: the panel that this thread will probably take after it.
template <class P, class W>
static void gemm_task(const LinearArgs& args, const PreparedX<P>& px, const PanelColumns& columns,
                      const PanelColumns& next, int64_t m0, int64_t m1) {
  constexpr int64_t kDepth = Step<P>::kDepth, kStepBytes = kDepth * static_cast<int64_t>(sizeof(W));
  const int64_t block = kBlockBytes / static_cast<int64_t>(sizeof(P));
  const int64_t most = ((args.I < block ? args.I : block) + kDepth - 1) / kDepth + 16;
  P* panel = scratch<P>(kScratchLinearPanel, most * kDepth * kPanel);
  float* sums = scratch<float>(kScratchLinearSums, (m1 - m0) * kPanel);
  const int64_t tiles = (m1 - m0 + kMaxGemmM - 1) / kMaxGemmM;
  for (int64_t k0 = 0; k0 < args.I; k0 += block) {
    const int64_t k1 = k0 + block < args.I ? k0 + block : args.I;
    const bool last = k1 == args.I;
    for (int v = 0; v < kPanelVectors; ++v) pack_vector<P, W>(args, columns, v, k0, k1, panel + v * VL * kDepth);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = m0 + (m1 - m0) * t / tiles, end = m0 + (m1 - m0) * (t + 1) / tiles;
      float* tile = sums + (begin - m0) * kPanel;
      const Ahead ahead = fetch_ahead<W>(last ? next : columns, last ? 0 : k1, t, tiles);
      gemm_tile_for<P>(end - begin)(px.data + begin * px.stride + k0, px.stride, panel, (k1 - k0 + kDepth - 1) / kDepth,
                                    k0 > 0, ahead, kStepBytes, tile);
      if (last) finish_tile(args, columns, begin, end - begin, tile);
    }
  }
}

// Panel number `panel` of all weights.
static PanelColumns panel_columns(const LinearArgs& args, int64_t panel) {
  const int64_t width = args.swiglu ? VL : kPanel;  // columns of the result
  int64_t column = 0;
  int i = 0;
  for (; panel >= (args.weights[i].rows + width - 1) / width; ++i) {
    panel -= (args.weights[i].rows + width - 1) / width;
    column += args.weights[i].rows;
  }
  const LinearWeight* weight = &args.weights[i];
  const int64_t row = panel * width;
  if (args.swiglu) return {{weight, weight + 1}, {row, row}, column + row};
  return {{weight, weight}, {row, row + VL}, column + row};
}

template <class P, class W> static void gemm(const LinearArgs& args) {
  const PreparedX<P> px = prepare_x<P>(args, 0.0f);
  const int64_t width = args.swiglu ? VL : kPanel;
  const int sources = args.swiglu ? 1 : args.weight_count;
  int64_t panels = 0;
  for (int i = 0; i < sources; ++i) panels += (args.weights[i].rows + width - 1) / width;
  const int64_t blocks = (args.M + kBlockM - 1) / kBlockM, tasks = panels * blocks;
  const int64_t threads = num_threads();
  parallel_for(tasks, 1, [&](int64_t task, int64_t last) {
    const bool alone = last - task > 1;
    for (; task < last; ++task) {
      const int64_t after = task + (alone ? 1 : threads), block = task % blocks;
      gemm_task<P, W>(args, px, panel_columns(args, task / blocks),
                      panel_columns(args, (after < tasks ? after : task) / blocks), args.M * block / blocks,
                      args.M * (block + 1) / blocks);
    }
  });
}

}  // namespace MF_ISA_NS
}  // namespace mf
