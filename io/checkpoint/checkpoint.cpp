#include "io/checkpoint/checkpoint.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <random>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint_best.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"

namespace dtrain::io {
namespace {

using Json = nlohmann::json;
using Kind = CheckpointError::Kind;

FoundCheckpoint open_verified(FileSystem& files, const std::string& path) {
  const auto manifest = verify_checkpoint(files, path);
  const bool averaged = std::any_of(manifest.tensors.begin(), manifest.tensors.end(),
                                    [](const auto& tensor) { return tensor.name.starts_with("ema/"); });
  return {path, manifest.state, {}, averaged};
}

/// `advice`: what to do where there are some, but none is valid.
std::optional<FoundCheckpoint> newest_valid(FileSystem& files, const std::string& directory, const char* advice) {
  const auto steps = list_steps(files, directory);
  std::vector<std::string> skipped;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      auto found = open_verified(files, join_path(directory, step_name(*step)));
      found.skipped = std::move(skipped);
      return found;
    } catch (const CheckpointError& e) {
      skipped.emplace_back(e.what());
    }
  }
  if (steps.empty()) return std::nullopt;
  std::string reasons;
  for (const auto& reason : skipped) reasons += "\n  " + reason;
  throw CheckpointError(
      fmt::format("none of the {} checkpoints in {} is valid, and {}{}", steps.size(), directory, advice, reasons),
      Kind::corrupt);
}

/// A step directory, or the label of one, or the newest valid one of a directory of them.
std::optional<FoundCheckpoint> find_at(FileSystem& files, const std::string& given, const char* advice) {
  const auto path = follow_label(files, given);
  if (look_at(files, join_path(path, manifest_name)).exists) return open_verified(files, path);
  return newest_valid(files, path, advice);
}

std::optional<FoundCheckpoint> find_on_this_rank(const CheckpointConfig& config, FileSystem& files) {
  if (!config.fresh)
    if (auto own = find_latest_valid(config.directory, files)) return own;
  if (config.resume != Resume::directory) return std::nullopt;
  auto found = find_at(files, config.resume_directory,
                       "a run does not start afresh by itself; repair them, or name another directory");
  if (!found) {
    throw CheckpointError(
        fmt::format("there is no checkpoint in {}; checkpoint.resume must be auto, never, a step directory or a "
                    "directory of them",
                    config.resume_directory),
        Kind::incomplete);
  }
  return found;
}

/// Rank 0's, on all ranks.
Json broadcast(Group& group, const Json& json) {
  const auto packed = Json::to_cbor(json);
  return Json::from_cbor(group.broadcast(std::string(packed.begin(), packed.end())));
}

/// What rank 0 found, known to all.
std::optional<FoundCheckpoint> share(Group& group, std::optional<FoundCheckpoint> found) {
  Json message;
  if (group.rank() == 0 && found) {
    Manifest carrier;
    carrier.state = found->state;
    carrier.shards.resize(1);
    carrier.shards[0].sha256 = std::string(64, '0');
    message = {{"path", found->path},
               {"averaged", found->averaged},
               {"skipped", found->skipped},
               {"manifest", format_manifest(carrier)}};
  }
  message = broadcast(group, message);
  if (message.is_null()) return std::nullopt;
  if (group.rank() != 0) {
    found = {message["path"].get<std::string>(), parse_manifest(message["manifest"].get<std::string>()).state,
             message["skipped"].get<std::vector<std::string>>(), message["averaged"].get<bool>()};
  }
  return found;
}

/// The parameter of "optimizer/STATE/PARAMETER"; empty for other tensors.
std::string_view parameter_of_state(std::string_view tensor) noexcept {
  constexpr std::string_view prefix = "optimizer/";
  const std::size_t slash = tensor.find('/', prefix.size());
  return tensor.starts_with(prefix) && slash != std::string_view::npos ? tensor.substr(slash + 1) : std::string_view();
}

struct Matched {
  std::vector<StateTensor> tensors;  // in the manifest's order, without data where they are to be skipped
  std::vector<StateTensor> fresh;    // state of parameters that were frozen
};
/// CheckpointError names the tensor that does not fit.
Matched match(const std::string& path, const Manifest& manifest, std::span<const StateTensor> tensors,
              std::span<const std::string_view> skipped) {
  const auto fail = [&](const std::string& what) {
    throw CheckpointError(fmt::format("checkpoint {} is incompatible with this run: {}", path, what),
                          Kind::incompatible);
  };
  std::map<std::string_view, const StateTensor*> wanted;
  for (const auto& tensor : tensors) wanted.emplace(tensor.name, &tensor);
  Matched out;
  std::set<std::string_view> with_state;
  for (const auto& saved : manifest.tensors) {
    with_state.insert(parameter_of_state(saved.name));
    const auto it = wanted.find(saved.name);
    if (it == wanted.end()) {
      if (std::none_of(skipped.begin(), skipped.end(), [&](auto p) { return saved.name.starts_with(p); }))
        fail(fmt::format("it holds {}, which this model does not have", saved.name));
      out.tensors.push_back({saved.name, saved.dtype, saved.shape, nullptr});
      continue;
    }
    const auto& mine = *it->second;
    if (mine.shape != saved.shape || mine.dtype != saved.dtype) {
      fail(fmt::format("{} was {} {}, is {} {}", saved.name, name_of(saved.dtype), saved.shape.str(),
                       name_of(mine.dtype), mine.shape.str()));
    }
    out.tensors.push_back(mine);
    wanted.erase(it);
  }
  with_state.erase(std::string_view());
  for (const auto& [name, tensor] : wanted) {
    // A checkpoint without any state is of another optimizer.
    const std::string_view parameter = parameter_of_state(name);
    if (parameter.empty() || with_state.empty() || with_state.contains(parameter))
      fail(fmt::format("it lacks {}", name));
    out.fresh.push_back(*tensor);
  }
  return out;
}

