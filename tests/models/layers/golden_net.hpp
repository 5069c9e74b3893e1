// A model on the CPU with everything that a step needs, for comparisons with golden files.
// GoldenNet owns the device, the program and its memory; used from one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/model/build.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/program/program.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain::test {

class GoldenNet {
 public:
  GoldenNet(const models::ModelConfig& config, std::int64_t batch, const UpdateRule& rule)
      : program_(*device_, models::build(config, batch, DType::f32), {}),
        store_(*device_, program_.plan().layout),
        optimizer_(*device_, rule, store_.layout()) {
    state_.learning_rate = static_cast<float>(base_learning_rate(rule));
    state_.sum_weight = static_cast<double>(batch);
  }

  const Graph& graph() const { return program_.plan().graph; }
  const ParameterStore& store() const { return store_; }
  std::int64_t batch() const { return graph().batch(); }
  void initialize(std::uint64_t seed) { dtrain::initialize(store_.params(), store_.layout(), graph(), seed); }
  /// After each change of the parameters.
  void pack() { program_.pack(store_, *stream_); }

  /// Mean loss of these samples (logical order); the gradients are sums over the batch.
  double run(const std::vector<float>& samples, const std::vector<std::int32_t>& labels) {
    const InputSlot& slot = program_.slot(0);
    const std::vector<float> memory = to_memory(slot.inputs[0].desc, samples);
    std::copy(memory.begin(), memory.end(), slot.inputs[0].as<float>());
    for (std::size_t n = 0; n < labels.size(); ++n) {
      slot.inputs[1].as<std::int32_t>()[n] = labels[n];
      slot.inputs[2].as<float>()[n] = 1;
      slot.positions.as<std::uint64_t>()[n] = n;
    }
    program_.run({Mode::train, true, true}, 0, store_, state_, hooks_, *stream_);
    return static_cast<double>(store_.loss_sums().as<float>()[loss_sum]) / static_cast<double>(batch());
  }
  void update() {
    optimizer_.update(store_, 0, store_.layout().param_floats, state_, *stream_);
    pack();
    ++state_.applied_steps;
  }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = device_->make_stream(StreamUse::compute);
  Program program_;
  ParameterStore store_;
  Optimizer optimizer_;
  StepState state_;
  NoHooks hooks_;
};

}  // namespace dtrain::test
