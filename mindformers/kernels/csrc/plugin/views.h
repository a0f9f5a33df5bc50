// See views.cpp.
#pragma once

namespace mf {
namespace plugin {

// Makes MindSpore hand its own kernels contiguous tensors although a plugin is loaded. Returns false when that cannot
// be done in this process; then no op may be listed. True also where there is no MindSpore (unit tests). `caller` is the
// return address of who wants the list. Ends the process when MindSpore may have gone wrong already.
bool restore_contiguous_inputs(const void *caller);

}  // namespace plugin
}  // namespace mf
