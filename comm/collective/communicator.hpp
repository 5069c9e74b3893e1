// Communicator: the other ranks for host memory, blocking. What MPI and local threads implement, and what the
// fixed-order all-reduce is built on.
// One thread at a time uses a Communicator (the communication stream's own thread, as a rule); it owns its requests and
// its channel to the other ranks, never the data.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/ranks/group.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {
class Device;
}

namespace dtrain::comm {

/// All ranks call the same sequence with the same sizes and all in place or none. Counts are in elements and may exceed
/// 2^31. No call allocates. Errors: CommError.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  virtual void all_reduce(void* inout, std::size_t count, DType, Reduce) = 0;
  /// `in`: size() shards of `shard` elements. `out` may be the own shard of `in`; the other shards of `in` may be
  /// overwritten then.
  virtual void reduce_scatter(void* in, void* out, std::size_t shard, DType, Reduce) = 0;
  /// `out`: size() shards of `shard` elements. `in` may be the own shard of `out`.
  virtual void all_gather(const void* in, void* out, std::size_t shard, DType) = 0;
  virtual void broadcast(void* inout, std::size_t count, DType, int root) = 0;

  // Point to point: messages between two ranks on one lane arrive in order. A slot names one transfer in flight; it is
  // free again after wait().
  static constexpr int lanes = 2;
  /// Room for slots [0, slots). Called once before the first transfer.
  virtual void reserve(int slots) = 0;
  /// `bytes` below 2^31.
  virtual void post_send(int slot, int to, int lane, const void* data, std::size_t bytes) = 0;
  virtual void post_receive(int slot, int from, int lane, void* data, std::size_t bytes) = 0;
  /// Blocks until the slots [first, first + count) are done. Where both directions wait, receives come first.
  virtual void wait(int first, int count) = 0;
};

/// The only rank: every exchange is a copy at most.
std::unique_ptr<Communicator> make_solo_communicator();

/// The same for any device's streams; the Device outlives it.
std::unique_ptr<Collective> make_solo_collective(Device&);

/// A Collective for cpu streams: each call is enqueued as a host task, so the stream's own thread makes the blocking
/// call. Calls are numbered; a CommError carries the number.
std::unique_ptr<Collective> make_host_collective(std::unique_ptr<Communicator>);

}  // namespace dtrain::comm
