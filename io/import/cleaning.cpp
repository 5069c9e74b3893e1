#include "io/import/cleaning.hpp"

#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {

void Findings::add(const std::string& kind, std::uint64_t order, std::string text) {
  Kind& k = kinds_[kind];
  ++k.count;
  if (k.first.size() == named && order > k.first.rbegin()->first) return;
  k.first.emplace(order, std::move(text));
  if (k.first.size() > named) k.first.erase(std::prev(k.first.end()));
}

void Findings::merge(const Findings& other) {
  for (const auto& [name, kind] : other.kinds_) {
    Kind& k = kinds_[name];
    k.count += kind.count;
    k.first.insert(kind.first.begin(), kind.first.end());
    while (k.first.size() > named) k.first.erase(std::prev(k.first.end()));
  }
}

std::uint64_t Findings::count() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& [name, kind] : kinds_) sum += kind.count;
  return sum;
}

std::string Findings::text() const {
  std::string text;
  for (const auto& [name, kind] : kinds_) {
    text += fmt::format("{}{} {} (", text.empty() ? "" : ", ", kind.count, name);
    std::string between;
    for (const auto& [order, what] : kind.first) {
      text += std::exchange(between, "; ") + what;
    }
    text += kind.count > kind.first.size() ? fmt::format("; and {} more)", kind.count - kind.first.size()) : ")";
  }
  return text;
}

void Findings::settle(OnError on_error, const std::string& source) const {
  if (kinds_.empty() || on_error == OnError::drop) return;
  throw DataError(fmt::format("{}: {}; repair them, or leave them out with --on-error drop", source, text()));
}

}  // namespace dtrain::io
