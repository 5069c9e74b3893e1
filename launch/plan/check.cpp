#include "launch/plan/check.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "launch/base/text.hpp"
#include "launch/data/data.hpp"
#include "launch/plan/bucket_choice.hpp"
#include "launch/plan/bucket_tuning.hpp"
#include "launch/plan/memory_fit.hpp"
#include "launch/plan/predict.hpp"
#include "launch/report/run_choices.hpp"
#include "runtime/plan/plan.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t columns = 100;

struct PlanRow {
  std::string name, op, output;
  std::int64_t parameters = 0;
  double flops = 0;  // a sample, forward
};

struct DataFacts {
  std::int64_t train_samples = 0, eval_samples = 0;
};

/// The set as the trainer will open it; nothing, and a note, where a file is not there yet.
std::optional<io::Dataset> open_if_there(const RunConfig& config, DataUse use, std::vector<std::string>& notes,
                                         const io::Dataset* train = nullptr) {
  const bool training = use == DataUse::training;
  const std::vector<std::string>& patterns = training ? config.data.train : config.data.eval.files;
  if (patterns.empty()) return std::nullopt;
  for (const std::string& pattern : patterns) {
    std::error_code ignored;
    const bool glob = pattern.find_first_of("*?[") != std::string::npos;
    if (!glob && !std::filesystem::exists(pattern, ignored)) {
      notes.push_back(fmt::format("{}: {} is not there: its shapes and samples are not checked",
                                  training ? "data.train" : "data.eval", pattern));
      return std::nullopt;
    }
  }
  return open_data(config, patterns, use, 0, train != nullptr ? train->descriptions() : Reference());
}

/// Names of the parameters with elements in the bucket.
std::vector<std::string> names_in(const Bucket& bucket, const FlatLayout& layout) {
  std::vector<std::string> names;
  for (const FlatParam& p : layout.params)
    if (p.offset < bucket.end && p.offset + p.size > bucket.begin) names.push_back(p.name);
  return names;
}

/// "a, b, c" in lines of the width, those after the first indented.
std::string wrapped(const std::vector<std::string>& names, std::size_t indent) {
  std::string out;
  std::size_t column = indent;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string piece = names[i] + (i + 1 < names.size() ? "," : "");
    if (i > 0 && column + 1 + piece.size() > columns) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (i > 0) {
      out += ' ';
      ++column;
    }
    out += piece;
    column += piece.size();
  }
  return out;
}

std::string prediction_text(const Prediction& p) {
  std::string out = fmt::format(
      "Predicted on {} rank{} of {} host{}: a step of {} = {} of its own and {} of communication ({} of it waited "
      "for); "
      "{} samples/s, efficiency {:.3f}",
      p.ranks, p.ranks == 1 ? "" : "s", p.hosts, p.hosts == 1 ? "" : "s", seconds_text(p.step), seconds_text(p.compute),
      seconds_text(p.step - p.compute), seconds_text(p.exposed),
      grouped(static_cast<std::int64_t>(p.samples_per_second)), p.efficiency);
  if (p.speedup > 0) out += fmt::format(", speed-up over one rank {:.2f}", p.speedup);
  return out + "\n";
}

Json prediction_json(const Prediction& p) {
  return {{"ranks", p.ranks},
          {"hosts", p.hosts},
          {"step_seconds", p.step},
          {"compute_seconds", p.compute},
          {"communication_exposed_seconds", p.exposed},
          {"samples_per_second", p.samples_per_second},
          {"efficiency", p.efficiency},
          {"speedup", p.speedup > 0 ? Json(p.speedup) : Json()}};
}

