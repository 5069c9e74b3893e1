// Starts the kernels over the flat buffers.
#include "runtime/cuda/update/update_bodies.hpp"

namespace dtrain::cuda {

namespace {

SgdUpdate update_of(const Sgd& rule) {
  return {rule};
}
AdamUpdate update_of(const Adam& rule) {
  return {rule, rule.weight_decay, 0};
}
AdamUpdate update_of(const AdamW& r) {
  return {{r.learning_rate, r.beta1, r.beta2, r.epsilon, 0}, 0, r.weight_decay};
}
LarsUpdate update_of(const Lars& rule) {
  return {rule};
}
LambUpdate update_of(const Lamb& rule) {
  return {rule};
}

}  // namespace

template <class Rule>
void update(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step, const Rule& rule,
            double* norms) {
  const auto by = update_of(rule);
  using Update = std::remove_const_t<decltype(by)>;
  const bool vectors = aligned(r.params, r.gradients, r.state[0], r.state[1]) && r.state_begin % quad == 0;
  if constexpr (Update::by_ratio) {
    launch(where, tables.blocks, RatioNorms<Update>{{by, tables, r, step, norms, vectors}});
    launch(where, tables.param_count, RatioRates<Update>{by, tables, step, norms});
    launch(where, tables.blocks, RatioUpdate<Update>{{by, tables, r, step, norms, vectors}});
  } else {
    const std::int64_t quads = divide_up(r.end, quad) - r.begin / quad;
    constexpr std::int64_t most = 2048;  // the constants are worked out once a block
    const std::int64_t blocks = divide_up(quads, block_threads);
    launch(where, blocks < most ? blocks : most, UpdateBody<Update>{by, tables, r, step, vectors});
  }
}
template void update(const Launch&, const FlatTables&, const FlatRange&, const StepState*, const Sgd&, double*);
template void update(const Launch&, const FlatTables&, const FlatRange&, const StepState*, const Adam&, double*);
template void update(const Launch&, const FlatTables&, const FlatRange&, const StepState*, const AdamW&, double*);
template void update(const Launch&, const FlatTables&, const FlatRange&, const StepState*, const Lars&, double*);
template void update(const Launch&, const FlatTables&, const FlatRange&, const StepState*, const Lamb&, double*);

void update_statistics(const Launch& where, const FlatTables& tables, float* params, const float* gradients,
                       const StepState* step) {
  launch(where, tables.state_count, StatisticsBody{tables, params, gradients, step});
}

void move_average(const Launch& where, float* average, const float* params, std::int64_t n, double decay,
                  const StepState* step) {
  for_elements(where, n, aligned(average, params), AverageBody{average, params, decay, step});
}

void sum_squares(const Launch& where, const float* x, std::int64_t n, double* partial) {
  launch(where, divide_up(n, FlatTables::block), SumSquaresBody{x, n, partial, aligned(x)});
}

void finish_gradients(const Launch& where, const GradientArgs& args) {
  launch(where, 1, FinishGradientsBody{args});
}
void finish_step(const Launch& where, const FinishArgs& args) {
  launch(where, 1, FinishStepBody{args});
}

void add_parts(const Launch& where, const float* const* parts, std::size_t count, float* out, std::int64_t begin,
               std::int64_t end) {
  // Innermost first: the last ones, whose sum then stands for them.
  const float* sum = nullptr;
  while (count > 0 || sum == nullptr) {
    AddPartsBody body{};
    const std::size_t room = AddPartsBody::most - (sum != nullptr ? 1 : 0), taken = count < room ? count : room;
    bool vectors = aligned(out + begin);
    if (sum != nullptr) body.parts[body.count++] = sum + begin;
    for (std::size_t i = 0; i < taken; ++i) body.parts[body.count++] = parts[count - 1 - i] + begin;
    for (std::size_t i = 0; i < body.count; ++i) vectors = vectors && aligned(body.parts[i]);
    body.out = out + begin;
    for_elements(where, end - begin, vectors, body);
    sum = out;
    count -= taken;
  }
}

}  // namespace dtrain::cuda
