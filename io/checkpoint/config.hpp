// Plain settings of checkpoints, with their defaults.
// Values only; launch/ fills them from YAML, io/ reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dtrain::io {

/// What makes a checkpoint the best one.
enum class Best : std::uint8_t { none, loss, accuracy };
/// "none", ...
std::string_view name_of(Best) noexcept;

/// What each checkpoint holds for other programs, beside what a run goes on from.
enum class Export : std::uint8_t { none, safetensors };

enum class Resume : std::uint8_t { automatic, never, directory };

struct CheckpointConfig {
  std::string directory;                // empty: <log.directory>/checkpoints
  std::int64_t every_steps = 500;       // 0: only at the end and on a signal
  std::int64_t verify_every_steps = 0;  // compare what ranks hold; 0: only with each save
  int keep = 3;                         // newest ones to keep, at least 2
  std::int64_t keep_every = 0;          // keep every M-th step for good; 0: none
  Best best = Best::none;
  Export exported = Export::none;  // `export`
  Resume resume = Resume::automatic;
  std::string resume_directory;  // where resume is `directory`
  int failures_allowed = 3;      // failed saves in a row before the run stops
  bool force = false;            // accept a checkpoint of another configuration
  bool fresh = false;            // the run begins anew, whatever `directory` holds: no setting, the command says it
};

}  // namespace dtrain::io
