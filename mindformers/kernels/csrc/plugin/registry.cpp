// The list of ops that MindSpore reads from an op plugin (MS_OP_PLUGIN_PATH), and the frame around every entry.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>

#include "args.h"
#include "version.h"
#include "views.h"

namespace mf {
namespace plugin {
namespace {

struct Op {
  const char *name, *limits;
};

std::vector<Op> &ops() {
  static std::vector<Op> list;
  return list;
}

}  // namespace

Registrar::Registrar(const char *name, const char *limits) { ops().push_back({name, limits}); }

void refuse(const char *format, ...) {
  char text[512];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof(text), format, values);
  va_end(values);
  throw Refusal(text);
}

int call(const char *name, void (*run)(Args &), int count, void **params, int *ndims, int64_t **shapes,
         const char **dtypes, void *extra) {
  int failed = 0;
  try {
    Args args(count, params, ndims, shapes, dtypes, extra);
    run(args);
  } catch (const std::exception &error) {
    failed = fail("%s: %s", name, error.what());
    // MindSpore's own error names only the op and the returned number.
    std::fprintf(stderr, "mindformers kernels: %s: %s\n", name, error.what());
  }
  return failed;
}

}  // namespace plugin
}  // namespace mf

MF_EXPORT int GetRegisteredOpCount() {
  mf::plugin::require_tested_mindspore();
  const bool safe = mf::plugin::restore_contiguous_inputs(__builtin_return_address(0));
  return safe ? static_cast<int>(mf::plugin::ops().size()) : 0;
}

MF_EXPORT const char **GetAllRegisteredOps() {
  static const std::vector<const char *> names = [] {
    std::vector<const char *> list;
    for (const auto &op : mf::plugin::ops()) list.push_back(op.name);
    return list;
  }();
  return const_cast<const char **>(names.data());
}

// Types and limits of a listed op, in words; nullptr for a name that is not listed.
MF_EXPORT const char *mf_plugin_limits(const char *name) {
  for (const auto &op : mf::plugin::ops()) {
    if (std::strcmp(op.name, name) == 0) return op.limits;
  }
  return nullptr;
}
