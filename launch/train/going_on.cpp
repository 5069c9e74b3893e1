#include "launch/train/going_on.hpp"

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "models/model/build.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

/// What a setting is called in the field: by the whole of its name, or by its last part.
constexpr std::array<std::pair<std::string_view, std::string_view>, 20> words{
    {{"train.epochs", "another number of epochs"},
     {"train.steps", "another number of steps"},
     {"train.ema.decay", "another decay of the moving average"},
     {"data.train", "other files of training data"},
     {"data.eval", "other evaluation data"},
     {"data.augment", "another augmentation"},
     {"schedule.decay", "another schedule"},
     {"learning_rate", "another learning rate"},
     {"weight_decay", "another weight decay"},
     {"momentum", "another momentum"},
     {"warmup_steps", "another number of warm-up steps"},
     {"clip_norm", "another limit of the gradient's norm"},
     {"eval_every_steps", "another interval of evaluations"},
     {"beta1", "another decay of the first moment"},
     {"beta2", "another decay of the second moment"},
     {"micro", "another micro batch"},
     {"decay_steps", "another length of the decay"},
     {"decay_fraction", "another length of the decay"},
     {"epochs", "another number of epochs"},
     {"steps", "another number of steps"}}};

bool below(std::string_view setting, std::string_view section) {
  return setting == section || (setting.starts_with(section) && setting.substr(section.size()).starts_with('.'));
}

std::string_view word_of(std::string_view setting) {
  for (const auto& [name, word] : words)
    if (name.find('.') != std::string_view::npos && below(setting, name)) return word;
  if (setting.starts_with("data.inputs.") && setting.find(".augment") != std::string_view::npos)
    return "another augmentation";
  const bool known = setting.starts_with("optimizer.") || setting.starts_with("schedule.") ||
                     setting.starts_with("train.") || setting.starts_with("batch.");
  const std::string_view last = setting.substr(setting.rfind('.') + 1);
  for (const auto& [name, word] : words)
    if (known && name == last) return word;
  return {};
}

/// "adam" of the fields of a configuration; empty where they say none.
std::string optimizer_of(const Fields& fields) {
  constexpr std::string_view section = "optimizer.";
  for (const auto& [field, value] : fields) {
    if (field == "optimizer") return value;
    if (!field.starts_with(section)) continue;
    const std::string kind = field.substr(section.size(), field.find('.', section.size()) - section.size());
    if (kind != "shard" && kind != "groups") return kind;
  }
  return {};
}

std::vector<std::string> states_of(const UpdateRule& rule) {
  std::vector<std::string> names;
  for (int i = 0; i < state_count(rule); ++i) names.push_back(state_name(rule, i));
  return names;
}

std::optional<RunConfig> config_of(const io::FoundCheckpoint& saved) {
  try {
    return parse_config(saved.state.configuration, saved.path).config;
  } catch (const ConfigError&) {
    return std::nullopt;
  }
}

Fields model_of(Fields fields) {
  std::erase_if(fields, [](const auto& f) { return !below(f.first, "model"); });
  return fields;
}

/// Without the optimizer's own settings: it is another one.
void erase_optimizer(Fields& fields, const std::string& kind) {
  std::erase_if(fields, [&](const auto& f) { return f.first == "optimizer" || below(f.first, "optimizer." + kind); });
}

Fields parameters_of(const models::ModelConfig& model) {
  constexpr std::int64_t batch = 2;  // of which a batch norm has a variance
  const Graph graph = models::build(model, batch, DType::f32);
  Fields out;
  for (const GraphParam& p : graph.params()) out.emplace_back(p.name, p.shape.str());
  for (const GraphState& s : graph.states()) out.emplace_back(s.name, s.shape.str());
  return out;
}

}  // namespace

std::string going_on_text(const std::string& setting, const std::string& before, const std::string& now) {
  const std::string_view word = word_of(setting);
  if (word.empty()) return fmt::format("goes on with another {}: {} -> {}", setting, before, now);
  return fmt::format("goes on with {}: {} -> {} ({})", word, before, now, setting);
}

bool same_parameters(const io::FoundCheckpoint& saved, const RunConfig& config) {
  const auto before = config_of(saved);
  if (!before) return true;
  try {
    return parameters_of(before->model) == parameters_of(config.model);
  } catch (const Error&) {  // of a shape that the data decide
    return true;
  }
}

GoingOn go_on(const io::FoundCheckpoint& saved, const io::RunState& current, const RunConfig& config) {
  io::FoundCheckpoint then = saved;
  io::RunState now = current;
  GoingOn out;
  const std::string before = optimizer_of(then.state.fields), after = optimizer_of(now.fields);
  if (before != after) {
    out.optimizer_anew = true;
    erase_optimizer(then.state.fields, before);
    erase_optimizer(now.fields, after);
  } else if (const auto configuration = config_of(saved)) {
    out.optimizer_anew = states_of(configuration->optimizer) != states_of(config.optimizer);
  }
  const bool force_helps = model_of(then.state.fields) == model_of(now.fields) || same_parameters(saved, config);
  out.remarks =
      io::check_compatible(then, now, may_change_on_resume(), config.checkpoint.force, going_on_text, force_helps);
  const char* const average = config.train.ema.decay > 0 ? ", and the moving average, too" : "";
  if (before != after)
    out.remarks.push_back(
        fmt::format("goes on with another optimizer: {} -> {}; its state starts anew{}", before, after, average));
  else if (out.optimizer_anew)
    out.remarks.push_back(fmt::format("goes on with {} that keeps other state: it starts anew{}", after, average));
  return out;
}

}  // namespace dtrain::launch
