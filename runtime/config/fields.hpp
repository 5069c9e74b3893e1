// Tables of fields: one table a struct (name, member, type, range, help) drives reading, writing, the JSON schema,
// nearest-name hints and the reference page. Tables are types themselves, immutable and shared.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/config/document.hpp"
#include "runtime/config/field_types.hpp"

namespace dtrain {

namespace fields {

/// A former name of a field, and former words for its values: {before, now}.
struct OldSpelling {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;
};

/// A field whose struct is hidden: members of a table.
struct Field {
  std::string name, help;
  bool required = false, may_change = false;
  std::vector<OldSpelling> old_spellings;
  std::function<void(const Document&, void*, Reader&)> read;
  std::function<Document(const void*)> write;
  std::function<bool(const void*)> shown;  // empty: always written
  std::function<Document()> schema;
  std::function<std::string()> expected;
  std::function<void(std::vector<ReferenceSection>&, const std::string&)> reference;
};

/// The part of a table that does not depend on the struct.
struct FieldList {
  std::string help;
  std::vector<Field> fields;
  std::vector<std::pair<std::string, std::string>> exclusive;
  std::vector<std::vector<std::string>> alternatives;  // one of each group must be given

  void read(const Document&, void* into, Reader&) const;
  Document write(const void*) const;
  Document schema(const void* defaults) const;
  void reference(std::vector<ReferenceSection>&, const std::string& path, const void* defaults) const;
  bool all_optional() const;
  std::vector<std::string> names() const;

 private:
  /// The map with the names of today; of two spellings of one field the one from the higher level stays.
  Document renamed(Document, Reader&) const;
};

/// Reads `{name: value}` or `name`: index into names, and the value (null where bare). Reports what is wrong.
struct Chosen {
  std::size_t index;
  const Document* value;  // null: bare
};
std::optional<Chosen> read_one_of(const Document&, const std::vector<std::string>& names,
                                  const std::vector<bool>& may_be_bare, Reader&);
/// `beside`: properties that may stand beside each kind, or null.
Document schema_one_of(const std::vector<std::string>& names, const std::vector<bool>& may_be_bare,
                       std::vector<Document> schemas, const Document* beside);
/// Where a map has several entries: reports and drops those that are neither a kind nor may stand beside one.
void drop_unknown(Document& map, const std::vector<std::string>& kinds, const std::vector<std::string>& beside,
                  Reader&);
/// The map in which what stood alone in its place (Document::Entry::alone) is the value of that field.
Document with_alone_as(Document map, const std::string& field);
/// The map without the entries of these names, and the map of those alone.
std::pair<Document, Document> split_entries(const Document&, const std::vector<std::string>& names);

}  // namespace fields

// ---- tables --------------------------------------------------------------------------------------------------------

/// The fields of S. `defaults` is what a struct holds before anything is read.
template <class S>
class Table final : public Type<S> {
 public:
  explicit Table(std::string help, S defaults = S{}) : defaults_(std::move(defaults)) { list_.help = std::move(help); }

