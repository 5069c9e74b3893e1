// Accesses of 16 bytes, sums over the threads of a warp or block, and loops over elements: what bodies of own kernels
// share. Templates that own nothing.
#pragma once

#include <cstdint>
#include <type_traits>

#include "runtime/cuda/grid.hpp"
#include "runtime/cuda/kernels.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::cuda {

/// Elements of an access of 16 bytes.
template <class T>
inline constexpr int width_of = 16 / static_cast<int>(sizeof(T));
inline int width_of_element(Element element) {
  return element == Element::f32 ? width_of<float> : width_of<std::uint16_t>;
}

/// Of more than 16 bytes: several accesses.
template <class T, int width>
struct alignas(sizeof(T) * width < 16 ? sizeof(T) * width : 16) Vector {
  T v[width];
};
template <int width>
struct Floats {
  float v[width];
};

template <int width, class T>
DTRAIN_HOST_DEVICE inline Vector<T, width> load(const T* from) {
  return *reinterpret_cast<const Vector<T, width>*>(from);
}
template <int width, class T>
DTRAIN_HOST_DEVICE inline void store(T* to, const Vector<T, width>& values) {
  *reinterpret_cast<Vector<T, width>*>(to) = values;
}
template <int width, class T>
DTRAIN_HOST_DEVICE inline Floats<width> load_floats(const T* from) {
  const Vector<T, width> raw = load<width>(from);
  Floats<width> values;
  for (int j = 0; j < width; ++j) values.v[j] = to_float(raw.v[j]);
  return values;
}
template <int width, class T>
DTRAIN_HOST_DEVICE inline void store_floats(T* to, const Floats<width>& values) {
  Vector<T, width> raw;
  for (int j = 0; j < width; ++j) raw.v[j] = from_float<T>(values.v[j]);
  store<width>(to, raw);
}
/// Overwrites, or adds to what is there.
template <int width, class T>
DTRAIN_HOST_DEVICE inline void write_floats(T* to, Floats<width> values, bool add) {
  if (add) {
    const Floats<width> before = load_floats<width>(to);
    for (int j = 0; j < width; ++j) values.v[j] += before.v[j];
  }
  store_floats<width>(to, values);
}
/// As a slot says; `at` counts elements.
template <int width, class T>
DTRAIN_HOST_DEVICE inline void write_slot(const Slot& slot, std::int64_t at, const Floats<width>& values) {
  if (slot.put != Put::none) write_floats<width>(static_cast<T*>(slot.to) + at, values, slot.put == Put::add);
}

/// True where accesses of 16 bytes suit all these addresses (null suits).
template <class... Pointers>
bool aligned(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

/// f(T{}) for the type that `element` names.
template <class F>
void with_element(Element element, const F& f) {
  if (element == Element::bf16) return f(Bf16{});
  if (element == Element::f16) return f(F16{});
  f(float{});
}

/// The address of elements, as the body that is given it says what they are.
struct ElementAddress {
  void* at;
  template <class T>
  operator T*() const {  // NOLINT(google-explicit-constructor): an argument of a body
    return static_cast<T*>(at);
  }
};
/// An argument of a body as its field wants it: an address without a type takes that of the field.
template <class Argument>
auto typed(const Argument& argument) {
  if constexpr (std::is_same_v<Argument, const void*> || std::is_same_v<Argument, void*>) {
    return ElementAddress{const_cast<void*>(argument)};
  } else {
    return argument;
  }
}

template <int value_of>
struct Width {
  static constexpr int value = value_of;
};
/// f(T{}, Width<...>{}): 16 bytes a thread where channels and addresses suit that, else one element.
template <class F>
void with_width(Element element, std::int64_t channels, bool suits, const F& f) {
  with_element(element, [&](auto tag) {
    constexpr int width = width_of<decltype(tag)>;
    if (suits && channels % width == 0) return f(tag, Width<width>{});
    f(tag, Width<1>{});
  });
}

// ---- loops over elements -------------------------------------------------------------------------------------------

inline constexpr int block_threads = 256;

/// f.run<width>(i) for groups of elements from i on: 16 bytes each of type F::Element, and one by one what is left.
template <class F>
struct ForElements {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  std::int64_t groups, elements;
  F f;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    constexpr int width = width_of<typename F::Element>;
    const std::int64_t first = t.block() * threads + t.index(), step = t.blocks() * threads;
    for (std::int64_t i = first; i < groups; i += step) f.template run<width>(i * width);
    for (std::int64_t i = groups * width + first; i < elements; i += step) f.template run<1>(i);
  }
};
/// Blocks of a loop that goes on from grid to grid: enough for any GPU, and few enough to start quickly.
inline constexpr std::int64_t most_blocks = 32 * 1024;
template <class F>
void for_elements(const Launch& where, std::int64_t elements, bool vectors, const F& f) {
  constexpr int width = width_of<typename F::Element>;
  const std::int64_t groups = vectors ? elements / width : 0;
  const std::int64_t blocks = divide_up(groups + (elements - groups * width), block_threads);
  launch(where, blocks < most_blocks ? blocks : most_blocks, ForElements<F>{groups, elements, f});
}
/// The same of Body<T>{arguments...} for the type that `element` names.
template <template <class> class Body, class... Arguments>
void for_elements(const Launch& where, Element element, std::int64_t elements, bool vectors,
                  const Arguments&... arguments) {
  with_element(element,
               [&](auto tag) { for_elements(where, elements, vectors, Body<decltype(tag)>{typed(arguments)...}); });
}

