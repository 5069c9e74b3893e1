#include "launch/bench/generate.hpp"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "launch/base/clock.hpp"
#include "launch/base/text.hpp"
#include "launch/infer/text_session.hpp"
#include "launch/plan/statistics.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

}  // namespace

BenchReport bench_generate(const LoadedConfig& input, comm::World& world, const GenerateBenchOptions& options) {
  TrainedModel model(input, world, options);
  const auto inputs = models::inputs_of(input.config.model);
  const models::ModelInput& text_input = inputs[models::first_input(inputs)];
  model.group().agree([&] {
    if (text_input.shape.size() != 1 || !text_input.indices())
      throw ConfigError(std::vector<ConfigProblem>{input.problem(
          "model", "model: this is no language model; expected an input {tokens: LENGTH, vocabulary: N}")});
  });
  const std::int64_t context = text_input.shape[0];
  const std::int64_t prompt =
      std::clamp<std::int64_t>(options.prompt_tokens, 1, std::max<std::int64_t>(1, context / 2));
  const std::int64_t tokens = std::clamp<std::int64_t>(options.tokens, 2, std::max<std::int64_t>(2, context - prompt));
  TextTable table({"texts", "first token, ms (95 %)", "tokens/s (95 %)"});
  Json rows = Json::array();
  for (const std::int64_t batch : options.batches) {
    TextSession session(model, batch, prompt + tokens);
    const std::vector<std::vector<io::TokenId>> prompts(
        static_cast<std::size_t>(batch), std::vector<io::TokenId>(static_cast<std::size_t>(prompt), io::TokenId{0}));
    std::vector<double> first, rate;
    for (int repeat = -1; repeat < options.repeats; ++repeat) {  // one to warm up
      const auto begin = Clock::now();
      std::int64_t made = 0;
      double until_first = 0;
      std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch));
      session.run(prompts, [&](std::size_t i, std::span<const float> logits) -> std::optional<io::TokenId> {
        const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();
        if (++made == batch) until_first = since(begin);
        if (++lengths[i] == tokens) return std::nullopt;
        return static_cast<io::TokenId>(likeliest);
      });
      if (repeat < 0) continue;
      first.push_back(1e3 * until_first);
      rate.push_back(static_cast<double>(made - batch) / (since(begin) - until_first));
    }
    const Estimate of_first = median_of(first), of_rate = median_of(rate);
    table.row({std::to_string(batch), text_of(of_first, 1, 2), text_of(of_rate, 1, 0)});
    rows.push_back({{"texts", batch}, {"first_token_ms", to_json(of_first)}, {"tokens_per_second", to_json(of_rate)}});
  }
  const std::string text = fmt::format("{}: prompts of {} tokens, {} tokens each, {}\n\n{}", input.config.name, prompt,
                                       tokens, model.found().path, table.str());
  const Json report{{"name", input.config.name}, {"checkpoint", model.found().path},
                    {"prompt_tokens", prompt},   {"tokens", tokens},
                    {"ranks", world.size()},     {"batches", rows}};
  return {text, report.dump(2) + "\n"};
}

}  // namespace dtrain::launch
