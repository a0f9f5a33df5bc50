// Rotary position embedding (arXiv:2104.09864): ApplyRotaryPosEmb of inference, RotaryPositionEmbedding of training.
#include <algorithm>
#include <cstring>

#include "../pool.h"
#include "args.h"

using namespace mf;
using namespace mf::plugin;

namespace {

// out = x * cos + rotated(x) * sin for one head of `width` elements; `back` turns the other way (the gradient of x).
// Halves: rotated(x) = (-x2, x1). Interleaved: (-x1, x0, -x3, x2, ...).
void rotate(const float *x, const float *cos, const float *sin, float *out, int64_t width, bool interleaved,
            bool back) {
  const int64_t half = width / 2, step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
  for (int64_t i = 0; i < half; ++i) {
    const int64_t a = i * step, b = a + other;
    if (back) {  // the transpose: sin belongs to the element that the product was added to
      out[a] = x[a] * cos[a] + x[b] * sin[b];
      out[b] = x[b] * cos[b] - x[a] * sin[a];
    } else {
      out[a] = x[a] * cos[a] - x[b] * sin[a];
      out[b] = x[b] * cos[b] + x[a] * sin[b];
    }
  }
}

void load(const View &view, int64_t offset, float *to, int64_t count) {
  if (view.type == F32) {
    std::memcpy(to, view.as<float>() + offset, count * sizeof(float));
  } else if (view.type == BF16) {
    for (int64_t i = 0; i < count; ++i) to[i] = to_float(view.as<bf16>()[offset + i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = to_float(view.as<f16>()[offset + i]);
  }
}

void save(const float *from, const View &view, int64_t offset, int64_t count) {
  if (view.type == F32) {
    std::memcpy(view.as<float>() + offset, from, count * sizeof(float));
  } else if (view.type == BF16) {
    for (int64_t i = 0; i < count; ++i) from_float(from[i], view.as<bf16>() + offset + i);
  } else {
    for (int64_t i = 0; i < count; ++i) from_float(from[i], view.as<f16>() + offset + i);
  }
}

// x as [tokens, heads * width] with a stride between tokens, where the table has `width` columns.
struct Tokens {
  Tokens(const View &x, int64_t width, const char *name) : rows(x, x.rank() == 4 ? 2 : x.rank() - 1) {
    if (!is_float(x.type)) refuse("%s must be float32, float16 or bfloat16, but is %s", name, dtype_name(x.type));
    if (width < 2 || width % 2 || rows.width % width || (x.rank() == 4 && x.dim(3) != width)) {
      refuse("%s %s has no heads of the table's width %ld", name, shape_text(x.shape).c_str(), long(width));
    }
    heads = rows.width / width;
  }
  Rows rows;
  int64_t heads;
};

// Row of the table for each token of q, whose shape is [B, S, ...] or [tokens, ...].
std::vector<int64_t> table_rows(const View &q, int64_t tokens, const std::vector<int64_t> &positions, int64_t format,
                                int64_t table) {
  std::vector<int64_t> rows(tokens);
  const int64_t length = q.rank() >= 3 ? q.dim(1) : 1, given = static_cast<int64_t>(positions.size());
  if (format <= 1 && given != tokens && given != length) {
    refuse("%ld positions for %ld tokens in sequences of %ld", long(given), long(tokens), long(length));
  }
  if (format >= 2 && table != tokens) refuse("cos has %ld rows, but there are %ld tokens", long(table), long(tokens));
  for (int64_t i = 0; i < tokens; ++i) {
    rows[i] = format >= 2 ? i : positions[given == tokens ? i : i % length];
    if (rows[i] < 0 || rows[i] >= table) {
      refuse("position %ld is outside of the table's %ld rows", long(rows[i]), long(table));
    }
  }
  return rows;
}

void apply(const Tokens &x, const View &out, const std::vector<int64_t> &rows, const float *cos, const float *sin,
           int64_t width, bool interleaved) {
  View in;
  in.data = x.rows.data;
  in.type = x.rows.type;
  parallel_for(x.rows.rows, std::max<int64_t>(1, 4096 / x.rows.width), [&](int64_t begin, int64_t end) {
    std::vector<float> head(width), turned(width);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t n = 0; n < x.heads; ++n) {
        load(in, i * x.rows.stride + n * width, head.data(), width);
        rotate(head.data(), cos + rows[i] * width, sin + rows[i] * width, turned.data(), width, interleaved, false);
        save(turned.data(), out, i * x.rows.width + n * width, width);
      }
    }
  });
}

// cos and sin broadcast against x [.., .., .., H]: the row of the table that belongs to a row of x.
struct Broadcast {
  Broadcast(const View &x, const View &table, const char *name) : shape(x.shape) {
    bool fits = x.rank() == 4 && table.rank() == 4 && table.dim(3) == x.dim(3);
    for (int axis = 0; fits && axis < 3; ++axis) fits = table.dim(axis) == x.dim(axis) || table.dim(axis) == 1;
    if (!fits) {
      refuse("%s %s does not fit to x %s of four axes", name, shape_text(table.shape).c_str(),
             shape_text(x.shape).c_str());
    }
    int64_t step = 1;
    for (int axis = 2; axis >= 0; --axis) {
      strides[axis] = table.dim(axis) == 1 ? 0 : step;
      step *= table.dim(axis);
    }
  }
  int64_t row(int64_t i) const {
    const int64_t c = i % shape[2], b = i / shape[2] % shape[1], a = i / shape[2] / shape[1];
    return a * strides[0] + b * strides[1] + c * strides[2];
  }
  std::vector<int64_t> shape;
  int64_t strides[3];
};

bool interleaved_mode(int64_t mode) {
  if (mode != 0 && mode != 1) refuse("mode %ld is not there; 0 (halves) and 1 (interleaved) are", long(mode));
  return mode == 1;
}

void rotate_all(const View &x, const Broadcast &plan, const float *cos, const float *sin, const View &out,
                bool interleaved, bool back) {
  const int64_t width = x.dim(3);
  if (width % 2) refuse("head width %ld is odd", long(width));
  const Dense dense(x);
  View in = x;
  in.data = const_cast<void *>(dense.data());
  parallel_for(x.size() / std::max<int64_t>(1, width), 64, [&](int64_t begin, int64_t end) {
    std::vector<float> head(width), turned(width);
    for (int64_t i = begin; i < end; ++i) {
      load(in, i * width, head.data(), width);
      rotate(head.data(), cos + plan.row(i) * width, sin + plan.row(i) * width, turned.data(), width, interleaved,
             back);
      save(turned.data(), out, i * width, width);
    }
  });
}

// dcos = sum of dy * x and dsin = sum of dy * rotated(x) over what the table was broadcast to.
void table_grads(const View &dy, const View &x, const Broadcast &plan, bool interleaved, float *dcos, float *dsin) {
  const int64_t width = x.dim(3), rows = x.size() / std::max<int64_t>(1, width);
  const Floats wide_dy(dy), wide_x(x);
  const std::vector<float> none(width, 0.0f), ones(width, 1.0f);
  std::vector<float> turned(width);
  for (int64_t i = 0; i < rows; ++i) {
    const float *grad = wide_dy.data() + i * width, *head = wide_x.data() + i * width;
    rotate(head, none.data(), ones.data(), turned.data(), width, interleaved, false);
    for (int64_t j = 0; j < width; ++j) {
      dcos[plan.row(i) * width + j] += grad[j] * head[j];
      dsin[plan.row(i) * width + j] += grad[j] * turned[j];
    }
  }
}

}  // namespace

