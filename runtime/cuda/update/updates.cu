// Starts the kernels over the flat buffers.
#include "runtime/cuda/update/update_bodies.hpp"

namespace dtrain::cuda {

namespace {

template <class Update>
void update(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step,
            const Update& rule) {
  const bool vectors = aligned(r.params, r.gradients, r.state[0], r.state[1]) && r.state_begin % quad == 0;
  const std::int64_t quads = divide_up(r.end, quad) - r.begin / quad;
  constexpr std::int64_t most = 2048;  // the constants are worked out once a block
  const std::int64_t blocks = divide_up(quads, block_threads);
  launch(where, blocks < most ? blocks : most, UpdateBody<Update>{rule, tables, r, step, vectors});
}

template <class Rule>
void update_with_ratio(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step,
                       const Rule& rule, double* norms) {
  const bool vectors = aligned(r.params, r.gradients, r.state[0], r.state[1]);
  launch(where, tables.blocks, RatioNorms<Rule>{rule, tables, r, step, norms, vectors});
  launch(where, tables.param_count, RatioRates<Rule>{rule, tables, step, norms});
  launch(where, tables.blocks, RatioUpdate<Rule>{rule, tables, r, step, norms, vectors});
}

}  // namespace

void update_sgd(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step,
                const Sgd& rule) {
  update(where, tables, r, step, SgdUpdate{rule});
}
void update_adam(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step,
                 const Adam& rule, double l2, double decoupled) {
  update(where, tables, r, step, AdamUpdate{rule, l2, decoupled});
}
void update_lars(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step,
                 const Lars& rule, double* norms) {
  update_with_ratio(where, tables, r, step, LarsUpdate{rule}, norms);
}
void update_lamb(const Launch& where, const FlatTables& tables, const FlatRange& r, const StepState* step,
                 const Lamb& rule, double* norms) {
  update_with_ratio(where, tables, r, step, LambUpdate{rule}, norms);
}

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
