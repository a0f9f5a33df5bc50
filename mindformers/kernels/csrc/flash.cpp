// Flash attention: checks of the arguments, and how the work is cut into pieces for the threads.
#include <algorithm>
#include <memory>
#include <vector>

#include "attention.h"
#include "attention_tasks.h"
#include "error.h"
#include "pool.h"

namespace mf {

const FlashTable& flash_kernels() {
  static const FlashTable& table = MF_PICK(flash_table);
  return table;
}

int check_heads(int64_t heads, int64_t kv_heads) {
  if (kv_heads >= 1 && heads >= 1 && heads % kv_heads == 0) return 0;
  return fail("attention: %lld query heads are not a multiple of %lld kv heads", show(heads), show(kv_heads));
}

namespace {

int check_flash(const FlashShape& shape, std::initializer_list<const Heads*> tensors) {
  if (check_heads(shape.heads, shape.kv_heads)) return 1;
  if (shape.head_dim < 1 || shape.batch < 0 || shape.queries < 0 || shape.keys < 0) {
    return fail("flash attention: batch %lld, queries %lld, keys %lld, head dim %lld", show(shape.batch),
                show(shape.queries), show(shape.keys), show(shape.head_dim));
  }
  for (const Heads* x : tensors) {
    if (!is_float(x->type))
      return fail("flash attention: dtype %s; float32, float16 or bfloat16 is needed", dtype_name(x->type));
  }
  return 0;
}

// The same shape with limits that can be added to indices.
FlashShape bounded(FlashShape shape) {
  const int64_t most = shape.queries + shape.keys;
  shape.left = std::max(-most, std::min(shape.left, most));
  shape.right = std::max(-most, std::min(shape.right, most));
  return shape;
}

char* element(const Heads& x, int64_t b, int64_t s, int64_t n) {
  return static_cast<char*>(x.data) + (b * x.b + s * x.s + n * x.n) * dtype_size(x.type);
}

}  // namespace

int flash_forward(const FlashShape& given, const Heads& q, const Heads& k, const Heads& v, const Heads& out,
                  float* softmax_max, float* softmax_sum) {
  return guarded([&] {
    if (check_flash(given, {&q, &k, &v, &out})) return 1;
    if (k.type != v.type)
      return fail("flash attention: keys are %s, values %s", dtype_name(k.type), dtype_name(v.type));
    const FlashShape shape = bounded(given);
    const int64_t group = shape.heads / shape.kv_heads, total = shape.queries * group;
    const int64_t pairs = shape.batch * shape.kv_heads;
    if (pairs == 0 || total == 0) return 0;
    const int64_t chunks =
        std::max(divide_up(total, kFlashRows), std::min(divide_up(4 * num_threads(), pairs), total / 12));
    const int64_t size = std::min<int64_t>(kFlashRows, divide_up(divide_up(total, chunks), 6) * 6);
    const int64_t pieces = divide_up(total, size);
    parallel_for(pieces * pairs, 1, [&](int64_t begin, int64_t end) {
      FlashRow rows[kFlashRows];
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t b = piece % pairs / shape.kv_heads, h = piece % shape.kv_heads;
        const int64_t first = (pieces - 1 - piece / pairs) * size;  // under a causal mask the longest first
        const int count = static_cast<int>(std::min(size, total - first));
        for (int r = 0; r < count; ++r) {
          const int64_t i = (first + r) / group, n = h * group + (first + r) % group;
          const int64_t at = ((b * shape.heads + n) * shape.queries + i) * 8;
          rows[r] = {
              element(q, b, i, n),
              element(out, b, i, n),
              shape.first_key(b, n, i),
              shape.last_key(b, n, i),
              shape.mask == nullptr ? nullptr : shape.mask + b * shape.mask_b + n * shape.mask_n + i * shape.mask_s,
              softmax_max == nullptr ? nullptr : softmax_max + at,
              softmax_sum == nullptr ? nullptr : softmax_sum + at};
        }
        const KeyRows keys{element(k, b, 0, h), k.s * dtype_size(k.type), nullptr, 0};
        const KeyRows values{element(v, b, 0, h), v.s * dtype_size(v.type), nullptr, 0};
        flash_kernels().forward(
            {rows, count, keys, values, 0, shape.keys, q.type, k.type, out.type, shape.head_dim, shape.scale, {}});
      }
    });
    return 0;
  });
}

int flash_backward(const FlashShape& given, const Heads& q, const Heads& k, const Heads& v, const Heads& out,
                   const Heads& dout, const float* softmax_max, const float* softmax_sum, const Heads& dq,
                   const Heads& dk, const Heads& dv) {
  return guarded([&] {
    if (check_flash(given, {&q, &k, &v, &out, &dout, &dq, &dk, &dv})) return 1;
    const FlashShape shape = bounded(given);
    const int64_t pairs = shape.batch * shape.kv_heads, blocks = divide_up(shape.keys, kKeyBlock);
    if (pairs == 0) return 0;
    const int64_t parts = std::max<int64_t>(1, std::min(blocks, divide_up(2 * num_threads(), pairs)));
    const int64_t rows = shape.batch * shape.heads * shape.queries;
    const int64_t dq_floats =
        shape.heads / shape.kv_heads * shape.queries * divide_up(shape.head_dim, kPadded) * kPadded;
    const std::unique_ptr<float[]> delta(new float[rows]), partial(new float[pairs * parts * dq_floats]);
    parallel_for(rows, rows_at_once(shape.head_dim),
                 [&](int64_t begin, int64_t end) { flash_kernels().delta(shape, out, dout, delta.get(), begin, end); });
    parallel_for(pairs * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t pair = i / parts, part = i % parts;
        const int64_t from = blocks * part / parts * kKeyBlock;
        const int64_t to = std::min(shape.keys, blocks * (part + 1) / parts * kKeyBlock);
        flash_kernels().backward({&shape, &q, &k, &v, &dout, &dk, &dv, pair / shape.kv_heads, pair % shape.kv_heads,
                                  from, to, softmax_max, softmax_sum, delta.get(), partial.get() + i * dq_floats});
      }
    });
    parallel_for(pairs, 1, [&](int64_t begin, int64_t end) {
      std::vector<const float*> sums(static_cast<size_t>(parts));
      for (int64_t pair = begin; pair < end; ++pair) {
        for (int64_t p = 0; p < parts; ++p) sums[p] = partial.get() + (pair * parts + p) * dq_floats;
        flash_kernels().add_parts(sums.data(), parts, shape, dq, pair / shape.kv_heads, pair % shape.kv_heads);
      }
    });
    return 0;
  });
}

}  // namespace mf
