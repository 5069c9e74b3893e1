// Batches of one input and one target, as a model of one input has them, in the words of its configuration.
// A ShortForm is plain settings; what it makes of a Dataset are the options of a Loader.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "io/dataset/loader.hpp"
#include "runtime/program/batch_layout.hpp"

namespace dtrain::io::testing {

struct ShortForm {
  Shape input;
  Normalize normalize;
  std::vector<Augmentation> augment;
  std::int64_t micro_batch = 1, global_batch = 1;
  BatchWarmup warmup;
  int rank = 0, ranks = 1;
  std::uint64_t seed = 1;
  bool shuffle = true;
  std::int64_t classes = 0;
  Carry carry = Carry::floats;
  int threads = 1, ring = 4;
};

/// Ports input, target (where the set has one), weight.
inline LoaderOptions options_of(const Dataset& set, const ShortForm& s, bool training) {
  LoaderOptions o;
  Graph graph(s.micro_batch);
  graph.add_input(PortUse::input, "input", TensorDesc::of_sample(DType::f32, s.micro_batch, s.input.extents()));
  PortOptions& input = o.ports.emplace_back();
  input.source = 0;
  input.normalize = s.normalize;
  input.augment = s.augment;
  input.carry = s.carry;
  if (set.ports().size() > 1) {
    const DataPort& port = set.port(1);
    const TensorDesc labels{DType::i32, Shape{s.micro_batch}},
        values{DType::f32, Shape{s.micro_batch, port.row.elements()}};
    graph.add_input(PortUse::target, "target", port.index ? labels : values);
    PortOptions& target = o.ports.emplace_back();
    target.use = PortUse::target;
    target.source = 1;
    target.limit = s.classes;
  }
  graph.add_input(PortUse::weight, "weight", {DType::f32, Shape{s.micro_batch}});
  o.ports.emplace_back().use = PortUse::weight;
  std::vector<PortCarry> carry(o.ports.size());
  if (s.carry != Carry::floats) {
    carry[0] = {true, raw_layout(s.carry, set.port(0).row_bytes, s.micro_batch, training && !s.augment.empty()).bytes};
  }
  o.layout = batch_layout(graph, carry);
  o.global_batch = s.global_batch;
  o.warmup = s.warmup;
  o.rank = s.rank;
  o.ranks = s.ranks;
  o.seed = s.seed;
  o.shuffle = s.shuffle;
  o.threads = s.threads;
  o.ring = s.ring;
  return o;
}

inline std::unique_ptr<Loader> training(const Dataset& set, const ShortForm& s) {
  return Loader::training(set, options_of(set, s, true));
}
inline std::unique_ptr<Loader> evaluation(const Dataset& set, const ShortForm& s) {
  return Loader::evaluation(set, options_of(set, s, false));
}

}  // namespace dtrain::io::testing
