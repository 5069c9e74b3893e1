#include "launch/infer/trained_model.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "comm/collective/agree.hpp"
#include "launch/data/normalization.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/report/run_choices.hpp"
#include "launch/train/going_on.hpp"
#include "launch/train/start_weights.hpp"
#include "runtime/config/version.hpp"

namespace dtrain::launch {

namespace {

std::string where_to_look(const RunConfig& config, const std::string& given) {
  if (given.empty()) return config.checkpoint.directory;
  std::error_code ignored;
  const bool of_run = io::names_checkpoint(given) && !std::filesystem::exists(given, ignored);
  return of_run ? config.checkpoint.directory + "/" + given : given;
}

/// Shapes of parameters do not tell one activation, or one normalization, from another.
void check_same_model(const io::FoundCheckpoint& found, const LoadedConfig& input) {
  if (input.config.checkpoint.force) return;
  std::map<std::string, std::pair<std::string, std::string>> fields;
  const auto of_model = [](const std::string& f) {
    const bool port = f.starts_with("data.inputs.") || f.starts_with("data.targets.");
    // Where it began does not matter; and of a base, its parameters are compared.
    if (f.starts_with("model.initialize_from")) return false;
    return f.starts_with("model.") || f.starts_with("data.normalize") ||
           (port && f.find(".normalize") != std::string::npos);
  };
  for (const auto& [field, value] : fields_of(found.state.configuration, found.state.fields))
    if (of_model(field)) fields[field].first = value;
  for (const auto& [field, value] : input.fields)
    if (of_model(field)) fields[field].second = value;
  std::string text;
  for (const auto& [field, values] : fields) {
    const auto& [before, now] = values;
    if (before == now) continue;
    text += fmt::format("{}{} was {}, is {}", text.empty() ? "" : "; ", field, before.empty() ? "(not set)" : before,
                        now.empty() ? "(not set)" : now);
  }
  if (!text.empty()) {
    throw CheckpointError(
        fmt::format("checkpoint {} is of another model: {}; use the configuration that it was trained "
                    "with{}",
                    found.path, text,
                    same_parameters(found, input.config) ? ", or accept it with checkpoint.force=true" : ""),
        CheckpointError::Kind::incompatible);
  }
}

}  // namespace

TrainedModel::TrainedModel(const LoadedConfig& input, comm::World& world, const CheckpointChoice& choice)
    : input_(input), config_(input.config), world_(world), choice_(choice), group_(world.make_group()) {
  watchdog().limit(config_.communication);
  watchdog().beat("set-up", 0, comm::Deadline::set_up);
  const comm::Fact facts[] = {{"dtrain version", std::string(version())}, {"configuration hash", input_.hash}};
  comm::agree_on(*group_, world_.host(), facts);
  found_.emplace(io::find_checkpoint(*group_, where_to_look(config_, choice_.checkpoint)));
  group_->agree([&] {
    check_same_model(*found_, input_);
    recall_normalization(config_, found_->state.choices, found_->path);
  });
}

void TrainedModel::set_up_graph(const std::function<Graph()>& build) {
  std::optional<Graph> graph;
  DevicePlacement placement;
  std::unique_ptr<Device> device = placed_device(config_, world_, *group_, placement);
  group_->agree([&] {
    engine_.emplace(world_, std::move(device));
    graph.emplace(build());
  });
  RunChoices choices(*group_);  // of the run that trained it, where they suit
  choices.recall(found_->state.choices);
  choices.prepare(engine_->device(), [&] { engine_->bind(std::move(*graph), config_, Mode::evaluate); });
  load();
}

std::string TrainedModel::ranks_text() const {
  return fmt::format("{} {}", world_.size(), world_.size() == 1 ? "rank" : "ranks");
}

io::LoaderOptions TrainedModel::loading() const {
  return loader_options(config_, engine_->plan().graph, stored_, *data_, DataUse::evaluation, world_.rank(),
                        world_.size(), &engine_->device());
}

/// What a LoRA run's checkpoint does not hold: rank 0 reads it, as a run does at its start.
void TrainedModel::load_base(const HostMirror& params) {
  const FlatLayout& layout = engine_->store().layout();
  float* const flat = params.as<float>();
  group_->agree([&] {
    if (group_->rank() == 0)
      check_base(found_->path, found_->state, config_.model,
                 read_base(config_.model, layout, engine_->plan().graph, found_->state.seed, flat));
  });
  constexpr std::size_t most = std::size_t{16} << 20;  // floats of a message
  for (std::size_t at = 0; at < layout.all_floats(); at += most) {
    const std::span<float> piece(flat + at, std::min(most, layout.all_floats() - at));
    std::vector<std::byte> bytes(piece.size_bytes());
    std::memcpy(bytes.data(), piece.data(), bytes.size());
    group_->broadcast(bytes, 0);
    std::memcpy(piece.data(), bytes.data(), bytes.size());
  }
}

void TrainedModel::load() {
  watchdog().beat("load", 0, comm::Deadline::load);
  const ParameterStore& store = engine_->store();
  const HostMirror params(engine_->device(), store.params(), store.layout().all_floats() * sizeof(float));
  const bool part = config_.model.lora.on();
  const FlatLayout& layout = store.layout();
  std::vector<io::StateTensor> tensors;
  io::append_flat(tensors, averaged() ? "ema/" : "param/", part ? layout.trained() : std::span(layout.params),
                  params.as<float>());
  for (const FlatState& s : store.layout().states)
    if (s.kept) tensors.push_back({"state/" + s.name, DType::f32, s.shape, params.as<float>() + s.offset});
  const std::string_view skipped[] = {"optimizer/", averaged() ? "param/" : "ema/"};
  // The gaps between parameters are zero on the device, and stay so.
  params.pull(engine_->compute());
  engine_->compute().synchronize();
  if (part) load_base(params);
  io::load_checkpoint(*group_, found_->path, tensors, io::posix_file_system(), skipped);
  params.push(engine_->compute());
  engine_->pack();
  engine_->compute().synchronize();
}

}  // namespace dtrain::launch
