#include "io/dataset/description.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "io/hdf5/names.hpp"
#include "io/text/token_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t max_text_bytes = std::size_t{4} << 20;  // in a checkpoint
constexpr std::size_t max_quoted = 200;                       // characters of a list of names in a message

/// "NHWC", "NCHW", "CHW", "channels_last", ...
StoredLayout layout_in(std::string text) {
  if (text == "channels_last") return StoredLayout::channels_last;
  if (text == "channels_first") return StoredLayout::channels_first;
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (text.size() > 2 && text.starts_with('N')) text.erase(0, 1);
  if (text.size() < 2 || text.size() > 4 || text.find_first_not_of("CDHWLT") != text.npos) return StoredLayout::unknown;
  return text.front() == 'C'  ? StoredLayout::channels_first
         : text.back() == 'C' ? StoredLayout::channels_last
                              : StoredLayout::unknown;
}

std::string quoted(const std::vector<std::string>& names) {
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  return text.size() <= max_quoted ? text : text.substr(0, max_quoted) + "...";
}

/// Beside the data set, or at the root.
std::vector<std::string> names_beside(const h5::File& file, const h5::DatasetInfo& info, const std::string& set,
                                      std::uint64_t most, std::size_t most_bytes) {
  const std::string group = info.path.substr(0, info.path.rfind('/') + 1);
  std::vector<std::string> names = h5::read_names(file, group + set, most, most_bytes);
  if (names.empty() && group != "/") names = h5::read_names(file, "/" + set, most, most_bytes);
  return names;
}

[[noreturn]] void refuse(const Description& wanted, const Description& found, const std::string& why) {
  const char* const what = wanted.classes ? "classes" : "columns";
  throw DataError(fmt::format("{} has the {} {}, but {} has {}: {}; {}", found.source, what, quoted(found.names),
                              wanted.source, quoted(wanted.names), why,
                              wanted.classes ? "classes are matched by name: import both with the same classes"
                                             : "columns are matched by name: both must have the same ones"));
}

/// The place in `wanted` of each name of `found`.
std::vector<std::size_t> places(const Description& wanted, const Description& found) {
  std::map<std::string_view, std::size_t> known;
  for (std::size_t i = 0; i < wanted.names.size(); ++i)
    if (!known.emplace(wanted.names[i], i).second) refuse(wanted, found, wanted.names[i] + " stands there twice");
  std::set<std::string_view> seen;
  std::vector<std::size_t> places;
  for (const std::string& name : found.names) {
    const auto at = known.find(name);
    if (at == known.end()) refuse(wanted, found, name + " is not among the second");
    if (!seen.insert(name).second) refuse(wanted, found, name + " stands in the first twice");
    places.push_back(at->second);
  }
  if (!wanted.classes && known.size() != seen.size()) {
    const auto lacking =
        std::find_if(wanted.names.begin(), wanted.names.end(), [&](const auto& name) { return !seen.contains(name); });
    refuse(wanted, found, *lacking + " is not among the first");
  }
  return places;
}

std::int64_t largest_of(StoredType type) {
  return with_stored_type(type, [](auto tag) -> std::int64_t {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, Half>) {
      return 1 << 11;  // exactly
    } else if constexpr (sizeof(T) < sizeof(std::int32_t)) {
      return std::numeric_limits<T>::max();
    } else {
      return std::numeric_limits<std::int32_t>::max();
    }
  });
}

/// Of shard_text().
struct ShardOf {
  std::string set;
  std::uint64_t shard = 0, shards = 0;
};
std::optional<ShardOf> shard_in(const std::string& text) {
  ShardOf s;
  std::istringstream words(text);
  std::string of;
  const bool good = static_cast<bool>(words >> s.set >> s.shard >> of >> s.shards) && of == "of";
  return good ? std::optional(s) : std::nullopt;
}

/// "data/part" of "data/part-00001-of-00004.h5: /x"; else the whole.
std::string name_of_set(const std::string& source) {
  const std::string file = source.substr(0, source.rfind(": "));
  const auto of = file.rfind("-of-");
  return of == file.npos ? file : file.substr(0, file.rfind('-', of - 1));
}

}  // namespace

std::string shard_text(const std::string& set, std::uint64_t shard, std::uint64_t shards) {
  return fmt::format("{} {} of {}", set, shard, shards);
}

