#include "comm/world/marked.hpp"

namespace dtrain::comm {

namespace {

class MarkedGroup final : public Group {
 public:
  MarkedGroup(std::unique_ptr<Group> group, HostBoard& board) : group_(std::move(group)), board_(board) {}
  int rank() const noexcept override { return group_->rank(); }
  int size() const noexcept override { return group_->size(); }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    const Exchange exchange(board_);
    return group_->all_gather(mine);
  }
  void broadcast(std::vector<std::byte>& bytes, int root) override {
    const Exchange exchange(board_);
    group_->broadcast(bytes, root);
  }
  void barrier() override {
    const Exchange exchange(board_);
    group_->barrier();
  }

 private:
  std::unique_ptr<Group> group_;
  HostBoard& board_;
};

class MarkedCommunicator final : public Communicator {
 public:
  MarkedCommunicator(std::unique_ptr<Communicator> communicator, HostBoard& board)
      : communicator_(std::move(communicator)), board_(board) {}
  int rank() const noexcept override { return communicator_->rank(); }
  int size() const noexcept override { return communicator_->size(); }

  void all_reduce(void* inout, std::size_t count, DType dtype, Reduce reduce) override {
    const Exchange exchange(board_);
    communicator_->all_reduce(inout, count, dtype, reduce);
  }
  void reduce_scatter(void* in, void* out, std::size_t shard, DType dtype, Reduce reduce) override {
    const Exchange exchange(board_);
    communicator_->reduce_scatter(in, out, shard, dtype, reduce);
  }
  void all_gather(const void* in, void* out, std::size_t shard, DType dtype) override {
    const Exchange exchange(board_);
    communicator_->all_gather(in, out, shard, dtype);
  }
  void broadcast(void* inout, std::size_t count, DType dtype, int root) override {
    const Exchange exchange(board_);
    communicator_->broadcast(inout, count, dtype, root);
  }

  // Transfers between two ranks are the parts of an exchange, and not the same number on each.
  void reserve(int slots) override { communicator_->reserve(slots); }
  void post_send(int slot, int to, int lane, const void* data, std::size_t bytes) override {
    communicator_->post_send(slot, to, lane, data, bytes);
  }
  void post_receive(int slot, int from, int lane, void* data, std::size_t bytes) override {
    communicator_->post_receive(slot, from, lane, data, bytes);
  }
  void wait(int first, int count) override { communicator_->wait(first, count); }

 private:
  std::unique_ptr<Communicator> communicator_;
  HostBoard& board_;
};

}  // namespace

std::unique_ptr<Group> make_marked(std::unique_ptr<Group> group, HostBoard& board) {
  return std::make_unique<MarkedGroup>(std::move(group), board);
}

std::unique_ptr<Communicator> make_marked(std::unique_ptr<Communicator> communicator, HostBoard& board) {
  return std::make_unique<MarkedCommunicator>(std::move(communicator), board);
}

}  // namespace dtrain::comm
