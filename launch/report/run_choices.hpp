// RunChoices: what a run chose by measurement, name -> text: algorithms of kernels, and whatever else measures at
// start. Equal on all ranks, because rank 0's count; kept in choices.txt of the run's directory and in each checkpoint,
// and taken up again by whoever goes on from there. One a run, on the training thread; what says "collective" is called
// by all ranks.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "runtime/device/algorithm_choices.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

class RunChoices {
 public:
  /// The group outlives it.
  explicit RunChoices(Group& group) : group_(group) {}

  // ---- what is known before anything is measured; what comes later counts
  /// Collective: those of DIRECTORY/choices.txt, as rank 0 sees it; none where there is no such file. Throws
  /// CheckpointError (exit 4) that names file and line.
  void recall(const std::string& directory);
  /// Those of a checkpoint, which all ranks know: io::RunState::choices.
  void recall(const std::map<std::string, std::string>& of_checkpoint);

  // ---- choosing
  /// Null where nothing was chosen under this name.
  const std::string* find(const std::string& name) const { return all_.find(name); }
  /// Collective: the choice of this name. Where there is none, all ranks call measure(), which may exchange data, and
  /// rank 0's answer counts. The name says all that the choice hangs on (ranks, sizes, versions, GPU), so that a run
  /// under other circumstances does not find it. Neither name nor text holds " = " or a line break.
  std::string choose(const std::string& name, const std::function<std::string()>& measure);
  /// The same where what was chosen before does not count.
  std::string choose_again(const std::string& name, const std::function<std::string()>& measure);

  /// What became of the algorithms of a device, on rank 0.
  struct Tally {
    std::size_t recalled = 0;  // were known before, of whatever device
    std::size_t measured = 0;  // are new, or others than before
  };
  /// Collective: `prepare` prepares the kernels of the device on each rank, and is where a device measures. Where
  /// devices do, rank 0 goes first, and the others measure only what it has not: those with another GPU or library.
  /// Whatever throws on some rank, all throw, as Group::agree().
  Tally prepare(Device&, const std::function<void()>& prepare);

  // ---- keeping
  /// For io::RunState::choices.
  const std::map<std::string, std::string>& all() const noexcept { return all_.all(); }
  /// Writes DIRECTORY/choices.txt, "name = text" lines, where there are any; rank 0 does. Throws DataError.
  void write(const std::string& directory) const;

 private:
  /// Rank 0's, on all ranks.
  AlgorithmChoices shared(const AlgorithmChoices& mine) const;

  Group& group_;
  AlgorithmChoices all_;  // those of devices under "algorithm/" + the device's name for them
};

}  // namespace dtrain::launch
