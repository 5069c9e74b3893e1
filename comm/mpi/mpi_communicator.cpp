#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "comm/mpi/mpi_detail.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

void check_mpi(int result, const char* what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw CommError(fmt::format("{}: {}", what, std::string(text, static_cast<std::size_t>(length))));
}

std::string mpi_setting(const char* name) {
  int level = 0, variable = 0, length = 0;
  if (MPI_T_init_thread(MPI_THREAD_SINGLE, &level) != MPI_SUCCESS) return {};
  std::string text;
  MPI_T_cvar_handle handle = MPI_T_CVAR_HANDLE_NULL;
  if (MPI_T_cvar_get_index(name, &variable) == MPI_SUCCESS &&
      MPI_T_cvar_handle_alloc(variable, nullptr, &handle, &length) == MPI_SUCCESS) {
    text.resize(static_cast<std::size_t>(std::max(length, 0)) + 1);
    if (MPI_T_cvar_read(handle, text.data()) != MPI_SUCCESS) text.clear();
    text.resize(std::strlen(text.c_str()));
    MPI_T_cvar_handle_free(&handle);
  }
  MPI_T_finalize();
  return text;
}

MpiComm::MpiComm(MPI_Comm parent) {
  check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
}

MpiComm::~MpiComm() {
  // Freeing is collective, and not every rank may come this far; what is left is freed by the end of the process.
  int finalized = 0;
  if (MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0) MPI_Comm_free(&comm_);
}

namespace {

constexpr std::size_t piece = std::size_t{1} << 30;  // elements a call: MPI counts are int

MPI_Datatype datatype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::u8:
      return MPI_UINT8_T;
    case DType::u16:
      return MPI_UINT16_T;
    case DType::i32:
      return MPI_INT32_T;
    case DType::i64:
      return MPI_INT64_T;
    case DType::u64:
      return MPI_UINT64_T;
    case DType::bf16:
    case DType::f16:
      break;
  }
  throw CommError(fmt::format("MPI cannot add {}", name_of(dtype)));
}

// Moved, not added: any type of that size will do.
MPI_Datatype carrier(DType dtype) {
  switch (size_of(dtype)) {
    case 1:
      return MPI_UINT8_T;
    case 2:
      return MPI_UINT16_T;
    case 4:
      return MPI_UINT32_T;
    default:
      return MPI_UINT64_T;
  }
}

MPI_Op operation(Reduce reduce) {
  return reduce == Reduce::sum ? MPI_SUM : MPI_MAX;
}

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(MPI_Comm parent) : comm_(parent) {}
  int rank() const noexcept override { return comm_.rank(); }
  int size() const noexcept override { return comm_.size(); }

  void all_reduce(void* inout, std::size_t count, DType dtype, Reduce reduce) override {
    each_piece(inout, count, dtype, [&](void* data, int n) {
      check_mpi(MPI_Allreduce(MPI_IN_PLACE, data, n, datatype(dtype), operation(reduce), comm_.get()), "MPI_Allreduce");
    });
  }

  void reduce_scatter(void* in, void* out, std::size_t shard, DType dtype, Reduce reduce) override {
    const bool in_place = out == at(in, static_cast<std::size_t>(rank()) * shard, dtype);
    if (!in_place && shard <= piece) {
      if (shard == 0) return;
      check_mpi(
          MPI_Reduce_scatter_block(in, out, static_cast<int>(shard), datatype(dtype), operation(reduce), comm_.get()),
          "MPI_Reduce_scatter_block");
      return;
    }
    // MPI's own in-place form wants the result at the start of the whole buffer; one reduction for each shard does not.
    for (int root = 0; root < size(); ++root) {
      void* from = at(in, static_cast<std::size_t>(root) * shard, dtype);
      for (std::size_t i = 0; i < shard; i += piece) {
        const int n = static_cast<int>(std::min(piece, shard - i));
        void* const data = at(from, i, dtype);
        const void* const send = root == rank() && in_place ? MPI_IN_PLACE : data;
        void* const receive = root == rank() ? at(out, i, dtype) : nullptr;
        check_mpi(MPI_Reduce(send, receive, n, datatype(dtype), operation(reduce), root, comm_.get()), "MPI_Reduce");
      }
    }
  }

  void all_gather(const void* in, void* out, std::size_t shard, DType dtype) override {
    void* const own = at(out, static_cast<std::size_t>(rank()) * shard, dtype);
    const bool in_place = in == own;
    if (shard <= piece) {
      const int n = static_cast<int>(shard);
      check_mpi(MPI_Allgather(in_place ? MPI_IN_PLACE : in, n, carrier(dtype), out, n, carrier(dtype), comm_.get()),
                "MPI_Allgather");
      return;
    }
    if (!in_place) std::copy_n(static_cast<const std::byte*>(in), shard * size_of(dtype), static_cast<std::byte*>(own));
    for (int root = 0; root < size(); ++root) {
      broadcast(at(out, static_cast<std::size_t>(root) * shard, dtype), shard, dtype, root);
    }
  }

  void broadcast(void* inout, std::size_t count, DType dtype, int root) override {
    each_piece(inout, count, dtype, [&](void* data, int n) {
      check_mpi(MPI_Bcast(data, n, carrier(dtype), root, comm_.get()), "MPI_Bcast");
    });
  }

  void reserve(int slots) override { requests_.assign(static_cast<std::size_t>(slots), MPI_REQUEST_NULL); }

  void post_send(int slot, int to, int lane, const void* data, std::size_t bytes) override {
    check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, lane, comm_.get(), &request(slot)), "MPI_Isend");
  }

  void post_receive(int slot, int from, int lane, void* data, std::size_t bytes) override {
    check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, lane, comm_.get(), &request(slot)), "MPI_Irecv");
  }

  void wait(int first, int count) override {
    // Polls without a pause for as long as a message in shared memory takes; then naps, which leave the core to the
    // computation while a network is busy or another rank is late. MPI_Waitall would spin.
    constexpr auto spin = std::chrono::microseconds(300);
    constexpr auto nap = std::chrono::microseconds(20);
    const auto begin = std::chrono::steady_clock::now();
    for (int done = count == 0; done == 0;) {
      check_mpi(MPI_Testall(count, &request(first), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
      if (done == 0 && std::chrono::steady_clock::now() - begin > spin) std::this_thread::sleep_for(nap);
    }
  }

 private:
  static void* at(void* data, std::size_t element, DType dtype) {
    return static_cast<std::byte*>(data) + element * size_of(dtype);
  }

  template <class Call>
  static void each_piece(void* data, std::size_t count, DType dtype, Call call) {
    for (std::size_t i = 0; i < count; i += piece) {
      call(at(data, i, dtype), static_cast<int>(std::min(piece, count - i)));
    }
  }

  MPI_Request& request(int slot) { return requests_[static_cast<std::size_t>(slot)]; }

  MpiComm comm_;
  std::vector<MPI_Request> requests_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm parent) {
  return std::make_unique<MpiCommunicator>(parent);
}

}  // namespace dtrain::comm
