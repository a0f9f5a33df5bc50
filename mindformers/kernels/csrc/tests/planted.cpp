// A control of the sanitized builds: `planted memory` reads behind an array and `planted thread` races, each inside a
// kernel that is compiled for an instruction set. The run must be ended by the sanitizer; it returns 0 where nothing
// was seen. Not a unit test.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../norm.h"

namespace {

// Norms of 3 rows of 64 numbers, of which the last row lacks its last number.
void behind_an_array() {
  const std::vector<float> x(3 * 64 - 1, 1.0f), weight(64, 1.0f);
  std::vector<float> y(3 * 64);
  mf::rms_norm({const_cast<float*>(x.data()), mf::F32, 64}, weight.data(), mf::F32, {y.data(), mf::F32, 64}, nullptr, 3,
               64, 1e-5f);
}

void two_threads_write() {
  const std::vector<float> x(64, 1.0f), weight(64, 1.0f);
  std::vector<float> y(64);
  const auto write = [&] {
    mf::rms_norm({const_cast<float*>(x.data()), mf::F32, 64}, weight.data(), mf::F32, {y.data(), mf::F32, 64}, nullptr,
                 1, 64, 1e-5f);
  };
  std::thread other(write);
  write();
  other.join();
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && std::strcmp(arguments[1], "memory") == 0) behind_an_array();
  if (count == 2 && std::strcmp(arguments[1], "thread") == 0) two_threads_write();
  std::printf("nothing was seen\n");
  return 0;
}
