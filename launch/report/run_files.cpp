#include "launch/report/run_files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void make_directory(const std::string& directory, const std::string& field) {
  std::error_code failed;
  fs::create_directories(directory, failed);
  if (failed || access(directory.c_str(), W_OK) != 0) {
    const std::string why = failed ? failed.message() : std::strerror(errno);
    throw ConfigError(
        fmt::format("{}: cannot write to {}: {}; name a directory that can be written", field, directory, why));
  }
}

namespace {

constexpr const char* lock_name = "run.lock";

/// Also of a dtrain that took no lock.
bool was_of_a_run(const fs::path& directory) {
  std::error_code failed;
  if (fs::exists(directory / lock_name, failed) || fs::exists(directory / "checkpoints" / "LOCK", failed)) return true;
  const fs::directory_iterator entries(directory, failed);
  return std::any_of(begin(entries), end(entries), [](const auto& e) { return is_event_file(e.path().filename()); });
}

}  // namespace

void check_run_directory(const std::string& directory) {
  std::error_code ignored;
  if (!was_of_a_run(directory))
    for (const char* name : {"config.yaml", "metrics.jsonl", "summary.json"})
      if (fs::exists(fs::path(directory) / name, ignored))
        throw ConfigError(
            fmt::format("log.directory: {} has a {} that was not written by a run, and a run would replace it; name "
                        "another directory",
                        directory, name));
}

namespace {

/// config.yaml tells of which run they are; choices.txt stays, so that the same command gives the same bits.
bool goes_aside(const std::string& name) {
  return name == "config.yaml" || name == "metrics.jsonl" || name == "summary.json" || name == "trace.json" ||
         (name.starts_with("samples-rank-") && name.ends_with(".txt")) || is_event_file(name);
}

}  // namespace

std::string set_files_aside(const std::string& directory, Earlier what) {
  if (what == Earlier::continued) return {};
  std::error_code failed;
  const auto lines = fs::file_size(fs::path(directory) / "metrics.jsonl", failed);
  const bool metrics = !failed && lines > 0;
  if (!metrics && !fs::exists(fs::path(directory) / "summary.json", failed)) return {};
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory, failed))
    if (const std::string name = entry.path().filename().string(); entry.is_regular_file(failed) && goes_aside(name))
      names.push_back(name);
  fs::path to;
  for (int number = 1; to.empty() || fs::exists(to, failed); ++number)
    to = fs::path(directory) / fmt::format("aside-{}", number);
  failed.clear();
  fs::create_directory(to, failed);
  for (auto name = names.begin(); name != names.end() && !failed; ++name) {
    const fs::path from = fs::path(directory) / *name;
    if (what == Earlier::moved) {
      fs::rename(from, to / *name, failed);
    } else {
      fs::copy_file(from, to / *name, failed);
    }
  }
  if (failed)
    throw DataError(fmt::format("{}: cannot keep the files of the earlier run: {}", to.string(), failed.message()));
  return fmt::format("the metrics of the earlier run in {} are {} {}", directory,
                     what == Earlier::moved ? "now in" : "copied to", to.string());
}

io::DirectoryLock take_run_directory(const std::string& directory, const std::string& run_id) {
  return {io::posix_file_system(), directory, run_id, {lock_name, "log directory", "log.directory"}};
}

void write_whole_file(const std::string& directory, const std::string& name, const std::string& text) {
  const fs::path path = fs::path(directory) / name;
  const fs::path temporary = path.string() + ".tmp";
  require_regular(path.string());
  std::error_code failed;
  fs::create_directories(directory, failed);
  fs::remove(temporary, failed);  // whatever it is
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out << text;
    out.flush();
    if (!out)
      throw DataError(fmt::format("{}: cannot write {} bytes: {}", path.string(), text.size(), std::strerror(errno)));
  }
  fs::rename(temporary, path, failed);
  if (failed) throw DataError(fmt::format("{}: cannot write: {}", path.string(), failed.message()));
}

double resident_mib() {
  std::ifstream in("/proc/self/statm");
  double pages = 0, resident = 0;
  in >> pages >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1024.0 * 1024.0);
}

AppendFile open_sample_log(const std::string& directory, int rank, int ranks, std::int64_t step) {
  const auto name = [](int r) { return fmt::format("samples-rank-{}.txt", r); };
  for (int r = rank; r == rank || fs::exists(fs::path(directory) / name(r)); r += ranks) {
    std::string kept;
    require_regular((fs::path(directory) / name(r)).string());
    if (std::ifstream in(fs::path(directory) / name(r)); in && step > 0) {
      for (std::string line; std::getline(in, line) && !in.eof();)
        if (std::strtoll(line.c_str(), nullptr, 10) < step) kept += line + "\n";
    }
    write_whole_file(directory, name(r), kept);
  }
  return AppendFile((fs::path(directory) / name(rank)).string(), "the sample log");
}

namespace {

AppendFile continue_metrics(const std::string& directory, std::int64_t step) {
  const std::string path = (fs::path(directory) / "metrics.jsonl").string();
  require_regular(path);
  std::string kept;
  if (std::ifstream in(path); in && step > 0) {
    for (std::string line; std::getline(in, line);) {
      const Json entry = Json::parse(line, nullptr, false);
      if (entry.is_object() && entry.contains("step") && entry["step"].is_number() &&
          entry["step"].get<std::int64_t>() <= step)
        kept += line + "\n";
    }
  }
  write_whole_file(directory, "metrics.jsonl", kept);
  return AppendFile(path, "metrics");
}

}  // namespace

