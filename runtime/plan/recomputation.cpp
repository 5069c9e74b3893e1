// Which values backward computes again: cheap ones, or all of a block between values that alone connect two parts of
// the graph.
#include <algorithm>

#include "runtime/plan/graph_analysis.hpp"

namespace dtrain {

Recomputation::Recomputation(const Analysis& analysis, RecomputePolicy policy)
    : a_(analysis), again_(analysis.graph.nodes().size(), false) {
  if (policy == RecomputePolicy::light) choose_cheap();
  if (policy == RecomputePolicy::block) choose_blocks();
}

std::vector<Step> Recomputation::insert_into(const std::vector<Step>& backward) const {
  std::vector<Step> steps;
  std::vector<bool> done(again_.size(), false);
  for (const Step& step : backward) {
    const NodeId n = backward_node(step);
    if (n >= 0) {
      const GraphNode& node = a_.graph.nodes()[idx(n)];
      for (std::size_t i = 0; i < node.in.size(); ++i)
        if (node.shape.backward_reads.in >> i & 1u) ensure(node.in[i], done, steps);
      if (reads_own_output(node)) ensure(node.out[0], done, steps);
    }
    steps.push_back(step);
  }
  return steps;
}

/// Makes the value again, and first what it is made of, unless it is kept.
void Recomputation::ensure(ValueId v, std::vector<bool>& done, std::vector<Step>& steps) const {
  const NodeId n = a_.graph.values()[idx(a_.root[idx(v)])].producer;
  if (!again(n) || done[idx(n)]) return;
  for (ValueId in : a_.graph.nodes()[idx(n)].in) ensure(in, done, steps);
  steps.push_back(Recompute{n});
  done[idx(n)] = true;
}

/// An add would need the sums of all blocks before it.
void Recomputation::choose_cheap() {
  for (std::size_t n = 0; n < again_.size(); ++n) again_[n] = a_.graph.nodes()[n].shape.cheap;
}

/// Places after which one value alone is read by what follows, with the bytes made up to there.
struct Recomputation::Cut {
  NodeId after;
  ValueId value;
  std::size_t made;
};
std::vector<Recomputation::Cut> Recomputation::cuts() const {
  const auto nodes = static_cast<NodeId>(again_.size());
  std::vector<NodeId> last_reader(a_.root.size(), -1);
  for (NodeId n = 0; n < nodes; ++n)
    for (ValueId v : a_.graph.nodes()[idx(n)].in) last_reader[idx(a_.root[idx(v)])] = n;
  std::vector<Cut> found;
  std::vector<ValueId> open;  // root values that are read later
  std::size_t made = 0;
  for (NodeId n = 0; n < nodes; ++n) {
    const GraphNode& node = a_.graph.nodes()[idx(n)];
    for (ValueId v : node.out) {
      if (a_.root[idx(v)] != v) continue;
      made += a_.graph.desc(v).bytes();
      open.push_back(v);
    }
    std::erase_if(open, [&](ValueId v) { return last_reader[idx(v)] <= n; });
    if (open.size() == 1 && !is_view(node)) found.push_back({n, open[0], made});
  }
  return found;
}

/// Segments of about equal size between cuts, so many that what is kept and the largest segment need least.
void Recomputation::choose_blocks() {
  const std::vector<Cut> all = cuts();
  if (all.empty()) return;
  std::vector<std::size_t> best;
  std::size_t least = all.back().made;
  for (std::size_t count = 1; count <= all.size(); ++count) {
    std::vector<std::size_t> chosen;
    std::size_t kept = 0, largest = 0, from = 0;
    for (std::size_t c = 0; c < all.size(); ++c) {
      if (all[c].made < all.back().made * (chosen.size() + 1) / (count + 1)) continue;
      chosen.push_back(c);
      kept += a_.graph.desc(all[c].value).bytes();
      largest = std::max(largest, all[c].made - from);
      from = all[c].made;
    }
    largest = std::max(largest, all.back().made - from);
    if (kept + largest < least) {
      least = kept + largest;
      best = chosen;
    }
  }
  if (best.empty()) return;
  // What follows the last cut is still there when backward begins.
  for (NodeId n = 0; n <= all[best.back()].after; ++n) {
    const GraphNode& node = a_.graph.nodes()[idx(n)];
    again_[idx(n)] = !is_view(node) && !node.shape.training_only && !node.shape.loss;
  }
  for (std::size_t c : best) again_[idx(a_.graph.values()[idx(all[c].value)].producer)] = false;
}

}  // namespace dtrain
