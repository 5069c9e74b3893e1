#include "launch/model_state.hpp"

#include <utility>

namespace dtrain::launch {

ModelState::ModelState(Device& device, const ParameterStore& store, const Optimizer& optimizer, Stream& compute)
    : device_(device), store_(store), compute_(compute) {
  static_assert(stop_extra < FlatLayout::extras);
  const std::size_t bytes = store.layout().total_floats() * sizeof(float);
  float* const extras = store.gradients() + store.layout().state_end();
  params_ = HostMirror(device, store.params(), bytes);
  sums_ = HostMirror(device, extras, FlatLayout::extras * sizeof(float));
  wish_ = HostMirror(device, extras + stop_extra, sizeof(float));
  for (int i = 0; i < optimizer.states(); ++i) {
    moments_.emplace_back(device, optimizer.state(i), bytes);
    moment_names_.push_back(state_name(optimizer.rule(), i));
  }
  pull();  // the gaps between parameters are zero on the device, so they are in what is pushed back
}

std::vector<io::StateTensor> ModelState::tensors() const {
  std::vector<io::StateTensor> out;
  io::append_flat(out, "param/", store_.layout(), params_.as<float>());
  for (const FlatState& s : store_.layout().states)
    out.push_back({"state/" + s.name, DType::f32, s.shape, params_.as<float>() + s.offset});
  for (std::size_t i = 0; i < moments_.size(); ++i)
    io::append_flat(out, "optimizer/" + moment_names_[i] + "/", store_.layout(), moments_[i].as<float>());
  return out;
}

void ModelState::pull() {
  params_.pull(compute_);
  for (const HostMirror& m : moments_) m.pull(compute_);
  compute_.synchronize();
}

void ModelState::push() {
  params_.push(compute_);
  for (const HostMirror& m : moments_) m.push(compute_);
  compute_.synchronize();
}

void ModelState::initialize(const Graph& graph, std::uint64_t seed) {
  dtrain::initialize(params_.as<float>(), store_.layout(), graph, seed);
  push();
}

void ModelState::broadcast(Collective& collective) {
  const TensorDesc all{DType::f32, Shape{static_cast<std::int64_t>(store_.layout().total_floats())}, Layout::plain, {}};
  const auto stream = device_.make_stream(StreamUse::communication);
  collective.broadcast({all, store_.params()}, 0, *stream);
  for (const HostMirror& m : moments_) collective.broadcast({all, m.range()}, 0, *stream);
  stream->synchronize();
}

std::string ModelState::first_nonfinite_gradient() {
  const HostMirror gradients(device_, store_.gradients(), store_.layout().total_floats() * sizeof(float));
  gradients.pull(compute_);
  compute_.synchronize();
  return first_nonfinite(gradients.as<float>(), store_.layout());
}

void ModelState::wish_to_stop(bool wish) {
  *wish_.as<float>() = wish ? 1.0f : 0.0f;
  wish_.push(compute_);
}

const float* ModelState::read_sums() {
  sums_.pull(compute_);
  compute_.synchronize();
  return sums_.as<float>();
}

}  // namespace dtrain::launch
