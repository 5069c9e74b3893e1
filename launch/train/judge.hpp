// Judge: looks at the outputs of an evaluation's batches beside their labels and targets, and counts.
// Owns the host's images of both and the counts; borrows the Engine. Used by the Evaluator, on its thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "io/dataset/description.hpp"
#include "io/dataset/loader.hpp"
#include "launch/report/judgement.hpp"
#include "launch/train/engine.hpp"
#include "runtime/device/host_mirror.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

/// Which outputs are looked at: what has to be read from the device is a matter of time.
enum class JudgeScope : std::uint8_t {
  samples,    // of one label or row of values a sample
  positions,  // all
};

class Judge {
 public:
  /// More classes are not counted one by one, and more columns have no R^2.
  static constexpr std::size_t most_classes = 1000, most_columns = 64;
  /// More samples on all ranks have no area under the ROC curve: their scores would have to be kept.
  static constexpr std::uint64_t most_scores = 20'000'000;

  /// `behind`: so many batches may be under way when one is counted, plus one. `names`: of classes. `ports`: as the
  /// graph's inputs, for how targets were normalized.
  Judge(Engine&, std::size_t behind, JudgeScope, std::span<const io::Description> names,
        std::span<const io::PortOptions> ports);

  /// A pass over so many batches of this rank begins, over so many samples of all.
  void begin(std::int64_t batches, std::uint64_t samples);
  /// Batch `batch` was computed with in that slot: its outputs and labels begin their way to the host.
  void pull(std::int64_t batch, int slot, Stream&);
  /// They are there.
  void count(std::int64_t batch);
  /// Collective: what all ranks counted; the same bits on any number of ranks.
  Judgement judgement(Group&);

 private:
  /// Of one loss.
  struct Watched {
    std::string loss;
    std::size_t output = 0, target = 0, weight = 0;  // of the graph's outputs and inputs
    std::int64_t rows = 0, width = 0;                // of a micro batch; values a row
    std::int64_t labels = 1;                         // a row: of pairs that training mixes, evaluation counts the first
    bool classes = false;
    std::optional<std::int64_t> ignored{};
    std::vector<std::string> names{};
    std::vector<std::uint64_t> counts{};  // [label, prediction]
    bool scored = false;                  // the scores of two classes are kept
    std::vector<Scored> scores{};         // of this rank
    std::vector<ErrorSums> errors{};      // [batch, column], of this rank
    std::size_t columns = 1;
    io::Normalize target_units{};
  };
  struct Images {
    HostMirror output, target, weight;
  };
  Images& images(std::size_t watched, std::int64_t batch, int slot) {
    return images_[(static_cast<std::size_t>(batch) % depth_ * Program::slots + static_cast<std::size_t>(slot)) *
                       watched_.size() +
                   watched];
  }
  void count_classes(Watched&, const Images&);
  void sum_errors(Watched&, const Images&, std::int64_t batch);

  Engine& engine_;
  const std::size_t depth_;
  std::vector<Watched> watched_;
  std::vector<Images> images_;  // [batch in turn, slot, loss]
  std::vector<int> slots_;      // of the batches under way, in turn
};

}  // namespace dtrain::launch
