#include "launch/train/judge.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <variant>

#include "runtime/ops/loss_rows.hpp"
#include "runtime/tensor/bf16.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

/// Calls f with a function that gives element i of `values`, in whichever type they are.
template <class F>
void with_floats(DType type, const void* values, const F& f) {
  if (type == DType::f32) f([x = static_cast<const float*>(values)](std::int64_t i) { return x[i]; });
  if (type == DType::bf16) f([x = static_cast<const Bf16*>(values)](std::int64_t i) { return to_float(x[i]); });
  if (type == DType::f16) f([x = static_cast<const F16*>(values)](std::int64_t i) { return to_float(x[i]); });
}

/// What a loss compares: where samples are mixed, before it is repeated for two labels (models::StoredPorts::mixed).
ValueId compared_by(const Graph& graph, const GraphNode& loss) {
  const auto before = [&graph](ValueId value) {
    const NodeId node = graph.values()[static_cast<std::size_t>(value)].producer;
    return node < 0 ? nullptr : &graph.nodes()[static_cast<std::size_t>(node)];
  };
  const GraphNode* const pair = before(loss.in[0]);
  if (pair == nullptr || !std::holds_alternative<Upsample>(pair->op)) return loss.in[0];
  const GraphNode* const row = before(pair->in[0]);
  const auto* flatten = row == nullptr ? nullptr : std::get_if<Flatten>(&row->op);
  return flatten != nullptr && flatten->to_series ? row->in[0] : loss.in[0];
}

/// Calls f with each T that the ranks have, and its place with its rank: rank 0's first.
template <class T, class F>
void for_all(Group& group, const std::vector<T>& own, const F& f) {
  for (const std::vector<std::byte>& bytes : group.all_gather(std::as_bytes(std::span(own)))) {
    for (std::size_t i = 0; (i + 1) * sizeof(T) <= bytes.size(); ++i) {
      T value;
      std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
      f(i, value);
    }
  }
}

}  // namespace

Judge::Judge(Engine& engine, std::size_t behind, JudgeScope scope, std::span<const io::Description> names,
             std::span<const io::PortOptions> ports)
    : engine_(engine), depth_(behind), slots_(behind) {
  const Graph& graph = engine.plan().graph;
  const auto input_of = [&](ValueId value) {
    const auto& inputs = graph.inputs();
    const auto at = std::find_if(inputs.begin(), inputs.end(), [&](const GraphInput& i) { return i.value == value; });
    return static_cast<std::size_t>(at - inputs.begin());
  };
  for (const GraphLoss& loss : graph.losses()) {
    const GraphNode& node = graph.nodes()[static_cast<std::size_t>(loss.node)];
    const auto* entropy = std::get_if<SoftmaxCrossEntropy>(&node.op);
    if (entropy == nullptr && !std::holds_alternative<MeanSquaredError>(node.op)) continue;
    const ValueId value = compared_by(graph, node);
    const auto& outputs = graph.outputs();
    const auto output = std::find_if(outputs.begin(), outputs.end(), [&](const auto& o) { return o.value == value; });
    const TensorDesc& desc = graph.desc(value);
    Watched w{.loss = loss.name,
              .output = static_cast<std::size_t>(output - outputs.begin()),
              .target = input_of(node.in[1]),
              .weight = input_of(node.in[2]),
              .rows = desc.rows(),
              .width = desc.channels(),
              .labels = graph.desc(node.in[0]).rows() / desc.rows(),
              .classes = entropy != nullptr};
    if (output == outputs.end() || std::max(w.target, w.weight) >= graph.inputs().size()) continue;
    if (scope == JudgeScope::samples && w.rows != graph.batch()) continue;
    if (entropy != nullptr && (w.width < 2 || static_cast<std::size_t>(w.width) > most_classes)) continue;
    if (entropy != nullptr) {
      w.ignored = entropy->ignore;
      const io::Description* of = find_description(names, PortUse::target, graph.inputs()[w.target].name);
      if (of != nullptr && of->classes && of->names.size() <= static_cast<std::size_t>(w.width)) w.names = of->names;
    } else if (static_cast<std::size_t>(w.width) <= most_columns) {
      w.columns = static_cast<std::size_t>(w.width);
    }
    if (entropy == nullptr && w.target < ports.size()) w.target_units = ports[w.target].normalize;
    watched_.push_back(std::move(w));
  }
  const Program& program = engine.program();
  for (std::size_t i = 0; i < depth_ && !watched_.empty(); ++i) {
    for (int slot = 0; slot < Program::slots; ++slot) {
      for (const Watched& w : watched_) {
        const auto image = [&](const Tensor& t) { return HostMirror(engine.device(), t.data, t.bytes()); };
        const auto& inputs = program.slot(slot).inputs;
        images_.push_back({image(program.output(slot, w.output)), image(inputs[w.target]), image(inputs[w.weight])});
      }
    }
  }
}

