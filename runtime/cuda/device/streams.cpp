#include "runtime/cuda/device/streams.hpp"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include "runtime/cuda/device/timeline.hpp"
#include "runtime/cuda/errors.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

cudaStream_t native_of(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(bool timed) : timed_(timed) {
    check(cudaEventCreateWithFlags(&event_, timed ? cudaEventDefault : cudaEventDisableTiming),
          "cannot create a CUDA event");
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  bool done() const override { return cudaEventQuery(event_) == cudaSuccess; }
  void synchronize() override { check(cudaEventSynchronize(event_), "waiting for a CUDA event"); }
  double seconds_since(const Event& earlier) const override {
    const auto* before = dynamic_cast<const CudaEvent*>(&earlier);
    if (!before || !timed_ || !before->timed_) throw BugError("the time between events that were made for none");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, before->event_, event_), "reading the time between CUDA events");
    return static_cast<double>(milliseconds) * 1e-3;
  }
  void record_on(cudaStream_t stream) {
    // In a graph a plain recording is a dependency alone; one that is external is a node, and the event is really
    // recorded at each launch.
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    if (timed_) check(cudaStreamIsCapturing(stream, &capture), "asking a CUDA stream whether it is captured");
    const bool node = capture == cudaStreamCaptureStatusActive;
    check(cudaEventRecordWithFlags(event_, stream, node ? cudaEventRecordExternal : cudaEventRecordDefault),
          "recording a CUDA event");
  }
  cudaEvent_t native() const noexcept { return event_; }

 private:
  const bool timed_;
  cudaEvent_t event_ = nullptr;
};

CudaEvent& own(Event& event) {
  auto* own = dynamic_cast<CudaEvent*>(&event);
  if (!own) throw BugError("a CUDA stream was given the event of another device");
  return *own;
}

bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

class CudaStream final : public Stream {
 public:
  static constexpr std::size_t capacity = 256;  // host functions under way

  explicit CudaStream(StreamUse use) : tasks_(capacity) {
    // Sums and copies are short, and much waits for them: their blocks go before those of the computation.
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "reading the priorities of CUDA streams");
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, use == StreamUse::compute ? least : greatest),
          "cannot create a CUDA stream");
    for (Slot& slot : tasks_) slot.owner = this;
  }
  ~CudaStream() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void record(Event& event) override { own(event).record_on(stream_); }
  void wait(Event& event) override {
    rethrow();
    check(cudaStreamWaitEvent(stream_, own(event).native(), 0), "waiting for a CUDA event");
  }
  void host(const HostTask& task) override {
    rethrow();
    if (is_captured(stream_)) throw DeviceError("a host function cannot be part of a CUDA graph");
    if (submitted_ - finished_.load() == capacity) check(cudaStreamSynchronize(stream_), "waiting for a CUDA stream");
    Slot& slot = tasks_[submitted_ % capacity];
    slot.task = task;
    check(cudaLaunchHostFunc(stream_, run, &slot), "launching a host function");
    ++submitted_;
  }
  void reach(Timeline& timeline, std::uint64_t value) override { reach_on(stream_, timeline, value); }
  void await(Timeline& timeline, std::uint64_t value) override { await_on(stream_, timeline, value); }
  void synchronize() override {
    check(cudaStreamSynchronize(stream_), "waiting for a CUDA stream");
    rethrow();
  }
  void* native() const noexcept override { return stream_; }

 private:
  struct Slot {
    CudaStream* owner = nullptr;
    HostTask task;
  };
  static void CUDART_CB run(void* argument) {
    auto& slot = *static_cast<Slot*>(argument);
    CudaStream& self = *slot.owner;
    try {
      if (!self.failed_.load()) slot.task.run(slot.task.arguments);
    } catch (...) {
      const std::lock_guard lock(self.mutex_);
      self.failure_ = std::current_exception();
      self.failed_ = true;
    }
    ++self.finished_;
  }
  void rethrow() {
    if (!failed_.load()) return;
    const std::lock_guard lock(mutex_);
    std::rethrow_exception(failure_);
  }

  cudaStream_t stream_ = nullptr;
  std::vector<Slot> tasks_;
  std::uint64_t submitted_ = 0;
  std::atomic<std::uint64_t> finished_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

// ---- recorded work
// ---------------------------------------------------------------------------------------------------

class Graph final {
 public:
  Graph() = default;
  ~Graph() {
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  cudaGraph_t graph = nullptr;
};

class GraphReplay final : public Replay {
 public:
  GraphReplay(const Graph& graph, cudaStream_t stream) {
    check(cudaGraphInstantiate(&exec_, graph.graph, 0), "cannot make a CUDA graph executable");
    const cudaError_t uploaded = cudaGraphUpload(exec_, stream);
    if (uploaded != cudaSuccess) {
      cudaGraphExecDestroy(exec_);
      check(uploaded, "cannot give a CUDA graph to the GPU");
    }
  }
  ~GraphReplay() override { cudaGraphExecDestroy(exec_); }
  GraphReplay(const GraphReplay&) = delete;
  GraphReplay& operator=(const GraphReplay&) = delete;
  void launch(Stream& stream) override { check(cudaGraphLaunch(exec_, native_of(stream)), "launching a CUDA graph"); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

/// What CUDA says where work is not fit for a capture, in contrast to what is wrong with the work.
bool is_refusal(cudaError_t status) {
  return status >= cudaErrorStreamCaptureUnsupported && status <= cudaErrorStreamCaptureWrongThread;
}

/// A stream in capture, until end() or the end of its life.
class Capture final {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    // Other threads (the loader's, the checkpoint writer's) go on as they like.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cannot begin to capture a CUDA graph");
  }
  ~Capture() {
    if (stream_ == nullptr) return;
    Graph unused;
    cudaStreamEndCapture(stream_, &unused.graph);
    cudaGetLastError();  // of a capture that failed: it says nothing of what follows
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  bool invalidated() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(stream_, &status) != cudaSuccess || status == cudaStreamCaptureStatusInvalidated;
  }
  cudaError_t end(Graph& into) {
    const cudaError_t status = cudaStreamEndCapture(std::exchange(stream_, nullptr), &into.graph);
    if (status != cudaSuccess) cudaGetLastError();
    return status;
  }

 private:
  cudaStream_t stream_;
};

}  // namespace

std::unique_ptr<Stream> make_cuda_stream(StreamUse use) {
  return std::make_unique<CudaStream>(use);
}

std::unique_ptr<Event> make_cuda_event(bool timed) {
  return std::make_unique<CudaEvent>(timed);
}

std::unique_ptr<Replay> record_cuda_work(Stream& stream, const std::function<void()>& work, std::string& why_not) {
  cudaStream_t on = native_of(stream);
  Graph graph;
  {
    Capture capture(on);
    try {
      work();
    } catch (const DeviceError& e) {
      if (!capture.invalidated()) throw;
      why_not = e.what();
      return nullptr;
    }
    const cudaError_t status = capture.end(graph);
    if (is_refusal(status)) {
      why_not = cudaGetErrorString(status);
      return nullptr;
    }
    check(status, "cannot capture a CUDA graph");
  }
  return std::make_unique<GraphReplay>(graph, on);
}

}  // namespace dtrain::cuda
