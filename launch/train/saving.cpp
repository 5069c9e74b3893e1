#include "launch/train/saving.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "launch/base/alone.hpp"
#include "launch/base/clock.hpp"
#include "launch/data/data.hpp"
#include "launch/data/export_form.hpp"
#include "launch/train/going_on.hpp"
#include "launch/train/merged_model.hpp"
#include "launch/train/start_weights.hpp"
#include "launch/train/stopping.hpp"
#include "runtime/config/version.hpp"

namespace dtrain::launch {

namespace {

/// However the two are spelt: "runs/x/", "./runs/x", a symbolic link.
bool lies_in(const std::string& path, const std::string& directory) {
  namespace fs = std::filesystem;
  fs::path at = fs::path(path).lexically_normal();
  if (!at.has_filename()) at = at.parent_path();
  std::error_code failed;
  const fs::path parent = at.has_parent_path() ? at.parent_path() : fs::path(".");
  return fs::equivalent(parent, directory, failed) && !failed;
}

// In the manifest's `versions`.
constexpr const char* order_key = "sample_order";
constexpr const char* updates_before_key = "updates_by_other_optimizers";

std::string text_of(io::OrderVersion order) {
  return fmt::format("{}", static_cast<int>(order));
}

/// A checkpoint that names none was written when there was but one.
io::OrderVersion order_of(const io::FoundCheckpoint& found) {
  const auto at = found.state.versions.find(order_key);
  if (at == found.state.versions.end()) return io::OrderVersion::first;
  for (const auto order : {io::OrderVersion::first, io::OrderVersion::second})
    if (at->second == text_of(order)) return order;
  throw CheckpointError(fmt::format("checkpoint {} draws its samples in order version {}, which this dtrain does not "
                                    "know: it is of a newer one",
                                    found.path, at->second),
                        CheckpointError::Kind::incompatible);
}

[[noreturn]] void contradicts(const std::string& path, const std::string& what) {
  throw CheckpointError(fmt::format("checkpoint {} is corrupt: {}; resume from another one", path, what),
                        CheckpointError::Kind::corrupt);
}

/// What a manifest says beside its configuration, its configuration says as well.
void compare_with_fields(const std::string& path, const io::RunState& s) {
  for (const auto& [key, value] : {std::pair("seed", s.seed), std::pair("batch.global", s.global_batch)})
    for (const auto& [field, text] : s.fields)
      if (field == key && text != fmt::format("{}", value))
        contradicts(path,
                    fmt::format("MANIFEST.json says that {} is {}, and the configuration in it {}", key, value, text));
  std::optional<BatchSchedule> batch;
  try {
    batch = parse_config(s.configuration, path).config.batch.schedule();
  } catch (const ConfigError&) {  // of another program: only a constant batch can be compared, and was
    return;
  }
  if (const std::int64_t samples = batch->samples_before(static_cast<std::int64_t>(s.step));
      s.samples != static_cast<std::uint64_t>(samples))
    contradicts(path,
                fmt::format("MANIFEST.json says that samples is {}, and {} steps of the configuration in it take {}",
                            s.samples, s.step, samples));
}

}  // namespace

Saving::Saving(const LoadedConfig& input, comm::World& world, Group& group, Reporter& report, RunChoices& choices,
               const io::Dataset& data, RunStatus& status, StopSignals& stop)
    : input_(input),
      config_(input.config),
      world_(world),
      group_(group),
      report_(report),
      choices_(choices),
      data_(data),
      run_id_(group.broadcast(io::make_run_id())),
      job_(comm::slurm_job(comm::process_environment())) {
  writer_ = std::make_unique<io::CheckpointWriter>(group_, config_.checkpoint, run_id_);
  export_each(stop);
  io::CheckpointConfig from = config_.checkpoint;
  from.fresh = fresh_ = begins_anew();
  found_ = io::find_resume(group_, from);
  if (!found_) return;
  own_ = group_.any(world_.rank() == 0 && lies_in(found_->path, config_.checkpoint.directory));
  if (own_ && !config_.checkpoint.fresh && config_.checkpoint.resume != io::Resume::automatic)
    report_.say(
        "checkpoint.resume is for a run without checkpoints; this one goes on from its own; --fresh begins anew");
  const io::RunState now = run_state(status);
  found_->state.fields = fields_of(found_->state.configuration, std::move(found_->state.fields));
  compare_with_fields(found_->path, found_->state);
  for (const auto& skipped : found_->skipped) report_.warn(fmt::format("skipped {}", skipped));
  if (!config_.checkpoint.force) check_same_names(*found_, data_.descriptions());
  const GoingOn changes = go_on(*found_, now, config_);
  for (const auto& remark : changes.remarks) report_.say("resume: " + remark);
  optimizer_anew_ = changes.optimizer_anew;
  order_ = order_of(*found_);
  recall(status);
  choices.recall(found_->state.choices);
  make_up_export();
}

/// --fresh is said once: where this job has saved since, and Slurm has started it again, the run goes on. A job that
/// has not saved yet has nothing to lose, and what it finds is an earlier run's. Rank 0 decides: a launcher need not
/// hand Slurm's variables to other hosts.
bool Saving::begins_anew() {
  bool anew = false;
  group_.agree([&] {
    if (world_.rank() != 0 || !config_.checkpoint.fresh) return;
    anew = !job_.restarted || !io::newest_is_of_job(config_.checkpoint.directory, job_.id);
    if (!anew)
      report_.warn(fmt::format(
          "--fresh is ignored: Slurm has started job {} again, which has saved checkpoints; the run goes on", job_.id));
  });
  return group_.any(anew);
}

/// What the model's folder says of it is made here once, before other threads read data. A stop ends it also where this
/// thread waits for it, before a save.
void Saving::export_each(StopSignals& stop) {
  if (config_.checkpoint.exported == io::Export::none) return;
  ExportForm made;
  group_.agree([&] {
    if (world_.rank() == 0) made = export_form(config_, ExportNames::automatic);
  });
  if (!made.remark.empty()) report_.say("checkpoint.export: " + made.remark);
  export_ = [form = std::move(made.form), &stop](const std::string& path, const io::GivenUp& given_up) {
    const io::GivenUp stopping = [&] { return (given_up && given_up()) || stop.pending(); };
    try {
      MergedModel merged;
      io::export_into_checkpoint(
          path, form,
          [&](const std::string& checkpoint, const io::RunState& state, bool averaged) {
            return merged.read(checkpoint, state, averaged, stopping);
          },
          io::posix_file_system(), stopping);
    } catch (const Error& e) {
      throw CheckpointError(
          fmt::format("the checkpoint {} is whole, but its model could not be exported: {}; `dtrain "
                      "checkpoint export` can do it later",
                      path, e.what()));
    }
  };
  writer_->when_durable(export_);
}

/// A run that ended between its checkpoint and the model of that owes the model.
void Saving::make_up_export() {
  if (!own_ || !export_) return;
  std::error_code failed;
  const std::string& path = found_->path;
  const bool missing = world_.rank() == 0 && !std::filesystem::exists(path + "/" + io::exported_model, failed);
  if (!group_.any(missing)) return;
  report_.say(
      fmt::format("checkpoint.export: the run ended before it had written the model of {}; it is written now", path));
  world_.watchdog().pause();  // a large model takes long
  try {
    if (missing) export_(path, nullptr);
  } catch (const std::exception& e) {
    report_.warn(e.what());
  }
  group_.barrier();
  world_.watchdog().beat("load", 0, comm::Deadline::load);
}

/// A dynamic scale goes on where it was, as far as its limits of now allow; one that is not, or was not, begins as the
/// settings say.
void Saving::recall_loss_scale(RunStatus& status) const {
  const LossScaling now = loss_scaling(config_);
  if (!now.dynamic) return;
  if (!found_->state.good_steps) {
    report_.say(fmt::format("resume: the checkpoint has no dynamic loss scale; it begins with {}", now.initial));
    return;
  }
  status.loss_scale = std::clamp(static_cast<float>(found_->state.loss_scale), now.minimum, now.maximum);
  status.good_steps = *found_->state.good_steps;
}

/// The metrics of an evaluation, as they are written.
template <class Value>
EvalMetrics Saving::recalled_eval(const Value& value) const {
  EvalMetrics eval;
  eval.loss = value("eval_loss", 0);
  eval.accuracy = value("eval_accuracy", -1);
  eval.top5_accuracy = value("eval_top5_accuracy", -1);
  eval.perplexity = value("eval_perplexity", -1);
  eval.bits_per_byte = value("eval_bits_per_byte", -1);
  eval.averaged = value("eval_averaged", 0) != 0;
  const auto losses = models::losses_of(config_.model);
  for (std::size_t k = 0; k < losses.size() && losses.size() > 1; ++k)
    eval.losses.push_back(
        {losses[k].name, value("eval_loss/" + losses[k].name, 0), value("eval_accuracy/" + losses[k].name, -1),
         value("eval_top5_accuracy/" + losses[k].name, -1), value("eval_perplexity/" + losses[k].name, -1),
         value("eval_bits_per_byte/" + losses[k].name, -1)});
  return eval;
}

/// What a summary says beside the parameters is as of the checkpoint.
void Saving::recall(RunStatus& status) const {
  status.step = status.first_step = static_cast<std::int64_t>(found_->state.step);
  const auto& versions = found_->state.versions;
  if (const auto at = versions.find(updates_before_key); at != versions.end())
    status.before = std::strtoull(at->second.c_str(), nullptr, 10);
  status.applied = found_->state.applied_steps;
  if (optimizer_anew_) status.before += std::exchange(status.applied, 0);
  recall_loss_scale(status);
  const auto& metrics = found_->state.metrics;
  const auto value = [&](const std::string& name, double otherwise) {
    const auto at = metrics.find(name);
    return at == metrics.end() ? otherwise : at->second;
  };
  status.loss = value("train_loss", 0);
  status.evaluated_step = static_cast<std::int64_t>(value("eval_step", -1));
  recall_patience(config_, metrics, status);
  if (status.evaluated_step >= 0 && !config_.data.eval.files.empty()) status.eval = recalled_eval(value);
}

/// The best so far is of this directory and of the same measure, or it is forgotten. Newer steps than the one that the
/// run goes on from may have taken its label: they are given up.
void Saving::recall_best(RunStatus& status) {
  if (config_.checkpoint.best == io::Best::none) return;
  const auto& metrics = found_->state.metrics;
  const auto step = metrics.find("best_step");
  const auto value = metrics.find(fmt::format("best_{}", io::name_of(config_.checkpoint.best)));
  if (step != metrics.end() && value != metrics.end() &&
      group_.any(world_.rank() == 0 &&
                 io::holds_step(config_.checkpoint.directory, static_cast<std::uint64_t>(step->second))))
    status.best = BestEval{static_cast<std::int64_t>(step->second), value->second};
  label(status);
}

void Saving::label(const RunStatus& status) {
  if (!status.best) return;
  const std::string problem = writer_->label_best(static_cast<std::uint64_t>(status.best->step));
  if (!problem.empty()) report_.warn(fmt::format("the best checkpoint could not be labelled: {}", problem));
}

bool Saving::finished_before(const RunStatus& status) {
  if (!found_) return false;
  const std::string enough = why_enough(config_, status);
  if (!status.finished() && enough.empty()) return false;
  // A run that died between its last checkpoint and its summary still owes the summary.
  if (status.step <= status.total_steps &&
      group_.any(world_.rank() == 0 && !std::filesystem::exists(report_.summary_path())))
    return false;
  report_.say(fmt::format(
      "this run is finished: {} holds step {} of {}; {} to go on{}", found_->path, status.step, status.total_steps,
      enough.empty() ? fmt::format("raise train.{}", config_.train.steps > 0 ? "steps" : "epochs")
                     : fmt::format("it ended early, as {}; change train.stop_after or train.target", enough),
      config_.checkpoint.fresh ? "" : ", or add --fresh to begin anew"));
  return true;
}

Earlier Saving::earlier() const noexcept {
  if (!own_) return Earlier::moved;
  return fresh_ ? Earlier::copied : Earlier::continued;
}

/// Newer ones than an own one that the run goes back to follow when its first checkpoint is there.
std::string Saving::set_aside() const {
  if (!fresh_ || own_) return {};
  const std::size_t count = io::set_checkpoints_aside(config_.checkpoint.directory);
  if (count == 0) return {};
  return fmt::format("--fresh: {} earlier checkpoint{} now called aside-step-... in {}", count,
                     count == 1 ? " is" : "s are", config_.checkpoint.directory);
}

void Saving::check_data(DataCheck& check, const RunStatus& status) {
  data_check_ = &check;
  if (!found_) return;
  const auto at = found_->state.versions.find(DataCheck::key);
  const std::string sums = at == found_->state.versions.end() ? std::string() : at->second;
  for (const auto& remark : check.resume(group_, sums, found_->path, static_cast<std::uint64_t>(status.step)))
    report_.say("resume: " + remark);
}

void Saving::load(ModelState& model, RunStatus& status) {
  const bool wanted = config_.train.ema.decay > 0;
  if (config_.model.lora.on()) check_base(found_->path, found_->state, config_.model, model.frozen_hash());
  auto tensors = model.loaded_tensors();
  if (wanted && !found_->averaged) std::erase_if(tensors, [](const auto& t) { return t.name.starts_with("ema/"); });
  // What the checkpoint may hold beside them: averages, where there are none now, and what was kept of parameters that
  // are frozen now.
  std::vector<std::string> beside = model.names_of_frozen();
  if (!wanted) beside.emplace_back("ema/");
  if (optimizer_anew_) {
    constexpr const char* state = "optimizer/";
    beside.emplace_back(state);
    for (const io::StateTensor& t : tensors)
      if (t.name.starts_with(state)) std::memset(t.data, 0, t.bytes());
    std::erase_if(tensors, [](const auto& t) { return t.name.starts_with(state); });
  }
  const std::vector<std::string_view> skipped(beside.begin(), beside.end());
  const auto fresh = io::load_checkpoint(group_, found_->path, tensors, io::posix_file_system(), skipped);
  if (const std::string hash = model.parameter_hash(); hash != found_->state.parameter_hash)
    contradicts(found_->path, fmt::format("its parameters have the hash {}, and MANIFEST.json says {}", hash,
                                          found_->state.parameter_hash));
  model.push();
  if (!fresh.empty())
    report_.say(
        fmt::format("resume: {} parameter{} of the checkpoint {} frozen: the optimizer's state begins at zero for "
                    "{}{}",
                    fresh.size(), fresh.size() == 1 ? "" : "s", fresh.size() == 1 ? "was" : "were",
                    fmt::join(std::span(fresh).first(std::min<std::size_t>(fresh.size(), 3)), ", "),
                    fresh.size() > 3 ? ", ..." : ""));
  if (wanted && !found_->averaged) {
    model.restart_average();
    report_.say("resume: the checkpoint has no moving average; it begins with the parameters of this step");
  }
  if (own_) {
    writer_->continue_from(found_->state.step);
    recall_best(status);
  }
  report_.say(fmt::format("resumed from {} at step {}", found_->path, status.step));
}

io::RunState Saving::run_state(const RunStatus& status) const {
  io::RunState s;
  s.step = static_cast<std::uint64_t>(status.step);
  s.applied_steps = status.applied;
  s.samples = static_cast<std::uint64_t>(status.taken());
  s.epoch = status.epoch();
  s.global_batch = static_cast<std::uint64_t>(config_.batch.global);
  s.seed = config_.seed;
  s.loss_scale = static_cast<double>(status.loss_scale);
  if (loss_scaling(config_).dynamic) s.good_steps = status.good_steps;
  s.data_fingerprint = data_.fingerprint();
  s.configuration = input_.canonical;
  s.configuration_hash = input_.hash;
  s.fields = input_.fields;
  s.choices = choices_.all();
  s.versions = {{"dtrain", std::string(version())}, {order_key, text_of(order_)}};
  if (const std::string names = io::to_text(data_.descriptions()); !names.empty()) s.versions[data_names_key] = names;
  if (status.before > 0) s.versions[updates_before_key] = fmt::format("{}", status.before);
  if (!job_.id.empty()) s.versions[io::slurm_job_key] = job_.id;
  s.world_size = world_.size();
  s.run_id = run_id_;
  if (found_) s.parent_run_id = found_->state.run_id;
  s.metrics["train_loss"] = status.loss;
  if (status.eval) {
    s.metrics["eval_step"] = static_cast<double>(status.evaluated_step);
    const auto put = [&s](const auto& m, const std::string& of) {
      s.metrics["eval_loss" + of] = m.loss;
      if (m.accuracy >= 0) s.metrics["eval_accuracy" + of] = m.accuracy;
      if (m.top5_accuracy >= 0) s.metrics["eval_top5_accuracy" + of] = m.top5_accuracy;
      if (m.perplexity >= 0) s.metrics["eval_perplexity" + of] = m.perplexity;
      if (m.bits_per_byte >= 0) s.metrics["eval_bits_per_byte" + of] = m.bits_per_byte;
    };
    put(*status.eval, "");
    for (const LossMetrics& m : status.eval->losses) put(m, "/" + m.name);
    if (status.eval->averaged) s.metrics["eval_averaged"] = 1;
  }
  keep_patience(config_, status, s.metrics);
  if (status.best) {
    s.metrics["best_step"] = static_cast<double>(status.best->step);
    s.metrics[fmt::format("best_{}", io::name_of(config_.checkpoint.best))] = status.best->value;
  }
  return s;
}

void Saving::poll(RunStatus& status) {
  if (auto report = writer_->poll()) tell(*report, status);
}

void Saving::tell(const io::SaveReport& report, RunStatus& status) {
  report_.tell(report);
  // What is not there is not the best.
  if (!report.durable && status.best && status.best->step == static_cast<std::int64_t>(report.step))
    status.best = best_before_;
}

bool Saving::is_best(RunStatus& status) {
  if (config_.checkpoint.best == io::Best::none || !status.eval || status.evaluated_step != status.step) return false;
  const bool loss = config_.checkpoint.best == io::Best::loss;
  const double value = loss ? status.eval->loss : status.eval->first_accuracy();
  if (std::isnan(value)) return false;
  if (status.best && (loss ? value >= status.best->value : value <= status.best->value)) return false;
  best_before_ = status.best;
  status.best = BestEval{status.step, value};
  return true;
}

void Saving::save(RunStatus& status, ModelState& model) {
  if (writer_->in_flight() && saving_step_ == status.step) return;
  write(status, model);
}

void Saving::verify(const RunStatus& status, ModelState& model, Program& program) {
  world_.watchdog().beat("verify", static_cast<std::uint64_t>(status.step), comm::Deadline::save);
  const auto begin = Clock::now();
  model.check_memory(group_, &program);
  alone([&] { model.pull_replicated(); });
  io::compare_state(group_, static_cast<std::uint64_t>(status.step), model.replicated_tensors());
  report_.seconds().checkpoint += since(begin);
}

void Saving::write(RunStatus& status, ModelState& model) {
  world_.watchdog().beat("save", static_cast<std::uint64_t>(status.step), comm::Deadline::save);
  const auto begin = Clock::now();
  if (const auto report = writer_->finish()) tell(*report, status);
  model.check_memory(group_);
  io::RunState s = run_state(status);
  if (data_check_ != nullptr) s.versions[DataCheck::key] = data_check_->text(group_, s.step);
  alone([&] {
    model.pull();
    s.parameter_hash = model.parameter_hash();
    if (config_.model.lora.on()) s.versions[io::base_hash_key] = model.frozen_hash();
  });
  const auto best = status.best ? std::optional(static_cast<std::uint64_t>(status.best->step)) : std::nullopt;
  writer_->save(s, model.tensors(), best);
  model.release_tensors();
  saving_step_ = status.step;
  if (!writer_->in_flight()) label(status);  // this step is durable already
  report_.seconds().checkpoint += since(begin);
}

void Saving::finish(RunStatus& status, ModelState& model) {
  if (!status.finished()) writer_->give_up_work();
  write(status, model);
  const auto report = writer_->finish();
  if (!report) return;
  tell(*report, status);
  if (!report->durable)
    throw CheckpointError(fmt::format("the last checkpoint could not be written: {}", report->error));
}

}  // namespace dtrain::launch
