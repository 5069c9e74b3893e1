#include "launch/bench/scaling.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "launch/base/text.hpp"
#include "launch/bench/process.hpp"
#include "launch/place/machine.hpp"
#include "launch/plan/predict.hpp"
#include "launch/report/run_files.hpp"
#include "runtime/plan/plan.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

/// What one run of one number of ranks found.
struct Run {
  double throughput = 0, step = 0, exposed = 0;  // samples/s, seconds, fraction of the step
};

class Scaling {
 public:
  Scaling(const LoadedConfig& loaded, const ScalingOptions& options, const std::vector<std::string>& hosts)
      : loaded_(loaded), options_(options), hosts_(hosts) {
    machine_ = read_machine();
    if (find_program("mpirun").empty())
      throw ConfigError("bench scaling: there is no mpirun in PATH; install Open MPI (Debian: openmpi-bin)");
    choose_ranks();
    for (const int n : ranks_) {  // before the first of many minutes
      if (options.strong) check_batch(loaded, n);
      if (options.weak) check_batch(resized(n), n);
    }
    if (!options.profile.empty()) profile_ = read_profile(options.profile);
  }

  BenchReport run() {
    // Repeats take turns, so that what else the machine does falls on all alike.
    for (int i = 0; i < options_.repeats; ++i) {
      for (const int n : ranks_) {
        if (n == ranks_.front() || options_.strong) measure("strong", n, loaded_.config.batch.global);
        if (n != ranks_.front() && options_.weak) measure("weak", n, weak_batch(n));
      }
    }
    ScalingResult result{loaded_.config.name, machine_text(), command_text(), options_.repeats, options_.steps, {}, {}};
    if (options_.weak) result.series.push_back(series("weak", result.notes));
    if (options_.strong) result.series.push_back(series("strong", result.notes));
    if (!options_.html.empty()) {
      const std::filesystem::path file(options_.html);
      write_whole_file(file.has_parent_path() ? file.parent_path().string() : ".", file.filename().string(),
                       scaling_page(result));
    }
    return {text(result), json(result)};
  }

 private:
  void choose_ranks() {
    ranks_ = options_.ranks;
    const int most = hosts_.empty() ? machine_.allowed_cpus : static_cast<int>(hosts_.size());
    if (ranks_.empty()) {
      for (int n = 1; n < most; n *= 2) ranks_.push_back(n);
      ranks_.push_back(std::max(1, most));
    }
    std::sort(ranks_.begin(), ranks_.end());
    ranks_.erase(std::unique(ranks_.begin(), ranks_.end()), ranks_.end());
    if (!hosts_.empty() && ranks_.back() > most)
      throw ConfigError(fmt::format("--ranks: {} ranks do not fit this launch of {}", ranks_.back(), most));
    if (ranks_.size() < 2) throw ConfigError("--ranks: scaling needs two numbers of ranks at least, as in --ranks 1,2");
  }

  /// The batch of the fewest ranks is the configuration's; others have as much a rank.
  std::int64_t weak_batch(int n) const { return loaded_.config.batch.global * n / ranks_.front(); }
  LoadedConfig resized(int n) const {
    LoadedConfig out = loaded_;
    out.config.batch.global = weak_batch(n);
    out.config.batch.warmup = {};
    return out;
  }

  std::vector<std::string> command(int n, std::int64_t batch) const {
    std::vector<std::string> words{"mpirun"};
    if (getuid() == 0) words.emplace_back("--allow-run-as-root");
    if (hosts_.empty() && n > machine_.cores) words.emplace_back("--oversubscribe");
    if (!hosts_.empty()) {
      std::vector<std::string> slots;
      std::map<std::string, int> counts;
      for (const auto& host : hosts_) ++counts[host];
      std::set<std::string> seen;
      for (const auto& host : hosts_)
        if (seen.insert(host).second) slots.push_back(fmt::format("{}:{}", host, counts[host]));
      words.insert(words.end(), {"--host", fmt::format("{}", fmt::join(slots, ","))});
      // On other hosts a rank would not see its cpus' neighbours: as many as it was given are its own.
      words.insert(words.end(), {"--bind-to", "none"});
    }
    words.insert(words.end(), {"-np", std::to_string(n), std::filesystem::read_symlink("/proc/self/exe").string(),
                               "bench", "step", loaded_.file});
    words.insert(words.end(), loaded_.overrides.begin(), loaded_.overrides.end());
    if (loaded_.config.batch.warmup != BatchWarmup()) words.emplace_back("batch.warmup={from: 0}");
    words.insert(words.end(), {fmt::format("batch.global={}", batch), "--brief", "--json", "--steps",
                               std::to_string(options_.steps), "--warm-up", std::to_string(options_.warm_up)});
    return words;
  }

