#include "tests/support/async_kernels.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "runtime/input/image_load.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain::test {

namespace {

template <class T>
T* real(T* memory) {
  return AsyncDevice::real(memory);
}
Tensor real_tensor(const Tensor& t) {
  Tensor out = t;
  out.data = AsyncDevice::real(t.data);
  return out;
}

/// Calls of the near device's kernel, later: with copies of all arguments, as a kernel launch takes them.
class AsyncKernel final : public Kernel {
 public:
  AsyncKernel(AsyncDevice& device, std::unique_ptr<Kernel> inner, Stream& at_once)
      : device_(device), inner_(std::move(inner)), at_once_(at_once) {}
  Needs needs() const override { return inner_->needs(); }
  std::span<const PackedPart> packed_parts() const override { return inner_->packed_parts(); }
  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    ++device_.packs;
    Call& call = take(Call::Kind::pack, stream);
    call.params.assign(master.begin(), master.end());
    call.packed = packed;
    give(call, stream);
  }
  void forward(const OpArgs& args, Stream& stream) override {
    Call& call = take(Call::Kind::forward, stream);
    call.set(args);
    give(call, stream);
  }
  void backward_activation(const OpArgs& args, Tensor grad_out, Stream& stream) override {
    Call& call = take(Call::Kind::activation, stream);
    call.set(args);
    call.grad_out = grad_out;
    give(call, stream);
  }
  void backward(const OpArgs& args, const OpGrads& grads, Stream& stream) override {
    Call& call = take(Call::Kind::backward, stream);
    call.set(args);
    call.out_grads.assign(grads.out.begin(), grads.out.end());
    call.in_slots.assign(grads.in.begin(), grads.in.end());
    call.param_slots.assign(grads.params.begin(), grads.params.end());
    give(call, stream);
  }

 private:
  struct Call {
    enum class Kind : std::uint8_t { pack, forward, activation, backward } kind = Kind::forward;
    std::vector<Tensor> in, out, params, state, saved, state_sums, positions, out_grads;
    std::vector<GradSlot> in_slots, param_slots;
    Tensor packed, workspace, grad_out;
    Pass pass;
    const StepState* step = nullptr;
    int loss = 0;
    std::atomic<bool> busy{true};
    bool kept = false;  // by a recording

    void set(const OpArgs& a) {
      const auto copy = [](std::vector<Tensor>& to, std::span<const Tensor> from) {
        to.assign(from.begin(), from.end());
      };
      copy(in, a.in);
      copy(out, a.out);
      copy(params, a.params);
      copy(state, a.state);
      copy(saved, a.saved);
      copy(state_sums, a.state_sums);
      copy(positions, a.positions);
      packed = a.packed;
      workspace = a.workspace;
      pass = a.pass;
      step = &a.step;
      loss = a.loss;
    }
    void to_real() {
      for (auto* list : {&in, &out, &params, &state, &saved, &state_sums, &positions, &out_grads})
        for (Tensor& t : *list) t = real_tensor(t);
      for (auto* list : {&in_slots, &param_slots})
        for (GradSlot& s : *list) s.grad = real_tensor(s.grad);
      packed = real_tensor(packed);
      workspace = real_tensor(workspace);
      grad_out = real_tensor(grad_out);
      step = AsyncDevice::real(step);
    }
  };

  Call& take(Call::Kind kind, Stream& stream) {
    ++device_.kernel_calls;
    const auto free = std::find_if(calls_.begin(), calls_.end(), [](const Call& c) { return !c.busy; });
    Call& call = free != calls_.end() ? *free : calls_.emplace_back();
    call.busy = true;
    call.kind = kind;
    call.kept = AsyncDevice::recorded(stream);
    return call;
  }
  void give(Call& call, Stream& stream) {
    call.to_real();
    stream.host(HostTask::of([this, c = &call] {
      run(*c);
      if (!c->kept) c->busy = false;
    }));
  }
  void run(Call& c) {
    if (c.kind == Call::Kind::pack) return inner_->pack(c.params, c.packed, at_once_);
    const OpArgs args{c.in,        c.out,    c.params,    c.state, c.saved, c.state_sums,
                      c.positions, c.packed, c.workspace, c.pass,  *c.step, c.loss};
    if (c.kind == Call::Kind::forward) inner_->forward(args, at_once_);
    if (c.kind == Call::Kind::activation) inner_->backward_activation(args, c.grad_out, at_once_);
    if (c.kind == Call::Kind::backward) inner_->backward(args, {c.out_grads, c.in_slots, c.param_slots}, at_once_);
  }

