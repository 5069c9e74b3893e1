#include "runtime/ops/linear_cross_entropy_kernel.hpp"

#include <algorithm>
#include <array>

#include "runtime/ops/softmax_row.hpp"

namespace dtrain {

namespace {

std::size_t whole_lines(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

Tensor bytes_at(const Tensor& memory, std::size_t at, std::size_t bytes) {
  if (bytes == 0) return {};
  return {{DType::u8, Shape{static_cast<std::int64_t>(bytes)}}, memory.as<std::byte>() + at};
}

/// Of [N, positions..., channels], or of index values and weights without channels.
Tensor rows_of(const Tensor& all, std::int64_t begin, std::int64_t rows, std::int64_t channels) {
  const DType type = all.desc.dtype;
  auto* const at =
      all.as<std::byte>() + static_cast<std::size_t>(begin * std::max<std::int64_t>(channels, 1)) * size_of(type);
  return {{type, channels > 0 ? Shape{rows, channels} : Shape{rows}}, at};
}

}  // namespace

/// Arguments of both kernels for one chunk.
struct LinearCrossEntropyKernel::Chunk {
  const Size& size;
  Tensor logits, gradient, workspace, packed, saved;
  std::array<Tensor, 3> in;  // values, labels, weights
  std::array<Tensor, 3> loss_in;
  std::int64_t begin;
  Pass pass;  // `first` for the step's first chunk

