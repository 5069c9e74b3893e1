// Feeds one rank: threads read, normalize and lay out micro batches ahead of time into a ring of host memory.
// The Loader owns the ring and its threads and borrows the Dataset; next() and release() belong to one consumer thread
// and allocate nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/dataset/config.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/image_format.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {
class Device;
}

namespace dtrain::io {

/// One micro batch in host memory, laid out like an InputSlot of a Program (same shapes and layouts). Valid until
/// released.
struct Batch {
  static constexpr std::uint64_t no_sample = ~std::uint64_t{0};  // position and index of padding

  Tensor sample;     // no data where `raw` is carried; f32 [m, input...]; channels_last if the input has rank 3
  Tensor target;     // i32 [m] labels, f32 [m, D] values, or no data
  Tensor weight;     // f32 [m]: 1, or 0 for padding
  Tensor positions;  // u64 [m]: stream position (evaluation: sample index)
  std::span<const std::byte> raw;          // what the device converts, see RawLayout
  std::span<const std::uint64_t> indices;  // [m]: sample of the set
  std::int64_t valid = 0;                  // rows that are not padding; they come first
  std::uint64_t step = 0;                  // training: global step; evaluation: 0
  std::int64_t micro = 0;                  // training: accumulation index; evaluation: batch of the pass
};

struct LoaderOptions {
  Shape input;  // of the model, without batch. The set's samples must fit it: see fit_input()
  Normalize normalize;
  std::vector<Augmentation> augment;  // training only
  std::int64_t micro_batch = 1;
  std::int64_t global_batch = 1;  // training: a multiple of micro_batch * ranks
  int rank = 0;
  int ranks = 1;
  std::uint64_t seed = 1;
  bool shuffle = true;       // training only
  std::int64_t classes = 0;  // > 0: all labels must be below
  Carry carry = Carry::floats;
  int threads = 1;
  int ring = 4;              // micro batches; at least 2
  Device* device = nullptr;  // what the batches are copied to: the ring lies in memory that suits it; null: anywhere
};

/// How stored samples become the model's input.
enum class SampleOrder : std::uint8_t {
  plain,           // row-major, as stored
  channels_first,  // stored [C, H, W], wanted H, W, C in memory
  channels_last,   // stored [H, W, C], which already is the memory order
};
/// Accepts equal shapes, extents of 1 more or less, [H, W, C] for [C, H, W], and anything of the same size for an input
/// of rank 1. Throws ShapeError naming the file's and the model's shape.
SampleOrder fit_input(const Dataset&, const Shape& input);

/// Throws ConfigError or ShapeError where these augmentations do not suit the set's images and this input.
void check_augment(const Dataset&, const Shape& input, const Normalize&, std::span<const Augmentation>);

class Loader {
 public:
  /// Training: in step s rank r's micro batch j has the positions s*B + (r*A + j)*m + [0, m), A = B / (ranks * m).
  /// next() goes through step 0's micro batches, step 1's, ... for ever. Throws ConfigError where B is no multiple.
  static std::unique_ptr<Loader> training(const Dataset&, const LoaderOptions&);
  /// Evaluation: the set exactly once a pass, rank r of R the samples [r*N/R, (r+1)*N/R); every rank gets the same
  /// number of batches, padded with weight 0. After batches() calls of next() the next pass begins.
  static std::unique_ptr<Loader> evaluation(const Dataset&, const LoaderOptions&);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Micro batches of this rank a step (A), or of a pass of evaluation.
  std::int64_t batches() const noexcept;
  /// Batches that may be held at a time: ring - 1.
  int most_held() const noexcept;
  /// Waits for the next micro batch in order; errors of the threads are thrown here, again at each call.
  const Batch& next();
  /// Gives the oldest held batch back to the threads.
  void release();
  /// Continues with the first micro batch of this step (evaluation: pass). No batch may be held.
  void seek(std::uint64_t step);
  /// Seconds that next() has waited so far.
  double waited_seconds() const noexcept;

 private:
  struct State;
  explicit Loader(std::unique_ptr<State>);
  static std::unique_ptr<Loader> start(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::io
