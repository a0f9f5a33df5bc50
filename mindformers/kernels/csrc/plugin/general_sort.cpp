// Order: argmax, argmin, top-k and sort. Every element is mapped to an unsigned key with the same order (NaN above all
// numbers, as in numpy and PyTorch; -0 equal to 0), and ties go to the lower index, so that every result is defined.
#include <algorithm>
#include <cstring>
#include <limits>

#include "../pool.h"
#include "general.h"

namespace mf {
namespace plugin {
namespace {

template <class T>
auto key_of(T value) {
  if constexpr (std::is_same_v<T, double>) {
    uint64_t bits;
    value = value == 0 ? 0 : value;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return ~uint64_t{0};
    return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
  } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, uint64_t>) {
    return static_cast<uint64_t>(value) ^ (std::is_signed_v<T> ? uint64_t{1} << 63 : 0);
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<uint32_t>(value) ^ (std::is_signed_v<T> ? 0x80000000u : 0u);
  } else {
    const uint32_t bits = float_bits(wide(value)), magnitude = bits & 0x7fffffffu;
    const uint32_t key = bits >> 31 ? (magnitude ? ~bits : 0x80000000u) : bits | 0x80000000u;
    return magnitude > 0x7f800000u ? ~0u : key;
  }
}

// A key with its index, ordered by both: one integer where both fit.
struct Pair64 {
  uint64_t key;
  int64_t place;
  bool operator<(const Pair64 &other) const { return key != other.key ? key < other.key : place < other.place; }
  int64_t index() const { return place; }
};
struct Pair32 {
  uint64_t both;
  bool operator<(const Pair32 &other) const { return both < other.both; }
  int64_t index() const { return static_cast<int64_t>(both & 0xffffffffu); }
};

template <class Key>
using Pair = std::conditional_t<sizeof(Key) == 4, Pair32, Pair64>;

template <class Key>
Pair<Key> pair_of(Key key, int64_t index) {
  if constexpr (sizeof(Key) == 4) {
    return {static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(index)};
  } else {
    return {key, index};
  }
}

// The first index of the greatest key (of the least when `flip` is all ones).
template <class T>
int64_t first_extreme(const T *data, int64_t length, int64_t step, decltype(key_of(T())) flip) {
  using Key = decltype(key_of(T()));
  constexpr int64_t kBlock = 512;  // keys of a block are compared without branches; only the best block is searched
  Key best = 0;
  int64_t best_block = -1;
  for (int64_t start = 0; start < length; start += kBlock) {
    const int64_t stop = std::min(start + kBlock, length);
    Key top = 0;
    if (step == 1) {
      for (int64_t i = start; i < stop; ++i) top = std::max<Key>(top, key_of(data[i]) ^ flip);
    } else {
      for (int64_t i = start; i < stop; ++i) top = std::max<Key>(top, key_of(data[i * step]) ^ flip);
    }
    if (best_block < 0 || top > best) {
      best = top;
      best_block = start;
    }
  }
  int64_t i = best_block;
  while ((key_of(data[i * step]) ^ flip) != best) ++i;
  return i;
}

void arg_extreme(Args &args, bool least) {
  View in = at_least_1d(args.input(0));
  const bool all = args.absent(1);
  const Dense flat(all ? in : View{in.data, in.type, {1}, {1}});
  if (all) in = View{const_cast<void *>(flat.data()), in.type, {in.size()}, {1}};
  const int axis = all ? 0 : normal_axis(args.integer(1), in.rank());
  const Lanes lanes(in, axis);
  const View out = args.output(0);
  if (out.size() != lanes.count) refuse("%lld results expected", static_cast<long long>(lanes.count));
  if (lanes.count && !lanes.length) refuse("an axis of length 0 has no greatest element");
  if (out.type != I64 && out.type != I32) refuse("the index is int32 or int64, but got %s", dtype_name(out.type));
  for_real(in.type, [&](auto t) {
    using T = decltype(t);
    using Key = decltype(key_of(T()));
    const Key flip = least ? static_cast<Key>(~Key{0}) : Key{0};
    parallel_for(lanes.count, std::max<int64_t>(1, 16384 / lanes.length), [&](int64_t begin, int64_t end) {
      for (int64_t lane = begin; lane < end; ++lane) {
        const T *data = in.as<const T>() + lanes.offset(lane);
        int64_t place = -1;
        if (least) {  // NaN wins here too
          for (int64_t i = 0; i < lanes.length && place < 0; ++i) {
            if (wide(data[i * lanes.step]) != wide(data[i * lanes.step])) place = i;
          }
        }
        if (place < 0) place = first_extreme(data, lanes.length, lanes.step, flip);
        if (out.type == I64) out.as<int64_t>()[lane] = place;
        else out.as<int32_t>()[lane] = static_cast<int32_t>(place);
      }
    });
  });
}

// The `take` first of a lane's pairs in order, at the front of `pairs`.
template <class T, class P>
void first_in_order(const T *data, const Lanes &lanes, int64_t take, bool descending, std::vector<P> &pairs) {
  using Key = decltype(key_of(T()));
  const Key flip = descending ? static_cast<Key>(~Key{0}) : Key{0};
  pairs.clear();
  if (take * 8 < lanes.length) {  // a heap of the best so far: most elements are looked at once
    for (int64_t i = 0; i < lanes.length; ++i) {
      const P pair = pair_of<Key>(key_of(data[i * lanes.step]) ^ flip, i);
      if (static_cast<int64_t>(pairs.size()) < take) {
        pairs.push_back(pair);
        std::push_heap(pairs.begin(), pairs.end());
      } else if (take && pair < pairs.front()) {
        std::pop_heap(pairs.begin(), pairs.end());
        pairs.back() = pair;
        std::push_heap(pairs.begin(), pairs.end());
      }
    }
    std::sort_heap(pairs.begin(), pairs.end());
    return;
  }
  for (int64_t i = 0; i < lanes.length; ++i) pairs.push_back(pair_of<Key>(key_of(data[i * lanes.step]) ^ flip, i));
  if (take < lanes.length) std::nth_element(pairs.begin(), pairs.begin() + take, pairs.end());
  std::sort(pairs.begin(), pairs.begin() + take);
}

// The `take` first elements along `axis` into `values` (may be absent) and their places into `indices`, both dense.
void in_order(const View &in, int axis, int64_t take, bool descending, const View &values, const View &indices) {
  const Lanes lanes(in, axis);
  if (take < 0 || take > lanes.length) {
    refuse("k = %lld, but the axis has %lld elements", static_cast<long long>(take), static_cast<long long>(lanes.length));
  }
  if (lanes.length > std::numeric_limits<uint32_t>::max()) refuse("an axis of more than 2^32 - 1 elements");
  if (indices.type != I64 && indices.type != I32) refuse("the index is int32 or int64");
  std::vector<int64_t> shape = in.shape;
  shape[axis] = take;
  if (indices.size() != View{nullptr, I64, shape, {}}.size()) expect_shape(indices, shape);
  View target{nullptr, I64, shape, dense_strides(shape)};
  const Lanes out(target, axis);
  for_real(in.type, [&](auto t) {
    using T = decltype(t);
    parallel_for(lanes.count, std::max<int64_t>(1, 4096 / std::max<int64_t>(lanes.length, 1)), [&](int64_t begin, int64_t end) {
      std::vector<Pair<decltype(key_of(T()))>> pairs;
      for (int64_t lane = begin; lane < end; ++lane) {
        const T *data = in.as<const T>() + lanes.offset(lane);
        first_in_order(data, lanes, take, descending, pairs);
        const int64_t base = out.offset(lane);
        for (int64_t i = 0; i < take; ++i) {
          const int64_t place = pairs[i].index(), to = base + i * out.step;
          if (values) values.as<T>()[to] = data[place * lanes.step];
          if (indices.type == I64) indices.as<int64_t>()[to] = place;
          else indices.as<int32_t>()[to] = static_cast<int32_t>(place);
        }
      }
    });
  });
}

}  // namespace
}  // namespace plugin
}  // namespace mf