void check_shards(std::span<const Description> all) {
  std::map<std::string, std::pair<ShardOf, const Description*>> by_set, by_name;
  for (const Description& d : all) {
    const auto shard = shard_in(d.shard);
    if (!shard) continue;
    const auto refuse_with = [&](const std::pair<ShardOf, const Description*>& other, const char* what) {
      throw DataError(fmt::format(
          "{} is shard {} of {}, but {} is shard {} of {}: {}; name the files of one of them, and remove those that "
          "are "
          "out of date",
          d.source, shard->shard, shard->shards, other.second->source, other.first.shard, other.first.shards, what));
    };
    const auto cut = by_set.try_emplace(shard->set, *shard, &d).first;
    if (cut->second.first.shards != shard->shards) refuse_with(cut->second, "it is the same set, cut in another way");
    const auto [same, first] = by_set.try_emplace(fmt::format("{} {}", shard->set, shard->shard), *shard, &d);
    if (!first) refuse_with(same->second, "they hold the same samples");
    const auto named = by_name.try_emplace(name_of_set(d.source), *shard, &d).first;
    if (named->second.first.set != shard->set) refuse_with(named->second, "they are of different sets");
  }
}

Description describe(const h5::File& file, const h5::DatasetInfo& info, const std::string& port, PortUse use,
                     bool index) {
  Description said{fmt::format("{}: {}", file.path(), info.path), port, use};
  said.classes = use == PortUse::target && index;
  said.layout = layout_in(h5::read_text_attribute(file, info.path, "layout"));
  if (use == PortUse::input) {
    said.shard = h5::read_text_attribute(file, info.path, "shard");
    said.preprocessing = h5::read_text_attribute(file, info.path, "preprocessing");
    if (said.preprocessing.size() > max_quoted) said.preprocessing.clear();
    const std::string hash =
        index ? h5::read_text_attribute(file, info.path, token_file::tokenizer_hash) : std::string();
    if (!hash.empty() && hash.size() < max_quoted)
      said.tokenizer =
          fmt::format("{}, hash {}", h5::read_text_attribute(file, info.path, token_file::tokenizer), hash);
  }
  if (use == PortUse::weight || (index && !said.classes)) return said;
  said.names = names_beside(file, info, name_set(said), h5::max_names, h5::max_bytes_of_names);
  // Names of columns are of the innermost extent, or of something else.
  if (!said.classes && (info.dims.size() < 2 || said.names.size() != info.dims.back()) &&
      !(info.dims.size() == 1 && said.names.size() == 1))
    said.names.clear();
  return said;
}

std::vector<std::string> file_names(const h5::File& file, const h5::DatasetInfo& samples) {
  std::vector<std::string> names =
      names_beside(file, samples, file_names_set, samples.rows(), h5::max_bytes_of_file_names);
  if (names.size() != samples.rows()) names.clear();
  return names;
}

const char* name_set(const Description& said) {
  return said.classes ? "class_names" : said.use == PortUse::input ? "feature_names" : "target_names";
}

const Description& fullest(std::span<const Description> all) {
  return *std::max_element(all.begin(), all.end(),
                           [](const auto& a, const auto& b) { return a.names.size() < b.names.size(); });
}

StoredLayout agreed_layout(std::span<const Description> all) {
  const Description* first = nullptr;
  for (const Description& d : all) {
    if (d.layout == StoredLayout::unknown) continue;
    if (first == nullptr) first = &d;
    if (d.layout == first->layout) continue;
    const auto text = [](const Description& x) {
      return x.layout == StoredLayout::channels_first ? "channels first" : "channels last";
    };
    throw DataError(fmt::format("{} is stored {}, but {} {}, as their attributes `layout` say; shards must agree",
                                d.source, text(d), first->source, text(*first)));
  }
  return first == nullptr ? StoredLayout::unknown : first->layout;
}

std::string other_tokenizer(const Description& a, const Description& b) {
  if (a.tokenizer.empty() || b.tokenizer.empty() || a.tokenizer == b.tokenizer) return {};
  return fmt::format("{} has tokens of {}, but {} has tokens of {}; import their texts with one tokenizer", a.source,
                     a.tokenizer, b.source, b.tokenizer);
}

void check_tokenizers(std::span<const Description> all, const Description* reference) {
  for (const Description& said : all) {
    std::string text = other_tokenizer(said, all.front());
    if (text.empty() && reference != nullptr) text = other_tokenizer(said, *reference);
    if (!text.empty()) throw DataError(text);
  }
}

