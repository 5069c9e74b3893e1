// The state of a step between host and device, and recorded work, on an asynchronous device.
#include "runtime/program/step_memory.hpp"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "runtime/device/cuda_graph_cache.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/step_math.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain {
namespace {

using test::AsyncDevice;

TEST(StepMemory, keeps_what_the_device_counts_and_gives_it_what_the_host_says) {
  AsyncDevice device;
  const auto stream = device.make_stream(StreamUse::compute);
  const Buffer sums(device, 16 * sizeof(float));
  device.zero(sums.data(), sums.bytes(), *stream);
  StepMemory memory(device);
  EXPECT_EQ(memory.lag(), 2);
  StepState start;
  start.applied_steps = 7;
  memory.reset(start, *stream);
  for (std::uint64_t s = 0; s < 6; ++s) {
    StepState step;
    step.step = s;
    step.learning_rate = static_cast<float>(s) * 0.5f;
    step.applied_steps = 1000;  // the device's own: not taken
    memory.begin(step, *stream);
    memory.write_tail({s == 3 ? 1.0f : 0.0f, static_cast<float>(s), 5, {}}, 0,
                      static_cast<float*>(sums.data()) + sums_per_loss, *stream);
    device.kernels().finish_step({&memory.state(), static_cast<float*>(sums.data()), {}}, *stream);
    memory.end(*stream);
    if (memory.under_way() <= memory.lag()) continue;
    const StepState& done = memory.read();
    EXPECT_EQ(done.step, s - 2);
    EXPECT_EQ(done.learning_rate, static_cast<float>(s - 2) * 0.5f);
    EXPECT_EQ(done.applied_steps, 7 + s - 1);
    EXPECT_EQ(done.tail.stop, s - 2 == 3 ? 1 : 0);
    EXPECT_EQ(done.tail.joules, static_cast<float>(s - 2));
    EXPECT_EQ(done.tail.joules_samples, 5);
  }
  while (memory.under_way() > 0) memory.read();
  EXPECT_THROW(memory.read(), BugError);
}

TEST(StepMemory, is_one_struct_on_a_cpu) {
  const auto device = make_cpu_device(1);
  const auto stream = device->make_stream(StreamUse::compute);
  StepMemory memory(*device);
  EXPECT_EQ(memory.lag(), 0);
  memory.begin({.step = 3, .learning_rate = 2}, *stream);
  EXPECT_EQ(memory.state().learning_rate, 2);
  memory.end(*stream);
  EXPECT_EQ(&memory.read(), &memory.state());
}

TEST(StepMath, decides_on_an_update_as_the_loss_scale_grows_and_shrinks) {
  StepState s;
  s.sum_weight = 2;
  s.loss_scale = 4;
  judge_gradients(s, 64, 0, 0.5);
  EXPECT_EQ(s.grad_norm, 1);  // 8 / (2 * 4)
  EXPECT_EQ(s.gradient_scale, 0.5f);
  EXPECT_EQ(s.nonfinite, 0u);
  const float sums[16] = {1, 2, 3};
  const LossScaling rule{.dynamic = true, .growth_steps = 2, .minimum = 1, .maximum = 8};
  close_step(s, sums, rule, {});
  EXPECT_EQ(s.loss_scale, 4);
  close_step(s, sums, rule, {});
  EXPECT_EQ(s.loss_scale, 8);
  close_step(s, sums, rule, {});
  close_step(s, sums, rule, {});
  EXPECT_EQ(s.loss_scale, 8);  // the most
  EXPECT_EQ(s.applied_steps, 4u);
  EXPECT_EQ(s.sums[2], 3);
  judge_gradients(s, HUGE_VAL, 17, 0);
  EXPECT_EQ(s.nonfinite, 1u);
  EXPECT_EQ(s.nonfinite_block, 17u);
  close_step(s, sums, rule, {});
  EXPECT_EQ(s.applied_steps, 4u);  // skipped
  EXPECT_EQ(s.loss_scale, 4);
  for (int i = 0; i < 5; ++i) close_step(s, sums, rule, {});
  EXPECT_EQ(s.loss_scale, 1);  // the least
}

TEST(CudaGraphCache, run_once_record_once_and_replay_what_memory_holds_then) {
  AsyncDevice device;
  const auto stream = device.make_stream(StreamUse::compute);
  const Buffer a(device, 4), b(device, 4);
  int calls = 0, out = 0;
  CudaGraphCache cache(device, true);
  for (int value = 1; value <= 5; ++value) {
    device.copy(a.data(), &value, 4, *stream);
    cache.run(3, *stream, [&] {
      ++calls;
      device.copy(b.data(), a.data(), 4, *stream);
    });
    device.copy(&out, b.data(), 4, *stream);
    stream->synchronize();
    EXPECT_EQ(out, value);
  }
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(device.recordings, 1);
  EXPECT_EQ(device.replays, 4);
}

TEST(CudaGraphCache, other_streams_take_part_between_two_events) {
  AsyncDevice device;
  const auto first = device.make_stream(StreamUse::compute), second = device.make_stream(StreamUse::communication);
  const auto forked = device.make_event(), joined = device.make_event();
  const Buffer a(device, 4), b(device, 4);
  int out = 0;
  CudaGraphCache cache(device, true);
  for (int value = 1; value <= 4; ++value) {
    device.copy(a.data(), &value, 4, *first);
    cache.run(0, *first, [&] {
      first->record(*forked);
      second->wait(*forked);
      device.copy(b.data(), a.data(), 4, *second);
      second->record(*joined);
      first->wait(*joined);
    });
    device.copy(&out, b.data(), 4, *first);
    first->synchronize();
    EXPECT_EQ(out, value);
  }
  std::string why_not;
  EXPECT_THROW(device.record(
                   *first,
                   [&] {
                     first->record(*forked);
                     second->wait(*forked);
                     device.copy(b.data(), a.data(), 4, *second);
                   },
                   why_not),
               BugError);
  EXPECT_THROW(device.record(
                   *first, [&] { first->synchronize(); }, why_not),
               BugError);
}

TEST(CudaGraphCache, without_a_device_that_records_all_is_run) {
  const auto device = make_cpu_device(1);
  const auto stream = device->make_stream(StreamUse::compute);
  CudaGraphCache cache(*device, true);
  int calls = 0;
  for (int i = 0; i < 3; ++i) cache.run(0, *stream, [&] { ++calls; });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(cache.refusal(), "this device records nothing");
}

}  // namespace
}  // namespace dtrain
