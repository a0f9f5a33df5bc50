// Paged attention: checks of the arguments, and how the work is cut into pieces for the threads.
#include "attention.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "attention_tasks.h"
#include "error.h"
#include "pool.h"

namespace mf {
namespace {

constexpr int64_t kDecodeGroup = 16;  // queries of a kv head above which a single token goes the way of blocks too
constexpr int64_t kFewestKeys = 32;   // of a piece, when keys are split

const AttentionTable& kernels() {
  static const AttentionTable& table = MF_PICK(attention_table);
  return table;
}

int check_cache(const PagedCache& cache) {
  if (!is_float(cache.type))
    return fail("paged cache: dtype %s; float32, float16 or bfloat16 is needed", dtype_name(cache.type));
  if (cache.kv_heads < 1 || cache.head_dim < 1 || cache.block_size < 1 || cache.slots < 0) {
    return fail("paged cache: %lld kv heads of %lld, block size %lld: each must be at least 1", show(cache.kv_heads),
                show(cache.head_dim), show(cache.block_size));
  }
  return 0;
}

int check_slots(const PagedCache& cache, const int32_t* slots, int64_t rows) {
  for (int64_t m = 0; m < rows; ++m) {
    if (slots[m] < -1 || slots[m] >= cache.slots) {
      return fail("slot_mapping[%lld] is %d, but the cache has %lld slots (-1 marks padding)", show(m), slots[m],
                  show(cache.slots));
    }
  }
  return 0;
}

// Keys a query at `position` sees: first(position) ... position.
int64_t first_key(const PagedQueries& queries, int64_t position) {
  return queries.window > 0 ? std::max<int64_t>(0, position - queries.window + 1) : 0;
}

// Every block that a real row reads; `slots` (or null) marks padding by -1.
int check_queries(const PagedCache& cache, const PagedQueries& queries, const int32_t* slots) {
  const int64_t blocks = cache.slots / cache.block_size;
  if (queries.window < 0)
    return fail("paged attention: window is %lld, but must not be negative", show(queries.window));
  for (int64_t b = 0; b < queries.sequences; ++b) {
    const int32_t* const table = queries.tables + b * queries.blocks;
    int64_t low = INT64_MAX, high = -1;
    for (int64_t m = queries.first_row[b]; m < queries.first_row[b + 1]; ++m) {
      const int64_t position = queries.positions[m];
      if (slots != nullptr ? slots[m] < 0 : position < 0) continue;
      if (position < 0 || position >= queries.blocks * cache.block_size) {
        return fail("position %lld of row %lld (sequence %lld) is outside its block table of %lld blocks of %lld",
                    show(position), show(m), show(b), show(queries.blocks), show(cache.block_size));
      }
      low = std::min(low, first_key(queries, position) / cache.block_size);
      high = std::max(high, position / cache.block_size);
    }
    for (int64_t i = low; i <= high; ++i) {
      if (table[i] < 0 || table[i] >= blocks) {
        return fail("block_tables[%lld, %lld] is %d, but the cache has %lld blocks", show(b), show(i), table[i],
                    show(blocks));
      }
    }
  }
  return 0;
}

// Rows of query heads in, rows of query heads out.
struct Ends {
  HeadRows q;
  void* out;
  DType out_type;
  int64_t heads;
  float scale;
};

// A piece of work: one query (decode) or a chunk of the queries of one kv head, over a part of the keys.
struct Piece {
  bool decode;
  int64_t sequence, begin, end;  // keys
  int64_t head_begin, head_end;  // kv heads
  int64_t first, count;          // decode: row, 1; else: entries of the sequence's list (row * G + g)
  int64_t merge, part;           // which sum it is a part of; -1: it is the whole
};

struct Merge {
  std::vector<Partial> parts;
  std::atomic<int64_t> missing{0};
};

class PagedRun {
 public:
  PagedRun(const PagedCache& cache, const PagedQueries& queries, const int32_t* slots, const Ends& ends)
      : cache_(cache), queries_(queries), ends_(ends), group_(ends.heads / cache.kv_heads), real_(queries.sequences) {
    for (int64_t b = 0; b < queries.sequences; ++b) {
      for (int64_t m = queries.first_row[b]; m < queries.first_row[b + 1]; ++m) {
        if (slots != nullptr ? slots[m] >= 0 : queries.positions[m] >= 0) real_[b].push_back(m);
      }
    }
    for (int64_t b = 0; b < queries.sequences; ++b) plan(b);
    place_partials();
  }

  void run() {
    parallel_for(static_cast<int64_t>(pieces_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run_piece(pieces_[i]);
    });
  }

