#include "comm/nccl.hpp"

#include <cstring>

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include "runtime/device.hpp"
#include "runtime/error.hpp"

namespace dtrain::comm {

namespace {

ncclDataType_t datatype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::f64:
      return ncclFloat64;
    case DType::u8:
      return ncclUint8;
    case DType::i32:
      return ncclInt32;
    case DType::i64:
      return ncclInt64;
    case DType::u64:
      return ncclUint64;
  }
  throw BugError("an element type that NCCL does not know");
}

ncclRedOp_t operation(Reduce reduce) {
  return reduce == Reduce::sum ? ncclSum : ncclMax;
}

cudaStream_t native(Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

class NcclCollective final : public Collective {
 public:
  NcclCollective(Group& group, int ordinal) : rank_(group.rank()), size_(group.size()) {
    if (cudaSetDevice(ordinal) != cudaSuccess) {
      throw DeviceError(fmt::format("cannot select GPU {}: {}", ordinal, cudaGetErrorString(cudaGetLastError())));
    }
    ncclUniqueId id{};
    group.agree([&] {
      if (rank_ == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    });
    std::vector<std::byte> bytes(sizeof id);
    std::memcpy(bytes.data(), &id, sizeof id);
    group.broadcast(bytes, 0);
    std::memcpy(&id, bytes.data(), sizeof id);
    check(ncclCommInitRank(&comm_, size_, id, rank_), "ncclCommInitRank");
  }
  ~NcclCollective() override {
    if (comm_ == nullptr) return;
    // Destroying waits for the other ranks; after an error there may be none.
    if (failed_) {
      ncclCommAbort(comm_);
    } else {
      ncclCommDestroy(comm_);
    }
  }
  NcclCollective(const NcclCollective&) = delete;
  NcclCollective& operator=(const NcclCollective&) = delete;

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  void all_reduce(Tensor t, Reduce reduce, Stream& stream) override {
    begin();
    check(ncclAllReduce(t.data, t.data, count(t), datatype(t.desc.dtype), operation(reduce), comm_, native(stream)),
          "ncclAllReduce");
  }
  void reduce_scatter(Tensor in, Tensor out, Reduce reduce, Stream& stream) override {
    begin();
    check(ncclReduceScatter(in.data, out.data, count(out), datatype(in.desc.dtype), operation(reduce), comm_,
                            native(stream)),
          "ncclReduceScatter");
  }
  void all_gather(Tensor in, Tensor out, Stream& stream) override {
    begin();
    check(ncclAllGather(in.data, out.data, count(in), datatype(in.desc.dtype), comm_, native(stream)), "ncclAllGather");
  }
  void broadcast(Tensor t, int root, Stream& stream) override {
    begin();
    check(ncclBroadcast(t.data, t.data, count(t), datatype(t.desc.dtype), root, comm_, native(stream)),
          "ncclBroadcast");
  }

 private:
  static std::size_t count(const Tensor& t) { return static_cast<std::size_t>(t.elements()); }

  // Numbers the call, and reports what an earlier one met on the way: NCCL's errors come late.
  void begin() {
    ++sequence_;
    ncclResult_t late = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &late), "ncclCommGetAsyncError");
    check(late, "an earlier collective");
  }

  void check(ncclResult_t result, const char* what) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    failed_ = true;
    throw CommError(fmt::format("{} (number {}) failed on rank {}: {}; {}", what, sequence_, rank_,
                                ncclGetErrorString(result), ncclGetLastError(comm_)),
                    rank_, sequence_);
  }

  int rank_, size_;
  ncclComm_t comm_ = nullptr;
  std::uint64_t sequence_ = 0;
  bool failed_ = false;
};

}  // namespace

bool nccl_available() noexcept {
  return true;
}

std::string nccl_version() {
  int v = 0;
  if (ncclGetVersion(&v) != ncclSuccess) return "unknown";
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

std::unique_ptr<Collective> make_nccl_collective(Group& group, int ordinal) {
  return std::make_unique<NcclCollective>(group, ordinal);
}

}  // namespace dtrain::comm
