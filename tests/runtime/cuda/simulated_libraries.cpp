// cuBLASLt and cuDNN without a GPU: plain loops over host memory behind the same interfaces, so that the CUDA device's
// layers (what they pack, place, add and leave to own kernels) run under the op table's suites.
// Half of the shapes have no fused algorithm, so that both ways are taken; workspaces are spoilt in every call.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "runtime/cuda/library/blas_lt.hpp"
#include "runtime/cuda/library/cudnn_graphs.hpp"
#include "runtime/cuda/library/tuner.hpp"
#include "runtime/ops/activation_math.hpp"
#include "runtime/tensor/error.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::cuda {

namespace {

constexpr std::size_t workspace_bytes = 1000;
/// As the libraries ask for; what was there is lost.
void spoil(void* workspace) {
  if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0) throw BugError("a workspace not on 256 bytes");
  std::memset(workspace, 0xFF, workspace_bytes);
}
void expect_aligned(const void* operand) {
  if (reinterpret_cast<std::uintptr_t>(operand) % 64 != 0) throw BugError("an operand not on 64 bytes");
}

float read(const void* p, DType dtype, std::int64_t i) {
  if (dtype == DType::bf16) return to_float(static_cast<const Bf16*>(p)[i]);
  if (dtype == DType::f16) return to_float(static_cast<const F16*>(p)[i]);
  return static_cast<const float*>(p)[i];
}
void write(void* p, DType dtype, std::int64_t i, float v) {
  if (dtype == DType::bf16) {
    static_cast<Bf16*>(p)[i] = to_bf16(v);
  } else if (dtype == DType::f16) {
    static_cast<F16*>(p)[i] = to_f16(v);
  } else {
    static_cast<float*>(p)[i] = v;
  }
}

/// A factor as TF32 has it: ten bits, to nearest.
float factor(float v, bool tf32) {
  return tf32 ? std::bit_cast<float>((std::bit_cast<std::uint32_t>(v) + 0x1000u) & ~0x1FFFu) : v;
}

// ---- products ------------------------------------------------------------------------------------------------------

class SimulatedProduct final : public ProductPlan {
 public:
  explicit SimulatedProduct(const Product& p) : p_(p) {}
  std::size_t workspace() const noexcept override { return workspace_bytes; }
  void run(const ProductOperands& o, void* workspace, void*) override {
    spoil(workspace);
    for (const void* operand : {o.left, o.right, static_cast<const void*>(o.out)}) expect_aligned(operand);
    using Epilogue = Product::Epilogue;
    const bool bias = p_.epilogue == Epilogue::bias || p_.epilogue == Epilogue::bias_relu;
    const bool relu = p_.epilogue == Epilogue::relu || p_.epilogue == Epilogue::bias_relu;
    for (std::int64_t i = 0; i < p_.rows; ++i) {
      for (std::int64_t j = 0; j < p_.columns; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k < p_.inner; ++k) sum += static_cast<double>(left(o, i, k)) * right(o, k, j);
        const std::int64_t to = i * p_.columns + j;
        if (o.add) sum += read(o.out, p_.result, to);
        if (bias) sum += read(o.vector, p_.result, j);
        if (relu && sum < 0) sum = 0;
        write(o.out, p_.result, to, static_cast<float>(sum));
      }
      if (p_.epilogue != Epilogue::left_sums) continue;
      double sum = 0;
      for (std::int64_t k = 0; k < p_.inner; ++k) sum += left(o, i, k);
      write(o.vector, p_.result, i, static_cast<float>(sum));
    }
  }

 private:
  float left(const ProductOperands& o, std::int64_t i, std::int64_t k) const {
    return factor(read(o.left, p_.factors, p_.left_transposed ? k * p_.rows + i : i * p_.inner + k), p_.tf32);
  }
  float right(const ProductOperands& o, std::int64_t k, std::int64_t j) const {
    return factor(read(o.right, p_.factors, p_.right_transposed ? j * p_.inner + k : k * p_.columns + j), p_.tf32);
  }
  Product p_;
};

