#include "runtime/config/fields.hpp"

#include <charconv>
#include <cmath>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace dtrain {

Reader::Scope::Scope(Reader& reader, std::string_view name) : reader_(reader), length_(reader.path_.size()) {
  if (!reader.path_.empty()) reader.path_ += '.';
  reader.path_ += name;
}

void Reader::problem(const Place& place, const std::string& text) {
  problems_.push_back({place, path_, path_.empty() ? text : path_ + ": " + text});
}

void Reader::unexpected(const Document& d, const std::string& expected, const std::string& hint) {
  problem(d.place, fmt::format("got {}; expected {}{}", d.describe(), expected,
                               hint.empty() ? "" : fmt::format("; did you mean {}?", hint)));
}

namespace fields {

namespace {

enum class Read : std::uint8_t { ok, not_a_number, leading_zero, too_large };

/// [+-]digits without leading zeros: YAML 1.1 reads 010 as 8 and 1.2 as 10, so it is refused.
Read parse_integer(std::string_view text, std::int64_t& value) {
  std::string_view digits = text;
  if (digits.starts_with('+')) text = digits = digits.substr(1);
  if (digits.starts_with('-')) digits = digits.substr(1);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) return Read::not_a_number;
  if (digits.size() > 1 && digits[0] == '0') return Read::leading_zero;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? Read::ok : Read::too_large;
}

/// A decimal number: what JSON allows, and a leading + or point.
Read parse_number(std::string_view text, double& value) {
  if (text.starts_with('+')) text = text.substr(1);
  std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.empty() || digits.find_first_not_of("0123456789.eE+-") != std::string_view::npos ||
      digits.find_first_of("0123456789") == std::string_view::npos) {
    return Read::not_a_number;
  }
  if (digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9') return Read::leading_zero;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return Read::too_large;
  return error == std::errc() && end == text.data() + text.size() ? Read::ok : Read::not_a_number;
}

std::string shown(double value) {
  return fmt::format("{}", value);
}

bool looks_like_something_else(const std::string& text) {
  double number = 0;
  if (text == "true" || text == "false" || text == "null" || text == "~") return true;
  return parse_number(text, number) != Read::not_a_number;
}

}  // namespace

std::optional<std::int64_t> read_integer(const Document& d, const IntRange& range, Reader& r) {
  std::int64_t value = 0;
  const Read result = d.kind == Document::Kind::plain ? parse_integer(d.text, value) : Read::not_a_number;
  if (result == Read::ok && value >= range.least && value <= range.most) return value;
  std::string hint;
  double number = 0;
  if (result == Read::leading_zero) {
    hint = d.text.substr(std::min(d.text.find_first_not_of("+-0"), d.text.size() - 1));
  } else if (result == Read::not_a_number && d.is_scalar() && parse_number(d.text, number) == Read::ok &&
             std::abs(number) < 1e15 && number == std::floor(number) && number >= static_cast<double>(range.least)) {
    hint = fmt::format("{}", static_cast<std::int64_t>(number));
  }
  r.unexpected(d, expected(range), hint);
  return std::nullopt;
}

std::optional<double> read_number(const Document& d, const NumberRange& range, Reader& r) {
  double value = 0;
  const Read result = d.kind == Document::Kind::plain ? parse_number(d.text, value) : Read::not_a_number;
  const bool above = range.above_least ? value > range.least : value >= range.least;
  const bool below = range.below_most ? value < range.most : value <= range.most;
  if (result == Read::ok && above && below) return value;
  const bool quoted = d.kind == Document::Kind::quoted && parse_number(d.text, value) == Read::ok;
  r.unexpected(d, expected(range), quoted ? d.text : std::string());
  return std::nullopt;
}

std::optional<bool> read_boolean(const Document& d, Reader& r) {
  if (d.kind == Document::Kind::plain && d.text == "true") return true;
  if (d.kind == Document::Kind::plain && d.text == "false") return false;
  std::string hint;
  for (const char* word : {"yes", "Yes", "YES", "on", "On", "ON", "y", "Y", "True", "TRUE", "1", "true"})
    if (d.is_scalar() && d.text == word) hint = "true";
  for (const char* word : {"no", "No", "NO", "off", "Off", "OFF", "n", "N", "False", "FALSE", "0", "false"})
    if (d.is_scalar() && d.text == word) hint = "false";
  r.unexpected(d, "true or false", hint);
  return std::nullopt;
}

