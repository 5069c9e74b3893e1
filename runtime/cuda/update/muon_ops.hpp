// MuonProducts: the products of Newton-Schulz steps through cuBLASLt, and Muon's update of one matrix around them.
// Owns a plan for each product of a layout's matrices, and their workspace, made by prepare() at the first update; the
// device and its context outlive it. One thread at a time.
#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "runtime/cuda/context.hpp"
#include "runtime/cuda/library/blas_lt.hpp"
#include "runtime/cuda/update/muon.hpp"
#include "runtime/device/device.hpp"

namespace dtrain {
struct FlatLayout;
}

namespace dtrain::cuda {

class MuonProducts {
 public:
  MuonProducts(Device& device, CudaContext& context) : device_(device), context_(context) {}

  /// Before the update of any matrix of the layout; does something the first time alone. Each plan is the library's
  /// first choice of those with fixed sums, and nothing is measured: ranks that compute the same update need equal
  /// bits. Throws DeviceError.
  void prepare(const Muon&, const FlatLayout&, Stream&);

  /// Device memory: the step, norm_scratch() doubles and matrix_scratch() bytes.
  struct Memory {
    const StepState* step;
    double* norms;
    void* scratch;
  };
  void update(const Muon&, const FlatTables&, const FlatRange&, const FlatMatrix&, const Memory&, Stream&);

 private:
  /// The products of a step: the Gram matrix of the shorter side, its square, and x times their factor.
  struct Plans {
    std::shared_ptr<ProductPlan> gram, square, apply;
  };
  using Key = std::tuple<DType, std::int64_t, std::int64_t>;  // type, rows, columns
  std::shared_ptr<ProductPlan> plan(Product);
  Plans plans(const Muon&, std::int64_t rows, std::int64_t columns);

  Device& device_;
  CudaContext& context_;
  std::map<Key, Plans> plans_;
  std::vector<Buffer> workspaces_;  // the last one is in use, and recorded work may use those before it
};

}  // namespace dtrain::cuda