MetricsFile::MetricsFile(const std::string& directory, std::int64_t step)
    : events_(directory, step), file_(continue_metrics(directory, step)) {}

namespace {

/// The numbers of `entry`, named by their path.
void add_scalars(const Json& entry, const std::string& path, std::vector<Scalar>& out) {
  for (const auto& [key, value] : entry.items()) {
    const std::string name = path.empty() ? key : path + '/' + key;
    if (value.is_object()) add_scalars(value, name, out);
    if (value.is_number() && name != "step") out.push_back({name, value.get<double>()});
  }
}

}  // namespace

void MetricsFile::put(const Json& entry) {
  std::vector<Scalar> scalars;
  add_scalars(entry, "", scalars);
  events_.write(entry.at("step").get<std::int64_t>(), scalars);
  file_.append(entry.dump() + "\n");
}

void CommunicationSeconds::clear() noexcept {
  std::fill(exposed.begin(), exposed.end(), 0.0);
  sums = 0;
  steps = 0;
}

std::optional<CommunicationMetrics> communication_metrics(const CommunicationSeconds& c, int ranks, double probe) {
  if (c.steps == 0) return std::nullopt;
  const auto steps = static_cast<double>(c.steps);
  CommunicationMetrics m;
  for (const double seconds : c.exposed) m.exposed.push_back(seconds / steps);
  m.sums = c.sums / steps;
  if (m.sums > 0) m.bus_bytes_per_second = static_cast<double>(c.bytes_per_step) * 2 * (ranks - 1) / ranks / m.sums;
  if (probe > 0) m.share_of_probe = m.bus_bytes_per_second / probe;
  return m;
}

void MetricsFile::write(const StepMetrics& m) {
  const PhaseSeconds& s = m.seconds;
  Json entry{{"step", m.step},
             {"epoch", m.epoch},
             {"loss", m.loss},
             {"learning_rate", m.learning_rate},
             {"grad_norm", m.grad_norm},
             {"samples_per_second", m.samples_per_second},
             {"memory_mib", m.memory_mib},
             {"seconds",
              {{"step", s.step},
               {"data", s.data},
               {"forward", s.forward},
               {"backward", s.backward},
               {"communication_exposed", s.communication_exposed},
               {"optimizer", s.optimizer},
               {"checkpoint", s.checkpoint}}}};
  if (const auto& c = m.communication) {
    entry["communication"] = {
        {"exposed", c->exposed}, {"sums", c->sums}, {"bus_bytes_per_second", c->bus_bytes_per_second}};
    if (c->share_of_probe) entry["communication"]["share_of_probe"] = *c->share_of_probe;
  }
  if (m.accuracy >= 0) entry["accuracy"] = m.accuracy;
  for (const LossMetrics& of : m.losses) entry["losses"][of.name] = of.loss;
  for (const LossMetrics& of : m.losses)
    if (of.accuracy >= 0) entry["accuracies"][of.name] = of.accuracy;
  if (m.tokens_per_second) entry["tokens_per_second"] = *m.tokens_per_second;
  if (m.mfu) entry["mfu"] = *m.mfu;
  if (m.loss_scale) entry["loss_scale"] = *m.loss_scale;
  if (m.skipped) entry["skipped"] = *m.skipped;
  if (m.joules_per_sample) entry["joules_per_sample"] = *m.joules_per_sample;
  if (m.gpu_utilization) entry["gpu_utilization"] = *m.gpu_utilization;
  if (m.gpu_memory_mib) entry["gpu_memory_mib"] = *m.gpu_memory_mib;
  put(entry);
}

namespace {

template <class Metrics>
Json json_of_loss(const Metrics& m) {
  Json json{{"loss", m.loss}};
  if (m.accuracy >= 0) json["accuracy"] = m.accuracy;
  if (m.top5_accuracy >= 0) json["top5_accuracy"] = m.top5_accuracy;
  if (m.perplexity >= 0) json["perplexity"] = m.perplexity;
  if (m.bits_per_byte >= 0) json["bits_per_byte"] = m.bits_per_byte;
  return json;
}

}  // namespace

Json to_json(const EvalMetrics& e) {
  Json eval = json_of_loss(e);
  if (e.losses.empty() && e.judged.classes.size() + e.judged.errors.size() == 1)
    add_numbers(eval, e.judged, e.judged.classes.empty() ? e.judged.errors[0].loss : e.judged.classes[0].loss);
  for (const LossMetrics& m : e.losses) {
    eval["losses"][m.name] = json_of_loss(m);
    add_numbers(eval["losses"][m.name], e.judged, m.name);
  }
  if (e.averaged) eval["averaged"] = true;
  return eval;
}

double EvalMetrics::first_accuracy() const {
  for (const LossMetrics& m : losses)
    if (m.accuracy >= 0) return m.accuracy;
  return accuracy;
}

void MetricsFile::write(std::int64_t step, const EvalMetrics& e) {
  put(Json{{"step", step}, {"eval", to_json(e)}});
}

}  // namespace dtrain::launch
