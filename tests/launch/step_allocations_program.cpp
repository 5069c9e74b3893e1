// Counts heap allocations of whole training steps: loader, program, reducer, update, on two ranks as threads.
// A program of its own, because it replaces malloc for everything in the process, libraries included.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <unistd.h>

#include "comm/local.hpp"
#include "comm/reducer.hpp"
#include "io/dataset.hpp"
#include "io/import_mnist.hpp"
#include "io/loader.hpp"
#include "runtime/program.hpp"
#include "runtime/update.hpp"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};
void count() noexcept {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

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
  const auto x = g.add_input(InputRole::sample, "sample", {DType::f32, Shape{micro, 1, 14, 14}, Layout::channels_last});
  const auto y = g.add_input(InputRole::target, "target", {DType::f32, Shape{micro, 1}});
  const auto w = g.add_input(InputRole::weight, "weight", {DType::f32, Shape{micro}});
  auto v = g.add("conv2d_1", Conv2d{.filters = 8, .kernel = {3, 3}, .activation = Activation::relu}, {x});
  v = g.add("maxpool2d_1", MaxPool2d{}, {v});
  v = g.add("conv2d_2", Conv2d{.filters = 16, .kernel = {3, 3}, .activation = Activation::relu}, {v});
  v = g.add("flatten_1", Flatten{}, {v});
  v = g.add("dense_1", Linear{.units = 32, .activation = Activation::relu}, {v});
  v = g.add("dropout_1", Dropout{.rate = 0.2, .id = 1}, {v});
  v = g.add("dense_2", Linear{.units = 1}, {v});
  g.add("loss", MeanSquaredError{}, {v, y, w});
  return g;
}

long count_steps(const std::string& file, const UpdateRule& rule, comm::Algorithm algorithm) {
  const std::string files[] = {file};
  const io::Dataset data(files);
  allocations = 0;
  comm::run_local(ranks, [&](comm::LocalRank& rank) {
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    const auto group = rank.make_group();
    const auto collective = rank.make_collective(algorithm);
    PlanOptions options;
    options.buckets = {.bucket_mib = 0.01, .last_bucket_mib = 0.01, .at_least = 2, .smallest_mib = 0.01};
    Program program(*device, small_cnn(), options);
    ParameterStore store(*device, program.plan().layout);
    initialize(store.params(), store.layout(), program.plan().graph, 1);
    program.pack(store, *compute);
    Optimizer optimizer(*device, rule, store.layout());
    comm::GradientReducer reducer(*device, *collective, store, {});
    io::LoaderOptions loading;
    loading.input = Shape{1, 14, 14};
    loading.micro_batch = micro;
    loading.global_batch = micro * accumulation * ranks;
    loading.rank = rank.rank();
    loading.ranks = ranks;
    const auto loader = io::Loader::training(data, loading);
    StepState state;
    state.learning_rate = 0.01f;
    state.sum_weight = static_cast<float>(loading.global_batch);
    const auto step = [&] {
      reducer.begin_step();
      for (std::int64_t j = 0; j < accumulation; ++j) {
        const io::Batch& batch = loader->next();
        const InputSlot& slot = program.slot(static_cast<int>(j % 2));
        device->copy(slot.sample.data, batch.sample.data, slot.sample.bytes(), *compute);
        device->copy(slot.target.data, batch.target.data, slot.target.bytes(), *compute);
        device->copy(slot.weight.data, batch.weight.data, slot.weight.bytes(), *compute);
        device->copy(slot.positions.data, batch.positions.data, slot.positions.bytes(), *compute);
        loader->release();
        program.run({Mode::train, j == 0, j + 1 == accumulation}, static_cast<int>(j % 2), store, state, reducer,
                    *compute);
      }
      reducer.wait_all(*compute);
      optimizer.gradient_norm(store, *compute);
      optimizer.update(store, 0, store.layout().param_floats, state, *compute);
      program.pack(store, *compute);
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
  io::make_regression(file, {.samples = 500, .features = 196});
  {
    // The counter must count: a test that cannot fail shows nothing.
    counting = true;
    volatile char* p = new char[100];
    delete[] p;
    counting = false;
    if (allocations == 0) return fmt::print("the counter does not count\n"), 1;
  }
  int failed = 0;
  const auto check = [&](const char* what, const UpdateRule& rule, comm::Algorithm algorithm) {
    const long n = count_steps(file, rule, algorithm);
    fmt::print("{}: {} allocations in 20 steps after warm-up\n", what, n);
    if (n != 0) ++failed;
  };
  check("sgd with momentum", {Sgd{.momentum = 0.9}}, comm::Algorithm::automatic);
  check("adam", {Adam{}}, comm::Algorithm::automatic);
  check("adamw, fixed order", {AdamW{}}, comm::Algorithm::fixed_order);
  std::filesystem::remove(file);
  return failed;
}

}  // namespace
}  // namespace dtrain

int main() {
  return dtrain::run();
}