  /// `member`: a pointer to a member, or a function from S& to a reference (for both S& and const S&).
  template <class Member, class T>
  Table& add(std::string name, Member member, TypePtr<T> type, std::string help) {
    fields::Field& f = added(std::move(name), type, std::move(help));
    f.read = [member, type](const Document& d, void* s, Reader& r) {
      type->read(d, std::invoke(member, *static_cast<S*>(s)), r);
    };
    f.write = [member, type](const void* s) { return type->write(std::invoke(member, *static_cast<const S*>(s))); };
    return *this;
  }
  /// A field that is no member: read into a T that `get` made, then `set`.
  template <class T>
  Table& add(std::string name, std::function<T(const S&)> get, std::function<void(S&, T)> set, TypePtr<T> type,
             std::string help) {
    fields::Field& f = added(std::move(name), type, std::move(help));
    f.read = [get, set, type](const Document& d, void* s, Reader& r) {
      T value = get(*static_cast<S*>(s));
      type->read(d, value, r);
      set(*static_cast<S*>(s), std::move(value));
    };
    f.write = [get, type](const void* s) { return type->write(get(*static_cast<const S*>(s))); };
    return *this;
  }
  /// The field added last must be given.
  Table& required() {
    list_.fields.back().required = true;
    return *this;
  }
  /// The field added last, and all below it, may differ between a checkpoint and the run that resumes from it.
  Table& may_change() {
    list_.fields.back().may_change = true;
    return *this;
  }
  /// The field added last may still be given by a former name, with former words for values as pairs {before, now}.
  /// Only the names and words of today are written, and shown in schema and reference.
  Table& old_spelling(std::string name, std::vector<std::pair<std::string, std::string>> values = {}) {
    list_.fields.back().old_spellings.push_back({std::move(name), std::move(values)});
    return *this;
  }
  /// The field added last is written only where this holds.
  Table& shown_if(std::function<bool(const S&)> holds) {
    list_.fields.back().shown = [holds](const void* s) { return holds(*static_cast<const S*>(s)); };
    return *this;
  }
  /// At most one of two fields; the command line's replaces the file's.
  Table& exclusive(std::string a, std::string b) {
    list_.exclusive.emplace_back(std::move(a), std::move(b));
    return *this;
  }
  /// One of these fields must be given, and only one; the command line's replaces the file's.
  Table& exactly_one(std::vector<std::string> names) {
    for (std::size_t i = 0; i < names.size(); ++i)
      for (std::size_t k = i + 1; k < names.size(); ++k) exclusive(names[i], names[k]);
    list_.alternatives.push_back(std::move(names));
    return *this;
  }

  /// The same fields, of the S inside a T, which `inner` reaches (for both T& and const T&).
  template <class T, class Inner>
  Table<T> within(T defaults, Inner inner) const {
    Table<T> outer(list_.help, std::move(defaults));
    outer.list_ = list_;
    for (fields::Field& f : outer.list_.fields) {
      f.read = [read = f.read, inner](const Document& d, void* t, Reader& r) {
        read(d, &inner(*static_cast<T*>(t)), r);
      };
      f.write = [write = f.write, inner](const void* t) { return write(&inner(*static_cast<const T*>(t))); };
      if (f.shown)
        f.shown = [shown = f.shown, inner](const void* t) { return shown(&inner(*static_cast<const T*>(t))); };
    }
    return outer;
  }

  const S& defaults() const noexcept { return defaults_; }
  bool all_optional() const { return list_.all_optional(); }
  std::vector<std::string> names() const { return list_.names(); }

  void read(const Document& d, S& into, Reader& r) const override { list_.read(d, &into, r); }
  Document write(const S& value) const override { return list_.write(&value); }
  Document schema() const override { return list_.schema(&defaults_); }
  std::string expected() const override { return "a map"; }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    list_.reference(to, path, &defaults_);
  }

 private:
  template <class>
  friend class Table;

  /// A new field, without what reads and writes it.
  template <class T>
  fields::Field& added(std::string name, const TypePtr<T>& type, std::string help) {
    fields::Field& f = list_.fields.emplace_back();
    f.name = std::move(name);
    f.help = std::move(help);
    f.schema = [type] { return type->schema(); };
    f.expected = [type] { return type->expected(); };
    f.reference = [type](std::vector<ReferenceSection>& to, const std::string& path) { type->reference(to, path); };
    return f;
  }

  S defaults_;
  fields::FieldList list_;
};

/// One of several kinds of T by name, as `{name: {fields}}`, or as `name` where no field is required. Fields that all
/// kinds have may stand beside the name: `{name: {fields}, field: value}`.
template <class T>
class OneOf final : public Type<T> {
 public:
  /// `what`: with its article, "an optimizer".
  explicit OneOf(std::string what) : what_(std::move(what)) {}
  /// Fields that may stand beside the kind; `shown_if` says where they are written.
  OneOf& beside(Table<T> fields) {
    beside_.emplace(std::move(fields));
    return *this;
  }
  /// The table's defaults are a T of this kind; `is` tells one.
  OneOf& add(std::string name, Table<T> table, std::function<bool(const T&)> is) {
    names_.push_back(std::move(name));
    bare_.push_back(table.all_optional());
    tables_.push_back(std::move(table));
    is_.push_back(std::move(is));
    return *this;
  }

