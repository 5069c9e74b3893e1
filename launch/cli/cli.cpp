#include "launch/cli/cli.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "comm/place/launch_env.hpp"
#include "comm/watch/watchdog.hpp"
#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "launch/base/error_text.hpp"
#include "launch/base/progress.hpp"
#include "launch/base/signals.hpp"
#include "launch/cli/all_ranks.hpp"
#include "launch/cli/data_commands.hpp"
#include "launch/cli/doctor.hpp"
#include "launch/cli/eval_predict_commands.hpp"
#include "launch/cli/export_model.hpp"
#include "launch/cli/generate_command.hpp"
#include "launch/cli/start_ranks.hpp"
#include "launch/config/config_file.hpp"
#include "launch/plan/check.hpp"
#include "launch/train/train.hpp"
#include "runtime/config/document.hpp"
#include "runtime/config/version.hpp"

namespace dtrain::launch {

namespace {

using Strings = std::vector<std::string>;

/// Examples stand before everything else: most people look for nothing more.
class ExamplesFirst final : public CLI::Formatter {
 public:
  explicit ExamplesFirst(std::shared_ptr<const std::map<const CLI::App*, std::string>> examples)
      : examples_(std::move(examples)) {
    column_width(34);
  }
  std::string make_description(const CLI::App* app) const override {
    const auto it = examples_->find(app);
    return (it == examples_->end() ? std::string() : "Examples:\n" + it->second + "\n") + app->get_description() +
           "\n\n";
  }
  /// Of the program: what is mostly meant, training, whose command is left out.
  std::string make_usage(const CLI::App* app, std::string name) const override {
    if (app->get_parent() != nullptr) return CLI::Formatter::make_usage(app, std::move(name));
    return "Usage: dtrain [--ranks N] config.yaml [key=value...]\n       dtrain COMMAND [OPTIONS]\n       dtrain help "
           "COMMAND\n";
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    const std::string name = CLI::Formatter::make_option_name(option, is_positional);
    return name == settings_argument ? "key=value" : name;
  }

 private:
  std::shared_ptr<const std::map<const CLI::App*, std::string>> examples_;
};

/// True on the one process that speaks, before there is a World.
bool is_speaker() {
  try {
    return comm::discover_launch(comm::process_environment()).rank == 0;
  } catch (const Error&) {  // plain srun and others, which number their processes but cannot start MPI
    for (const char* name : {"SLURM_PROCID", "RANK", "MV2_COMM_WORLD_RANK", "FLUX_TASK_RANK"})
      if (const char* number = std::getenv(name)) return std::string_view(number) == "0";
    return true;
  }
}

/// Trains on all ranks of this launch. `fresh`: from the beginning, whatever checkpoints there are. `done`: see
/// TrainConfig.
int train_command(const std::string& file, const Strings& overrides, bool fresh, bool done) {
  StopSignals stop;  // before any thread starts
  stop.watch([](const std::string& why) {
    if (is_speaker()) print_line(stderr, why);
    std::_Exit(static_cast<int>(ExitCode::stopped));
  });
  comm::World world("train");
  stop.watch([&world](const std::string& why) {
    if (world.speaks_for_host()) print_line(stderr, why);  // standard output may be what is stuck
    world.abort(ExitCode::stopped);
  });
  ExitCode code = ExitCode::ok;
  const auto report = [&](const std::exception& e) {
    const std::string text = error_text(e, code);
    if (world.rank() == 0) print_error(text);
  };
  try {
    world.watchdog().limit(comm::CommConfig{});  // until the configuration is known
    const auto group = world.make_group();
    LoadedConfig loaded;
    group->agree([&] { loaded = load_config(file, overrides); });
    loaded.config.checkpoint.fresh = fresh;
    loaded.config.train.done = done;
    code = train(loaded, world, stop);
  } catch (const std::exception& e) {
    report(e);
  }
  if (world.rank() == 0) tell_starter(code);
  // After success rank 0 still writes the summary, perhaps to a slow file system: that is no failure of the others.
  const bool well = code == ExitCode::ok || code == ExitCode::stopped;
  const int result = world.finish(code, well ? 60 : 5);
  stop.watch({});  // the world ends
  return result;
}

int print_report(const io::CheckpointReport& report, bool json) {
  print(json ? report.json : report.text);
  return static_cast<int>(report.ok ? ExitCode::ok : ExitCode::checkpoint);
}

/// The tree of commands. Each leaf sets what is to be done.
class CommandLine {
 public:
  explicit CommandLine(std::span<const AddCommands> more)
      : app_("dtrain: distributed training of neural networks", "dtrain") {
    app_.set_version_flag("--version", std::string("dtrain ") + std::string(version()), "Print the version");
    app_.require_subcommand(1);
    example(
        app_,
        "  mpirun -np 2 dtrain models/recipes/mnist-cnn.yaml            train on two ranks\n"
        "  dtrain --ranks 2 models/recipes/mnist-cnn.yaml               the same: dtrain starts mpirun\n"
        "  dtrain models/recipes/mnist-mlp.yaml train.epochs=1 seed=2   one process, other settings\n"
        "  dtrain check models/recipes/mnist-cnn.yaml --ranks 8         the plan of a run: shapes, memory, buckets\n");
    add_train();
    add_check();
    add_config();
    const CommandTree tree{[this](auto& parent, const auto& name, const auto& what, const auto& examples) {
                             return command(parent, name, what, examples);
                           },
                           [this](std::function<int()> action) { action_ = std::move(action); },
                           [this](const CLI::App* app) { everywhere_.insert(app); }};
    const auto on_ranks = [this](CLI::App* app, EvalPredictCommands::Work work) {
      everywhere_.insert(app);
      add_ranks(app);
      app->callback([this, work = std::move(work), name = app->get_name()] {
        action_ = [work, name] { return on_all_ranks(name, work); };
      });
    };
    eval_predict_ = std::make_unique<EvalPredictCommands>(app_, tree, on_ranks);
    generate_ = std::make_unique<GenerateCommand>(app_, tree, on_ranks);
    data_ = std::make_unique<DataCommands>(app_, tree);
    add_checkpoint();
    add_doctor();
    for (const AddCommands& add : more) add(app_, tree);
    auto formatter = std::make_shared<ExamplesFirst>(examples_);
    const std::function<void(CLI::App*)> format = [&](CLI::App* at) {
      at->formatter(formatter);
      for (CLI::App* sub : at->get_subcommands([](CLI::App*) { return true; })) format(sub);
    };
    format(&app_);
  }

