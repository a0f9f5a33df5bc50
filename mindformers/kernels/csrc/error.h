// Errors of the C entries: a non-zero return, with the text kept for mf_last_error().
#pragma once

#include <exception>

namespace mf {

// Stores the message (printf style) for the whole process and returns 1.
int fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs the body of a C entry: an exception becomes a failure, never leaves the library.
template <class Body> int guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    return fail("%s", error.what());
  } catch (...) {
    return fail("unknown exception in a kernel");
  }
}

}  // namespace mf

#define MF_EXPORT extern "C" __attribute__((visibility("default")))

// Text of the last failure in this process ("" when there was none); valid until the calling thread asks again.
MF_EXPORT const char* mf_last_error();
