// Feeds one rank: threads read, normalize and lay out micro batches ahead of time into a ring of host memory.
// The Loader owns the ring and its threads and borrows the Dataset; next() and release() belong to one consumer thread
// and allocate nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/config.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/image_format.hpp"
#include "io/dataset/stream.hpp"
#include "runtime/optim/batch_schedule.hpp"
#include "runtime/program/batch_layout.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {
class Device;
}

namespace dtrain::io {

/// One micro batch in host memory, laid out as LoaderOptions::layout says. Valid until released.
struct Batch {
  static constexpr std::uint64_t no_sample = ~std::uint64_t{0};  // position and index of padding

  std::span<std::byte> memory;             // [copied, bytes) of the layout, for one copy
  std::vector<Tensor> ports;               // in it, as BatchLayout::ports; no data where the device makes the value
  Tensor positions;                        // in it, u64 [m]: stream position (evaluation: sample index)
  std::span<const std::uint64_t> indices;  // [m]: sample of the set
  std::span<const std::uint64_t> hashes;   // with LoaderOptions::hash_rows, [m]: of all rows of the sample, added up
  std::int64_t valid = 0;                  // rows that are not padding; they come first
  std::uint64_t step = 0;                  // training: global step; evaluation: 0
  std::int64_t micro = 0;                  // training: accumulation index; evaluation: batch of the pass
  /// Training, as LoaderOptions::counts: the sums of weights of some of this rank's micro batches of the next step, for
  /// Loader::add_weights; those of a step tell of all of the next. Empty in evaluation.
  std::span<const std::uint64_t> next_weights;
};

/// What one input of the graph is filled with, and how.
struct PortOptions {
  PortUse use = PortUse::input;
  int source = -1;  // of the Dataset's ports; -1: nothing there, only for weights, which are 1 then
  StoredLayout layout = StoredLayout::unknown;  // as the file stores it
  // Numbers.
  Normalize normalize;
  std::vector<Augmentation> augment;  // training only
  Carry carry = Carry::floats;        // other than floats where BatchLayout::Port::converted
  // Index values.
  std::int64_t limit = 0;              // they lie in [0, limit); 0: no limit is known
  std::optional<std::int64_t> ignore;  // this label takes part in nothing; rows that are too short are padded with it
  /// The input whose geometric draw this one takes: the nearest pixel; `ignore`, or 0, where that lies outside.
  int follow = -1;
  // Weights of [m] or [m, positions...]. They are 0 for padding samples. Where they have the positions of `target`: the
  // file's weight (of the position or of the sample) times the class's, and 0 at ignored labels and behind the end of a
  // short row.
  int target = -1;                    // the target's place among the ports
  std::vector<double> class_weights;  // one a class; empty: 1
  /// Targets and weights of mixed samples, [m, 2]: the sample's own, and its partner's. One value a sample is read.
  bool pairs = false;
};

/// A loss whose weights differ from step to step: which are to be counted.
struct LossCount {
  int target = -1;                     // ports of the layout; -1: none
  int weight = -1;                     // -1: all are 1
  std::optional<std::int64_t> ignore;  // positions with this label do not count
  std::string name{};                  // of the loss, for messages
};

struct LoaderOptions {
  BatchLayout layout;              // says how many samples a micro batch has, too
  std::vector<PortOptions> ports;  // as BatchLayout::ports
  std::vector<LossCount> counts;   // training only
  Mix mix;                         // training only; targets and weights are pairs in evaluation, too
  std::int64_t global_batch = 1;   // training: a multiple of the micro batch * ranks
  BatchWarmup warmup;              // training: all of its sizes are such multiples
  int rank = 0;
  int ranks = 1;
  std::uint64_t seed = 1;
  bool shuffle = true;  // training only
  OrderVersion order = newest_order;
  bool hash_rows = false;  // Dataset::row_hash of all that is read; no port is carried as rows then
  int threads = 1;
  int ring = 4;              // micro batches; at least 2
  Device* device = nullptr;  // what the batches are copied to: the ring lies in memory that suits it; null: anywhere
};

/// How stored numbers become those of the model.
enum class SampleOrder : std::uint8_t {
  plain,           // row-major, as stored
  channels_first,  // stored [C, positions...], wanted channels last in memory
  channels_last,   // stored [positions..., C], which already is the memory order
};
/// Whether rows of a port fit an input of that shape (a sample's, as users write it). Accepts equal shapes, extents of
/// 1 more or less, channels last for [C, H, W], channels first for [T, C] where `layout` says so, and anything of the
/// same size for an input of rank 1. Without a `layout` the one that the file says holds. Throws ShapeError naming the
/// file's and the model's shape, also where it may be read in two ways.
SampleOrder fit_input(const Dataset&, std::size_t port, const Shape& input,
                      StoredLayout layout = StoredLayout::unknown);

/// Whether an input of the graph has a value, or one for each channel, at each pixel of an image: the same height and
/// width.
bool lies_over(const TensorDesc&, PortUse, const TensorDesc& image);

/// Mean and standard deviation of what an input of numbers is filled with, over a few samples of the whole set; nothing
/// where one of them cannot be read or is not finite.
struct Spread {
  double mean = 0, standard_deviation = 0;
};
std::optional<Spread> spread_of(const Dataset&, const BatchLayout&, std::span<const PortOptions>, std::size_t port);

/// Throws what Loader's construction would throw for a set that does not suit the model: shapes, types, labels outside
/// their range, augmentations. Of the layout only descriptions are looked at.
void check_ports(const Dataset&, const BatchLayout&, std::span<const PortOptions>);

class Loader {
 public:
  /// Training: in step s rank r's micro batch j has the positions P + (r*A + j)*m + [0, m), where B samples are taken
  /// in this step, P before it, and A = B / (ranks * m). next() goes through step 0's micro batches, step 1's, ... for
  /// ever. Throws ConfigError where a B is no multiple.
  static std::unique_ptr<Loader> training(const Dataset&, const LoaderOptions&);
  /// Evaluation: the set exactly once a pass. Batch k has the samples k*m + [0, m) whatever R is, and rank r of R gets
  /// the batches [r*K/R, (r+1)*K/R) of all K; every rank gets the same number, padded with weight 0. After batches()
  /// calls of next() the next pass begins.
  static std::unique_ptr<Loader> evaluation(const Dataset&, const LoaderOptions&);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Micro batches of this rank a step (A, the largest), or of a pass of evaluation.
  std::int64_t batches() const noexcept;
  /// Batches that may be held at a time: ring - 1.
  int most_held() const noexcept;
  /// Waits for the next micro batch in order; errors of the threads are thrown here, again at each call.
  const Batch& next();
  /// Gives the oldest held batch back to the threads.
  void release();
  /// Continues with the first micro batch of this step (evaluation: pass). No batch may be held.
  void seek(std::uint64_t step);
  /// Adds what a micro batch weighs to a step's sums, which begin at 0: units of WeightSum. Throws DataError where a
  /// loss weighs more than such a sum holds.
  void add_weights(std::span<const std::uint64_t> of_micro_batch, std::span<std::uint64_t> sums) const;
  /// For the counts: the sums of weights of this rank's micro batches of any training step; on the caller's thread, at
  /// once.
  std::vector<std::uint64_t> loss_weights(std::uint64_t step) const;
  /// Seconds that next() has waited so far.
  double waited_seconds() const noexcept;

 private:
  struct State;
  explicit Loader(std::unique_ptr<State>);
  static std::unique_ptr<Loader> start(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::io
