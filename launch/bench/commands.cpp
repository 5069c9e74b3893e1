#include "launch/bench/commands.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "comm/place/launch_env.hpp"
#include "io/files/output.hpp"
#include "launch/base/progress.hpp"
#include "launch/base/signals.hpp"
#include "launch/bench/comm.hpp"
#include "launch/bench/data.hpp"
#include "launch/bench/generate.hpp"
#include "launch/bench/scaling.hpp"
#include "launch/bench/step.hpp"
#include "launch/cli/all_ranks.hpp"
#include "launch/cli/trained_model_options.hpp"
#include "launch/config/config_file.hpp"

namespace dtrain::launch {

namespace {

using Strings = std::vector<std::string>;

void act(CLI::App* app, const CommandTree& tree, std::function<int()> work) {
  app->callback([act = tree.act, work = std::move(work)] { act(work); });
}

/// What the options of one command are read into; its action keeps it alive.
template <class Options>
struct Arguments {
  Options options;
  std::string file;
  Strings overrides;
  bool json = false;

  void add_config(CLI::App* app) {
    app->add_option("config", file, "Configuration file (YAML)")->required();
    app->add_option(settings_argument, overrides, "Settings that replace the file's; the value is YAML");
  }
  void add_json(CLI::App* app) { app->add_flag("--json", json, "Print one JSON object"); }
  void add_profile(CLI::App* app) {
    app->add_option("--profile", options.profile, "Write the result to this file, for `dtrain check --profile`");
  }
  const std::string& pick(const BenchReport& report) const { return json ? report.json : report.text; }
};

void add_comm(CLI::App& bench, const CommandTree& tree) {
  CLI::App* app = tree.add(bench, "comm", "Time all-reduce by size, beside plain MPI and the limit of memory or link",
                           "  mpirun -np 2 dtrain bench comm\n"
                           "  mpirun -np 8 dtrain bench comm --sizes 4k,1m,25m --json\n");
  const auto a = std::make_shared<Arguments<CommBenchOptions>>();
  const auto fixed_order = std::make_shared<bool>(false);
  const auto staged = std::make_shared<bool>(false);
  const auto device = std::make_shared<std::string>("auto");
  app->add_option("--sizes", a->options.sizes, "Sizes: bytes, or 4k, 25m, 1g")->delimiter(',');
  app->add_option("--seconds", a->options.seconds, "Time for each size")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  app->add_flag("--fixed-order", *fixed_order, "Same as communication.algorithm: fixed_order");
  app->add_flag("--staged", *staged, "Same as communication.transport: staged, through the hosts' memory");
  app->add_option("--device", *device, "Device of the sums; auto: a GPU if there is one, as in training")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  a->add_profile(app);
  a->add_json(app);
  tree.on_every_rank(app);
  act(app, tree, [a, fixed_order, staged, device] {
    if (*staged) a->options.transport = comm::Transport::staged;
    if (*fixed_order) a->options.algorithm = comm::Algorithm::fixed_order;
    if (*device != "auto") a->options.device = *device == "cpu" ? DeviceChoice::cpu : DeviceChoice::cuda;
    return on_all_ranks("bench comm", [&](comm::World& world) { return a->pick(bench_comm(world, a->options)); });
  });
}

void add_step(CLI::App& bench, const CommandTree& tree) {
  CLI::App* app = tree.add(bench, "step", "Time a training step, by phase and by layer",
                           "  dtrain bench step config.yaml\n"
                           "  mpirun -np 2 dtrain bench step config.yaml batch.global=256 --steps 100 --json\n");
  const auto a = std::make_shared<Arguments<StepBenchOptions>>();
  a->add_config(app);
  app->add_option("--steps", a->options.steps, "Steps to measure")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--warm-up", a->options.warm_up, "Steps before these, which are not measured")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app->add_flag("--brief", a->options.brief, "Time whole steps only, not layers and not the machine's rates");
  a->add_profile(app);
  a->add_json(app);
  tree.on_every_rank(app);
  act(app, tree, [a] {
    StopSignals stop;  // before any thread starts
    stop.watch([](const std::string& why) {
      print_line(stderr, why);
      std::_Exit(static_cast<int>(ExitCode::stopped));
    });
    return on_all_ranks("bench step", [&](comm::World& world) {
      LoadedConfig loaded;
      world.make_group()->agree([&] { loaded = load_config(a->file, a->overrides); });
      return a->pick(bench_step(world, loaded, a->options, stop));
    });
  });
}

void add_data(CLI::App& bench, const CommandTree& tree) {
  CLI::App* app = tree.add(bench, "data", "Time the loader alone: samples per second, by its number of threads",
                           "  dtrain bench data config.yaml\n"
                           "  dtrain bench data config.yaml data.cache_mib=0 --threads 1,2,4 --json\n");
  const auto a = std::make_shared<Arguments<DataBenchOptions>>();
  a->add_config(app);
  app->add_option("--threads", a->options.threads, "Numbers of threads; by default 1, 2, 4, ... up to the cpus")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  app->add_option("--seconds", a->options.seconds, "Time for each")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  a->add_json(app);
  act(app, tree, [a] {
    print(a->pick(bench_data(load_config(a->file, a->overrides), a->options)));
    return 0;
  });
}

void add_generate(CLI::App& bench, const CommandTree& tree) {
  CLI::App* app = tree.add(bench, "generate", "Time the generation of text: the first token, and tokens per second",
                           "  dtrain bench generate config.yaml\n"
                           "  dtrain bench generate config.yaml --batches 1,16 --tokens 128 --json\n");
  const auto a = std::make_shared<Arguments<GenerateBenchOptions>>();
  add_trained_model(*app, a->file, a->overrides, a->options);
  app->add_option("--batches", a->options.batches, "Numbers of texts that go on together; by default 1, 8 and 64")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{4096}));
  app->add_option("--prompt-tokens", a->options.prompt_tokens, "Tokens of each prompt")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->capture_default_str();
  app->add_option("--tokens", a->options.tokens, "Tokens of each text behind its prompt")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 30))
      ->capture_default_str();
  app->add_option("--repeats", a->options.repeats, "Times that each is measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  a->add_json(app);
  tree.on_every_rank(app);
  act(app, tree, [a] {
    return on_all_ranks("bench generate", [&](comm::World& world) {
      LoadedConfig loaded;
      world.make_group()->agree([&] { loaded = load_config(a->file, a->overrides); });
      return a->pick(bench_generate(loaded, world, a->options));
    });
  });
}

