#include "launch/train/model_state.hpp"

#include <algorithm>
#include <utility>

namespace dtrain::launch {

namespace {

Tensor flat_view(float* flat, const Bucket& range) {
  return {{DType::f32, Shape{static_cast<std::int64_t>(range.end - range.begin)}}, flat + range.begin};
}

}  // namespace

ModelState::ModelState(Device& device, const ParameterStore& store, const Optimizer& optimizer,
                       ParameterAverage* average, Collective& collective, Stream& compute)
    : device_(device),
      store_(store),
      optimizer_(optimizer),
      average_(average),
      collective_(collective),
      compute_(compute) {
  const std::size_t bytes = store.layout().total_floats() * sizeof(float);
  params_ = HostMirror(device, store.params(), bytes);
  if (average_) averages_ = HostMirror(device, average_->data(), bytes);
  for (int i = 0; i < optimizer.states(); ++i) {
    moments_.emplace_back(device, optimizer.state(i), optimizer.state_floats() * sizeof(float));
    moment_names_.push_back(state_name(optimizer.rule(), i));
  }
  if (optimizer.sharded())
    gathered_ = HostMirror(device, store.gradients(), store.layout().param_floats * sizeof(float));
  // The gaps between parameters are zero on the device, so they are in what is pushed back.
  pull_parameters();
  for (const HostMirror& m : moments_) m.pull(compute_);
  compute_.synchronize();
}

std::vector<io::StateTensor> ModelState::tensors() {
  if (optimizer_.sharded()) make_images();
  std::vector<io::StateTensor> out;
  io::append_flat(out, "param/", store_.layout(), params_.as<float>());
  for (const FlatState& s : store_.layout().states)
    out.push_back({"state/" + s.name, DType::f32, s.shape, params_.as<float>() + s.offset});
  for (std::size_t i = 0; i < moments_.size(); ++i) {
    io::append_flat(out, "optimizer/" + moment_names_[i] + "/", store_.layout(),
                    optimizer_.sharded() ? images_[i].data() : moments_[i].as<float>());
  }
  if (average_) io::append_flat(out, "ema/", store_.layout(), averages_.as<float>());
  return out;
}

void ModelState::pull_parameters() {
  params_.pull(compute_);
  if (average_) averages_.pull(compute_);
  compute_.synchronize();
}

void ModelState::pull() {
  params_.pull(compute_);
  for (const HostMirror& m : moments_) m.pull(compute_);
  if (average_) averages_.pull(compute_);
  compute_.synchronize();
  if (!optimizer_.sharded()) return;
  make_images();
  const FlatLayout& layout = store_.layout();
  const auto stream = device_.make_stream(StreamUse::communication);
  // In device memory, between two steps: the next one overwrites all gradients.
  for (std::size_t m = 0; m < moments_.size(); ++m) {
    auto* shard = static_cast<float*>(moments_[m].range());
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      const Bucket all = parameters_of(layout, b), own = share_of(layout, b, optimizer_.shard());
      const std::size_t floats = own.end - own.begin;
      collective_.all_gather(flat_view(shard, {0, floats}), flat_view(store_.gradients(), all), *stream);
      shard += floats;
    }
    gathered_.pull(*stream);
    stream->synchronize();
    collective_.check();
    std::copy_n(gathered_.as<float>(), layout.param_floats, images_[m].data());
  }
}

void ModelState::push() {
  for (std::size_t m = 0; m < images_.size(); ++m)
    each_shard(m, [](float* image, float* own, std::size_t floats) { std::copy_n(image, floats, own); });
  release_tensors();
  params_.push(compute_);
  for (const HostMirror& m : moments_) m.push(compute_);
  if (average_) averages_.push(compute_);
  compute_.synchronize();
}

void ModelState::make_images() {
  if (images_.empty()) images_.assign(moments_.size(), std::vector<float>(store_.layout().param_floats));
}

void ModelState::release_tensors() {
  images_ = {};
}

template <class Visit>
void ModelState::each_shard(std::size_t moment, Visit visit) {
  float* own = moments_[moment].as<float>();
  for (std::size_t b = 0; b < store_.layout().buckets.size(); ++b) {
    const Bucket shard = share_of(store_.layout(), b, optimizer_.shard());
    const std::size_t floats = shard.end - shard.begin;
    visit(images_[moment].data() + shard.begin, own, floats);
    own += floats;
  }
}

void ModelState::restart_average() {
  if (average_) average_->restart(store_, compute_);
  compute_.synchronize();
}

std::string ModelState::average_hash() const {
  return average_ ? dtrain::parameter_hash(averages_.as<float>(), store_.layout()) : std::string();
}

void ModelState::initialize(const Graph& graph, std::uint64_t seed) {
  dtrain::initialize(params_.as<float>(), store_.layout(), graph, seed);
  push();
}

void ModelState::broadcast() {
  const TensorDesc all{DType::f32, Shape{static_cast<std::int64_t>(store_.layout().total_floats())}};
  const auto stream = device_.make_stream(StreamUse::communication);
  collective_.broadcast({all, store_.params()}, 0, *stream);
  if (!optimizer_.sharded())
    for (const HostMirror& m : moments_) collective_.broadcast({all, m.range()}, 0, *stream);
  if (average_) collective_.broadcast({all, average_->data()}, 0, *stream);
  stream->synchronize();
  collective_.check();
}

std::string ModelState::first_nonfinite_gradient() {
  const HostMirror gradients(device_, store_.gradients(), store_.layout().total_floats() * sizeof(float));
  gradients.pull(compute_);
  compute_.synchronize();
  return first_nonfinite(gradients.as<float>(), store_.layout());
}

}  // namespace dtrain::launch
