#include "runtime/cuda/update/update_ops.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/update/images.hpp"
#include "runtime/cuda/update/update_kernels.hpp"
#include "runtime/optim/update_math.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain::cuda {

namespace {

static_assert(FlatTables::group == FlatLayout::alignment && FlatTables::block == norm_block);

std::int64_t blocks_of(std::int64_t floats) {
  return divide_up(floats, FlatTables::block);
}

bool same(const FlatEntry& a, const FlatEntry& b) {
  return a.offset == b.offset && a.size == b.size && a.packed == b.packed && a.packed_type == b.packed_type &&
         a.decay == b.decay && a.group == b.group && a.channels == b.channels && a.pixels == b.pixels;
}
bool same(const FlatStateEntry& a, const FlatStateEntry& b) {
  return a.offset == b.offset && a.size == b.size && a.momentum == b.momentum;
}

}  // namespace

/// Of one layout: what it is made of, to know it again, and where it lies.
class FlatOps::Tables {
 public:
  Tables(Device& device, const FlatLayout& layout, std::span<const PackedCopy> packed, Stream& stream)
      : floats_(layout.param_floats) {
    for (const FlatParam& p : layout.trained())
      if (std::find(groups_.begin(), groups_.end(), p.update) == groups_.end()) groups_.push_back(p.update);
    for (std::size_t i = 0; i < layout.trained().size(); ++i) params_.push_back(entry(layout, i, packed));
    for (const FlatState& s : layout.states) states_.push_back(entry(s));
    std::vector<std::uint32_t> owner(divide_up(static_cast<std::int64_t>(floats_), FlatTables::group),
                                     FlatTables::nobody),
        block_owner;
    for (std::size_t i = 0; i < params_.size(); ++i) {
      FlatEntry& p = params_[i];
      p.first_block = static_cast<std::int64_t>(block_owner.size());
      block_owner.resize(block_owner.size() + static_cast<std::size_t>(blocks_of(p.size)),
                         static_cast<std::uint32_t>(i));
      const auto first = owner.begin() + p.offset / FlatTables::group;
      std::fill(first, first + divide_up(p.size, FlatTables::group), static_cast<std::uint32_t>(i));
    }
    tables_ = {upload(device, owner, stream),
               upload(device, params_, stream),
               static_cast<std::int64_t>(params_.size()),
               upload(device, block_owner, stream),
               static_cast<std::int64_t>(block_owner.size()),
               upload(device, states_, stream),
               static_cast<std::int64_t>(states_.size()),
               0,
               1};
    stream.synchronize();  // what was copied from is about to go
  }
  bool of(const FlatLayout& layout, std::span<const PackedCopy> packed) const {
    // Shares of whole blocks may leave more room behind the same parameters.
    if (layout.param_floats != floats_) return false;
    if (layout.trained().size() != params_.size() || layout.states.size() != states_.size()) return false;
    for (const FlatParam& p : layout.trained())
      if (std::find(groups_.begin(), groups_.end(), p.update) == groups_.end()) return false;
    for (std::size_t i = 0; i < params_.size(); ++i)
      if (!same(params_[i], entry(layout, i, packed))) return false;
    for (std::size_t i = 0; i < states_.size(); ++i)
      if (!same(states_[i], entry(layout.states[i]))) return false;
    return true;
  }
  const FlatTables& tables() const { return tables_; }
  /// What sets of parameters are updated alike: mostly one.
  std::span<const ParamUpdate> groups() const { return groups_; }
  /// For an update of those of one.
  FlatTables of_group(std::size_t group) const {
    FlatTables tables = tables_;
    tables.update_group = static_cast<std::uint32_t>(group);
    tables.rate_factor = static_cast<float>(groups_[group].learning_rate_factor);
    return tables;
  }

 private:
  /// `packed`, where there is any, has an entry for each parameter of the layout, in its order.
  FlatEntry entry(const FlatLayout& layout, std::size_t i, std::span<const PackedCopy> packed) const {
    const FlatParam& p = layout.params[i];
    const auto group = std::find(groups_.begin(), groups_.end(), p.update) - groups_.begin();
    FlatEntry e{static_cast<std::int64_t>(p.offset),
                static_cast<std::int64_t>(p.size),
                nullptr,
                Element::f32,
                p.decay,
                false,
                p.matrices.empty() ? static_cast<std::uint32_t>(group) : FlatTables::nobody,
                1,
                1,
                0};
    if (packed.empty() || packed[i].to == nullptr) return e;
    const PackedCopy& copy = packed[i];
    // The kernel counts elements of such a parameter in 32 bits.
    if (copy.swapped() && (p.size >> 31 != 0 || p.size % (std::size_t{copy.channels} * copy.pixels) != 0))
      throw BugError("a swapped copy of a parameter that has no such rows");
    e.packed = copy.to;
    e.packed_type = element_of(copy.dtype);
    e.swapped = copy.swapped();
    e.channels = copy.channels;
    e.pixels = copy.pixels;
    return e;
  }
  static FlatStateEntry entry(const FlatState& s) {
    return {static_cast<std::int64_t>(s.offset), static_cast<std::int64_t>(s.size), static_cast<float>(s.momentum)};
  }
  template <class T>
  const T* upload(Device& device, const std::vector<T>& values, Stream& stream) {
    if (values.empty()) return nullptr;
    const std::size_t bytes = values.size() * sizeof(T);
    memory_.emplace_back(device, bytes);
    device.copy(memory_.back().data(), values.data(), bytes, stream);
    return static_cast<const T*>(memory_.back().data());
  }