std::optional<std::string> read_text(const Document& d, bool may_be_empty, Reader& r) {
  const bool other = d.kind == Document::Kind::plain && looks_like_something_else(d.text);
  if (!d.is_scalar() || other) {
    r.unexpected(d, "text", other ? json_string(d.text) : std::string());
    return std::nullopt;
  }
  for (const char c : d.text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      r.unexpected(d, "text without control characters");
      return std::nullopt;
    }
  }
  if (d.text.empty() && !may_be_empty) {
    r.unexpected(d, "text that is not empty");
    return std::nullopt;
  }
  return d.text;
}

std::optional<std::size_t> read_choice(const Document& d, const std::vector<std::string>& names, Reader& r) {
  if (d.is_scalar())
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == d.text) return i;
  r.unexpected(d, expected_choice(names), d.is_scalar() ? nearest_name(d.text, names) : std::string());
  return std::nullopt;
}

std::string expected(const IntRange& range) {
  if (range.most < std::numeric_limits<std::int32_t>::max())
    return fmt::format("an integer from {} to {}", range.least, range.most);
  if (range.least == std::numeric_limits<std::int64_t>::min()) return "an integer";
  return fmt::format("an integer of at least {}", range.least);
}

std::string expected(const NumberRange& range) {
  const bool has_least = std::isfinite(range.least), has_most = std::isfinite(range.most);
  const std::string least = range.above_least ? "above " : "of at least ",
                    most = range.below_most ? "below " : "at most ";
  if (has_least && has_most)
    return fmt::format("a number {}{} and {}{}", least, shown(range.least), most, shown(range.most));
  if (has_least) return fmt::format("a number {}{}", least, shown(range.least));
  if (has_most) return fmt::format("a number of {}{}", most, shown(range.most));
  return "a number";
}

std::string expected_choice(const std::vector<std::string>& names) {
  if (names.size() == 1) return names[0];
  if (names.size() == 2) return names[0] + " or " + names[1];
  return fmt::format("one of {}", fmt::join(names, ", "));
}

Document schema_of(std::string_view type) {
  return Document::map().set("type", Document::string(std::string(type)));
}

Document schema(const IntRange& range) {
  Document d = schema_of("integer");
  if (range.least != std::numeric_limits<std::int64_t>::min()) d.set("minimum", Document::integer(range.least));
  if (range.most != std::numeric_limits<std::int64_t>::max()) d.set("maximum", Document::integer(range.most));
  return d;
}

Document schema(const NumberRange& range) {
  Document d = schema_of("number");
  if (std::isfinite(range.least))
    d.set(range.above_least ? "exclusiveMinimum" : "minimum", Document::number(range.least));
  if (std::isfinite(range.most)) d.set(range.below_most ? "exclusiveMaximum" : "maximum", Document::number(range.most));
  return d;
}

Document schema_choice(const std::vector<std::string>& names) {
  Document list = Document::list();
  for (const auto& name : names) list.items.push_back(Document::string(name));
  return Document::map().set("enum", std::move(list));
}

Document Text::schema() const {
  Document d = schema_of("string");
  if (!may_be_empty_) d.set("minLength", Document::integer(1));
  return d;
}

