// Types of settings: how a value of a Document is read, written and described, for scalars and lists of them.
// Types are immutable and shared; reading never throws for what a user wrote, it collects problems in the Reader.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "runtime/config/document.hpp"
#include "runtime/config/named.hpp"

namespace dtrain {

struct FieldProblem {
  Place place;
  std::string path;  // dotted
  std::string text;
};

/// Collects problems and the places of all values while a Document is read.
class Reader {
 public:
  /// While alive, `name` is the innermost part of the path.
  class Scope {
   public:
    Scope(Reader& reader, std::string_view name);
    ~Scope() { reader_.path_.resize(length_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Reader& reader_;
    std::size_t length_;
  };

  const std::string& path() const noexcept { return path_; }
  /// "PATH: text", at this place.
  void problem(const Place&, const std::string& text);
  /// "PATH: 12 is out of range; expected ..." for a value that is not what its type wants.
  void unexpected(const Document&, const std::string& expected, const std::string& hint = {});
  void visit(const Place& place) { places_[path_] = place; }

  /// Dotted paths of every field there is; where a key is right but in the wrong section, the hint names the right one.
  std::vector<std::string> known_paths;

  /// What is no problem, and yet may not be what was meant.
  std::vector<std::string> remarks;

  const std::vector<FieldProblem>& problems() const noexcept { return problems_; }
  const std::map<std::string, Place>& places() const noexcept { return places_; }

 private:
  std::string path_;
  std::vector<FieldProblem> problems_;
  std::map<std::string, Place> places_;
};

/// What the reference page says, section by section.
struct ReferenceRow {
  std::string name, type, fallback, help;
  bool may_change;  // between a checkpoint and the run that resumes from it
};
struct ReferenceSection {
  std::string path;  // "" for the top
  std::string help;
  std::vector<ReferenceRow> rows;
};

template <class T>
class Type {
 public:
  virtual ~Type() = default;
  /// Fills `into`, or reports a problem and leaves it (partly) as it was.
  virtual void read(const Document&, T& into, Reader&) const = 0;
  virtual Document write(const T&) const = 0;
  virtual Document schema() const = 0;
  /// With its article: "an integer of at least 1".
  virtual std::string expected() const = 0;
  /// Sections of the maps inside.
  virtual void reference(std::vector<ReferenceSection>&, const std::string& /*path*/) const {}
};
template <class T>
using TypePtr = std::shared_ptr<const Type<T>>;

// ---- scalars -------------------------------------------------------------------------------------------------------

struct IntRange {
  std::int64_t least = 0;
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
};
struct NumberRange {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above_least = false;  // least itself is excluded
  bool below_most = false;
};

namespace fields {  // what the types below share; not for tables

std::optional<std::int64_t> read_integer(const Document&, const IntRange&, Reader&);
std::optional<double> read_number(const Document&, const NumberRange&, Reader&);
std::optional<bool> read_boolean(const Document&, Reader&);
std::optional<std::string> read_text(const Document&, bool may_be_empty, Reader&);
std::optional<std::size_t> read_choice(const Document&, const std::vector<std::string>& names, Reader&);
std::string expected(const IntRange&);
std::string expected(const NumberRange&);
std::string expected_choice(const std::vector<std::string>& names);
Document schema(const IntRange&);
Document schema(const NumberRange&);
Document schema_of(std::string_view type);
Document schema_choice(const std::vector<std::string>& names);

template <class T>
class Integer final : public Type<T> {
 public:
  explicit Integer(IntRange range) : range_(range) {
    if constexpr (sizeof(T) < sizeof(std::int64_t)) {
      range_.most = std::min<std::int64_t>(range_.most, std::numeric_limits<T>::max());
    }
  }
  void read(const Document& d, T& into, Reader& r) const override {
    if (const auto value = read_integer(d, range_, r)) into = static_cast<T>(*value);
  }
  Document write(const T& value) const override { return Document::integer(static_cast<std::int64_t>(value)); }
  Document schema() const override { return fields::schema(range_); }
  std::string expected() const override { return fields::expected(range_); }

