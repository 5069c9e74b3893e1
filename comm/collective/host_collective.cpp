// The Collective of cpu streams: enqueues blocking calls of a Communicator as host tasks, numbered.
#include <atomic>

#include <fmt/format.h>

#include "comm/collective/communicator.hpp"
#include "runtime/device/device.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

class HostCollective final : public Collective {
 public:
  explicit HostCollective(std::unique_ptr<Communicator> communicator) : communicator_(std::move(communicator)) {}

  int rank() const noexcept override { return communicator_->rank(); }
  int size() const noexcept override { return communicator_->size(); }

  void all_reduce(Tensor inout, Reduce reduce, Stream& stream) override {
    enqueue("all_reduce", inout, stream,
            [c = communicator_.get(), data = inout.data, n = count(inout), dtype = inout.desc.dtype, reduce] {
              c->all_reduce(data, n, dtype, reduce);
            });
  }

  void reduce_scatter(Tensor in, Tensor out, Reduce reduce, Stream& stream) override {
    check_shard("reduce_scatter", out, in);
    enqueue("reduce_scatter", in, stream,
            [c = communicator_.get(), in = in.data, out = out.data, n = count(out), dtype = in.desc.dtype, reduce] {
              c->reduce_scatter(in, out, n, dtype, reduce);
            });
  }

  void all_gather(Tensor in, Tensor out, Stream& stream) override {
    check_shard("all_gather", in, out);
    enqueue("all_gather", out, stream,
            [c = communicator_.get(), in = in.data, out = out.data, n = count(in), dtype = in.desc.dtype] {
              c->all_gather(in, out, n, dtype);
            });
  }

  void broadcast(Tensor inout, int root, Stream& stream) override {
    if (root < 0 || root >= size()) throw BugError(fmt::format("broadcast from rank {} of {}", root, size()));
    enqueue("broadcast", inout, stream,
            [c = communicator_.get(), data = inout.data, n = count(inout), dtype = inout.desc.dtype, root] {
              c->broadcast(data, n, dtype, root);
            });
  }

 private:
  static std::size_t count(const Tensor& t) { return static_cast<std::size_t>(t.elements()); }

  void check_shard(const char* what, const Tensor& shard, const Tensor& whole) const {
    if (shard.desc.dtype != whole.desc.dtype || shard.elements() * size() != whole.elements()) {
      throw BugError(fmt::format("{}: a shard of {} elements and {} in all do not fit {} ranks", what, shard.elements(),
                                 whole.elements(), size()));
    }
  }

  template <class Call>
  void enqueue(const char* what, const Tensor& tensor, Stream& stream, Call call) {
    const std::uint64_t number = ++sequence_;
    if (tensor.elements() == 0) return;
    stream.host(HostTask::of([call, what, number, rank = rank(), bytes = tensor.bytes()] {
      try {
        call();
      } catch (const CommError& e) {
        throw CommError(
            fmt::format("{} number {} ({} bytes) failed on rank {}: {}", what, number, bytes, rank, e.what()), rank,
            number);
      }
    }));
  }

  std::unique_ptr<Communicator> communicator_;
  std::atomic<std::uint64_t> sequence_{0};
};

}  // namespace

std::unique_ptr<Collective> make_host_collective(std::unique_ptr<Communicator> communicator) {
  return std::make_unique<HostCollective>(std::move(communicator));
}

}  // namespace dtrain::comm
