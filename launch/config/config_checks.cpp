#include "launch/config/config_checks.hpp"

#include <algorithm>
#include <bit>
#include <optional>
#include <sstream>
#include <utility>
#include <variant>

#include <fmt/format.h>

#include "models/model/build.hpp"
#include "runtime/optim/matrices.hpp"

namespace dtrain::launch {

namespace {

class Checks {
 public:
  Checks(const RunConfig& config, bool has_model, const std::function<bool(std::string_view)>& sound,
         const std::function<void(const std::string&, const std::string&)>& problem)
      : config_(config), has_model_(has_model), sound_(sound), problem_(problem) {}

  void check() {
    const RunConfig& c = config_;
    if (c.name.find('/') != std::string::npos || c.name == "." || c.name == "..")
      problem_("name", fmt::format("name: got {}; expected a name that can be a folder's", json_string(c.name)));
    if (c.precision == DType::f16 && c.device == DeviceChoice::cpu)
      problem_("precision", "precision: float16 with device: cpu; expected bfloat16 or float32, or device: cuda");
    if (c.communication.gradient_dtype == DType::f16) {
      problem_("communication.gradient_dtype",
               "communication.gradient_dtype: sums of float16 gradients overflow; expected float32 or bfloat16");
    }
    if (c.deterministic == Deterministic::elastic) check_elastic();
    if (sound_("batch")) {
      const auto [global, micro] = std::pair(c.batch.global, c.batch.micro);
      if (micro > 0 && global % micro != 0) {
        problem_("batch.micro",
                 fmt::format("batch.micro: {} does not divide batch.global {}; expected a divisor of it, or auto",
                             micro, global));
      }
      check_warmup();
    }
    if (const auto* sgd = std::get_if<Sgd>(&c.optimizer.kind);
        sgd != nullptr && sgd->nesterov && sgd->momentum == 0 && sound_("optimizer")) {
      problem_("optimizer.sgd.nesterov", "optimizer.sgd.nesterov: true without momentum; expected momentum above 0");
    }
    if (const auto* lars = std::get_if<Lars>(&c.optimizer.kind);
        lars != nullptr && lars->nesterov && lars->momentum == 0 && sound_("optimizer")) {
      problem_("optimizer.lars.nesterov", "optimizer.lars.nesterov: true without momentum; expected momentum above 0");
    }
    if (sound_("schedule") && c.schedule.decay == Schedule::Decay::step && c.schedule.every_steps == 0) {
      problem_("schedule.decay", "schedule.every_steps: 0 with decay: step; expected an integer of at least 1");
    }
    if (sound_("model") && sound_("data")) {
      check_ports();
      check_normalize();
    }
    if (sound_("train")) check_loss_scale();
    if (sound_("model") && sound_("data") && sound_("checkpoint")) check_best();
    if (sound_("model") && sound_("data") && sound_("train")) check_stopping();
    const bool model = sound_("model");
    if (model && has_model_) check_model();
    if (model && c.model.lora.on() && c.model.initialize_from.path.empty())
      problem_(
          "model.lora",
          "model.lora: adapters without a model to adapt; expected model.initialize_from: a run, a checkpoint, a file "
          "of weights, or a folder of a Hugging Face model");
  }

 private:
  void check_warmup() {
    const auto& [global, micro, warmup] = config_.batch;
    if (warmup == BatchWarmup()) return;
    const auto wrong = [this](const char* key, const std::string& text) {
      problem_(fmt::format("batch.warmup.{}", key), fmt::format("batch.warmup.{}: {}", key, text));
    };
    constexpr std::int64_t most_sizes = 10'000;
    const std::int64_t from = warmup.from, by = warmup.step_size();
    if (config_.deterministic == Deterministic::elastic)
      return wrong("from",
                   "a batch that grows, with deterministic: elastic, whose tree of micro batches always has the "
                   "same size; expected deterministic: run, or no warm-up");
    if (from < 1 || from >= global)
      return wrong("from", fmt::format("{}; expected a batch below batch.global {}, and at least 1", from, global));
    if ((global - from) % by != 0)
      return wrong("increment", fmt::format("{} does not lead from {} to batch.global {}; expected a divisor of {}", by,
                                            from, global, global - from));
    if ((global - from) / by > most_sizes)
      return wrong("increment", fmt::format("{} makes {} sizes of the batch; expected a larger one, for at most {}", by,
                                            (global - from) / by, most_sizes));
    if (warmup.samples < 1) return wrong("samples", "0; expected after how many samples the batch is batch.global");
    if (micro > 0 && (from % micro != 0 || by % micro != 0))
      wrong(from % micro != 0 ? "from" : "increment",
            fmt::format("{} is not a multiple of batch.micro {}; expected one, or batch.micro: auto",
                        from % micro != 0 ? from : by, micro));
  }

