#include "tests/support/op_table.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/rng.hpp"

namespace dtrain::test {

namespace {

TensorDesc image(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return {DType::f32, Shape{n, c, h, w}, Layout::channels_last, {}};
}
TensorDesc matrix(std::int64_t n, std::int64_t d) {
  return {DType::f32, Shape{n, d}, Layout::plain, {}};
}

/// Memory index of logical element `i`.
std::int64_t memory_index(const TensorDesc& d, std::int64_t i) {
  std::array<std::int64_t, 3> chw{};
  if (d.layout == Layout::plain) return i;
  if (d.layout == Layout::channels_last) {
    chw = {d.shape[1], d.shape[2], d.shape[3]};
  } else {
    chw = d.origin;
  }
  const std::int64_t pixels = chw[1] * chw[2], sample = chw[0] * pixels;
  const std::int64_t in_sample = i % sample, c = in_sample / pixels, p = in_sample % pixels;
  return i / sample * sample + p * chw[0] + c;
}

void fill_nan(const Tensor& t) {
  std::memset(t.data, 0xFF, t.bytes());  // NaN as floats, and no valid index or mask as bytes
}

}  // namespace

const std::vector<OpRow>& op_table() {
  static const std::vector<OpRow> rows = [] {
    constexpr auto relu = Activation::relu, none = Activation::none;
    TensorDesc flattened = matrix(3, 60);
    flattened.layout = Layout::flattened_channels_last;
    flattened.origin = {3, 4, 5};
    return std::vector<OpRow>{
        {"linear", 1, Linear{9, true, none}, matrix(5, 7)},
        {"linear_relu", 2, Linear{18, true, relu}, matrix(3, 33)},
        {"linear_no_bias", 3, Linear{10, false, none}, matrix(4, 16)},
        {"linear_flattened", 4, Linear{11, true, relu}, flattened},
        {"conv_one_channel", 5, Conv2d{32, {3, 3}, {1, 1}, {0, 0}, true, relu}, image(2, 1, 9, 8)},
        {"conv_odd", 6, Conv2d{5, {3, 2}, {2, 1}, {1, 0}, false, none}, image(2, 3, 8, 7)},
        {"conv_padded", 7, Conv2d{32, {3, 3}, {1, 1}, {1, 1}, true, relu}, image(2, 16, 5, 5)},
        {"conv_strided", 8, Conv2d{16, {3, 3}, {2, 2}, {0, 0}, true, none}, image(1, 4, 8, 8)},
        {"conv_1x1", 9, Conv2d{7, {1, 1}, {1, 1}, {0, 0}, true, none}, image(2, 6, 3, 3)},
        {"pool", 10, MaxPool2d{{2, 2}, {2, 2}}, image(2, 3, 5, 7)},
        {"pool_overlapping", 11, MaxPool2d{{3, 2}, {1, 2}}, image(2, 5, 7, 6)},
        {"relu", 12, Activate{Activation::relu}, matrix(4, 21)},
        {"dropout", 13, Dropout{0.3, 3}, matrix(3, 150)},
        {"softmax_cross_entropy", 14, SoftmaxCrossEntropy{}, matrix(7, 10)},
        {"mean_squared_error", 15, MeanSquaredError{}, matrix(7, 5)},
    };
  }();
  return rows;
}

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

OpRun::OpRun(Device& device, const OpRow& row) : row_(row), stream_(device.make_stream(StreamUse::compute)) {
  const std::int64_t n = row.in.shape[0];
  std::vector<TensorDesc> descs{row.in};
  x = signed_draws(row.seed, 0, row.in.elements());
  if (std::holds_alternative<SoftmaxCrossEntropy>(row.op)) {
    for (float& v : x) v *= 3.0f;
    for (std::int64_t i = 0; i < n; ++i)
      labels.push_back(
          static_cast<std::int32_t>(raw_draw(row.seed, 1, 0, i) % static_cast<std::uint32_t>(row.in.shape[1])));
    descs.push_back({DType::i32, Shape{n}, Layout::plain, {}});
  }
  if (std::holds_alternative<MeanSquaredError>(row.op)) {
    targets = signed_draws(row.seed, 1, row.in.elements());
    descs.push_back(row.in);
  }
  if (is_loss(row.op)) {
    for (std::int64_t i = 0; i < n; ++i) weights.push_back(static_cast<float>(i % 3));
    descs.push_back({DType::f32, Shape{n}, Layout::plain, {}});
  }
  shape_ = infer(row.op, descs);
  kernel_ = device.prepare(row.op, descs);
  for (const auto& d : descs) in_.emplace_back(device, d);
  for (const auto& d : shape_.out) out_.emplace_back(device, d);
  for (std::size_t p = 0; p < shape_.params.size(); ++p) {
    const TensorDesc& d = shape_.params[p].desc;
    params.push_back(signed_draws(row.seed, 100 + p, d.elements()));
    params_.emplace_back(device, d);
    grad_params_.emplace_back(device, d);
  }
  for (const auto& d : shape_.saved) saved_.emplace_back(device, d);
  positions_.emplace_back(device, TensorDesc{DType::u64, Shape{n}, Layout::plain, {}});
  for (std::int64_t i = 0; i < n; ++i)
    positions_[0].tensor.as<std::uint64_t>()[i] = static_cast<std::uint64_t>(1000 * i + 7);
  if (!is_loss(row.op)) {
    grad_out_.emplace_back(device, shape_.out[0]);
    grad_out_logical_ = signed_draws(row.seed, 200, shape_.out[0].elements());
  }
  grad_in_.emplace_back(device, row.in);
  const auto bytes = [](std::size_t size) {
    return TensorDesc{DType::u8, Shape{static_cast<std::int64_t>(size)}, Layout::plain, {}};
  };
  const Needs needs = kernel_->needs();
  if (needs.packed > 0) packed_.emplace_back(device, bytes(needs.packed));
  if (needs.workspace > 0) workspace_.emplace_back(device, bytes(needs.workspace));
  const auto views = [](const std::vector<Memory>& memory, std::vector<Tensor>& to) {
    for (const auto& m : memory) to.push_back(m.tensor);
  };
  views(in_, in_views_);
  views(out_, out_views_);
  views(params_, param_views_);
  views(saved_, saved_views_);
  views(positions_, position_views_);
  views(grad_out_, grad_out_views_);
  step.seed = row.seed;
  poison();
}

void OpRun::poison() {
  for (const auto* group : {&out_, &saved_, &workspace_, &grad_in_, &grad_params_})
    for (const auto& m : *group) fill_nan(m.tensor);
}

OpArgs OpRun::args(Pass pass) {
  return {in_views_,
          out_views_,
          param_views_,
          {},
          saved_views_,
          {},
          position_views_,
          packed_.empty() ? Tensor{} : packed_[0].tensor,
          workspace_.empty() ? Tensor{} : workspace_[0].tensor,
          pass,
          step};
}

void OpRun::upload() {
  const auto put = [](const Tensor& t, const auto& values) {
    std::memcpy(t.data, values.data(), values.size() * sizeof values[0]);
  };
  put(in_views_[0], to_memory(row_.in, x));
  if (!labels.empty()) put(in_views_[1], labels);
  if (!targets.empty()) put(in_views_[1], targets);
  if (!weights.empty()) put(in_views_[2], weights);
  for (std::size_t p = 0; p < params.size(); ++p) put(param_views_[p], params[p]);
}

void OpRun::forward(Pass pass) {
  upload();
  if (!packed_.empty()) kernel_->pack(param_views_, packed_[0].tensor, *stream_);
  kernel_->forward(args(pass), *stream_);
  stream_->synchronize();
}

void OpRun::backward_activation() {
  if (grad_out_.empty()) return;
  const auto memory = to_memory(shape_.out[0], grad_out_logical_);
  std::memcpy(grad_out_views_[0].data, memory.data(), memory.size() * sizeof(float));
  if (has_epilogue(row_.op)) kernel_->backward_activation(args({}), grad_out_views_[0], *stream_);
}

void OpRun::backward_only(Write in, std::vector<Write> writes) {
  std::vector<GradSlot> in_slots(in_.size()), param_slots(params_.size());
  in_slots[0] = {grad_in_[0].tensor, in};
  for (std::size_t p = 0; p < params_.size(); ++p) param_slots[p] = {grad_params_[p].tensor, writes.at(p)};
  kernel_->backward(args({}), {grad_out_views_, in_slots, param_slots}, *stream_);
  stream_->synchronize();
}

void OpRun::backward(Write in, Write params_write) {
  backward_activation();
  const std::vector<Write> none(params_.size(), Write::none), all(params_.size(), params_write);
  if (!params_.empty()) backward_only(Write::none, all);
  backward_only(in, none);
}

void OpRun::set_grads(float value) {
  for (const auto* group : {&grad_in_, &grad_params_})
    for (const auto& m : *group)
      for (std::int64_t i = 0; i < m.tensor.elements(); ++i) m.tensor.as<float>()[i] = value;
}

std::vector<float> OpRun::out() const {
  return to_logical(shape_.out[0], out_views_[0].as<float>());
}
std::vector<float> OpRun::grad_in() const {
  return to_logical(row_.in, grad_in_[0].tensor.as<float>());
}
std::vector<float> OpRun::grad_param(std::size_t p) const {
  return to_logical(shape_.params[p].desc, grad_params_[p].tensor.as<float>());
}

}  // namespace dtrain::test
