#include "runtime/program/program.hpp"

#include <algorithm>
#include <chrono>
#include <optional>

#include <fmt/format.h>

#include "runtime/device/host_mirror.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/plan/graph_analysis.hpp"

namespace dtrain {

namespace {

/// A kernel call with every address resolved: what a step of the plan becomes.
struct Call {
  enum class Kind : std::uint8_t {
    forward,
    recompute,
    activation,
    backward,
    cross_rank_sum,
    bucket_ready,
    params_needed
  } kind = Kind::forward;
  Kernel* kernel = nullptr;
  int node = -1, bucket = -1, loss = 0;
  std::vector<Tensor> in, out, params, state, state_sums, saved, out_gradients;
  std::vector<GradSlot> in_slots, param_slots;
  std::vector<bool> param_first;
  Tensor packed, workspace;
};

struct Calls {
  std::vector<Call> train, evaluate;
};

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

}  // namespace

struct Program::State {
  Device& device;
  Collective* ranks;
  std::vector<std::unique_ptr<Kernel>> kernels;  // by node; null for views
  Plan plan;
  Buffer arena, packed, inputs;
  std::array<InputSlot, slots> input_slots;
  std::array<Tensor, slots> positions;  // what OpArgs::positions views
  std::array<Calls, slots> calls;
  const float* bound = nullptr;          // the store that `calls` points into
  std::vector<ParamId> params_in_store;  // by parameter of the graph
  std::vector<StateId> states_in_store;
  std::vector<bool> stale;                // by node: its packed parameters are not those of the store
  std::vector<PackedCopy> packed_copies;  // by place in the layout
  std::vector<bool> left_by_update;       // by node: all of its packed parameters are among these
  Seconds seconds;
  StepObserver* observer = nullptr;
  Event* backward_mark = nullptr;
  bool waits = false;
  const Call* current = nullptr;  // what was given to the device last

  State(Device& d, Collective* r) : device(d), ranks(r) {}

  Tensor arena_tensor(const std::vector<Block>& blocks, int block, const TensorDesc& desc) const {
    if (block < 0) return {desc, nullptr};
    return {desc, arena.at(blocks[idx(block)].offset)};
  }

  Tensor value_tensor(const PassPlan& pass, ValueId v, int slot, bool backward = false) const {
    const TensorDesc& desc = plan.graph.desc(v);
    const ValueId root = plan.root[idx(v)];
    for (std::size_t i = 0; i < plan.graph.inputs().size(); ++i)
      if (root == plan.graph.inputs()[i].value) return {desc, input_slots[idx(slot)].inputs[i].data};
    return arena_tensor(pass.blocks, (backward ? pass.value_backward : pass.value)[idx(v)], desc);
  }

