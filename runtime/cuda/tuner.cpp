#include "runtime/cuda/tuner.hpp"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runtime/error.hpp"

namespace dtrain::cuda {

namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) throw DeviceError(fmt::format("measuring algorithms: {}", cudaGetErrorString(status)));
}

/// Memory, a stream and two events. `memory` is null where there was none.
struct Bench {
  Bench() = default;
  explicit Bench(std::size_t bytes) : Bench() {  // delegates: what was made is released where something later fails
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaEventCreate(&begin));
    check(cudaEventCreate(&end));
    if (cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)) != cudaSuccess) {
      cudaGetLastError();  // not sticky: clear it
      memory = nullptr;
      return;
    }
    // Small numbers in each of the float types, none of them denormal.
    check(cudaMemsetAsync(memory, 0x3C, bytes, stream));
    check(cudaStreamSynchronize(stream));
  }
  ~Bench() {
    if (memory) cudaFree(memory);
    if (end) cudaEventDestroy(end);
    if (begin) cudaEventDestroy(begin);
    if (stream) cudaStreamDestroy(stream);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Of one run, the least of several rounds. Rounds are graphs, as steps are: so the GPU is measured and not the host,
  /// and what cannot be captured fails here.
  double milliseconds(const Candidate& candidate) const {
    auto* scratch = static_cast<std::byte*>(memory);
    candidate.run(scratch, stream);  // loads code, which a capture must not
    check(cudaStreamSynchronize(stream));
    const double once = Rounds(*this, candidate, 2).milliseconds();
    // Rounds of about a millisecond: enough for the events' resolution.
    const Rounds rounds(*this, candidate, std::clamp(static_cast<int>(1.0 / std::max(once, 1e-3)), 1, 50));
    double least = once;
    for (int i = 0; i < 4; ++i) least = std::min(least, rounds.milliseconds());
    return least;
  }

  /// A graph of some runs.
  struct Rounds {
    Rounds(const Bench& b, const Candidate& candidate, int runs_) : bench(b), runs(runs_) {
      cudaGraph_t graph = nullptr;
      check(cudaStreamBeginCapture(bench.stream, cudaStreamCaptureModeThreadLocal));
      try {
        for (int i = 0; i < runs; ++i) candidate.run(static_cast<std::byte*>(bench.memory), bench.stream);
      } catch (...) {
        cudaStreamEndCapture(bench.stream, &graph);
        if (graph) cudaGraphDestroy(graph);
        throw;
      }
      check(cudaStreamEndCapture(bench.stream, &graph));
      const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
      cudaGraphDestroy(graph);
      check(status);
    }
    ~Rounds() {
      if (executable) cudaGraphExecDestroy(executable);
    }
    Rounds(const Rounds&) = delete;
    Rounds& operator=(const Rounds&) = delete;

    /// Of one run.
    double milliseconds() const {
      check(cudaGraphLaunch(executable, bench.stream));  // warm
      check(cudaEventRecord(bench.begin, bench.stream));
      check(cudaGraphLaunch(executable, bench.stream));
      check(cudaEventRecord(bench.end, bench.stream));
      check(cudaEventSynchronize(bench.end));
      float elapsed = 0;
      check(cudaEventElapsedTime(&elapsed, bench.begin, bench.end));
      return static_cast<double>(elapsed) / runs;
    }

    const Bench& bench;
    int runs;
    cudaGraphExec_t executable = nullptr;
  };

  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  void* memory = nullptr;
};

/// Times of all; empty where the GPU's memory does not suffice.
std::vector<double> measure(std::span<const Candidate> candidates) {
  std::size_t bytes = 0;
  for (const Candidate& candidate : candidates) bytes = std::max(bytes, candidate.scratch);
  const Bench bench(bytes);
  std::vector<double> milliseconds;
  if (!bench.memory) return milliseconds;
  for (const Candidate& candidate : candidates) {
    try {
      milliseconds.push_back(bench.milliseconds(candidate));
    } catch (const DeviceError&) {
      milliseconds.push_back(std::numeric_limits<double>::infinity());
      cudaGetLastError();
    }
  }
  return milliseconds;
}

}  // namespace

std::string choose(CudaContext& context, const std::string& library, const std::string& key,
                   std::span<const std::string> algorithms, const MakeCandidate& make) {
  const std::string full = fmt::format("{} {}: {}", library, context.model, key);
  if (const std::string* chosen = context.choices.find(full); chosen && make(*chosen)) return *chosen;
  std::vector<std::string> names;
  std::vector<Candidate> candidates;
  for (const std::string& algorithm : algorithms) {
    if (candidates.size() == most_candidates) break;
    auto candidate = make(algorithm);
    if (!candidate) continue;
    names.push_back(algorithm);
    candidates.push_back(std::move(*candidate));
  }
  if (candidates.empty())
    throw DeviceError(fmt::format("{} has no algorithm for {}", full.substr(0, full.find(':')), key));
  std::vector<double> milliseconds;
  if (candidates.size() > 1) milliseconds = measure(candidates);
  const std::size_t best = milliseconds.empty() ? 0 : quickest(milliseconds);
  context.choices.set(full, names[best]);
  return names[best];
}

}  // namespace dtrain::cuda