  int run(Strings args);
  Strings names() const;

 private:
  CLI::App* command(CLI::App& parent, const std::string& name, const std::string& what, const std::string& examples) {
    CLI::App* sub = parent.add_subcommand(name, what);
    example(*sub, examples);
    return sub;
  }
  /// The command prints what `work` returns.
  void prints(CLI::App* app, std::function<std::string()> work) {
    app->callback([this, work = std::move(work)] {
      action_ = [work] {
        print(work());
        return 0;
      };
    });
  }
  void example(const CLI::App& app, const std::string& text) { (*examples_)[&app] = text; }
  void add_config_arguments(CLI::App* app) {
    app->add_option("config", file_, "Configuration file (YAML)")->required();
    app->add_option(settings_argument, overrides_, "Settings that replace the file's; the value is YAML");
  }

  /// Of commands that all ranks of a launch run together.
  void add_ranks(CLI::App* app) {
    app->add_option("--ranks", ranks_, "Start so many ranks on this machine with mpirun")->check(CLI::Range(1, 4096));
  }

  void add_train() {
    CLI::App* train = command(app_, "train", "Train the model of a configuration (the default command)",
                              "  mpirun -np 8 dtrain config.yaml\n"
                              "  dtrain --ranks 8 config.yaml\n"
                              "  srun --mpi=pmix dtrain config.yaml\n"
                              "  dtrain config.yaml batch.global=256 optimizer='{sgd: {learning_rate: 0.05}}'\n");
    add_config_arguments(train);
    add_ranks(train);
    train->add_flag("--fresh", fresh_, "Begin anew; what an earlier run left is kept under other names");
    train->add_flag("--done", done_, "Exit with 0, not 75, where train.max_hours ends the run before its last step");
    train->callback([this] { action_ = [this] { return train_command(file_, overrides_, fresh_, done_); }; });
    everywhere_.insert(train);
  }

