// A trained model on this rank's device: found, checked against the configuration, and its parameters loaded.
// All ranks make one together, on their main threads; it owns the Engine, and borrows configuration and World.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/watch/watchdog.hpp"
#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "io/dataset/loader.hpp"
#include "launch/config/config_file.hpp"
#include "launch/data/data.hpp"
#include "launch/train/engine.hpp"
#include "models/model/build.hpp"
#include "runtime/device/host_mirror.hpp"

namespace dtrain::launch {

/// Which parameters.
struct CheckpointChoice {
  /// A step directory, its label `best`, or a directory of checkpoints (the newest valid one). Empty: the
  /// configuration's; the word "best" or a step: that one there.
  std::string checkpoint;
  bool raw = false;  // the parameters as trained, also where there is a moving average
};

class TrainedModel {
 public:
  /// Finds the checkpoint. Throws CheckpointError where it is of another model.
  TrainedModel(const LoadedConfig&, comm::World&, const CheckpointChoice&);

  /// Opens the data before the graph, which is built for what they hold: what does not fit the model is said before
  /// anything is allocated.
  template <class Open>
  void set_up(models::BuildFor use, Open open) {
    set_up_graph([&] {
      // As many samples at once as in training, whether or not these ranks could share its batch.
      const std::int64_t ranks = world_.size();
      const std::int64_t micro =
          config_.batch.micro > 0 ? config_.batch.micro : (config_.batch.global + ranks - 1) / ranks;
      data_.emplace(open());
      stored_ = stored_ports(*data_);
      Graph graph = models::build(config_.model, micro, config_.precision, stored_, use);
      check_data(config_, graph, stored_, *data_, DataUse::evaluation);
      return graph;
    });
  }
  /// Without data.
  void set_up_graph(const std::function<Graph()>& build);

  /// What set_up() takes.
  RunConfig& config() noexcept { return config_; }
  Engine& engine() noexcept { return *engine_; }
  Group& group() noexcept { return *group_; }
  comm::Watchdog& watchdog() noexcept { return world_.watchdog(); }
  const io::FoundCheckpoint& found() const noexcept { return *found_; }
  const io::Dataset& data() const noexcept { return *data_; }
  bool averaged() const noexcept { return found_->averaged && !choice_.raw; }
  /// "2 ranks"
  std::string ranks_text() const;
  /// How the loader reads the data.
  io::LoaderOptions loading() const;
  std::unique_ptr<io::Loader> make_loader() const { return io::Loader::evaluation(*data_, loading()); }

 private:
  void load();
  void load_base(const HostMirror& params);

  const LoadedConfig& input_;
  RunConfig config_;
  comm::World& world_;
  CheckpointChoice choice_;
  std::unique_ptr<Group> group_;
  std::optional<io::FoundCheckpoint> found_;
  std::optional<Engine> engine_;
  std::optional<io::Dataset> data_;
  models::StoredPorts stored_;
};

}  // namespace dtrain::launch
