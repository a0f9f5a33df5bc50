#include "linear.h"

#include "linear_table.h"

namespace mf {

void linear(const LinearArgs& args) {
  static const LinearTable& table = MF_PICK(linear_table);
  table.run(args);
}

}  // namespace mf