/// f.run(i) for i < count.
template <class F>
struct ForCount {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  std::int64_t count;
  F f;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    for (std::int64_t i = t.block() * threads + t.index(); i < count; i += t.blocks() * threads) f.run(i);
  }
};
template <class F>
void for_count(const Launch& where, std::int64_t count, const F& f) {
  const std::int64_t blocks = divide_up(count, block_threads);
  launch(where, blocks < most_blocks ? blocks : most_blocks, ForCount<F>{count, f});
}
/// Body<T, width>{arguments...}.run(i) for each group of `width` of the channels of so many pixels.
template <template <class, int> class Body, class... Arguments>
void for_channels(const Launch& where, Element element, std::int64_t pixels, std::int64_t channels, bool suits,
                  const Arguments&... arguments) {
  with_width(element, channels, suits, [&](auto tag, auto width) {
    using F = Body<decltype(tag), decltype(width)::value>;
    for_count(where, pixels * (channels / width.value), F{typed(arguments)...});
  });
}

// ---- sums ----------------------------------------------------------------------------------------------------------

/// Of the threads of a warp whose index differs in bits from `from` on: all of a warp by default.
template <class Thread, class T>
DTRAIN_HOST_DEVICE inline T warp_sum(Thread& t, T value, unsigned from = 1) {
  for (unsigned mask = warp_size / 2; mask >= from; mask /= 2) value += t.shuffle_xor(value, mask);
  return value;
}
template <class Thread>
DTRAIN_HOST_DEVICE inline float warp_max(Thread& t, float value) {
  for (unsigned mask = warp_size / 2; mask > 0; mask /= 2) {
    const float other = t.shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

/// Sums over a group of threads that share a row: one warp, or a whole block. Each thread of the group gets the sum.
template <int group>
struct GroupShared {
  static constexpr int warps = group / static_cast<int>(warp_size);
  double slots[warps];
};
template <int group, class Thread, class T>
DTRAIN_HOST_DEVICE inline T group_sum(Thread& t, GroupShared<group>& shared, T value) {
  value = warp_sum(t, value);
  if constexpr (group > static_cast<int>(warp_size)) {
    t.sync();  // what was there before has been read
    if (t.index() % warp_size == 0) shared.slots[t.index() / warp_size] = static_cast<double>(value);
    t.sync();
    double sum = 0;
    for (int w = 0; w < GroupShared<group>::warps; ++w) sum += shared.slots[w];
    value = static_cast<T>(sum);
  }
  return value;
}
template <int group, class Thread>
DTRAIN_HOST_DEVICE inline float group_max(Thread& t, GroupShared<group>& shared, float value) {
  value = warp_max(t, value);
  if constexpr (group > static_cast<int>(warp_size)) {
    t.sync();
    if (t.index() % warp_size == 0) shared.slots[t.index() / warp_size] = static_cast<double>(value);
    t.sync();
    for (int w = 0; w < GroupShared<group>::warps; ++w) {
      const auto other = static_cast<float>(shared.slots[w]);
      value = other > value ? other : value;
    }
  }
  return value;
}

}  // namespace dtrain::cuda