  void add_check() {
    CLI::App* check_app = command(app_, "check", "Check a configuration and show the plan; needs no GPU and no MPI",
                                  "  dtrain check config.yaml\n"
                                  "  dtrain check config.yaml batch.global=512 --ranks 8 --json\n"
                                  "  dtrain check config.yaml --ranks 64 --ranks-per-host 8 --profile profile.json\n"
                                  "  dtrain check config.yaml batch.global=262144 --ranks 1024 --link nvlink --network "
                                  "400gbit --flops 989t --efficiency 0.17\n");
    add_config_arguments(check_app);
    check_app->add_option("--ranks", check_.ranks, "Number of ranks that the batch is divided among")
        ->check(CLI::Range(1, 1 << 20));
    check_app->add_option("--profile", check_.profile,
                          "File with parts that `bench step` and `bench comm` measured; predicts the step");
    check_app
        ->add_option("--ranks-per-host", check_.ranks_per_host,
                     "Ranks of each host, for the prediction; by default as measured")
        ->check(CLI::Range(1, 1 << 20));
    check_app->add_option(
        "--link", check_.cluster.link,
        "Link between the ranks of a host (nvlink, nvlink3, pcie, a rate); models how the run scales");
    check_app->add_option("--network", check_.cluster.network,
                          "Network between hosts, for each card (400gbit); models how the run scales");
    check_app->add_option("--cards", check_.cluster.cards, "Network cards of each host; by default one for each rank")
        ->check(CLI::Range(1, 1 << 20));
    check_app->add_option("--flops", check_.cluster.flops,
                          "FLOP/s of each rank (989t), where no --profile has measured its computation");
    check_app->add_option("--efficiency", check_.cluster.efficiency, "Fraction of these FLOP/s that a rank reaches")
        ->check(CLI::Range(1e-6, 1.0));
    check_app
        ->add_option("--sum-processor", check_.cluster.processor,
                     "Fraction of a rank's processor that a sum takes; by default 0.08")
        ->check(CLI::Range(0.0, 1.0));
    check_app->add_flag("--json", json_, "Print one JSON object");
    prints(check_app, [this] {
      const CheckReport report = check(load_config(file_, overrides_), check_);
      return json_ ? report.json : report.text;
    });
  }

  void add_config() {
    CLI::App* config = command(app_, "config", "Show a configuration as it will be used, or the keys that it may have",
                               "  dtrain config show config.yaml seed=2\n"
                               "  dtrain config schema > dtrain.schema.json\n");
    config->require_subcommand(1);
    CLI::App* show = command(*config, "show", "Show every setting and where it comes from",
                             "  dtrain config show config.yaml train.epochs=1\n");
    add_config_arguments(show);
    prints(show, [this] { return show_config(load_config(file_, overrides_)); });
    CLI::App* schema = command(*config, "schema", "Print the JSON Schema of configuration files, for editors",
                               "  dtrain config schema > dtrain.schema.json\n");
    schema->add_option("config", file_, "Ignored: the schema is the same for every file");
    schema->add_flag("--markdown", markdown_, "Print the reference page instead (launch/CONFIG.md)");
    prints(schema, [this] { return markdown_ ? config_reference() : config_schema(); });
  }

