// The one source that includes cudnn-frontend: a quarter of a minute of compilation, and twice that with its JSON.
#include "runtime/cuda/library/cudnn_graphs.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

// The nodes of attention in cudnn-frontend 1.18 ask CUDA which GPU is here, also where one is described. They look at
// its architecture alone, and get that of the description.
namespace {
thread_local int described_architecture = 0;  // 0: no description is being looked at

cudaError_t device_or_described(int* device) {
  if (described_architecture == 0) return cudaGetDevice(device);
  *device = 0;
  return cudaSuccess;
}
cudaError_t properties_or_described(cudaDeviceProp* properties, int device) {
  if (described_architecture == 0) return cudaGetDeviceProperties(properties, device);
  *properties = {};
  properties->major = described_architecture / 10;
  properties->minor = described_architecture % 10;
  return cudaSuccess;
}
}  // namespace

#define CUDNN_FRONTEND_SKIP_JSON_LIB
#define cudaGetDevice(device) device_or_described(device)
#define cudaGetDeviceProperties(properties, device) properties_or_described(properties, device)
#include <cudnn_frontend.h>
#undef cudaGetDevice
#undef cudaGetDeviceProperties

#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

namespace fe = cudnn_frontend;
using Attributes = fe::graph::Tensor_attributes;
using TensorPtr = std::shared_ptr<Attributes>;

void check(fe::error_t status, const char* what) {
  if (status.is_bad()) throw DeviceError(fmt::format("cuDNN: {}: {}", what, status.get_message()));
}
void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw DeviceError(fmt::format("cuDNN: {}: {}", what, cudnnGetErrorString(status)));
}

fe::DataType_t type_of(DType dtype) {
  if (dtype == DType::f32) return fe::DataType_t::FLOAT;
  if (dtype == DType::bf16) return fe::DataType_t::BFLOAT16;
  if (dtype == DType::f16) return fe::DataType_t::HALF;
  if (dtype == DType::u8) return fe::DataType_t::INT8;  // the place in a window, below 128
  throw BugError(fmt::format("no graph computes with {}", name_of(dtype)));
}

fe::PointwiseMode_t mode_of(Activation activation) {
  if (activation == Activation::relu) return fe::PointwiseMode_t::RELU_FWD;
  if (activation == Activation::tanh) return fe::PointwiseMode_t::TANH_FWD;
  if (activation == Activation::sigmoid) return fe::PointwiseMode_t::SIGMOID_FWD;
  throw BugError(fmt::format("{} is not applied inside a convolution", name_of(activation)));
}

template <class Values>
std::vector<std::int64_t> list(const Values& values) {
  return {values.begin(), values.end()};
}
/// Of logical [N, C, positions...] that lies channels last.
std::vector<std::int64_t> channels_last_strides(const std::vector<std::int64_t>& dims) {
  std::vector<std::int64_t> strides(dims.size(), 1);
  std::int64_t stride = dims[1];
  for (std::size_t i = dims.size() - 1; i > 1; stride *= dims[i--]) strides[i] = stride;
  strides[0] = stride;
  return strides;
}

fe::ResampleMode_t mode_of(PoolGraph::Kind kind) {
  if (kind == PoolGraph::Kind::largest) return fe::ResampleMode_t::MAXPOOL;
  if (kind == PoolGraph::Kind::average) return fe::ResampleMode_t::AVGPOOL_EXCLUDE_PADDING;
  return fe::ResampleMode_t::AVGPOOL_INCLUDE_PADDING;
}

using Dims = std::vector<std::int64_t>;

/// An operand's number is its place in GraphOperands, counted from 1; a scalar has one behind them.
class OperationGraph : public fe::graph::Graph {
 public:
  explicit OperationGraph(const CudnnGraph& g) {
    set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
    std::visit([this](const auto& graph) { build(graph); }, g);
  }

  const std::vector<std::int64_t>& numbers() const noexcept { return numbers_; }
  /// cudnn-frontend has workspace of its own for it, prepares that in each run, and passes scalars.
  bool composite() const noexcept { return composite_; }
  /// What the graph wants to know of the host when it runs; null: nothing.
  float* scalar() noexcept { return takes_epsilon_ ? &epsilon_ : nullptr; }
  static constexpr std::int64_t number_of_scalar = std::tuple_size_v<GraphOperands> + 1;