/// The hosts of the launch that this process is part of. On other ranks than the first: nothing to do but to leave.
Strings hosts_of_launch(bool& first) {
  first = true;
  if (comm::discover_launch(comm::process_environment()).launcher == comm::Launcher::none) return {};
  comm::World world("bench scaling");
  Strings hosts = world.hosts();
  first = world.rank() == 0;
  world.finish(ExitCode::ok);  // mpirun is started anew from the first rank
  return hosts;
}

void add_scaling(CLI::App& bench, const CommandTree& tree) {
  CLI::App* app =
      tree.add(bench, "scaling", "Measure weak and strong scaling over numbers of ranks; starts mpirun itself",
               "  dtrain bench scaling config.yaml --ranks 1,2,4 -o scaling.html\n"
               "  mpirun -np 16 --hostfile hosts dtrain bench scaling config.yaml --ranks 1,2,4,8,16\n");
  const auto a = std::make_shared<Arguments<ScalingOptions>>();
  const auto kind = std::make_shared<std::string>("both");
  a->add_config(app);
  app->add_option("--ranks", a->options.ranks, "Numbers of ranks; by default 1, 2, 4, ... up to the cpus or the launch")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20));
  app->add_option("--kind", *kind,
                  "weak: the batch of each rank stays the same; strong: the whole batch stays the same")
      ->check(CLI::IsMember({"both", "weak", "strong"}))
      ->capture_default_str();
  app->add_option("--repeats", a->options.repeats, "Runs of each, in turns")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--steps", a->options.steps, "Steps of a run")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--warm-up", a->options.warm_up, "Steps before these, which are not measured")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app->add_option("--profile", a->options.profile,
                  "File with measured parts; predictions are printed beside the measurements");
  app->add_option("-o,--output", a->options.html, "Write a page with plots to this HTML file");
  a->add_json(app);
  tree.on_every_rank(app);
  act(app, tree, [a, kind] {
    a->options.weak = *kind != "strong";
    a->options.strong = *kind != "weak";
    if (!a->options.html.empty())
      io::check_output(a->options.html, std::array{a->file, a->options.profile}, io::OutputKind::other);
    bool first = true;
    const Strings hosts = hosts_of_launch(first);
    if (first) print(a->pick(bench_scaling(load_config(a->file, a->overrides), a->options, hosts)));
    return 0;
  });
}

}  // namespace

void add_bench_commands(CLI::App& root, const CommandTree& tree) {
  CLI::App* bench = tree.add(root, "bench", "Measure the parts of a run, and how it scales",
                             "  dtrain bench step config.yaml\n"
                             "  dtrain bench data config.yaml\n"
                             "  mpirun -np 2 dtrain bench comm\n"
                             "  dtrain bench generate config.yaml\n"
                             "  dtrain bench scaling config.yaml --ranks 1,2 -o scaling.html\n");
  bench->require_subcommand(1);
  add_comm(*bench, tree);
  add_step(*bench, tree);
  add_data(*bench, tree);
  add_generate(*bench, tree);
  add_scaling(*bench, tree);
}

}  // namespace dtrain::launch