void FieldList::read(const Document& d, void* into, Reader& r) const {
  if (d.kind != Document::Kind::map) {
    r.unexpected(
        d, "a map of " + [&] {
          std::vector<std::string> names;
          for (const Field& f : fields) names.push_back(f.name);
          return fmt::format("{}", fmt::join(names, ", "));
        }());
    return;
  }
  // Of two fields that exclude each other the one from the higher level stays: the command line's over the file's.
  std::vector<std::string> dropped;
  for (const auto& [a, b] : exclusive) {
    const Document *first = d.find(a), *second = d.find(b);
    if (first == nullptr || second == nullptr) continue;
    if (first->place.level() == second->place.level()) {
      r.problem(first->place.before(second->place) ? second->place : first->place,
                fmt::format("both {} and {} are given; expected one of them", a, b));
    }
    dropped.push_back(first->place.level() < second->place.level() ? a : b);
  }
  std::vector<bool> given(fields.size(), false);
  for (const auto& entry : d.entries) {
    if (entry.alone) continue;
    std::size_t i = 0;
    while (i < fields.size() && fields[i].name != entry.key) ++i;
    if (i == fields.size()) {
      std::vector<std::string> names;
      for (const Field& f : fields) names.push_back(f.name);
      std::string hint = nearest_name(entry.key, names);
      // The right key in the wrong section.
      for (const std::string& path : r.known_paths)
        if (hint.empty() && path.ends_with('.' + entry.key)) hint = path;
      r.problem(entry.place,
                fmt::format("unknown key {}; expected {}{}", json_string(entry.key), expected_choice(names),
                            hint.empty() ? "" : fmt::format("; did you mean {}?", hint)));
      continue;
    }
    given[i] = true;
    const Reader::Scope scope(r, entry.key);
    if (std::find(dropped.begin(), dropped.end(), entry.key) != dropped.end()) continue;
    r.visit(entry.value.place);
    fields[i].read(entry.value, into, r);
  }
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].required && !given[i])
      r.problem(d.place, fmt::format("{} is missing; expected {}", fields[i].name, fields[i].expected()));
  }
  for (const auto& group : alternatives) {
    if (std::none_of(group.begin(), group.end(), [&](const std::string& name) { return d.find(name) != nullptr; }))
      r.problem(d.place, fmt::format("none of {} is given; expected one of them", fmt::join(group, ", ")));
  }
}

Document FieldList::write(const void* from) const {
  Document d = Document::map();
  for (const Field& f : fields)
    if (!f.shown || f.shown(from)) d.set(f.name, f.write(from));
  return d;
}

Document FieldList::schema(const void* defaults) const {
  Document properties = Document::map(), required = Document::list();
  for (const Field& f : fields) {
    Document property = f.schema();
    property.set("description", Document::string(f.help));
    const bool is_map = property.find("properties") != nullptr;
    if (f.required) {
      required.items.push_back(Document::string(f.name));
    } else if (!is_map && (!f.shown || f.shown(defaults))) {
      property.set("default", f.write(defaults));
    }
    properties.set(f.name, std::move(property));
  }
  Document d = schema_of("object");
  d.set("properties", std::move(properties)).set("additionalProperties", Document::boolean(false));
  if (!required.items.empty()) d.set("required", std::move(required));
  Document never = Document::list();
  for (const auto& [a, b] : exclusive) {
    never.items.push_back(Document::map().set("required", Document::list({Document::string(a), Document::string(b)})));
  }
  if (!never.items.empty()) d.set("not", Document::map().set("anyOf", std::move(never)));
  Document all = Document::list();
  for (const auto& group : alternatives) {
    Document any = Document::list();
    for (const auto& name : group)
      any.items.push_back(Document::map().set("required", Document::list({Document::string(name)})));
    all.items.push_back(Document::map().set("anyOf", std::move(any)));
  }
  if (!all.items.empty()) d.set("allOf", std::move(all));
  return d;
}

void FieldList::reference(std::vector<ReferenceSection>& to, const std::string& path, const void* defaults) const {
  const std::size_t at = to.size();
  to.push_back({path, help, {}});
  for (const Field& f : fields) {
    const std::string below = path.empty() ? f.name : path + '.' + f.name;
    const std::size_t before = to.size();
    f.reference(to, below);
    if (f.may_change)
      for (auto section = to.begin() + static_cast<std::ptrdiff_t>(before); section != to.end(); ++section)
        for (ReferenceRow& row : section->rows) row.may_change = true;
    std::string fallback;
    if (f.required) {
      fallback = "required";
    } else if (to.size() == before && (!f.shown || f.shown(defaults))) {
      fallback = to_flow(f.write(defaults));
    }
    to[at].rows.push_back({f.name, f.expected(), fallback, f.help, f.may_change});
  }
}

bool FieldList::all_optional() const {
  for (const Field& f : fields)
    if (f.required) return false;
  return alternatives.empty();
}

