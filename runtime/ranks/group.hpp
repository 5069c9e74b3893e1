// The other ranks as runtime sees them: Group (host side) and Collective (device side).
// comm/ implements both and launch/ hands them down; a Group is used by one thread at a time, at step boundaries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/tensor/error.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {

class Memory;
class Stream;

enum class Reduce : std::uint8_t { sum, max };

/// Device side: asynchronous, ordered on the stream; the host never blocks. All ranks call the same sequence with the
/// same sizes.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  virtual void all_reduce(Tensor inout, Reduce, Stream&) = 0;
  /// `in` has size() equal shards; `out` (may be the own shard of `in`) gets the sum of everybody's shard rank().
  virtual void reduce_scatter(Tensor in, Tensor out, Reduce, Stream&) = 0;
  /// `in` (may be the own shard of `out`) is gathered into `out`, in rank order.
  virtual void all_gather(Tensor in, Tensor out, Stream&) = 0;
  virtual void broadcast(Tensor inout, int root, Stream&) = 0;
  /// True where calls may be part of a Device::record.
  virtual bool recordable() const noexcept { return false; }
  /// Throws CommError where an earlier call has failed, so that what it left in memory is worth nothing. Where streams
  /// carry errors themselves, as on a cpu, there is nothing to throw here.
  virtual void check() {}
  /// One line for whoever asks why a run stands still: "nccl 2.28.9: no error, call 1234 is all_reduce of 26214400
  /// bytes". From any thread; takes no lock that a call may hold for long. Empty where there is nothing to say.
  virtual std::string state() const { return {}; }
  /// Where tensors that travel again and again lie best; null: in the device's own memory. Goes with the collective.
  virtual Memory* memory() noexcept { return nullptr; }
};

/// Host side: small messages, blocking, for set-up and step boundaries.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  /// One message from each rank, in rank order; sizes may differ.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) = 0;
  /// `bytes` of root replaces that of the others (resized).
  virtual void broadcast(std::vector<std::byte>& bytes, int root) = 0;
  virtual void barrier() = 0;

  // Written once, on top of the three above.
  /// Runs `work` on every rank; if it throws on any, all ranks throw the same error: the first failing rank's, its text
  /// prefixed with "rank R: " where it did not fail alike on all.
  void agree(const std::function<void()>& work);
  /// True on all ranks if it is true on any.
  bool any(bool mine);
  std::vector<std::string> all_gather(const std::string& mine);
  /// Root's text on all ranks; what the others give is ignored.
  std::string broadcast(const std::string& mine, int root = 0);
  /// A plain value of each rank, in rank order.
  template <class T>
  std::vector<T> all_values(const T& mine) {
    std::vector<T> values;
    for (const auto& bytes : all_gather(std::as_bytes(std::span(&mine, 1)))) {
      if (bytes.size() != sizeof(T)) throw BugError("ranks called different Group functions");
      std::memcpy(&values.emplace_back(), bytes.data(), sizeof(T));
    }
    return values;
  }
};

/// "rank 3", "ranks 2, 3 and 5 to 8".
std::string ranks_text(std::vector<int> ranks);

/// A group of one, for a single process.
class SoloGroup final : public Group {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    return {{mine.begin(), mine.end()}};
  }
  void broadcast(std::vector<std::byte>&, int) override {}
  void barrier() override {}
};

}  // namespace dtrain