class SimulatedBlasLt final : public BlasLt {
 public:
  std::vector<std::string> algorithms(const Product& p) override {
    const bool fused = p.epilogue != Product::Epilogue::none;
    if (fused && (p.epilogue == Product::Epilogue::left_sums ? p.rows : p.columns) % 2 != 0) return {};
    return {"unsuitable", "suitable"};
  }
  std::unique_ptr<ProductPlan> plan(const Product& p, const std::string& algorithm) override {
    if (algorithm != "suitable") return nullptr;
    return std::make_unique<SimulatedProduct>(p);
  }
};

// ---- convolutions --------------------------------------------------------------------------------------------------

using Axes = std::array<std::int64_t, 3>;

/// Of two or three dimensions: the outermost one may be missing.
Axes axes(const Extents& of, std::int64_t missing) {
  return {of.size() == 3 ? of[0] : missing, of[of.size() - 2], of[of.size() - 1]};
}
/// The positions of N, C, [D,] H, W.
Axes volume(const std::vector<std::int64_t>& dims) {
  return {dims.size() == 5 ? dims[2] : 1, dims[dims.size() - 2], dims[dims.size() - 1]};
}
std::int64_t product(const Axes& of) {
  return of[0] * of[1] * of[2];
}
/// Number `i` of a box.
Axes place(std::int64_t i, const Axes& box) {
  return {i / box[2] / box[1], i / box[2] % box[1], i % box[2]};
}

class SimulatedConvolution final : public GraphPlan {
 public:
  explicit SimulatedConvolution(const ConvolutionGraph& g) : g_(g) {}
  std::size_t workspace() const noexcept override { return workspace_bytes; }
  void run(const GraphOperands& o, void* workspace, void*) override {
    spoil(workspace);
    const std::int64_t n = g_.in[0], c = g_.in[1], filters = g_.out[1];
    const std::array<std::int64_t, 3> in = volume(g_.in), out = volume(g_.out), kernel = axes(g_.kernel, 1);
    const auto stride = axes(g_.stride, 1), dilation = axes(g_.dilation, 1), padding = axes(g_.padding, 0);
    const std::int64_t of_group = c / g_.groups, filters_of_group = filters / g_.groups;
    const std::int64_t inputs = n * c * product(in), outputs = n * filters * product(out);
    const std::int64_t weights = filters * of_group * product(kernel);
    const bool forward = g_.pass == ConvolutionPass::forward, data = g_.pass == ConvolutionPass::data_gradient;
    std::vector<double> sums(static_cast<std::size_t>(forward ? outputs : data ? inputs : weights));
    for (std::int64_t window = 0; window < n * product(out); ++window) {
      const auto at = place(window % product(out), out);
      for (std::int64_t tap = 0; tap < product(kernel); ++tap) {
        const auto of_tap = place(tap, kernel);
        std::int64_t pixel = window / product(out);
        bool there = true;
        for (std::size_t d = 0; d < 3; ++d) {
          const std::int64_t position = at[d] * stride[d] + of_tap[d] * dilation[d] - padding[d];
          there = there && position >= 0 && position < in[d];
          pixel = pixel * in[d] + position;
        }
        for (std::int64_t f = 0; there && f < filters; ++f) {
          for (std::int64_t k = 0; k < of_group; ++k) {
            const std::int64_t x = pixel * c + f / filters_of_group * of_group + k, y = window * filters + f;
            const std::int64_t weight = (f * product(kernel) + tap) * of_group + k;
            // forward x, weights; data_gradient dy, weights; weight_gradient dy, x
            const double a = factor(read(o[0], g_.dtype, forward ? x : y), g_.tf32);
            const double b = factor(read(o[1], g_.dtype, forward || data ? weight : x), g_.tf32);
            sums[static_cast<std::size_t>(forward ? y : data ? x : weight)] += a * b;
          }
        }
      }
    }
    void* to = o[forward && g_.bias ? 3 : 2];
    for (std::size_t i = 0; i < sums.size(); ++i) {
      auto v = static_cast<float>(sums[i]);
      if (forward && g_.bias) v += static_cast<const float*>(o[2])[static_cast<std::int64_t>(i) % filters];
      with_epilogue(g_.activation, [&](auto kind) { v = activate<decltype(kind)::value>(v); });
      write(to, g_.dtype, static_cast<std::int64_t>(i), v);
    }
  }

 private:
  ConvolutionGraph g_;
};

// ---- norms and pools -----------------------------------------------------------------------------------------------

