// `dtrain check`: what a run would do, from the configuration and the plan, without a GPU or MPI.
// Pure but for reading the data files; the report owns its text.
#pragma once

#include <string>

#include "launch/config/config_file.hpp"
#include "launch/plan/scale_model.hpp"

namespace dtrain::launch {

struct CheckReport {
  std::string text;  // lines of at most 100 columns where names allow it
  std::string json;  // one object; the keys are stable
};

struct CheckOptions {
  int ranks = 1;
  std::string profile;     // of measured parts, to predict the step time from; empty: no prediction
  int ranks_per_host = 0;  // 0: as the profile's all-reduce had them; of a described cluster 8
  ClusterOptions cluster;  // described, to model how the run would scale; sums are its, not the profile's
};

/// Checks what can be checked without the other ranks: the batch of the ranks, shapes against the data files where they
/// are there (labels, too), the samples themselves (of a large set the first ones), and the plan. Throws the error that
/// training would end with.
CheckReport check(const LoadedConfig&, const CheckOptions&);

}  // namespace dtrain::launch
