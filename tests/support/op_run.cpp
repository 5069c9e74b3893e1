// How a row of the op table is run: one kernel with all the memory of a call.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "runtime/ops/kernels.hpp"
#include "runtime/random/rng.hpp"
#include "runtime/tensor/f16.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain::test {

namespace {

/// Of an image in PyTorch's order [N, C, positions...]; {1, 1} where the orders are the same.
TensorDesc::Flattened channels_first(const TensorDesc& d) {
  if (d.is_flattened_image()) return d.flattened;
  if (d.shape.rank() > 3 && !d.is_index()) return {d.channels(), d.positions()};
  return {1, 1};
}

/// Memory index of logical element `i`.
std::int64_t memory_index(const TensorDesc& d, std::int64_t i) {
  const auto [channels, pixels] = channels_first(d);
  const std::int64_t sample = channels * pixels, in_sample = i % sample;
  return i / sample * sample + in_sample % pixels * channels + in_sample / pixels;
}

/// A parameter lies in its canonical order, whatever its rank.
TensorDesc canonical(TensorDesc desc) {
  desc.flattened = {1, 1};
  return desc;
}

/// Every fourth position begins a document, and so does the first of a sample.
std::vector<float> drawn_documents(std::uint64_t seed, std::uint64_t item, const TensorDesc& desc) {
  const std::int64_t positions = desc.elements() / desc.batch();
  std::vector<float> first;
  for (std::int64_t i = 0; i < desc.elements(); ++i) {
    const bool begins = i % positions == 0 || raw_draw(seed, item, 0, i) % 4 == 0;
    first.push_back(begins ? static_cast<float>(i % positions) : first.back());
  }
  return first;
}

void fill_nan(const Tensor& t) {
  std::memset(t.data, 0xFF, t.bytes());  // NaN as floats, and no valid index or mask as bytes
}

/// Logical values into a float tensor of any dtype, and back.
void put(const Tensor& t, const std::vector<float>& logical) {
  const auto memory = to_memory(t.desc, logical);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    if (t.desc.dtype == DType::f32) t.as<float>()[i] = memory[i];
    if (t.desc.dtype == DType::bf16) t.as<Bf16>()[i] = to_bf16(memory[i]);
    if (t.desc.dtype == DType::f16) t.as<F16>()[i] = to_f16(memory[i]);
    if (t.desc.dtype == DType::f64) t.as<double>()[i] = static_cast<double>(memory[i]);
    if (t.desc.dtype == DType::i32) t.as<std::int32_t>()[i] = static_cast<std::int32_t>(memory[i]);
    if (t.desc.dtype == DType::u16) t.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(memory[i]);
    if (t.desc.dtype == DType::u8) t.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(memory[i]);
  }
}
std::vector<float> get(const Tensor& t) {
  std::vector<float> memory(static_cast<std::size_t>(t.elements()));
  for (std::size_t i = 0; i < memory.size(); ++i) {
    if (t.desc.dtype == DType::f32) memory[i] = t.as<float>()[i];
    if (t.desc.dtype == DType::bf16) memory[i] = to_float(t.as<Bf16>()[i]);
    if (t.desc.dtype == DType::f16) memory[i] = to_float(t.as<F16>()[i]);
    if (t.desc.dtype == DType::f64) memory[i] = static_cast<float>(t.as<double>()[i]);
  }
  return to_logical(t.desc, memory.data());
}

/// Sums, sums of squares and count of each channel, over the micro batches in `parts`.
std::vector<double> moments_of(const TensorDesc& desc, const std::vector<std::vector<float>>& parts) {
  const std::int64_t channels = desc.channels(), pixels = channels_first(desc).pixels;
  std::vector<double> moments(static_cast<std::size_t>(2 * channels + 1));
  for (const auto& part : parts) {
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto c = static_cast<std::size_t>(static_cast<std::int64_t>(i) / pixels % channels);
      const auto v = static_cast<double>(part[i]);
      moments[c] += v;
      moments[c + static_cast<std::size_t>(channels)] += v * v;
    }
    moments.back() += static_cast<double>(static_cast<std::int64_t>(part.size()) / channels);
  }
  return moments;
}

}  // namespace

std::vector<float> to_memory(const TensorDesc& d, const std::vector<float>& logical) {
  std::vector<float> memory(logical.size());
  for (std::size_t i = 0; i < logical.size(); ++i)
    memory[static_cast<std::size_t>(memory_index(d, static_cast<std::int64_t>(i)))] = logical[i];
  return memory;
}

