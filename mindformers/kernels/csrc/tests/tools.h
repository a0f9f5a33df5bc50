// What the tests of attention and of the row-wise ops share.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../dtype.h"
#include "../error.h"
#include "../isa.h"

namespace mf {
namespace test {

inline std::mt19937 generator(11);
inline int failures = 0;

inline int64_t pick(std::initializer_list<int64_t> from) { return from.begin()[generator() % from.size()]; }
// Of the random cases a quarter where MF_TEST_QUICK is set: sanitized code is slow.
inline int share(int count) { return std::getenv("MF_TEST_QUICK") == nullptr ? count : std::max(1, count / 4); }
inline double normal() { return std::normal_distribution<double>()(generator); }

// Numbers of one dtype in memory of exactly their size, so that a sanitizer sees the first byte behind them.
struct Array {
  DType type;
  int64_t size;
  std::vector<char> bytes;

  explicit Array(int64_t count = 0, DType dtype = F32)
      : type(dtype), size(count), bytes(static_cast<size_t>(count * dtype_size(dtype))) {}
  void* data() { return bytes.data(); }
  template <class T> T* as() { return reinterpret_cast<T*>(bytes.data()); }
  double operator[](int64_t i) const {
    const char* const p = bytes.data() + i * dtype_size(type);
    if (type == F32) return *reinterpret_cast<const float*>(p);
    if (type == F16) return to_float(*reinterpret_cast<const f16*>(p));
    if (type == BF16) return to_float(*reinterpret_cast<const bf16*>(p));
    if (type == I32) return *reinterpret_cast<const int32_t*>(p);
    return *reinterpret_cast<const int8_t*>(p);
  }
  void set(int64_t i, double value) {
    char* const p = bytes.data() + i * dtype_size(type);
    if (type == F32) from_float(static_cast<float>(value), reinterpret_cast<float*>(p));
    else if (type == F16) from_float(static_cast<float>(value), reinterpret_cast<f16*>(p));
    else if (type == BF16) from_float(static_cast<float>(value), reinterpret_cast<bf16*>(p));
    else if (type == I32) *reinterpret_cast<int32_t*>(p) = static_cast<int32_t>(value);
    else *reinterpret_cast<int8_t*>(p) = static_cast<int8_t>(value);
  }
  std::vector<double> values() const {
    std::vector<double> all(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) all[static_cast<size_t>(i)] = (*this)[i];
    return all;
  }
};

inline Array randoms(int64_t size, DType type = F32, double scale = 1.0) {
  Array a(size, type);
  for (int64_t i = 0; i < size; ++i) a.set(i, normal() * scale);
  return a;
}

// Half a unit in the last place of a rounded result, relative.
inline double rounding(DType type) { return type == BF16 ? 1.0 / 256 : type == F16 ? 1.0 / 2048 : 6e-8; }

// The error relative to the largest expected number, or to `least` if that is more; NaN counts as infinite.
inline double error_of(const std::vector<double>& expected, const std::vector<double>& got, double least = 1e-30) {
  double error = expected.size() == got.size() ? 0.0 : INFINITY, largest = least;
  for (size_t i = 0; i < expected.size() && i < got.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    const double difference = std::fabs(expected[i] - got[i]);
    error =
        difference >= error || difference != difference ? (difference != difference ? INFINITY : difference) : error;
  }
  return error / largest;
}

inline void expect_that(bool good, const char* format, ...) __attribute__((format(printf, 2, 3)));
inline void expect_that(bool good, const char* format, ...) {
  if (good) return;
  ++failures;
  va_list arguments;
  va_start(arguments, format);
  std::printf("FAILED: ");
  std::vprintf(format, arguments);
  std::printf("\n");
  va_end(arguments);
}

inline void expect_error(int code, const char* text) {
  expect_that(code != 0 && std::strstr(mf_last_error(), text) != nullptr,
              "expected an error with \"%s\", got %d \"%s\"", text, code, code != 0 ? mf_last_error() : "");
}

// Runs `check` in a process of its own for each instruction set that this CPU has, or only for the one in MF_ISA.
template <class Check> int each_isa(const char* what, Check check) {
  const char* const forced = std::getenv("MF_ISA");
  int status = 0;
  for (const char* name : {"portable", "avx2", "avx512", "avx512_bf16"}) {
    if (forced != nullptr && *forced != '\0' && std::string(forced) != name) continue;
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      setenv("MF_ISA", name, 1);
      const bool there = std::string(mf_isa()) == name;
      if (there) check();
      if (there) std::printf("%-12s %s: %d failures\n", name, what, failures);
      else std::printf("%-12s not on this CPU\n", name);
      std::fflush(stdout);
      _exit(failures != 0);
    }
    int result = 1;
    waitpid(child, &result, 0);
    if (result != 0) status = 1;
  }
  return status;
}

}  // namespace test
}  // namespace mf
