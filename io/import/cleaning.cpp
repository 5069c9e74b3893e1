#include "io/import/cleaning.hpp"

#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// Without its numbers.
std::string shape_of(const std::string& reason) {
  std::string shape;
  for (const char c : reason) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit || !shape.ends_with('#')) shape += digit ? '#' : c;
  }
  return shape;
}

}  // namespace

Findings::Like& Findings::Kind::of(const std::string& reason) {
  if (!by_reason.contains(reason) && by_reason.size() >= reasons) return by_reason["other reasons"];
  return by_reason[reason];
}

void Findings::add(const std::string& kind, std::uint64_t order, std::string text, const std::string& reason) {
  Kind& k = kinds_[kind];
  ++k.count;
  Like& like = k.of(shape_of(reason));
  ++like.count;
  const std::size_t most = reason.empty() ? named : 1;
  if (like.first.size() == most && order > like.first.rbegin()->first) return;
  like.first.emplace(order, reason.empty() ? std::move(text) : fmt::format("{}: {}", text, reason));
  if (like.first.size() > most) like.first.erase(std::prev(like.first.end()));
}

void Findings::merge(const Findings& other) {
  for (const auto& [name, kind] : other.kinds_) {
    Kind& k = kinds_[name];
    k.count += kind.count;
    for (const auto& [reason, theirs] : kind.by_reason) {
      Like& like = k.of(reason);
      like.count += theirs.count;
      like.first.insert(theirs.first.begin(), theirs.first.end());
      while (like.first.size() > (reason.empty() ? named : 1)) like.first.erase(std::prev(like.first.end()));
    }
  }
}

std::uint64_t Findings::count() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& [name, kind] : kinds_) sum += kind.count;
  return sum;
}

std::string Findings::text_of(const Kind& kind) {
  std::string text, between;
  if (const auto plain = kind.by_reason.find(""); plain != kind.by_reason.end()) {
    const Like& like = plain->second;
    for (const auto& [order, what] : like.first) text += std::exchange(between, "; ") + what;
    if (like.count > like.first.size()) text += fmt::format("; and {} more", like.count - like.first.size());
    return text;
  }
  std::map<std::uint64_t, const Like*> in_order;
  for (const auto& [reason, like] : kind.by_reason) in_order.emplace(like.first.begin()->first, &like);
  constexpr std::size_t shown = 8;
  std::uint64_t left = kind.count;
  std::size_t named_reasons = 0;
  for (const auto& [order, like] : in_order) {
    if (named_reasons++ == shown) break;
    text += std::exchange(between, "; ") + like->first.begin()->second;
    if (like->count > 1) text += fmt::format(", and {} more like it", like->count - 1);
    left -= like->count;
  }
  return left > 0 ? fmt::format("{}; and {} more", text, left) : text;
}

std::string Findings::text() const {
  std::string text;
  for (const auto& [name, kind] : kinds_) {
    std::string counted = name;
    if (const auto plural = counted.find('*'); plural != counted.npos)
      counted.replace(plural, 1, kind.count == 1 ? "" : "s");
    text += fmt::format("{}{} {} ({})", text.empty() ? "" : ", ", kind.count, counted, text_of(kind));
  }
  return text;
}

void Findings::settle(OnError on_error, const std::string& source) const {
  if (kinds_.empty() || on_error == OnError::drop) return;
  throw DataError(fmt::format("{}: {}; repair them, or leave them out with --on-error drop", source, text()));
}

}  // namespace dtrain::io
