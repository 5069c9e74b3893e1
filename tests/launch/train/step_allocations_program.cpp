// Counts heap allocations of whole training steps (loader, program, reducer, update) on two ranks as threads.
// A program of its own, because it replaces malloc for everything in the process, libraries included. oneDNN allocates
// inside each call (an argument map, scratch of a gemm): that is counted apart, and everything else must be zero.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <vector>

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include "comm/collective/reducer.hpp"
#include "comm/world/local.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/loader.hpp"
#include "io/import/import_mnist.hpp"
#include "runtime/optim/matrices.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/program/micro_batch_tree.hpp"
#include "runtime/program/program.hpp"
#include "runtime/ranks/trace.hpp"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0}, allocations_of_onednn{0};
thread_local bool inside_onednn = false;

void count() noexcept {
  if (!counting.load(std::memory_order_relaxed)) return;
  (inside_onednn ? allocations_of_onednn : allocations).fetch_add(1, std::memory_order_relaxed);
}

struct InsideOnednn {
  InsideOnednn() noexcept { inside_onednn = true; }
  ~InsideOnednn() { inside_onednn = false; }
  InsideOnednn(const InsideOnednn&) = delete;
  InsideOnednn& operator=(const InsideOnednn&) = delete;
};

/// The library's own function of this name, which this program shadows.
template <class F>
F* original(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}
}  // namespace

