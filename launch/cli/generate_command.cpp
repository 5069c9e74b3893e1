#include "launch/cli/generate_command.hpp"

#include "launch/cli/trained_model_options.hpp"

namespace dtrain::launch {

GenerateCommand::GenerateCommand(CLI::App& app, const CommandTree& tree,
                                 const std::function<void(CLI::App*, Work)>& on_all_ranks) {
  CLI::App* sub = tree.add(
      app, "generate", "Continue texts by a trained language model",
      "  dtrain generate config.yaml --prompt 'ROMEO:' --tokens 200\n"
      "  dtrain generate config.yaml --prompt 'ROMEO:' --temperature 0        always the likeliest token\n"
      "  mpirun -np 2 dtrain generate config.yaml --prompts prompts.txt --top-p 0.9 --seed 7 --json\n"
      "  dtrain generate config.yaml                                          asks for prompts, line by line\n");
  add_trained_model(*sub, file_, overrides_, options_);
  CLI::Option* const prompt =
      sub->add_option("--prompt", options_.prompts, "Text to continue; may be given several times")
          ->option_text("TEXT");
  sub->add_option("--prompts", options_.prompts_file, "File with a prompt a line")
      ->option_text("FILE")
      ->excludes(prompt);
  sub->add_option("--tokenizer", options_.tokenizer,
                  "bytes, gpt2, a file or a folder; by default the tokenizer in data.train")
      ->option_text("NAME");
  sub->add_option("--tokens", options_.tokens, "Tokens of each text at most")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30))
      ->option_text("N [128]");
  sub->add_option("--temperature", options_.sampling.temperature,
                  "Divides the logits; 0: always the likeliest token, below 1: likelier ones more often")
      ->check(CLI::Range(0.0, 1000.0))
      ->option_text("X [1]");
  sub->add_option("--top-k", options_.sampling.top_k, "Choose among so many likeliest tokens; 0: all")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 30))
      ->option_text("N [0]");
  sub->add_option("--top-p", options_.sampling.top_p,
                  "Choose among the likeliest tokens with this probability together")
      ->check(CLI::Range(1e-6, 1.0))
      ->option_text("X [1]");
  sub->add_option("--min-p", options_.sampling.min_p,
                  "Choose no token below this part of the likeliest one's probability")
      ->check(CLI::Range(0.0, 1.0))
      ->option_text("X [0]");
  sub->add_option("--repetition-penalty", options_.sampling.repetition_penalty,
                  "Above 1: tokens that were there become less likely")
      ->check(CLI::Range(0.01, 100.0))
      ->option_text("X [1]");
  sub->add_option("--stop", options_.stop, "End a text before this; may be given several times")->option_text("TEXT");
  sub->add_option("--seed", seed_, "Of the draws; by default the configuration's")->option_text("N");
  sub->add_option("--batch", options_.batch, "Texts that a rank continues at the same time")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{4096}))
      ->option_text("N [8]");
  sub->add_flag("--json", options_.json, "Print one JSON object");
  on_all_ranks(sub, [this](comm::World& world) {
    const auto group = world.make_group();
    LoadedConfig loaded;
    group->agree([&] {
      loaded = load_trained(file_, overrides_);
      for (const std::string& stop : options_.stop)
        if (stop.empty()) throw ConfigError("--stop: the text is empty; expected at least one character");
    });
    options_.sampling.seed = seed_.value_or(loaded.config.seed);
    return generate(loaded, world, options_);
  });
}

}  // namespace dtrain::launch
