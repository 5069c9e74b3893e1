#include "launch/data/row_sums.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::json;

constexpr std::size_t digits = 16;    // of a sum
constexpr std::size_t most_told = 4;  // runs of differing blocks

/// Rows a block, but for the last ones.
std::uint64_t block_rows(std::uint64_t count) noexcept {
  return count / RowSums::blocks + (count % RowSums::blocks != 0 ? 1 : 0);
}

std::string hex(const RowSums& rows) {
  std::string text;
  for (const std::uint64_t sum : rows.sums) text += fmt::format("{:016x}", sum);
  return text;
}

RowSums from_hex(const std::string& text) {
  RowSums rows;
  if (text.size() != RowSums::blocks * digits) throw DataError("sums of another number of blocks");
  for (std::size_t b = 0; b < RowSums::blocks; ++b) {
    const char* const begin = text.data() + b * digits;
    const auto [end, error] = std::from_chars(begin, begin + digits, rows.sums[b], 16);
    if (error != std::errc() || end != begin + digits) throw DataError("a sum that is no hexadecimal number");
  }
  return rows;
}

std::uint64_t number(const Json& json, const char* key) {
  const Json& value = json.at(key);
  if (!value.is_number_unsigned()) throw DataError(fmt::format("{} is no whole number", key));
  return value.get<std::uint64_t>();
}

}  // namespace

std::pair<std::uint64_t, std::uint64_t> RowSums::block(std::size_t index, std::uint64_t count) noexcept {
  const std::uint64_t rows = block_rows(count);
  return {std::min(index * rows, count), std::min((index + 1) * rows, count)};
}

void RowSums::add(std::uint64_t index, std::uint64_t count, std::uint64_t hash) noexcept {
  sums[static_cast<std::size_t>(index / block_rows(count))] += hash;
}

void RowSums::add(const RowSums& other) noexcept {
  for (std::size_t b = 0; b < blocks; ++b) sums[b] += other.sums[b];
}

std::string RowSums::digest() const {
  return fmt::format("{:016x}", std::accumulate(sums.begin(), sums.end(), std::uint64_t{0}));
}

RowSums sum_rows(const io::Dataset& data) {
  RowSums rows;
  std::size_t scratch_bytes = 0;
  for (const io::DataPort& port : data.ports()) scratch_bytes = std::max(scratch_bytes, port.scratch_bytes());
  std::vector<std::byte> scratch(scratch_bytes);
  for (std::uint64_t i = 0; i < data.count(); ++i)
    for (std::size_t p = 0; p < data.ports().size(); ++p)
      if (!data.port(p).labels) rows.add(i, data.count(), data.row_hash(p, i, data.row(p, i, scratch.data())));
  return rows;
}

std::string differing_rows(const io::Dataset& data, const RowSums& a, const RowSums& b) {
  std::string text;
  std::size_t told = 0;
  for (std::size_t block = 0; block < RowSums::blocks; ++block) {
    if (a.sums[block] == b.sums[block]) continue;
    std::size_t end = block + 1;  // of the run
    while (end < RowSums::blocks && a.sums[end] != b.sums[end]) ++end;
    if (told++ == most_told) return text + ", and more";
    text += (text.empty() ? "" : ", ") +
            data.rows_text(RowSums::block(block, data.count()).first, RowSums::block(end - 1, data.count()).second);
    block = end;
  }
  return text;
}

std::string to_text(const SavedSums& saved) {
  Json json{{"count", saved.count}, {"all", nullptr}, {"part", nullptr}};
  if (saved.all) json["all"] = hex(*saved.all);
  if (saved.part)
    json["part"] = {{"begin", saved.part->begin}, {"end", saved.part->end}, {"sums", hex(saved.part->sums)}};
  return json.dump();
}

SavedSums saved_sums_from(const std::string& text, const std::string& source) {
  const auto corrupt = [&source](const std::string& what) {
    return CheckpointError(fmt::format("{} is corrupt: data_sums has {}", source, what),
                           CheckpointError::Kind::corrupt);
  };
  try {
    const Json json = Json::parse(text);
    SavedSums saved;
    saved.count = number(json, "count");
    if (saved.count == 0) throw DataError("no rows");
    if (const Json& all = json.at("all"); !all.is_null()) saved.all = from_hex(all.get<std::string>());
    if (const Json& part = json.at("part"); !part.is_null()) {
      saved.part = {number(part, "begin"), number(part, "end"), from_hex(part.at("sums").get<std::string>())};
      if (saved.part->begin >= saved.part->end ||
          saved.part->begin / saved.count != (saved.part->end - 1) / saved.count)
        throw DataError("a part that is not of one epoch");
    }
    return saved;
  } catch (const Json::exception& e) {
    throw corrupt(fmt::format("what cannot be read: {}", e.what()));
  } catch (const DataError& e) {
    throw corrupt(e.what());
  }
}

}  // namespace dtrain::launch