  std::size_t floats_;
  std::vector<ParamUpdate> groups_;
  std::vector<FlatEntry> params_;
  std::vector<FlatStateEntry> states_;
  std::vector<Buffer> memory_;
  FlatTables tables_{};
};

FlatOps::FlatOps(Device& device, CudaContext context)
    : context_(std::move(context)), device_(device), products_(device, context_) {}
FlatOps::~FlatOps() = default;

const FlatOps::Tables& FlatOps::tables_of(const FlatLayout& layout, std::span<const PackedCopy> packed,
                                          Stream& stream) {
  if (!packed.empty() && packed.size() != layout.params.size())
    throw BugError("packed copies for some parameters of a layout, not for all");
  for (const auto& known : tables_)
    if (known->of(layout, packed)) return *known;
  tables_.push_back(std::make_unique<Tables>(device_, layout, packed, stream));
  return *tables_.back();
}

void FlatOps::update(const UpdateRule& rule, const UpdateArgs& a, Stream& stream) {
  const std::size_t end = std::min(a.end, a.layout->param_floats);
  if (a.begin >= end) return;
  const Tables& tables = tables_of(*a.layout, a.packed, stream);
  const Launch where = at(stream, "update");
  const FlatRange range{a.params,
                        a.gradients,
                        {a.state[0], a.state[1]},
                        static_cast<std::int64_t>(a.begin),
                        static_cast<std::int64_t>(end),
                        static_cast<std::int64_t>(a.state_begin)};
  if (needs_whole_parameters(rule)) {
    for (const FlatParam& p : a.layout->params) {
      const bool inside = p.offset >= a.begin && p.offset + p.size <= end;
      const bool outside = p.offset + p.size <= a.begin || p.offset >= end;
      if (!inside && !outside) throw BugError("an update that needs the norm of a parameter got a part of it");
    }
  }
  std::visit(
      [&](const auto& r) {
        if constexpr (std::is_same_v<std::decay_t<decltype(r)>, Muon>)
          return update_by_muon(r, a, range, stream);
        else {
          for (std::size_t g = 0; g < tables.groups().size(); ++g) {
            auto own = r;
            own.weight_decay = tables.groups()[g].weight_decay.value_or(r.weight_decay);
            cuda::update(where, tables.of_group(g), range, a.step, own, a.norms);
          }
        }
      },
      rule.kind);
}

/// AdamW for each group of what has no matrices, and then one matrix after another, in the same scratch memory.
void FlatOps::update_by_muon(const Muon& rule, const UpdateArgs& a, const FlatRange& range, Stream& stream) {
  const Tables& tables = tables_of(*a.layout, a.packed, stream);
  const Launch where = at(stream, "update");
  for (std::size_t g = 0; g < tables.groups().size(); ++g) {
    AdamW own = rule.adamw;
    own.weight_decay = tables.groups()[g].weight_decay.value_or(own.weight_decay);
    FlatTables of_group = tables.of_group(g);
    of_group.rate_factor *= muon_adamw_factor(rule);
    cuda::update(where, of_group, range, a.step, own, nullptr);
  }
  products_.prepare(rule, *a.layout, stream);
  const std::span<const FlatParam> params = a.layout->trained();
  for (std::size_t i = 0; i < params.size(); ++i) {
    const FlatParam& p = params[i];
    if (static_cast<std::int64_t>(p.offset) < range.begin || static_cast<std::int64_t>(p.offset) >= range.end) continue;
    const std::int64_t columns = p.shape.elements() / p.shape[0];
    FlatMatrix matrix{static_cast<std::int64_t>(i),
                      static_cast<std::int64_t>(p.offset),
                      0,
                      columns,
                      p.decay ? p.update.weight_decay.value_or(rule.weight_decay) : 0.0,
                      static_cast<float>(p.update.learning_rate_factor)};
    for (const std::int64_t rows : p.matrices) {
      matrix.rows = rows;
      products_.update(rule, tables.tables(), range, matrix, {a.step, a.norms, a.matrices}, stream);
      matrix.begin += rows * columns;
    }
  }
}

void FlatOps::update_states(const StateUpdateArgs& a, Stream& stream) {
  if (a.layout->states.empty()) return;
  const FlatTables& tables = tables_of(*a.layout, {}, stream).tables();
  update_statistics(at(stream, "running statistics"), tables, a.params, a.gradients, a.step);
}

void FlatOps::average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                      Stream& stream) {
  if (n > 0)
    move_average(at(stream, "average of parameters"), average, params, static_cast<std::int64_t>(n), decay, &step);
}

void FlatOps::sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) {
  if (n > 0) cuda::sum_squares(at(stream, "gradient norm"), x, static_cast<std::int64_t>(n), partial);
}

void FlatOps::finish_gradients(const GradientArgs& args, Stream& stream) {
  cuda::finish_gradients(at(stream, "gradient norm"), args);
}
void FlatOps::finish_step(const FinishArgs& args, Stream& stream) {
  cuda::finish_step(at(stream, "end of the step"), args);
}

void FlatOps::add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream& stream) {
  if (begin < end && !parts.empty())
    add_parts(at(stream, "sum over micro batches"), parts.data(), parts.size(), out, static_cast<std::int64_t>(begin),
              static_cast<std::int64_t>(end));
}

void FlatOps::load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) {
  if (batch.n > 0) cuda::load_images(at(stream, "images"), element_of(batch.out_type), format, batch);
}

void FlatOps::cast(Tensor from, Tensor to, Stream& stream) {
  if (from.elements() > 0)
    cuda::cast(at(stream, "cast"), element_of(from.desc), element_of(to.desc), from.data, {to.data, Put::overwrite},
               from.elements());
}

}  // namespace dtrain::cuda