class Check {
 public:
  Check(const LoadedConfig& loaded, const CheckOptions& asked)
      : loaded_(loaded), config_(loaded.config), ranks_(asked.ranks), split_(check_batch(loaded, asked.ranks)) {
    take_chosen_buckets();
    std::vector<std::string> absent;
    const auto train = open_if_there(config_, DataUse::training, absent);
    const auto eval = open_if_there(config_, DataUse::evaluation, absent, train ? &*train : nullptr);
    models::StoredPorts stored;
    if (train || eval) stored = stored_ports(train ? *train : *eval, train && eval ? &*eval : nullptr);
    plan_ = make_plan(training_graph(config_, split_.micro, stored), plan_options(config_, ranks_));
    notes_.push_back("workspaces and packed parameters are stated upper bounds: no device was asked");
    notes_.insert(notes_.end(), absent.begin(), absent.end());
    notes_.insert(notes_.end(), loaded.remarks.begin(), loaded.remarks.end());
    if (train) check_data(config_, plan_.graph, stored, *train, DataUse::training);
    if (eval) check_data(config_, plan_.graph, stored, *eval, DataUse::evaluation);
    if (train)
      for (std::string& text : data_warnings(config_, plan_.graph, stored, *train, eval ? &*eval : nullptr))
        notes_.push_back(std::move(text));
    if (train)
      for (std::string& text : text_notes(*train, eval ? &*eval : nullptr)) notes_.push_back(std::move(text));
    if (train) look_through(stored, *train, DataUse::training);
    if (eval) look_through(stored, *eval, DataUse::evaluation);
    data_.train_samples = train ? static_cast<std::int64_t>(train->count()) : 0;
    data_.eval_samples = eval ? static_cast<std::int64_t>(eval->count()) : 0;
    memory_ = run_memory(config_, plan_, ranks_, split_.accumulation);
    for (const Bucket& bucket : plan_.layout.buckets) gradient_bytes_ += static_cast<double>(bucket.bytes());
    wire_bytes_ = wire_bytes();
    if (data_.train_samples > 0 || config_.train.steps > 0)
      steps_ = total_steps(config_, static_cast<std::uint64_t>(data_.train_samples));
    if (std::string text = schedule_warning(config_, steps_); !text.empty()) notes_.push_back(std::move(text));
    for (const GraphNode& node : plan_.graph.nodes()) {
      PlanRow row{
          node.name, std::string(name_of(node.op)), {}, 0, node.shape.flops / static_cast<double>(split_.micro)};
      row.output = node.shape.loss ? "a sum" : node.shape.out.at(0).sample_str();
      for (const ParamId id : node.params)
        row.parameters += plan_.graph.params().at(static_cast<std::size_t>(id)).shape.elements();
      layers_.push_back(std::move(row));
    }
    if (asked.cluster.given()) {
      const auto profile = asked.profile.empty() ? std::optional<Profile>() : read_profile(asked.profile);
      scaling_ = model_scaling(loaded, asked.cluster, profile ? &*profile : nullptr, ranks_, asked.ranks_per_host);
      return;
    }
    if (asked.profile.empty()) return;
    std::vector<std::size_t> bytes;
    for (const Bucket& bucket : plan_.layout.buckets) bytes.push_back(bucket.bytes());
    prediction_ = predict(read_profile(asked.profile), loaded, bytes, ranks_, asked.ranks_per_host);
    for (const std::string& note : prediction_->notes) notes_.push_back("prediction: " + note);
  }