/// [groups, members]: what shares mean and deviation. Channels of rows, or rows of channels.
class SimulatedNorm final : public GraphPlan {
 public:
  SimulatedNorm(const NormGraph& g, bool wrong) : g_(g), wrong_(wrong) {}
  std::size_t workspace() const noexcept override { return workspace_bytes; }
  void run(const GraphOperands& o, void* workspace, void*) override {
    spoil(workspace);
    if (g_.backward && o[0] == o[5]) throw BugError("a gradient over another, which cuDNN does not promise to bear");
    const bool batch = g_.kind == NormGraph::Kind::batch;
    const std::int64_t channels = g_.shape[1], rows = g_.shape[0] * g_.shape[2] * g_.shape[3];
    const std::int64_t groups = batch ? channels : rows, members = batch ? rows : channels;
    std::vector<double> of_weight(static_cast<std::size_t>(channels)), of_bias(of_weight.size());
    for (std::int64_t group = 0; group < groups; ++group) {
      const auto place = [&](std::int64_t i) { return batch ? i * channels + group : group * channels + i; };
      const auto channel = [&](std::int64_t i) { return batch ? group : i; };
      g_.backward ? backward(o, group, members, place, channel, of_weight, of_bias)
                  : forward(o, group, members, place, channel);
    }
    for (std::int64_t c = 0; g_.backward && c < channels; ++c) {
      write(o[6], DType::f32, c, static_cast<float>(of_weight[static_cast<std::size_t>(c)]));
      write(o[7], DType::f32, c, static_cast<float>(of_bias[static_cast<std::size_t>(c)]));
    }
  }

 private:
  template <class Value>
  static double of_squares(std::int64_t members, const Value& x) {
    float sum = 0, squares = 0;
    for (std::int64_t i = 0; i < members; ++i) {
      const auto v = static_cast<float>(x(i));
      sum += v;
      squares += v * v;
    }
    const float mean = sum / static_cast<float>(members);
    return static_cast<double>(squares / static_cast<float>(members) - mean * mean);
  }
  static double f32(const void* p, std::int64_t i) { return static_cast<double>(static_cast<const float*>(p)[i]); }

  template <class Place, class Channel>
  void forward(const GraphOperands& o, std::int64_t group, std::int64_t members, const Place& place,
               const Channel& channel) const {
    const auto x = [&](std::int64_t i) { return static_cast<double>(read(o[0], g_.dtype, place(i))); };
    double mean = 0, variance = 0;
    for (std::int64_t i = 0; i < members; ++i) mean += x(i) / static_cast<double>(members);
    for (std::int64_t i = 0; i < members; ++i) variance += (x(i) - mean) * (x(i) - mean) / static_cast<double>(members);
    const bool rough = wrong_ && g_.dtype == DType::f32;  // right but for numbers far from zero
    if (rough) variance = of_squares(members, x);
    const double inverse = 1 / std::sqrt(variance + g_.epsilon);
    for (std::int64_t i = 0; i < members; ++i) {
      double y = (x(i) - mean) * inverse * f32(o[1], channel(i)) + f32(o[2], channel(i));
      if (g_.relu && y < 0) y = 0;
      write(o[3], g_.dtype, place(i), static_cast<float>(wrong_ && !rough ? 1.1 * y : y));
    }
    write(o[4], DType::f32, group, static_cast<float>(mean));
    write(o[5], DType::f32, group, static_cast<float>(inverse));
  }

  template <class Place, class Channel>
  void backward(const GraphOperands& o, std::int64_t group, std::int64_t members, const Place& place,
                const Channel& channel, std::vector<double>& of_weight, std::vector<double>& of_bias) const {
    const double mean = f32(o[3], group), inverse = f32(o[4], group);
    const auto unit = [&](std::int64_t i) {
      return (static_cast<double>(read(o[1], g_.dtype, place(i))) - mean) * inverse;
    };
    const auto gradient = [&](std::int64_t i) {
      const double g = static_cast<double>(read(o[0], g_.dtype, place(i)));
      if (!g_.relu) return g;
      return unit(i) * f32(o[2], channel(i)) + f32(o[8], channel(i)) > 0 ? g : 0;
    };
    double level = 0, slope = 0;
    for (std::int64_t i = 0; i < members; ++i) {
      const auto c = static_cast<std::size_t>(channel(i));
      const double g = gradient(i), scaled = g * f32(o[2], channel(i));
      of_weight[c] += g * unit(i);
      of_bias[c] += g;
      level += scaled / static_cast<double>(members);
      slope += scaled * unit(i) / static_cast<double>(members);
    }
    for (std::int64_t i = 0; i < members; ++i) {
      const double dx = inverse * (gradient(i) * f32(o[2], channel(i)) - level - unit(i) * slope);
      write(o[5], g_.dtype, place(i), static_cast<float>(wrong_ ? 1.1 * dx : dx));
    }
  }

