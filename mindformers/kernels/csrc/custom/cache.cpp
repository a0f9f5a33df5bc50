// ops.Custom entry: copy rows of a cache in place.
#include <cstring>

#include "entry.h"

namespace mf {
namespace {

int copy_rows_entry(const Entry& in) {
  if (in.expect_count(4) || in.expect(0, "the cache", {F32, F16, BF16, I8}, 2, -1) ||
      in.expect(1, "sources", {I32}, 1, -1) || in.expect(2, "targets", {I32}, 1, in.size(1)) ||
      in.expect(3, "the output", {F32}, -1, 1)) {
    return 1;
  }
  const int64_t rows = in.dim(0, 0), bytes = in.dim(0, 1) * dtype_size(in.dtype(0));
  const auto *const sources = in.data<int32_t>(1), *const targets = in.data<int32_t>(2);
  for (int64_t i = 0; i < in.size(1); ++i) {
    for (const int32_t row : {sources[i], targets[i]}) {
      if (row < 0 || row >= rows) {
        return fail("%s: row %d is outside the cache of %lld rows", in.name, row, static_cast<long long>(rows));
      }
    }
  }
  char* const cache = in.data<char>(0);
  for (int64_t i = 0; i < in.size(1); ++i) {
    std::memcpy(cache + targets[i] * bytes, cache + sources[i] * bytes, static_cast<size_t>(bytes));
  }
  in.data<float>(3)[0] = 0.0f;
  return 0;
}

}  // namespace
}  // namespace mf

// 0 cache [rows, H] float32 | float16 | bfloat16 | int8, written in place, 1 sources int32 [R], 2 targets int32 [R]
// -> float32 [1], of no use. cache[targets[i]] = cache[sources[i]]; no row is both a source and a target.
MF_ENTRY(mf_copy_rows) {
  return mf::guarded([&] {
    const mf::Entry in = MF_ENTRY_ARGUMENTS(mf_copy_rows);
    return mf::copy_rows_entry(in);
  });
}

MF_INFER_SHAPE(mf_copy_rows) {
  static_cast<void>(shapes);
  return {1};
}
