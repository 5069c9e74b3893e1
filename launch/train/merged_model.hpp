// The model of a LoRA run's checkpoint with its adapters merged: each W is W + alpha / rank * B A, and nothing else is
// left of them. Owns the parameters, in host memory; used by one thread, without other ranks.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"

namespace dtrain::launch {

class MergedModel {
 public:
  /// `base`: where the base is now, where that is not what the checkpoint's configuration says; empty: it is there.
  explicit MergedModel(std::string base = {}) : base_(std::move(base)) {}
  /// Reads the base, and the adapters from the checkpoint. `averaged`:
  /// by their moving average. The views live as long as this object. Throws CheckpointError where the base is another
  /// one than that of the run, and DataError where it is given up. See io::WholeModel.
  std::vector<io::StateTensor> read(const std::string& checkpoint, const io::RunState&, bool averaged,
                                    const io::GivenUp& given_up = nullptr);

 private:
  std::string base_;
  std::vector<float> flat_;
};

}  // namespace dtrain::launch
