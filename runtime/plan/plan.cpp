#include "runtime/plan/plan.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "runtime/plan/graph_analysis.hpp"

namespace dtrain {

namespace {

constexpr std::size_t memory_alignment = 64;

std::size_t aligned(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}

/// Flat order: as backward completes gradients. A parameter is complete after its first reader in forward order. Frozen
/// parameters come last.
FlatLayout make_layout(const Graph& graph, const BucketOptions& options) {
  FlatLayout layout;
  std::vector<NodeId> completed_by(graph.params().size(), -1);
  for (NodeId n = static_cast<NodeId>(graph.nodes().size()) - 1; n >= 0; --n)
    for (ParamId p : graph.nodes()[idx(n)].params) completed_by[idx(p)] = n;
  std::vector<ParamId> order(graph.params().size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](ParamId a, ParamId b) { return completed_by[idx(a)] > completed_by[idx(b)]; });
  std::size_t offset = 0;
  const auto place = [&](bool frozen) {
    for (ParamId id : order) {
      const GraphParam& p = graph.params()[idx(id)];
      if (p.update.frozen != frozen) continue;
      const auto size = static_cast<std::size_t>(p.shape.elements());
      layout.params.push_back({id, p.name, p.shape, offset, size, p.decay, p.update, p.matrices});
      offset = aligned(offset + size, FlatLayout::alignment);
    }
  };
  place(false);
  // Equal shards of buckets, and no block of a norm in two of them; or whole parameters.
  const bool equal = options.shards > 1 && !options.whole;
  layout.param_floats = offset = aligned(offset, equal ? norm_block * static_cast<std::size_t>(options.shards) : 1);
  if (options.shards > 1 && options.whole)
    layout.whole_shards = cut_whole_shards(layout.params, layout.param_floats, options.shards);
  for (StateId id = 0; id < static_cast<StateId>(graph.states().size()); ++id) {
    const GraphState& s = graph.states()[idx(id)];
    const auto size = static_cast<std::size_t>(s.shape.elements());
    layout.states.push_back({id, s.name, s.shape, offset, size, s.initial, s.momentum, s.kept});
    offset = aligned(offset + size, FlatLayout::alignment);
  }
  layout.state_floats = offset - layout.param_floats;
  layout.losses = graph.losses().size();
  layout.extras =
      FlatLayout::extras_for(layout.losses, static_cast<std::size_t>(std::popcount(graph.loss_rule().counted)));
  offset = layout.total_floats();
  place(true);
  layout.frozen_floats = offset - layout.total_floats();
  layout.buckets = cut_buckets(layout.total_floats(), options, layout.state_floats + layout.extras);
  return layout;
}

/// With a layout those of training, else those of evaluation.
std::vector<Step> forward_steps(const Analysis& a, const FlatLayout* layout) {
  std::vector<Step> steps;
  std::vector<bool> needed(layout ? layout->buckets.size() : 0, false);
  for (NodeId n = 0; n < static_cast<NodeId>(a.graph.nodes().size()); ++n) {
    const GraphNode& node = a.graph.nodes()[idx(n)];
    if (layout) {
      for (ParamId id : node.params) {
        const FlatParam& p = layout->of(id);
        for (std::size_t b = 0; b < needed.size(); ++b) {
          const Bucket& bucket = layout->buckets[b];
          if (needed[b] || p.offset >= bucket.end || p.offset + p.size <= bucket.begin) continue;
          needed[b] = true;
          steps.push_back(ParamsNeeded{static_cast<int>(b)});
        }
      }
    }
    if (!layout && node.shape.training_only) continue;
    if (node.shape.summed_over_ranks) steps.push_back(CrossRankSum{a.root[idx(node.out[0])], false});
    const bool later = layout && node.shape.loss_in_backward && a.has_backward(node);
    if (!is_view(node) && !later) steps.push_back(Forward{n});
  }
  return steps;
}

void append_backward_steps(const Analysis& a, const FlatLayout& layout, std::vector<Step>& steps) {
  std::vector<int> readers(a.graph.params().size(), 0);
  for (const auto& node : a.graph.nodes())
    if (a.reaches(node))
      for (ParamId p : node.params) ++readers[idx(p)];
  const std::span<const FlatParam> trained = layout.trained();
  std::size_t next_param = 0, next_bucket = 0;
  for (NodeId n = static_cast<NodeId>(a.graph.nodes().size()) - 1; n >= 0; --n) {
    const GraphNode& node = a.graph.nodes()[idx(n)];
    if (node.shape.summed_over_ranks && a.any_input_gradient(node))
      steps.push_back(CrossRankSum{a.root[idx(node.out[0])], true});
    if (!a.has_backward(node)) continue;
    const bool of_params = a.trains_parameters(node), of_inputs = a.any_input_gradient(node);
    if (node.shape.epilogue) steps.push_back(BackwardActivation{n});
    const bool at_once = node.shape.backward_at_once;
    // Parameters first: a bucket that is ready travels while the data gradient is computed.
    if (at_once) {
      steps.push_back(Backward{n});
    } else if (of_params) {
      steps.push_back(BackwardParams{n});
    }
    if (of_params) {
      for (ParamId p : node.params) --readers[idx(p)];
      while (next_param < trained.size() && readers[idx(trained[next_param].id)] == 0) ++next_param;
      const std::size_t complete = next_param == trained.size() ? layout.total_floats() : trained[next_param].offset;
      for (; next_bucket < layout.buckets.size() && layout.buckets[next_bucket].end <= complete; ++next_bucket)
        steps.push_back(BucketReady{static_cast<int>(next_bucket)});
    }
    if (!at_once && of_inputs) steps.push_back(BackwardData{n});
  }
  if (next_bucket != layout.buckets.size()) throw BugError("the plan does not complete every bucket");
}

/// First and last step of each node's forward and backward parts; -1 where there is none.
struct Times {
  std::vector<int> forward, recompute, backward_first, backward_last, backward_data;
  Times(const Graph& graph, const std::vector<Step>& steps)
      : forward(graph.nodes().size(), -1),
        recompute(forward),
        backward_first(forward),
        backward_last(forward),
        backward_data(forward) {
    for (int t = 0; t < static_cast<int>(steps.size()); ++t) {
      const auto backward = [&](NodeId n) {
        if (backward_first[idx(n)] < 0) backward_first[idx(n)] = t;
        backward_last[idx(n)] = t;
      };
      const Step& step = steps[idx(t)];
      if (const auto* f = std::get_if<Forward>(&step)) forward[idx(f->node)] = t;
      if (const auto* r = std::get_if<Recompute>(&step)) recompute[idx(r->node)] = t;
      if (const NodeId n = backward_node(step); n >= 0) backward(n);
      if (const NodeId n = input_gradient_node(step); n >= 0) backward_data[idx(n)] = t;
    }
  }
};

/// Gives every tensor of a pass a block, then every block a place.
class PassPlanner {
 public:
  /// `outputs`: what outlives the pass.
  PassPlanner(const Analysis& a, std::vector<Step> steps, const NeedsOf& needs,
              std::span<const GraphOutput> outputs = {})
      : a_(a), graph_(a.graph), times_(a.graph, steps) {
    out_.steps = std::move(steps);
    out_.value.assign(graph_.values().size(), -1);
    out_.value_backward.assign(graph_.values().size(), -1);
    out_.gradient.assign(graph_.values().size(), -1);
    out_.saved.resize(graph_.nodes().size());
    out_.workspace.assign(out_.steps.size(), -1);
    out_.input_write.resize(graph_.nodes().size());
    out_.param_first.resize(graph_.nodes().size());
    for (const GraphOutput& output : outputs) kept_.push_back(a.root[idx(output.value)]);
    place_activations();
    place_gradients(needs);
    place_workspaces(needs);
    mark_parameter_contributions();
    out_.arena_bytes = pack_blocks(out_.blocks);
  }
  PassPlan take() { return std::move(out_); }

