#include "launch/infer/text_session.hpp"

#include <algorithm>
#include <optional>

namespace dtrain::launch {

namespace {

Engine& set_up(TrainedModel& model, std::int64_t batch, std::int64_t capacity) {
  model.set_up_graph([&] {
    const RunConfig& config = model.config();
    return models::build_generation(config.model, batch, config.precision, {1, capacity});
  });
  return model.engine();
}

}  // namespace

TextSession::TextSession(TrainedModel& model, std::int64_t batch, std::int64_t capacity)
    : model_(model), batch_(batch), capacity_(capacity), memory_(set_up(model, batch, capacity).device()) {
  const RunConfig& config = model.config();
  Engine& engine = model.engine();
  model.group().agree([&] {
    PlanOptions options;
    options.train = false;
    prompt_program_ = std::make_unique<Program>(
        engine.device(), models::build_generation(config.model, batch, config.precision, {prompt_tokens, capacity}),
        options);
  });
  prompt_program_->pack(engine.store(), engine.compute());
  memory_.reset({}, engine.compute());
  passes_.push_back(pass_of(*prompt_program_, prompt_tokens));
  passes_.push_back(pass_of(engine.program(), 1));
}

TextSession::Pass TextSession::pass_of(Program& program, std::int64_t positions) {
  Device& device = model_.engine().device();
  const auto mirror = [&](const Tensor& of) { return HostMirror(device, of.data, of.bytes()); };
  return {&program, positions,
          mirror(program.slot(0).inputs[models::first_input(models::inputs_of(model_.config().model))]),
          mirror(program.input(0, models::Generation::lengths)), mirror(program.output(0, 0))};
}

void TextSession::put_token(const Pass& pass, std::int64_t sequence, std::int64_t position, io::TokenId token) {
  pass.tokens.as<std::int32_t>()[sequence * pass.positions + position] = static_cast<std::int32_t>(token);
}

std::span<const float> TextSession::run_pass(Pass& pass) {
  Engine& engine = model_.engine();
  NoHooks hooks;
  pass.tokens.push(engine.compute());
  pass.lengths.push(engine.compute());
  pass.program->run({Mode::evaluate, true, true}, 0, engine.store(), memory_.state(), hooks, engine.compute());
  pass.logits.pull(engine.compute());
  engine.compute().synchronize();
  return {pass.logits.as<const float>(), pass.logits.bytes() / sizeof(float)};
}

void TextSession::run(std::span<const std::vector<io::TokenId>> prompts, const Next& next) {
  const auto count = static_cast<std::int64_t>(prompts.size());
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch_));  // tokens in the cache
  std::vector<std::optional<io::TokenId>> last(static_cast<std::size_t>(batch_));
  const auto ask = [&](std::int64_t i, std::span<const float> logits, std::int64_t row) {
    const auto classes = static_cast<std::int64_t>(model_.engine().program().output(0, 0).desc.channels());
    const auto at = static_cast<std::size_t>(row * classes);
    last[static_cast<std::size_t>(i)] =
        next(static_cast<std::size_t>(i), logits.subspan(at, static_cast<std::size_t>(classes)));
  };

  std::size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  Pass& whole = passes_[0];
  for (std::int64_t first = 0; first < static_cast<std::int64_t>(longest); first += prompt_tokens) {
    std::vector<std::int64_t> taken(static_cast<std::size_t>(batch_));
    for (std::int64_t i = 0; i < batch_; ++i) {
      const auto length = i < count ? static_cast<std::int64_t>(prompts[static_cast<std::size_t>(i)].size()) : 0;
      taken[static_cast<std::size_t>(i)] = std::clamp<std::int64_t>(length - first, 0, prompt_tokens);
      // What follows the prompt's end writes behind it, where its next tokens will be.
      whole.lengths.as<std::int32_t>()[i] = static_cast<std::int32_t>(std::min(first, length));
      for (std::int64_t p = 0; p < prompt_tokens; ++p)
        put_token(whole, i, p,
                  p < taken[static_cast<std::size_t>(i)]
                      ? prompts[static_cast<std::size_t>(i)][static_cast<std::size_t>(first + p)]
                      : 0);
    }
    const std::span<const float> logits = run_pass(whole);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t more = taken[static_cast<std::size_t>(i)];
      lengths[static_cast<std::size_t>(i)] += more;
      if (more > 0 && lengths[static_cast<std::size_t>(i)] ==
                          static_cast<std::int64_t>(prompts[static_cast<std::size_t>(i)].size()))
        ask(i, logits, i * prompt_tokens + more - 1);
    }
    model_.watchdog().beat("generation", static_cast<std::uint64_t>(first), comm::Deadline::first_step);
  }

  Pass& one = passes_[1];
  const auto goes_on = [&](std::size_t i) { return last[i].has_value() && lengths[i] < capacity_; };
  for (std::uint64_t step = 0;; ++step) {
    bool any = false;
    for (std::size_t i = 0; i < last.size(); ++i) {
      any |= goes_on(i);
      put_token(one, static_cast<std::int64_t>(i), 0, last[i].value_or(0));
      one.lengths.as<std::int32_t>()[i] = static_cast<std::int32_t>(lengths[i]);
    }
    if (!any) return;
    const std::span<const float> logits = run_pass(one);
    for (std::size_t i = 0; i < last.size(); ++i) {
      if (!goes_on(i)) continue;
      ++lengths[i];
      ask(static_cast<std::int64_t>(i), logits, static_cast<std::int64_t>(i));
    }
    model_.watchdog().beat("generation", step, step == 0 ? comm::Deadline::first_step : comm::Deadline::step);
  }
}

}  // namespace dtrain::launch