using namespace mf;
using namespace mf::plugin;

MF_PLUGIN_OP(ArgMaxExt, "every real type; NaN counts as the greatest, ties give the lowest index") {
  arg_extreme(args, false);
}

MF_PLUGIN_OP(ArgMinExt, "every real type; NaN counts as the least, ties give the lowest index") {
  arg_extreme(args, true);
}

MF_PLUGIN_OP(Argmax, "every real type; NaN counts as the greatest, ties give the lowest index") {
  arg_extreme(args, false);
}

MF_PLUGIN_OP(TopkExt, "every real type; always sorted, ties give the lowest index") {
  const View in = at_least_1d(args.input(0));
  in_order(in, normal_axis(args.integer(2), in.rank()), args.integer(1), args.flag(3), args.output(0), args.output(1));
}

MF_PLUGIN_OP(TopK, "every real type; always sorted, ties give the lowest index") {
  const View in = at_least_1d(args.input(0)), values = at_least_1d(args.output(0));
  in_order(in, in.rank() - 1, values.shape.back(), true, values, args.output(1));
}

MF_PLUGIN_OP(SortExt, "every real type; always stable") {
  const View in = at_least_1d(args.input(0));
  const int axis = normal_axis(args.integer(1), in.rank());
  in_order(in, axis, in.shape[axis], args.flag(2), args.output(0), args.output(1));
}

MF_PLUGIN_OP(ArgSort, "every real type; always stable") {
  const View in = at_least_1d(args.input(0));
  const int axis = normal_axis(args.integer(1), in.rank());
  in_order(in, axis, in.shape[axis], args.flag(2), View(), args.output(0));
}