  /// Bits that do not depend on the number of ranks come from fixed micro batches, added in one balanced tree.
  void check_elastic() {
    const RunConfig& c = config_;
    if (c.communication.gradient_dtype != DType::f32) {
      problem_("communication.gradient_dtype",
               "communication.gradient_dtype: bfloat16 with deterministic: elastic; expected float32: a single rank "
               "rounds nothing");
    }
    if (sound_("model") && c.model.sync_batch_norm) {
      problem_(
          "model.batch_norm.sync",
          "model.batch_norm.sync: true with deterministic: elastic; expected false: means over all ranks depend on "
          "their number");
    }
    if (!sound_("batch")) return;
    const std::int64_t global = c.batch.global, micro = c.batch.micro;
    std::int64_t parts = 1;  // a suggestion: up to 8 ranks, or accumulation
    while (parts < 8 && global % (2 * parts) == 0) parts *= 2;
    if (micro == 0) {
      problem_("deterministic", fmt::format("batch.micro: auto with deterministic: elastic, whose bits depend on it; "
                                            "expected a number, such as {}",
                                            global / parts));
    } else if (global % micro == 0 && !std::has_single_bit(static_cast<std::uint64_t>(global / micro))) {
      problem_("batch.micro",
               fmt::format("batch.micro: {} makes {} micro batches of batch.global {}; deterministic: elastic expected "
                           "a power of two of them, such as batch.micro: {}",
                           micro, global / micro, global, global / parts));
    }
  }

  /// What only an evaluation can end.
  void check_stopping() {
    const auto& [stop, target] = std::pair(config_.train.stop_after, config_.train.target);
    const char* const key = stop.evaluations > 0                       ? "train.stop_after"
                            : target.loss >= 0 || target.accuracy >= 0 ? "train.target"
                                                                       : nullptr;
    if (key == nullptr) return;
    if (config_.data.eval.files.empty())
      problem_(key,
               fmt::format("{}: there is no data.eval, so nothing is evaluated; expected data to evaluate on", key));
    if (target.accuracy >= 0 && !models::has_accuracy(config_.model))
      problem_("train.target", "train.target.accuracy: only cross_entropy has an accuracy; expected train.target.loss");
  }

  void check_best() {
    const RunConfig& c = config_;
    if (c.checkpoint.best == io::Best::none) return;
    if (c.data.eval.files.empty())
      problem_("checkpoint.best",
               fmt::format("checkpoint.best: {} without data.eval; expected none, or data to evaluate on",
                           io::name_of(c.checkpoint.best)));
    if (c.checkpoint.best == io::Best::accuracy && !models::has_accuracy(c.model))
      problem_("checkpoint.best", "checkpoint.best: accuracy, but only cross_entropy has one; expected none or loss");
  }

  /// A mean or standard deviation a channel, of every input of numbers.
  void check_normalize() {
    const RunConfig& c = config_;
    for (const models::ModelInput& input : models::inputs_of(c.model)) {
      const io::PortConfig port = io::port_config(c.data, PortUse::input, input.name, false);
      if (input.shape.empty()) continue;
      const bool short_form = c.model.inputs.empty();
      const std::string section = find_named(c.data.inputs, input.name) == nullptr
                                      ? "data.normalize"
                                      : fmt::format("data.inputs.{}.normalize", input.name);
      for (const auto& [name, size] : {std::pair("mean", port.normalize.mean.size()),
                                       std::pair("standard_deviation", port.normalize.standard_deviation.size())}) {
        // Channels stand first in the shape of an image, last in that of a series.
        const std::int64_t channels = input.shape.size() == 2 ? input.shape[1] : input.shape[0];
        if (size <= 1 || static_cast<std::int64_t>(size) == channels) continue;
        const std::string field = fmt::format("{}.{}", section, name);
        problem_(field, fmt::format("{}: {} numbers; expected 1, or {}: one a channel of {}", field, size, channels,
                                    short_form ? "model.input" : "model.inputs." + input.name));
      }
    }
  }

  void check_loss_scale() {
    const DynamicLossScale& s = config_.train.dynamic_loss_scale;
    if (s.minimum > s.initial || s.initial > s.maximum)
      problem_(
          "train.dynamic_loss_scale",
          fmt::format("train.dynamic_loss_scale: initial is {}; expected a scale from minimum ({}) to maximum ({})",
                      s.initial, s.minimum, s.maximum));
  }

  void check_model() {
    const RunConfig& c = config_;
    // How many samples a rank computes at once depends on the ranks; two are the least that a batch norm accepts.
    const std::int64_t batch = c.batch.micro > 0 ? c.batch.micro : std::min<std::int64_t>(c.batch.global, 2);
    try {
      Graph graph = models::build(c.model, batch, sound_("precision") ? c.precision : DType::f32);
      if (sound_("optimizer")) check_groups(graph);
      if (sound_("data") && c.data.mix.on()) check_mix(graph);
    } catch (const models::LayerError& e) {
      problem_("model." + place_of(e), fmt::format("model: {}", e.what()));
    } catch (const ShapeError& e) {
      problem_("model.input", e.what());
    } catch (const ConfigError& e) {  // of model.lora
      problem_of(e);
    }
  }

