#include "runtime/config/fields.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace dtrain::fields {

Document FieldList::renamed(Document d, Reader& r) const {
  for (const Field& f : fields) {
    for (const auto& [name, values] : f.old_spellings) {
      const auto is = [](const std::string& key) {
        return [&key](const Document::Entry& entry) { return entry.key == key; };
      };
      const auto old = std::find_if(d.entries.begin(), d.entries.end(), is(name));
      if (old == d.entries.end()) continue;
      for (const auto& [before, now] : values) {
        if (!old->value.is_scalar() || old->value.text != before) continue;
        old->value.kind = Document::Kind::plain;
        old->value.text = now;
        break;
      }
      const Document* other = d.find(f.name);
      if (other == nullptr) {
        old->key = f.name;
        continue;
      }
      const Place &mine = old->value.place, &its = other->place;
      if (mine.level() == its.level()) {
        r.problem(mine.before(its) ? its : mine,
                  fmt::format("both {} and {} (its old name) are given; expected one of them", f.name, name));
      }
      const bool keep = mine.level() > its.level();
      if (keep) *d.find(f.name) = std::move(old->value);
      d.entries.erase(old);
    }
  }
  return d;
}

std::vector<std::string> FieldList::names() const {
  std::vector<std::string> all;
  for (const Field& f : fields) all.push_back(f.name);
  return all;
}

void FieldList::read(const Document& document, void* into, Reader& r) const {
  Document d = renamed(document, r);
  if (d.kind != Document::Kind::map) {
    return r.unexpected(d, fmt::format("a map of {}", fmt::join(names(), ", ")));
  }
  // `key=null` of the command line: as if nobody had given the key.
  const std::vector<std::string> known = names();
  std::erase_if(d.entries, [&known](const Document::Entry& entry) {
    return entry.value.kind == Document::Kind::null && entry.value.place.level() == 2 &&
           std::find(known.begin(), known.end(), entry.key) != known.end();
  });
  // Of two fields that exclude each other the one from the higher level stays: the command line's over the file's; and
  // of two settings of the command line the later one.
  std::vector<std::string> dropped;
  for (const auto& [a, b] : exclusive) {
    const Document *first = d.find(a), *second = d.find(b);
    if (first == nullptr || second == nullptr) continue;
    if (first->place.level() == 2 && second->place.level() == 2 && first->place.source != second->place.source) {
      const bool first_is_later = first->place.source > second->place.source;
      dropped.push_back(first_is_later ? b : a);
      const std::string section = r.path().empty() ? "" : r.path() + '.';
      r.remarks.push_back(fmt::format("{0}{1} and {0}{2} are both on the command line: {0}{1} counts, the later one",
                                      section, first_is_later ? a : b, first_is_later ? b : a));
      continue;
    }
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
      std::string hint = nearest_name(entry.key, names());
      // The right key in the wrong section, under this name or as others call it.
      for (const std::string& word : {entry.key, std::string(name_here(entry.key))})
        for (const std::string& path : r.known_paths)
          if (hint.empty() && !word.empty() && path.ends_with('.' + word)) hint = path;
      r.problem(entry.place,
                fmt::format("unknown key {}; expected {}{}", json_string(entry.key), expected_choice(names()),
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
  for (const auto& entry : d.entries)
    if (entry.place.level() < level && index_of(entry.key) < names.size())
      r.remarks.push_back(fmt::format("{0}.{1} of the command line replaces {0}.{2} of the file, with all its settings",
                                      r.path(), chosen->key, entry.key));
  if (i < names.size()) return Chosen{i, &chosen->value};
  const std::string hint = nearest_name(chosen->key, names);
  r.problem(chosen->place,
            fmt::format("unknown kind {}; expected {}{}", json_string(chosen->key), expected_choice(names),
                        hint.empty() ? "" : fmt::format("; did you mean {}?", hint)));
  return std::nullopt;
}

Document with_alone_as(Document map, const std::string& field) {
  const auto alone = std::find_if(map.entries.begin(), map.entries.end(), [](const auto& e) { return e.alone; });
  if (alone == map.entries.end() || map.find(field) != nullptr) return map;
  Document value = Document::string(alone->key);
  value.place = alone->value.place;
  *alone = {field, alone->place, std::move(value)};
  return map;
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

}  // namespace dtrain::fields