  void read(const Document& d, T& into, Reader& r) const override {
    if (!beside_) return read_kind(d, into, r);
    auto [kind, others] = fields::split_entries(d, beside_->names());
    fields::drop_unknown(kind, names_, beside_->names(), r);
    // Without a kind the one that is there stays.
    if (kind.kind != Document::Kind::map || !kind.entries.empty() || others.entries.empty()) read_kind(kind, into, r);
    if (!others.entries.empty()) beside_->read(others, into, r);
  }
  Document write(const T& value) const override {
    Document others = beside_ ? beside_->write(value) : Document::map();
    for (std::size_t i = 0; i < is_.size(); ++i) {
      if (!is_[i](value)) continue;
      Document inner = tables_[i].write(value);
      if (inner.entries.empty() && others.entries.empty()) return Document::string(names_[i]);
      Document kind = Document::map().set(names_[i], std::move(inner));
      for (auto& entry : others.entries) kind.set(entry.key, std::move(entry.value));
      return kind;
    }
    return {};
  }
  Document schema() const override {
    std::vector<Document> schemas;
    for (const auto& table : tables_) schemas.push_back(table.schema());
    const Document others = beside_ ? beside_->schema() : Document::map();
    return fields::schema_one_of(names_, bare_, std::move(schemas), others.find("properties"));
  }
  std::string expected() const override { return what_ + ": " + fields::expected_choice(names_); }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    if (beside_) beside_->reference(to, path);
    for (std::size_t i = 0; i < names_.size(); ++i) tables_[i].reference(to, path + '.' + names_[i]);
  }

 private:
  void read_kind(const Document& d, T& into, Reader& r) const {
    const auto chosen = fields::read_one_of(d, names_, bare_, r);
    if (!chosen) return;
    T value = tables_[chosen->index].defaults();
    if (chosen->value != nullptr) {
      const Reader::Scope scope(r, names_[chosen->index]);
      r.visit(chosen->value->place);
      tables_[chosen->index].read(*chosen->value, value, r);
    }
    into = std::move(value);
  }

  std::string what_;
  std::vector<std::string> names_;
  std::vector<bool> bare_;
  std::vector<Table<T>> tables_;
  std::vector<std::function<bool(const T&)>> is_;
  std::optional<Table<T>> beside_;
};

/// The fields of S, or one of them alone: `/images` for `{key: /images}`.
template <class S, class Member>
class TableOrField final : public Type<S> {
 public:
  /// `alone`: whether nothing but that field need be written.
  TableOrField(Table<S> table, std::string field, Member S::*member, TypePtr<Member> type,
               std::function<bool(const S&)> alone)
      : table_(std::move(table)),
        field_(std::move(field)),
        member_(member),
        type_(std::move(type)),
        alone_(std::move(alone)) {}
  void read(const Document& d, S& into, Reader& r) const override {
    if (d.kind != Document::Kind::map) return type_->read(d, into.*member_, r);
    table_.read(fields::with_alone_as(d, field_), into, r);
  }
  Document write(const S& value) const override {
    return alone_(value) ? type_->write(value.*member_) : table_.write(value);
  }
  Document schema() const override {
    return Document::map().set("anyOf", Document::list({type_->schema(), table_.schema()}));
  }
  std::string expected() const override { return type_->expected() + ", or a map"; }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    table_.reference(to, path);
  }

 private:
  Table<S> table_;
  std::string field_;
  Member S::*member_;
  TypePtr<Member> type_;
  std::function<bool(const S&)> alone_;
};

template <class S, class Member>
TypePtr<S> table_or_field(Table<S> table, std::string field, Member S::*member, TypePtr<Member> type,
                          std::function<bool(const S&)> alone) {
  return std::make_shared<TableOrField<S, Member>>(std::move(table), std::move(field), member, std::move(type),
                                                   std::move(alone));
}

template <class S>
TypePtr<S> shared(Table<S> table) {
  return std::make_shared<Table<S>>(std::move(table));
}
template <class T>
TypePtr<T> shared(OneOf<T> kinds) {
  return std::make_shared<OneOf<T>>(std::move(kinds));
}

}  // namespace dtrain