std::vector<float> to_logical(const TensorDesc& d, const float* memory) {
  std::vector<float> logical(static_cast<std::size_t>(d.elements()));
  for (std::size_t i = 0; i < logical.size(); ++i) logical[i] = memory[memory_index(d, static_cast<std::int64_t>(i))];
  return logical;
}

std::uint32_t raw_draw(std::uint64_t seed, std::uint64_t item, std::uint32_t sub, std::int64_t e) {
  return draw4(random_key(seed, Purpose::test), item, sub, static_cast<std::uint32_t>(e / 4)).v[e % 4];
}

std::vector<float> signed_draws(std::uint64_t seed, std::uint64_t item, std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::int64_t e = 0; e < n; ++e)
    values[static_cast<std::size_t>(e)] = 2.0f * to_unit(raw_draw(seed, item, 0, e)) - 1.0f;
  return values;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b.at(i)), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

std::vector<float> rounded_to(DType dtype, std::vector<float> values) {
  for (float& v : values)
    v = dtype == DType::bf16 ? to_float(to_bf16(v)) : dtype == DType::f16 ? to_float(to_f16(v)) : v;
  return values;
}

/// Fills the inputs that are not op_table's, and describes all.
std::vector<TensorDesc> OpRun::describe() {
  std::vector<TensorDesc> descs{row_.in};
  descs.insert(descs.end(), row_.more_in.begin(), row_.more_in.end());
  const auto draw = [&](const TensorDesc& desc, std::uint64_t item) {
    if (item > 0 && desc.is_index()) return drawn_documents(row_.seed, item, desc);
    if (desc.is_index()) {
      std::vector<float> indices;
      for (std::int64_t i = 0; i < desc.elements(); ++i)
        indices.push_back(static_cast<float>(raw_draw(row_.seed, item, 0, i) % row_.vocabulary));
      return indices;
    }
    auto values = signed_draws(row_.seed, item, desc.elements());
    for (float& v : values) v *= row_.scale;
    if (desc.dtype != DType::f32) values = rounded_to(DType::bf16, values);
    return rounded_to(desc.dtype, values);  // float16: what both types have
  };
  for (std::size_t i = 0; i < descs.size(); ++i) inputs[i] = draw(descs[i], i);
  if (std::holds_alternative<BatchNormalize>(row_.op)) {
    moments = moments_of(row_.in, {x, draw(row_.in, 51)});
    descs.push_back({DType::f64, Shape{static_cast<std::int64_t>(moments.size())}});
  }
  const Shape positions(row_.in.shape.extents().first(static_cast<std::size_t>(row_.in.shape.rank()) - 1));
  const auto* const linear = std::get_if<LinearCrossEntropy>(&row_.op);
  if (std::holds_alternative<SoftmaxCrossEntropy>(row_.op) || linear != nullptr) {
    if (linear == nullptr)
      for (float& v : x) v *= 3.0f;
    if (row_.in.dtype != DType::f32) x = rounded_to(DType::bf16, x);
    const auto classes = static_cast<std::uint32_t>(linear != nullptr ? linear->dense.units : row_.in.channels());
    for (std::int64_t i = 0; i < row_.in.rows(); ++i)
      labels.push_back(static_cast<std::int32_t>(raw_draw(row_.seed, 1, 0, i) % classes));
    descs.push_back({row_.labels, positions});
  }
  if (std::holds_alternative<MeanSquaredError>(row_.op)) {
    targets = signed_draws(row_.seed, 1, row_.in.elements());
    descs.push_back({DType::f32, row_.in.shape});
  }
  if (is_loss(row_)) {
    descs.push_back({DType::f32, row_.weighs_positions ? positions : Shape{row_.in.batch()}});
    for (std::int64_t i = 0; i < descs.back().elements(); ++i) weights.push_back(static_cast<float>(i % 3));
  }
  return descs;
}

