// Which algorithm a device runs for each product of matrices, convolution, norm and pool: chosen by measurement at
// start, kept with the run. Plain data on the thread that prepares; the cpu measures nothing and has none.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace dtrain {

/// Keys name a computation, the GPU and the library's version: a choice made for another one is never found. Values are
/// what that library calls the algorithm, or "own" for own kernels.
class AlgorithmChoices {
 public:
  /// Null where nothing was chosen.
  const std::string* find(const std::string& key) const;
  /// Neither holds " = " or a line break: BugError.
  void set(std::string key, std::string algorithm);
  /// The other's choices count where both have one.
  void merge(const AlgorithmChoices& other);
  const std::map<std::string, std::string>& all() const noexcept { return choices_; }

  /// "key = algorithm" lines in the order of the keys: equal choices have equal texts.
  std::string text() const;
  /// Inverse of text(). Throws CheckpointError that names the line.
  static AlgorithmChoices parse(std::string_view);
  friend bool operator==(const AlgorithmChoices&, const AlgorithmChoices&) = default;

 private:
  std::map<std::string, std::string> choices_;
};

}  // namespace dtrain