  OpArgs dense(const OpArgs& a) const {
    return {
        std::span(in).first(1), std::span(&logits, 1), a.params, {}, {}, {}, {}, packed, workspace, a.pass, a.step, 0};
  }
  /// In place.
  OpArgs cap(const OpArgs& a) const {
    const std::span<const Tensor> of(&logits, 1);
    return {of, of, {}, {}, {}, {}, {}, {}, workspace, a.pass, a.step, 0};
  }
  OpArgs loss(const OpArgs& a, bool keeps) const {
    return {loss_in,   a.out, {},     {},    keeps ? std::span(&saved, 1) : std::span<const Tensor>(), {}, {}, {},
            workspace, pass,  a.step, a.loss};
  }
};

LinearCrossEntropyKernel::LinearCrossEntropyKernel(const LinearCrossEntropy& op, std::span<const TensorDesc> in,
                                                   const OpUse& use, const Prepare& prepare)
    : op_(op), rows_(in[0].rows()) {
  const std::int64_t chunk = op.chunk_rows(in[0]);
  add_size(chunk, in, use, prepare);
  if (rows_ % chunk != 0) add_size(rows_ % chunk, in, use, prepare);
  const std::size_t logits = whole_lines(static_cast<std::size_t>(chunk * op.dense.units) * size_of(in[0].dtype));
  gradient_at_ = op.cap ? logits : 0;
  saved_at_ = gradient_at_ + logits;
  scratch_at_ = saved_at_ + whole_lines(static_cast<std::size_t>(chunk) * sizeof(SoftmaxRow));
  for (const Size& size : sizes_)
    needs_.workspace = std::max({needs_.workspace, size.dense->needs().workspace, size.loss->needs().workspace});
  needs_.workspace += scratch_at_;
}

void LinearCrossEntropyKernel::add_size(std::int64_t rows, std::span<const TensorDesc> in, const OpUse& use,
                                        const Prepare& prepare) {
  const TensorDesc value{in[0].dtype, Shape{rows, in[0].channels()}}, logits{in[0].dtype, Shape{rows, op_.dense.units}};
  const std::array<TensorDesc, 3> of_loss{logits, {in[1].dtype, Shape{rows}}, {DType::f32, Shape{rows}}};
  Size size{rows,
            prepare(op_.dense, std::span(&value, 1), use),
            op_.cap ? prepare(*op_.cap, std::span(&logits, 1), use) : nullptr,
            prepare(op_.loss, of_loss, {.input_gradient = true, .input_gradient_added = false, .trained = use.trained}),
            needs_.packed,
            0};
  size.packed = size.dense->needs().packed;
  needs_.packed = whole_lines(needs_.packed + size.packed);
  sizes_.push_back(std::move(size));
}

void LinearCrossEntropyKernel::pack(std::span<const Tensor> master, Tensor packed, Stream& stream) {
  for (const Size& size : sizes_)
    if (size.packed > 0) size.dense->pack(master, bytes_at(packed, size.packed_at, size.packed), stream);
}

std::span<const PackedPart> LinearCrossEntropyKernel::packed_parts() const {
  return sizes_.size() == 1 ? sizes_[0].dense->packed_parts() : std::span<const PackedPart>();
}

template <class F>
void LinearCrossEntropyKernel::each_chunk(const OpArgs& a, const F& f) const {
  const std::int64_t channels = a.in[0].desc.channels();
  for (std::int64_t begin = 0; begin < rows_; begin += sizes_[0].rows) {
    const Size& size = begin + sizes_[0].rows <= rows_ ? sizes_[0] : sizes_[1];
    Chunk chunk{.size = size,
                .logits = {{a.in[0].desc.dtype, Shape{size.rows, op_.dense.units}}, a.workspace.data},
                .gradient = {{a.in[0].desc.dtype, Shape{size.rows, op_.dense.units}},
                             a.workspace.as<std::byte>() + gradient_at_},
                .workspace = bytes_at(a.workspace, scratch_at_, needs_.workspace - scratch_at_),
                .packed = bytes_at(a.packed, size.packed_at, size.packed),
                .saved = {{DType::f32, Shape{size.rows, SoftmaxRow::floats}}, a.workspace.as<std::byte>() + saved_at_},
                .in = {rows_of(a.in[0], begin, size.rows, channels), rows_of(a.in[1], begin, size.rows, 0),
                       rows_of(a.in[2], begin, size.rows, 0)},
                .loss_in = {},
                .begin = begin,
                .pass = a.pass};
    chunk.loss_in = {chunk.logits, chunk.in[1], chunk.in[2]};
    chunk.pass.first = a.pass.first && begin == 0;
    f(chunk);
  }
}

void LinearCrossEntropyKernel::forward(const OpArgs& a, Stream& stream) {
  each_chunk(a, [&](const Chunk& chunk) {
    chunk.size.dense->forward(chunk.dense(a), stream);
    if (chunk.size.cap) chunk.size.cap->forward(chunk.cap(a), stream);
    chunk.size.loss->forward(chunk.loss(a, false), stream);
  });
}

void LinearCrossEntropyKernel::backward(const OpArgs& a, const OpGrads& g, Stream& stream) {
  each_chunk(a, [&](const Chunk& chunk) {
    const OpArgs dense = chunk.dense(a), loss = chunk.loss(a, true);
    chunk.size.dense->forward(dense, stream);
    if (chunk.size.cap) chunk.size.cap->forward(chunk.cap(a), stream);
    chunk.size.loss->forward(loss, stream);
    const std::array<GradSlot, 3> slots{GradSlot{chunk.gradient, Write::overwrite}, GradSlot{}, GradSlot{}};
    chunk.size.loss->backward(loss, {{}, slots, {}}, stream);

    const std::span<const Tensor> of_logits(&chunk.gradient, 1);
    if (chunk.size.cap) chunk.size.cap->backward(chunk.cap(a), {of_logits, std::span(slots).first(1), {}}, stream);
    std::array<GradSlot, 2> params{};
    for (std::size_t p = 0; p < g.params.size(); ++p) {
      params.at(p) = g.params[p];
      if (chunk.begin > 0 && wanted(params[p])) params[p].write = Write::accumulate;
    }
    const auto of_params = std::span(params).first(g.params.size());
    if (std::any_of(of_params.begin(), of_params.end(), [](const GradSlot& slot) { return wanted(slot); }))
      chunk.size.dense->backward(dense, {of_logits, {}, of_params}, stream);
    if (!wanted(g.in, 0)) return;
    const GradSlot values{rows_of(g.in[0].grad, chunk.begin, chunk.size.rows, a.in[0].desc.channels()), g.in[0].write};
    chunk.size.dense->backward(dense, {of_logits, std::span(&values, 1), {}}, stream);
  });
}

}  // namespace dtrain