  std::string text() const {
    std::string out = fmt::format("{}: {} parameters, {}FLOP a sample forward, {}FLOP trained\n", config_.name,
                                  grouped(plan_.graph.parameter_count()), quantity(plan_.flops_per_sample),
                                  quantity(plan_.train_flops_per_sample));
    if (config_.model.lora.on()) out += lora_text();
    if (plan_.graph.frozen_count() > 0 || !config_.optimizer.groups.empty()) out += groups_text();
    if (std::holds_alternative<Muon>(config_.optimizer.kind)) out += muon_text();
    out += "\n";
    out += layer_table();
    out += "\nMemory of a rank\n";
    for (const auto& [name, bytes] : memory_rows()) out += fmt::format("  {:<24}{:>12}\n", name, bytes_text(bytes));
    out += fmt::format("\nGradients: {} in {} bucket{}, in the order in which backward makes them\n",
                       bytes_text(gradient_bytes_), plan_.layout.buckets.size(),
                       plan_.layout.buckets.size() == 1 ? "" : "s");
    for (std::size_t i = 0; i < plan_.layout.buckets.size(); ++i) {
      const Bucket& bucket = plan_.layout.buckets[i];
      out += fmt::format("  {:<4}{:>10}  {}\n", i, bytes_text(static_cast<double>(bucket.bytes())),
                         wrapped(names_in(bucket, plan_.layout), 18));
    }
    out += fmt::format("  on the wire: {} a step from each of {} rank{} ({})\n", bytes_text(wire_bytes_), ranks_,
                       ranks_ == 1 ? "" : "s", wire_terms());
    out += fmt::format("\nBatch: {} = {} rank{} x {} micro batch{} of {}\n", config_.batch.global, ranks_,
                       ranks_ == 1 ? "" : "s", split_.accumulation, split_.accumulation == 1 ? "" : "es", split_.micro);
    out += warmup_text();
    if (data_.train_samples > 0) {
      out += fmt::format("Data: {} training samples", grouped(data_.train_samples));
      if (data_.eval_samples > 0) out += fmt::format(", {} for evaluation", grouped(data_.eval_samples));
      out += fmt::format("; {:.2f} steps an epoch\n", steps_per_epoch());
    }
    if (steps_ > 0) out += fmt::format("Run: {} steps\n", grouped(steps_));
    if (prediction_) out += prediction_text(*prediction_);
    if (scaling_) out += "\n" + text_of(*scaling_);
    for (const std::string& note : notes_) out += "Note: " + note + '\n';
    return out;
  }

  std::string json() const {
    Json layers = Json::array(), buckets = Json::array(), memory = Json::object();
    for (const PlanRow& row : layers_) {
      layers.push_back({{"name", row.name},
                        {"op", row.op},
                        {"output", row.output},
                        {"parameters", row.parameters},
                        {"flops_per_sample", row.flops}});
    }
    for (const Bucket& bucket : plan_.layout.buckets)
      buckets.push_back({{"bytes", bucket.bytes()}, {"parameters", names_in(bucket, plan_.layout)}});
    memory = {{"parameters", memory_.parameters}, {"gradients", memory_.gradients},
              {"optimizer", memory_.optimizer},   {"packed", memory_.packed},
              {"arena", memory_.arena},           {"inputs", memory_.inputs},
              {"total", memory_.total()},         {"estimated", true}};
    const auto known = [](std::int64_t value) { return value > 0 ? Json(value) : Json(); };
    const Json report = {
        {"name", config_.name},
        {"configuration_hash", loaded_.hash},
        {"ranks", ranks_},
        {"parameters", plan_.graph.parameter_count()},
        {"trained_parameters", plan_.graph.parameter_count() - plan_.graph.frozen_count()},
        {"frozen_parameters", plan_.graph.frozen_count()},
        {"groups", groups_json()},
        {"flops_per_sample", plan_.flops_per_sample},
        {"train_flops_per_sample", plan_.train_flops_per_sample},
        {"layers", layers},
        {"memory_bytes", memory},
        {"buckets", buckets},
        {"gradient_bytes", static_cast<std::int64_t>(gradient_bytes_)},
        {"wire_bytes_per_step", static_cast<std::int64_t>(wire_bytes_)},
        {"batch", {{"global", config_.batch.global}, {"micro", split_.micro}, {"accumulation", split_.accumulation}}},
        {"train_samples", known(data_.train_samples)},
        {"eval_samples", known(data_.eval_samples)},
        {"steps_per_epoch", data_.train_samples > 0 ? Json(steps_per_epoch()) : Json()},
        {"total_steps", known(steps_)},
        {"prediction", prediction_ ? prediction_json(*prediction_) : Json()},
        {"scaling", scaling_ ? to_json(*scaling_) : Json()},
        {"notes", notes_},
    };
    return report.dump(2) + "\n";
  }

