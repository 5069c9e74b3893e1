// `dtrain bench generate`: how long the first token of a text takes, and how many follow in a second.
// A collective function, called by every rank on its main thread; it owns all it needs, and borrows the World.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/bench/report.hpp"
#include "launch/infer/trained_model.hpp"

namespace dtrain::launch {

struct GenerateBenchOptions : CheckpointChoice {
  std::vector<std::int64_t> batches{1, 8, 64};   // texts at the same time
  std::int64_t prompt_tokens = 32, tokens = 64;  // cut to the model's context
  int repeats = 3;
};

/// Of rank 0; the others do the same work beside it. Throws Error on all ranks alike, or RankFailure.
BenchReport bench_generate(const LoadedConfig&, comm::World&, const GenerateBenchOptions&);

}  // namespace dtrain::launch
