#include "launch/train/start_weights.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "launch/config/config_file.hpp"
#include "runtime/config/document.hpp"
#include "runtime/optim/groups.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

void check_patterns(const std::vector<std::string>& patterns, const std::vector<io::StateTensor>& tensors) {
  std::vector<std::string> names;
  for (const auto& tensor : tensors) names.push_back(io::pytorch_name(tensor.name));
  for (const std::string& pattern : patterns) {
    if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return matches(pattern, name); })) continue;
    const std::string near = nearest_name(pattern, names);
    throw ConfigError(fmt::format(
        "model.initialize_from.skip: \"{}\" matches no parameter of the model; {}", pattern,
        near.empty() ? fmt::format("the first is \"{}\"", names.front()) : fmt::format("did you mean \"{}\"?", near)));
  }
}

/// Beside adapters the model's own parameters stay as they are: one that the base does not give would stay as the seed
/// made it.
void check_frozen(const models::ModelConfig& config, const std::vector<std::string>& parameters,
                  const io::StartWeights& weights) {
  const std::vector<bool> trained = models::trained_parameters(config.lora, parameters);
  const std::set<std::string> taken(weights.taken.begin(), weights.taken.end());
  const std::set<std::string> absent(weights.absent.begin(), weights.absent.end());
  const std::vector<std::string>& skip = config.initialize_from.skip;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    const std::string& name = parameters[p];
    if (trained[p] || taken.contains(name)) continue;
    const bool skipped = std::any_of(skip.begin(), skip.end(), [&](const auto& s) { return matches(s, name); });
    throw ConfigError(
        fmt::format("model.lora: {} {} {}, and no adapter trains it; add its layer to model.lora.modules_to_save", name,
                    skipped                 ? "is skipped, so not taken from"
                    : absent.contains(name) ? "is not in"
                                            : "has another shape in",
                    weights.source));
  }
}

/// Where both have a value of one name, and it is another one. What shapes tell, or only training reads, is left out.
void compare_settings(const nlohmann::json& there, const nlohmann::json& here, std::vector<std::string>& differences) {
  for (const auto& [key, value] : here.items()) {
    static const std::set<std::string, std::less<>> left_out{
        "architectures", "vocab_size", "n_positions", "max_position_embeddings", "image_size", "id2label", "label2id"};
    const auto other = there.find(key);
    if (other == there.end() || left_out.contains(key) || key.find("drop") != std::string::npos) continue;
    if (value.is_object() && other->is_object())
      compare_settings(*other, value, differences);
    else if (*other != value)
      differences.push_back(fmt::format("{} is {} there and {} here", key, other->dump(), value.dump()));
  }
}

/// Of the file config.json beside weights of Hugging Face's.
std::vector<std::string> other_settings(const std::string& from, const models::ModelConfig& model) {
  const auto ours = models::huggingface_config(model.family, models::inputs_of(model));
  std::ifstream file(std::filesystem::path(from) / "config.json");
  if (!ours || !file) return {};
  std::vector<std::string> differences;
  const auto there = nlohmann::json::parse(file, nullptr, false);
  if (there.is_object()) compare_settings(there, nlohmann::json::parse(to_json_text(*ours)), differences);
  return differences;
}

}  // namespace

io::StartWeights read_start_weights(const models::ModelConfig& config, std::vector<io::StateTensor> tensors) {
  const models::InitializeFrom& from = config.initialize_from;
  std::vector<std::string> parameters;
  for (const auto& t : tensors)
    if (t.name.starts_with("param/")) parameters.push_back(io::pytorch_name(t.name));
  std::erase_if(tensors, [](const auto& t) {
    return (!t.name.starts_with("param/") && !t.name.starts_with("state/")) || models::is_adapter(t.name);
  });
  check_patterns(from.skip, tensors);
  const auto wanted = [&](const std::string& name) {
    return std::none_of(from.skip.begin(), from.skip.end(), [&](const auto& p) { return matches(p, name); });
  };
  io::StartWeights weights = io::load_weights(from.path, models::family_name(config.family), tensors, wanted);
  if (config.lora.on()) check_frozen(config, parameters, weights);
  weights.settings = other_settings(from.path, config);
  return weights;
}

std::string read_base(const models::ModelConfig& config, const FlatLayout& layout, const Graph& graph,
                      std::uint64_t seed, float* flat) {
  initialize(flat, layout, graph, seed);
  std::vector<io::StateTensor> tensors;
  io::append_flat(tensors, "param/", layout.params, flat);
  read_start_weights(config, std::move(tensors));
  return parameter_hash(flat, layout.frozen());
}

void check_base(const std::string& checkpoint, const io::RunState& state, const models::ModelConfig& config,
                const std::string& hash, const std::string& advice) {
  const std::string before = io::base_hash(state);
  if (before == hash) return;
  const auto fail = [&](const std::string& what) {
    throw CheckpointError(fmt::format("checkpoint {} {}", checkpoint, what), CheckpointError::Kind::incompatible);
  };
  if (before.empty())
    fail("is of a run without model.lora: it holds no adapters; take model.lora out of the configuration");
  fail(fmt::format(
      "has adapters of another model than the one in {}: its parameters had the hash {}, and these have {}; {}",
      config.initialize_from.path, before, hash, advice));
}

io::StartWeights take_start_weights(Group& group, const models::ModelConfig& config, ModelState& model) {
  io::StartWeights weights;
  group.agree([&] {
    if (group.rank() != 0) return;
    weights = read_start_weights(config, model.replicated_tensors());
  });
  model.push();
  model.restart_average();
  return weights;
}

std::vector<std::string> lines_of(const io::StartWeights& weights) {
  std::vector<std::string> lines{
      fmt::format("starts from the weights in {}: {} tensors", weights.source, weights.taken.size())};
  const auto add = [&](const std::vector<std::string>& names, const char* what) {
    constexpr std::size_t most = 8;
    if (!names.empty()) lines.push_back(fmt::format("{}: {}", what, io::some_of(names, most)));
  };
  add(weights.absent, "not in it, so initialized as in a new model");
  add(weights.other_shape, "of another shape, so initialized as in a new model");
  add(weights.unused, "in it, but not in this model");
  add(weights.settings, "its config.json has other settings");
  return lines;
}

}  // namespace dtrain::launch