 private:
  void plan(int64_t b) {
    const auto& rows = real_[b];
    if (rows.empty()) return;
    int64_t low = INT64_MAX, high = 0;
    for (const int64_t m : rows) {
      low = std::min(low, first_key(queries_, queries_.positions[m]));
      high = std::max<int64_t>(high, queries_.positions[m]);
    }
    const int64_t wanted = num_threads() == 1 ? 1 : divide_up(4 * num_threads(), queries_.sequences);
    rows.size() == 1 && group_ <= kDecodeGroup ? plan_decode(b, low, high + 1, wanted)
                                               : plan_blocks(b, low, high + 1, wanted);
  }

  // By keys and never by heads: rows of the cache are read whole, in the order in which they lie in memory.
  void plan_decode(int64_t b, int64_t begin, int64_t end, int64_t wanted) {
    split_keys({true, b, begin, end, 0, cache_.kv_heads, real_[b][0], 1, -1, 0}, wanted);
  }

  void plan_blocks(int64_t b, int64_t begin, int64_t end, int64_t wanted) {
    const int64_t total = static_cast<int64_t>(real_[b].size()) * group_;
    const int64_t enough = divide_up(wanted, cache_.kv_heads);
    const int64_t chunks = std::max(divide_up(total, kFlashRows), std::min(enough, total / 12));
    const int64_t size = std::min<int64_t>(kFlashRows, divide_up(divide_up(total, chunks), 6) * 6);
    const int64_t parts = divide_up(enough, chunks);
    for (int64_t first = (total - 1) / size * size; first >= 0; first -= size) {  // the longest rows first
      for (int64_t h = 0; h < cache_.kv_heads; ++h) {
        split_keys({false, b, begin, end, h, h + 1, first, std::min(size, total - first), -1, 0}, parts);
      }
    }
  }

  // Adds the piece, cut into at most `parts` along the keys.
  void split_keys(Piece piece, int64_t parts) {
    const int64_t begin = piece.begin, keys = piece.end - piece.begin;
    parts = std::max<int64_t>(1, std::min(parts, keys / kFewestKeys));
    const int64_t unit = piece.decode ? kFewestKeys : kKeyBlock, size = divide_up(divide_up(keys, parts), unit) * unit;
    parts = divide_up(keys, size);
    if (parts > 1) {
      piece.merge = static_cast<int64_t>(merges_.size());
      merges_.emplace_back(new Merge);
      merges_.back()->missing = parts;
      merges_.back()->parts.resize(static_cast<size_t>(parts));
    }
    for (int64_t p = 0; p < parts; ++p) {
      piece.begin = begin + p * size;
      piece.end = std::min(begin + keys, piece.begin + size);
      piece.part = p;
      pieces_.push_back(piece);
    }
  }

  int64_t rows_of(const Piece& piece) const {
    return piece.decode ? (piece.head_end - piece.head_begin) * group_ : piece.count;
  }

  void place_partials() {
    int64_t floats = 0;
    for (const Piece& piece : pieces_) floats += piece.merge < 0 ? 0 : rows_of(piece) * (cache_.head_dim + 2);
    float* at = floats > 0 ? scratch<float>(kScratchAttention2, floats) : nullptr;
    for (const Piece& piece : pieces_) {
      if (piece.merge < 0) continue;
      const int64_t rows = rows_of(piece);
      merges_[piece.merge]->parts[piece.part] = {at, at + rows * cache_.head_dim, at + rows * (cache_.head_dim + 1)};
      at += rows * (cache_.head_dim + 2);
    }
  }

  const char* query(int64_t row, int64_t head) const {
    return static_cast<const char*>(ends_.q.data) +
           (row * ends_.q.row_stride + head * cache_.head_dim) * dtype_size(ends_.q.type);
  }
  char* output(int64_t row, int64_t head) const {
    return static_cast<char*>(ends_.out) + (row * ends_.heads + head) * cache_.head_dim * dtype_size(ends_.out_type);
  }
  // Row i of a piece as (row, query head).
  std::pair<int64_t, int64_t> locate(const Piece& piece, int64_t i) const {
    if (piece.decode) return {piece.first, piece.head_begin * group_ + i};
    const int64_t entry = piece.first + i;
    return {real_[piece.sequence][entry / group_], piece.head_begin * group_ + entry % group_};
  }
  KeyRows key_rows(const Piece& piece, const void* data, int64_t head) const {
    const int64_t head_bytes = cache_.head_dim * dtype_size(cache_.type);
    return {static_cast<const char*>(data) + head * head_bytes, cache_.kv_heads * head_bytes,
            queries_.tables + piece.sequence * queries_.blocks, cache_.block_size};
  }

  void run_piece(const Piece& piece) {
    const Partial partial = piece.merge < 0 ? Partial{} : merges_[piece.merge]->parts[piece.part];
    if (piece.decode) {
      kernels().decode({query(piece.first, 0), output(piece.first, 0), key_rows(piece, cache_.keys, 0),
                        key_rows(piece, cache_.values, 0), piece.begin, piece.end, piece.head_begin, piece.head_end,
                        group_, ends_.q.type, cache_.type, ends_.out_type, cache_.head_dim, ends_.scale, partial});
    } else {
      run_block(piece, partial);
    }
    if (piece.merge >= 0 && merges_[piece.merge]->missing.fetch_sub(1) == 1) finish(piece);
  }

