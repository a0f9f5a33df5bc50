// The entry of linear.inc in each instruction set.
#pragma once

#include "isa.h"

namespace mf {

struct LinearArgs;

struct LinearTable {
  void (*run)(const LinearArgs&);
};
MF_DECLARE_VARIANTS(LinearTable, linear_table)

}  // namespace mf