  AsyncDevice& device_;
  std::unique_ptr<Kernel> inner_;
  Stream& at_once_;
  std::deque<Call> calls_;
};

}  // namespace

std::unique_ptr<Kernel> AsyncKernels::prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) {
  auto inner = inner_.prepare(op, in, use);
  if (!inner) return nullptr;
  if (!device_.options_.model.empty()) {
    std::string key = fmt::format("{}: {}", device_.options_.model, name_of(op));
    for (const TensorDesc& t : in) key += " " + t.shape.str();
    if (choices_.find(key) == nullptr) {
      ++device_.measured;
      choices_.set(key, device_.options_.algorithm);
    }
  }
  return std::make_unique<AsyncKernel>(device_, std::move(inner), at_once_);
}

void AsyncKernels::update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) {
  // UpdateArgs with all it takes is too large for a task.
  struct Kept {
    const UpdateRule* rule;
    float *params, *m, *v;
    const float* gradients;
    std::uint32_t begin, end, state_begin;
    const FlatLayout* layout;
    const StepState* step;
    double* norms;
    void* matrices;
    std::span<const PackedCopy> packed;
  };
  const Kept k{&rule,
               real(args.params),
               real(args.state[0]),
               real(args.state[1]),
               real(args.gradients),
               static_cast<std::uint32_t>(args.begin),
               static_cast<std::uint32_t>(args.end),
               static_cast<std::uint32_t>(args.state_begin),
               args.layout,
               real(args.step),
               real(args.norms),
               real(args.matrices),
               args.packed};
  stream.host(HostTask::of([this, k] {
    UpdateArgs a;
    a.params = k.params;
    a.gradients = k.gradients;
    a.state[0] = k.m;
    a.state[1] = k.v;
    a.begin = k.begin;
    a.end = k.end;
    a.layout = k.layout;
    a.step = k.step;
    a.norms = k.norms;
    a.matrices = k.matrices;
    a.state_begin = k.state_begin;
    std::vector<PackedCopy> packed(k.packed.begin(), k.packed.end());
    for (PackedCopy& copy : packed) copy.to = real(copy.to);
    a.packed = packed;
    inner_.update(*k.rule, a, at_once_);
  }));
}
void AsyncKernels::update_states(const StateUpdateArgs& args, Stream& stream) {
  StateUpdateArgs a = args;
  a.params = real(args.params);
  a.gradients = real(args.gradients);
  a.step = real(args.step);
  stream.host(HostTask::of([this, a] { inner_.update_states(a, at_once_); }));
}
void AsyncKernels::average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                           Stream& stream) {
  stream.host(HostTask::of([this, to = real(average), from = real(params), n, decay, s = real(&step)] {
    inner_.average(to, from, n, decay, *s, at_once_);
  }));
}
void AsyncKernels::sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) {
  stream.host(
      HostTask::of([this, from = real(x), n, to = real(partial)] { inner_.sum_squares(from, n, to, at_once_); }));
}
void AsyncKernels::finish_gradients(const GradientArgs& args, Stream& stream) {
  GradientArgs a = args;
  a.step = real(args.step);
  a.squares = real(args.squares);
  stream.host(HostTask::of([this, a] { inner_.finish_gradients(a, at_once_); }));
}
void AsyncKernels::finish_step(const FinishArgs& args, Stream& stream) {
  FinishArgs a = args;
  a.step = real(args.step);
  a.sums = real(args.sums);
  stream.host(HostTask::of([this, a] { inner_.finish_step(a, at_once_); }));
}
void AsyncKernels::load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) {
  ImageBatch b = batch;
  b.stored = real(batch.stored);
  b.rows = real(batch.rows);
  b.draws = real(batch.draws);
  b.out = real(batch.out);
  stream.host(HostTask::of([this, f = &format, b] {
    ImageFormat near = *f;
    near.table = real(f->table);
    near.scale = real(f->scale);
    near.offset = real(f->offset);
    inner_.load_images(near, b, at_once_);
  }));
}
void AsyncKernels::add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
                       Stream& stream) {
  stream.host(HostTask::of([this, parts, to = real(out), begin, end] {
    std::vector<const float*> near;
    for (const float* p : parts) near.push_back(real(p));
    inner_.add(near, to, begin, end, at_once_);
  }));
}
void AsyncKernels::cast(Tensor from, Tensor to, Stream& stream) {
  stream.host(HostTask::of(
      [this, a = real(from.data), b = real(to.data), ta = from.desc.dtype, tb = to.desc.dtype, n = from.elements()] {
        inner_.cast({{ta, Shape{n}}, a}, {{tb, Shape{n}}, b}, at_once_);
      }));
}

}  // namespace dtrain::test
