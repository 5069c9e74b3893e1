// TextSession: texts of a language model that go on together, with what attention keeps of them between passes.
// Owns a program for prompts beside the engine's for one token, which share parameters and caches; used on the thread
// that generates.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/text/tokenizer.hpp"
#include "launch/infer/trained_model.hpp"
#include "runtime/device/host_mirror.hpp"
#include "runtime/program/step_memory.hpp"

namespace dtrain::launch {

class TextSession {
 public:
  /// Tokens of prompts that are read at once.
  static constexpr std::int64_t prompt_tokens = 32;

  /// Sets the model up for `batch` texts of at most `capacity` tokens.
  TextSession(TrainedModel&, std::int64_t batch, std::int64_t capacity);

  /// What the next token of a text is, from its logits. `index`: of the text; nothing: the text has ended.
  using Next = std::function<std::optional<io::TokenId>(std::size_t index, std::span<const float> logits)>;
  /// Continues at most `batch` texts, none of them empty, until next() ends them or they are full.
  void run(std::span<const std::vector<io::TokenId>> prompts, const Next& next);

 private:
  struct Pass {
    Program* program;
    std::int64_t positions;
    HostMirror tokens, lengths, logits;
  };
  Pass pass_of(Program&, std::int64_t positions);
  std::span<const float> run_pass(Pass&);
  static void put_token(const Pass&, std::int64_t sequence, std::int64_t position, io::TokenId);

  TrainedModel& model_;
  std::int64_t batch_, capacity_;
  std::unique_ptr<Program> prompt_program_;
  std::vector<Pass> passes_;  // of prompts, then of one token
  StepMemory memory_;
};

}  // namespace dtrain::launch
