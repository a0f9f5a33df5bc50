#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mf {
namespace {

const char* const kNames[] = {"portable", "avx2", "avx512", "avx512_bf16"};

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) return Isa::avx512_bf16;
  if (avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::portable;
}

Isa choose_isa() {
  const Isa best = best_isa();
  const char* forced = std::getenv("MF_ISA");
  if (forced == nullptr || *forced == '\0') return best;
  for (int i = 0; i < 4; ++i) {
    if (std::strcmp(forced, kNames[i]) != 0) continue;
    if (i > static_cast<int>(best)) {
      throw std::runtime_error(std::string("MF_ISA=") + forced + ": this CPU runs at most " + isa_name(best));
    }
    return static_cast<Isa>(i);
  }
  throw std::runtime_error(std::string("MF_ISA=") + forced + " is none of portable, avx2, avx512, avx512_bf16");
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose_isa();
  return chosen;
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

}  // namespace mf

const char* mf_isa() {
  const char* name = "";
  mf::guarded([&] {
    name = mf::isa_name(mf::isa());
    return 0;
  });
  return name;
}
