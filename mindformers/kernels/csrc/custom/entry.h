// The arguments of an ops.Custom entry.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "../dtype.h"
#include "../error.h"

class AotExtra;

namespace mf {

struct Entry {
  const char* name;
  int count;
  void** params;
  int* ndims;
  int64_t** shapes;
  const char** dtypes;

  DType dtype(int i) const { return parse_dtype(dtypes[i]); }
  template <class T> T* data(int i) const { return static_cast<T*>(params[i]); }
  int64_t size(int i) const {
    int64_t size = 1;
    for (int d = 0; d < ndims[i]; ++d) size *= shapes[i][d];
    return size;
  }
  int64_t last(int i) const { return ndims[i] > 0 ? shapes[i][ndims[i] - 1] : 1; }
  int64_t dim(int i, int d) const { return d < ndims[i] ? shapes[i][d] : 0; }

  // 0, or a failure: the number of tensors, and what tensor i must be (dimensions < 0: any; size < 0: any).
  int expect_count(int wanted, int outputs = 1) const {
    return count == wanted ? 0
                           : fail("%s takes %d inputs and %d output(s), but got %d in all", name, wanted - outputs,
                                  outputs, count);
  }
  int expect(int i, const char* what, std::initializer_list<DType> types, int dimensions, int64_t elements) const {
    bool known = false;
    for (const DType type : types) known = known || dtype(i) == type;
    if (!known) return fail("%s: %s (input %d) is %s, which it does not take", name, what, i, dtypes[i]);
    if (dimensions >= 0 && ndims[i] != dimensions) {
      return fail("%s: %s (input %d) has %d dimensions, but needs %d", name, what, i, ndims[i], dimensions);
    }
    if (elements >= 0 && size(i) != elements) {
      return fail("%s: %s (input %d) has %lld elements, but needs %lld", name, what, i, static_cast<long long>(size(i)),
                  static_cast<long long>(elements));
    }
    return 0;
  }
  int expect_meta(int i, int64_t least) const {
    if (dtype(i) == F32 && size(i) >= least) return 0;
    return fail("%s: meta must be float32 of %lld or more elements, got %s of %lld", name,
                static_cast<long long>(least), dtypes[i], static_cast<long long>(size(i)));
  }
  // meta[at] as a whole number in 0 ... 2^31 - 1.
  int whole(const float* meta, int at, const char* what, int64_t* value) const {
    if (!(meta[at] >= 0.0f && meta[at] < 2147483648.0f) || meta[at] != std::floor(meta[at])) {
      return fail("%s: meta[%d], the %s, is %g, but must be a whole number", name, at, what,
                  static_cast<double>(meta[at]));
    }
    *value = static_cast<int64_t>(meta[at]);
    return 0;
  }
};

// Elements of a shape that may have unknown (negative) dimensions; -1 when it has.
inline int64_t elements(const int64_t* shape, int dimensions) {
  int64_t product = 1;
  for (int d = 0; d < dimensions; ++d) {
    if (shape[d] < 0) return -1;
    product *= shape[d];
  }
  return product;
}

}  // namespace mf

#define MF_ENTRY(name) \
  MF_EXPORT int name(int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void*, void*)
#define MF_ENTRY_ARGUMENTS(name) {#name, nparam, params, ndims, shapes, dtypes}
#define MF_INFER_SHAPE(name) \
  MF_EXPORT std::vector<int64_t> name##InferShape([[maybe_unused]] int* ndims, int64_t** shapes, AotExtra*)
// Entries of several outputs: all shapes, and all dtypes; input `i` is float32 in every call, and so are the outputs.
#define MF_INFER_SHAPES(name) \
  MF_EXPORT std::vector<std::vector<int64_t>> name##InferShape(int* ndims, int64_t** shapes, AotExtra*)
#define MF_INFER_TYPES(name, outputs, i) \
  MF_EXPORT std::vector<int> name##InferType(std::vector<int> types, AotExtra*) { \
    return std::vector<int>(outputs, types[i]); \
  }
