// Products of matrices through cuBLASLt behind plain structs: what a product computes, and a plan that runs one.
// A BlasLt owns the library's handle (one a device); a plan owns its descriptors, made once, and runs on the stream it
// is given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/tensor/tensor.hpp"

namespace dtrain::cuda {

/// out[rows, columns] = left[rows, inner] * right[inner, columns], all row by row in memory, sums in float; then what
/// `epilogue` says. A transposed factor lies as [inner, rows] or [columns, inner].
struct Product {
  enum class Epilogue : std::uint8_t {
    none,
    bias,       // + bias[columns], of the dtype of `result`
    relu,       // max(0, .)
    bias_relu,  // both
    left_sums,  // besides: the sums of `left` over `inner`, [rows], of the dtype of `result`: the bias' gradient
  };
  std::int64_t rows = 0, columns = 0, inner = 0;
  bool left_transposed = false, right_transposed = false;
  DType factors = DType::f32, result = DType::f32;
  Epilogue epilogue = Epilogue::none;
  bool tf32 = false;              // float32 factors may be rounded to TF32
  bool nondeterministic = false;  // split sums may be added in any order

  /// All of it in one line: names a product in AlgorithmChoices.
  std::string key() const;
};

/// A product as the library sees it: column by column, so that left and right change places.
struct ColumnMajorProduct {
  std::int64_t m = 0, n = 0, k = 0;                                   // D is m x n
  bool a_transposed = false, b_transposed = false;                    // A is m x k, B is k x n once transposed
  std::int64_t a_rows = 0, a_columns = 0, b_rows = 0, b_columns = 0;  // as they lie; rows are the leading dimension
};
ColumnMajorProduct column_major(const Product&) noexcept;

/// Addresses of one product; `vector`: the bias, or where sums go.
struct ProductOperands {
  const void *left = nullptr, *right = nullptr;
  void *out = nullptr, *vector = nullptr;
  bool add = false;  // to what `out` holds
};

/// A product prepared for one algorithm.
class ProductPlan {
 public:
  virtual ~ProductPlan() = default;
  virtual std::size_t workspace() const noexcept = 0;
  /// Enqueues. Throws DeviceError. `workspace`: on a multiple of 256 bytes; `stream`: a cudaStream_t.
  virtual void run(const ProductOperands&, void* workspace, void* stream) = 0;
};

class BlasLt {
 public:
  virtual ~BlasLt() = default;
  /// Names of the algorithms that suit, the library's favourite first. Empty: none.
  virtual std::vector<std::string> algorithms(const Product&) = 0;
  /// Null where the algorithm does not suit after all.
  virtual std::unique_ptr<ProductPlan> plan(const Product&, const std::string& algorithm) = 0;
};

/// Throws DeviceError.
std::unique_ptr<BlasLt> make_blas_lt();
/// "130002"
std::string blas_lt_version();

/// Bytes as hexadecimal digits, and back; false where the text is not `size` bytes.
std::string hexadecimal(const void* bytes, std::size_t size);
bool from_hexadecimal(const std::string& text, void* bytes, std::size_t size);

}  // namespace dtrain::cuda
