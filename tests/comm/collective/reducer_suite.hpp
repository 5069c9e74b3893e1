// What a GradientReducer must do on every Collective: the same bits with and without shards, with both types on the
// wire. Free functions called by every rank on its own thread; a failure is a std::runtime_error.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "comm/collective/reducer.hpp"
#include "runtime/optim/update.hpp"
#include "tests/comm/collective/suite.hpp"

namespace dtrain::comm::suite {

/// Parameters of sizes that no cut fits.
inline FlatLayout odd_layout(int shards) {
  FlatLayout layout;
  std::size_t at = 0;
  for (const std::size_t size : {std::size_t{9001}, std::size_t{17}, std::size_t{30011}, std::size_t{1}}) {
    const auto id = static_cast<ParamId>(layout.params.size());
    layout.params.push_back(
        {id, fmt::format("p{}", id), Shape{static_cast<std::int64_t>(size)}, at, size, id % 2 == 0});
    at = (at + size + 15) / 16 * 16;
  }
  const std::size_t unit = shards > 1 ? norm_block * static_cast<std::size_t>(shards) : 1;
  layout.param_floats = (at + unit - 1) / unit * unit;
  layout.buckets = cut_buckets(layout.total_floats(),
                               {.bucket_mib = 0.05, .last_bucket_mib = 0.02, .smallest_mib = 0.02, .shards = shards});
  return layout;
}

struct Trained {
  std::vector<float> params;
  std::vector<float> tails;  // of all steps
  std::vector<double> norms;
};

/// Some steps with made-up gradients, as the trainer takes them: every other one with clipping, that is with a norm.
inline Trained train(const Maker& make, DType wire, bool sharded) {
  const auto device = make_cpu_device(1);
  const auto compute = device->make_stream(StreamUse::compute);
  const auto collective = make.collective(Algorithm::fixed_order);
  const ParameterStore store(*device, odd_layout(sharded ? make.size : 1));
  const FlatLayout& layout = store.layout();
  Optimizer optimizer(*device, {Adam{}}, layout, sharded ? Shard{make.rank, make.size} : Shard{});
  CommConfig config;
  config.gradient_dtype = wire;
  GradientReducer reducer(*device, *collective, store, config, sharded);
  Trained out;
  for (int step = 0; step < 4; ++step) {
    reducer.begin_step();
    for (std::size_t b = layout.buckets.size(); b-- > 0;) reducer.params_needed(static_cast<int>(b), *compute);
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      const Bucket range = parameters_of(layout, b);
      for (std::size_t i = range.begin; i < range.end; ++i) store.gradients()[i] = 0;
      for (const FlatParam& p : layout.params)
        for (std::size_t i = std::max(p.offset, range.begin); i < std::min(p.offset + p.size, range.end); ++i)
          store.gradients()[i] = rough(make.rank + 100 * step, i) + store.params()[i];
      for (std::size_t i = range.end; i < layout.buckets[b].end; ++i)
        store.gradients()[i] = rough(make.rank + 100 * step, i - layout.param_floats);
      reducer.bucket_ready(static_cast<int>(b), *compute);
    }
    StepState state;
    state.applied_steps = static_cast<std::uint64_t>(step);
    state.learning_rate = 0.01f;
    state.sum_weight = 3;
    if (step % 2 == 1) {
      reducer.wait_all(*compute);
      const auto squares = optimizer.block_squares(store, *compute);
      reducer.gather_squares(squares, *compute);
      out.norms.push_back(std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)));
      state.gradient_scale = static_cast<float>(1.0 / out.norms.back());
    }
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      reducer.wait(static_cast<int>(b), *compute);
      optimizer.update_bucket(store, b, state, *compute);
    }
    const float* const tail = store.gradients() + layout.param_floats;
    out.tails.insert(out.tails.end(), tail, tail + FlatLayout::extras_for(1, 0));
    reducer.gather_parameters(*compute);
  }
  reducer.wait_parameters(*compute);
  for (const FlatParam& p : layout.params)
    out.params.insert(out.params.end(), store.params() + p.offset, store.params() + p.offset + p.size);
  return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

inline void check_reducers(const Maker& make) {
  const auto group = make.group();
  Trained wide;
  for (DType wire : {DType::f32, DType::bf16}) {
    const Trained whole = train(make, wire, false), sharded = train(make, wire, true);
    require(same_bits(whole.params, sharded.params), "parameters of shards are those of the whole ({})", name_of(wire));
    require(same_bits(whole.norms, sharded.norms), "norms of shards are those of the whole ({})", name_of(wire));
    require(same_bits(whole.tails, sharded.tails), "sums behind the parameters with shards ({})", name_of(wire));
    for (std::size_t i = 0; i < whole.tails.size(); ++i) {
      const int step = static_cast<int>(i / FlatLayout::extras_for(1, 0));
      const float sum =
          tree_sum([&](int r) { return rough(r + 100 * step, i % FlatLayout::extras_for(1, 0)); }, 0, make.size);
      require(whole.tails[i] == sum, "what lies behind the parameters is exact ({})", name_of(wire));
    }
    const auto all = group->all_gather(std::as_bytes(std::span(sharded.params)));
    for (const auto& theirs : all)
      require(theirs.size() == all[0].size() && std::memcmp(theirs.data(), all[0].data(), theirs.size()) == 0,
              "all ranks have the same parameters ({})", name_of(wire));
    if (wire == DType::f32) wide = whole;
    if (wire == DType::bf16 && make.size > 1)
      require(!same_bits(wide.norms, whole.norms) && std::abs(wide.norms[0] / whole.norms[0] - 1) < 1e-2,
              "bfloat16 rounds, a little: norms {} and {}", wide.norms[0], whole.norms[0]);
  }
}

}  // namespace dtrain::comm::suite