/// Rank 0's side of a load: copies pieces to their place and passes them on in messages of a few MiB.
/// A message is a sequence of {tensor, offset, bytes, data}; an empty one is the last.
class Forwarder final : public TensorSink {
 public:
  Forwarder(Group& group, const std::vector<StateTensor>& tensors) : group_(group), tensors_(tensors) {}
  void piece(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> data) override {
    if (tensors_[tensor].data == nullptr) return;
    std::memcpy(static_cast<std::byte*>(tensors_[tensor].data) + offset, data.data(), data.size());
    if (group_.size() == 1) return;
    const std::uint64_t header[3] = {tensor, offset, data.size()};
    const auto bytes = std::as_bytes(std::span(header));
    message_.insert(message_.end(), bytes.begin(), bytes.end());
    message_.insert(message_.end(), data.begin(), data.end());
    if (message_.size() >= message_bytes) send();
  }
  void end() {
    if (group_.size() == 1) return;
    if (!message_.empty()) send();
    send();
  }

 private:
  static constexpr std::size_t message_bytes = std::size_t{4} << 20;
  void send() {
    group_.broadcast(message_, 0);
    message_.clear();
  }
  Group& group_;
  const std::vector<StateTensor>& tensors_;
  std::vector<std::byte> message_;
};

void receive(Group& group, const std::vector<StateTensor>& tensors) {
  std::vector<std::byte> message;
  for (;;) {
    message.clear();
    group.broadcast(message, 0);
    if (message.empty()) return;
    for (std::size_t at = 0; at < message.size();) {
      std::uint64_t header[3];
      std::memcpy(header, message.data() + at, sizeof header);
      at += sizeof header;
      std::memcpy(static_cast<std::byte*>(tensors[header[0]].data) + header[1], message.data() + at, header[2]);
      at += header[2];
    }
  }
}

}  // namespace

// A load writes through these views. NOLINTNEXTLINE(readability-non-const-parameter)
void append_flat(std::vector<StateTensor>& to, const std::string& prefix, std::span<const FlatParam> params,
                 float* flat) {
  for (const FlatParam& param : params) {
    to.push_back({prefix + param.name, DType::f32, param.shape, flat + param.offset});
  }
}

std::string make_run_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

std::optional<FoundCheckpoint> find_latest_valid(const std::string& directory, FileSystem& files) {
  return newest_valid(files, directory,
                      "a run does not start afresh by itself; repair or remove them, or begin anew with --fresh");
}

std::optional<FoundCheckpoint> find_resume(Group& group, const CheckpointConfig& config, FileSystem& files) {
  std::optional<FoundCheckpoint> found;
  group.agree([&] {
    if (group.rank() == 0) found = find_on_this_rank(config, files);
  });
  return share(group, std::move(found));
}

FoundCheckpoint find_checkpoint(Group& group, const std::string& path, FileSystem& files) {
  std::optional<FoundCheckpoint> found;
  group.agree([&] {
    if (group.rank() != 0) return;
    found = find_at(files, path, "a model is needed; name a directory with a valid one");
    if (!found) {
      throw CheckpointError(
          fmt::format("there is no checkpoint in {}; name a step directory, a directory of them, or its label best",
                      path),
          Kind::incomplete);
    }
  });
  return *share(group, std::move(found));
}

std::size_t set_checkpoints_aside(const std::string& directory, FileSystem& files) {
  const auto steps = list_steps(files, directory);
  const std::string unique = make_run_id();
  for (const auto step : steps)
    rename(files, join_path(directory, step_name(step)),
           join_path(directory, fmt::format("aside-{}-{}", step_name(step), unique)));
  if (steps.empty()) return 0;
  point_best(files, directory, std::nullopt, unique);  // its label names none of those that are to come
  sync_directory(files, directory);
  return steps.size();
}

bool holds_step(const std::string& directory, std::uint64_t step, FileSystem& files) {
  FileStatus status;
  return files.status(join_path(directory, step_name(step)), status) == 0 && status.exists && status.directory;
}

