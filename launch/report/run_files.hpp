// The files of a run in log.directory: config.yaml, metrics.jsonl, summary.json, and events for TensorBoard.
// Owned by rank 0's training thread; every whole file appears under its name only when it is complete.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/files/lock.hpp"
#include "launch/report/append_file.hpp"
#include "launch/report/event_file.hpp"
#include "launch/report/judgement.hpp"

namespace dtrain::launch {

/// Seconds of a step by phase, means over the steps since the last logged one.
struct PhaseSeconds {
  double step = 0, data = 0, forward = 0, backward = 0, communication_exposed = 0, optimizer = 0, checkpoint = 0;
};

/// What sums over ranks took, over the steps since the last logged one of which that is known.
struct CommunicationSeconds {
  std::vector<double> exposed;  // by bucket: the step waited for it
  double sums = 0;              // from a sum's begin to its end, of all buckets
  std::int64_t steps = 0;
  std::size_t bytes_per_step = 0;

  void clear() noexcept;
};
/// The same as metrics have it.
struct CommunicationMetrics {
  std::vector<double> exposed;      // seconds a step, by bucket
  double sums = 0;                  // seconds a step
  double bus_bytes_per_second = 0;  // bytes x 2 (N - 1) / N / seconds of the sums; they wait for late ranks, too
  std::optional<double> share_of_probe = {};  // of what the probe at start reached
};
/// Nothing where no step is known. `probe`: bytes/s; 0: there was none.
std::optional<CommunicationMetrics> communication_metrics(const CommunicationSeconds&, int ranks, double probe);

/// What a GPU used, and the samples that it was used for.
struct Energy {
  double joules = 0, samples = 0;
};

/// Of one of several losses.
struct LossMetrics {
  std::string name;
  double loss = 0;            // mean over its weight; not a number where that is 0
  double accuracy = -1;       // fraction; < 0: the loss has none
  double top5_accuracy = -1;  // the label is among the five largest; < 0: there are no more than five classes
  // Of tokens: e^loss, and the loss in bits over the bytes of text; < 0: not known.
  double perplexity = -1;
  double bits_per_byte = -1;
};

struct StepMetrics {
  std::int64_t step = 0;  // steps done
  double epoch = 0;
  double loss = 0;  // mean over the global batch
  double learning_rate = 0;
  double grad_norm = 0;
  double samples_per_second = 0;
  double memory_mib = 0;  // resident, of rank 0
  PhaseSeconds seconds;
  double accuracy = -1;                                 // of the samples of this step; < 0: the loss has none
  std::vector<LossMetrics> losses{};                    // where there are several
  std::optional<CommunicationMetrics> communication{};  // where there are several ranks
  // Of models that read tokens.
  std::optional<double> tokens_per_second{};
  std::optional<double> mfu{};  // FLOP/s of the model over what matrix products reach: see measure_matrix_rate
  // Where the loss is scaled.
  std::optional<double> loss_scale{};      // of this step
  std::optional<std::uint64_t> skipped{};  // steps without an update so far, this one included
  // Of all GPUs that say so.
  std::optional<double> joules_per_sample{};
  // Of rank 0's GPU, where it says so.
  std::optional<double> gpu_utilization{};  // 0..1: of the time, in which any kernel ran
  std::optional<double> gpu_memory_mib{};   // used, by whomever
};

struct EvalMetrics {
  double loss = 0;  // the sum of all, each times its factor
  // Of a single loss: see LossMetrics.
  double accuracy = -1;
  double top5_accuracy = -1;
  std::vector<LossMetrics> losses = {};  // where there are several
  bool averaged = false;                 // of the moving average of the parameters
  double perplexity = -1;                // of a single loss, as what follows
  double bits_per_byte = -1;
  Judgement judged = {};
  /// Of the first loss that has one; < 0: none.
  double first_accuracy() const;
};

/// {"loss": .., "accuracy": ..}: what is there, as metrics.jsonl, summary.json and `dtrain eval` have it. These two
/// have details_of(judged), too.
nlohmann::ordered_json to_json(const EvalMetrics&);

/// Throws ConfigError where no run has had the directory yet, but files that a run would write are there already: they
/// are the user's. Before anything is written there.
void check_run_directory(const std::string& directory);
/// What becomes of the files that an earlier run left: those of the run that goes on are cut at its step; of one that
/// goes back a copy is kept; those of another run are moved.
enum class Earlier : std::uint8_t { continued, copied, moved };
/// Keeps what is there of a run with metrics in DIRECTORY/aside-N. Returns a line for the user; empty: nothing was
/// there. Throws DataError.
std::string set_files_aside(const std::string& directory, Earlier);
/// Takes the directory for this run as long as the lock is held. Throws CheckpointError where another run has it.
io::DirectoryLock take_run_directory(const std::string& directory, const std::string& run_id);
/// Writes `text` to DIRECTORY/NAME through a temporary file; makes the directory. Throws DataError naming the path.
void write_whole_file(const std::string& directory, const std::string& name, const std::string& text);
/// Makes the directory and its parents. Throws ConfigError naming path and reason.
void make_directory(const std::string& directory, const std::string& field);
/// Resident memory of this process in MiB.
double resident_mib();

/// The sample log of rank `rank` of `ranks`, DIRECTORY/samples-rank-R.txt, to be continued after `step` steps: what a
/// lost future wrote is dropped first, also from logs that ranks of a larger run left (rank r sees to r, r + ranks,
/// ...).
AppendFile open_sample_log(const std::string& directory, int rank, int ranks, std::int64_t step);

/// metrics.jsonl, and its numbers as scalars in an event file: "loss", "seconds/step", "eval/accuracy".
class MetricsFile {
 public:
  /// Continues DIRECTORY/metrics.jsonl after `step` steps: later lines belong to work that was lost, and are dropped.
  MetricsFile(const std::string& directory, std::int64_t step);
  void write(const StepMetrics&);
  void write(std::int64_t step, const EvalMetrics&);
  /// True once after the directory was removed, and is there again with this file.
  bool made_again() noexcept { return file_.made_again(); }

 private:
  void put(const nlohmann::ordered_json& entry);
  EventFile events_;
  AppendFile file_;
};

}  // namespace dtrain::launch
