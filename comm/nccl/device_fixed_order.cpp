#include "comm/nccl/device_fixed_order.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

constexpr std::size_t aligned = 64;  // elements: shards begin where whole vectors do

Tensor view(DType dtype, void* data, std::size_t n) {
  return {{dtype, Shape{static_cast<std::int64_t>(n)}}, data};
}

class DeviceFixedOrder final : public Collective {
 public:
  DeviceFixedOrder(Device& device, std::unique_ptr<DeviceExchange> below, std::size_t workspace_bytes)
      : device_(device),
        below_(std::move(below)),
        ranks_(static_cast<std::size_t>(below_->size())),
        room_(std::max<std::size_t>(workspace_bytes / sizeof(float) / ranks_ / aligned, 1) * aligned),
        wide_(memory_of(*below_, device), ranks_ * room_ * sizeof(float)),
        narrow_(memory_of(*below_, device), ranks_ * room_ * size_of(DType::bf16)),
        sends_(ranks_),
        receives_(ranks_) {
    plan(0, ranks_);
  }

  int rank() const noexcept override { return below_->rank(); }
  int size() const noexcept override { return below_->size(); }

  void all_reduce(Tensor t, Reduce reduce, Stream& stream) override {
    if (reduce == Reduce::max) return below_->all_reduce(t, reduce, stream);
    const DType dtype = added(t.desc.dtype);
    const auto count = static_cast<std::size_t>(t.elements());
    // Any cut gives the same bits: each element is summed by one tree, whoever does it.
    for (std::size_t begin = 0; begin < count; begin += ranks_ * room_) {
      const std::size_t size = std::min(ranks_ * room_, count - begin);
      const std::size_t each = (size + ranks_ * aligned - 1) / (ranks_ * aligned) * aligned;
      const auto edge = [&](std::size_t r) { return begin + std::min(size, r * each); };
      const std::size_t own = edge(own_rank() + 1) - edge(own_rank());
      for (std::size_t r = 0; r < ranks_; ++r) {
        sends_[r] = transfer(r, at(t, edge(r)), edge(r + 1) - edge(r), dtype);
        receives_[r] = transfer(r, part(r, dtype), own, dtype);
      }
      below_->exchange(sends_, receives_, stream);
      add(own, dtype, stream);
      for (std::size_t r = 0; r < ranks_; ++r) {
        sends_[r] = transfer(r, part(0, dtype), own, dtype);
        receives_[r] = transfer(r, at(t, edge(r)), edge(r + 1) - edge(r), dtype);
      }
      below_->exchange(sends_, receives_, stream);
    }
  }

  void reduce_scatter(Tensor in, Tensor out, Reduce reduce, Stream& stream) override {
    if (reduce == Reduce::max) return below_->reduce_scatter(in, out, reduce, stream);
    const DType dtype = added(in.desc.dtype);
    const auto shard = static_cast<std::size_t>(out.elements());
    if (in.desc.dtype != out.desc.dtype || static_cast<std::size_t>(in.elements()) != ranks_ * shard)
      throw BugError("reduce_scatter: a shard and the whole do not fit the ranks");
    for (std::size_t begin = 0; begin < shard; begin += room_) {
      const std::size_t own = std::min(room_, shard - begin);
      for (std::size_t r = 0; r < ranks_; ++r) {
        sends_[r] = transfer(r, at(in, r * shard + begin), own, dtype);
        receives_[r] = transfer(r, part(r, dtype), own, dtype);
      }
      below_->exchange(sends_, receives_, stream);
      add(own, dtype, stream);
      device_.copy(at(out, begin), part(0, dtype), own * size_of(dtype), stream);
    }
  }

  void all_gather(Tensor in, Tensor out, Stream& stream) override { below_->all_gather(in, out, stream); }
  void broadcast(Tensor t, int root, Stream& stream) override { below_->broadcast(t, root, stream); }
  bool recordable() const noexcept override { return below_->recordable(); }
  void check() override { below_->check(); }
  std::string state() const override { return below_->state(); }
  Memory* memory() noexcept override { return below_->memory(); }

 private:
  /// parts [into] += parts [from], at the same elements of each.
  struct Addition {
    std::array<const float*, 2> parts;
    float* out;
  };

  static Memory& memory_of(Collective& below, Device& device) {
    Memory* const special = below.memory();
    return special != nullptr ? *special : device;
  }
  static DType added(DType dtype) {
    if (dtype != DType::f32 && dtype != DType::bf16)
      throw CommError("the fixed order adds float32 and bfloat16 only on a GPU, not " + std::string(name_of(dtype)));
    return dtype;
  }
  static std::byte* at(const Tensor& t, std::size_t element) {
    return static_cast<std::byte*>(t.data) + element * size_of(t.desc.dtype);
  }
  static DeviceExchange::Transfer transfer(std::size_t peer, void* data, std::size_t elements, DType dtype) {
    return {static_cast<int>(peer), data, elements * size_of(dtype)};
  }
  std::size_t own_rank() const { return static_cast<std::size_t>(rank()); }
  float* sum(std::size_t rank) const { return static_cast<float*>(wide_.data()) + rank * room_; }
  /// Where what a rank sent arrives; the first rank's is where the sum goes out.
  void* part(std::size_t rank, DType dtype) const {
    if (dtype == DType::f32) return sum(rank);
    return narrow_.at(rank * room_ * size_of(DType::bf16));
  }

  /// The tree over ranks [lo, hi), whose sum lies where the first rank's part was. Its addresses never change: a device
  /// reads them when the stream comes there, and again in each replay.
  void plan(std::size_t lo, std::size_t hi) {
    if (hi - lo == 1) return;
    const std::size_t mid = lo + std::bit_ceil(hi - lo) / 2;
    plan(lo, mid);
    plan(mid, hi);
    additions_.push_back({{sum(mid), sum(lo)}, sum(lo)});
  }

  void add(std::size_t count, DType dtype, Stream& stream) {
    if (count == 0) return;
    const bool narrow = dtype == DType::bf16;
    for (std::size_t r = 0; r < ranks_ && narrow; ++r)
      device_.kernels().cast(view(DType::bf16, part(r, dtype), count), view(DType::f32, sum(r), count), stream);
    for (const Addition& a : additions_) device_.kernels().add(a.parts, a.out, 0, count, stream);
    if (narrow)
      device_.kernels().cast(view(DType::f32, sum(0), count), view(DType::bf16, part(0, dtype), count), stream);
  }

  Device& device_;
  const std::unique_ptr<DeviceExchange> below_;
  const std::size_t ranks_, room_;  // elements of a rank's part
  const Buffer wide_, narrow_;
  std::vector<DeviceExchange::Transfer> sends_, receives_;
  std::vector<Addition> additions_;
};

}  // namespace

std::unique_ptr<Collective> make_device_fixed_order(Device& device, std::unique_ptr<DeviceExchange> below,
                                                    std::size_t workspace_bytes) {
  return std::make_unique<DeviceFixedOrder>(device, std::move(below), workspace_bytes);
}

}  // namespace dtrain::comm
