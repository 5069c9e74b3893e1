// Attention by own kernels, or as cuDNN graphs. The graphs have been checked by description and run in place of the
// library's by loops on a host; no GPU has run them yet.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/attention.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"

namespace dtrain::cuda {

namespace {

static_assert(largest_head == Attention::largest_size);

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(CudaContext& context, const Attention& op, Inputs in, const OpUse& use)
      : op_(op),
        at_(op, in),
        dtype_(in[0].dtype),
        element_(element_of(dtype_)),
        rows_(at_.samples * at_.positions),
        row_{at_.heads * at_.size, at_.kv_heads * at_.size, at_.kv_heads * at_.size} {
    if (op.rotary) {
      const std::vector<double> all = op.rotary->frequencies(at_.size);
      for (std::size_t c = 0; c < all.size(); ++c) frequencies_.of[c] = all[c] / std::numbers::pi;
    }
    prepare_graphs(context, in, use);
  }

  Needs needs() const override { return {std::max(own_bytes(), workspace_need(graph_bytes_)), 0}; }

  void forward(const OpArgs& a, Stream& stream) override {
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    void* const log_sums = keep ? a.saved[0].data : nullptr;
    if (!forward_)
      return attention(at(stream, name), element_, place(a, stream), a.out[0].data, static_cast<float*>(log_sums));
    std::byte* const workspace = workspace_of(a);
    const auto [q, k, v] = graph_rows(a, stream, workspace);
    forward_->run({q, k, v, a.out[0].data, keep ? log_sums : workspace + log_sums_at_}, workspace, stream.native());
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const std::array<Slot, 3> to{slot(g, 0), slot(g, 1), slot(g, 2)};
    if (to[0].put == Put::none && to[1].put == Put::none && to[2].put == Put::none) return;
    if (!backward_) {
      attention_gradient(at(stream, name), element_, place(a, stream), a.out[0].data, g.out[0].data,
                         a.saved[0].as<const float>(), shared(a),
                         {to[0], to[1], to[2], at_.parts[0].row, at_.parts[1].row, at_.parts[2].row});
      return;
    }
    std::byte* const workspace = workspace_of(a);
    const auto [q, k, v] = graph_rows(a, stream, workspace);
    backward_->run({q, k, v, a.out[0].data, g.out[0].data, a.saved[0].data, workspace + gradients_at_[0],
                    workspace + gradients_at_[1], workspace + gradients_at_[2]},
                   workspace, stream.native());
    for (std::size_t i = 0; i < 3; ++i) {
      if (to[i].put == Put::none) continue;
      const AttentionPlace turned = undropped({}, nullptr, i < 2 ? graph_turns(workspace) : nullptr);
      attention_rows(at(stream, name), element_, turned, row_[i] / at_.size, {workspace + gradients_at_[i], row_[i]},
                     true, to[i], at_.parts[i].row);
    }
  }

 private:
  static constexpr const char* name = "attention";

  // ---- own kernels: what each position sees, what the scores of a row share, cosines and sines ----

  std::size_t own_bytes() const {
    return static_cast<std::size_t>(rows_) * sizeof(VisibleRange) +
           bytes_of(rows_ * at_.heads + turn_elements(), DType::f32);
  }
  std::int64_t turn_elements() const { return op_.rotary ? at_.positions * at_.size : 0; }
  VisibleRange* ranges(const OpArgs& a) const { return a.workspace.as<VisibleRange>(); }
  float* shared(const OpArgs& a) const { return reinterpret_cast<float*>(ranges(a) + rows_); }

  std::byte* first_of(void* data, std::size_t which) const {
    return static_cast<std::byte*>(data) + bytes_of(at_.parts[which].channel, dtype_);
  }
  HeadRows rows_of(const OpArgs& a, std::size_t which) const {
    return {first_of(a.in[at_.parts[which].input].data, which), at_.parts[which].row};
  }
  Slot slot(const OpGrads& g, std::size_t which) const {
    const std::size_t input = at_.parts[which].input;
    if (!wanted(g.in, input)) return {};
    Slot to = slot_of(g.in[input]);
    to.to = first_of(to.to, which);
    return to;
  }

  AttentionPlace undropped(const std::array<HeadRows, 3>& of, const VisibleRange* ranges, const float* turns) const {
    return {at_.samples, at_.positions, at_.heads, at_.kv_heads, at_.size, at_.scale, of[0],
            of[1],       of[2],         ranges,    turns,        0,        0,         1,
            nullptr,     nullptr};
  }
  /// Enqueues what it points to.
  AttentionPlace place(const OpArgs& a, Stream& stream) const {
    const auto* documents =
        at_.documents < 0 ? nullptr : a.in[static_cast<std::size_t>(at_.documents)].as<const std::int32_t>();
    attention_ranges(at(stream, name), rule(), at_.samples, documents, ranges(a));
    float* const turns = op_.rotary ? shared(a) + rows_ * at_.heads : nullptr;
    if (turns != nullptr) attention_turns(at(stream, name), frequencies_, at_.positions, at_.size / 2, turns);
    AttentionPlace p = undropped({rows_of(a, 0), rows_of(a, 1), rows_of(a, 2)}, ranges(a), turns);
    if (a.pass.mode != Mode::train || op_.dropout == 0) return p;
    p.id = op_.id;
    p.threshold = static_cast<std::uint32_t>(std::ceil(op_.dropout * 0x1p24));
    p.kept_scale = static_cast<float>(1.0 / (1.0 - op_.dropout));
    p.stream_positions = a.positions[0].as<const std::uint64_t>();
    p.step = &a.step;
    return p;
  }
  VisibleRule rule() const { return {at_.positions, op_.causal, op_.window}; }