// The two entry points of oneDNN's C interface that kernels call in a step.
extern "C" {
int dnnl_primitive_execute(const void* primitive, void* stream, int n, const void* arguments) {
  static auto* const execute = original<int(const void*, void*, int, const void*)>("dnnl_primitive_execute");
  const InsideOnednn inside;
  return execute(primitive, stream, n, arguments);
}
int dnnl_sgemm(char ta, char tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a,
               std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  static auto* const gemm =
      original<int(char, char, std::int64_t, std::int64_t, std::int64_t, float, const float*, std::int64_t,
                   const float*, std::int64_t, float, float*, std::int64_t)>("dnnl_sgemm");
  const InsideOnednn inside;
  return gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
}

// glibc's own names of the functions that are replaced here; operator new comes through malloc.
extern "C" {
void* __libc_malloc(std::size_t);                 // NOLINT
void* __libc_calloc(std::size_t, std::size_t);    // NOLINT
void* __libc_realloc(void*, std::size_t);         // NOLINT
void* __libc_memalign(std::size_t, std::size_t);  // NOLINT

void* malloc(std::size_t n) {
  count();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  count();
  return __libc_realloc(p, n);
}
void* memalign(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  count();
  *p = __libc_memalign(alignment, n);
  return *p ? 0 : ENOMEM;
}
}

namespace dtrain {
namespace {

constexpr std::int64_t micro = 8, accumulation = 2;
constexpr int ranks = 2;

Graph small_cnn() {
  Graph g(micro);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{micro, 8, 8, 1}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{micro}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{micro}});
  auto v = g.add("conv2d_1", Conv{.filters = 8, .kernel = {3, 3}, .activation = Activation::relu}, {x});
  v = g.add("maxpool2d_1", MaxPool{}, {v});
  v = g.add("conv2d_2", Conv{.filters = 16, .kernel = {2, 2}, .activation = Activation::relu}, {v});
  v = g.add("flatten_1", Flatten{}, {v});
  v = g.add("dense_1", Dense{.units = 32, .activation = Activation::relu}, {v});
  v = g.add("dropout_1", Dropout{.rate = 0.2, .id = 1}, {v});
  v = g.add("dense_2", Dense{.units = 10}, {v});
  g.add_loss("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

/// An image and tokens, a class of which one is ignored, and a value. The file has images and labels alone: labels are
/// tokens, classes and values.
Graph two_of_each() {
  Graph g(micro);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{micro, 8, 8, 1}});
  const auto words = g.add_input(PortUse::input, "words", {DType::u8, Shape{micro}}, 10);
  const auto y = g.add_input(PortUse::target, "target", {DType::u8, Shape{micro}}, 10);
  const auto value = g.add_input(PortUse::target, "value", {DType::f32, Shape{micro, 1}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{micro}});
  const auto image = g.add("dense_1", Dense{.units = 16}, {g.add("flatten_1", Flatten{}, {x})});
  const auto both = g.add("concat_1", Concat{}, {image, g.add("embedding_1", Embedding{10, 8}, {words})});
  g.add_loss("class", SoftmaxCrossEntropy{.ignore = 9}, {g.add("dense_2", Dense{.units = 10}, {both}), y, w}, 1, true);
  g.add_loss("value", MeanSquaredError{}, {g.add("dense_3", Dense{.units = 1}, {both}), value, w}, 0.5);
  return g;
}

/// What the ports of both are read from.
std::vector<io::PortSource> sources() {
  return {{.name = "sample", .use = PortUse::input, .key = "/images"},
          {.name = "words", .use = PortUse::input, .index = true, .key = "/labels"},
          {.name = "target", .use = PortUse::target, .index = true, .key = "/labels", .ignore = 9},
          {.name = "value", .use = PortUse::target, .key = "/labels"}};
}

io::LoaderOptions loading(const Graph& graph, const io::Dataset& data, int rank) {
  io::LoaderOptions options;
  options.layout = batch_layout(graph);
  for (const GraphInput& input : graph.inputs()) {
    io::PortOptions port;
    port.use = input.use;
    port.limit = input.limit;
    for (std::size_t i = 0; i < data.ports().size(); ++i)
      if (data.port(i).name == input.name) port.source = static_cast<int>(i);
    options.ports.push_back(port);
  }
  for (const GraphLoss& loss : graph.losses())
    if (loss.counted)
      options.counts.push_back(
          {static_cast<int>(graph.input_index("target")), static_cast<int>(graph.input_index("weight")), 9});
  options.global_batch = micro * accumulation * ranks;
  options.rank = rank;
  options.ranks = ranks;
  return options;
}

long count_steps(const std::string& file, const std::function<Graph()>& graph, const UpdateRule& rule,
                 comm::Algorithm algorithm, DType wire) {
  const std::string files[] = {file};
  const io::Dataset data(files, {.ports = sources()});
  allocations = allocations_of_onednn = 0;
  comm::run_local(ranks, [&](comm::LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto group = rank.make_group();
    const auto collective = rank.make_collective(algorithm);
    PlanOptions options;
    options.buckets = {.bucket_mib = 0.01, .last_bucket_mib = 0.01, .at_least = 2, .smallest_mib = 0.01};
    options.buckets.shards = rule.shard ? ranks : 1;
    Graph model = graph();
    mark_matrices(model, rule);
    Program program(*device, std::move(model), options);
    ParameterStore store(*device, program.plan().layout);
    initialize(store.params(), store.layout(), program.plan().graph, 1);
    program.pack(store, *compute);
    Optimizer optimizer(*device, rule, store.layout(), rule.shard ? Shard{rank.rank(), ranks} : Shard{});
    comm::CommConfig communication;
    communication.gradient_dtype = wire;
    comm::GradientReducer reducer(*device, *collective, store, communication, rule.shard);
    MicroBatchTree tree(*device, store, accumulation, reducer);  // the elastic way to accumulate
    const auto loader = io::Loader::training(data, loading(program.plan().graph, data, rank.rank()));
    std::vector<std::uint64_t> weights(loader->loss_weights(0).size());
    StepState state;
    state.learning_rate = 0.01f;
    state.sum_weight = static_cast<double>(micro * accumulation * ranks);
    Trace trace(100);  // wraps in the steps that are counted
    const auto step = [&] {
      std::fill(weights.begin(), weights.end(), 0);
      reducer.begin_step();
      for (std::int64_t j = 0; j < accumulation; ++j) {
        const io::Batch& batch = loader->next();
        const InputSlot& slot = program.slot(static_cast<int>(j % 2));
        device->copy(slot.carried, batch.memory.data(), batch.memory.size(), *compute);
        loader->add_weights(batch.next_weights, weights);
        loader->release();
        program.run({Mode::train, true, j + 1 == accumulation}, static_cast<int>(j % 2), store, state, tree, *compute);
        if (j + 1 < accumulation) tree.keep(*compute);
      }
      reducer.wait_all(*compute);
      for (const comm::BucketTiming& t : reducer.timings()) trace.add({.begin = t.begin, .end = t.end});
      for (int i = 0; i < 10; ++i) trace.add({.begin = comm::seconds_now(), .activity = Activity::step});
      reducer.gather_squares(optimizer.block_squares(store, *compute), *compute);
      if (needs_whole_parameters(rule)) {
        optimizer.update(store, 0, store.layout().param_floats, state, *compute);
      } else {
        for (std::size_t b = 0; b < store.layout().buckets.size(); ++b)
          optimizer.update_bucket(store, b, state, *compute);
      }
      reducer.gather_parameters(*compute);
      program.parameters_changed();
      ++state.step;
      ++state.applied_steps;
    };
    for (int i = 0; i < 5; ++i) step();
    // Steps keep the ranks together, so that no rank is still outside of them when rank 0 counts.
    group->barrier();
    step();
    if (rank.rank() == 0) counting = true;
    for (int i = 0; i < 20; ++i) step();
    if (rank.rank() == 0) counting = false;
    step();
    group->barrier();
  });
  return allocations;
}

int run() {
  const std::string file =
      fmt::format("{}/dtrain-allocations-{}.h5", std::filesystem::temp_directory_path().string(), getpid());
  const std::string digits = "models/data/digits/";  // tests run in the repository's root
  io::import_mnist(digits + "train-images-idx3-ubyte.gz", digits + "train-labels-idx1-ubyte.gz", file);
  {
    // The counter must count: a test that cannot fail shows nothing.
    counting = true;
    void* volatile p = std::malloc(100);  // volatile: not to be optimized away
    std::free(p);
    counting = false;
    if (allocations == 0) return fmt::print("the counter does not count\n"), 1;
  }
  int failed = 0;
  const auto check = [&](const char* what, const UpdateRule& rule, comm::Algorithm algorithm, DType wire = DType::f32,
                         const std::function<Graph()>& graph = small_cnn) {
    const long n = count_steps(file, graph, rule, algorithm, wire);
    fmt::print("{}: {} allocations in 20 steps after warm-up; inside oneDNN {}\n", what, n,
               allocations_of_onednn.load());
    if (n != 0) ++failed;
  };
  check("sgd with momentum", {Sgd{.momentum = 0.9}}, comm::Algorithm::automatic);
  check("adam", {Adam{}}, comm::Algorithm::automatic);
  check("adamw, fixed order", {AdamW{}}, comm::Algorithm::fixed_order);
  check("adam, sharded", {Adam{}, true}, comm::Algorithm::fixed_order);
  check("lamb, bfloat16 on the wire", {Lamb{}}, comm::Algorithm::fixed_order, DType::bf16);
  check("muon", {Muon{}}, comm::Algorithm::fixed_order);
  check("adam, two inputs and two losses", {Adam{}}, comm::Algorithm::automatic, DType::f32, two_of_each);
  std::filesystem::remove(file);
  return failed;
}

}  // namespace
}  // namespace dtrain

int main() {
  return dtrain::run();
}