  Call bind(const PassPlan& pass, std::size_t t, const ParameterStore& store, int slot) const {
    Call call;
    NodeId n = -1;
    const Step& step = pass.steps[t];
    if (const auto* s = std::get_if<Forward>(&step)) n = s->node, call.kind = Call::Kind::forward;
    if (const auto* s = std::get_if<Recompute>(&step)) n = s->node, call.kind = Call::Kind::recompute;
    if (const auto* s = std::get_if<BackwardActivation>(&step)) n = s->node, call.kind = Call::Kind::activation;
    const bool params = params_gradient_node(step) >= 0, data = input_gradient_node(step) >= 0;
    if (params || data) n = backward_node(step), call.kind = Call::Kind::backward;
    if (const auto* s = std::get_if<BucketReady>(&step)) call.bucket = s->bucket, call.kind = Call::Kind::bucket_ready;
    if (const auto* s = std::get_if<ParamsNeeded>(&step))
      call.bucket = s->bucket, call.kind = Call::Kind::params_needed;
    if (const auto* s = std::get_if<CrossRankSum>(&step)) {
      call.kind = Call::Kind::cross_rank_sum;
      const TensorDesc& desc = plan.graph.desc(s->value);
      call.in.push_back(s->gradient ? arena_tensor(pass.blocks, pass.gradient[idx(s->value)], desc)
                                    : value_tensor(pass, s->value, slot));
      return call;
    }
    if (n < 0) {
      if (call.bucket < 0) throw BugError("the plan has a step that this program does not run");
      return call;
    }
    const GraphNode& node = plan.graph.nodes()[idx(n)];
    call.node = n;
    call.kernel = kernels[idx(n)].get();
    call.loss = std::max(0, plan.graph.loss_index(n));
    const bool backward = call.kind != Call::Kind::forward;
    for (ValueId v : node.in) call.in.push_back(value_tensor(pass, v, slot, backward));
    for (ValueId v : node.out) {
      call.out.push_back(node.shape.loss ? store.loss_sums(idx(call.loss)) : value_tensor(pass, v, slot, backward));
      if (!node.shape.loss)
        call.out_gradients.push_back(arena_tensor(pass.blocks, pass.gradient[idx(v)], plan.graph.desc(v)));
    }
    for (ParamId p : node.params) call.params.push_back(store.param(params_in_store[idx(p)]));
    for (StateId id : node.states) {
      call.state.push_back(store.state(states_in_store[idx(id)]));
      call.state_sums.push_back(store.state_sums(states_in_store[idx(id)]));
    }
    for (std::size_t i = 0; i < node.shape.saved.size(); ++i)
      call.saved.push_back(arena_tensor(pass.blocks, pass.saved[idx(n)][i], node.shape.saved[i]));
    const Needs needs = call.kernel->needs();
    if (needs.packed > 0)
      call.packed = {{DType::u8, Shape{static_cast<std::int64_t>(needs.packed)}},
                     packed.at(plan.packed_offset[idx(n)])};
    if (pass.workspace[t] >= 0)
      call.workspace =
          arena_tensor(pass.blocks, pass.workspace[t], {DType::u8, Shape{static_cast<std::int64_t>(needs.workspace)}});
    call.in_slots.resize(node.in.size());
    call.param_slots.resize(node.params.size());
    if (data) {
      for (std::size_t i = 0; i < node.in.size(); ++i) {
        if (pass.input_write[idx(n)][i] == Write::none) continue;
        const ValueId v = node.in[i];
        call.in_slots[i] = {arena_tensor(pass.blocks, pass.gradient[idx(v)], plan.graph.desc(v)),
                            pass.input_write[idx(n)][i]};
      }
    }
    if (params) {
      call.param_first = pass.param_first[idx(n)];
      for (std::size_t i = 0; i < node.params.size(); ++i)
        if (!plan.graph.frozen(node.params[i]))
          call.param_slots[i] = {store.gradient(params_in_store[idx(node.params[i])]), Write::overwrite};
    }
    return call;
  }

