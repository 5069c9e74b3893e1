// cuBLASLt and cuDNN without a GPU: plain loops over host memory behind the same interfaces, so that the CUDA device's
// linear layers and convolutions (what they pack, place, add and leave to own kernels) run under the op table's suites.
// Half of the shapes have no fused algorithm, so that both ways are taken; workspaces are spoilt in every call.
#include <bit>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "runtime/activation_math.hpp"
#include "runtime/cuda/blas_lt.hpp"
#include "runtime/cuda/cudnn_graphs.hpp"
#include "runtime/cuda/tuner.hpp"
#include "runtime/error.hpp"
#include "runtime/f16.hpp"

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

class SimulatedConvolution final : public ConvolutionPlan {
 public:
  explicit SimulatedConvolution(const ConvolutionGraph& g) : g_(g) {}
  std::size_t workspace() const noexcept override { return workspace_bytes; }
  void run(const ConvolutionOperands& o, void* workspace, void*) override {
    spoil(workspace);
    const auto [n, c, h, w] = g_.in;
    const auto [rows, filters, height, width] = g_.out;
    const std::int64_t of_group = c / g_.groups, filters_of_group = filters / g_.groups;
    const std::int64_t inputs = n * c * h * w, outputs = rows * filters * height * width;
    const std::int64_t weights = filters * of_group * g_.kernel[0] * g_.kernel[1];
    const bool forward = g_.pass == ConvolutionPass::forward, data = g_.pass == ConvolutionPass::data_gradient;
    std::vector<double> sums(static_cast<std::size_t>(forward ? outputs : data ? inputs : weights));
    for (std::int64_t s = 0; s < n; ++s)
      for (std::int64_t y = 0; y < height; ++y)
        for (std::int64_t x = 0; x < width; ++x)
          for (std::int64_t f = 0; f < filters; ++f)
            for (std::int64_t i = 0; i < g_.kernel[0]; ++i)
              for (std::int64_t j = 0; j < g_.kernel[1]; ++j) {
                const std::int64_t down = y * g_.stride[0] + i * g_.dilation[0] - g_.padding[0];
                const std::int64_t across = x * g_.stride[1] + j * g_.dilation[1] - g_.padding[1];
                if (down < 0 || down >= h || across < 0 || across >= w) continue;
                for (std::int64_t k = 0; k < of_group; ++k) {
                  const std::int64_t in = ((s * h + down) * w + across) * c + f / filters_of_group * of_group + k;
                  const std::int64_t out = ((s * height + y) * width + x) * filters + f;
                  const std::int64_t weight = ((f * g_.kernel[0] + i) * g_.kernel[1] + j) * of_group + k;
                  // forward x, weights; data_gradient dy, weights; weight_gradient dy, x
                  const double a = factor(read(o[0], g_.dtype, forward ? in : out), g_.tf32);
                  const double b = factor(read(o[1], g_.dtype, forward || data ? weight : in), g_.tf32);
                  sums[static_cast<std::size_t>(forward ? out : data ? in : weight)] += a * b;
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

class SimulatedCudnn final : public CudnnGraphs {
 public:
  std::vector<std::string> engines(const ConvolutionGraph& g) override {
    const bool more = g.bias || g.activation != Activation::none;
    if (more && g.out[1] % 2 != 0) return {};
    return {"eng0", "eng1_k2=3"};
  }
  std::unique_ptr<ConvolutionPlan> plan(const ConvolutionGraph& g, const std::string& engine) override {
    if (engine == "eng0") return nullptr;  // as where support turns out to be missing
    return std::make_unique<SimulatedConvolution>(g);
  }
};

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

/// Runs the first that can be made, in memory of exactly the size that it asks for.
std::string choose(CudaContext& context, const std::string& library, const std::string& key,
                   std::span<const std::string> algorithms, const MakeCandidate& make) {
  const std::string full = library + " " + context.model + ": " + key;
  if (const std::string* chosen = context.choices.find(full); chosen && make(*chosen)) return *chosen;
  for (const std::string& algorithm : algorithms) {
    const auto candidate = make(algorithm);
    if (!candidate) continue;
    const auto memory = make_cpu_device(1);
    const Buffer scratch(*memory, candidate->scratch + 256);
    std::memset(scratch.data(), 0x3C, scratch.bytes());
    const auto begin = reinterpret_cast<std::uintptr_t>(scratch.data());
    candidate->run(scratch.at((256 - begin % 256) % 256), nullptr);
    context.choices.set(full, algorithm);
    return algorithm;
  }
  throw DeviceError("no algorithm for " + key);
}

}  // namespace dtrain::cuda
