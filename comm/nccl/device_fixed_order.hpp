// The fixed order of fixed_order.hpp for tensors on a GPU: ranks exchange shards, each adds its own in the same
// pairwise tree over the ranks with kernels of its device, and sends the sums to all; the bits are those of the CPU's.
// A decorator that owns the exchange below it and a workspace in device memory; everything is enqueued on the stream of
// the call and may be recorded. The Device outlives it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "comm/collective/config.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

/// A Collective that also moves bytes between pairs of ranks.
class DeviceExchange : public Collective {
 public:
  struct Transfer {
    int peer = 0;  // may be this rank
    void* data = nullptr;
    std::size_t bytes = 0;
  };
  /// All of them at once; receives match the sends of the other ranks in order.
  virtual void exchange(std::span<const Transfer> sends, std::span<const Transfer> receives, Stream&) = 0;
};

/// Sums of f32 and bf16 in that order, other sums are a CommError; everything else is passed on.
/// `workspace_bytes`: of device memory, and half as much again for bf16; larger tensors take several rounds.
std::unique_ptr<Collective> make_device_fixed_order(Device&, std::unique_ptr<DeviceExchange>,
                                                    std::size_t workspace_bytes);

}  // namespace dtrain::comm
