#include "runtime/ops/attention.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include "runtime/ops/attention_math.hpp"
#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

namespace {

std::int64_t kv_heads_of(const Attention& op) {
  return op.kv_heads > 0 ? op.kv_heads : op.heads;
}
bool has_documents(std::span<const TensorDesc> in) {
  return in.size() == 2 || in.size() == 4;
}

void expect_settings(const Attention& op) {
  if (op.heads < 1 || op.kv_heads < 0 || op.heads % kv_heads_of(op) != 0) {
    throw ShapeError(fmt::format("{} heads and {} kv_heads; expected at least one head, and kv_heads that divide heads",
                                 op.heads, kv_heads_of(op)));
  }
  if (op.window < 0) throw ShapeError(fmt::format("a window of {}; expected at least 1, or 0 for none", op.window));
  if (!(op.dropout >= 0 && op.dropout < 1))
    throw ShapeError(fmt::format("a dropout of {}; expected 0 <= dropout < 1", op.dropout));
  if (!(op.scale >= 0)) throw ShapeError(fmt::format("a scale of {}; expected more than 0", op.scale));
  if (op.rotary && !(op.rotary->theta > 1))
    throw ShapeError(fmt::format("rotary: a theta of {}; expected more than 1", op.rotary->theta));
  if (!op.rotary || !op.rotary->scaling) return;
  const Rotary::Scaling& s = *op.rotary->scaling;
  if (!(s.factor >= 1) || !(s.low_frequency_factor > 0) || !(s.high_frequency_factor > s.low_frequency_factor) ||
      s.original_context < 1) {
    throw ShapeError(
        fmt::format("rotary: a scaling of factor {}, low_frequency_factor {}, high_frequency_factor {}, "
                    "original_context {}; expected a factor of at least 1, 0 < low < high, and a context of "
                    "at least 1",
                    s.factor, s.low_frequency_factor, s.high_frequency_factor, s.original_context));
  }
}

/// Channels of heads of one size.
std::int64_t size_of_heads(const TensorDesc& desc, std::int64_t heads, std::string_view what) {
  if (desc.channels() % heads != 0) {
    throw ShapeError(
        fmt::format("its {} of shape {} have {} channels, which are not {} heads of one size; expected a "
                    "multiple of {}",
                    what, desc.sample_str(), desc.channels(), heads, heads));
  }
  return desc.channels() / heads;
}

/// Positions that all positions see together.
double pairs(const VisibleRule& rule) {
  double sum = 0;
  for (std::int64_t i = 0; i < rule.positions; ++i) {
    const VisibleRange range = rule.of(nullptr, i);
    sum += range.end - range.begin;
  }
  return sum;
}

}  // namespace

std::vector<double> Rotary::frequencies(std::int64_t size) const {
  std::vector<double> all;
  for (std::int64_t c = 0; c < size / 2; ++c) {
    double frequency = std::pow(theta, -2.0 * static_cast<double>(c) / static_cast<double>(size));
    if (scaling) {
      // How often the wave fits into the context of the first training.
      const double waves = static_cast<double>(scaling->original_context) * frequency / (2 * std::numbers::pi);
      const double low = scaling->low_frequency_factor, high = scaling->high_frequency_factor;
      const double kept = std::clamp((waves - low) / (high - low), 0.0, 1.0);
      frequency = (1 - kept) * frequency / scaling->factor + kept * frequency;
    }
    all.push_back(frequency);
  }
  return all;
}

AttentionLayout::AttentionLayout(const Attention& op, std::span<const TensorDesc> in)
    : samples(in[0].batch()), positions(in[0].positions()), heads(op.heads), kv_heads(kv_heads_of(op)) {
  const std::int64_t channels = in[0].channels();
  if (in.size() < 3) {
    size = channels / (heads + 2 * kv_heads);
    parts = {{{0, 0, channels}, {0, heads * size, channels}, {0, (heads + kv_heads) * size, channels}}};
  } else {
    size = channels / heads;
    for (std::size_t i = 0; i < 3; ++i) parts[i] = {i, 0, in[i].channels()};
  }
  scale = op.scale > 0 ? static_cast<float>(op.scale) : 1.0f / std::sqrt(static_cast<float>(size));
  if (has_documents(in)) documents = static_cast<int>(in.size()) - 1;
}

