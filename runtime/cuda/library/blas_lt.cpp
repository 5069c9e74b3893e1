#include "runtime/cuda/library/blas_lt.hpp"

#include <array>
#include <type_traits>

#include <cublasLt.h>
#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw DeviceError(fmt::format("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status)));
}

/// Owns what a pair of cublasLt functions creates and destroys.
template <class T, cublasStatus_t (*destroy)(T)>
class Owned {
 public:
  Owned() = default;
  ~Owned() {
    if (value_) destroy(value_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  T* fill() noexcept { return &value_; }
  T get() const noexcept { return value_; }

 private:
  T value_ = nullptr;
};
using Handle = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(const Description& d, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(d.get(), attribute, &value, sizeof value), "describing a product");
}
template <class T>
void set(const Preference& p, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check(cublasLtMatmulPreferenceSetAttribute(p.get(), attribute, &value, sizeof value), "saying what is preferred");
}

cudaDataType_t type_of(DType dtype) {
  if (dtype == DType::f32) return CUDA_R_32F;
  if (dtype == DType::bf16) return CUDA_R_16BF;
  if (dtype == DType::f16) return CUDA_R_16F;
  throw BugError(fmt::format("no product has {}", name_of(dtype)));
}

cublasLtEpilogue_t epilogue_of(Product::Epilogue epilogue) {
  constexpr cublasLtEpilogue_t of[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU,
                                       CUBLASLT_EPILOGUE_RELU_BIAS,
                                       CUBLASLT_EPILOGUE_BGRADB};  // the last: left is the library's B
  return of[static_cast<std::size_t>(epilogue)];
}

constexpr std::uint64_t most_workspace = std::uint64_t{32} << 20;  // what NVIDIA advises for Hopper
constexpr std::uint32_t alignment = 64;                            // of everything that a plan or a store places
constexpr int most_algorithms = 16;

class Plan final : public ProductPlan {
 public:
  Plan(cublasLtHandle_t handle, const Product& p) : handle_(handle) {
    const bool tf32 = p.factors == DType::f32 && p.tf32;
    check(cublasLtMatmulDescCreate(description_.fill(), tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                   CUDA_R_32F),
          "describing a product");
    const ColumnMajorProduct c = column_major(p);
    set(description_, CUBLASLT_MATMUL_DESC_TRANSA, c.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(description_, CUBLASLT_MATMUL_DESC_TRANSB, c.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(description_, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p.epilogue));
    has_vector_ = p.epilogue != Product::Epilogue::none && p.epilogue != Product::Epilogue::relu;
    if (has_vector_) {
      set(description_, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(p.result)));
      // Its alignment is all that is read of it here.
      point_to(reinterpret_cast<void*>(std::uintptr_t{alignment}));  // NOLINT(performance-no-int-to-ptr)
    }
    const auto lay = [](Layout& layout, DType dtype, std::int64_t rows, std::int64_t columns) {
      check(cublasLtMatrixLayoutCreate(layout.fill(), type_of(dtype), static_cast<std::uint64_t>(rows),
                                       static_cast<std::uint64_t>(columns), rows),
            "describing a matrix");
    };
    lay(a_, p.factors, c.a_rows, c.a_columns);
    lay(b_, p.factors, c.b_rows, c.b_columns);
    lay(d_, p.result, c.m, c.n);
  }

  std::size_t workspace() const noexcept override { return workspace_; }
  /// False where the algorithm does not suit.
  bool choose(const std::string& algorithm) {
    cublasLtMatmulAlgo_t chosen{};
    static_assert(std::is_trivially_copyable_v<cublasLtMatmulAlgo_t>);
    if (!from_hexadecimal(algorithm, &chosen, sizeof chosen)) return false;
    cublasLtMatmulHeuristicResult_t result{};
    if (cublasLtMatmulAlgoCheck(handle_, description_.get(), a_.get(), b_.get(), d_.get(), d_.get(), &chosen,
                                &result) != CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > most_workspace)
      return false;
    algorithm_ = chosen;
    workspace_ = result.workspaceSize;
    return true;
  }

  std::vector<std::string> algorithms(bool nondeterministic) const {
    std::vector<std::string> names;
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(preference.fill()), "saying what is preferred");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(preference, attribute, alignment);
    // Split sums that are added in place come in any order.
    const std::uint32_t reductions =
        nondeterministic ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    std::array<cublasLtMatmulHeuristicResult_t, most_algorithms> found{};
    int count = 0;
    if (cublasLtMatmulAlgoGetHeuristic(handle_, description_.get(), a_.get(), b_.get(), d_.get(), d_.get(),
                                       preference.get(), most_algorithms, found.data(),
                                       &count) != CUBLAS_STATUS_SUCCESS)
      return names;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
      if (!nondeterministic && adds_in_place(found[i].algo)) continue;
      names.push_back(hexadecimal(&found[i].algo, sizeof found[i].algo));
    }
    return names;
  }

  void run(const ProductOperands& o, void* workspace, void* stream) override {
    if (has_vector_ && o.vector != vector_) point_to(o.vector);
    const float one = 1, beta = o.add ? 1.0f : 0.0f;
    check(cublasLtMatmul(handle_, description_.get(), &one, o.right, a_.get(), o.left, b_.get(), &beta, o.out, d_.get(),
                         o.out, d_.get(), &algorithm_, workspace, workspace_, static_cast<cudaStream_t>(stream)),
          "a product");
  }

 private:
  void point_to(void* vector) {
    set(description_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector);
    vector_ = vector;
  }

  static bool adds_in_place(const cublasLtMatmulAlgo_t& algorithm) {
    std::uint32_t scheme = 0;
    std::size_t written = 0;
    check(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                               sizeof scheme, &written),
          "asking how sums are added");
    return scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE;
  }

  cublasLtHandle_t handle_;
  Description description_;
  Layout a_, b_, d_;
  bool has_vector_ = false;
  void* vector_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  std::size_t workspace_ = 0;
};

class Library final : public BlasLt {
 public:
  Library() { check(cublasLtCreate(handle_.fill()), "creating a handle"); }
  std::vector<std::string> algorithms(const Product& product) override {
    return Plan(handle_.get(), product).algorithms(product.nondeterministic);
  }
  std::unique_ptr<ProductPlan> plan(const Product& product, const std::string& algorithm) override {
    auto plan = std::make_unique<Plan>(handle_.get(), product);
    if (!plan->choose(algorithm)) return nullptr;
    return plan;
  }

 private:
  Handle handle_;
};

}  // namespace

std::unique_ptr<BlasLt> make_blas_lt() {
  return std::make_unique<Library>();
}
std::string blas_lt_version() {
  return fmt::format("{}", cublasLtGetVersion());
}

}  // namespace dtrain::cuda
