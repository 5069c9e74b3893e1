#include "runtime/device/algorithm_choices.hpp"

#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain {

namespace {

constexpr std::string_view between = " = ";

bool sound(std::string_view text) {
  return !text.empty() && text.find('\n') == std::string_view::npos && text.find(between) == std::string_view::npos;
}

}  // namespace

const std::string* AlgorithmChoices::find(const std::string& key) const {
  const auto it = choices_.find(key);
  return it == choices_.end() ? nullptr : &it->second;
}

void AlgorithmChoices::set(std::string key, std::string algorithm) {
  if (!sound(key) || !sound(algorithm)) throw BugError(fmt::format(R"(no choice: "{}" for "{}")", algorithm, key));
  choices_.insert_or_assign(std::move(key), std::move(algorithm));
}

void AlgorithmChoices::merge(const AlgorithmChoices& other) {
  for (const auto& [key, algorithm] : other.choices_) choices_.insert_or_assign(key, algorithm);
}

std::string AlgorithmChoices::text() const {
  std::string out;
  for (const auto& [key, algorithm] : choices_) out += fmt::format("{}{}{}\n", key, between, algorithm);
  return out;
}

AlgorithmChoices AlgorithmChoices::parse(std::string_view text) {
  AlgorithmChoices out;
  for (int line = 1; !text.empty(); ++line) {
    const std::size_t end = text.find('\n');
    const std::string_view here = text.substr(0, end);
    const std::size_t at = here.find(between);
    const std::string_view key = here.substr(0, at),
                           algorithm = at == here.npos ? "" : here.substr(at + between.size());
    if (end == text.npos || !sound(key) || !sound(algorithm))
      throw CheckpointError(fmt::format("line {} of the choices of algorithms is no choice: \"{}\"", line, here),
                            CheckpointError::Kind::corrupt);
    out.choices_.insert_or_assign(std::string(key), std::string(algorithm));
    text.remove_prefix(end + 1);
  }
  return out;
}

}  // namespace dtrain