  /// What is mixed is one input of numbers, and the loss counts two labels of each sample.
  void check_mix(const Graph& graph) {
    const RunConfig& c = config_;
    const auto report = [this](const std::string& found, const std::string& expected) {
      problem_("data.mix", fmt::format("data.mix: {}; expected {}", found, expected));
    };
    const std::vector<models::ModelInput> inputs = models::inputs_of(c.model);
    const std::vector<models::ModelLoss> losses = models::losses_of(c.model);
    const auto by_position = [&graph](const GraphInput& input) {
      return input.use == PortUse::target && graph.desc(input.value).shape.rank() > 1;
    };
    const bool labels = losses.size() == 1 && losses[0].kind == models::Loss::cross_entropy;
    if (inputs.size() != 1)
      report(fmt::format("the model has {} inputs", inputs.size()), "a model with one");
    else if (inputs[0].indices())
      report(fmt::format("the input {} has index values, which have no means", inputs[0].name), "an input of numbers");
    else if (c.data.mix.cutmix > 0 && inputs[0].shape.size() != 3)
      report("cutmix needs images, [channels, height, width]", "mixup for this input");
    if (losses.size() != 1)
      report(fmt::format("the model has {} losses", losses.size()), "one cross_entropy");
    else if (!labels || std::any_of(graph.inputs().begin(), graph.inputs().end(), by_position))
      report(labels ? "the loss compares many positions of a sample" : "the loss compares numbers",
             "a cross_entropy with one label a sample");
    if (c.batch.global < 2 || c.batch.warmup.from == 1)
      report("a step of one sample has no pairs", "batch.global, and the first batch of a warm-up, of at least 2");
  }

  /// Where in the model's section the layer, the input, the output or the loss stands that an error begins with.
  std::string place_of(const models::LayerError& e) const {
    const models::ModelConfig& model = config_.model;
    std::istringstream words(e.what());
    std::string what, name;
    words >> what >> name;
    if (!name.empty() && name.back() == ':') name.pop_back();
    if (what == "input") return "inputs." + name;
    if (what == "output") return "outputs." + name;
    if (what == "loss") return "losses." + name;
    const std::string_view family = models::family_name(model.family);
    return family.empty() ? fmt::format("layers.{}", std::min(e.layer(), model.layers.size() - 1))
                          : std::string(family);
  }

  /// Names in the data section are the model's.
  void check_ports() {
    const RunConfig& c = config_;
    io::PortNames names;
    io::TextModel text;
    for (const models::ModelInput& input : models::inputs_of(c.model)) {
      names.inputs.push_back(input.name);
      text.inputs.push_back({input.name, input.shape, input.vocabulary});
      if (input.indices()) names.index_inputs.push_back(input.name);
    }
    for (const models::ModelLoss& loss : models::losses_of(c.model)) {
      names.targets.push_back(loss.target);
      text.targets.push_back({loss.target, loss.kind == models::Loss::cross_entropy, loss.ignore.has_value()});
      text.weights = text.weights || !loss.weight.empty();
      const auto known = std::find(names.label_targets.begin(), names.label_targets.end(), loss.target);
      if (loss.kind == models::Loss::cross_entropy && known == names.label_targets.end())
        names.label_targets.push_back(loss.target);
      if (!loss.weight.empty()) names.weights.push_back(loss.weight);
    }
    for (const io::PortProblem& p : io::port_problems(c.data, names)) problem_(p.field, p.text);
    if (!c.data.text) return;
    for (const auto& [field, what] : io::text_problems(c.data.text, text)) problem_(field, what);
    if (!c.data.eval.inputs.empty() || !c.data.eval.targets.empty())
      problem_("data.eval", "data.eval: with data.text all files are files of tokens; expected files alone");
  }

  void check_groups(Graph& graph) {
    const std::vector<ParameterGroup>& groups = config_.optimizer.groups;
    if (config_.model.lora.on()) check_adapters_train(graph);
    try {
      apply_groups(graph, groups);
      mark_matrices(graph, config_.optimizer);
    } catch (const ConfigError& e) {
      problem_of(e);
    }
  }

  /// A checkpoint holds what model.lora trains, whatever the groups are.
  void check_adapters_train(const Graph& graph) {
    const std::vector<ParameterGroup>& groups = config_.optimizer.groups;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (!groups[g].frozen) continue;
      for (const GraphParam& p : graph.params()) {
        if (p.update.frozen || !matches(groups[g], p.name)) continue;
        const std::string field = fmt::format("optimizer.groups.{}.match", g);
        problem_(field,
                 fmt::format("{}: {} is to freeze {}, which model.lora trains; expected a pattern that leaves it "
                             "out, or other targets",
                             field, json_string(groups[g].match), p.name));
        break;
      }
    }
  }

  /// Its text begins with the field.
  void problem_of(const ConfigError& e) {
    const std::string text = e.what();
    problem_(text.substr(0, text.find(':')), text);
  }

  const RunConfig& config_;
  const bool has_model_;
  const std::function<bool(std::string_view)>& sound_;
  const std::function<void(const std::string&, const std::string&)>& problem_;
};

}  // namespace

void check_config(const RunConfig& config, bool has_model, const std::function<bool(std::string_view)>& sound,
                  const std::function<void(const std::string& field, const std::string& text)>& problem) {
  Checks(config, has_model, sound, problem).check();
}

}  // namespace dtrain::launch