  /// Another graph's parameters may lie in the store: names say which is which.
  void find_in(const FlatLayout& layout) {
    const auto find = [](const auto& places, const auto& wanted, const char* what) {
      const auto at = std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.name == wanted.name; });
      if (at == places.end()) throw ShapeError(fmt::format("the model has no {} {}", what, wanted.name));
      if (at->shape != wanted.shape)
        throw ShapeError(
            fmt::format("the {} {} has shape {}; expected {}", what, wanted.name, at->shape.str(), wanted.shape.str()));
      return at->id;
    };
    params_in_store.clear();
    states_in_store.clear();
    for (const GraphParam& p : plan.graph.params()) params_in_store.push_back(find(layout.params, p, "parameter"));
    for (const GraphState& s : plan.graph.states()) states_in_store.push_back(find(layout.states, s, "state"));
  }

  void bind_all(const ParameterStore& store) {
    find_in(store.layout());
    for (int s = 0; s < slots; ++s) {
      Calls& c = calls[idx(s)];
      c.train.clear();
      c.evaluate.clear();
      for (std::size_t t = 0; t < plan.train.steps.size(); ++t) c.train.push_back(bind(plan.train, t, store, s));
      for (std::size_t t = 0; t < plan.evaluate.steps.size(); ++t)
        c.evaluate.push_back(bind(plan.evaluate, t, store, s));
    }
    bound = store.params();
    current = nullptr;
    stale.assign(kernels.size(), true);
  }

  /// A parameter that several nodes read has one such copy, of the first of them.
  void find_packed_copies() {
    left_by_update.assign(kernels.size(), false);
    std::vector<PackedCopy> copies(plan.layout.params.size());
    const auto copy_of = [&](ParamId id) -> PackedCopy& {
      const auto at = std::find_if(plan.layout.params.begin(), plan.layout.params.end(),
                                   [id](const FlatParam& p) { return p.id == id; });
      return copies[idx(at - plan.layout.params.begin())];
    };
    for (std::size_t n = 0; n < kernels.size(); ++n) {
      const GraphNode& node = plan.graph.nodes()[n];
      const auto parts = kernels[n] ? kernels[n]->packed_parts() : std::span<const PackedPart>();
      if (parts.empty()) continue;
      if (std::any_of(parts.begin(), parts.end(),
                      [&](const PackedPart& p) { return copy_of(node.params[idx(p.param)]).to != nullptr; }))
        continue;
      for (const PackedPart& p : parts)
        copy_of(node.params[idx(p.param)]) = {packed.at(plan.packed_offset[n] + p.at), p.dtype,
                                              static_cast<std::uint32_t>(p.channels),
                                              static_cast<std::uint32_t>(p.pixels)};
      left_by_update[n] = true;
    }
    if (std::find(left_by_update.begin(), left_by_update.end(), true) != left_by_update.end())
      packed_copies = std::move(copies);
  }

  /// Packs the parameters of a forward where they have changed.
  void refresh(const Call& call, Stream& stream) {
    if (!call.packed || !stale[idx(call.node)]) return;
    call.kernel->pack(call.params, call.packed, stream);
    stale[idx(call.node)] = false;
  }

  /// What a call does in this pass.
  void give(Call& call, const OpArgs& args, const Pass& pass, StepHooks& hooks, Stream& stream) {
    switch (call.kind) {
      case Call::Kind::forward:
      case Call::Kind::recompute:
        refresh(call, stream);
        call.kernel->forward(args, stream);
        break;
      case Call::Kind::activation:
        call.kernel->backward_activation(args, call.out_gradients[0], stream);
        break;
      case Call::Kind::backward:
        refresh(call, stream);  // what has no forward: a loss that backward computes
        for (std::size_t i = 0; i < call.param_first.size(); ++i)
          if (call.param_slots[i].grad)
            call.param_slots[i].write = pass.first && call.param_first[i] ? Write::overwrite : Write::accumulate;
        call.kernel->backward(args, {call.out_gradients, call.in_slots, call.param_slots}, stream);
        break;
      case Call::Kind::cross_rank_sum:
        if (ranks) ranks->all_reduce(call.in[0], Reduce::sum, stream);
        break;
      case Call::Kind::bucket_ready:
        if (pass.last) hooks.bucket_ready(call.bucket, stream);
        break;
      case Call::Kind::params_needed:
        if (pass.first) hooks.params_needed(call.bucket, stream);
        break;
    }
  }

  /// "layer "conv_1" (conv2d)"
  std::string text_of(const Call& call) const {
    if (call.node < 0) return "what ranks exchange";
    const GraphNode& node = plan.graph.nodes()[idx(call.node)];
    const bool forward = call.kind == Call::Kind::forward || call.kind == Call::Kind::recompute;
    return fmt::format("the {} pass of layer \"{}\" ({})", forward ? "forward" : "backward", node.name,
                       name_of(node.op));
  }

  void allocate_inputs(std::span<const BatchLayout> layouts) {
    const BatchLayout own = layouts.empty() ? batch_layout(plan.graph) : layouts[0];
    std::size_t bytes = own.bytes;
    for (const BatchLayout& layout : layouts) bytes = std::max(bytes, layout.bytes);
    inputs = Buffer(device, bytes * slots);
    for (std::size_t s = 0; s < slots; ++s) {
      InputSlot& slot = input_slots[s];
      auto* const memory = static_cast<std::byte*>(inputs.at(bytes * s));
      slot.carried = memory + own.copied;
      for (const BatchLayout::Port& port : own.ports) slot.inputs.push_back({port.desc, memory + port.offset});
      slot.positions = own.positions_in(slot.carried);
      positions[s] = slot.positions;
    }
  }
};

