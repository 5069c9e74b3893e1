// The measured parts of a step, kept in a file by `bench step` and `bench comm`, from which `check` predicts others.
// Plain data; reading and writing are functions of the path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/config/config_file.hpp"

namespace dtrain::launch {

/// All-reduce as training does it, over these ranks and hosts.
struct CommProfile {
  struct Point {
    double bytes = 0, seconds = 0;
    double processor = 0;  // cpu seconds of a rank over seconds
  };
  int ranks = 0, hosts = 0;
  std::string algorithm;
  std::vector<Point> points;  // of growing size
};

/// One rank's part of a step, computed while `ranks_on_host` ranks do the same, without communication.
struct StepProfile {
  std::string work;  // work_hash()
  std::int64_t micro = 0;
  int ranks_on_host = 1, threads = 1;
  double cpus = 1;                             // that a rank has
  double data = 0, forward = 0, backward = 0;  // seconds, of a micro batch
  double update = 0, other = 0;                // of a step
  std::vector<double> ready;                   // by bucket: seconds of backward after which it is complete
  std::vector<double> ends;                    // by bucket: bytes of gradients up to its end
};

struct Profile {
  std::vector<CommProfile> comm;
  std::vector<StepProfile> steps;
};

/// Hash of the settings on which the time of a micro batch depends: model, optimizer, precision.
std::string work_hash(const LoadedConfig&);

/// Throws ConfigError naming the path where it is not there or no profile.
Profile read_profile(const std::string& path);
/// Adds to the file, or replaces what was measured under the same conditions. Throws DataError.
void note(const std::string& path, const CommProfile&);
void note(const std::string& path, const StepProfile&);

}  // namespace dtrain::launch
