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
  static constexpr std::size_t named = 3;  // of each kind

  /// `kind`: in the plural, "broken files". `order`: where it stands in the input; the first are named, whatever the
  /// number of threads. `text`: where, and why.
  void add(const std::string& kind, std::uint64_t order, std::string text);
  void merge(const Findings&);
  std::uint64_t count() const noexcept;
  /// "3 broken files (a.jpg: is truncated; b.jpg: ...; and 1 more), 1 label out of range (...)"
  std::string text() const;
  /// Throws DataError where there is anything and it is not to be dropped. `source`: what was read, for the message.
  void settle(OnError, const std::string& source) const;

 private:
  struct Kind {
    std::uint64_t count = 0;
    std::map<std::uint64_t, std::string> first;
  };
  std::map<std::string, Kind> kinds_;
};

}  // namespace dtrain::io
