// Texts that go on a few positions at a time, on each device: the same values as of all positions at once.
#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/program/program.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

// f32 sums of the same terms in another order.
constexpr double value_tolerance = 1e-5;

constexpr std::int64_t texts = 3, length = 21, words = 30, width = 24;

struct Net {
  const char* name;
  Attention attention;
  bool apart = false;
};

/// `positions` 0: of all positions at once; else of so many behind a cache.
Graph graph_of(const Net& net, std::int64_t positions, std::int64_t capacity) {
  const bool whole = positions == 0;
  const std::int64_t seen = whole ? length : positions;
  Graph g(texts);
  const auto tokens = g.add_input(PortUse::input, "tokens", {DType::i32, Shape{texts, seen}}, words);
  std::vector<ValueId> lengths;
  if (!whole) lengths.push_back(g.add_input(PortUse::input, "lengths", {DType::i32, Shape{texts}}));
  const auto with_lengths = [&](std::vector<ValueId> in) {
    in.insert(in.end(), lengths.begin(), lengths.end());
    return in;
  };
  auto v = g.add("embedding", Embedding{.vocabulary = words, .channels = width}, {tokens});
  v = g.add("positions", Positions{.length = length, .standard_deviation = 1}, with_lengths({v}));
  const std::int64_t kv_heads = net.attention.kv_heads > 0 ? net.attention.kv_heads : net.attention.heads;
  const std::int64_t kv = width / net.attention.heads * kv_heads;
  for (const std::string block : {"first", "second"}) {
    std::vector<ValueId> in;
    if (net.apart) {
      for (const auto& [part, units] : {std::pair("_q", width), std::pair("_k", kv), std::pair("_v", kv)})
        in.push_back(g.add(block + part, Dense{.units = units}, {v}));
    } else {
      in.push_back(g.add(block + "_qkv", Dense{.units = width + 2 * kv}, {v}));
    }
    const auto y = whole ? g.add(block, net.attention, in)
                         : g.add(block, CachedAttention{net.attention, capacity}, with_lengths(in));
    v = g.add(block + "_add", Add{}, {v, y});
  }
  g.add_output("logits", g.add("head", Dense{.units = words}, {v}));
  return g;
}

std::int32_t token(std::int64_t text, std::int64_t position) {
  return static_cast<std::int32_t>(test::raw_draw(9, static_cast<std::uint64_t>(text), 0, position) % words);
}

class Generation : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(Generation);

TEST_P(Generation, in_parts_is_that_of_all_positions) {
  const Net nets[] = {
      {"learned positions", {.heads = 3}},
      {"rotary, grouped", {.heads = 6, .kv_heads = 2, .rotary = Rotary{.theta = 100}}, true},
      {"window, one key head", {.heads = 4, .kv_heads = 1, .window = 5, .rotary = Rotary{}, .scale = 0.9}},
  };
  // Positions that each text takes in each pass: of up to 5, or one by one.
  const std::vector<std::vector<std::int64_t>> passes{{5, 2, 4}, {5, 0, 1}, {1, 1, 1}, {3, 5, 5}, {0, 5, 4}, {1, 1, 1}};
  for (const Net& net : nets) {
    SCOPED_TRACE(net.name);
    const auto device = make_device();
    const auto stream = device->make_stream(StreamUse::compute);
    PlanOptions options;
    options.train = false;
    Program whole(*device, graph_of(net, 0, 0), options), few(*device, graph_of(net, 5, length), options),
        one(*device, graph_of(net, 1, length), options);
    const ParameterStore store(*device, one.plan().layout);
    initialize(store.params(), store.layout(), one.plan().graph, 3);
    for (const FlatState& state : store.layout().states) EXPECT_FALSE(state.kept);
    for (Program* program : {&whole, &few, &one}) program->pack(store, *stream);
    test::Reachable<StepState> memory{1, test::FromDevice<StepState>(*device)};
    NoHooks hooks;
    const auto run = [&](Program& program) {
      program.run({Mode::evaluate, true, true}, 0, store, memory[0], hooks, *stream);
      stream->synchronize();
      return program.output(0, 0).as<float>();
    };
    for (std::int64_t i = 0; i < texts * length; ++i)
      whole.slot(0).inputs[0].as<std::int32_t>()[i] = token(i / length, i % length);
    const float* expected = run(whole);

    std::vector<std::int64_t> lengths(texts);
    for (const auto& taken : passes) {
      const bool single = std::all_of(taken.begin(), taken.end(), [](std::int64_t n) { return n == 1; });
      Program& program = single ? one : few;
      const std::int64_t positions = single ? 1 : 5;
      for (std::int64_t text = 0; text < texts; ++text) {
        const std::int64_t before = lengths[static_cast<std::size_t>(text)];
        program.slot(0).inputs[1].as<std::int32_t>()[text] = static_cast<std::int32_t>(before);
        for (std::int64_t p = 0; p < positions; ++p)  // behind those that are taken: what no text has there
          program.slot(0).inputs[0].as<std::int32_t>()[text * positions + p] =
              p < taken[static_cast<std::size_t>(text)] ? token(text, before + p) : 7;
      }
      const float* logits = run(program);
      for (std::int64_t text = 0; text < texts; ++text) {
        std::int64_t& at = lengths[static_cast<std::size_t>(text)];
        for (std::int64_t p = 0; p < taken[static_cast<std::size_t>(text)]; ++p, ++at) {
          const float *seen = logits + (text * positions + p) * words,
                      *of_all = expected + (text * length + at) * words;
          EXPECT_LE(test::relative_error({seen, seen + words}, {of_all, of_all + words}), value_tolerance)
              << text << " " << at;
        }
      }
    }
  }
}

TEST_P(Generation, writes_nothing_behind_the_end_of_a_cache) {
  const Net net{"", {.heads = 3}};
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  PlanOptions options;
  options.train = false;
  Program program(*device, graph_of(net, 5, 8), options);
  const ParameterStore store(*device, program.plan().layout);
  initialize(store.params(), store.layout(), program.plan().graph, 3);
  program.pack(store, *stream);
  test::Reachable<StepState> memory{1, test::FromDevice<StepState>(*device)};
  NoHooks hooks;
  for (std::int64_t text = 0; text < texts; ++text) program.slot(0).inputs[1].as<std::int32_t>()[text] = 6;
  std::fill_n(program.slot(0).inputs[0].as<std::int32_t>(), texts * 5, 1);
  const std::vector<float> before(store.params(), store.params() + store.layout().param_floats);
  program.run({Mode::evaluate, true, true}, 0, store, memory[0], hooks, *stream);
  stream->synchronize();
  EXPECT_EQ(std::vector<float>(store.params(), store.params() + store.layout().param_floats), before);
  // Of keys and values two positions of each text are new, and the others are as they were.
  for (const FlatState& state : store.layout().states) {
    const float* at = store.params() + state.offset;
    for (std::size_t i = 0; i < state.size; ++i)
      if (i / width % 8 < 6) EXPECT_EQ(at[i], 0.0f) << state.name << " " << i;
  }
}

}  // namespace
}  // namespace dtrain