  void measure(const std::string& kind, int n, std::int64_t batch) {
    const auto words = command(n, batch);
    const ProcessResult done = run_process(words);
    const Json report = Json::parse(done.out, nullptr, false);
    if (done.code != 0 || !report.is_object()) {
      std::istringstream lines(done.err);
      std::string error, first;
      for (std::string line; std::getline(lines, line);) {
        if (first.empty() && line.find_first_not_of(" -") != std::string::npos) first = line;
        if (error.empty() && line.starts_with("error: ")) error = line.substr(7);
      }
      throw Error(done.code == 0 ? ExitCode::bug : static_cast<ExitCode>(done.code),
                  fmt::format("bench scaling: {} ranks: {}", n,
                              !error.empty()   ? error
                              : !first.empty() ? first
                                               : fmt::format("mpirun ended with {}", done.code)));
    }
    const double step = report["seconds"]["step"]["value"].get<double>();
    runs_[{kind, n}].push_back({report["samples_per_second"].get<double>(), step,
                                report["seconds"]["communication_exposed"]["value"].get<double>() / step});
  }

  ScalingSeries series(const std::string& kind, std::vector<std::string>& notes) const {
    ScalingSeries out{kind, {}};
    const auto& base = runs_.at({"strong", ranks_.front()});
    for (const int n : ranks_) {
      const auto& runs = n == ranks_.front() ? base : runs_.at({kind, n});
      std::array<std::vector<double>, 5> values;  // step, throughput, speed-up, efficiency, exposed
      for (std::size_t i = 0; i < runs.size(); ++i) {
        // Against the run of the same turn.
        const double speedup = runs[i].throughput / base[i].throughput;
        const double all[] = {runs[i].step, runs[i].throughput, speedup, speedup * ranks_.front() / n, runs[i].exposed};
        for (std::size_t k = 0; k < values.size(); ++k) values[k].push_back(all[k]);
      }
      ScalingPoint p;
      p.ranks = n;
      p.global_batch = kind == "weak" ? weak_batch(n) : loaded_.config.batch.global;
      p.step = mean_of(values[0]);
      p.throughput = mean_of(values[1]);
      p.speedup = mean_of(values[2]);
      p.efficiency = mean_of(values[3]);
      p.exposed = mean_of(values[4]);
      out.points.push_back(p);
    }
    if (!options_.profile.empty()) add_predictions(out, notes);
    return out;
  }

  void add_predictions(ScalingSeries& series, std::vector<std::string>& notes) const {
    double base = 0;
    for (ScalingPoint& p : series.points) {
      LoadedConfig config = loaded_;
      config.config.batch.global = p.global_batch;
      config.config.batch.warmup = {};
      const Plan plan = make_plan(training_graph(config.config, check_batch(config, p.ranks).micro),
                                  plan_options(config.config, p.ranks));
      std::vector<std::size_t> bytes;
      for (const Bucket& b : plan.layout.buckets) bytes.push_back(b.bytes());
      int per_host = p.ranks;
      if (!hosts_.empty()) per_host = static_cast<int>(std::count(hosts_.begin(), hosts_.end(), hosts_.front()));
      const Prediction found = predict(profile_, config, bytes, p.ranks, per_host);
      p.predicted_step = found.step;
      const double throughput = found.samples_per_second;
      if (base == 0) base = throughput;
      p.predicted_efficiency = throughput / base * ranks_.front() / p.ranks;
      for (const auto& note : found.notes) {
        const std::string line = fmt::format("{}, {} ranks: {}", series.kind, p.ranks, note);
        if (std::find(notes.begin(), notes.end(), line) == notes.end()) notes.push_back(line);
      }
    }
  }