Program::Program(Device& device, Graph graph, const PlanOptions& options, Collective* ranks,
                 std::span<const BatchLayout> layouts)
    : state_(std::make_unique<State>(device, ranks)) {
  State& s = *state_;
  const Analysis analysis(graph, options.train);
  for (NodeId n = 0; n < static_cast<NodeId>(graph.nodes().size()); ++n) {
    const GraphNode& node = graph.nodes()[idx(n)];
    std::vector<TensorDesc> in;
    for (ValueId v : node.in) in.push_back(graph.desc(v));
    try {
      s.kernels.push_back(
          device.kernels().prepare(node.op, in, options.train ? analysis.use_of(n) : OpUse{false, false, false}));
    } catch (const DeviceError& e) {
      throw DeviceError(fmt::format("layer \"{}\": {}", node.name, e.what()));
    }
  }
  PlanOptions with_needs = options;
  with_needs.needs = [&](NodeId n) { return s.kernels[idx(n)]->needs(); };
  s.plan = make_plan(std::move(graph), with_needs);
  try {
    s.arena = Buffer(device, std::max<std::size_t>(s.plan.arena_bytes(), 64));
    s.packed = Buffer(device, std::max<std::size_t>(s.plan.packed_bytes, 64));
    s.allocate_inputs(layouts);
  } catch (const OutOfMemory& e) {
    throw OutOfMemory(
        fmt::format("{}; the plan for a micro batch of {} needs {} MiB of activations and {} MiB of packed parameters",
                    e.what(), s.plan.graph.batch(), s.plan.arena_bytes() >> 20, s.plan.packed_bytes >> 20));
  }
  s.find_packed_copies();
}

Program::~Program() = default;

const Plan& Program::plan() const noexcept {
  return state_->plan;
}
const InputSlot& Program::slot(int index) const noexcept {
  return state_->input_slots[idx(index)];
}
const Tensor& Program::input(int slot, std::string_view name) const {
  return state_->input_slots[idx(slot)].inputs[state_->plan.graph.input_index(name)];
}
Program::Seconds Program::seconds() const noexcept {
  return state_->seconds;
}
void Program::mark_backward(Event* mark) noexcept {
  state_->backward_mark = mark;
}
void Program::wait_after_each_step(bool wait) noexcept {
  state_->waits = wait;
}
std::string Program::explain(const std::string& what) const {
  const State& s = *state_;
  if (s.current == nullptr) return what;
  return fmt::format(
      "{}; the last work that the host gave the device itself was {}: cuda.synchronous: true says where it goes wrong",
      what, s.text_of(*s.current));
}
void Program::observe(StepObserver* observer) noexcept {
  state_->observer = observer;
}
MemoryUse Program::memory(int optimizer_floats, int shards) const {
  return memory_use(state_->plan, optimizer_floats, shards);
}

Tensor Program::value(ValueId v) const {
  return state_->value_tensor(state_->plan.train, v, 0);
}

std::span<const PackedCopy> Program::packed_copies() const noexcept {
  return state_->packed_copies;
}

void Program::parameters_changed(Changed changed) noexcept {
  State& s = *state_;
  // What was stale before a step that was skipped still is: an update makes nothing fresh.
  for (std::size_t n = 0; n < s.stale.size(); ++n)
    if (changed == Changed::anyhow || !s.left_by_update[n]) s.stale[n] = true;
}

Tensor Program::output(int slot, std::size_t index) const {
  return state_->value_tensor(state_->plan.evaluate, state_->plan.graph.outputs().at(index).value, slot);
}