bool newest_is_of_job(const std::string& directory, const std::string& job, FileSystem& files) {
  const auto steps = list_steps(files, directory);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      const auto versions = read_manifest(files, join_path(directory, step_name(*step))).state.versions;
      const auto at = versions.find(slurm_job_key);
      return at != versions.end() && at->second == job;
    } catch (const CheckpointError&) {  // who resumes passes it over, too
    }
  }
  return false;
}

namespace {

/// Is the field this setting, or one below it?
bool is_or_below(std::string_view field, std::string_view setting) {
  while (!setting.empty()) {
    const auto wanted = setting.substr(0, setting.find('.')), name = field.substr(0, field.find('.'));
    if (name != wanted && (wanted != "NAME" || name.empty())) return false;
    setting.remove_prefix(std::min(wanted.size() + 1, setting.size()));
    field.remove_prefix(std::min(name.size() + 1, field.size()));
  }
  return true;
}

}  // namespace

std::vector<std::string> check_compatible(
    const FoundCheckpoint& saved, const RunState& current, std::span<const std::string> may_change, bool force,
    const std::function<std::string(const std::string&, const std::string&, const std::string&)>& accepted,
    bool force_helps) {
  std::map<std::string, std::pair<const std::string*, const std::string*>> fields;
  for (const auto& [path, value] : saved.state.fields) fields[path].first = &value;
  for (const auto& [path, value] : current.fields) fields[path].second = &value;
  const auto show = [](const std::string* value) { return value ? *value : std::string("(not set)"); };
  std::vector<std::string> refused, remarks;
  for (const auto& [path, values] : fields) {
    const auto& [before, now] = values;
    if (before && now && *before == *now) continue;
    const bool may = std::any_of(may_change.begin(), may_change.end(),
                                 [&path = path](const auto& setting) { return is_or_below(path, setting); });
    if (may && accepted)
      remarks.push_back(accepted(path, show(before), show(now)));
    else
      (may ? remarks : refused).push_back(fmt::format("{} was {}, is {}", path, show(before), show(now)));
  }
  if (saved.state.data_fingerprint != current.data_fingerprint) {
    refused.push_back(fmt::format("data: the training set is another one (fingerprint {}, now {})",
                                  saved.state.data_fingerprint, current.data_fingerprint));
  }
  if (saved.state.world_size != current.world_size) {
    remarks.push_back(fmt::format("the run had {} ranks, has {}: the samples are the same, the last bits may differ",
                                  saved.state.world_size, current.world_size));
  }
  if (refused.empty()) return remarks;
  if (force) {
    for (const auto& text : refused) remarks.push_back("forced: " + text);
    return remarks;
  }
  throw CheckpointError(
      fmt::format("checkpoint {} is incompatible with this run: {}; set this back, choose another "
                  "checkpoint.directory, begin anew with --fresh, or {}",
                  saved.path, fmt::join(refused, "; "),
                  force_helps ? std::string("accept it with checkpoint.force=true")
                              : "start a new run from its weights, where they fit: give it another name and "
                                "model.initialize_from=" +
                                    saved.path),
      Kind::incompatible);
}

std::vector<std::string> load_checkpoint(Group& group, const std::string& path, std::span<const StateTensor> tensors,
                                         FileSystem& files, std::span<const std::string_view> skipped) {
  Manifest manifest;
  group.agree([&] {
    if (group.rank() == 0) manifest = read_manifest(files, path);
  });
  Json message;
  if (group.rank() == 0 && group.size() > 1) message = format_manifest(manifest);
  message = broadcast(group, message);
  Matched matched;
  group.agree([&] {
    if (group.rank() != 0) manifest = parse_manifest(message.get<std::string>());
    matched = match(path, manifest, tensors, skipped);
  });
  std::exception_ptr error;
  if (group.rank() == 0) {
    Forwarder forward(group, matched.tensors);
    try {
      read_stream(files, path, manifest, forward);
    } catch (...) {
      error = std::current_exception();  // the others wait for the end of the stream before they hear of it
    }
    forward.end();
  } else {
    receive(group, matched.tensors);
  }
  group.agree([&] {
    if (error) std::rethrow_exception(error);
  });
  std::vector<std::string> fresh;
  for (const StateTensor& tensor : matched.fresh) {
    std::memset(tensor.data, 0, tensor.bytes());
    const std::string parameter(parameter_of_state(tensor.name));
    if (std::find(fresh.begin(), fresh.end(), parameter) == fresh.end()) fresh.push_back(parameter);
  }
  return fresh;
}

std::string base_hash(const RunState& state) {
  const auto at = state.versions.find(base_hash_key);
  return at == state.versions.end() ? std::string() : at->second;
}

RunState read_run_state(const std::string& path, FileSystem& files) {
  return read_manifest(files, path).state;
}

}  // namespace dtrain::io
