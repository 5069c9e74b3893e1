#include "launch/infer/eval_predict.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "comm/collective/agree.hpp"
#include "comm/watch/watchdog.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "io/dataset/loader.hpp"
#include "io/files/output.hpp"
#include "launch/base/clock.hpp"
#include "launch/data/data.hpp"
#include "launch/data/token_bytes.hpp"
#include "launch/infer/predictions.hpp"
#include "launch/infer/trained_model.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/report/run_choices.hpp"
#include "launch/train/engine.hpp"
#include "launch/train/evaluation.hpp"
#include "models/model/build.hpp"
#include "runtime/config/version.hpp"
#include "runtime/device/host_mirror.hpp"
#include "runtime/program/step_memory.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

/// Ranks ask each other for failures once in so many batches.
constexpr std::int64_t batches_between_questions = 16;

}  // namespace

std::string evaluate_model(const LoadedConfig& input, comm::World& world, const EvalPredictOptions& options,
                           const std::vector<std::string>& data, bool json) {
  const std::vector<std::string>& files = data.empty() ? input.config.data.eval.files : data;
  if (files.empty()) {
    throw ConfigError(std::vector<ConfigProblem>{
        input.problem("data.eval", "data.eval: there is nothing to evaluate on; name files there, or by --data")});
  }
  TrainedModel model(input, world, options);
  model.set_up(models::BuildFor::training, [&] {
    return open_data(input.config, files, DataUse::evaluation, input.config.data.cache_mib,
                     reference_of(model.found()));
  });
  const auto loader = model.make_loader();
  const io::LoaderOptions loading = model.loading();
  double token_bytes = 0;
  model.group().agree([&] { token_bytes = bytes_per_token(input.config, model.data().files()); });
  // Of the set that the run was trained on, where that is known: labels are numbered as there.
  const Reference trained_on = reference_of(model.found());
  Evaluator evaluator(
      model.engine(), *loader, model.group(), model.watchdog(),
      {input.config.cuda.graphs, nullptr, token_bytes, JudgeScope::positions,
       trained_on.empty() ? model.data().descriptions() : trained_on, loading.ports, model.data().count()});
  const auto begin = Clock::now();
  EvalMetrics result = *evaluator.run(static_cast<std::int64_t>(model.found().state.step), nullptr);
  result.averaged = model.averaged();
  if (json) {
    Json out{{"checkpoint", model.found().path}, {"step", model.found().state.step}};
    out.update(to_json(result));
    out.update(Json{{"averaged", result.averaged},
                    {"samples", model.data().count()},
                    {"files", model.data().files()},
                    {"ranks", world.size()},
                    {"seconds", since(begin)}});
    if (Json details = details_of(result.judged); !details.empty()) out["judged"] = std::move(details);
    return out.dump(2) + "\n";
  }
  return fmt::format("{}: {}; {} samples of {} on {}\n{}", model.found().path, describe("evaluation", result),
                     model.data().count(), fmt::join(model.data().files(), ", "), model.ranks_text(),
                     table_of(result.judged));
}

std::string predict(const LoadedConfig& input, comm::World& world, const EvalPredictOptions& options,
                    const std::vector<std::string>& files, const std::string& output) {
  TrainedModel model(input, world, options);
  bool image_files = false;
  model.group().agree([&] { image_files = ImageInput::found_in(files); });
  std::optional<ImageInput> images;
  if (image_files) {
    model.watchdog().pause();  // decoding may rightly take long
    images.emplace(model.group(), model.config(), reference_of(model.found()), files, output, options.images);
    model.watchdog().beat("set-up", 0, comm::Deadline::set_up);
  }
  std::vector<std::string> names;
  model.set_up(models::BuildFor::prediction, [&] {
    io::Dataset set =
        open_inputs(model.config(), images ? std::vector{images->file()} : files, reference_of(model.found()));
    io::check_output(output, set.files());
    if (world.rank() == 0) names = set.file_names();
    return set;
  });
  Engine& engine = model.engine();
  const char* const parameters = model.averaged() ? "averaged" : "raw";
  Predictions predictions(model.group(), model.config(), engine.plan().graph, output, model.data().count(),
                          options.logits,
                          {{"checkpoint", model.found().path},
                           {"parameters", parameters},
                           {"configuration_hash", model.found().state.configuration_hash},
                           {"input", fmt::format("{}", fmt::join(images ? files : model.data().files(), ", "))}},
                          names, reference_of(model.found()));
  const auto loader = model.make_loader();
  std::vector<HostMirror> values;
  for (std::size_t i = 0; i < predictions.outputs(); ++i) {
    const Tensor out = engine.program().output(0, i);
    values.emplace_back(engine.device(), out.data, out.bytes());
  }
  StepMemory memory(engine.device());
  memory.reset({}, engine.compute());
  NoHooks hooks;
  const auto begin = Clock::now();
  std::exception_ptr error;
  for (std::int64_t i = 0; i < loader->batches(); ++i) {
    model.watchdog().beat("prediction", static_cast<std::uint64_t>(i),
                          i == 0 ? comm::Deadline::first_step : comm::Deadline::step);
    try {
      if (!error) {
        const io::Batch& batch = engine.feed().next(*loader, engine.program(), 0);
        const std::uint64_t first = batch.indices[0];
        const auto count = static_cast<std::size_t>(batch.valid);
        engine.feed().give_back(*loader);
        engine.program().run({Mode::evaluate, true, true}, 0, engine.store(), memory.state(), hooks, engine.compute());
        engine.feed().read(0);
        for (const HostMirror& output_values : values) output_values.pull(engine.compute());
        engine.compute().synchronize();
        for (std::size_t k = 0; k < values.size(); ++k) predictions.write(k, first, count, values[k].as<float>());
      }
    } catch (...) {
      error = std::current_exception();  // the others hear of it soon; nobody waits for this rank meanwhile
    }
    if (i % batches_between_questions == 0 && model.group().any(error != nullptr)) break;
  }
  if (!error) engine.feed().settle();
  model.group().agree([&] {
    if (error) std::rethrow_exception(error);
  });
  model.watchdog().beat("save", 0, comm::Deadline::save);
  predictions.commit();
  const double seconds = since(begin);
  return fmt::format("wrote {}: {} rows of {} by {} ({} parameters); {:.0f} samples/s on {}\n{}", output,
                     model.data().count(), predictions.text(), model.found().path, parameters,
                     static_cast<double>(model.data().count()) / std::max(seconds, 1e-9), model.ranks_text(),
                     images ? images->notes() : "");
}

}  // namespace dtrain::launch
