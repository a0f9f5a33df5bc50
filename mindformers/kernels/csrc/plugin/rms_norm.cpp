// RmsNorm (arXiv:1910.07467) and its gradient. gamma has the shape of x's last axes, often of one.
#include <algorithm>

#include "../norm.h"
#include "args.h"

using namespace mf;
using namespace mf::plugin;

namespace {

void check_gamma(const View &x, const View &gamma) {
  const bool fits = gamma.rank() >= 1 && gamma.rank() <= x.rank() &&
                    std::equal(gamma.shape.begin(), gamma.shape.end(), x.shape.end() - gamma.rank());
  if (!fits) {
    refuse("gamma %s must have the shape of the last axes of x %s", shape_text(gamma.shape).c_str(),
           shape_text(x.shape).c_str());
  }
  for (const View *view : {&x, &gamma}) {
    if (!is_float(view->type)) refuse("float32, float16 or bfloat16 expected, but got %s", dtype_name(view->type));
  }
}

}  // namespace

MF_PLUGIN_OP(RmsNorm, "float32, float16, bfloat16, also mixed; any shape of gamma") {
  const View x = args.input(0), gamma = args.input(1), y = args.output(0), rstd = args.output(1);
  check_gamma(x, gamma);
  if (x.size() == 0) return;
  const Rows rows(x, x.rank() - gamma.rank());
  const Dense weight(gamma);
  check(rms_norm({rows.data, rows.type, rows.stride}, weight.data(), gamma.type, {y.data, y.type, rows.width},
                 rstd.as<float>(), rows.rows, rows.width, static_cast<float>(args.number(2))));
}

MF_PLUGIN_OP(RmsNormGrad, "float32, float16, bfloat16, also mixed; any shape of gamma") {
  const View dy = args.input(0), x = args.input(1), rstd = args.input(2), gamma = args.input(3);
  const View dx = args.output(0), dgamma = args.output(1);
  check_gamma(x, gamma);
  const int lead = x.rank() - gamma.rank();
  const Rows dy_rows(dy, lead), x_rows(x, lead);
  const Dense weight(gamma);
  const Floats scale(rstd);
  FloatsOut dweight(dgamma);
  check(rms_norm_grad({dy_rows.data, dy_rows.type, dy_rows.stride}, {x_rows.data, x_rows.type, x_rows.stride},
                      scale.data(), weight.data(), gamma.type, {dx.data, dx.type, x_rows.width}, dweight.data(),
                      x_rows.rows, x_rows.width));
  dweight.store();
}