 private:
  int add_block(MemoryKind kind, std::string name, std::size_t bytes, int first, int last) {
    out_.blocks.push_back({kind, std::move(name), bytes, first, last, 0});
    return static_cast<int>(out_.blocks.size()) - 1;
  }

  /// The last step of forward, and of recomputation and backward, that reads the value's memory.
  struct LastRead {
    int forward, backward;
  };
  LastRead last_read(ValueId root, NodeId producer) const {
    const GraphNode& made = graph_.nodes()[idx(producer)];
    LastRead last{times_.forward[idx(producer)], -1};
    if (std::find(kept_.begin(), kept_.end(), root) != kept_.end()) last.forward = static_cast<int>(out_.steps.size());
    if (reads_own_output(made)) last.backward = times_.backward_last[idx(producer)];
    for (NodeId n : a_.consumers[idx(root)]) {
      const GraphNode& node = graph_.nodes()[idx(n)];
      last.forward = std::max(last.forward, times_.forward[idx(n)]);
      last.backward = std::max(last.backward, times_.recompute[idx(n)]);
      for (std::size_t i = 0; i < node.in.size(); ++i)
        if (a_.root[idx(node.in[i])] == root && (node.shape.backward_reads.in >> i & 1u))
          last.backward = std::max(last.backward, times_.backward_last[idx(n)]);
    }
    return last;
  }