 private:
  /// The parameters that group `g` decides on: those that it is the last to match.
  std::int64_t decided_by(std::size_t g) const {
    const std::vector<ParameterGroup>& groups = config_.optimizer.groups;
    std::int64_t count = 0;
    for (const GraphParam& p : plan_.graph.params()) {
      const auto last = std::find_if(groups.rbegin(), groups.rend(), [&](const auto& x) { return matches(x, p.name); });
      if (last != groups.rend() && &*last == &groups[g]) count += p.shape.elements();
    }
    return count;
  }
  std::string groups_text() const {
    const std::int64_t frozen = plan_.graph.frozen_count();
    std::string out = fmt::format("{} of these parameters are trained, {} are frozen\n",
                                  grouped(plan_.graph.parameter_count() - frozen), grouped(frozen));
    for (std::size_t g = 0; g < config_.optimizer.groups.size(); ++g) {
      const ParameterGroup& group = config_.optimizer.groups[g];
      std::string how = group.frozen ? "frozen" : fmt::format("learning rate x {}", group.learning_rate_factor);
      if (!group.frozen && group.weight_decay) how += fmt::format(", weight decay {}", *group.weight_decay);
      if (!group.frozen && !group.orthogonalize) how += ", by adamw";
      if (group.frozen_statistics) how += ", statistics frozen";
      out += fmt::format("  {}: {} parameters, {}\n", group.match, grouped(decided_by(g)), how);
    }
    return out;
  }
  std::string lora_text() const {
    const models::Lora& lora = config_.model.lora;
    const auto adapters = std::count_if(plan_.graph.params().begin(), plan_.graph.params().end(),
                                        [](const GraphParam& p) { return models::is_adapter(p.name); });
    return fmt::format("lora: adapters of rank {} and alpha {} beside {} dense layer{}\n", lora.rank, lora.alpha,
                       adapters / 2, adapters == 2 ? "" : "s");
  }
  std::string muon_text() const {
    std::int64_t floats = 0, matrices = 0;
    for (const GraphParam& p : plan_.graph.params()) {
      matrices += static_cast<std::int64_t>(p.matrices.size());
      if (!p.matrices.empty()) floats += p.shape.elements();
    }
    const std::int64_t trained = plan_.graph.parameter_count() - plan_.graph.frozen_count();
    return fmt::format("muon: {} matri{} with {} parameters; {} parameters by adamw\n", matrices,
                       matrices == 1 ? "x" : "ces", grouped(floats), grouped(trained - floats));
  }
  Json groups_json() const {
    Json out = Json::array();
    for (std::size_t g = 0; g < config_.optimizer.groups.size(); ++g) {
      const ParameterGroup& group = config_.optimizer.groups[g];
      out.push_back({{"match", group.match},
                     {"parameters", decided_by(g)},
                     {"learning_rate_factor", group.learning_rate_factor},
                     {"weight_decay", group.weight_decay ? Json(*group.weight_decay) : Json()},
                     {"frozen", group.frozen},
                     {"frozen_statistics", group.frozen_statistics}});
    }
    return out;
  }

  /// Reads the samples as a run would: one that cannot be used is better met now. The first ones of a large set.
  void look_through(const models::StoredPorts& stored, const io::Dataset& data, DataUse use) {
    constexpr std::size_t most = std::size_t{512} << 20;  // bytes; a second or two
    const bool training = use == DataUse::training;
    const io::LoaderOptions options = loader_options(config_, plan_.graph, stored, data, use);
    const auto micro = static_cast<std::uint64_t>(split_.micro);
    const std::uint64_t batches =
        std::min((data.count() + micro - 1) / micro, most / std::max<std::uint64_t>(options.layout.bytes, 1) + 1);
    const auto loader = training ? io::Loader::training(data, options) : io::Loader::evaluation(data, options);
    for (std::uint64_t i = 0; i < batches; ++i) {
      (void)loader->next();
      loader->release();
    }
    if (batches * micro < data.count())
      notes_.push_back(
          fmt::format("data.{}: {} of {} samples were looked through; dtrain data inspect reads all of a "
                      "file",
                      training ? "train" : "eval", grouped(static_cast<std::int64_t>(batches * micro)),
                      grouped(static_cast<std::int64_t>(data.count()))));
  }