  /// Indices and names of the engines that support the graph.
  std::vector<std::pair<std::int64_t, std::string>> supported() {
    std::vector<fe::NumericalNote_t> numerics{fe::NumericalNote_t::DOWN_CONVERT_INPUTS,
                                              fe::NumericalNote_t::REDUCED_PRECISION_REDUCTION};
    if (full_precision_) {
      numerics.insert(numerics.end(), {fe::NumericalNote_t::TENSOR_CORE, fe::NumericalNote_t::WINOGRAD,
                                       fe::NumericalNote_t::WINOGRAD_TILE_4x4, fe::NumericalNote_t::WINOGRAD_TILE_6x6,
                                       fe::NumericalNote_t::WINOGRAD_TILE_13x13});
    }
    if (deterministic_) numerics.push_back(fe::NumericalNote_t::NONDETERMINISTIC);
    deselect_numeric_notes(numerics);
    std::vector<std::pair<std::int64_t, std::string>> out;
    const std::int64_t count = get_execution_plan_count();
    for (std::int64_t i = 0; i < count; ++i) {
      if (plans.check_support_at_index(i).is_bad()) continue;
      std::string name;
      if (get_plan_name_at_index(i, name).is_bad()) continue;
      const auto same = [&](const auto& seen) { return seen.second == name; };
      if (std::none_of(out.begin(), out.end(), same)) out.emplace_back(i, std::move(name));
    }
    return out;
  }

  std::shared_ptr<fe::ExecutionPlan> built(std::int64_t index) {
    if (build_plan_at_index(index).is_bad()) return nullptr;
    return plans.execution_plans[static_cast<std::size_t>(index)];
  }

 private:
  TensorPtr operand(const char* name, const Dims& dims, DType dtype) { return operand(name, dims, dtype, ++last_); }
  TensorPtr operand(const char* name, const Dims& dims, DType dtype, std::int64_t number) {
    return operand(name, dims, channels_last_strides(dims), dtype, number);
  }
  TensorPtr operand(const char* name, const Dims& dims, const Dims& strides, DType dtype, std::int64_t number) {
    numbers_.push_back(number);
    return tensor(
        Attributes().set_name(name).set_uid(number).set_dim(dims).set_stride(strides).set_data_type(type_of(dtype)));
  }
  void result(const TensorPtr& t, const Dims& dims, DType dtype) {
    result(t, dims, channels_last_strides(dims), dtype);
  }
  void result(const TensorPtr& t, const Dims& dims, const Dims& strides, DType dtype) {
    numbers_.push_back(++last_);
    t->set_output(true).set_uid(last_).set_dim(dims).set_stride(strides).set_data_type(type_of(dtype));
  }
  TensorPtr epsilon(double value) {
    epsilon_ = static_cast<float>(value);
    takes_epsilon_ = true;
    const Dims one{1, 1, 1, 1};
    return tensor(Attributes()
                      .set_name("epsilon")
                      .set_uid(number_of_scalar)
                      .set_dim(one)
                      .set_stride(one)
                      .set_data_type(fe::DataType_t::FLOAT)
                      .set_is_pass_by_value(true));
  }
  template <class A>
  static A window(const ConvolutionGraph& g) {
    return A().set_padding(list(g.padding)).set_stride(list(g.stride)).set_dilation(list(g.dilation));
  }

  void build(const ConvolutionGraph& g) {
    full_precision_ = g.dtype == DType::f32 && !g.tf32;
    deterministic_ = !g.nondeterministic;
    set_io_data_type(type_of(g.dtype));
    Dims weights{g.out[1], g.in[1] / g.groups};
    weights.insert(weights.end(), g.kernel.begin(), g.kernel.end());
    if (g.pass == ConvolutionPass::forward) return forward(g, weights);
    const TensorPtr dy = operand("dy", g.out, g.dtype);
    if (g.pass == ConvolutionPass::data_gradient) {
      const TensorPtr w = operand("weights", weights, g.dtype);
      result(conv_dgrad(dy, w, window<fe::graph::Conv_dgrad_attributes>(g)), g.in, g.dtype);
    } else {
      const TensorPtr x = operand("x", g.in, g.dtype);
      result(conv_wgrad(dy, x, window<fe::graph::Conv_wgrad_attributes>(g)), weights, g.dtype);
    }
  }

