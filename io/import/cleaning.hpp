// What an importer finds wrong with its input: counted by kind, the first few named, refused or dropped as asked.
// A Findings belongs to one thread; threads collect into their own, which are merged.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace dtrain::io {

/// What becomes of samples that cannot be trained on.
enum class OnError : std::uint8_t { refuse, drop };

class Findings {
 public:
  static constexpr std::size_t named = 3;     // of each kind, where no reasons are given
  static constexpr std::size_t reasons = 64;  // that are told apart; an example of each is named

  /// `kind`: its plural's s, where it has one, is written *: "broken file*". `order`: where it stands in the input; the
  /// first are named, whatever the number of threads. `text`: where. `reason`: why; equal ones, but for the numbers in
  /// them, are counted together.
  void add(const std::string& kind, std::uint64_t order, std::string text, const std::string& reason = {});
  void merge(const Findings&);
  std::uint64_t count() const noexcept;
  /// "3 broken files (a.jpg: is truncated, and 1 more like it; b.jpg: is empty), 1 hidden folder (.git)"
  std::string text() const;
  /// Throws DataError where there is anything and it is not to be dropped. `source`: what was read, for the message.
  void settle(OnError, const std::string& source) const;

 private:
  struct Like {
    std::uint64_t count = 0;
    std::map<std::uint64_t, std::string> first;
  };
  struct Kind {
    std::uint64_t count = 0;
    std::map<std::string, Like> by_reason;
    Like& of(const std::string& reason);
  };
  static std::string text_of(const Kind&);
  std::map<std::string, Kind> kinds_;
};

}  // namespace dtrain::io
