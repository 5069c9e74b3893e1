#include "runtime/ranks/group.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain {

namespace {

// Which class an error had, so that the other ranks throw the same one. The numbers travel between ranks.
enum class ErrorKind : std::uint8_t { none, config, shape, data, checkpoint, comm, device, memory, numeric, bug };

struct Failure {
  ErrorKind kind = ErrorKind::none;
  std::uint8_t detail = 0;  // CheckpointError::Kind
  std::string text;
  friend bool operator==(const Failure&, const Failure&) = default;
};

Failure describe(const std::exception_ptr& error) {
  if (!error) return {};
  const auto of = [](ErrorKind kind, const std::exception& e) { return Failure{kind, 0, e.what()}; };
  try {
    std::rethrow_exception(error);
  } catch (const ConfigError& e) {
    return of(ErrorKind::config, e);
  } catch (const ShapeError& e) {
    return of(ErrorKind::shape, e);
  } catch (const DataError& e) {
    return of(ErrorKind::data, e);
  } catch (const CheckpointError& e) {
    return {ErrorKind::checkpoint, static_cast<std::uint8_t>(e.kind()), e.what()};
  } catch (const CommError& e) {
    return of(ErrorKind::comm, e);
  } catch (const OutOfMemory& e) {
    return of(ErrorKind::memory, e);
  } catch (const DeviceError& e) {
    return of(ErrorKind::device, e);
  } catch (const NumericError& e) {
    return of(ErrorKind::numeric, e);
  } catch (const std::bad_alloc&) {
    return {ErrorKind::memory, 0, "out of host memory"};
  } catch (const std::exception& e) {
    return of(ErrorKind::bug, e);
  } catch (...) {
    return {ErrorKind::bug, 0, "an exception of unknown type"};
  }
}

[[noreturn]] void raise(const Failure& failure, const std::string& text, int rank) {
  switch (failure.kind) {
    case ErrorKind::config:
      throw ConfigError(text);
    case ErrorKind::shape:
      throw ShapeError(text);
    case ErrorKind::data:
      throw DataError(text);
    case ErrorKind::checkpoint:
      throw CheckpointError(text, static_cast<CheckpointError::Kind>(failure.detail));
    case ErrorKind::comm:
      throw CommError(text, rank);
    case ErrorKind::device:
      throw DeviceError(text);
    case ErrorKind::memory:
      throw OutOfMemory(text);
    case ErrorKind::numeric:
      throw NumericError(text);
    case ErrorKind::none:
    case ErrorKind::bug:
      break;
  }
  throw BugError(text);
}

std::vector<std::byte> encode(const Failure& failure) {
  std::vector<std::byte> bytes;
  if (failure.kind == ErrorKind::none) return bytes;
  bytes.resize(2 + failure.text.size());
  bytes[0] = static_cast<std::byte>(failure.kind);
  bytes[1] = static_cast<std::byte>(failure.detail);
  std::memcpy(bytes.data() + 2, failure.text.data(), failure.text.size());
  return bytes;
}

Failure decode(const std::vector<std::byte>& bytes) {
  if (bytes.size() < 2) return {};
  return {static_cast<ErrorKind>(bytes[0]), static_cast<std::uint8_t>(bytes[1]),
          std::string(reinterpret_cast<const char*>(bytes.data()) + 2, bytes.size() - 2)};
}

}  // namespace

void Group::agree(const std::function<void()>& work) {
  std::exception_ptr mine;
  try {
    work();
  } catch (...) {
    mine = std::current_exception();
  }
  std::vector<Failure> failures;
  for (const auto& bytes : all_gather(std::span<const std::byte>(encode(describe(mine))))) {
    failures.push_back(decode(bytes));
  }
  const auto first =
      std::find_if(failures.begin(), failures.end(), [](const Failure& f) { return f.kind != ErrorKind::none; });
  if (first == failures.end()) return;
  const bool alike = std::all_of(failures.begin(), failures.end(), [&](const Failure& f) { return f == *first; });
  // The own exception says the most: the places of a ConfigError, say.
  if (alike) std::rethrow_exception(mine);
  const int at = static_cast<int>(first - failures.begin());
  raise(*first, fmt::format("rank {}: {}", at, first->text), at);
}

bool Group::any(bool mine) {
  const auto all = all_values(static_cast<std::uint8_t>(mine));
  return std::any_of(all.begin(), all.end(), [](std::uint8_t theirs) { return theirs != 0; });
}

std::vector<std::string> Group::all_gather(const std::string& mine) {
  std::vector<std::string> out;
  for (const auto& bytes : all_gather(std::as_bytes(std::span(mine.data(), mine.size())))) {
    out.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return out;
}

std::string Group::broadcast(const std::string& mine, int root) {
  const auto view = std::as_bytes(std::span(mine));
  std::vector<std::byte> bytes(view.begin(), view.end());
  broadcast(bytes, root);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string ranks_text(std::vector<int> ranks) {
  std::sort(ranks.begin(), ranks.end());
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (end - i < 3) end = i + 1;
    parts.push_back(end - i > 1 ? fmt::format("{} to {}", ranks[i], ranks[end - 1]) : std::to_string(ranks[i]));
    i = end;
  }
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < parts.size(); ++i)
    text += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
  return text;
}

}  // namespace dtrain