  void forward(const ConvolutionGraph& g, const Dims& weights) {
    const TensorPtr x = operand("x", g.in, g.dtype), w = operand("weights", weights, g.dtype);
    TensorPtr y = conv_fprop(x, w, window<fe::graph::Conv_fprop_attributes>(g));
    if (g.bias) {
      Dims dims(g.out.size(), 1);
      dims[1] = g.out[1];
      y = pointwise(y, operand("bias", dims, DType::f32),
                    fe::graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::ADD));
    }
    if (g.activation != Activation::none)
      y = pointwise(y, fe::graph::Pointwise_attributes().set_mode(mode_of(g.activation)));
    result(y, g.out, g.dtype);
  }

  void build(const NormGraph& g) {
    deterministic_ = !g.nondeterministic;
    set_io_data_type(type_of(g.dtype));
    const bool batch = g.kind == NormGraph::Kind::batch;
    const Dims shape = list(g.shape), line{1, g.shape[1], 1, 1}, statistics = batch ? line : Dims{g.shape[0], 1, 1, 1};
    if (g.backward) {
      norm_backward(g, shape, line, statistics);
      return;
    }
    const TensorPtr x = operand("x", shape, g.dtype), weight = operand("weight", line, DType::f32);
    const TensorPtr bias = operand("bias", line, DType::f32);
    TensorPtr y, mean, inverse, small = epsilon(g.epsilon);
    if (batch) {
      const auto out = batchnorm(x, weight, bias, fe::graph::Batchnorm_attributes().set_epsilon(small));
      y = out[0], mean = out[1], inverse = out[2];
    } else {
      const auto out = layernorm(
          x, weight, bias,
          fe::graph::Layernorm_attributes().set_forward_phase(fe::NormFwdPhase_t::TRAINING).set_epsilon(small));
      y = out[0], mean = out[1], inverse = out[2];
    }
    if (g.relu) y = pointwise(y, fe::graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::RELU_FWD));
    result(y, shape, g.dtype);
    result(mean, statistics, DType::f32);
    result(inverse, statistics, DType::f32);
  }

  void norm_backward(const NormGraph& g, const Dims& shape, const Dims& line, const Dims& statistics) {
    TensorPtr dy = operand("dy", shape, g.dtype);
    const TensorPtr x = operand("x", shape, g.dtype), weight = operand("weight", line, DType::f32);
    TensorPtr mean = operand("mean", statistics, DType::f32), inverse = operand("inverse", statistics, DType::f32);
    if (g.relu) {
      // The one pattern that cuDNN knows: what relu saw from the same mean and standard deviation, and its gradient of
      // dy's type.
      const TensorPtr bias = operand("bias", line, DType::f32, last_ + 4);
      const TensorPtr seen =
          batchnorm_inference(x, mean, inverse, weight, bias, fe::graph::Batchnorm_inference_attributes());
      dy = pointwise(dy, seen, fe::graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::RELU_BWD));
      dy->set_data_type(type_of(g.dtype));
    }
    std::array<TensorPtr, 3> gradients;
    if (g.kind == NormGraph::Kind::batch) {
      gradients = batchnorm_backward(
          dy, x, weight, fe::graph::Batchnorm_backward_attributes().set_saved_mean_and_inv_variance(mean, inverse));
    } else {
      gradients = layernorm_backward(
          dy, x, weight, fe::graph::Layernorm_backward_attributes().set_saved_mean_and_inv_variance(mean, inverse));
    }
    result(gradients[0], shape, g.dtype);
    result(gradients[1], line, DType::f32);
    result(gradients[2], line, DType::f32);
  }

  void build(const PoolGraph& g) {
    set_io_data_type(type_of(g.dtype));
    const bool largest = g.kind == PoolGraph::Kind::largest;
    const auto [y, which] =
        resample(operand("x", g.in, g.dtype),
                 fe::graph::Resample_attributes()
                     .set_resampling_mode(mode_of(g.kind))
                     .set_padding_mode(largest ? fe::PaddingMode_t::NEG_INF_PAD : fe::PaddingMode_t::ZERO_PAD)
                     .set_window(list(g.window))
                     .set_stride(list(g.stride))
                     .set_pre_padding(list(g.padding))
                     .set_post_padding(list(g.padding))
                     .set_generate_index(largest));
    result(y, g.out, g.dtype);
    if (largest) result(which, g.out, DType::u8);
  }

  /// Which positions see one another, the same for both directions.
  template <class A>
  static A visible(const AttentionGraph& g, A attributes) {
    attributes.set_attn_scale(g.scale).set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
    if (g.window > 0) attributes.set_diagonal_band_left_bound(static_cast<int>(g.window));
    if (g.causal) {
      attributes.set_diagonal_band_right_bound(0);
    } else if (g.window > 0) {
      attributes.set_diagonal_band_right_bound(static_cast<int>(g.window - 1));
    }
    return attributes;
  }

  void build(const AttentionGraph& g) {
    deterministic_ = !g.nondeterministic;
    composite_ = true;
    set_io_data_type(type_of(g.dtype));
    const Dims of_queries{g.samples, g.heads, g.positions, g.size}, of_keys{g.samples, g.kv_heads, g.positions, g.size};
    const Dims of_sums{g.samples, g.heads, g.positions, 1}, sums{g.heads * g.positions, g.positions, 1, 1};
    const auto strides = [&](std::int64_t row) { return Dims{g.positions * row, g.size, row, 1}; };
    const std::int64_t row = g.heads * g.size, kv_row = g.kv_heads * g.size;
    const TensorPtr q = operand("q", of_queries, strides(g.rows[0]), g.dtype, ++last_);
    const TensorPtr k = operand("k", of_keys, strides(g.rows[1]), g.dtype, ++last_);
    const TensorPtr v = operand("v", of_keys, strides(g.rows[2]), g.dtype, ++last_);
    if (!g.backward) {
      const auto [y, log_sums] =
          sdpa(q, k, v, visible(g, fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true)));
      result(y, of_queries, strides(row), g.dtype);
      result(log_sums, of_sums, sums, DType::f32);
      return;
    }
    const TensorPtr y = operand("y", of_queries, strides(row), g.dtype, ++last_);
    const TensorPtr dy = operand("dy", of_queries, strides(row), g.dtype, ++last_);
    const TensorPtr log_sums = operand("log_sums", of_sums, sums, DType::f32, ++last_);
    const auto [dq, dk, dv] = sdpa_backward(
        q, k, v, y, dy, log_sums,
        visible(
            g,
            fe::graph::SDPA_backward_attributes().set_name("attention").set_deterministic_algorithm(deterministic_)));
    result(dq, of_queries, strides(row), g.dtype);
    result(dk, of_keys, strides(kv_row), g.dtype);
    result(dv, of_keys, strides(kv_row), g.dtype);
  }

  std::vector<std::int64_t> numbers_;
  std::int64_t last_ = 0;
  bool full_precision_ = false, deterministic_ = true, takes_epsilon_ = false, composite_ = false;
  float epsilon_ = 0;
};