 private:
  IntRange range_;
};

class Number final : public Type<double> {
 public:
  explicit Number(NumberRange range) : range_(range) {}
  void read(const Document& d, double& into, Reader& r) const override {
    if (const auto value = read_number(d, range_, r)) into = *value;
  }
  Document write(const double& value) const override { return Document::number(value); }
  Document schema() const override { return fields::schema(range_); }
  std::string expected() const override { return fields::expected(range_); }

 private:
  NumberRange range_;
};

class Boolean final : public Type<bool> {
 public:
  void read(const Document& d, bool& into, Reader& r) const override {
    if (const auto value = read_boolean(d, r)) into = *value;
  }
  Document write(const bool& value) const override { return Document::boolean(value); }
  Document schema() const override { return schema_of("boolean"); }
  std::string expected() const override { return "true or false"; }
};

class Text final : public Type<std::string> {
 public:
  explicit Text(bool may_be_empty) : may_be_empty_(may_be_empty) {}
  void read(const Document& d, std::string& into, Reader& r) const override {
    if (auto value = read_text(d, may_be_empty_, r)) into = std::move(*value);
  }
  Document write(const std::string& value) const override { return Document::string(value); }
  Document schema() const override;
  std::string expected() const override { return "text"; }

 private:
  bool may_be_empty_;
};

template <class E>
class Choice final : public Type<E> {
 public:
  explicit Choice(const std::vector<std::pair<std::string, E>>& values) {
    for (const auto& [name, value] : values) {
      names_.push_back(name);
      values_.push_back(value);
    }
  }
  void read(const Document& d, E& into, Reader& r) const override {
    if (const auto index = read_choice(d, names_, r)) into = values_[*index];
  }
  Document write(const E& value) const override {
    for (std::size_t i = 0; i < values_.size(); ++i)
      if (values_[i] == value) return Document::string(names_[i]);
    return Document::string(names_.at(0));
  }
  Document schema() const override { return schema_choice(names_); }
  std::string expected() const override { return expected_choice(names_); }

 private:
  std::vector<std::string> names_;
  std::vector<E> values_;
};

// ---- compounds -----------------------------------------------------------------------------------------------------

/// `word` stands for `meaning`; anything else is `other`.
template <class T>
class WordOr final : public Type<T> {
 public:
  WordOr(std::string word, T meaning, TypePtr<T> other)
      : word_(std::move(word)), meaning_(std::move(meaning)), other_(std::move(other)) {}
  void read(const Document& d, T& into, Reader& r) const override {
    if (d.is_scalar() && d.text == word_) {
      into = meaning_;
      return;
    }
    const std::string names[] = {word_};
    const std::string near = d.is_scalar() ? nearest_name(d.text, names) : std::string();
    if (near.empty()) return other_->read(d, into, r);
    r.unexpected(d, expected(), near);
  }
  Document write(const T& value) const override {
    return value == meaning_ ? Document::string(word_) : other_->write(value);
  }
  Document schema() const override {
    return Document::map().set("anyOf", Document::list({schema_choice({word_}), other_->schema()}));
  }
  std::string expected() const override { return word_ + " or " + other_->expected(); }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    other_->reference(to, path);
  }

