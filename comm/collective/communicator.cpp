#include "comm/collective/communicator.hpp"

#include <cstring>

#include "runtime/device/device.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

class SoloCommunicator final : public Communicator {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  void all_reduce(void*, std::size_t, DType, Reduce) override {}
  void reduce_scatter(void* in, void* out, std::size_t shard, DType dtype, Reduce) override {
    move(in, out, shard, dtype);
  }
  void all_gather(const void* in, void* out, std::size_t shard, DType dtype) override { move(in, out, shard, dtype); }
  void broadcast(void*, std::size_t, DType, int) override {}
  void reserve(int) override {}
  void post_send(int, int, int, const void*, std::size_t) override { alone(); }
  void post_receive(int, int, int, void*, std::size_t) override { alone(); }
  void wait(int, int) override {}

 private:
  static void move(const void* in, void* out, std::size_t count, DType dtype) {
    if (in != out && count > 0) std::memcpy(out, in, count * size_of(dtype));
  }
  [[noreturn]] static void alone() { throw BugError("a message between ranks in a run of one rank"); }
};

class SoloCollective final : public Collective {
 public:
  explicit SoloCollective(Device& device) : device_(device) {}
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  void all_reduce(Tensor, Reduce, Stream&) override {}
  void reduce_scatter(Tensor in, Tensor out, Reduce, Stream& stream) override { move(in, out, stream); }
  void all_gather(Tensor in, Tensor out, Stream& stream) override { move(in, out, stream); }
  void broadcast(Tensor, int, Stream&) override {}
  bool recordable() const noexcept override { return true; }

 private:
  void move(const Tensor& in, const Tensor& out, Stream& stream) {
    if (in.data != out.data && in.elements() > 0) device_.copy(out.data, in.data, in.bytes(), stream);
  }
  Device& device_;
};

}  // namespace

std::unique_ptr<Collective> make_solo_collective(Device& device) {
  return std::make_unique<SoloCollective>(device);
}

std::unique_ptr<Communicator> make_solo_communicator() {
  return std::make_unique<SoloCommunicator>();
}

}  // namespace dtrain::comm