class Plan final : public GraphPlan {
 public:
  Plan(cudnnHandle_t handle, std::unique_ptr<OperationGraph> graph, std::shared_ptr<fe::ExecutionPlan> plan)
      : handle_(handle), graph_(std::move(graph)), plan_(std::move(plan)) {
    packs_.reserve(most_packs);
  }

  std::size_t workspace() const noexcept override { return static_cast<std::size_t>(plan_->getWorkspaceSize()); }

  void run(const GraphOperands& operands, void* workspace, void* stream) override {
    check(cudnnSetStream(handle_, static_cast<cudaStream_t>(stream)), "setting the stream");
    check(cudnnBackendExecute(handle_, plan_->get_raw_desc(), pack_of(operands, workspace)), "running a graph");
  }

 private:
  static constexpr std::size_t most_packs = 64;  // a program has a few; a caller with ever new addresses fills it

  /// A set of addresses as the library wants them.
  struct Pack {
    GraphOperands operands;
    void* workspace;
    fe::detail::backend_descriptor descriptor{CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR};
  };

  cudnnBackendDescriptor_t pack_of(const GraphOperands& operands, void* workspace) {
    for (const auto& pack : packs_)
      if (pack->operands == operands && pack->workspace == workspace) return pack->descriptor.get_ptr();
    auto pack = std::make_unique<Pack>(Pack{operands, workspace});
    std::vector<std::int64_t> numbers = graph_->numbers();
    std::vector<void*> addresses;
    for (const std::int64_t number : numbers) addresses.push_back(operands.at(static_cast<std::size_t>(number - 1)));
    if (float* const scalar = graph_->scalar()) {
      numbers.push_back(OperationGraph::number_of_scalar);
      addresses.push_back(scalar);
    }
    check(fe::detail::create_variant_pack(pack->descriptor, addresses, numbers, workspace), "taking the operands");
    if (packs_.size() == most_packs) packs_.clear();
    packs_.push_back(std::move(pack));
    return packs_.back()->descriptor.get_ptr();
  }

  cudnnHandle_t handle_;
  std::unique_ptr<OperationGraph> graph_;  // what the plan refers to
  std::shared_ptr<fe::ExecutionPlan> plan_;
  std::vector<std::unique_ptr<Pack>> packs_;
};

/// Of a graph that cudnn-frontend itself has to run: it looks up addresses by number.
class CompositePlan final : public GraphPlan {
 public:
  CompositePlan(cudnnHandle_t handle, std::unique_ptr<OperationGraph> graph, std::int64_t index)
      : handle_(handle), graph_(std::move(graph)), index_(index) {
    check(graph_->get_workspace_size_plan_at_index(index_, workspace_), "asking for a workspace");
  }