  void run_block(const Piece& piece, const Partial& partial) {
    FlashRow rows[kFlashRows];
    for (int64_t i = 0; i < piece.count; ++i) {
      const auto [row, head] = locate(piece, i);
      const int64_t position = queries_.positions[row];
      rows[i] = {query(row, head), output(row, head), first_key(queries_, position), position, nullptr, nullptr,
                 nullptr};
    }
    flash_kernels().forward({rows, static_cast<int>(piece.count), key_rows(piece, cache_.keys, piece.head_begin),
                             key_rows(piece, cache_.values, piece.head_begin), piece.begin, piece.end, ends_.q.type,
                             cache_.type, ends_.out_type, cache_.head_dim, ends_.scale, partial});
  }

  // The last part is there: adds all of them up.
  void finish(const Piece& piece) {
    const auto& parts = merges_[piece.merge]->parts;
    std::vector<void*> out(static_cast<size_t>(rows_of(piece)));
    for (size_t i = 0; i < out.size(); ++i) {
      const auto [row, head] = locate(piece, static_cast<int64_t>(i));
      out[i] = output(row, head);
    }
    kernels().merge(parts.data(), static_cast<int64_t>(parts.size()), static_cast<int64_t>(out.size()), cache_.head_dim,
                    out.data(), ends_.out_type);
  }

  const PagedCache& cache_;
  const PagedQueries& queries_;
  const Ends ends_;
  const int64_t group_;
  std::vector<std::vector<int64_t>> real_;  // rows of each sequence that are not padding
  std::vector<Piece> pieces_;
  std::vector<std::unique_ptr<Merge>> merges_;
};

}  // namespace

int write_cache(const PagedCache& cache, const HeadRows& k, const HeadRows& v, const int32_t* slots, int64_t rows) {
  return guarded([&] {
    if (check_cache(cache) || check_slots(cache, slots, rows)) return 1;
    if (!is_float(k.type) || !is_float(v.type)) {
      return fail("cache write: keys are %s, values %s; float32, float16 or bfloat16 is needed", dtype_name(k.type),
                  dtype_name(v.type));
    }
    parallel_for(rows, rows_at_once(2 * cache.kv_heads * cache.head_dim), [&](int64_t begin, int64_t end) {
      kernels().write(cache, k, cache.keys, slots, begin, end);
      kernels().write(cache, v, cache.values, slots, begin, end);
    });
    return 0;
  });
}

int paged_attention(const PagedCache& cache, const PagedQueries& queries, const HeadRows& q, void* out, DType out_type,
                    int64_t heads, float scale) {
  return guarded([&] {
    if (check_cache(cache) || check_heads(heads, cache.kv_heads) || check_queries(cache, queries, nullptr)) return 1;
    if (!is_float(q.type) || !is_float(out_type)) {
      return fail("paged attention: the query is %s, the output %s; float32, float16 or bfloat16 is needed",
                  dtype_name(q.type), dtype_name(out_type));
    }
    PagedRun run(cache, queries, nullptr, {q, out, out_type, heads, scale});
    run.run();
    const int64_t bytes = heads * cache.head_dim * dtype_size(out_type);
    for (int64_t m = 0; m < queries.rows; ++m) {
      if (queries.positions[m] < 0) std::memset(static_cast<char*>(out) + m * bytes, 0, static_cast<size_t>(bytes));
    }
    return 0;
  });
}

int paged_attention_step(const PagedCache& cache, const PagedQueries& queries, const float* qkv, const Rope& rope,
                         const int32_t* slots, float* out, int64_t heads, float scale) {
  return guarded([&] {
    if (check_cache(cache) || check_heads(heads, cache.kv_heads) || check_slots(cache, slots, queries.rows) ||
        check_queries(cache, queries, slots)) {
      return 1;
    }
    if (rope.width < 0 || rope.width % 2 != 0 || rope.width > cache.head_dim) {
      return fail("rope width is %lld, but must be even and at most the head dim %lld", show(rope.width),
                  show(cache.head_dim));
    }
    const int64_t width = (heads + 2 * cache.kv_heads) * cache.head_dim, out_width = heads * cache.head_dim;
    const RopeTask task{qkv, width, heads, cache.kv_heads, cache.head_dim, rope, slots, out, cache};
    parallel_for(queries.rows, rows_at_once(width),
                 [&](int64_t begin, int64_t end) { kernels().rope(task, begin, end); });
    PagedRun run(cache, queries, slots,
                 {{out, F32, out_width}, out, F32, heads, scale});  // rotated queries lie in `out`
    run.run();
    return 0;
  });
}

}  // namespace mf