OpRun::OpRun(Device& device, const OpRow& row)
    : step_(device, {DType::u8, Shape{sizeof(StepState)}}),
      inputs(1 + row.more_in.size()),
      x(inputs[0]),
      step(*new (step_.bytes.data()) StepState),
      device_(device),
      row_(row),
      stream_(device.make_stream(StreamUse::compute)) {
  const std::int64_t n = row.in.shape[0];
  const std::vector<TensorDesc> descs = describe();
  shape_ = infer(row.op, descs);
  // What the tests of a program measured before: it takes a GPU's libraries seconds a row.
  static AlgorithmChoices measured;
  const AlgorithmChoices wanted = device.kernels().choices();
  device.kernels().use(measured);
  device.kernels().use(wanted);
  kernel_ = device.kernels().prepare(row.op, descs, {});
  if (wanted.all().empty()) measured.merge(device.kernels().choices());
  for (const auto& d : descs) in_.emplace_back(device, d);
  for (const auto& d : shape_.out) out_.emplace_back(device, d);
  for (std::size_t p = 0; p < shape_.params.size(); ++p) {
    const TensorDesc d = canonical(shape_.params[p].desc);
    params.push_back(signed_draws(row.seed, 100 + p, d.elements()));
    params_.emplace_back(device, d);
    grad_params_.emplace_back(device, d);
  }
  for (std::size_t s = 0; s < shape_.state.size(); ++s) {
    const TensorDesc& d = shape_.state[s].desc;
    state.push_back(signed_draws(row.seed, 300 + s, d.elements()));
    if (s == 1)
      for (float& v : state[s]) v = 0.5f + std::abs(v);
    state_.emplace_back(device, d);
    state_sums_.emplace_back(device, d);
  }
  for (const auto& d : shape_.saved) saved_.emplace_back(device, d);
  positions_.emplace_back(device, TensorDesc{DType::u64, Shape{n}});
  for (std::int64_t i = 0; i < n; ++i)
    positions_[0].host().as<std::uint64_t>()[i] = static_cast<std::uint64_t>(1000 * i + 7);
  if (!shape_.loss) {
    grad_out_.emplace_back(device, shape_.out[0]);
    grad_out = signed_draws(row.seed, 200, shape_.out[0].elements());
  }
  for (std::size_t i = 0; i < descs.size(); ++i)
    if (shape_.differentiable >> i & 1u) grad_in_.emplace_back(device, descs[i]);
  const Needs needs = kernel_->needs();
  if (needs.packed > 0)
    packed_.emplace_back(device, TensorDesc{DType::u8, Shape{static_cast<std::int64_t>(needs.packed)}});
  if (needs.workspace > 0) workspace_ = Buffer(device, needs.workspace);
  const auto views = [](const std::vector<Memory>& memory, std::vector<Tensor>& to) {
    for (const auto& m : memory) to.push_back(m.tensor);
  };
  views(in_, in_views_);
  views(out_, out_views_);
  views(params_, param_views_);
  views(state_, state_views_);
  views(state_sums_, state_sum_views_);
  views(saved_, saved_views_);
  views(positions_, position_views_);
  views(grad_out_, grad_out_views_);
  views(grad_in_, grad_in_views_);
  step.seed = row.seed;
  poison();
}

template <class Function>
void OpRun::each_memory(Function function) const {
  function(step_);
  for (const auto* group : {&in_, &out_, &params_, &state_, &state_sums_, &saved_, &positions_, &grad_out_, &grad_in_,
                            &grad_params_, &packed_})
    for (const Memory& m : *group) function(m);
}

/// Makes a call with everything as the host has it, and sees what it left.
template <class Call>
void OpRun::on_device(Call call) {
  each_memory([&](const Memory& m) { device_.copy(m.tensor.data, m.bytes.data(), m.bytes.size(), *stream_); });
  call();
  each_memory([&](const Memory& m) { device_.copy(m.bytes.data(), m.tensor.data, m.bytes.size(), *stream_); });
  stream_->synchronize();
}

Tensor OpRun::host_of(const Tensor& on_device) const {
  Tensor found;
  each_memory([&](const Memory& m) {
    if (m.tensor.data == on_device.data) found = {on_device.desc, m.bytes.data()};
  });
  return found;
}

void OpRun::poison() {
  for (const auto* group : {&out_, &saved_, &grad_in_, &grad_params_, &state_sums_})
    for (const auto& m : *group) fill_nan(m.host());
  const std::vector<std::byte> nan(std::min<std::size_t>(workspace_.bytes(), 1 << 20), std::byte{0xFF});
  for (std::size_t at = 0; at < workspace_.bytes(); at += nan.size())
    device_.copy(workspace_.at(at), nan.data(), std::min(nan.size(), workspace_.bytes() - at), *stream_);
  stream_->synchronize();
}

