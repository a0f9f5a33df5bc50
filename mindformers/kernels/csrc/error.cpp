#include "error.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "dtype.h"

namespace mf {
namespace {

constexpr int kMessageSize = 1024;
std::mutex message_mutex;
char message[kMessageSize] = "";

struct DTypeEntry {
  const char* name;
  int64_t size;
};
// In the order of enum DType.
const DTypeEntry kDTypes[] = {{"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"float64", 8}, {"int8", 1},
                              {"int16", 2},   {"int32", 4},   {"int64", 8},    {"uint8", 1},   {"uint16", 2},
                              {"uint32", 4},  {"uint64", 8},  {"bool", 1},     {"complex64", 8},
                              {"complex128", 16}, {"none", 0}};

}  // namespace

int fail(const char* format, ...) {
  std::lock_guard<std::mutex> lock(message_mutex);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return 1;
}

DType parse_dtype(const char* name) {
  if (name == nullptr) return NONE;
  for (int i = 0; i < NONE; ++i) {
    if (std::strcmp(name, kDTypes[i].name) == 0) return static_cast<DType>(i);
  }
  return NONE;
}

const char* dtype_name(DType dtype) { return kDTypes[dtype].name; }
int64_t dtype_size(DType dtype) { return kDTypes[dtype].size; }

}  // namespace mf

const char* mf_last_error() {
  static thread_local char copy[mf::kMessageSize];
  std::lock_guard<std::mutex> lock(mf::message_mutex);
  std::memcpy(copy, mf::message, sizeof copy);
  return copy;
}