OpShape Attention::infer(std::span<const TensorDesc> in) const {
  if (in.empty() || in.size() > 4)
    throw ShapeError(
        fmt::format("attention takes one to four inputs, not {}; expected from: [qkv] or [q, k, v], and "
                    "documents behind them if there are any",
                    in.size()));
  expect_settings(*this);
  const std::size_t values = in.size() - (has_documents(in) ? 1 : 0);
  for (const TensorDesc& value : in.first(values)) {
    expect_channels(value);
    expect_any_positions(value);
    if (value.elements() < 1)
      throw ShapeError(fmt::format("its input has shape {}, which is empty", value.shape.str()));
    if (value.dtype != in[0].dtype || without_channels(value) != without_channels(in[0]))
      throw ShapeError(fmt::format("its inputs have shapes {} and {}; expected the same positions", in[0].sample_str(),
                                   value.sample_str()));
  }
  const std::int64_t kv = kv_heads_of(*this);
  const bool fused = values == 1;
  const std::int64_t size =
      fused ? size_of_heads(in[0], heads + 2 * kv, "queries, keys and values") : size_of_heads(in[0], heads, "queries");
  for (std::size_t i = 1; i < values; ++i) {
    if (in[i].channels() != kv * size)
      throw ShapeError(fmt::format("its {} of shape {} have {} channels; expected {}: {} heads of the queries' size {}",
                                   i == 1 ? "keys" : "values", in[i].sample_str(), in[i].channels(), kv * size, kv,
                                   size));
  }
  if (size > largest_size)
    throw ShapeError(fmt::format("a head has {} channels; expected at most {}: more heads", size, largest_size));
  if (rotary && size % 2 != 0)
    throw ShapeError(fmt::format("rotary: a head has {} channels; expected an even number", size));
  if (has_documents(in)) expect_documents(in.back(), in[0]);

  const AttentionLayout layout(*this, in);
  const std::int64_t rows = in[0].rows();
  OpShape shape;
  shape.out = {with_channels(in[0], heads * size)};
  shape.saved = {f32(Shape{rows, heads})};
  shape.backward_reads = {(1u << in.size()) - 1, 1};
  shape.differentiable = fused ? 1 : 7;
  // A block's queries, and the gradient of what they gave, are read before the gradient of the queries is written.
  if (!fused) shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  const VisibleRule rule{layout.positions, causal, window};
  shape.flops = 4.0 * static_cast<double>(layout.samples * heads * size) * pairs(rule);
  const std::int64_t threads = std::min(layout.samples * kv, AttentionLayout::most_threads);
  const std::int64_t ranges_and_sums = rows * (2 + heads);
  shape.bounds.workspace = static_cast<std::size_t>(4 * (ranges_and_sums + threads * layout.thread_floats()) + 64);
  if (in[0].dtype != DType::f32) {
    // Queries and keys turned, gradients apart: see the CUDA device's kernel.
    const std::int64_t halves = rows * size * 2 * (heads + 2 * kv), turns = layout.positions * size;
    const auto beside = static_cast<std::size_t>(2 * halves + 4 * (turns + rows * heads) + 4096);
    shape.bounds.workspace = std::max(shape.bounds.workspace, layout.library_bytes() + beside);
  }
  return shape;
}

std::vector<OpKind<Attention>> Attention::kinds() {
  Table<Rotary::Scaling> scaling(
      "As Llama 3 stretches the waves for a context longer than that of the first training.");
  scaling.add("factor", &Rotary::Scaling::factor, number({.least = 1}), "by which long waves are stretched");
  scaling.add("low_frequency_factor", &Rotary::Scaling::low_frequency_factor, number({.least = 0, .above_least = true}),
              "waves that fit less often than this into the original context are stretched in full");
  scaling.add("high_frequency_factor", &Rotary::Scaling::high_frequency_factor,
              number({.least = 0, .above_least = true}), "those that fit more often than this stay");
  scaling.add("original_context", &Rotary::Scaling::original_context, at_least(1), "of the first training");
  Table<Rotary> rotary("Turns queries and keys by their positions, halves of a head together as in Llama.");
  rotary.add("theta", &Rotary::theta, number({.least = 1, .above_least = true}), "base of the frequencies");
  const auto optional = [](auto get, auto table, auto& to, std::string name, std::string help) {
    using Owner = std::remove_cvref_t<decltype(to.defaults())>;
    using Part = std::remove_cvref_t<decltype(*std::invoke(get, to.defaults()))>;
    to.template add<Part>(
          std::move(name), [get](const Owner& o) { return std::invoke(get, o).value_or(Part{}); },
          [get](Owner& o, Part part) { std::invoke(get, o) = part; }, shared(std::move(table)), std::move(help))
        .shown_if([get](const Owner& o) { return std::invoke(get, o).has_value(); });
  };
  optional(&Rotary::scaling, std::move(scaling), rotary, "scaling", "for a context longer than the original one");
  Table<Attention> table(
      "Softmax attention of several heads: [T, queries, keys and values side by side] to [T, channels], or "
      "from: [q, k, v]; documents may stand behind.");
  table.add("heads", &Attention::heads, at_least(1), "of the queries").required();
  table.add("kv_heads", &Attention::kv_heads, at_least(0), "of keys and values, each for as many query heads; 0: heads")
      .shown_if([](const Attention& op) { return op.kv_heads != 0; });
  table.add("causal", &Attention::causal, boolean(), "true: a position sees no later one").required();
  table.add("window", &Attention::window, at_least(0), "a position sees those less than this away; 0: all")
      .shown_if([](const Attention& op) { return op.window != 0; });
  optional(&Attention::rotary, std::move(rotary), table, "rotary", "positions of queries and keys; by default none");
  table.add("dropout", &Attention::dropout, fraction(), "fraction of the weights that is zeroed in training")
      .shown_if([](const Attention& op) { return op.dropout != 0; });
  table.add("scale", &Attention::scale, number({.least = 0}), "of the scores; 0: 1 / sqrt(channels of a head)")
      .shown_if([](const Attention& op) { return op.scale != 0; });
  return {{"attention", std::move(table)}};
}

}  // namespace dtrain