void OpRun::share(const Alias& alias) {
  if (alias.kind == Alias::Kind::out_over_in) out_views_.at(alias.to).data = in_views_.at(alias.from).data;
  if (alias.kind == Alias::Kind::grad_over_grad) grad_in_views_.at(alias.from).data = grad_out_views_.at(alias.to).data;
}
void OpRun::share_input_gradients() {
  grad_in_views_.at(1).data = grad_in_views_.at(0).data;
}

OpArgs OpRun::args(Pass pass) {
  return {in_views_,
          out_views_,
          param_views_,
          state_views_,
          saved_views_,
          state_sum_views_,
          position_views_,
          packed_.empty() ? Tensor{} : packed_[0].tensor,
          {{DType::u8, Shape{static_cast<std::int64_t>(workspace_.bytes())}}, workspace_.data()},
          pass,
          *step_.tensor.as<StepState>(),
          loss};
}

void OpRun::upload() {
  const auto put_bytes = [&](const Tensor& t, const auto& values) {
    std::memcpy(host_of(t).data, values.data(), values.size() * sizeof values[0]);
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) put(host_of(in_views_[i]), inputs[i]);
  if (!moments.empty()) put_bytes(in_views_[1], moments);
  if (!labels.empty()) put(host_of(in_views_[1]), std::vector<float>(labels.begin(), labels.end()));
  if (!targets.empty()) put(host_of(in_views_[1]), targets);
  if (!weights.empty()) put_bytes(in_views_[2], weights);
  for (std::size_t p = 0; p < params.size(); ++p) put(host_of(param_views_[p]), params[p]);
  for (std::size_t s = 0; s < state.size(); ++s) put(host_of(state_views_[s]), state[s]);
}

void OpRun::forward(Pass pass) {
  upload();
  on_device([&] {
    if (!packed_.empty()) kernel_->pack(param_views_, packed_[0].tensor, *stream_);
    kernel_->forward(args(pass), *stream_);
  });
}

void OpRun::backward_activation() {
  if (grad_out_.empty()) return;
  put(host_of(grad_out_views_[0]), grad_out);
  if (shape_.epilogue) on_device([&] { kernel_->backward_activation(args({}), grad_out_views_[0], *stream_); });
}

void OpRun::backward_only(Write in, std::vector<Write> writes) {
  backward_only(std::vector<Write>(grad_in_.size(), in), std::move(writes));
}
void OpRun::backward_only(std::vector<Write> in, std::vector<Write> writes) {
  std::vector<GradSlot> in_slots(in_.size()), param_slots(params_.size());
  const auto inputs_of_slots = differentiable();
  for (std::size_t i = 0; i < inputs_of_slots.size(); ++i) in_slots[inputs_of_slots[i]] = {grad_in_views_[i], in.at(i)};
  for (std::size_t p = 0; p < params_.size(); ++p) param_slots[p] = {grad_params_[p].tensor, writes.at(p)};
  on_device([&] { kernel_->backward(args({}), {grad_out_views_, in_slots, param_slots}, *stream_); });
}

void OpRun::backward(Write in, Write params_write) {
  backward_activation();
  const std::vector<Write> none(params_.size(), Write::none), all(params_.size(), params_write);
  if (shape_.backward_at_once) return backward_only(in, all);
  if (!params_.empty()) backward_only(Write::none, all);
  backward_only(in, none);
}

void OpRun::set_grads(float value) {
  for (const auto* group : {&grad_in_, &grad_params_})
    for (const auto& m : *group)
      put(m.host(), std::vector<float>(static_cast<std::size_t>(m.tensor.elements()), value));
}

std::vector<std::size_t> OpRun::differentiable() const {
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < in_.size(); ++i)
    if (shape_.differentiable >> i & 1u) which.push_back(i);
  return which;
}
std::vector<float> OpRun::out() const {
  return get(host_of(out_views_[0]));
}
std::vector<float> OpRun::grad_in(std::size_t i) const {
  return get(host_of(grad_in_views_[i]));
}
std::vector<float> OpRun::grad_param(std::size_t p) const {
  return get(grad_params_[p].host());
}
std::vector<float> OpRun::state_sum(std::size_t s) const {
  return get(state_sums_[s].host());
}

}  // namespace dtrain::test
