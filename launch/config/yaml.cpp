#include "launch/config/yaml.hpp"

#include <cstddef>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

namespace dtrain::launch {

namespace {

/// Ends the parse where it must not go on.
struct Stop {};

/// Builds the document from events, so that nothing is ever built that breaks a rule.
class Builder final : public YAML::EventHandler {
 public:
  Builder(int source, std::vector<FieldProblem>& problems, const YamlLimits& limits)
      : source_(source), problems_(problems), limits_(limits) {}

  Document take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) stop(mark, "a second YAML document begins here; expected one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, anchor, "?");
    put(mark, {});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    stop(mark, "an alias (*name); expected the value itself: anchors and aliases are not allowed");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(mark, anchor, tag);
    Document d;
    d.kind = tag == "!" ? Document::Kind::quoted : Document::Kind::plain;
    d.text = value;
    put(mark, std::move(d));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check(mark, anchor, tag);
    open(mark, Document::Kind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check(mark, anchor, tag);
    open(mark, Document::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Document value;
    bool has_key = false;
    std::string key;
    Place key_place;
  };

  Place place(const YAML::Mark& mark) const { return {source_, mark.line + 1, mark.column + 1}; }

  [[noreturn]] void stop(const YAML::Mark& mark, std::string text) {
    problems_.push_back({place(mark), {}, std::move(text)});
    throw Stop{};
  }

  void check(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag) {
    if (anchor != 0) stop(mark, "an anchor (&name); expected the value itself: anchors and aliases are not allowed");
    if (!tag.empty() && tag != "?" && tag != "!")
      stop(mark, fmt::format("the tag {}; expected a value without a tag", json_safe(tag)));
    if (++values_ > limits_.values)
      stop(mark, fmt::format("more than {} values; is this a configuration?", limits_.values));
  }
  static std::string json_safe(const std::string& text) { return json_string(text.substr(0, 60)); }

  void open(const YAML::Mark& mark, Document::Kind kind) {
    if (static_cast<int>(open_.size()) >= limits_.depth)
      stop(mark, fmt::format("more than {} levels; is this a configuration?", limits_.depth));
    if (!open_.empty() && open_.back().value.kind == Document::Kind::map && !open_.back().has_key)
      stop(mark, "a key that is a map or a list; expected a name");
    Open next;
    next.value.kind = kind;
    next.value.place = place(mark);
    open_.push_back(std::move(next));
  }

  void close() {
    Document done = std::move(open_.back().value);
    open_.pop_back();
    if (open_.empty()) {
      root_ = std::move(done);
    } else {
      add(std::move(done));
    }
  }

  void put(const YAML::Mark& mark, Document d) {
    d.place = place(mark);
    if (open_.empty()) {
      root_ = std::move(d);
      return;
    }
    Open& top = open_.back();
    if (top.value.kind == Document::Kind::map && !top.has_key) {
      if (!d.is_scalar()) stop(mark, "an empty key; expected a name");
      top.has_key = true;
      top.key = d.text;
      top.key_place = d.place;
      return;
    }
    add(std::move(d));
  }

  void add(Document d) {
    Open& top = open_.back();
    // The parser sees that there is nothing only at the next token: the key is where the user looks.
    if (d.kind == Document::Kind::null && top.has_key) d.place = top.key_place;
    if (top.value.kind == Document::Kind::list) {
      top.value.items.push_back(std::move(d));
      return;
    }
    top.has_key = false;
    for (const auto& entry : top.value.entries) {
      if (entry.key != top.key) continue;
      problems_.push_back({top.key_place,
                           {},
                           fmt::format("duplicate key {}; it is already given in line {}; expected each key once",
                                       json_safe(top.key), entry.place.line)});
      return;
    }
    top.value.entries.push_back({std::move(top.key), top.key_place, std::move(d)});
  }

  int source_;
  std::vector<FieldProblem>& problems_;
  YamlLimits limits_;
  int documents_ = 0, values_ = 0;
  std::vector<Open> open_;
  Document root_;
};

/// Offset of the first byte that is not UTF-8 text.
std::optional<std::size_t> first_bad_byte(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    std::size_t length = 1;
    if (c < 0x80) {
      if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f) return i;
    } else {
      length = c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc2 && c < 0xe0 ? 2 : 0;
      if (length == 0 || i + length > text.size()) return i;
      for (std::size_t k = 1; k < length; ++k)
        if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return i;
      // Surrogates, longer forms than needed, and beyond U+10FFFF.
      const auto second = static_cast<unsigned char>(text[i + 1]);
      if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
          (c == 0xf4 && second > 0x8f)) {
        return i;
      }
    }
    i += length;
  }
  return std::nullopt;
}

}  // namespace

Document read_yaml(std::string_view text, int source, std::vector<FieldProblem>& problems, const YamlLimits& limits) {
  if (text.size() > limits.bytes) {
    problems.push_back(
        {{source, 0, 0},
         {},
         fmt::format("{} bytes; expected a configuration of at most {} KiB", text.size(), limits.bytes / 1024)});
    return {};
  }
  if (const auto bad = first_bad_byte(text)) {
    int line = 1, column = 1;
    for (const char c : text.substr(0, *bad)) {
      column = c == '\n' ? 1 : column + 1;
      line += c == '\n' ? 1 : 0;
    }
    problems.push_back({{source, line, column},
                        {},
                        fmt::format("byte 0x{:02x}; expected UTF-8 text", static_cast<unsigned char>(text[*bad]))});
    return {};
  }
  std::istringstream stream{std::string(text)};
  Builder builder(source, problems, limits);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop&) {
    return {};
  } catch (const YAML::Exception& e) {
    Place place{source, e.mark.line + 1, e.mark.column + 1};
    problems.push_back({place, {}, fmt::format("not valid YAML: {}", e.msg)});
    return {};
  }
  return builder.take();
}

}  // namespace dtrain::launch
