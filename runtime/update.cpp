#include "runtime/update.hpp"

#include <algorithm>
#include <cmath>

namespace dtrain {

Optimizer::Optimizer(Device& device, const UpdateRule& rule, const FlatLayout& layout)
    : device_(device), rule_(rule), partial_((layout.param_floats + norm_block - 1) / norm_block) {
  if (needs_whole_parameters(rule)) norms_.resize(norm_scratch(layout));
  auto stream = device.make_stream(StreamUse::compute);
  for (int i = 0; i < state_count(rule); ++i) {
    Buffer& b = state_[static_cast<std::size_t>(i)];
    b = Buffer(device, layout.total_floats() * sizeof(float));
    device.zero(b.data(), b.bytes(), *stream);
  }
  stream->synchronize();
}

void Optimizer::update(const ParameterStore& store, std::size_t begin, std::size_t end, const StepState& step,
                       Stream& stream) {
  UpdateArgs args;
  args.params = store.params();
  args.gradients = store.gradients();
  for (int i = 0; i < states(); ++i) args.state[i] = state(i);
  args.begin = begin;
  args.end = std::min(end, store.layout().param_floats);
  args.layout = &store.layout();
  args.step = &step;
  args.norms = norms_.data();
  if (args.begin < args.end) device_.update(rule_, args, stream);
}

void Optimizer::update_states(const ParameterStore& store, const StepState& step, Stream& stream) {
  if (!store.layout().states.empty())
    device_.update_states({store.params(), store.gradients(), &store.layout(), &step}, stream);
}

double Optimizer::gradient_norm(const ParameterStore& store, Stream& stream) {
  device_.sum_squares(store.gradients(), store.layout().param_floats, partial_.data(), stream);
  stream.synchronize();
  double sum = 0;
  for (double p : partial_) sum += p;
  return std::sqrt(sum);
}

std::string first_nonfinite(const float* flat, const FlatLayout& layout) {
  const FlatParam* first = nullptr;
  for (const FlatParam& p : layout.params) {
    if (first && p.id > first->id) continue;
    if (!std::all_of(flat + p.offset, flat + p.offset + p.size, [](float v) { return std::isfinite(v); })) first = &p;
  }
  return first ? first->name : std::string();
}

}  // namespace dtrain
