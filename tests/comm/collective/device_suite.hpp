// What every Collective must do on an asynchronous device, written once: run over `staged` and over the simulated NCCL.
// Free functions called by every rank on its own thread; a failure is a std::runtime_error.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "comm/collective/config.hpp"
#include "runtime/device/device.hpp"
#include "runtime/device/host_buffer.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/tensor/bf16.hpp"
#include "runtime/tensor/f16.hpp"
#include "tests/comm/collective/suite.hpp"

namespace dtrain::comm::suite {

struct DeviceMaker {
  int rank = 0, size = 1;
  Device* device = nullptr;
  std::function<std::unique_ptr<Collective>(Algorithm)> collective;
  bool brief = false;  // where ranks that wait keep the cores busy
};

/// Elements in device memory.
template <class T>
class OnDevice {
 public:
  OnDevice(Device& device, Stream& stream, DType dtype, const std::vector<T>& values)
      : device_(device),
        stream_(stream),
        dtype_(dtype),
        count_(values.size()),
        memory_(device, std::max<std::size_t>(count_ * sizeof(T), 1)),
        host_(device, std::max<std::size_t>(count_ * sizeof(T), 1)) {
    if (count_ > 0) std::memcpy(host_.data(), values.data(), count_ * sizeof(T));
    device.copy(memory_.data(), host_.data(), count_ * sizeof(T), stream);
  }
  /// The stream may not have come to the copies yet.
  ~OnDevice() {
    try {
      stream_.synchronize();
    } catch (...) {  // what failed there is told by whoever waits for it
    }
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  Tensor tensor(std::size_t begin, std::size_t n) const { return view(dtype_, memory_.at(begin * sizeof(T)), n); }
  Tensor tensor() const { return tensor(0, count_); }
  /// In stream order; there after a synchronize().
  void fetch() { device_.copy(host_.data(), memory_.data(), count_ * sizeof(T), stream_); }
  const T& operator[](std::size_t i) const { return static_cast<const T*>(host_.data())[i]; }

 private:
  Device& device_;
  Stream& stream_;
  DType dtype_;
  std::size_t count_;
  Buffer memory_;
  HostBuffer host_;
};

template <class T>
T from_whole(float v) {
  return static_cast<T>(v);
}
template <>
inline Bf16 from_whole<Bf16>(float v) {
  return to_bf16(v);
}
template <>
inline F16 from_whole<F16>(float v) {
  return to_f16(v);
}
template <class T>
double number(T v) {
  return static_cast<double>(v);
}
template <>
inline double number(Bf16 v) {
  return to_float(v);
}
template <>
inline double number(F16 v) {
  return to_float(v);
}

inline const std::vector<std::size_t>& device_sizes(bool brief) {
  static const std::vector<std::size_t> all{0, 1, 3, 17, 1000, 20011}, some{17, 20011};
  return brief ? some : all;
}

template <class T>
void check_device_type(const DeviceMaker& make, Collective& c, Stream& stream, DType dtype) {
  Device& device = *make.device;
  const auto ranks = static_cast<std::size_t>(make.size), me = static_cast<std::size_t>(make.rank);
  const auto values = [&](std::size_t n) {
    std::vector<T> all(n);
    for (std::size_t i = 0; i < n; ++i) all[i] = from_whole<T>(whole<float>(make.rank, i));
    return all;
  };
  const auto total = [&](std::size_t i) {
    double sum = 0;
    for (int r = 0; r < make.size; ++r) sum += whole<double>(r, i);
    return sum;
  };
  const auto largest = [&](std::size_t i) {
    double best = 0;
    for (int r = 0; r < make.size; ++r) best = std::max(best, whole<double>(r, i));
    return best;
  };
  for (std::size_t n : device_sizes(make.brief)) {
    for (Reduce reduce : {Reduce::sum, Reduce::max}) {
      OnDevice<T> data(device, stream, dtype, values(n));
      c.all_reduce(data.tensor(), reduce, stream);
      data.fetch();
      stream.synchronize();
      for (std::size_t i = 0; i < n; ++i)
        require(number(data[i]) == (reduce == Reduce::sum ? total(i) : largest(i)), "all_reduce of {} {}: element {}",
                n, name_of(dtype), i);
    }
    for (bool in_place : {false, true}) {
      OnDevice<T> in(device, stream, dtype, values(n * ranks)), apart(device, stream, dtype, std::vector<T>(n));
      c.reduce_scatter(in.tensor(), in_place ? in.tensor(me * n, n) : apart.tensor(), Reduce::sum, stream);
      in.fetch();
      apart.fetch();
      stream.synchronize();
      for (std::size_t i = 0; i < n; ++i)
        require(number(in_place ? in[me * n + i] : apart[i]) == total(me * n + i),
                "reduce_scatter of {} {} (in place: {}): element {}", n, name_of(dtype), in_place, i);
    }
    for (bool in_place : {false, true}) {
      std::vector<T> placed(n * ranks);
      const std::vector<T> own = values(n);
      std::copy(own.begin(), own.end(), placed.begin() + static_cast<std::ptrdiff_t>(me * n));
      OnDevice<T> out(device, stream, dtype, placed), apart(device, stream, dtype, own);
      c.all_gather(in_place ? out.tensor(me * n, n) : apart.tensor(), out.tensor(), stream);
      out.fetch();
      stream.synchronize();
      for (std::size_t i = 0; i < n * ranks; ++i)
        require(number(out[i]) == whole<double>(static_cast<int>(i / n), i % n),
                "all_gather of {} {} (in place: {}): element {}", n, name_of(dtype), in_place, i);
    }
    for (int root = 0; root < make.size; ++root) {
      OnDevice<T> data(device, stream, dtype, values(n));
      c.broadcast(data.tensor(), root, stream);
      data.fetch();
      stream.synchronize();
      for (std::size_t i = 0; i < n; ++i)
        require(number(data[i]) == whole<double>(root, i), "broadcast of {} {}: element {}", n, name_of(dtype), i);
    }
  }
}

/// The bits of the documented tree, as the CPU gives them.
inline void check_device_fixed_order(const DeviceMaker& make, Collective& c, Stream& stream) {
  Device& device = *make.device;
  const auto ranks = static_cast<std::size_t>(make.size), me = static_cast<std::size_t>(make.rank);
  const auto wide = [&](std::size_t i) { return tree_sum([&](int r) { return rough(r, i); }, 0, make.size); };
  const auto narrow = [&](std::size_t i) {
    if (make.size == 1) return to_bf16(rough(0, i));
    return to_bf16(tree_sum([&](int r) { return to_float(to_bf16(rough(r, i))); }, 0, make.size));
  };
  for (std::size_t n : device_sizes(make.brief)) {
    std::vector<float> mine(n * ranks);
    std::vector<Bf16> half(n * ranks);
    for (std::size_t i = 0; i < mine.size(); ++i) half[i] = to_bf16(mine[i] = rough(make.rank, i));
    OnDevice<float> all(device, stream, DType::f32, mine), shards(device, stream, DType::f32, mine);
    OnDevice<Bf16> half_all(device, stream, DType::bf16, half), half_shards(device, stream, DType::bf16, half);
    c.all_reduce(all.tensor(), Reduce::sum, stream);
    c.reduce_scatter(shards.tensor(), shards.tensor(me * n, n), Reduce::sum, stream);
    c.all_reduce(half_all.tensor(), Reduce::sum, stream);
    c.reduce_scatter(half_shards.tensor(), half_shards.tensor(me * n, n), Reduce::sum, stream);
    all.fetch();
    shards.fetch();
    half_all.fetch();
    half_shards.fetch();
    stream.synchronize();
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const float expected = wide(i);
      require(std::memcmp(&all[i], &expected, sizeof expected) == 0, "bits of {} sums: element {}", n, i);
      require(half_all[i].bits == narrow(i).bits, "bits of {} bfloat16 sums: element {}", n, i);
    }
    for (std::size_t i = me * n; i < (me + 1) * n; ++i) {
      const float expected = wide(i);
      require(std::memcmp(&shards[i], &expected, sizeof expected) == 0, "bits of a shard of {}: element {}", n, i);
      require(half_shards[i].bits == narrow(i).bits, "bits of a bfloat16 shard of {}: element {}", n, i);
    }
  }
}

/// Many calls under way, each on what the one before it left, on two streams in turn.
inline void check_device_order(const DeviceMaker& make, Collective& c) {
  Device& device = *make.device;
  const std::size_t n = 5000;
  const auto first = device.make_stream(StreamUse::communication), second = device.make_stream(StreamUse::compute);
  const auto event = device.make_event();
  OnDevice<float> data(device, *first, DType::f32, std::vector<float>(n, 1));
  for (int i = 0; i < 4; ++i) {
    Stream &now = i % 2 == 0 ? *first : *second, &next = i % 2 == 0 ? *second : *first;
    c.all_reduce(data.tensor(), Reduce::sum, now);
    c.broadcast(data.tensor(), make.size - 1, now);
    now.record(*event);
    next.wait(*event);
  }
  data.fetch();
  first->synchronize();
  float expected = 1;
  for (int i = 0; i < 4; ++i) expected *= static_cast<float>(make.size);
  for (std::size_t i = 0; i < n; ++i) require(data[i] == expected, "a chain of collectives: element {}", i);
}

inline void check_device_collectives(const DeviceMaker& make) {
  const auto stream = make.device->make_stream(StreamUse::communication);
  {
    const auto c = make.collective(Algorithm::automatic);
    require(c->rank() == make.rank && c->size() == make.size, "rank and size of the collective");
    check_device_type<float>(make, *c, *stream, DType::f32);
    check_device_type<F16>(make, *c, *stream, DType::f16);
    if (!make.brief) {
      check_device_type<double>(make, *c, *stream, DType::f64);
      check_device_type<std::uint8_t>(make, *c, *stream, DType::u8);
      check_device_type<std::int32_t>(make, *c, *stream, DType::i32);
      check_device_type<std::int64_t>(make, *c, *stream, DType::i64);
      check_device_type<std::uint64_t>(make, *c, *stream, DType::u64);
      check_device_type<Bf16>(make, *c, *stream, DType::bf16);
    }
    check_device_order(make, *c);
    c->check();
  }
  const auto c = make.collective(Algorithm::fixed_order);
  if (!make.brief) {
    check_device_type<float>(make, *c, *stream, DType::f32);
    check_device_type<Bf16>(make, *c, *stream, DType::bf16);
  }
  check_device_fixed_order(make, *c, *stream);
  check_device_order(make, *c);
  c->check();
}

}  // namespace dtrain::comm::suite
