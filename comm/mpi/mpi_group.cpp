#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

#include "comm/mpi/mpi_detail.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

constexpr std::size_t piece = std::size_t{1} << 30;  // MPI counts are int

class MpiGroup final : public Group {
 public:
  explicit MpiGroup(MPI_Comm parent) : comm_(parent) {}
  int rank() const noexcept override { return comm_.rank(); }
  int size() const noexcept override { return comm_.size(); }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    const auto ranks = static_cast<std::size_t>(size());
    std::vector<std::uint64_t> sizes(ranks);
    const std::uint64_t bytes = mine.size();
    check_mpi(MPI_Allgather(&bytes, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, comm_.get()), "MPI_Allgather");
    std::vector<std::vector<std::byte>> out(ranks);
    std::uint64_t total = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      out[r].resize(sizes[r]);
      total += sizes[r];
    }
    if (total >= piece) {
      std::copy(mine.begin(), mine.end(), out[static_cast<std::size_t>(rank())].begin());
      for (std::size_t r = 0; r < ranks; ++r) broadcast_bytes(out[r], static_cast<int>(r));
      return out;
    }
    std::vector<int> counts(ranks), starts(ranks);
    for (std::size_t r = 0, at = 0; r < ranks; at += sizes[r++]) {
      counts[r] = static_cast<int>(sizes[r]);
      starts[r] = static_cast<int>(at);
    }
    std::vector<std::byte> all(total);
    check_mpi(MPI_Allgatherv(mine.data(), static_cast<int>(bytes), MPI_BYTE, all.data(), counts.data(), starts.data(),
                             MPI_BYTE, comm_.get()),
              "MPI_Allgatherv");
    for (std::size_t r = 0; r < ranks; ++r) std::copy_n(all.begin() + starts[r], sizes[r], out[r].begin());
    return out;
  }

  void broadcast(std::vector<std::byte>& bytes, int root) override {
    if (root < 0 || root >= size()) throw BugError(fmt::format("broadcast from rank {} of {}", root, size()));
    std::uint64_t count = bytes.size();
    check_mpi(MPI_Bcast(&count, 1, MPI_UINT64_T, root, comm_.get()), "MPI_Bcast");
    bytes.resize(count);
    broadcast_bytes(bytes, root);
  }

  void barrier() override { check_mpi(MPI_Barrier(comm_.get()), "MPI_Barrier"); }

 private:
  void broadcast_bytes(std::vector<std::byte>& bytes, int root) {
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      const int n = static_cast<int>(std::min(piece, bytes.size() - at));
      check_mpi(MPI_Bcast(bytes.data() + at, n, MPI_BYTE, root, comm_.get()), "MPI_Bcast");
    }
  }

  MpiComm comm_;
};

}  // namespace

std::unique_ptr<Group> make_mpi_group(MPI_Comm parent) {
  return std::make_unique<MpiGroup>(parent);
}

}  // namespace dtrain::comm
