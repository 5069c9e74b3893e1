#include "runtime/cuda/library/tuner.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) throw DeviceError(fmt::format("measuring algorithms: {}", cudaGetErrorString(status)));
}

/// Memory, a stream and two events. `memory` is null where there was none.
struct Bench {
  Bench() = default;
  explicit Bench(std::size_t size) : Bench() {  // delegates: what was made is released where something later fails
    bytes = size;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaEventCreate(&begin));
    check(cudaEventCreate(&end));
    if (cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)) != cudaSuccess) {
      cudaGetLastError();  // not sticky: clear it
      memory = nullptr;
      return;
    }
    fill(false);
  }
  ~Bench() {
    if (memory) cudaFree(memory);
    if (end) cudaEventDestroy(end);
    if (begin) cudaEventDestroy(begin);
    if (stream) cudaStreamDestroy(stream);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Numbers that repeat after a length that no image's row has.
  void fill(bool far_from_zero) const {
    std::vector<std::uint16_t> pattern(std::min<std::size_t>((bytes + 1) / 2, 2000006));
    for (std::size_t i = 0; i < pattern.size(); ++i) pattern[i] = scratch_number(i, far_from_zero);
    const std::size_t once = std::min(2 * pattern.size(), bytes);
    auto* const begin_of_all = static_cast<std::byte*>(memory);
    check(cudaMemcpyAsync(memory, pattern.data(), once, cudaMemcpyHostToDevice, stream));
    for (std::size_t at = once; at < bytes; at += once)
      check(cudaMemcpyAsync(begin_of_all + at, memory, std::min(once, bytes - at), cudaMemcpyDeviceToDevice, stream));
    check(cudaStreamSynchronize(stream));
  }

  /// The first and last elements of all results of a run, which begin as NaN.
  std::vector<std::vector<std::byte>> results(const Candidate& candidate) const {
    auto* scratch = static_cast<std::byte*>(memory);
    for (const auto& r : candidate.results)
      check(cudaMemsetAsync(scratch + r.at, 0xFF, static_cast<std::size_t>(r.elements) * size_of(r.dtype), stream));
    candidate.run(scratch, stream);
    std::vector<std::vector<std::byte>> out;
    for (const auto& r : candidate.results) {
      const std::int64_t compared = std::min(r.elements, most_compared);
      for (const std::int64_t first : {std::int64_t{0}, r.elements - compared}) {
        const std::size_t from = r.at + static_cast<std::size_t>(first) * size_of(r.dtype);
        out.emplace_back(static_cast<std::size_t>(compared) * size_of(r.dtype));
        check(cudaMemcpyAsync(out.back().data(), scratch + from, out.back().size(), cudaMemcpyDeviceToHost, stream));
      }
    }
    check(cudaStreamSynchronize(stream));
    return out;
  }
  /// Whether `b` gives what `a` gives, in each of a's comparisons. Leaves other numbers in the memory.
  bool agree(const Candidate& a, const Candidate& b) const {
    try {
      for (const Candidate::Comparison& comparison : a.comparisons) {
        fill(comparison.far_from_zero);
        const auto of_a = results(a), of_b = results(b);
        for (std::size_t i = 0; i < of_a.size(); ++i) {
          const Candidate::Result& r = a.results[i / 2];
          const std::int64_t n = std::min(r.elements, most_compared);
          if (!cuda::agree(r.dtype, comparison.tolerance, of_a[i].data(), of_b[i].data(), n)) return false;
        }
      }
      return true;
    } catch (const DeviceError&) {
      cudaGetLastError();
      return false;
    }
  }

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

  static constexpr std::int64_t most_compared = 1 << 20;
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  std::size_t bytes = 0;
  void* memory = nullptr;
};

/// Index of the quickest that agrees with the first.
std::size_t measured_best(std::span<const Candidate> candidates) {
  std::size_t bytes = 0;
  for (const Candidate& candidate : candidates) bytes = std::max(bytes, candidate.scratch);
  const Bench bench(bytes);
  if (!bench.memory) return 0;
  std::vector<double> milliseconds;
  for (const Candidate& candidate : candidates) {
    try {
      milliseconds.push_back(bench.milliseconds(candidate));
    } catch (const DeviceError&) {
      milliseconds.push_back(std::numeric_limits<double>::infinity());
      cudaGetLastError();
    }
  }
  for (;;) {
    const std::size_t best = quickest(milliseconds);
    if (best == 0 || bench.agree(candidates[0], candidates[best])) return best;
    milliseconds[best] = std::numeric_limits<double>::infinity();
  }
}

}  // namespace

std::string choose(CudaContext& context, const std::string& library, const std::string& key,
                   std::span<const std::string> algorithms, const MakeCandidate& make) {
  const std::string full = full_key(context, library, key);
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
  const std::size_t best = candidates.size() > 1 ? measured_best(candidates) : 0;
  context.choices.set(full, names[best]);
  return names[best];
}

}  // namespace dtrain::cuda