RowMap::RowMap(const Description& wanted, const Description& found, StoredType type) : type_(type) {
  if (wanted.names.empty() || found.names.empty() || wanted.names == found.names) return;
  std::vector<std::size_t> to = places(wanted, found);
  if (wanted.classes) {
    labels_.assign(to.begin(), to.end());
    const bool same = std::is_sorted(to.begin(), to.end()) && to.back() + 1 == to.size();
    if (same) labels_.clear();
    if (same) return;
    if (const std::int32_t most = *std::max_element(labels_.begin(), labels_.end()); most > largest_of(type))
      refuse(wanted, found, fmt::format("label {} is larger than the first can hold ({})", most, name_of(type)));
    return;
  }
  columns_ = to.size();
  for (std::size_t i = 0; i < to.size(); ++i) {
    while (to[i] != i) {
      swaps_.emplace_back(i, to[i]);
      std::swap(to[i], to[to[i]]);
    }
  }
}

std::int64_t RowMap::label(std::int64_t stored, std::optional<std::int64_t> ignored) const noexcept {
  if (labels_.empty()) return stored;
  if (stored >= 0 && stored < static_cast<std::int64_t>(labels_.size()))
    return labels_[static_cast<std::size_t>(stored)];
  return ignored == stored ? stored : -1;
}

bool RowMap::apply(std::byte* stored, std::size_t count, std::optional<std::int64_t> ignored) const {
  return with_stored_type(type_, [&](auto tag) {
    using T = decltype(tag);
    T a, b;
    if (!labels_.empty()) {
      for (std::size_t i = 0; i < count; ++i) {
        std::memcpy(&a, stored + i * sizeof a, sizeof a);
        const auto value = whole_number(a);
        const std::int64_t mapped = value ? label(*value, ignored) : -1;
        if (mapped < 0 && mapped != value) return false;
        a = static_cast<T>(mapped);
        std::memcpy(stored + i * sizeof a, &a, sizeof a);
      }
    }
    for (std::size_t row = 0; !swaps_.empty() && row + columns_ <= count; row += columns_) {
      for (const auto& [i, j] : swaps_) {
        std::byte *const x = stored + (row + i) * sizeof a, *const y = stored + (row + j) * sizeof a;
        std::memcpy(&a, x, sizeof a);
        std::memcpy(&b, y, sizeof b);
        std::memcpy(x, &b, sizeof b);
        std::memcpy(y, &a, sizeof a);
      }
    }
    return true;
  });
}

std::string to_text(std::span<const Description> all) {
  nlohmann::json json = nlohmann::json::array();
  for (const Description& d : all) {
    if (d.names.empty() && d.preprocessing.empty() && d.tokenizer.empty()) continue;
    json.push_back({{"port", d.port},
                    {"use", d.use == PortUse::input ? "input" : "target"},
                    {"classes", d.classes},
                    {"names", d.names}});
    if (!d.preprocessing.empty()) json.back()["preprocessing"] = d.preprocessing;
    if (!d.tokenizer.empty()) json.back()["tokenizer"] = d.tokenizer;
  }
  if (json.empty()) return {};
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() <= max_text_bytes ? text : std::string();
}

std::vector<Description> descriptions_from(const std::string& text, const std::string& source) {
  std::vector<Description> all;
  if (text.empty()) return all;
  try {
    for (const auto& item : nlohmann::json::parse(text)) {
      Description& d = all.emplace_back();
      d.source = source;
      d.port = item.at("port").get<std::string>();
      d.use = item.at("use").get<std::string>() == "input" ? PortUse::input : PortUse::target;
      d.classes = item.at("classes").get<bool>();
      d.names = item.at("names").get<std::vector<std::string>>();
      d.preprocessing = item.value("preprocessing", "");
      d.tokenizer = item.value("tokenizer", "");
    }
  } catch (const nlohmann::json::exception& e) {
    throw DataError(fmt::format("{}: what it says of the data cannot be read: {}", source, e.what()));
  }
  return all;
}

const Description* find_description(std::span<const Description> all, PortUse use, const std::string& port) {
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const Description& d) { return d.use == use && d.port == port; });
  return at == all.end() ? nullptr : &*at;
}

}  // namespace dtrain::io
