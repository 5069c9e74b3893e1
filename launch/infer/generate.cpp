#include "launch/infer/generate.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "io/dataset/dataset.hpp"
#include "io/text/token_file.hpp"
#include "io/text/tokenizer_files.hpp"
#include "launch/base/clock.hpp"
#include "launch/infer/text_session.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;
using Tokens = std::vector<io::TokenId>;

std::unique_ptr<io::Tokenizer> find_tokenizer(const RunConfig& config, const std::string& named) {
  if (!named.empty()) return io::open_tokenizer(named);
  std::vector<std::string> patterns = config.data.train;
  patterns.insert(patterns.end(), config.data.eval.files.begin(), config.data.eval.files.end());
  std::string why = "data.train names no file";
  for (const std::string& pattern : patterns) {
    try {
      for (const std::string& path : io::expand_files(std::span(&pattern, 1))) {
        const io::h5::File file(path);
        if (const auto tokens = io::find_tokens(file)) return io::stored_tokenizer(file, *tokens);
        why = path + " holds none";
      }
    } catch (const DataError& e) {
      why = e.what();
    }
  }
  throw DataError(
      fmt::format("no tokenizer was found: {}; name one with --tokenizer (bytes, gpt2, a file or a folder)", why));
}

/// How many bytes of a text are whole characters: a token may end inside one.
std::size_t whole_characters(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto c = static_cast<unsigned char>(text[text.size() - back]);
    if (c < 0x80) break;
    if (c < 0xC0) continue;  // inside a character
    const std::size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

/// A prompt and what came of it.
struct Text {
  std::string prompt, continuation;
  Tokens tokens;  // of the prompt, then of the continuation
  std::size_t prompt_tokens = 0;
  std::string finish = "length";
};

std::vector<std::byte> packed(const Json& json) {
  const std::vector<std::uint8_t> bytes = Json::to_cbor(json);
  std::vector<std::byte> out(bytes.size());
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}
Json unpacked(const std::vector<std::byte>& bytes) {
  const auto* at = reinterpret_cast<const std::uint8_t*>(bytes.data());
  return Json::from_cbor(at, at + bytes.size());
}

class Generator {
 public:
  Generator(const LoadedConfig& input, comm::World& world, const GenerateOptions& options)
      : options_(options), world_(world), model_(input, world, options), sampler_(options.sampling) {
    const models::ModelConfig& model = model_.config().model;
    const auto inputs = models::inputs_of(model);
    const models::ModelInput& tokens = inputs[models::first_input(inputs)];
    model_.group().agree([&] {
      if (tokens.shape.size() != 1 || !tokens.indices())
        throw ConfigError(std::vector<ConfigProblem>{input.problem(
            "model", "model: this is no language model; expected an input {tokens: LENGTH, vocabulary: N}")});
      tokenizer_ = find_tokenizer(model_.config(), options.tokenizer);
      if (static_cast<std::int64_t>(tokenizer_->vocabulary()) > tokens.vocabulary)
        throw DataError(
            fmt::format("the tokenizer {} has {} ids, but the model's vocabulary is {}; use the tokenizer "
                        "of its data",
                        tokenizer_->name(), tokenizer_->vocabulary(), tokens.vocabulary));
    });
    context_ = tokens.shape[0];
  }

  std::string run() {
    std::vector<std::string> prompts;
    bool given = true;
    model_.group().agree([&] {
      prompts = options_.prompts;
      if (!options_.prompts_file.empty()) prompts = lines_of(options_.prompts_file);
      given = !options_.prompts.empty() || !options_.prompts_file.empty();
    });
    if (given) return texts_of(prompts);
    waits_for_more_ = true;
    for (std::uint64_t number = 0;; ++number) {
      model_.watchdog().pause();  // a person thinks
      std::string line;
      if (world_.rank() == 0) {
        if (isatty(STDIN_FILENO) != 0) fmt::print(stderr, "> ");
        line = std::getline(std::cin, line) ? "+" + line : "";
      }
      line = model_.group().broadcast(line);
      if (line.empty()) return {};
      first_ = number;
      const std::string text = texts_of({line.substr(1)});
      if (world_.rank() == 0) std::fwrite(text.data(), 1, text.size(), stdout), std::fflush(stdout);
    }
  }

 private:
  static std::vector<std::string> lines_of(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw DataError(fmt::format("{}: cannot be read; expected a file with a prompt a line", path));
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    if (lines.empty()) throw DataError(fmt::format("{}: is empty; expected a prompt a line", path));
    return lines;
  }

  Text begin(const std::string& prompt, std::size_t number) const {
    Text text{prompt, {}, tokenizer_->encode(prompt), 0, "length"};
    if (text.tokens.empty()) {
      if (!tokenizer_->end_of_text())
        throw ConfigError(
            fmt::format("prompt {} is empty, and the tokenizer {} has no token to begin a text with; write "
                        "some text",
                        number + 1, tokenizer_->name()));
      text.tokens.push_back(*tokenizer_->end_of_text());
    }
    text.prompt_tokens = text.tokens.size();
    if (static_cast<std::int64_t>(text.tokens.size()) >= context_)
      throw ConfigError(fmt::format("prompt {} has {} tokens, but the model's context is {}; expected at most {}",
                                    number + 1, text.tokens.size(), context_, context_ - 1));
    return text;
  }

  std::string texts_of(const std::vector<std::string>& prompts) {
    std::vector<Text> texts;
    std::int64_t longest = 0;
    model_.group().agree([&] {
      for (std::size_t i = 0; i < prompts.size(); ++i) texts.push_back(begin(prompts[i], i));
      for (const Text& text : texts) longest = std::max(longest, static_cast<std::int64_t>(text.tokens.size()));
    });
    const std::int64_t wanted = waits_for_more_ ? context_ : std::min(context_, longest + options_.tokens);
    if (!session_ || capacity_ < wanted) {
      capacity_ = wanted;
      session_.reset();
      // Groups of the same prompts on any number of ranks: library products may hang on their number of rows.
      session_.emplace(model_, std::min<std::int64_t>(options_.batch, static_cast<std::int64_t>(prompts.size())),
                       capacity_);
    }
    const auto begin_time = Clock::now();
    const bool streams = texts.size() == 1 && !options_.json;
    if (streams && world_.rank() == 0) write(texts[0].prompt);
    const auto batch = static_cast<std::size_t>(options_.batch);
    std::exception_ptr error;
    Json mine = Json::array();
    for (std::size_t group = 0; group * batch < texts.size(); ++group) {
      if (static_cast<int>(group % static_cast<std::size_t>(world_.size())) != world_.rank() || error) continue;
      try {
        generate_group(std::span(texts).subspan(group * batch, std::min(batch, texts.size() - group * batch)),
                       group * batch, streams);
        for (std::size_t i = group * batch; i < std::min(texts.size(), (group + 1) * batch); ++i)
          mine.push_back({{"index", i},
                          {"text", texts[i].continuation},
                          {"finish", texts[i].finish},
                          {"tokens", texts[i].tokens.size() - texts[i].prompt_tokens}});
      } catch (...) {
        error = std::current_exception();
      }
    }
    model_.watchdog().pause();  // ranks have different work
    model_.group().agree([&] {
      if (error) std::rethrow_exception(error);
    });
    Json all(texts.size(), Json());
    std::size_t count = 0;
    for (const std::vector<std::byte>& theirs : model_.group().all_gather(packed(mine))) {
      for (const Json& text : unpacked(theirs)) {
        const auto i = text.at("index").get<std::size_t>();
        count += text.at("tokens").get<std::size_t>();
        all[i] = {{"prompt", texts[i].prompt},
                  {"text", text.at("text")},
                  {"tokens", text.at("tokens")},
                  {"finish", text.at("finish")}};
      }
    }
    const double seconds = since(begin_time);
    if (options_.json)
      return Json{{"checkpoint", model_.found().path},
                  {"step", model_.found().state.step},
                  {"texts", all},
                  {"ranks", world_.size()},
                  {"seconds", seconds},
                  {"tokens_per_second", static_cast<double>(count) / std::max(seconds, 1e-9)}}
                 .dump(2, ' ', false, Json::error_handler_t::replace) +
             "\n";
    if (streams) return "\n";
    std::string out;
    for (const Json& text : all)
      out += fmt::format("{}{}\n\n", text.at("prompt").get<std::string>(), text.at("text").get<std::string>());
    return out;
  }

  void generate_group(std::span<Text> texts, std::size_t first, bool streams) {
    std::vector<Tokens> prompts;
    for (const Text& text : texts) prompts.push_back(text.tokens);
    std::size_t written = 0;
    session_->run(prompts, [&](std::size_t i, std::span<const float> logits) -> std::optional<io::TokenId> {
      Text& text = texts[i];
      // A vocabulary may be larger than the tokenizer's: no text has those ids.
      const auto known = std::min<std::size_t>(logits.size(), tokenizer_->vocabulary());
      const io::TokenId token = sampler_.choose(logits.first(known), text.tokens, first_ + first + i);
      if (token == tokenizer_->end_of_text()) {
        text.finish = "end_of_text";
        return std::nullopt;
      }
      text.tokens.push_back(token);
      text.continuation = tokenizer_->decode(std::span(text.tokens).subspan(text.prompt_tokens));
      const bool stopped = cut_at_stop(text);
      const bool ends =
          stopped || static_cast<std::int64_t>(text.tokens.size() - text.prompt_tokens) >= options_.tokens;
      if (streams) {
        const std::size_t whole = ends ? text.continuation.size() : settled(text.continuation);
        if (whole > written) write(std::string_view(text.continuation).substr(written, whole - written));
        written = std::max(written, whole);
      }
      return ends ? std::nullopt : std::optional(token);
    });
  }

  bool cut_at_stop(Text& text) const {
    for (const std::string& stop : options_.stop) {
      const std::size_t at = text.continuation.find(stop);
      if (at == std::string::npos) continue;
      text.continuation.resize(at);
      text.finish = "stop";
      return true;
    }
    return false;
  }

  /// Bytes that what comes will not change: no part of a character, nor of what stops the text.
  std::size_t settled(std::string_view text) const {
    std::size_t size = whole_characters(text);
    for (const std::string& stop : options_.stop)
      for (std::size_t n = std::min(stop.size(), size); n > 0; --n)
        if (text.substr(0, size).ends_with(std::string_view(stop).substr(0, n))) {
          size -= n;
          break;
        }
    return size;
  }

  static void write(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  const GenerateOptions& options_;
  comm::World& world_;
  TrainedModel model_;
  Sampler sampler_;
  std::unique_ptr<io::Tokenizer> tokenizer_;
  std::int64_t context_ = 0, capacity_ = 0;
  bool waits_for_more_ = false;
  std::uint64_t first_ = 0;  // number of the first prompt of these
  std::optional<TextSession> session_;
};

}  // namespace

std::string generate(const LoadedConfig& input, comm::World& world, const GenerateOptions& options) {
  return Generator(input, world, options).run();
}

}  // namespace dtrain::launch
