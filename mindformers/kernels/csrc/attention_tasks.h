// What attention.cpp hands to the kernels of attention.inc: pieces of work that run on one thread each.
#pragma once

#include <cstdint>

#include "attention.h"
#include "isa.h"

namespace mf {

constexpr int kFlashRows = 96;     // query rows of a flash task: a multiple of the micro kernel's 6
constexpr int kKeyBlock = 64;      // keys between two updates of the running softmax
constexpr int kPadded = 16;        // gradients of queries have rows of H rounded up to it: the longest vector
constexpr float kHidden = -1e30f;  // score of a key that a query does not see
constexpr float kLog2e = 1.44269504f;

// Keys (or values) of one sequence: row j begins at data + slot(j) * step bytes; slot(j) = j without a table.
struct KeyRows {
  const char* data;
  int64_t step;
  const int32_t* table;
  int64_t block_size;
};

// Where a piece over part of the keys leaves its sums: acc [rows, H], max and sum [rows] (scores in powers of two).
struct Partial {
  float* acc;
  float* max;
  float* sum;
};

// One query row of a flash task: it sees keys lo ... hi of those that `mask` (or null; non-zero hides) leaves.
struct FlashRow {
  const void* q;
  void* out;
  int64_t lo, hi;
  const uint8_t* mask;
  float* stat_max;  // null: not wanted
  float* stat_sum;
};

// Queries that share a kv head, over keys begin ... end - 1.
struct FlashTask {
  const FlashRow* rows;
  int count;
  KeyRows keys, values;
  int64_t begin, end;
  DType q_type, kv_type, out_type;
  int64_t head_dim;
  float scale;
  Partial partial;  // acc null: the rows are finished here
};

// One query of one sequence: kv heads head_begin ... head_end - 1, keys begin ... end - 1, all visible.
struct DecodeTask {
  const void* q;  // head 0 of the row
  void* out;      // head 0 of the row
  KeyRows keys, values;
  int64_t begin, end;
  int64_t head_begin, head_end, group;
  DType q_type, kv_type, out_type;
  int64_t head_dim;
  float scale;
  Partial partial;  // row i is query head head_begin * group + i
};

// Gradients of the queries of one kv head from keys begin ... end - 1 of one batch entry.
struct BackwardTask {
  const FlashShape* shape;
  const Heads *q, *k, *v, *dout, *dk, *dv;
  int64_t batch, kv_head, begin, end;
  const float *max, *sum;  // [B, N, T, 8]
  const float* delta;      // [B, N, T]: sum over H of out * dout
  float* dq;               // [G, T, H rounded up to kPadded], cleared here
};

struct RopeTask {
  const float* qkv;
  int64_t row_stride, heads, kv_heads, head_dim;
  Rope rope;
  const int32_t* slots;
  float* out;  // rotated queries [M, N * H]; null: keys and values only
  PagedCache cache;
};

// attention.inc
struct AttentionTable {
  void (*decode)(const DecodeTask&);
  void (*rope)(const RopeTask&, int64_t begin, int64_t end);
  // Rows begin ... end - 1, of any float type, into the cache's slots.
  void (*write)(const PagedCache&, const HeadRows& rows, void* cache, const int32_t* slots, int64_t begin, int64_t end);
  // Adds up the parts of `count` rows: out[i] = the finished row i.
  void (*merge)(const Partial* parts, int64_t part_count, int64_t count, int64_t head_dim, void* const* out,
                DType type);
};

// flash.inc
struct FlashTable {
  void (*forward)(const FlashTask&);
  void (*backward)(const BackwardTask&);
  // delta[(b * N + n) * T + i] = sum over H of out * dout, for rows begin ... end - 1 of the B * N * T.
  void (*delta)(const FlashShape&, const Heads& out, const Heads& dout, float* delta, int64_t begin, int64_t end);
  // dq of one batch entry and kv head: the sum of the parts, each [G, T, H].
  void (*add_parts)(const float* const* parts, int64_t part_count, const FlashShape&, const Heads& dq, int64_t batch,
                    int64_t kv_head);
};

MF_DECLARE_VARIANTS(AttentionTable, attention_table)
MF_DECLARE_VARIANTS(FlashTable, flash_table)

// Shared by attention.cpp and flash.cpp.
const FlashTable& flash_kernels();
int check_heads(int64_t heads, int64_t kv_heads);
inline bool is_float(DType type) { return type == F32 || type == F16 || type == BF16; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline long long show(int64_t value) { return value; }
inline int64_t rows_at_once(int64_t width) { return width < 1 << 14 ? (1 << 14) / width : 1; }  // 16k floats a thread

}  // namespace mf