  void place_activations() {
    for (NodeId n = 0; n < static_cast<NodeId>(graph_.nodes().size()); ++n) {
      const GraphNode& node = graph_.nodes()[idx(n)];
      if (is_view(node)) continue;
      const int now = times_.forward[idx(n)], again = times_.recompute[idx(n)];
      if (now < 0) continue;
      for (std::size_t o = 0; o < node.out.size() && !node.shape.loss; ++o) {
        const ValueId v = node.out[o];
        const LastRead last = last_read(v, n);
        const int end = again < 0 ? std::max(last.forward, last.backward) : last.forward;
        int block = overwritten_input(node, o, now);
        if (block >= 0) {
          out_.blocks[idx(block)].last = std::max(now, end);
        } else {
          block = add_block(MemoryKind::activation, graph_.values()[idx(v)].name, graph_.desc(v).bytes(), now, end);
        }
        out_.value[idx(v)] = out_.value_backward[idx(v)] = block;
        if (again >= 0) {
          out_.value_backward[idx(v)] = add_block(MemoryKind::activation, graph_.values()[idx(v)].name + " again",
                                                  graph_.desc(v).bytes(), again, std::max(again, last.backward));
        }
      }
      // Recomputation writes it again, even where nothing upstream is trained and backward never reads it.
      const int last = std::max({now, again, times_.backward_last[idx(n)]});
      for (const TensorDesc& s : node.shape.saved)
        out_.saved[idx(n)].push_back(add_block(MemoryKind::saved, node.name + " saved", s.bytes(), now, last));
    }
    for (ValueId v = 0; v < static_cast<ValueId>(graph_.values().size()); ++v) {
      out_.value[idx(v)] = out_.value[idx(a_.root[idx(v)])];
      out_.value_backward[idx(v)] = out_.value_backward[idx(a_.root[idx(v)])];
    }
  }

  /// The block of an input that output `o` may overwrite now; -1 where there is none.
  int overwritten_input(const GraphNode& node, std::size_t o, int now) const {
    for (const Alias& alias : node.shape.may_share) {
      if (alias.kind != Alias::Kind::out_over_in || alias.to != o) continue;
      const ValueId in = a_.root[idx(node.in[alias.from])];
      const int block = out_.value[idx(in)];
      if (block >= 0 && out_.blocks[idx(block)].last == now &&
          graph_.desc(in).bytes() == graph_.desc(node.out[o]).bytes())
        return block;
    }
    return -1;
  }

