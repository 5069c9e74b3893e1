#include "launch/train/report.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "launch/base/text.hpp"
#include "launch/train/evaluation.hpp"
#include "runtime/config/version.hpp"

namespace dtrain::launch {

using Json = nlohmann::ordered_json;

Reporter::Reporter(const LoadedConfig& input, const comm::World& world)
    : input_(input),
      config_(input.config),
      world_(world),
      main_(world.rank() == 0),
      scaling_(loss_scaling(input.config)) {}

// ---- lines ----------------------------------------------------------------------------------------------------------

void Reporter::say(const std::string& text) {
  if (!main_) return;
  if (progress_) {
    progress_->line(text);
  } else {
    print_line(stdout, text);
  }
}

void Reporter::warn(const std::string& text) const {
  if (!main_) return;
  if (progress_) progress_->finish();
  print_line(stderr, "warning: " + text);
}

void Reporter::tell(const io::SaveReport& r) {
  if (r.durable) {
    say(fmt::format("checkpoint {} is durable ({:.1f} MiB, stall {:.1f} ms, written in {:.2f} s)", r.path,
                    static_cast<double>(r.bytes) / (1024.0 * 1024.0), 1e3 * r.copy_seconds, r.write_seconds));
  } else {
    if (progress_) progress_->line(fmt::format("checkpoint of step {} failed; training goes on", r.step));
    if (main_) print_line(stderr, fmt::format("error: checkpoint of step {}: {}", r.step, r.error));
  }
  for (const auto& remark : r.remarks) warn(remark);
}

void Reporter::announce(const Engine& engine, const BatchSplit& batch, const RunStatus& status) {
  asynchronous_ = engine.device().asynchronous();
  for (const auto& note : world_.notes()) say(note);
  const Plan& plan = engine.plan();
  losses_ = plan.graph.losses();
  for (const GraphLoss& loss : losses_)
    classes_.push_back(plan.graph.nodes()[static_cast<std::size_t>(loss.node)].shape.loss_classes > 0);
  tokens_per_sample_ = static_cast<double>(tokens_per_sample(plan.graph));
  flops_per_sample_ = plan.model_flops_per_sample;
  const std::int64_t frozen = plan.graph.frozen_count(), trained = plan.graph.parameter_count() - frozen;
  say(fmt::format("dtrain {}: {} on {} {} ({}), {} parameters, global batch {} = {} x {} x {}", version(), config_.name,
                  world_.size(), world_.size() == 1 ? "rank" : "ranks", engine.device().name(),
                  plan.graph.parameter_count(), config_.batch.global, world_.size(), batch.accumulation, batch.micro));
  if (frozen > 0)
    say(fmt::format("{} of these parameters are trained, {} are frozen", grouped(trained), grouped(frozen)));
  say(fmt::format("{} samples, {:.1f} steps an epoch, {} steps; {} {} of gradients; log in {}", status.samples,
                  static_cast<double>(status.samples) / static_cast<double>(config_.batch.global), status.total_steps,
                  plan.layout.buckets.size(), plan.layout.buckets.size() == 1 ? "bucket" : "buckets",
                  config_.log.directory));
  const auto stages = status.batch.stages();
  if (!status.batch.constant())
    say(fmt::format("the global batch grows from {} to {} samples in the first {} steps", stages.front().batch,
                    stages.back().batch, stages.back().step));
}

void Reporter::end_progress() {
  if (progress_) progress_->finish();
}

// ---- files ----------------------------------------------------------------------------------------------------------

void Reporter::take_directory(const std::string& run_id, Earlier earlier) {
  if (!main_) return;
  make_directory(config_.log.directory, "log.directory");
  lock_ = take_run_directory(config_.log.directory, run_id);
  if (const std::string text = set_files_aside(config_.log.directory, earlier); !text.empty()) say(text);
}

void Reporter::open_files(const RunStatus& status, const std::vector<std::string>& remarks) {
  if (!main_) return;
  configuration_ = input_.canonical;
  for (const std::string& remark : remarks) configuration_ += "# " + remark + "\n";
  write_whole_file(config_.log.directory, "config.yaml", configuration_);
  metrics_.emplace(config_.log.directory, status.step);
  std::error_code ignored;  // an older one is of a run that goes on now
  std::filesystem::remove(summary_path(), ignored);
}

/// Where somebody removed the directory, which must not end the run.
void Reporter::restore_files() {
  if (!metrics_->made_again()) return;
  try {
    lock_.renew();
    write_whole_file(config_.log.directory, "config.yaml", configuration_);
    warn(fmt::format("{} had been removed while the run was using it; it is made again", config_.log.directory));
  } catch (const Error& e) {
    warn(fmt::format("{}; training goes on", e.what()));
  }
}

void Reporter::summarize(const RunStatus& status, const Device& device, const std::string& parameter_hash,
                         const std::string& average_hash) {
  if (!main_) return;
  const double seconds = since(start_);
  const std::int64_t steps = status.step - status.first_step;
  const std::int64_t samples = status.taken() - status.batch.samples_before(status.first_step);
  const double rate = train_seconds_ > 0 ? static_cast<double>(samples) / train_seconds_ : 0.0;  // samples/s
  Json eval = status.eval ? to_json(*status.eval) : Json::object();
  if (status.eval)
    if (Json details = details_of(status.eval->judged); !details.empty()) eval["judged"] = std::move(details);
  Json summary{{"eval", eval},
               {"train", {{"loss", status.loss}}},
               {"steps", status.step},
               {"epochs", status.epoch()},
               {"samples", status.taken()},
               {"seconds", seconds},
               {"samples_per_second", rate},
               {"ranks", world_.size()},
               {"device", device.kind() == DeviceKind::cpu ? "cpu" : "cuda"},
               {"precision", name_of(config_.precision)},
               {"configuration_hash", input_.hash},
               {"parameter_hash", parameter_hash},
               {"version", version()}};
  if (scaling_.dynamic) summary["loss_scale"] = {{"last", status.loss_scale}, {"skipped_steps", status.skipped()}};
  if (!average_hash.empty()) summary["average_hash"] = average_hash;
  if (all_energy_.samples > 0) summary["joules_per_sample"] = all_energy_.joules / all_energy_.samples;
  if (status.best)
    summary["best"] = {{"step", status.best->step}, {name_of(config_.checkpoint.best), status.best->value}};
  write_whole_file(config_.log.directory, "summary.json", summary.dump(2) + "\n");
  if (status.eval) {
    if (status.eval->averaged) say("the test is of the averaged parameters");
    if (status.eval->accuracy >= 0) say(fmt::format("test accuracy {:.4f}", status.eval->accuracy));
    if (status.eval->top5_accuracy >= 0) say(fmt::format("test top-5 accuracy {:.4f}", status.eval->top5_accuracy));
    if (status.eval->perplexity >= 0) say(fmt::format("test perplexity {:.4g}", status.eval->perplexity));
    if (status.eval->bits_per_byte >= 0) say(fmt::format("test bits a byte {:.4f}", status.eval->bits_per_byte));
    for (const LossMetrics& m : status.eval->losses) {
      if (m.accuracy >= 0) say(fmt::format("test {} accuracy {:.4f}", m.name, m.accuracy));
      say(fmt::format("test {} loss {:.4f}", m.name, m.loss));
    }
    say(fmt::format("test loss {:.4f}", status.eval->loss));
  }
  if (scaling_.dynamic && status.skipped() > 0)
    say(fmt::format("{} of {} steps were skipped: a gradient was not finite at their loss scale; it is {} now",
                    status.skipped(), status.step, status.loss_scale));
  say(fmt::format("done: {} steps in {}, {:.0f} samples/s; summary in {}/summary.json", steps, format_duration(seconds),
                  rate, config_.log.directory));
}

// ---- on the way -----------------------------------------------------------------------------------------------------

void Reporter::begin(const RunStatus& status, double waited) {
  progress_ = std::make_unique<Progress>(status.step, status.total_steps, !main_);
  start_ = interval_start_ = Clock::now();
  waited_before_ = waited;
}

void Reporter::step_done(const RunStatus& status, const StepState& state, bool logged, double waited,
                         CommunicationSeconds& sums) {
  ++interval_steps_;
  if (logged) log_step(status, state, waited, sums);
  show_progress(status);
}

/// Since the last logged step. An asynchronous device says itself what it waited for.
double Reporter::data_seconds(double waited) const {
  return asynchronous_ ? seconds_.data : waited - waited_before_;
}

void Reporter::log_step(const RunStatus& status, const StepState& state, double waited, CommunicationSeconds& sums) {
  const auto steps = static_cast<double>(interval_steps_);
  const double elapsed = since(interval_start_);
  const std::int64_t samples = status.taken() - status.batch.samples_before(status.step - interval_steps_);
  now_ = {status.step, status.epoch(), status.loss, static_cast<double>(samples) / elapsed,
          data_seconds(waited) / elapsed};
  if (tokens_per_sample_ > 0) now_.tokens_per_second = now_.samples_per_second * tokens_per_sample_;
  if (tokens_per_sample_ > 0 && matrix_rate_ > 0) now_.mfu = now_.samples_per_second * flops_per_sample_ / matrix_rate_;
  if (metrics_) {
    StepMetrics m{status.step,
                  status.epoch(),
                  status.loss,
                  static_cast<double>(state.learning_rate),
                  static_cast<double>(state.grad_norm),
                  now_.samples_per_second,
                  resident_mib(),
                  {}};
    m.seconds = {seconds_.step / steps,      data_seconds(waited) / steps,           seconds_.forward / steps,
                 seconds_.backward / steps,  seconds_.communication_exposed / steps, seconds_.optimizer / steps,
                 seconds_.checkpoint / steps};
    for (std::size_t k = 0; k < losses_.size(); ++k) {
      const auto sum = [&](LossSum s) { return static_cast<double>(state.sums[k * sums_per_loss + s]); };
      LossMetrics of{.name = losses_[k].name, .loss = sum(loss_sum) / state.ended_weight[k]};
      if (classes_[k] && sum(position_sum) > 0) of.accuracy = sum(correct_sum) / sum(position_sum);
      if (losses_.size() == 1) m.accuracy = of.accuracy;
      if (losses_.size() > 1) m.losses.push_back(std::move(of));
    }
    if (scaling_.dynamic || scaling_.initial != 1) m.loss_scale = static_cast<double>(status.loss_scale);
    if (scaling_.dynamic) m.skipped = status.skipped();
    m.tokens_per_second = now_.tokens_per_second;
    m.mfu = now_.mfu;
    m.communication = communication_metrics(sums, world_.size(), probe_);
    put_gpu(m);
    metrics_->write(m);
    restore_files();
  }
  sums.clear();
  train_seconds_ += seconds_.step;
  seconds_ = {};
  interval_steps_ = 0;
  interval_start_ = Clock::now();
  waited_before_ = waited;
  log_due_ = true;
}

void Reporter::watch_gpu(const std::string& bus_id, int ranks) {
  gpu_.emplace(bus_id);
  ranks_on_gpu_ = ranks;
}

Energy Reporter::energy_spent(const RunStatus& status) {
  if (!gpu_) return {};
  const std::int64_t samples = status.taken() - status.batch.samples_before(status.first_step);
  gpu_->look(samples / world_.size() * ranks_on_gpu_, seconds_of(Clock::now()));
  return gpu_->take();
}

void Reporter::count(const Energy& of_all) noexcept {
  for (Energy* energy : {&recent_energy_, &all_energy_}) {
    energy->joules += of_all.joules;
    energy->samples += of_all.samples;
  }
}

void Reporter::put_gpu(StepMetrics& m) {
  if (recent_energy_.samples > 0) {
    joules_per_sample_ = recent_energy_.joules / recent_energy_.samples;
    recent_energy_ = {};
  }
  m.joules_per_sample = joules_per_sample_;
  if (!gpu_ || !gpu_->latest()) return;
  const GpuReading& now = *gpu_->latest();
  if (now.utilization) m.gpu_utilization = *now.utilization / 100.0;
  if (now.memory_used) m.gpu_memory_mib = static_cast<double>(*now.memory_used) / (1 << 20);
}

void Reporter::show_progress(const RunStatus& status) {
  now_.step = status.step;
  now_.epoch = status.epoch();
  now_.loss = status.loss;
  if (now_.samples_per_second > 0) progress_->show(now_);
  // Plain lines are for logs: at most about a hundred a run, the last one always.
  if (log_due_ && (status.finished() || status.step - last_line_ >= status.total_steps / 100)) {
    progress_->log(now_);
    last_line_ = status.step;
  }
  log_due_ = false;
}

void Reporter::evaluated(const RunStatus& status, double seconds) {
  if (metrics_) {
    metrics_->write(status.step, *status.eval);
    restore_files();
  }
  say(describe("evaluation", *status.eval) + fmt::format(" after step {} (epoch {:.2f})", status.step, status.epoch()) +
      worst_text(status.eval->judged));
  interval_start_ += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace dtrain::launch
