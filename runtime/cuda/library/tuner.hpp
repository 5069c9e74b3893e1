// Chooses among algorithms by measurement, once, when a kernel is prepared.
// Functions on the thread that prepares; scratch memory, a stream and events live as long as the measurement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/cuda/context.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::cuda {

/// One way to compute something: how many bytes its operands and workspace take, and a function that enqueues one run
/// with operands that lie in `scratch`. `stream`: a cudaStream_t.
struct Candidate {
  /// What it writes, where candidates are of several makers: one that disagrees with the first is not taken.
  struct Result {
    std::size_t at = 0;  // bytes into the scratch memory
    std::int64_t elements = 0;
    DType dtype = DType::f32;
  };
  std::size_t scratch = 0;
  std::function<void(std::byte* scratch, void* stream)> run;
  std::vector<Result> results{};
  /// What results may differ by, for each kind of numbers that they are compared on. Empty: compared on none.
  struct Comparison {
    bool far_from_zero = false;
    double tolerance = 0;  // of the norm
  };
  std::vector<Comparison> comparisons{};
};

/// Half word `i` of scratch memory: numbers of either sign between 0.007 and 2 in each of the float types. There are 64
/// of them, so that windows have several largest elements. `far_from_zero`: 8 numbers from 1 on that are 57 standard
/// deviations away from zero in bfloat16 and float32.
std::uint16_t scratch_number(std::size_t i, bool far_from_zero = false) noexcept;

/// Whether two makers' results are the same but for rounding; bytes (places in a window) have to be equal.
bool agree(DType, double tolerance, const void* a, const void* b, std::int64_t n);

/// At most this many candidates are measured, the library's favourites.
inline constexpr std::size_t most_candidates = 8;

/// Index of the quickest; an earlier one, which the library prefers, has to be beaten by 3 %, so that noise seldom
/// decides. Infinity: it failed. Throws DeviceError where all did.
std::size_t quickest(std::span<const double> milliseconds);

/// Offsets of blocks that follow each other, 256-byte aligned.
class Offsets {
 public:
  std::size_t place(std::size_t bytes) noexcept {
    const std::size_t at = end_;
    end_ += (bytes + 255) / 256 * 256;
    return at;
  }
  std::size_t end() const noexcept { return end_; }

 private:
  std::size_t end_ = 0;
};

/// What a choice is kept under: a computation's key with the GPU and the library.
std::string full_key(const CudaContext&, const std::string& library, const std::string& key);
/// The algorithm that the context's choices name under it; null where there is none.
const std::string* kept_choice(const CudaContext&, const std::string& library, const std::string& key);

/// Makes the candidate of a name; nothing where the library cannot after all.
using MakeCandidate = std::function<std::optional<Candidate>(const std::string& algorithm)>;

/// The algorithm that the context's choices name under `key` (the GPU and `library` belong to it) if it can be made,
/// or else the quickest of `algorithms`, which becomes a choice. Where the GPU's memory does not suffice to measure,
/// the first. Throws DeviceError where none can be made.
std::string choose(CudaContext&, const std::string& library, const std::string& key,
                   std::span<const std::string> algorithms, const MakeCandidate&);

}  // namespace dtrain::cuda