  std::string machine_text() const {
    std::set<std::string> hosts(hosts_.begin(), hosts_.end());
    if (hosts.empty()) hosts.insert(machine_.host);
    return fmt::format("{} ({}): {}, {} cpus each", hosts.size() == 1 ? "host" : "hosts", fmt::join(hosts, ", "),
                       machine_.cpu, machine_.cpus);
  }

  std::string command_text() const {
    return fmt::format("dtrain bench scaling {}{}{} --ranks {} --repeats {} --steps {}", loaded_.file,
                       loaded_.overrides.empty() ? "" : " ", fmt::join(loaded_.overrides, " "), fmt::join(ranks_, ","),
                       options_.repeats, options_.steps);
  }

  std::string text(const ScalingResult& r) const {
    std::string out = fmt::format("{} on {}\nmeans of {} runs of {} steps, with 95 % confidence intervals\n", r.name,
                                  r.machine, r.repeats, r.steps);
    for (const ScalingSeries& s : r.series) {
      TextTable table(
          {"ranks", "batch", "step, ms", "samples/s", "speed-up", "efficiency", "exposed", "predicted ms", "off by"});
      for (const ScalingPoint& p : s.points)
        table.row({std::to_string(p.ranks), std::to_string(p.global_batch), text_of(p.step, 1e3, 3),
                   text_of(p.throughput, 1, 0), text_of(p.speedup, 1, 2), text_of(p.efficiency, 1, 2),
                   fmt::format("{:.1f} %", 100 * p.exposed.value),
                   p.predicted_step > 0 ? fmt::format("{:.3f}", 1e3 * p.predicted_step) : "",
                   p.predicted_step > 0 ? fmt::format("{:+.1f} %", 100 * (p.predicted_step / p.step.value - 1)) : ""});
      out += fmt::format("\n{} scaling ({})\n{}", s.kind, s.kind == "weak" ? "the same batch a rank" : "the same batch",
                         table.str("  "));
    }
    for (const auto& note : r.notes) out += "Note: " + note + "\n";
    if (!options_.html.empty()) out += "\nreport with plots: " + options_.html + "\n";
    return out;
  }

  static std::string json(const ScalingResult& r) {
    Json all = Json::object();
    for (const ScalingSeries& s : r.series) {
      Json points = Json::array();
      for (const ScalingPoint& p : s.points)
        points.push_back({{"ranks", p.ranks},
                          {"global_batch", p.global_batch},
                          {"step_seconds", to_json(p.step)},
                          {"samples_per_second", to_json(p.throughput)},
                          {"speedup", to_json(p.speedup)},
                          {"efficiency", to_json(p.efficiency)},
                          {"communication_exposed", to_json(p.exposed)},
                          {"predicted_step_seconds", p.predicted_step > 0 ? Json(p.predicted_step) : Json()},
                          {"predicted_efficiency", p.predicted_step > 0 ? Json(p.predicted_efficiency) : Json()}});
      all[s.kind] = points;
    }
    return Json{{"name", r.name},   {"machine", r.machine}, {"command", r.command}, {"repeats", r.repeats},
                {"steps", r.steps}, {"scaling", all},       {"notes", r.notes}}
               .dump(2) +
           "\n";
  }

  const LoadedConfig& loaded_;
  const ScalingOptions& options_;
  const std::vector<std::string>& hosts_;
  Machine machine_;
  std::vector<int> ranks_;
  Profile profile_;
  std::map<std::pair<std::string, int>, std::vector<Run>> runs_;  // by kind and ranks
};

}  // namespace

BenchReport bench_scaling(const LoadedConfig& loaded, const ScalingOptions& options,
                          const std::vector<std::string>& hosts) {
  return Scaling(loaded, options, hosts).run();
}

}  // namespace dtrain::launch
