// Asks cuDNN, without a GPU, for engines of every graph that recipes need of it: in float32, bfloat16 and float16,
// forward and backward, for sm_90 from a description; and of fused attention for sm_80 and sm_100 too.
// Arguments: ON where the build has CUDA (else it skips), then recipes, each followed by overrides (key=value). Prints
// a line for each distinct graph; fails where one has no engine.
#include <cstdio>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "launch/config/config_file.hpp"
#include "models/model/build.hpp"
#include "runtime/cuda/library/graph_check.hpp"
#include "runtime/tensor/error.hpp"

namespace {

using namespace dtrain;

int unsupported = 0;
std::set<std::string> seen;

void report(const cuda::GraphSupport& support, const std::string& gpu, const std::string& of) {
  if (!seen.insert(gpu + support.key).second) return;
  if (!support.supported()) ++unsupported;
  fmt::print("{} {:3} engines, {:2} fused: {} {} ({})\n", support.supported() ? "ok  " : "NONE", support.engines,
             support.fused, gpu, support.key, support.supported() ? support.favourite : of);
}

/// Each way that a graph can express, deterministic, with heads of as many channels as all of these GPUs bear.
void check_attention() {
  const cuda::GpuDescription gpus[] = {{"sm_80", 80, 108, 166912}, {}, {"sm_100", 100, 148, 232448}};
  constexpr std::int64_t samples = 4, positions = 1000, heads = 12;
  for (const cuda::GpuDescription& gpu : gpus)
    for (const DType dtype : {DType::bf16, DType::f16})
      for (const std::int64_t size : {64, 128})
        for (const std::int64_t kv_heads : {12, 4})
          for (const bool causal : {true, false})
            for (const std::int64_t window : {0, 100}) {
              Graph graph(samples);
              const TensorDesc in{dtype, Shape{samples, positions, (heads + 2 * kv_heads) * size}};
              graph.add("attention",
                        Attention{.heads = heads, .kv_heads = kv_heads, .causal = causal, .window = window},
                        {graph.add_input(PortUse::input, "x", in)});
              const auto all = cuda::check_graphs(graph, gpu, false);
              if (all.size() != 2) throw BugError("attention has a graph forward and one backward");
              for (const auto& support : all) report(support, gpu.name, "attention");
            }
}

void check(const std::string& recipe, const std::vector<std::string>& overrides) {
  const launch::RunConfig config = launch::load_config(recipe, overrides).config;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Graph graph = models::build(config.model, config.batch.global, dtype);
    for (const auto& support : cuda::check_graphs(graph, {}, config.cuda.tf32)) report(support, "sm_90", recipe);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool cuda = argc > 1 && std::string_view(argv[1]) == "ON";
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    check_attention();
    for (std::size_t i = 1; i < arguments.size();) {
      const std::string& recipe = arguments[i++];
      std::vector<std::string> overrides;
      while (i < arguments.size() && arguments[i].find('=') != std::string::npos) overrides.push_back(arguments[i++]);
      check(recipe, overrides);
    }
  } catch (const DeviceError& e) {
    fmt::print("{} {}\n", cuda ? "error:" : "[  SKIPPED ]", e.what());
    return cuda ? 1 : 77;
  } catch (const std::exception& e) {
    fmt::print("error: {}\n", e.what());
    return 1;
  }
  fmt::print("{} distinct graphs, {} of them unsupported\n", seen.size(), unsupported);
  return seen.empty() || unsupported > 0 ? 1 : 0;
}
