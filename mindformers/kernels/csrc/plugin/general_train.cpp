// Training: the AdamW primitive of mint.optim.AdamW, and Ascend's overflow status.
#include <cmath>
#include <cstring>

#include "../pool.h"
#include "general.h"

namespace mf {
namespace plugin {
namespace {

struct Step {
  float rate, beta1, beta2, decay, eps, correction1, correction2;
  bool amsgrad, maximize;
};

// Decoupled weight decay (arXiv:1711.05101, algorithm 2), bias-corrected; all arithmetic in float32.
template <class W, class M, class G>
void adamw(W *w, M *m, M *v, M *top, const G *g, int64_t count, const Step &s) {
  parallel_for(count, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float grad = s.maximize ? -to_float(g[i]) : to_float(g[i]);
      const float mean = to_float(m[i]) + (grad - to_float(m[i])) * (1.0f - s.beta1);
      const float square = to_float(v[i]) * s.beta2 + grad * grad * (1.0f - s.beta2);
      float scale = square;
      if (s.amsgrad) {
        scale = std::max(to_float(top[i]), square);
        from_float(scale, top + i);
      }
      const float root = std::sqrt(scale) / s.correction2 + s.eps;
      from_float(to_float(w[i]) * (1.0f - s.rate * s.decay) - s.rate / s.correction1 * mean / root, w + i);
      from_float(mean, m + i);
      from_float(square, v + i);
    }
  });
}

template <class Body>
void for_float(DType type, Body body) {
  if (type == F32) return body(float());
  if (type == F16) return body(f16());
  if (type == BF16) return body(bf16());
  refuse("float32, float16 or bfloat16 expected, but got %s", dtype_name(type));
}

double first_number(const View &view) {
  double number = 0;
  if (!view.data || view.size() != 1) refuse("one number expected, but the shape is %s", shape_text(view.shape).c_str());
  convert(View{view.data, view.type, {1}, {1}}, F64, &number);
  return number;
}

void no_overflow(Args &args) {
  const View out = args.output(0);
  const int64_t zero = 0;
  char bytes[16] = {};
  convert(View{const_cast<int64_t *>(&zero), I64, {1}, {1}}, out.type, bytes);
  for (int64_t i = 0; i < out.size(); ++i) std::memcpy(out.as<char>() + i * dtype_size(out.type), bytes, dtype_size(out.type));
}

constexpr const char *kStatus = "always \"no overflow\": a CPU keeps inf and NaN in the values, look for them there";

}  // namespace
}  // namespace plugin
}  // namespace mf

using namespace mf;
using namespace mf::plugin;

// var, m, v, max_v, gradient, step, lr, beta1, beta2, decay, eps, amsgrad, maximize; the first four in place.
MF_PLUGIN_OP(AdamW, "float32, float16, bfloat16; weight, moments and gradient may differ; in place") {
  View state[4];
  const char *const names[] = {"var", "m", "v", "max_v"};
  for (size_t i = 0; i < 4; ++i) state[i] = args.dense_input(i, names[i]);
  const View gradient = args.input(4);
  for (const View &view : {state[1], state[2], state[3], gradient}) {
    if (view.size() != state[0].size()) refuse("all tensors have one shape");
  }
  if (state[1].type != state[2].type || state[1].type != state[3].type) refuse("the moments have one type");
  const double step = first_number(args.input(5)) + 1;  // MindSpore counts the steps that came before
  if (!(step >= 1)) refuse("step is %g, but counts from 0", step - 1);
  const double beta1 = args.number(7), beta2 = args.number(8);
  const Step s{static_cast<float>(args.number(6)), static_cast<float>(beta1), static_cast<float>(beta2),
               static_cast<float>(args.number(9)), static_cast<float>(args.number(10)),
               static_cast<float>(1 - std::pow(beta1, step)), static_cast<float>(std::sqrt(1 - std::pow(beta2, step))),
               args.flag(11), args.flag(12)};
  const Dense g(gradient);
  for_float(state[0].type, [&](auto w) {
    for_float(state[1].type, [&](auto m) {
      for_float(gradient.type, [&](auto d) {
        using M = decltype(m);
        adamw(state[0].as<decltype(w)>(), state[1].as<M>(), state[2].as<M>(), state[3].as<M>(), g.as<decltype(d)>(),
              gradient.size(), s);
      });
    });
  });
  for (size_t i = 0; i < args.outputs() && i < 3; ++i) {
    const View out = args.output(i);
    if (out.data && out.data != state[i].data) copy_view(state[i], out.data);
  }
}

// self += alpha * other, broadcast to self. MindSpore's own kernel leaves `self` as it was in PYNATIVE mode, and the step
// counter of mint.optim.AdamW with it.
MF_PLUGIN_OP(InplaceAddExt, "every type, complex too; in place") {
  const View self = args.dense_input(0, "self"), other = args.input(1);
  View view{other.data, other.type, self.shape, std::vector<int64_t>(self.shape.size(), 0)};
  const size_t extra = self.shape.size() - other.shape.size();
  if (other.rank() > self.rank()) refuse("%s does not fit into %s", shape_text(other.shape).c_str(), shape_text(self.shape).c_str());
  for (size_t i = 0; i < other.shape.size(); ++i) {
    if (other.shape[i] == self.shape[extra + i]) view.strides[extra + i] = other.strides[i];
    else if (other.shape[i] != 1) refuse("%s does not fit into %s", shape_text(other.shape).c_str(), shape_text(self.shape).c_str());
  }
  std::vector<char> addend(self.size() * dtype_size(self.type) + 1);
  const std::unique_ptr<char[]> dense(new char[view.size() * dtype_size(view.type) + 1]);
  copy_view(view, dense.get());
  convert(View{dense.get(), view.type, view.shape, dense_strides(view.shape)}, self.type, addend.data());
  const View alpha = args.input(2);
  const double factor = alpha.type == F32 || alpha.type == F64 ? args.number(2) : static_cast<double>(args.integer(2));
  for_any(self.type, [&](auto t) {
    using T = decltype(t);
    using Exact = std::conditional_t<is_complex<T>, T, std::conditional_t<std::is_integral_v<T>, uint64_t, double>>;
    const Exact scale = is_complex<T> || !std::is_integral_v<T> ? Exact(factor) : Exact(static_cast<int64_t>(factor));
    const T *from = reinterpret_cast<const T *>(addend.data());
    T *to = self.as<T>();
    for (int64_t i = 0; i < self.size(); ++i) {
      const Exact sum = static_cast<Exact>(wide(to[i])) + scale * static_cast<Exact>(wide(from[i]));
      if constexpr (is_complex<T>) to[i] = sum;
      else to[i] = narrowed<T>(static_cast<Wide<T>>(sum));
    }
  });
  const View out = args.output(0);
  if (out.data && out.data != self.data) copy_view(self, out.data);
}

MF_PLUGIN_OP(NPUAllocFloatStatus, kStatus) { no_overflow(args); }
MF_PLUGIN_OP(NPUGetFloatStatus, kStatus) { no_overflow(args); }
MF_PLUGIN_OP(NPUClearFloatStatus, kStatus) { no_overflow(args); }
MF_PLUGIN_OP(NPUGetFloatStatusV2, kStatus) { no_overflow(args); }
MF_PLUGIN_OP(NPUClearFloatStatusV2, kStatus) { no_overflow(args); }
