// Checkpoints as a run sees them: what is kept (RunState and named tensors), how the one to resume from is found, and
// how it is loaded. Plain values and free functions; the collective ones are called by all ranks, on the thread that
// owns the Group, between steps. Writing is checkpoint_writer.hpp; the byte format is FORMAT.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/checkpoint/config.hpp"
#include "io/files/file.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::io {

/// A named piece of replicated state in host memory, canonical shape and plain layout. Names: "param/dense_1.weight",
/// "optimizer/first_moment/dense_1.weight", "state/batch_norm_1.mean". A save reads `data`, a load fills it.
struct StateTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  void* data = nullptr;
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
};

/// Views of these parameters in a flat f32 host buffer, named `prefix` + the parameter's name:
/// append_flat(t, "param/", layout.params, store.params()); append_flat(t, "optimizer/momentum/", layout.trained(), m).
void append_flat(std::vector<StateTensor>& to, const std::string& prefix, std::span<const FlatParam>, float* flat);

/// One setting in canonical form: path "optimizer.adam.learning_rate", value "0.001".
using ConfigField = std::pair<std::string, std::string>;

/// Everything of a checkpoint that is not a tensor.
struct RunState {
  std::uint64_t step = 0;           // steps done: the index of the next one
  std::uint64_t applied_steps = 0;  // updates done (skipped steps do not count)
  std::uint64_t samples = 0;        // global samples consumed: the stream position of the next one
  double epoch = 0;                 // samples / size of the data set
  std::uint64_t global_batch = 0;
  std::uint64_t seed = 0;
  double loss_scale = 1;                    // of the next step
  std::optional<std::uint32_t> good_steps;  // updates in a row since a dynamic one was changed; none: it is not dynamic
  std::string data_fingerprint;
  std::string configuration;                   // canonical text
  std::string configuration_hash;              // of that text
  std::vector<ConfigField> fields;             // the same, field by field: names what changed
  std::map<std::string, std::string> choices;  // made by measurement: kernels, algorithms
  std::map<std::string, double> metrics;       // of the latest or best evaluation, as the trainer likes
  std::map<std::string, std::string> versions;
  int world_size = 1;
  std::string run_id;
  std::string parent_run_id;   // the run this one resumed from; empty
  std::string parameter_hash;  // as in summary.json
  std::string saved_at;        // "2025-01-31T12:00:00Z"; filled by the writer
};

/// In RunState::versions, of a run whose checkpoints hold only what is trained (LoRA): the hash of all other
/// parameters.
inline constexpr const char* base_hash_key = "base_parameter_hash";
/// That hash; empty where the checkpoint holds all parameters.
std::string base_hash(const RunState&);
/// In RunState::versions, of a run in a job of Slurm: the job's id.
inline constexpr const char* slurm_job_key = "slurm_job";

/// Collective, at a step boundary: all ranks hold the same finite values of these tensors. Throws NumericError naming
/// the tensor, and the rank, on all ranks alike.
void compare_state(Group&, std::uint64_t step, std::span<const StateTensor>);

/// A random id, 16 hex digits. Made on rank 0 and broadcast.
std::string make_run_id();

struct FoundCheckpoint {
  std::string path;  // of the step directory
  RunState state;
  std::vector<std::string> skipped;  // newer ones that were not taken: "PATH: why", newest first
  bool averaged = false;             // it holds a moving average of the parameters ("ema/...")
};

/// The newest checkpoint of which every byte is right. Nothing where the directory holds none (or does not exist).
/// Throws CheckpointError where there are some but none is valid: a run never starts afresh by itself then.
std::optional<FoundCheckpoint> find_latest_valid(const std::string& directory, FileSystem& = posix_file_system());

/// Collective: what a run begins from, found and verified by rank 0 and known to all: the newest valid checkpoint of
/// `config.directory`, which must be set; where it holds none, or the run is to begin anew, what Resume::directory
/// names: one step directory, or the newest valid one of a directory of them.
std::optional<FoundCheckpoint> find_resume(Group&, const CheckpointConfig& config, FileSystem& = posix_file_system());

/// Collective, as find_resume(): the newest valid checkpoint of a directory of them, a step directory, or the one that
/// the label `best` (DIRECTORY/best) names. Throws CheckpointError where there is none.
FoundCheckpoint find_checkpoint(Group&, const std::string& path, FileSystem& = posix_file_system());

/// On one rank, under the lock of the directory: renames its checkpoints, so that none is taken for one of the run that
/// begins there. Returns how many. Throws CheckpointError.
std::size_t set_checkpoints_aside(const std::string& directory, FileSystem& = posix_file_system());

/// Is it a name that checkpoints have in their directory: its label best, or a step ("500", "step-500")?
bool names_checkpoint(std::string_view word);

/// Is there a directory of this step? (Not: is it valid.)
bool holds_step(const std::string& directory, std::uint64_t step, FileSystem& = posix_file_system());

