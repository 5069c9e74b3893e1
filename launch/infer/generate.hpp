// What `dtrain generate` does: texts of a trained language model.
// A collective function, called by every rank on its main thread; it owns all it needs, and borrows the World.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/infer/sampler.hpp"
#include "launch/infer/trained_model.hpp"

namespace dtrain::launch {

struct GenerateOptions : CheckpointChoice {
  std::vector<std::string> prompts;
  std::string prompts_file;   // a line a prompt; in place of prompts
  std::string tokenizer;      // empty: that of the data
  std::int64_t tokens = 128;  // at most, of each text
  std::vector<std::string> stop;
  SamplingOptions sampling;
  std::int64_t batch = 8;  // texts of a rank at the same time; what a text is does not hang on the number of ranks
  bool json = false;
};

/// One prompt is written as it comes by rank 0. Without prompts: those that standard input has, line by line. Rank 0's
/// text of what was not written yet. Throws Error on all ranks alike, or RankFailure.
std::string generate(const LoadedConfig&, comm::World&, const GenerateOptions&);

}  // namespace dtrain::launch