void Program::pack(const ParameterStore& store, Stream& stream, Changed changed) {
  State& s = *state_;
  if (s.bound != store.params()) s.bind_all(store);
  parameters_changed(changed);
  for (Call& call : s.calls[0].evaluate)
    if (call.kind == Call::Kind::forward) s.refresh(call, stream);
}

std::string Program::wrong_copy(const ParameterStore& store, Stream& stream) {
  State& s = *state_;
  if (s.bound != store.params()) return {};  // none was made yet
  for (const Call& call : s.calls[0].evaluate) {
    if (call.kind != Call::Kind::forward || !call.packed || s.stale[idx(call.node)]) continue;
    const HostMirror image(s.device, call.packed.data, call.packed.bytes());
    const auto* const bytes = image.as<std::byte>();
    image.pull(stream);
    stream.synchronize();
    const std::vector<std::byte> before(bytes, bytes + image.bytes());
    call.kernel->pack(call.params, call.packed, stream);
    image.pull(stream);
    stream.synchronize();
    if (std::equal(before.begin(), before.end(), bytes)) continue;
    return s.plan.graph.params()[idx(s.plan.graph.nodes()[idx(call.node)].params[0])].name;
  }
  return {};
}

void Program::run(const Pass& pass, int slot, const ParameterStore& store, const StepState& step, StepHooks& hooks,
                  Stream& stream) {
  State& s = *state_;
  if (s.bound != store.params()) s.bind_all(store);
  const bool train = pass.mode == Mode::train;
  if (train && s.plan.train.steps.empty()) throw BugError("a training pass of a program that was planned without");
  Calls& calls = s.calls[idx(slot)];
  const auto begin = std::chrono::steady_clock::now();
  auto backward_begin = begin;
  bool forward = true;
  if (s.waits) stream.synchronize();  // what came before is no layer's fault
  StepObserver* const observer = train ? s.observer : nullptr;
  auto call_begin = begin;
  std::size_t number = 0;
  for (Call& call : train ? calls.train : calls.evaluate) {
    if (forward && call.kind != Call::Kind::forward && call.kind != Call::Kind::params_needed &&
        call.kind != Call::Kind::cross_rank_sum) {
      forward = false;
      backward_begin = std::chrono::steady_clock::now();
      if (train && s.backward_mark != nullptr) stream.record(*s.backward_mark);
    }
    Pass of_call = pass;
    of_call.recompute = call.kind == Call::Kind::recompute;
    const OpArgs args{
        call.in,     call.out,       call.params, call.state, call.saved, call.state_sums, {&s.positions[idx(slot)], 1},
        call.packed, call.workspace, of_call,     step,       call.loss};
    s.current = &call;
    std::optional<DeviceRange> range;
    if (call.node >= 0 && s.device.asynchronous())
      range.emplace(s.device, s.plan.graph.nodes()[idx(call.node)].name.c_str());
    Event* const mark = observer && s.device.asynchronous() ? observer->mark(number) : nullptr;
    if (mark != nullptr) stream.record(*mark);
    try {
      s.give(call, args, pass, hooks, stream);
      if (s.waits || (observer && mark == nullptr && s.device.asynchronous())) stream.synchronize();
    } catch (const OutOfMemory&) {
      throw;
    } catch (const DeviceError& e) {
      throw DeviceError(fmt::format("{}: {}", s.text_of(call), e.what()));
    }
    if (observer) {
      const auto now = std::chrono::steady_clock::now();
      if (mark == nullptr)
        observer->ran(s.plan.train.steps[number], std::chrono::duration<double>(now - call_begin).count());
      call_begin = now;
      ++number;
    }
  }
  if (observer && s.device.asynchronous())
    if (Event* const mark = observer->mark(number)) stream.record(*mark);
  if (train) {
    using Duration = std::chrono::duration<double>;
    s.seconds = {Duration(begin.time_since_epoch()).count(), Duration(backward_begin - begin).count(),
                 seconds_since(backward_begin)};
  }
}

}  // namespace dtrain
