// Engine: a model on this rank's device, ready to compute: device, what sums over the ranks run on, compute stream,
// feed, program and parameters. Owns all of these; one a rank, used on the thread that trains, evaluates or predicts.
#pragma once

#include <memory>
#include <span>

#include "comm/world/world.hpp"
#include "launch/config/config.hpp"
#include "launch/data/feed.hpp"
#include "runtime/device/device.hpp"
#include "runtime/program/program.hpp"

namespace dtrain::launch {

class Engine {
 public:
  /// The device alone, see device_placement.hpp; bind() makes the rest. Throws DeviceError.
  Engine(const comm::World&, std::unique_ptr<Device> device);
  /// For who trains, before bind(), all ranks together: what sums of gradients run on, and one more for the sums inside
  /// the graph, which would queue behind the others. Throws CommError, as all ranks do then.
  void connect(const RunConfig&, comm::World&);
  /// Plans the graph for the device, to train or to evaluate alone, and allocates. Parameters are zero. `layouts`: of
  /// the batches that it will be given, see Program. Throws DeviceError, OutOfMemory.
  void bind(Graph, const RunConfig&, Mode use = Mode::train, std::span<const BatchLayout> layouts = {});

  Device& device() const noexcept { return *device_; }
  /// After connect().
  Collective& collective() const noexcept { return *collective_; }
  /// Throws CommError where a sum over the ranks has failed asynchronously. Costs nothing where all is well.
  void check_ranks();
  Stream& compute() const noexcept { return *compute_; }
  Feed& feed() noexcept { return feed_; }
  Program& program() const noexcept { return *program_; }
  const Plan& plan() const noexcept { return program_->plan(); }
  const ParameterStore& store() const noexcept { return *store_; }
  /// After every change of the parameters: they are packed on an asynchronous device now, so that no recorded pass has
  /// to, and by the next pass elsewhere.
  void pack(Program::Changed = Program::Changed::anyhow);
  /// Nothing of what the device was given is under way any more, whatever came of it.
  void quiet() noexcept;

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Collective> collective_, statistics_;
  std::unique_ptr<Stream> compute_;
  Feed feed_;
  int ranks_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<ParameterStore> store_;
};

}  // namespace dtrain::launch