void Judge::begin(std::int64_t batches, std::uint64_t samples) {
  for (Watched& w : watched_) {
    if (w.classes) {
      w.counts.assign(static_cast<std::size_t>(w.width * w.width), 0);
      w.scored = w.width == 2 && w.rows == engine_.plan().graph.batch() && samples <= most_scores;
      w.scores.clear();
    } else {
      w.errors.assign(static_cast<std::size_t>(batches) * w.columns, {});
    }
  }
}

void Judge::pull(std::int64_t batch, int slot, Stream& stream) {
  slots_[static_cast<std::size_t>(batch) % depth_] = slot;
  for (std::size_t k = 0; k < watched_.size(); ++k) {
    const Images& i = images(k, batch, slot);
    for (const HostMirror* image : {&i.output, &i.target, &i.weight}) image->pull(stream);
  }
}

void Judge::count(std::int64_t batch) {
  for (std::size_t k = 0; k < watched_.size(); ++k) {
    const Images& i = images(k, batch, slots_[static_cast<std::size_t>(batch) % depth_]);
    if (watched_[k].classes) {
      count_classes(watched_[k], i);
    } else {
      sum_errors(watched_[k], i, batch);
    }
  }
}

void Judge::count_classes(Watched& w, const Images& images) {
  const Graph& graph = engine_.plan().graph;
  const GraphInput& target = graph.inputs()[w.target];
  const RowLabels labels{images.target.as<const std::byte>(), graph.desc(target.value).dtype, w.ignored.has_value(),
                         w.ignored.value_or(0)};
  const auto weights = static_cast<std::int64_t>(images.weight.bytes() / sizeof(float));
  with_floats(graph.desc(graph.outputs()[w.output].value).dtype, images.output.as<const std::byte>(), [&](auto value) {
    for (std::int64_t row = 0; row < w.rows; ++row) {
      const std::int64_t label = labels.of(row * w.labels);
      if (images.weight.as<float>()[row * w.labels / (w.rows * w.labels / weights)] == 0 || labels.ignored_of(label))
        continue;
      if (label < 0 || label >= w.width) continue;  // the loss is not a number then
      std::int64_t best = 0;
      for (std::int64_t c = 1; c < w.width; ++c)
        if (value(row * w.width + c) > value(row * w.width + best)) best = c;
      ++w.counts[static_cast<std::size_t>(label * w.width + best)];
      if (w.scored)
        w.scores.push_back({static_cast<double>(value(row * 2 + 1)) - static_cast<double>(value(row * 2)), label == 1});
    }
  });
}

void Judge::sum_errors(Watched& w, const Images& images, std::int64_t batch) {
  const Graph& graph = engine_.plan().graph;
  const auto weights = static_cast<std::int64_t>(images.weight.bytes() / sizeof(float));
  ErrorSums* const sums = &w.errors[static_cast<std::size_t>(batch) * w.columns];
  with_floats(graph.desc(graph.outputs()[w.output].value).dtype, images.output.as<const std::byte>(), [&](auto value) {
    for (std::int64_t row = 0; row < w.rows; ++row) {
      if (images.weight.as<float>()[row / (w.rows / weights)] == 0) continue;
      for (std::int64_t c = 0; c < w.width; ++c) {
        const std::int64_t i = row * w.width + c;
        const auto units = [&](float v) {
          return w.target_units.restored(static_cast<double>(v), static_cast<std::size_t>(c));
        };
        sums[w.columns == 1 ? 0 : c].add(units(value(i)), units(images.target.as<float>()[i]));
      }
    }
  });
}

Judgement Judge::judgement(Group& group) {
  Judgement out;
  for (const Watched& w : watched_) {
    if (w.classes) {
      ClassCounts counts{.loss = w.loss, .names = w.names, .classes = static_cast<std::size_t>(w.width)};
      counts.counts.assign(w.counts.size(), 0);
      for_all(group, w.counts, [&](std::size_t i, std::uint64_t count) { counts.counts[i] += count; });
      if (w.scored) {
        std::vector<Scored> all;
        for_all(group, w.scores, [&](std::size_t, const Scored& score) { all.push_back(score); });
        counts.auc = area_under_roc(all);
      }
      out.classes.push_back(std::move(counts));
      continue;
    }
    std::vector<ErrorSums> total(w.columns);  // in the order of the set, batch by batch
    for_all(group, w.errors, [&](std::size_t i, const ErrorSums& batch) { total[i % w.columns].add(batch); });
    auto errors = errors_of(w.loss, total);
    if (!errors) continue;
    if (w.columns == 1 && w.width > 1) errors->r2.reset();
    out.errors.push_back(std::move(*errors));
  }
  return out;
}

}  // namespace dtrain::launch