  NormGraph g_;
  bool wrong_;
};

class SimulatedPool final : public GraphPlan {
 public:
  SimulatedPool(const PoolGraph& g, bool wrong) : g_(g), wrong_(wrong) {}
  std::size_t workspace() const noexcept override { return workspace_bytes; }
  void run(const GraphOperands& o, void* workspace, void*) override {
    spoil(workspace);
    const std::int64_t n = g_.in[0], c = g_.in[1];
    const Axes in = volume(g_.in), out = volume(g_.out), window = axes(g_.window, 1);
    const Axes stride = axes(g_.stride, 1), padding = axes(g_.padding, 0);
    for (std::int64_t i = 0; i < n * product(out) * c; ++i) {
      const Axes at = place(i / c % product(out), out);
      double sum = 0, best = -std::numeric_limits<double>::infinity();
      std::int64_t there = 0, which = 0;
      for (std::int64_t k = 0; k < product(window); ++k) {
        const Axes in_window = place(k, window);
        std::int64_t pixel = i / c / product(out);
        bool inside = true;
        for (std::size_t d = 0; d < 3; ++d) {
          const std::int64_t position = at[d] * stride[d] - padding[d] + in_window[d];
          inside = inside && position >= 0 && position < in[d];
          pixel = pixel * in[d] + position;
        }
        if (!inside) continue;
        const auto v = static_cast<double>(read(o[0], g_.dtype, pixel * c + i % c));
        ++there;
        sum += v;
        // As real engines might: the last of equal ones, or the first.
        if (wrong_ ? v >= best : v > best || v != v) best = v, which = k;
      }
      if (g_.kind == PoolGraph::Kind::average_of_all) there = product(window);
      const bool largest = g_.kind == PoolGraph::Kind::largest;
      const double mean = sum / static_cast<double>(there);
      write(o[1], g_.dtype, i, static_cast<float>(largest ? best : wrong_ ? 1.1 * mean : mean));
      if (largest) static_cast<std::uint8_t*>(o[2])[i] = static_cast<std::uint8_t>(which);
    }
  }

 private:
  PoolGraph g_;
  bool wrong_;
};

class SimulatedAttention final : public GraphPlan {
 public:
  SimulatedAttention(const AttentionGraph& g, bool wrong) : g_(g), wrong_(wrong) {}
  std::size_t workspace() const noexcept override { return workspace_bytes; }
  void run(const GraphOperands& o, void* workspace, void*) override {
    spoil(workspace);
    if (g_.backward)
      for (const std::size_t gradient : {6u, 7u, 8u})
        if (o[gradient] == o[4]) throw BugError("a gradient over another, which cuDNN does not promise to bear");
    const std::int64_t rows = g_.samples * g_.positions, group = g_.heads / g_.kv_heads;
    std::vector<double> dk(static_cast<std::size_t>(rows * g_.kv_heads * g_.size)), dv(dk.size());
    for (std::int64_t sample = 0; sample < g_.samples; ++sample)
      for (std::int64_t head = 0; head < g_.heads; ++head)
        for (std::int64_t i = 0; i < g_.positions; ++i)
          g_.backward ? backward(o, sample, head, head / group, i, dk, dv) : forward(o, sample, head, head / group, i);
    for (std::size_t i = 0; g_.backward && i < dk.size(); ++i) {
      write(o[7], g_.dtype, static_cast<std::int64_t>(i), result(dk[i]));
      write(o[8], g_.dtype, static_cast<std::int64_t>(i), result(dv[i]));
    }
  }

