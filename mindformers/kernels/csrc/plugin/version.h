// The MindSpore that has loaded this library as its op plugin.
#pragma once

namespace mf {
namespace plugin {

// Ends the process, with a message, when the MindSpore in it is not one that the library was tested with: versions differ
// in how they lay out a call, which gives wrong numbers without an error, and a plugin cannot refuse in another way: one
// that lists no op still changes how MindSpore treats views (views.cpp). Returns where there is no MindSpore.
void require_tested_mindspore();

}  // namespace plugin
}  // namespace mf
