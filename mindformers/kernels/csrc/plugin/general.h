// What the general ops share: dispatch over element types, lanes along an axis, copies of any view.
#pragma once

#include <complex>
#include <type_traits>

#include "args.h"

namespace mf {
namespace plugin {

// The type that arithmetic runs in: float for the 16-bit floats, else the type itself.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, f16> || std::is_same_v<T, bf16>, float, T>;

template <class T>
Wide<T> wide(T value) {
  if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
    return to_float(value);
  } else {
    return value;
  }
}

template <class T>
T narrowed(Wide<T> value) {
  if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
    T out;
    from_float(value, &out);
    return out;
  } else {
    return value;
  }
}

template <class T>
constexpr bool is_complex = std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>;

// Calls body(T()) with the C++ type of `type`; refuses complex and unknown types.
template <class Body>
void for_real(DType type, Body body) {
  switch (type) {
    case F32: return body(float());
    case F16: return body(f16());
    case BF16: return body(bf16());
    case F64: return body(double());
    case I8: return body(int8_t());
    case I16: return body(int16_t());
    case I32: return body(int32_t());
    case I64: return body(int64_t());
    case U8: return body(uint8_t());
    case U16: return body(uint16_t());
    case U32: return body(uint32_t());
    case U64: return body(uint64_t());
    case BOOL: return body(bool());
    default: refuse("%s is not supported", dtype_name(type));
  }
}

// As for_real, and complex too.
template <class Body>
void for_any(DType type, Body body) {
  if (type == C64) return body(std::complex<float>());
  if (type == C128) return body(std::complex<double>());
  for_real(type, body);
}

struct Item16 {
  uint64_t low, high;
};

// Calls body(U()) with an integer as wide as an element of `type`: for ops that only move elements.
template <class Body>
void for_bytes(DType type, Body body) {
  switch (dtype_size(type)) {
    case 1: return body(uint8_t());
    case 2: return body(uint16_t());
    case 4: return body(uint32_t());
    case 8: return body(uint64_t());
    case 16: return body(Item16());
    default: refuse("%s is not supported", dtype_name(type));
  }
}

// `axis` counted from the front; refuses one outside [-rank, rank). A scalar counts as one axis.
int normal_axis(int64_t axis, int rank);

// A scalar as a view of one element along one axis; other views as they are.
View at_least_1d(View view);

// The lines of a view along one axis: lane `i` starts at element offset(i) and steps by `step`.
struct Lanes {
  Lanes(const View &view, int axis);
  int64_t offset(int64_t lane) const;

  int64_t count = 1, length = 0, step = 0;

 private:
  std::vector<int64_t> shape_, strides_;
};

// Copy the elements of any view (also with zero or negative strides) into dense memory.
void copy_view(const View &from, void *to);

// Convert every element of a view into dense memory of another type, as a C++ static_cast does (complex to real drops
// the imaginary part; anything to bool is "not zero").
void convert(const View &from, DType type, void *to);

// Refuses a shape that MindSpore did not infer: a sign of another version's argument order.
void expect_shape(const View &out, const std::vector<int64_t> &shape);

}  // namespace plugin
}  // namespace mf
