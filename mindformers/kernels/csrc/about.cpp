// What the library says of itself; mindformers/kernels/library.py reads it before any op is called.
// MF_ABI, MF_MINDSPORE_VERSIONS and MF_SOURCES come from build.py.
#include "error.h"
#include "pool.h"

// Number of the agreement on what the arguments of the mf_* entries mean.
MF_EXPORT int mf_abi_version() { return MF_ABI; }

// MindSpore versions the library was tested with, separated by spaces.
MF_EXPORT const char* mf_mindspore_versions() { return MF_MINDSPORE_VERSIONS; }

// Hash of the sources the library was made from.
MF_EXPORT const char* mf_sources() { return MF_SOURCES; }

// Threads of the pool, the calling one among them; 0 (and mf_last_error) when MF_NUM_THREADS is no number of threads.
MF_EXPORT int mf_num_threads() {
  int threads = 0;
  mf::guarded([&] {
    threads = mf::num_threads();
    return 0;
  });
  return threads;
}