  // ---- graphs: turned queries and keys, log sums that nobody keeps, gradients before they go where they are wanted
  // ----

  void prepare_graphs(CudaContext& context, Inputs in, const OpUse& use) {
    auto graph = attention_graph(op_, in, false, use.trained);
    if (!graph) return;
    graph->nondeterministic = context.options.nondeterministic;
    std::vector<GraphOperand> operands;
    for (const std::int64_t row : graph->rows) operands.push_back(read_operand(rows_ * row, dtype_));
    std::vector<GraphOperand> both = operands;
    both.push_back(written_operand(rows_ * row_[0], dtype_));
    both.push_back(written_operand(rows_ * at_.heads, DType::f32));
    OwnKernels own;
    own.workspace = own_bytes();
    own.most_workspace = at_.library_bytes();
    own.instead = [this, rows = graph->rows](const GraphOperands& o, std::byte* workspace, void* stream) {
      attention({stream, name}, element_, measured(o, rows, workspace, stream), o[3], static_cast<float*>(o[4]));
    };
    forward_ = quicker_graph(context, *graph, both, own);
    if (use.trained && use.input_gradient) {
      graph->backward = true;
      // Weights are of a sum of 1, so that none of the gradients is infinite in float16.
      own.before = [this, rows = graph->rows](const GraphOperands& o, std::byte* workspace, void* stream) {
        attention({stream, name}, element_, measured(o, rows, workspace, stream), o[3], static_cast<float*>(o[5]));
      };
      for (int i = 0; i < 2; ++i) operands.push_back(read_operand(rows_ * row_[0], dtype_));
      operands.push_back(read_operand(rows_ * at_.heads, DType::f32));
      for (const std::int64_t row : row_) operands.push_back(written_operand(rows_ * row, dtype_));
      own.instead = [this, rows = graph->rows](const GraphOperands& o, std::byte* workspace, void* stream) {
        const AttentionPlace p = measured(o, rows, workspace, stream);
        auto* const of_rows =
            reinterpret_cast<float*>(workspace + static_cast<std::size_t>(rows_) * sizeof(VisibleRange));
        attention_gradient(
            {stream, name}, element_, p, o[3], o[4], static_cast<const float*>(o[5]), of_rows,
            {{o[6], Put::overwrite}, {o[7], Put::overwrite}, {o[8], Put::overwrite}, row_[0], row_[1], row_[2]});
      };
      backward_ = quicker_graph(context, *graph, operands, own);
    }
    cudnn_ = context.cudnn;
    place_graphs();
  }
  void place_graphs() {
    if (!forward_ && !backward_) return;
    Offsets at;
    at.place(std::max(forward_ ? forward_->workspace() : 0, backward_ ? backward_->workspace() : 0));
    turns_at_ = at.place(bytes_of(turn_elements(), DType::f32));
    for (std::size_t i = 0; i < 2; ++i) turned_at_[i] = at.place(op_.rotary ? bytes_of(rows_ * row_[i], dtype_) : 0);
    if (forward_) log_sums_at_ = at.place(bytes_of(rows_ * at_.heads, DType::f32));
    for (std::size_t i = 0; backward_ && i < 3; ++i) gradients_at_[i] = at.place(bytes_of(rows_ * row_[i], dtype_));
    graph_bytes_ = at.end();
  }

  /// Where own kernels run to be measured: turns aside, which graphs do not make either.
  AttentionPlace measured(const GraphOperands& o, const std::array<std::int64_t, 3>& rows, std::byte* workspace,
                          void* stream) const {
    auto* const ranges = reinterpret_cast<VisibleRange*>(workspace);
    attention_ranges({stream, name}, rule(), at_.samples, nullptr, ranges);
    return undropped({HeadRows{o[0], rows[0]}, HeadRows{o[1], rows[1]}, HeadRows{o[2], rows[2]}}, ranges, nullptr);
  }

  float* graph_turns(std::byte* workspace) const {
    return op_.rotary ? reinterpret_cast<float*>(workspace + turns_at_) : nullptr;
  }
  /// Queries, keys and values as a graph reads them. Enqueues what turns them.
  std::array<void*, 3> graph_rows(const OpArgs& a, Stream& stream, std::byte* workspace) const {
    std::array<void*, 3> of{};
    for (std::size_t i = 0; i < 3; ++i) of[i] = const_cast<void*>(rows_of(a, i).at);
    float* const turns = graph_turns(workspace);
    if (turns == nullptr) return of;
    attention_turns(at(stream, name), frequencies_, at_.positions, at_.size / 2, turns);
    for (std::size_t i = 0; i < 2; ++i) {
      of[i] = workspace + turned_at_[i];
      attention_rows(at(stream, name), element_, undropped({}, nullptr, turns), row_[i] / at_.size, rows_of(a, i),
                     false, {of[i], Put::overwrite}, row_[i]);
    }
    return of;
  }

  Attention op_;
  AttentionLayout at_;
  DType dtype_;
  Element element_;
  std::int64_t rows_;
  std::array<std::int64_t, 3> row_;  // elements of a position's queries, keys and values
  AttentionFrequencies frequencies_{};
  std::shared_ptr<CudnnGraphs> cudnn_;             // outlives the plans
  std::shared_ptr<GraphPlan> forward_, backward_;  // null: own kernels
  std::size_t graph_bytes_ = 0, turns_at_ = 0, log_sums_at_ = 0;
  std::array<std::size_t, 2> turned_at_{};
  std::array<std::size_t, 3> gradients_at_{};
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const Attention& op, Inputs in, const OpUse& use) {
  return std::make_unique<AttentionKernel>(context, op, in, use);
}

}  // namespace dtrain::cuda
