// Element types as MindSpore names them, and the two 16-bit floats.
#pragma once

#include <cstdint>
#include <cstring>

namespace mf {

enum DType { F32, F16, BF16, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, C64, C128, NONE };

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float bits_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float to_float(float value) { return value; }
inline float to_float(int8_t value) { return static_cast<float>(value); }
inline float to_float(bf16 value) { return bits_float(static_cast<uint32_t>(value.bits) << 16); }

inline float to_float(f16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  if ((value.bits & 0x7c00u) == 0x7c00u) return bits_float(sign | rest | 0x7f800000u);  // infinity, NaN
  return bits_float(sign | float_bits(bits_float(rest) * 0x1p112f));                    // also right for subnormals
}

// Round to nearest, ties to even; NaN stays NaN.
inline void from_float(float value, float* out) { *out = value; }

inline void from_float(float value, bf16* out) {
  const uint32_t bits = float_bits(value);
  out->bits = (bits & 0x7fffffffu) > 0x7f800000u ? static_cast<uint16_t>((bits >> 16) | 0x40u)
                                                 : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void from_float(float value, f16* out) {
  const uint32_t bits = float_bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    out->bits = sign | 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    out->bits = sign | 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal result: adding 0.5 leaves the rounded value in the low bits
    out->bits = sign | static_cast<uint16_t>(float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u);
  } else {
    out->bits = sign | static_cast<uint16_t>((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13);
  }
}

template <class T> struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = F32; };
template <> struct DTypeOf<f16> { static constexpr DType value = F16; };
template <> struct DTypeOf<bf16> { static constexpr DType value = BF16; };
template <> struct DTypeOf<int8_t> { static constexpr DType value = I8; };

// MindSpore's dtype string ("float32", ...) as a DType; anything else, also nullptr, is NONE.
DType parse_dtype(const char* name);
const char* dtype_name(DType dtype);
int64_t dtype_size(DType dtype);

}  // namespace mf