  void place_gradients(const NeedsOf& needs) {
    for (const Step& step : out_.steps) {
      const NodeId n = input_gradient_node(step);
      if (n < 0) continue;
      const bool apart = needs(n).gradients_apart;
      const GraphNode& node = graph_.nodes()[idx(n)];
      const int now = times_.backward_data[idx(n)];
      auto& writes = out_.input_write[idx(n)];
      writes.assign(node.in.size(), Write::none);
      for (std::size_t i = 0; i < node.in.size(); ++i) {
        if (!a_.input_gradient(node, i)) continue;
        const ValueId root = a_.root[idx(node.in[i])];
        int& block = out_.gradient[idx(root)];
        if (block >= 0) {
          writes[i] = Write::accumulate;
          continue;
        }
        writes[i] = Write::overwrite;
        const int last = times_.backward_last[idx(graph_.values()[idx(root)].producer)];
        for (const Alias& alias : node.shape.may_share) {
          if (apart || alias.kind != Alias::Kind::grad_over_grad || alias.from != i) continue;
          const ValueId out = a_.root[idx(node.out[alias.to])];
          const int over = out_.gradient[idx(out)];
          if (over >= 0 && out_.blocks[idx(over)].last == now && graph_.desc(out).bytes() == graph_.desc(root).bytes())
            block = over;
        }
        if (block >= 0) {
          out_.blocks[idx(block)].last = std::max(now, last);
        } else {
          block = add_block(MemoryKind::gradient, "gradient of " + graph_.values()[idx(root)].name,
                            graph_.desc(root).bytes(), now, last);
        }
      }
    }
    for (ValueId v = 0; v < static_cast<ValueId>(graph_.values().size()); ++v)
      out_.gradient[idx(v)] = out_.gradient[idx(a_.root[idx(v)])];
  }

  void place_workspaces(const NeedsOf& needs) {
    for (int t = 0; t < static_cast<int>(out_.steps.size()); ++t) {
      const Step& step = out_.steps[idx(t)];
      NodeId n = backward_node(step);
      if (const auto* f = std::get_if<Forward>(&step)) n = f->node;
      if (const auto* r = std::get_if<Recompute>(&step)) n = r->node;
      if (n < 0) continue;
      const std::size_t bytes = needs(n).workspace;
      if (bytes > 0)
        out_.workspace[idx(t)] =
            add_block(MemoryKind::workspace, graph_.nodes()[idx(n)].name + " workspace", bytes, t, t);
    }
  }

  void mark_parameter_contributions() {
    std::vector<bool> seen(graph_.params().size(), false);
    for (const Step& step : out_.steps) {
      const NodeId n = params_gradient_node(step);
      if (n < 0) continue;
      for (ParamId id : graph_.nodes()[idx(n)].params) {
        out_.param_first[idx(n)].push_back(!seen[idx(id)]);
        seen[idx(id)] = true;
      }
    }
  }

  const Analysis& a_;
  const Graph& graph_;
  Times times_;
  std::vector<ValueId> kept_;  // roots
  PassPlan out_;
};

}  // namespace

std::size_t pack_blocks(std::vector<Block>& blocks) {
  std::vector<std::size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t x, std::size_t y) { return blocks[x].bytes > blocks[y].bytes; });
  std::vector<std::size_t> placed;  // by offset
  std::size_t end = 0;
  for (std::size_t i : order) {
    Block& block = blocks[i];
    const std::size_t bytes = aligned(block.bytes, memory_alignment);
    std::size_t offset = 0;
    for (std::size_t j : placed) {  // the lowest gap that is wide enough among those alive together
      const Block& other = blocks[j];
      if (other.last < block.first || block.last < other.first) continue;
      if (offset + bytes <= other.offset) break;
      offset = std::max(offset, other.offset + aligned(other.bytes, memory_alignment));
    }
    block.offset = offset;
    end = std::max(end, offset + bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i,
                                   [&](std::size_t x, std::size_t y) { return blocks[x].offset < blocks[y].offset; }),
                  i);
  }
  return end;
}