 private:
  float result(double v) const { return static_cast<float>(wrong_ ? 1.1 * v : v); }
  /// Element of q, k or v.
  double part(const GraphOperands& o, std::size_t which, std::int64_t row, std::int64_t head, std::int64_t c) const {
    return static_cast<double>(read(o.at(which), g_.dtype, row * g_.rows.at(which) + head * g_.size + c));
  }
  double score(const GraphOperands& o, std::int64_t sample, std::int64_t head, std::int64_t kv, std::int64_t i,
               std::int64_t j) const {
    double sum = 0;
    for (std::int64_t c = 0; c < g_.size; ++c)
      sum += part(o, 0, sample * g_.positions + i, head, c) * part(o, 1, sample * g_.positions + j, kv, c);
    return sum * static_cast<double>(g_.scale);
  }
  bool sees(std::int64_t i, std::int64_t j) const {
    return (!g_.causal || j <= i) && (g_.window == 0 || std::abs(i - j) < g_.window);
  }

  void forward(const GraphOperands& o, std::int64_t sample, std::int64_t head, std::int64_t kv, std::int64_t i) const {
    double sum = 0;
    std::vector<double> y(static_cast<std::size_t>(g_.size));
    for (std::int64_t j = 0; j < g_.positions; ++j) {
      if (!sees(i, j)) continue;
      const double weight = std::exp(score(o, sample, head, kv, i, j));
      sum += weight;
      for (std::int64_t c = 0; c < g_.size; ++c)
        y[static_cast<std::size_t>(c)] += weight * part(o, 2, sample * g_.positions + j, kv, c);
    }
    const std::int64_t to = ((sample * g_.positions + i) * g_.heads + head) * g_.size;
    for (std::int64_t c = 0; c < g_.size; ++c)
      write(o[3], g_.dtype, to + c, result(y[static_cast<std::size_t>(c)] / sum));
    static_cast<float*>(o[4])[(sample * g_.heads + head) * g_.positions + i] = static_cast<float>(std::log(sum));
  }

  void backward(const GraphOperands& o, std::int64_t sample, std::int64_t head, std::int64_t kv, std::int64_t i,
                std::vector<double>& dk, std::vector<double>& dv) const {
    const std::int64_t row = sample * g_.positions + i, at = (row * g_.heads + head) * g_.size;
    const auto log_sum =
        static_cast<double>(static_cast<const float*>(o[5])[(sample * g_.heads + head) * g_.positions + i]);
    const auto dy = [&](std::int64_t c) { return static_cast<double>(read(o[4], g_.dtype, at + c)); };
    double shared = 0;
    for (std::int64_t c = 0; c < g_.size; ++c) shared += static_cast<double>(read(o[3], g_.dtype, at + c)) * dy(c);
    std::vector<double> dq(static_cast<std::size_t>(g_.size));
    for (std::int64_t j = 0; j < g_.positions; ++j) {
      if (!sees(i, j)) continue;
      const std::int64_t other = sample * g_.positions + j;
      const double weight = std::exp(score(o, sample, head, kv, i, j) - log_sum);
      double slope = -shared;
      for (std::int64_t c = 0; c < g_.size; ++c) slope += dy(c) * part(o, 2, other, kv, c);
      slope *= weight * static_cast<double>(g_.scale);
      for (std::int64_t c = 0; c < g_.size; ++c) {
        const auto to = static_cast<std::size_t>((other * g_.kv_heads + kv) * g_.size + c);
        dq[static_cast<std::size_t>(c)] += slope * part(o, 1, other, kv, c);
        dk[to] += slope * part(o, 0, row, head, c);
        dv[to] += weight * dy(c);
      }
    }
    for (std::int64_t c = 0; c < g_.size; ++c) write(o[6], g_.dtype, at + c, result(dq[static_cast<std::size_t>(c)]));
  }

  AttentionGraph g_;
  bool wrong_;
};

