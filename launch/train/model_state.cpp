#include "launch/train/model_state.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace dtrain::launch {

namespace {

Tensor flat_view(float* flat, const Bucket& range) {
  return {{DType::f32, Shape{static_cast<std::int64_t>(range.end - range.begin)}}, flat + range.begin};
}

}  // namespace

ModelState::ModelState(Device& device, const ParameterStore& store, const Optimizer& optimizer,
                       ParameterAverage* average, Collective& collective, Stream& compute, bool part)
    : device_(device),
      store_(store),
      optimizer_(optimizer),
      average_(average),
      collective_(collective),
      compute_(compute),
      part_(part) {
  params_ = HostMirror(device, store.params(), store.layout().all_floats() * sizeof(float));
  if (average_) averages_ = HostMirror(device, average_->data(), store.layout().total_floats() * sizeof(float));
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
  auto out = loaded_tensors();
  if (average_ && !part_) io::append_flat(out, "ema/", store_.layout().frozen(), params_.as<float>());
  return out;
}

std::vector<io::StateTensor> ModelState::loaded_tensors() {
  return some_tensors(!part_, true);
}

std::vector<io::StateTensor> ModelState::replicated_tensors() {
  return some_tensors(true, !optimizer_.sharded());
}

std::vector<io::StateTensor> ModelState::some_tensors(bool with_frozen, bool with_moments) {
  const FlatLayout& layout = store_.layout();
  if (optimizer_.sharded() && with_moments) make_images();
  std::vector<io::StateTensor> out;
  io::append_flat(out, "param/", with_frozen ? std::span(layout.params) : layout.trained(), params_.as<float>());
  for (const FlatState& s : layout.states)
    out.push_back({"state/" + s.name, DType::f32, s.shape, params_.as<float>() + s.offset});
  for (std::size_t i = 0; i < moments_.size() && with_moments; ++i) {
    float* const flat = optimizer_.sharded() ? images_[i].data() : moments_[i].as<float>();
    for (const FlatParam& p : layout.trained())
      if (has_state(p, static_cast<int>(i))) io::append_flat(out, "optimizer/" + moment_names_[i] + "/", {&p, 1}, flat);
  }
  if (average_) io::append_flat(out, "ema/", layout.trained(), averages_.as<float>());
  return out;
}

std::vector<std::string> ModelState::names_of_frozen() const {
  std::vector<std::string> names;
  for (const FlatParam& p : store_.layout().frozen()) {
    names.push_back("ema/" + p.name);
    for (const std::string& state : moment_names_) names.push_back("optimizer/" + state + "/" + p.name);
  }
  return names;
}

void ModelState::pull_parameters() {
  params_.pull(compute_);
  if (average_) averages_.pull(compute_);
  compute_.synchronize();
}

void ModelState::pull_replicated() {
  if (!optimizer_.sharded())
    for (const HostMirror& m : moments_) m.pull(compute_);
  pull_parameters();
}

void ModelState::pull() {
  for (const HostMirror& m : moments_) m.pull(compute_);
  pull_parameters();
  if (!optimizer_.sharded()) return;
  make_images();
  const FlatLayout& layout = store_.layout();
  const auto stream = device_.make_stream(StreamUse::communication);
  // In device memory, between two steps: the next one overwrites all gradients.
  for (std::size_t m = 0; m < moments_.size(); ++m) {
    auto* shard = static_cast<float*>(moments_[m].range());
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      const Bucket own = shard_of(layout, b, optimizer_.shard());
      const std::size_t floats = own.end - own.begin;
      gather_bucket(b, {{DType::f32, Shape{static_cast<std::int64_t>(floats)}}, shard}, *stream);
      shard += floats;
    }
    gathered_.pull(*stream);
    stream->synchronize();
    collective_.check();
    std::copy_n(gathered_.as<float>(), layout.param_floats, images_[m].data());
  }
}

/// All ranks' shards of a bucket, to where the gradients lie.
void ModelState::gather_bucket(std::size_t bucket, const Tensor& own, Stream& stream) {
  const FlatLayout& layout = store_.layout();
  float* const to = store_.gradients();
  if (layout.whole_shards.empty())
    return collective_.all_gather(own, flat_view(to, parameters_of(layout, bucket)), stream);
  const Shard shard = optimizer_.shard();
  for (int r = 0; r < shard.ranks; ++r) {
    const Bucket part = shard_of(layout, bucket, {r, shard.ranks});
    if (part.begin == part.end) continue;
    if (r == shard.rank) device_.copy(to + part.begin, own.data, own.bytes(), stream);
    collective_.broadcast(flat_view(to, part), r, stream);
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
    const Bucket shard = shard_of(store_.layout(), b, optimizer_.shard());
    const std::size_t floats = shard.end - shard.begin;
    visit(images_[moment].data() + shard.begin, own, floats);
    own += floats;
  }
}

/// What this rank knows of itself; empty where all is well.
std::string ModelState::memory_fault(Program* packed_too) {
  if (optimizer_.ledger() != nullptr) {
    if (const auto c = optimizer_.changed(store_))
      return fmt::format("{}{} has changed after step {}, by no update",
                         c->value == 0 ? "param/" : fmt::format("optimizer/{}/", moment_names_[c->value - 1]),
                         store_.layout().params[c->param].name, c->step);
  }
  const std::string name = packed_too ? packed_too->wrong_copy(store_, compute_) : std::string();
  return name.empty() ? name : fmt::format("the packed copy of param/{} is not equal to it", name);
}

void ModelState::check_memory(Group& group, Program* packed_too) {
  const auto faults = group.all_gather(memory_fault(packed_too));
  for (std::size_t rank = 0; rank < faults.size(); ++rank) {
    if (faults[rank].empty()) continue;
    throw NumericError(
        fmt::format("in the memory of rank {} {}; no checkpoint of it is kept. The memory of that machine may be "
                    "faulty; the same command goes on from the newest checkpoint",
                    rank, faults[rank]));
  }
}

void ModelState::restart_average() {
  if (average_) average_->restart(store_, compute_);
  compute_.synchronize();
}

std::string ModelState::average_hash() const {
  if (!average_) return {};
  // Frozen parameters are their own average.
  const FlatLayout& layout = store_.layout();
  std::vector<float> all(params_.as<float>(), params_.as<float>() + layout.all_floats());
  std::copy_n(averages_.as<float>(), layout.param_floats, all.data());
  return dtrain::parameter_hash(all.data(), layout);
}

void ModelState::initialize(const Graph& graph, std::uint64_t seed) {
  dtrain::initialize(params_.as<float>(), store_.layout(), graph, seed);
  push();
}

void ModelState::broadcast() {
  const FlatLayout& layout = store_.layout();
  const TensorDesc all{DType::f32, Shape{static_cast<std::int64_t>(layout.total_floats())}};
  const auto stream = device_.make_stream(StreamUse::communication);
  collective_.broadcast(flat_view(store_.params(), {0, layout.all_floats()}), 0, *stream);
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
