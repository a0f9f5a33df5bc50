// ops.Custom entry: copy rows of a cache in place.
#include <cstring>
#include <vector>

#include "../dtype.h"
#include "../error.h"

struct AotExtra;

MF_EXPORT std::vector<int64_t> mf_copy_rowsInferShape(int*, int64_t**, AotExtra*) { return {1}; }

// (cache [rows, H] of any dtype, sources int32 [R], targets int32 [R]) -> float32 [1], of no use.
// cache[targets[i]] = cache[sources[i]]; no row is both a source and a target.
MF_EXPORT int mf_copy_rows(int nparam, void** params, int*, int64_t** shapes, const char** dtypes, void*, void*) {
  return mf::guarded([&] {
    if (nparam != 4) return mf::fail("mf_copy_rows takes 3 inputs, but got %d", nparam - 1);
    const int64_t rows = shapes[0][0], count = shapes[1][0];
    if (shapes[2][0] != count)
      return mf::fail("mf_copy_rows: %lld sources, but %lld targets", (long long)count, (long long)shapes[2][0]);
    const int64_t bytes = shapes[0][1] * mf::dtype_size(mf::parse_dtype(dtypes[0]));
    const auto* sources = static_cast<const int32_t*>(params[1]);
    const auto* targets = static_cast<const int32_t*>(params[2]);
    for (int64_t i = 0; i < count; ++i)
      for (const int32_t row : {sources[i], targets[i]})
        if (row < 0 || row >= rows)
          return mf::fail("mf_copy_rows: row %d is outside the cache of %lld rows", row, (long long)rows);
    auto* cache = static_cast<char*>(params[0]);
    for (int64_t i = 0; i < count; ++i) std::memcpy(cache + targets[i] * bytes, cache + sources[i] * bytes, bytes);
    *static_cast<float*>(params[3]) = 0.0f;
    return 0;
  });
}