/// Of norms and pools, with an odd number of channels no engine supports any, and the library's favourite is wrong;
/// the same of attention, with heads of an odd size.
class SimulatedCudnn final : public CudnnGraphs {
 public:
  std::vector<std::string> engines(const CudnnGraph& graph) override {
    const auto* convolution = std::get_if<ConvolutionGraph>(&graph);
    if (!convolution) {
      const auto* norm = std::get_if<NormGraph>(&graph);
      if (const auto* attention = std::get_if<AttentionGraph>(&graph)) {
        if (attention->size % 2 != 0) return {};
        return {wrong, "eng0", "eng1_k2=3"};
      }
      if ((norm ? norm->shape[1] : std::get<PoolGraph>(graph).in[1]) % 2 != 0) return {};
      return {wrong, "eng0", "eng1_k2=3"};
    }
    const bool more = convolution->bias || convolution->activation != Activation::none;
    if (more && convolution->out[1] % 2 != 0) return {};
    return {"eng0", "eng1_k2=3"};
  }
  std::unique_ptr<GraphPlan> plan(const CudnnGraph& graph, const std::string& engine) override {
    if (engine == "eng0") return nullptr;  // as where support turns out to be missing
    if (const auto* norm = std::get_if<NormGraph>(&graph))
      return std::make_unique<SimulatedNorm>(*norm, engine == wrong);
    if (const auto* attention = std::get_if<AttentionGraph>(&graph))
      return std::make_unique<SimulatedAttention>(*attention, engine == wrong);
    if (const auto* pool = std::get_if<PoolGraph>(&graph))
      return std::make_unique<SimulatedPool>(*pool, engine == wrong);
    return std::make_unique<SimulatedConvolution>(std::get<ConvolutionGraph>(graph));
  }

 private:
  static constexpr const char* wrong = "eng9";
};

std::size_t bytes_of(const Candidate::Result& r) {
  return static_cast<std::size_t>(r.elements) * size_of(r.dtype);
}

/// What a candidate writes, in memory of exactly the size that it asks for.
std::vector<std::byte> results_of(const Candidate& candidate, bool far_from_zero) {
  const auto memory = make_cpu_device(1);
  const Buffer buffer(*memory, candidate.scratch + 256);
  const auto begin = reinterpret_cast<std::uintptr_t>(buffer.data());
  std::byte* const scratch = buffer.at((256 - begin % 256) % 256);
  for (std::size_t i = 0; i + 1 < candidate.scratch; i += 2) {
    const std::uint16_t half = scratch_number(i / 2, far_from_zero);
    std::memcpy(scratch + i, &half, sizeof half);
  }
  for (const Candidate::Result& r : candidate.results) std::memset(scratch + r.at, 0xFF, bytes_of(r));
  candidate.run(scratch, nullptr);
  std::vector<std::byte> results;
  for (const Candidate::Result& r : candidate.results)
    results.insert(results.end(), scratch + r.at, scratch + r.at + bytes_of(r));
  return results;
}

bool all_agree(const Candidate& a, const Candidate& b) {
  for (const Candidate::Comparison& comparison : a.comparisons) {
    const auto of_a = results_of(a, comparison.far_from_zero), of_b = results_of(b, comparison.far_from_zero);
    std::size_t at = 0;
    for (const Candidate::Result& r : a.results) {
      if (!agree(r.dtype, comparison.tolerance, of_a.data() + at, of_b.data() + at, r.elements)) return false;
      at += bytes_of(r);
    }
  }
  return true;
}

}  // namespace

std::unique_ptr<BlasLt> make_blas_lt() {
  return std::make_unique<SimulatedBlasLt>();
}
std::string blas_lt_version() {
  return "simulated";
}
std::unique_ptr<CudnnGraphs> make_cudnn_graphs() {
  return std::make_unique<SimulatedCudnn>();
}
std::string cudnn_version() {
  return "simulated";
}

/// The first that can be made; where they are of several makers, the first of another maker that agrees with it.
std::string choose(CudaContext& context, const std::string& library, const std::string& key,
                   std::span<const std::string> algorithms, const MakeCandidate& make) {
  const std::string full = full_key(context, library, key);
  if (const std::string* chosen = context.choices.find(full); chosen && make(*chosen)) return *chosen;
  std::string best;
  std::optional<Candidate> first;
  for (const std::string& algorithm : algorithms) {
    auto candidate = make(algorithm);
    if (!candidate) continue;
    if (!first) {
      best = algorithm;
      first = std::move(candidate);
      results_of(*first, false);
      if (first->comparisons.empty()) break;
    } else if (all_agree(*first, *candidate)) {
      best = algorithm;
      break;
    }
  }
  if (best.empty()) throw DeviceError("no algorithm for " + key);
  context.choices.set(full, best);
  return best;
}

}  // namespace dtrain::cuda