  std::size_t workspace() const noexcept override { return static_cast<std::size_t>(workspace_); }

  void run(const GraphOperands& operands, void* workspace, void* stream) override {
    check(cudnnSetStream(handle_, static_cast<cudaStream_t>(stream)), "setting the stream");
    std::unordered_map<std::int64_t, void*> addresses;
    for (const std::int64_t number : graph_->numbers())
      addresses[number] = operands.at(static_cast<std::size_t>(number - 1));
    check(graph_->execute_plan_at_index(handle_, addresses, workspace, index_), "running a graph");
  }

 private:
  cudnnHandle_t handle_;
  std::unique_ptr<OperationGraph> graph_;
  std::int64_t index_, workspace_ = 0;
};

class Graphs final : public CudnnGraphs {
 public:
  Graphs() { check(cudnnCreate(&handle_), "creating a handle"); }
  explicit Graphs(const GpuDescription& gpu) : version_(gpu.architecture * 10), processors_(gpu.processors) {
    // All that this cuDNN asks for; what is not in the description is the same for all GPUs since Ampere or not read by
    // the support checks.
    const std::string json = fmt::format(
        R"({{"maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "deviceVer": {}, )"
        R"("driverVer": 13000, "multiProcessorCount": {}, "maxSharedMemoryPerBlockOptin": {}, "regsPerBlock": 65536, )"
        R"("smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "l2CacheSize": 52428800, "warpSize": 32, )"
        R"("maxSharedMemoryPerBlock": 49152, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, )"
        R"("pciDeviceId": 0, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, )"
        R"("isTccDriver": 0, "supportCoopLaunch": 1, "totalGlobalMem": 85899345920, "cudaDeviceId": 0, )"
        R"("deviceName": "{}"}})",
        version_, gpu.processors, gpu.shared, gpu.name);
    auto properties = std::make_shared<fe::DeviceProperties>();
    check(properties->deserialize({json.begin(), json.end()}), "describing a GPU");
    properties_ = std::move(properties);
  }
  ~Graphs() override {
    if (handle_) cudnnDestroy(handle_);
  }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  std::vector<std::string> engines(const CudnnGraph& g) override {
    std::vector<std::string> out;
    const auto graph = prepared(g);
    if (!graph) return out;
    for (auto& [index, name] : graph->supported()) out.push_back(std::move(name));
    return out;
  }

  std::unique_ptr<GraphPlan> plan(const CudnnGraph& g, const std::string& engine) override {
    if (!handle_) throw BugError("a described GPU runs no graph");
    auto graph = prepared(g);
    if (!graph) return nullptr;
    for (const auto& [index, name] : graph->supported()) {
      if (name != engine) continue;
      auto built = graph->built(index);
      if (!built) return nullptr;
      if (graph->composite()) return std::make_unique<CompositePlan>(handle_, std::move(graph), index);
      return std::make_unique<Plan>(handle_, std::move(graph), std::move(built));
    }
    return nullptr;
  }

 private:
  struct Described {
    explicit Described(int architecture) { described_architecture = architecture; }
    ~Described() { described_architecture = 0; }
  };
  /// Null where no heuristic has an engine.
  std::unique_ptr<OperationGraph> prepared(const CudnnGraph& g) const {
    const Described described(properties_ ? version_ / 10 : 0);
    auto graph = std::make_unique<OperationGraph>(g);
    if (properties_) graph->set_device_properties(properties_).set_sm_version(version_ / 10).set_sm_count(processors_);
    if (graph->validate().is_bad()) return nullptr;
    if ((properties_ ? graph->build_operation_graph() : graph->build_operation_graph(handle_)).is_bad()) return nullptr;
    if (graph->create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}).is_bad()) return nullptr;
    return graph;
  }

  cudnnHandle_t handle_ = nullptr;
  std::shared_ptr<const fe::DeviceProperties> properties_;
  int version_ = 0, processors_ = 0;
};

}  // namespace

std::string cudnn_version() {
  return fmt::format("{}", cudnnGetVersion());
}
std::unique_ptr<CudnnGraphs> make_cudnn_graphs() {
  return std::make_unique<Graphs>();
}
std::unique_ptr<CudnnGraphs> describe_cudnn_graphs(const GpuDescription& gpu) {
  return std::make_unique<Graphs>(gpu);
}

}  // namespace dtrain::cuda