Needs estimated_needs(const GraphNode& node, const OpUse& use) {
  const Bounds& bounds = node.shape.bounds;
  std::size_t params = 0;
  for (const auto& p : node.shape.params) params += aligned(p.desc.bytes(), memory_alignment);
  Needs needs;
  needs.packed = 4 * params;  // forward and data-gradient copies, channels padded to a vector at most twofold
  needs.workspace = bounds.workspace;
  if (use.input_gradient_added) needs.workspace = std::max(needs.workspace, bounds.workspace_if_added);
  needs.gradients_apart = bounds.gradients_apart;
  return needs;
}

Plan make_plan(Graph graph, const PlanOptions& options) {
  Plan plan;
  plan.graph = std::move(graph);
  const Graph& g = plan.graph;
  const Analysis analysis(g, options.train);
  plan.root = analysis.root;
  plan.layout = make_layout(g, options.buckets);
  std::vector<Needs> needs(g.nodes().size());
  for (NodeId n = 0; n < static_cast<NodeId>(needs.size()); ++n)
    needs[idx(n)] = options.needs ? options.needs(n) : estimated_needs(g.nodes()[idx(n)], analysis.use_of(n));
  const NeedsOf needs_of = [&](NodeId n) { return needs[idx(n)]; };

  if (options.train) {
    const Recomputation recomputation(analysis, options.recompute);
    std::vector<Step> backward;
    append_backward_steps(analysis, plan.layout, backward);
    backward = recomputation.insert_into(backward);
    std::vector<Step> train = forward_steps(analysis, &plan.layout);
    train.insert(train.end(), backward.begin(), backward.end());
    plan.train = PassPlanner(analysis, std::move(train), needs_of).take();
  }
  plan.evaluate = PassPlanner(analysis, forward_steps(analysis, nullptr), needs_of, g.outputs()).take();

  const auto samples = static_cast<double>(g.batch());
  for (NodeId n = 0; n < static_cast<NodeId>(needs.size()); ++n) {
    const GraphNode& node = g.nodes()[idx(n)];
    plan.packed_offset.push_back(plan.packed_bytes);
    plan.packed_bytes += aligned(needs[idx(n)].packed, memory_alignment);
    const double flops = node.shape.flops / samples;
    plan.flops_per_sample += flops;
    plan.model_flops_per_sample +=
        flops * (1 + (analysis.trains_parameters(node) ? 1 : 0) + (analysis.any_input_gradient(node) ? 1 : 0));
  }
  plan.train_flops_per_sample = plan.model_flops_per_sample;
  for (const Step& step : plan.train.steps)
    if (const auto* r = std::get_if<Recompute>(&step))
      plan.train_flops_per_sample += g.nodes()[idx(r->node)].shape.flops / samples;
  return plan;
}

MemoryUse memory_use(const Plan& plan, int optimizer_floats, int shards) {
  MemoryUse use;
  use.parameters = plan.layout.all_floats() * sizeof(float);
  use.gradients = plan.layout.total_floats() * sizeof(float);
  use.optimizer =
      most_optimizer_state_floats(plan.layout, shards) * sizeof(float) * static_cast<std::size_t>(optimizer_floats);
  use.packed = plan.packed_bytes;
  use.arena = plan.arena_bytes();
  const auto batch = static_cast<std::size_t>(plan.graph.batch());
  for (const auto& value : plan.graph.values())
    if (value.producer < 0) use.inputs += 2 * value.desc.bytes();
  use.inputs += 2 * batch * sizeof(std::uint64_t);  // stream positions
  return use;
}

}  // namespace dtrain