std::optional<Chosen> read_one_of(const Document& d, const std::vector<std::string>& names,
                                  const std::vector<bool>& may_be_bare, Reader& r) {
  const auto index_of = [&names](const std::string& name) {
    std::size_t i = 0;
    while (i < names.size() && names[i] != name) ++i;
    return i;
  };
  if (d.is_scalar()) {
    const std::size_t i = index_of(d.text);
    if (i == names.size()) {
      r.unexpected(d, expected_choice(names), nearest_name(d.text, names));
    } else if (!may_be_bare[i]) {
      r.problem(d.place, fmt::format("{0} needs settings; expected {0}: {{...}}", d.text));
    } else {
      return Chosen{i, nullptr};
    }
    return std::nullopt;
  }
  if (d.kind != Document::Kind::map || d.entries.empty()) {
    r.unexpected(d, expected_choice(names));
    return std::nullopt;
  }
  // A kind named on the command line replaces the file's.
  int level = 0, alike = 0;
  for (const auto& entry : d.entries) level = std::max(level, entry.place.level());
  const Document::Entry* chosen = &d.entries.back();
  for (const auto& entry : d.entries) {
    if (entry.place.level() != level) continue;
    chosen = &entry;
    ++alike;
  }
  if (alike > 1) {
    r.problem(chosen->place,
              fmt::format("{} kinds are given ({} and {}); expected one; are the keys below it indented?", alike,
                          d.entries[0].key, chosen->key));
    return std::nullopt;
  }
  const std::size_t i = index_of(chosen->key);
  if (i < names.size()) return Chosen{i, &chosen->value};
  const std::string hint = nearest_name(chosen->key, names);
  r.problem(chosen->place,
            fmt::format("unknown kind {}; expected {}{}", json_string(chosen->key), expected_choice(names),
                        hint.empty() ? "" : fmt::format("; did you mean {}?", hint)));
  return std::nullopt;
}

std::pair<Document, Document> split_entries(const Document& d, const std::vector<std::string>& names) {
  std::pair<Document, Document> parts(d, Document::map());
  if (d.kind != Document::Kind::map) return parts;
  parts.first.entries.clear();
  parts.second.place = d.place;
  for (const auto& entry : d.entries) {
    const bool named = std::find(names.begin(), names.end(), entry.key) != names.end();
    (named ? parts.second : parts.first).entries.push_back(entry);
  }
  return parts;
}

void drop_unknown(Document& map, const std::vector<std::string>& kinds, const std::vector<std::string>& beside,
                  Reader& r) {
  if (map.entries.size() < 2) return;
  std::vector<std::string> names = kinds;
  names.insert(names.end(), beside.begin(), beside.end());
  std::erase_if(map.entries, [&](const Document::Entry& entry) {
    if (std::find(kinds.begin(), kinds.end(), entry.key) != kinds.end()) return false;
    const std::string hint = nearest_name(entry.key, names);
    r.problem(entry.place, fmt::format("unknown key {}; expected {}, and beside it {}{}", json_string(entry.key),
                                       expected_choice(kinds), fmt::join(beside, ", "),
                                       hint.empty() ? "" : fmt::format("; did you mean {}?", hint)));
    return true;
  });
}

Document schema_one_of(const std::vector<std::string>& names, const std::vector<bool>& may_be_bare,
                       std::vector<Document> schemas, const Document* beside) {
  Document kinds = Document::list();
  std::vector<std::string> bare;
  for (std::size_t i = 0; i < names.size(); ++i) {
    Document kind = schema_of("object");
    Document properties = Document::map().set(names[i], std::move(schemas[i]));
    if (beside != nullptr)
      for (const auto& entry : beside->entries) properties.set(entry.key, entry.value);
    kind.set("properties", std::move(properties))
        .set("required", Document::list({Document::string(names[i])}))
        .set("additionalProperties", Document::boolean(false));
    kinds.items.push_back(std::move(kind));
    if (may_be_bare[i]) bare.push_back(names[i]);
  }
  if (!bare.empty()) kinds.items.push_back(schema_choice(bare));
  return Document::map().set("oneOf", std::move(kinds));
}

}  // namespace fields

}  // namespace dtrain