MF_PLUGIN_OP(ApplyRotaryPosEmb, "float16, bfloat16 (its type rule refuses float32); cos_format 0 to 3") {
  const View q = args.input(0), k = args.input(1), cos = args.input(2), sin = args.input(3);
  const int64_t format = args.integer(5);
  if (format < 0 || format > 3) refuse("cos_format %ld is not there; 0, 1, 2 and 3 are", long(format));
  if (cos.rank() < 1 || cos.shape != sin.shape) refuse("cos and sin must have the same shape");
  const int64_t width = cos.dim(-1), table = cos.size() / std::max<int64_t>(1, width);
  const Tokens queries(q, width, "query"), keys(k, width, "key");
  if (queries.rows.rows != keys.rows.rows) refuse("query and key have different numbers of tokens");
  const std::vector<int64_t> rows = table_rows(q, queries.rows.rows, args.integers(4), format, table);
  const Floats wide_cos(cos), wide_sin(sin);
  const bool interleaved = format % 2 == 1;
  apply(queries, args.output(0), rows, wide_cos.data(), wide_sin.data(), width, interleaved);
  apply(keys, args.output(1), rows, wide_cos.data(), wide_sin.data(), width, interleaved);
}

MF_PLUGIN_OP(RotaryPositionEmbedding, "float32, float16, bfloat16; mode 0 (halves), 1 (interleaved)") {
  const View x = args.input(0), cos = args.input(1), sin = args.input(2);
  const Broadcast plan(x, cos, "cos");
  if (sin.shape != cos.shape) refuse("cos and sin must have the same shape");
  const Floats wide_cos(cos), wide_sin(sin);
  rotate_all(x, plan, wide_cos.data(), wide_sin.data(), args.output(0), interleaved_mode(args.integer(3)), false);
}

MF_PLUGIN_OP(RotaryPositionEmbeddingGrad,
             "as RotaryPositionEmbedding; the gradients of cos and sin are zeros without x, and autodiff passes none") {
  const View dy = args.input(0), cos = args.input(1), sin = args.input(2), x = args.input(3);
  const bool interleaved = interleaved_mode(args.integer(4));
  const Broadcast plan(dy, cos, "cos");
  if (sin.shape != cos.shape) refuse("cos and sin must have the same shape");
  const Floats wide_cos(cos), wide_sin(sin);
  rotate_all(dy, plan, wide_cos.data(), wide_sin.data(), args.output(0), interleaved, true);
  FloatsOut dcos(args.output(1)), dsin(args.output(2));
  std::fill_n(dcos.data(), args.output(1).size(), 0.0f);
  std::fill_n(dsin.data(), args.output(2).size(), 0.0f);
  if (x && args.output(1).size() == cos.size()) table_grads(dy, x, plan, interleaved, dcos.data(), dsin.data());
  dcos.store();
  dsin.store();
}