  /// Those that the run in this directory chose at start, where it did.
  void take_chosen_buckets() {
    if (config_.communication.bucket_mib > 0 || ranks_ == 1) return;
    SoloGroup alone;
    RunChoices choices(alone);
    choices.recall(config_.log.directory);
    for (const auto& [key, text] : choices.all()) {
      if (!key.starts_with(bucket_key_of(ranks_))) continue;
      set_buckets(config_.communication, parse_buckets(text));
      notes_.push_back(fmt::format("buckets as {} chose them ({}): {}", config_.log.directory, key, text));
      return;
    }
    if (config_.communication.bucket_mib == comm::bucket_auto || config_.device == DeviceChoice::cuda)
      notes_.push_back("communication.bucket_mib is chosen at start, by measurement: shown are the buckets of 25 MiB");
  }

  /// What a rank sends: gradients there and sums back, or, sharded, shards of gradients there and parameters back.
  double wire_bytes() const {
    const FlatLayout& layout = plan_.layout;
    const auto params = static_cast<double>(layout.param_floats),
               behind = static_cast<double>(layout.total_floats() - layout.param_floats);
    const auto gradient = static_cast<double>(size_of(config_.communication.gradient_dtype));
    const double back = config_.optimizer.shard ? sizeof(float) : gradient;
    const double more = whole() ? gradient : 0;
    return (ranks_ - 1.0) / ranks_ * (params * (gradient + back + more) + 2 * sizeof(float) * behind);
  }
  /// Shards of whole parameters: every rank gets all sums.
  bool whole() const { return !plan_.layout.whole_shards.empty(); }
  const char* wire_terms() const {
    if (whole()) return "2(N-1)/N of the gradients and (N-1)/N of the parameters";
    return config_.optimizer.shard ? "(N-1)/N of gradients and parameters" : "2(N-1)/N of the gradients";
  }

  /// The first sizes, and the last one.
  std::string warmup_text() const {
    const BatchSchedule schedule = config_.batch.schedule();
    if (schedule.constant()) return {};
    constexpr std::size_t most = 4;
    std::vector<std::string> sizes;
    for (std::size_t i = 0; i < schedule.stages().size(); ++i) {
      const BatchSchedule::Stage& stage = schedule.stages()[i];
      if (i == most && i + 1 < schedule.stages().size()) sizes.emplace_back("...");
      if (i < most || i + 1 == schedule.stages().size())
        sizes.push_back(fmt::format("{} from step {} on", stage.batch, grouped(stage.step)));
    }
    return fmt::format("Batch warm-up: {} ({} micro batch{} a step at first)\n", fmt::join(sizes, ", "),
                       split_.accumulation * schedule.batch(0) / schedule.largest(),
                       split_.accumulation * schedule.batch(0) == schedule.largest() ? "" : "es");
  }

  double steps_per_epoch() const {
    return static_cast<double>(data_.train_samples) / static_cast<double>(config_.batch.global);
  }

  std::vector<std::pair<const char*, double>> memory_rows() const {
    const auto b = [](std::size_t bytes) { return static_cast<double>(bytes); };
    return {{"parameters", b(memory_.parameters)},
            {"gradients", b(memory_.gradients)},
            {"optimizer", b(memory_.optimizer)},
            {"packed parameters", b(memory_.packed)},
            {"activations (arena)", b(memory_.arena)},
            {"inputs", b(memory_.inputs)},
            {"total", b(memory_.total())}};
  }

  std::string layer_table() const {
    TextTable table({"<layer", "<op", "<output", "parameters", "FLOP a sample"});
    for (const PlanRow& row : layers_)
      table.row({row.name, row.op, row.output, grouped(row.parameters), quantity(row.flops)});
    table.row({"total", "", "", grouped(plan_.graph.parameter_count()), quantity(plan_.flops_per_sample)});
    return table.str();
  }

  const LoadedConfig& loaded_;
  RunConfig config_;
  int ranks_;
  BatchSplit split_;
  Plan plan_;
  MemoryUse memory_;
  DataFacts data_;
  double gradient_bytes_ = 0, wire_bytes_ = 0;
  std::int64_t steps_ = 0;
  std::vector<PlanRow> layers_;
  std::vector<std::string> notes_;
  std::optional<Prediction> prediction_;
  std::optional<ScaleModel> scaling_;
};

}  // namespace

CheckReport check(const LoadedConfig& loaded, const CheckOptions& options) {
  const Check report(loaded, options);
  return {report.text(), report.json()};
}

}  // namespace dtrain::launch