 private:
  std::string word_;
  T meaning_;
  TypePtr<T> other_;
};

template <class T>
class List final : public Type<std::vector<T>> {
 public:
  List(TypePtr<T> item, std::string items, std::size_t least, bool or_one)
      : item_(std::move(item)), items_(std::move(items)), least_(least), or_one_(or_one) {}
  void read(const Document& d, std::vector<T>& into, Reader& r) const override {
    std::vector<T> read;
    if (or_one_ && d.is_scalar()) {
      item_->read(d, read.emplace_back(), r);
    } else if (d.kind == Document::Kind::list && d.items.size() >= least_) {
      for (std::size_t i = 0; i < d.items.size(); ++i) {
        const Reader::Scope scope(r, std::to_string(i));
        r.visit(d.items[i].place);
        item_->read(d.items[i], read.emplace_back(), r);
      }
    } else {
      return r.unexpected(d, expected());
    }
    into = std::move(read);
  }
  Document write(const std::vector<T>& value) const override {
    if (or_one_ && value.size() == 1) return item_->write(value[0]);
    Document list = Document::list();
    for (const T& item : value) list.items.push_back(item_->write(item));
    return list;
  }
  Document schema() const override {
    Document list = schema_of("array");
    list.set("items", item_->schema());
    if (least_ > 0) list.set("minItems", Document::integer(static_cast<std::int64_t>(least_)));
    return or_one_ ? Document::map().set("anyOf", Document::list({item_->schema(), list})) : list;
  }
  std::string expected() const override {
    return (or_one_ ? item_->expected() + " or " : std::string()) +
           (least_ > 0 ? "a non-empty list of " : "a list of ") + items_;
  }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    item_->reference(to, path);
  }

 private:
  TypePtr<T> item_;
  std::string items_;
  std::size_t least_;
  bool or_one_;
};

/// Whether the key of a map's entry may be a name; reports it where not.
bool check_name(const Document::Entry&, Reader&);

template <class T>
class Map final : public Type<Named<T>> {
 public:
  Map(TypePtr<T> item, std::string items) : item_(std::move(item)), items_(std::move(items)) {}
  void read(const Document& d, Named<T>& into, Reader& r) const override {
    if (d.kind != Document::Kind::map) return r.unexpected(d, expected());
    Named<T> read;
    for (const auto& entry : d.entries) {
      if (entry.alone || !check_name(entry, r)) continue;
      const Reader::Scope scope(r, entry.key);
      r.visit(entry.value.place);
      read.emplace_back(entry.key, T{});
      item_->read(entry.value, read.back().second, r);
    }
    into = std::move(read);
  }
  Document write(const Named<T>& values) const override {
    Document map = Document::map();
    for (const auto& [name, value] : values) map.set(name, item_->write(value));
    return map;
  }
  Document schema() const override { return schema_of("object").set("additionalProperties", item_->schema()); }
  std::string expected() const override { return "a map of " + items_ + " by name"; }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    item_->reference(to, path + ".NAME");
  }

 private:
  TypePtr<T> item_;
  std::string items_;
};

}  // namespace fields

template <class T = std::int64_t>
TypePtr<T> integer(IntRange range = {}) {
  return std::make_shared<fields::Integer<T>>(range);
}
inline TypePtr<double> number(NumberRange range = {}) {
  return std::make_shared<fields::Number>(range);
}
inline TypePtr<bool> boolean() {
  return std::make_shared<fields::Boolean>();
}
inline TypePtr<std::string> text() {
  return std::make_shared<fields::Text>(false);
}
inline TypePtr<std::string> text_or_empty() {
  return std::make_shared<fields::Text>(true);
}
template <class E>
TypePtr<E> choice(const std::vector<std::pair<std::string, E>>& values) {
  return std::make_shared<fields::Choice<E>>(values);
}
template <class T>
TypePtr<T> word_or(std::string word, std::type_identity_t<T> meaning, TypePtr<T> other) {
  return std::make_shared<fields::WordOr<T>>(std::move(word), std::move(meaning), std::move(other));
}
/// `items`: what they are, in the plural, for messages.
template <class T>
TypePtr<std::vector<T>> list_of(TypePtr<T> item, std::string items, std::size_t least = 0) {
  return std::make_shared<fields::List<T>>(std::move(item), std::move(items), least, false);
}
/// Items by name, in their order; names are letters, digits, _ and -. `items`: what they are, in the plural.
template <class T>
TypePtr<Named<T>> map_of(TypePtr<T> item, std::string items) {
  return std::make_shared<fields::Map<T>>(std::move(item), std::move(items));
}
/// A list in which a single item may stand without brackets.
template <class T>
TypePtr<std::vector<T>> one_or_list_of(TypePtr<T> item, std::string items, std::size_t least = 0) {
  return std::make_shared<fields::List<T>>(std::move(item), std::move(items), least, true);
}

}  // namespace dtrain
