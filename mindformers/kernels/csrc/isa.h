// Which build of the kernels this CPU runs.
//
// A file x.inc is compiled once per instruction set, inside namespace mf::MF_ISA_NS, and defines a table of functions:
//     x.h:    struct XTable { void (*f)(...); };  MF_DECLARE_VARIANTS(XTable, x_table)
//     x.inc:  const XTable x_table = {f};
//     x.cpp:  static const XTable& table = MF_PICK(x_table);
// Inside an .inc use no std:: templates beyond what simd.h uses: the linker keeps one copy of an inline function, and a
// copy compiled for AVX-512 would then run on every CPU.
#pragma once

#include "error.h"

namespace mf {

enum class Isa { portable, avx2, avx512, avx512_bf16 };

// The best instruction set of this CPU, or the one MF_ISA names (throws std::runtime_error when the CPU lacks it).
Isa isa();
const char* isa_name(Isa isa);

}  // namespace mf

#if defined(__x86_64__)
#define MF_DECLARE_VARIANTS(Type, name)             \
  namespace portable { extern const Type name; }    \
  namespace avx2 { extern const Type name; }        \
  namespace avx512 { extern const Type name; }      \
  namespace avx512_bf16 { extern const Type name; }
#define MF_PICK(name)                                     \
  (::mf::isa() == ::mf::Isa::avx512_bf16 ? ::mf::avx512_bf16::name \
   : ::mf::isa() == ::mf::Isa::avx512    ? ::mf::avx512::name      \
   : ::mf::isa() == ::mf::Isa::avx2      ? ::mf::avx2::name        \
                                         : ::mf::portable::name)
#else
#define MF_DECLARE_VARIANTS(Type, name) \
  namespace portable { extern const Type name; }
#define MF_PICK(name) ((void)::mf::isa(), ::mf::portable::name)
#endif

// Name of the instruction set in use; "" (and mf_last_error) when MF_ISA asks for one that cannot run.
MF_EXPORT const char* mf_isa();