  void add_checkpoint() {
    CLI::App* checkpoint = command(app_, "checkpoint", "List, verify, compare and export checkpoints",
                                   "  dtrain checkpoint list runs/mnist-cnn\n"
                                   "  dtrain checkpoint verify runs/mnist-cnn\n");
    checkpoint->require_subcommand(1);
    const auto add = [&](const char* name, const char* what, const char* examples, auto work) {
      CLI::App* sub = command(*checkpoint, name, what, examples);
      sub->add_flag("--json", json_, "Print one JSON object");
      sub->callback([this, work] { action_ = [this, work] { return print_report(work(), json_); }; });
      return sub;
    };
    add("list", "List the checkpoints of a directory", "  dtrain checkpoint list runs/mnist-cnn\n",
        [this] { return io::list_checkpoints(first_); })
        ->add_option("directory", first_, "Folder of a run, or directory of checkpoints")
        ->required();
    add("verify", "Read every byte and compare checksums; exit with 4 if one is wrong",
        "  dtrain checkpoint verify runs/mnist-cnn\n"
        "  dtrain checkpoint verify runs/mnist-cnn/500\n",
        [this] { return io::verify_checkpoints(first_); })
        ->add_option("directory", first_, "Folder of a run, one checkpoint, or a directory of them")
        ->required();
    CLI::App* diff = add("diff", "Compare two checkpoints tensor by tensor; exit with 4 if they differ",
                         "  dtrain checkpoint diff runs/a/500 runs/b/best\n",
                         [this] { return io::diff_checkpoints(first_, second_); });
    diff->add_option("first", first_, "A checkpoint")->required();
    diff->add_option("second", second_, "Another one")->required();
    CLI::App* to_file = add(
        "export", "Write the model of a checkpoint to an HDF5 or safetensors file, for other programs",
        "  dtrain checkpoint export runs/mnist-cnn/checkpoints/best -o mnist-cnn.h5\n"
        "  dtrain checkpoint export runs/mnist-cnn/checkpoints/best --to safetensors -o mnist-cnn.safetensors\n"
        "  dtrain checkpoint export runs/gpt/checkpoints/best --to safetensors -o gpt   a folder for transformers\n",
        [this] { return export_model(first_, output_, raw_, export_format_, export_names_, second_); });
    to_file->add_option("directory", first_, "One checkpoint, the label of one, or a directory of them")->required();
    to_file->add_option("-o,--output", output_, "File or folder to write")->required();
    to_file->add_option("--to", export_format_, "Kind of file; safetensors has PyTorch's names of parameters")
        ->transform(CLI::CheckedTransformer(std::map<std::string, io::ExportFormat>{
            {"hdf5", io::ExportFormat::hdf5}, {"safetensors", io::ExportFormat::safetensors}}))
        ->option_text("hdf5|safetensors [hdf5]");
    to_file
        ->add_option(
            "--names", export_names_,
            "Names in safetensors: dtrain's, in one file; those of Hugging Face's transformers, in a folder that it "
            "opens: by default for gpt, llama, bert and vit; torchvision's or timm's, of resnet and efficientnet-b0")
        ->transform(
            CLI::CheckedTransformer(std::map<std::string, ExportNames>{{"dtrain", ExportNames::dtrain},
                                                                       {"huggingface", ExportNames::huggingface},
                                                                       {"torchvision", ExportNames::torchvision},
                                                                       {"timm", ExportNames::timm}}))
        ->option_text("dtrain|huggingface|torchvision|timm");
    to_file->add_option("--base", second_,
                        "Of a LoRA run: where the model that its adapters change lies now, if it was moved");
    to_file->add_flag("--raw", raw_, "Use the parameters as trained, not their moving average");
  }

  void add_doctor() {
    CLI::App* app = command(app_, "doctor", "Say what this machine offers and what it lacks, and what to do about that",
                            "  dtrain doctor\n"
                            "  mpirun -np 4 dtrain doctor --directory /scratch/runs --json\n");
    app->add_option("--directory", directory_, "Directory that runs will write to")->capture_default_str();
    app->add_flag("--json", json_, "Print one JSON object");
    add_ranks(app);
    everywhere_.insert(app);
    app->callback([this] {
      action_ = [this] {
        return on_all_ranks("doctor", [this](comm::World& world) {
          const DoctorReport report = doctor(world, directory_);
          return json_ ? report.json : report.text;
        });
      };
    });
  }

  /// Throws ConfigError for a word that is no command; returns the command that the words name.
  const CLI::App* find_command(const Strings& args) const;