/// Was the newest checkpoint there whose manifest can be read saved in this job of Slurm? (Not: is it valid.)
bool newest_is_of_job(const std::string& directory, const std::string& job, FileSystem& = posix_file_system());

/// Compares settings and data fingerprint. `may_change`: settings that may differ, and sections of which all may; NAME
/// in one is any name. Throws CheckpointError (incompatible) naming every field that may not change, unless `force`;
/// returns remarks for the log: what differs and was accepted, in the words of `accepted`, which is given the setting
/// and both values. `force_helps`: the error offers checkpoint.force.
std::vector<std::string> check_compatible(
    const FoundCheckpoint& saved, const RunState& current, std::span<const std::string> may_change, bool force,
    const std::function<std::string(const std::string&, const std::string&, const std::string&)>& accepted = {},
    bool force_helps = true);

/// Collective: fills every tensor from the step directory `path`; rank 0 reads and verifies, the others receive.
/// The checkpoint must hold exactly these names, shapes and dtypes, else CheckpointError (incompatible) names the
/// tensor; but what begins with one of `skipped` ("optimizer/") may be in it and is passed over, and the state of a
/// parameter that was frozen then ("optimizer/.../NAME" for no state at all) may be lacking: its buffer is filled with
/// zeros. Returns the names of those parameters. Throws on all ranks alike; buffers are undefined then.
std::vector<std::string> load_checkpoint(Group&, const std::string& path, std::span<const StateTensor> tensors,
                                         FileSystem& = posix_file_system(),
                                         std::span<const std::string_view> skipped = {});

/// Reads the state of one step directory; verifies the manifest and the size of each shard, not the shards' bytes.
RunState read_run_state(const std::string& path, FileSystem& = posix_file_system());

// ---- `dtrain checkpoint ...` -------------------------------------------------------------------------------------
/// What a command prints. `ok` is false where something is wrong with what was looked at (exit code 4).
struct CheckpointReport {
  std::string text;  // lines, each ending in a newline
  std::string json;
  bool ok = true;
};
/// A table: step, time, size, state, run id. Does not read shards.
CheckpointReport list_checkpoints(const std::string& given, FileSystem& = posix_file_system());
/// Every byte of one step directory, or of each in a directory.
CheckpointReport verify_checkpoints(const std::string& given, FileSystem& = posix_file_system());
/// Tensor by tensor: equal, the largest absolute difference, or on one side only. ok: all equal.
CheckpointReport diff_checkpoints(const std::string& a, const std::string& b, FileSystem& = posix_file_system());
/// Asked now and then by work that may take long, on its own thread: true where it is to end without a result. Null: it
/// never is.
using GivenUp = std::function<bool()>;
/// Throws DataError where the export is given up.
void check_export_wanted(const GivenUp&);
enum class ExportFormat : unsigned char { hdf5, safetensors };
/// How another library calls the parameters, and what a folder of its models has beside weights: no files, no folder.
struct ForeignForm {
  std::string family;                                      // whose names the parameters get
  std::vector<std::pair<std::string, std::string>> files;  // name and text, "config.json" among them
  bool timm = false;                                       // timm's names, where others have the family, too
};
/// Of the model of a checkpoint, by what its state says; nothing: a file with dtrain's names.
using ModelForm = std::function<std::optional<ForeignForm>(const RunState&)>;
/// Of a checkpoint (its path) that holds a part of the model: "param/..." and "state/..." of the whole. What they view
/// lives as long as the function; `averaged`: by the moving average.
using WholeModel = std::function<std::vector<StateTensor>(const std::string&, const RunState&, bool averaged)>;
/// The model, with the moving average of the parameters where there is one, unless `raw`, and facts about it: step,
/// parameters ("averaged" or "raw"), configuration, hashes. HDF5: param/NAME (float32), state/NAME, attributes of the
/// file. safetensors: NAME as PyTorch has it, types as saved, metadata; or in the form of another library. `whole` is
/// asked where the checkpoint holds a part of the model. Throws DataError for `output`, and where it is given up.
CheckpointReport export_checkpoint(const std::string& given, const std::string& output, bool raw,
                                   ExportFormat = ExportFormat::hdf5, FileSystem& = posix_file_system(),
                                   const ModelForm& form = nullptr, const WholeModel& whole = nullptr,
                                   const GivenUp& given_up = nullptr);
/// The folder with the model of a checkpoint, inside its step directory.
inline constexpr const char* exported_model = "safetensors";
/// Writes that folder, as export_checkpoint() writes safetensors: whole or not at all, and on the disk. It is no part
/// of the checkpoint: nothing of dtrain reads it. Throws Error, and leaves nothing behind then.
void export_into_checkpoint(const std::string& path, const std::optional<ForeignForm>& form,
                            const WholeModel& whole = nullptr, FileSystem& = posix_file_system(),
                            const GivenUp& given_up = nullptr);

}  // namespace dtrain::io
