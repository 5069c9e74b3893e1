// Document: settings as a tree of maps, lists and scalars that knows where each part was written.
// Plain values, owned by whoever holds them; between the parser (launch/) and the tables of fields (fields.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace dtrain {

/// Where something was written. `source` 0: nowhere (a default), 1: the file, 2, 3, ...: overrides in their order.
struct Place {
  int source = 0, line = 0, column = 0;  // line and column from 1
  /// A higher level wins: default 0, file 1, command line 2.
  int level() const noexcept { return source < 2 ? source : 2; }
  bool before(const Place& other) const noexcept {
    return std::tie(source, line, column) < std::tie(other.source, other.line, other.column);
  }
};

struct Document {
  enum class Kind : std::uint8_t {
    null,
    plain,   // number, true or false, or a bare word: what it is depends on the field
    quoted,  // text for certain
    list,
    map,
  };
  struct Entry;

  // Defined behind Entry: some compilers ask for the size of an entry as soon as they see a vector of them go.
  Document() noexcept;
  Document(const Document&);
  Document(Document&&) noexcept;
  Document& operator=(const Document&);
  Document& operator=(Document&&) noexcept;
  ~Document();

  Kind kind = Kind::null;
  std::string text;  // of scalars
  std::vector<Document> items;
  std::vector<Entry> entries;
  Place place;

  static Document integer(std::int64_t);
  static Document number(double);  // shortest text that reads back to the same value
  static Document boolean(bool);
  static Document string(std::string);
  static Document list(std::vector<Document> items);
  static Document list();
  static Document map();

  bool is_scalar() const noexcept { return kind == Kind::plain || kind == Kind::quoted; }
  /// Adds or replaces an entry of a map; returns this.
  Document& set(std::string key, Document value);
  const Document* find(std::string_view key) const noexcept;
  Document* find(std::string_view key) noexcept;
  /// "a map", "a list", "the text \"x\"", "10", "nothing"
  std::string describe() const;
};

struct Document::Entry {
  std::string key;
  Place place;  // of the key
  Document value;
  /// It stood there in the map's place until an override put something below it: a kind's name, or nothing any more.
  bool alone = false;
};

inline Document::Document() noexcept = default;
inline Document::Document(const Document&) = default;
inline Document::Document(Document&&) noexcept = default;
inline Document& Document::operator=(const Document&) = default;
inline Document& Document::operator=(Document&&) noexcept = default;
inline Document::~Document() = default;

/// YAML that reads back to the same document: block style, small leaves in one line. `comment` may say what stands
/// behind the line of the value at a dotted path.
std::string to_yaml(const Document&, const std::function<std::string(const std::string& path)>& comment = {});
/// One line of flow YAML: "{learning_rate: 0.001}", "[3, 3]", "relu".
std::string to_flow(const Document&);
/// `text` in quotes, with the escapes that YAML and JSON share.
std::string json_string(std::string_view text);

/// The scalars (and lists of scalars) with their dotted paths; list items count from 0.
struct Leaf {
  std::string path;
  std::string value;  // flow YAML
};
std::vector<Leaf> leaves(const Document&);

/// What other libraries call `wrong` is called here; empty where that is not known.
std::string_view name_here(std::string_view wrong) noexcept;
/// The one of `names` that other libraries call `wrong`, or the closest by edits, swaps and shared beginnings; empty if
/// none is near.
std::string nearest_name(std::string_view wrong, std::span<const std::string> names);

}  // namespace dtrain