  std::shared_ptr<std::map<const CLI::App*, std::string>> examples_ =
      std::make_shared<std::map<const CLI::App*, std::string>>();
  CLI::App app_;
  std::set<const CLI::App*> everywhere_;  // run on all ranks of a launch
  std::function<int()> action_;
  std::string file_, first_, second_, output_, directory_ = "runs";
  io::ExportFormat export_format_ = io::ExportFormat::hdf5;
  ExportNames export_names_ = ExportNames::automatic;
  Strings overrides_;
  CheckOptions check_;
  int ranks_ = 1;
  bool json_ = false, markdown_ = false, raw_ = false, fresh_ = false, done_ = false;
  std::unique_ptr<EvalPredictCommands> eval_predict_;
  std::unique_ptr<GenerateCommand> generate_;
  std::unique_ptr<DataCommands> data_;
};

Strings names_of(const CLI::App& app) {
  Strings names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

const CLI::App* CommandLine::find_command(const Strings& args) const {
  const CLI::App* at = &app_;
  std::string path = "dtrain";
  for (const std::string& arg : args) {
    const Strings names = names_of(*at);
    if (names.empty() || arg.starts_with('-')) break;
    if (std::find(names.begin(), names.end(), arg) == names.end()) {
      const std::string near = nearest_name(arg, names);
      throw ConfigError(fmt::format("{}: unknown command {}; expected {}{}{}", path, json_string(arg),
                                    at == &app_ ? "a configuration file or one of " : "one of ", fmt::join(names, ", "),
                                    near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    }
    at = at->get_subcommand(arg);
    path += ' ' + arg;
  }
  return at;
}

/// The option that a misspelt one may have meant.
std::string nearest_option(const CLI::App& app, const Strings& args) {
  Strings known;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  for (const std::string& arg : args) {
    const std::string name = arg.substr(0, arg.find('='));
    if (!name.starts_with("--") || std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string near = nearest_name(name, known);
    return fmt::format("unknown option {}{}", name, near.empty() ? "" : fmt::format("; did you mean {}?", near));
  }
  return {};
}

Strings CommandLine::names() const {
  Strings names;
  const std::function<void(const CLI::App&)> collect = [&](const CLI::App& at) {
    for (const CLI::Option* option : at.get_options()) {
      for (const Strings& some : {option->get_lnames(), option->get_snames(), Strings{option->get_name(true)}})
        std::copy_if(some.begin(), some.end(), std::back_inserter(names),
                     [](const auto& name) { return !name.empty(); });
    }
    for (const CLI::App* sub : at.get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(sub->get_name());
      collect(*sub);
    }
  };
  collect(app_);
  return names;
}

int CommandLine::run(Strings args) {
  if (!args.empty() && args[0] == "help") {  // `dtrain help data import`
    std::rotate(args.begin(), args.begin() + 1, args.end());
    args.back() = "--help";
  }
  // `dtrain --ranks 8 config.yaml`: options of the command that follows.
  std::size_t leading = 0;
  while (leading < args.size()) {
    const std::string& word = args[leading];
    if (word != "--ranks" && word != "--fresh" && word != "--done" && !word.starts_with("--ranks=")) break;
    leading += word == "--ranks" ? 2U : 1U;
  }
  if (leading > 0 && leading >= args.size())
    throw ConfigError((args[0] == "--fresh" || args[0] == "--done") && args.size() == 1
                          ? fmt::format("{0} needs a configuration file to train: dtrain {0} config.yaml", args[0])
                          : "--ranks needs a number, and a configuration file to train or a command: dtrain --ranks 2 "
                            "config.yaml");
  std::rotate(args.begin(), args.begin() + static_cast<std::ptrdiff_t>(leading), args.end());
  // `dtrain config.yaml` trains: the first word is a file, or looks like one.
  const Strings names = names_of(app_);
  if (!args.empty() && !args[0].starts_with('-') && std::find(names.begin(), names.end(), args[0]) == names.end()) {
    std::error_code ignored;
    const bool file = std::filesystem::exists(args[0], ignored) || args[0].find_first_of("./=") != std::string::npos;
    if (file && args[0].find('=') == std::string::npos) args.insert(args.begin(), "train");
  }
  if (args.empty()) {
    print(app_.help());
    return static_cast<int>(ExitCode::usage);
  }
  const CLI::App* chosen = find_command(args);
  try {
    Strings reversed(args.rbegin(), args.rend());  // as CLI11 wants them
    app_.parse(std::move(reversed));
  } catch (const CLI::Success& e) {  // --help, --version
    return is_speaker() ? app_.exit(e) : 0;
  } catch (const CLI::ParseError& e) {
    std::string text = nearest_option(*chosen, args);
    if (text.empty()) text = e.what();
    for (char& c : text)
      if (c == '\n') c = ' ';
    std::string path;
    for (const CLI::App* at = chosen; at != nullptr; at = at->get_parent())
      path = at->get_name() + (path.empty() ? "" : " " + path);
    throw ConfigError(fmt::format("{}; see {} --help", text, path));
  }
  if (ranks_ > 1) return start_ranks(ranks_, args, chosen->get_name() == "train");
  // Under a launcher every rank is here: some commands are for all of them, the others for one.
  if (!everywhere_.contains(chosen) && !is_speaker()) return 0;
  return action_ ? action_() : static_cast<int>(ExitCode::usage);
}

}  // namespace

std::vector<std::string> command_line_names(std::span<const AddCommands> more) {
  return CommandLine(more).names();
}

int run_command_line(const std::vector<std::string>& args, std::span<const AddCommands> more) {
  block_signals({SIGXFSZ});  // a file that may not grow is an error with its name
  try {
    return CommandLine(more).run(args);
  } catch (const std::exception& e) {
    ExitCode code = ExitCode::bug;
    const std::string text = error_text(e, code);
    // A launcher ends all processes once one has failed: the others wait, so that this one can say why.
    if (is_speaker()) {
      print_error(text);
    } else {
      std::this_thread::sleep_for(std::chrono::seconds(3));
    }
    return static_cast<int>(code);
  }
}

}  // namespace dtrain::launch
