// The process-wide thread pool. The calling thread takes part; work is handed out in chunks, so that a slow core does
// not hold the others up.
#pragma once

#include <cstdint>
#include <type_traits>

namespace mf {

// MF_NUM_THREADS, else the cores the process may use (affinity mask and cgroup quota). At least 1.
int num_threads();

// Memory of the calling thread, 64-byte aligned, reused between calls; the contents are undefined. Each user has its
// own slot, so that a kernel which runs inside another one's task does not overwrite it.
enum ScratchSlot {
  kScratchLinearX,
  kScratchLinearPanel,
  kScratchLinearSums,
  kScratchAttention,
  kScratchAttention2,
  kScratchNorm,
  kScratchPlugin,
  kScratchSlots
};
void* scratch_bytes(ScratchSlot slot, int64_t bytes);
template <class T> T* scratch(ScratchSlot slot, int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, count * static_cast<int64_t>(sizeof(T))));
}

namespace detail {
void run(int64_t items, int64_t grain, void (*call)(void*, int64_t, int64_t), void* body);
}

// body(begin, end) over [0, items) in pieces of `grain` (>= 1) items on all threads; returns when all is done. From
// inside a body, or while another thread holds the pool, the calling thread does it alone, in one piece. What a body
// throws is thrown again here (the first of them, after the others have stopped).
template <class Body> void parallel_for(int64_t items, int64_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  detail::run(
      items, grain, [](void* b, int64_t begin, int64_t end) { (*static_cast<Plain*>(b))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace mf
