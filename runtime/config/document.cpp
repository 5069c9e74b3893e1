#include "runtime/config/document.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

#include <fmt/format.h>

namespace dtrain {

namespace {

Document scalar(Document::Kind kind, std::string text) {
  Document d;
  d.kind = kind;
  d.text = std::move(text);
  return d;
}

}  // namespace

Document Document::integer(std::int64_t value) {
  return scalar(Kind::plain, fmt::format("{}", value));
}
Document Document::number(double value) {
  return scalar(Kind::plain, fmt::format("{}", value));
}
Document Document::boolean(bool value) {
  return scalar(Kind::plain, value ? "true" : "false");
}
Document Document::string(std::string value) {
  return scalar(Kind::quoted, std::move(value));
}
Document Document::list(std::vector<Document> items) {
  Document d;
  d.kind = Kind::list;
  d.items = std::move(items);
  return d;
}
Document Document::list() {
  return list(std::vector<Document>());
}
Document Document::map() {
  return scalar(Kind::map, {});
}

Document& Document::set(std::string key, Document value) {
  if (Document* there = find(key)) {
    *there = std::move(value);
  } else {
    entries.push_back({std::move(key), value.place, std::move(value)});
  }
  return *this;
}

const Document* Document::find(std::string_view key) const noexcept {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry.value;
  return nullptr;
}
Document* Document::find(std::string_view key) noexcept {
  return const_cast<Document*>(std::as_const(*this).find(key));
}

std::string Document::describe() const {
  // Long texts are cut: a message stays one line that can be read.
  const auto shown = [this] { return text.size() > 60 ? text.substr(0, 57) + "..." : text; };
  switch (kind) {
    case Kind::null:
      return "nothing";
    case Kind::plain:
      return shown();
    case Kind::quoted:
      return json_string(shown());
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a map";
  }
  return {};
}

namespace {

bool letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// A text that no YAML reader takes for anything else without quotes.
bool safe_without_quotes(std::string_view text) {
  if (text.empty() || !(letter(text[0]) || text[0] == '/' || text[0] == '_')) return false;
  for (const char c : text)
    if (!letter(c) && !(c >= '0' && c <= '9') && c != '_' && c != '-' && c != '.' && c != '/') return false;
  std::string low(text);
  std::transform(low.begin(), low.end(), low.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  for (const char* word : {"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
    if (low == word) return false;
  return true;
}

std::string scalar_yaml(const Document& d) {
  if (d.kind == Document::Kind::null) return "null";
  if (d.kind == Document::Kind::plain || safe_without_quotes(d.text)) return d.text;
  return json_string(d.text);
}

std::string key_yaml(const std::string& key) {
  return safe_without_quotes(key) ? key : json_string(key);
}

bool is_small(const Document& d) {
  if (d.kind == Document::Kind::map) {
    return std::all_of(d.entries.begin(), d.entries.end(), [](const auto& entry) {
      return entry.value.kind != Document::Kind::map && is_small(entry.value);
    });
  }
  return std::all_of(d.items.begin(), d.items.end(), [](const Document& item) {
    return item.kind != Document::Kind::map && item.kind != Document::Kind::list;
  });
}

/// `conv2d: {...}` needs no braces behind a dash.
std::string item_yaml(const Document& d) {
  if (d.kind != Document::Kind::map || d.entries.size() != 1) return to_flow(d);
  return key_yaml(d.entries[0].key) + ": " + to_flow(d.entries[0].value);
}

/// Writes maps and lists line by line.
class BlockWriter {
 public:
  explicit BlockWriter(const std::function<std::string(const std::string&)>& comment) : comment_(comment) {}

  void write(const Document& d, std::size_t indent, const std::string& path) {
    const std::string pad(indent, ' ');
    const std::string below = path.empty() ? path : path + '.';
    if (d.kind != Document::Kind::map) {
      for (std::size_t i = 0; i < d.items.size(); ++i)
        line(pad + "- " + item_yaml(d.items[i]), below + std::to_string(i));
      return;
    }
    for (const auto& entry : d.entries) {
      const Document& value = entry.value;
      const std::string start = pad + key_yaml(entry.key) + ":", flow = to_flow(value), at = below + entry.key;
      const bool map = value.kind == Document::Kind::map;
      // Sections of the top are always blocks: there people look for their keys line by line.
      const bool wide = !is_small(value) || (map && indent == 0) || start.size() + flow.size() > 110;
      if (wide && !(value.entries.empty() && value.items.empty())) {
        out += start + '\n';
        write(value, indent + 2, at);
      } else {
        line(start + ' ' + flow, at);
      }
    }
  }

  std::string out;

 private:
  void line(std::string text, const std::string& path) {
    if (comment_) {
      constexpr std::size_t column = 56;
      text += std::string(text.size() < column ? column - text.size() : 1, ' ') + "# " + comment_(path);
    }
    out += text + '\n';
  }

  const std::function<std::string(const std::string&)>& comment_;
};

void collect(std::vector<Leaf>& out, const Document& d, const std::string& path) {
  const auto below = [&path](const std::string& name) { return path.empty() ? name : path + '.' + name; };
  if (d.kind == Document::Kind::map && !d.entries.empty()) {
    for (const auto& entry : d.entries) collect(out, entry.value, below(entry.key));
  } else if (d.kind == Document::Kind::list && !is_small(d)) {
    for (std::size_t i = 0; i < d.items.size(); ++i) collect(out, d.items[i], below(std::to_string(i)));
  } else {
    out.push_back({path, to_flow(d)});
  }
}

/// Edits, insertions, deletions and swaps of neighbours (optimal string alignment).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = std::min(now[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, now);
  }
  return last[b.size()];
}

}  // namespace

std::string to_yaml(const Document& d, const std::function<std::string(const std::string&)>& comment) {
  if (d.kind != Document::Kind::map && d.kind != Document::Kind::list) return scalar_yaml(d) + '\n';
  BlockWriter writer(comment);
  writer.write(d, 0, "");
  return std::move(writer.out);
}

std::string to_flow(const Document& d) {
  std::string out;
  if (d.kind == Document::Kind::map) {
    for (const auto& entry : d.entries) {
      out += fmt::format("{}{}: {}", out.empty() ? "" : ", ", key_yaml(entry.key), to_flow(entry.value));
    }
    return '{' + out + '}';
  }
  if (d.kind == Document::Kind::list) {
    for (std::size_t i = 0; i < d.items.size(); ++i) out += (i > 0 ? ", " : "") + to_flow(d.items[i]);
    return '[' + out + ']';
  }
  return scalar_yaml(d);
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::vector<Leaf> leaves(const Document& d) {
  std::vector<Leaf> out;
  collect(out, d, "");
  return out;
}

std::string_view name_here(std::string_view wrong) noexcept {
  constexpr std::pair<std::string_view, std::string_view> words[] = {
      {"lr", "learning_rate"},
      {"rate", "learning_rate"},
      {"wd", "weight_decay"},
      {"eps", "epsilon"},
      {"batch_size", "global"},
      {"max_epochs", "epochs"},
      {"num_epochs", "epochs"},
      {"max_steps", "steps"},
      {"warmup", "warmup_steps"},
      {"bf16", "bfloat16"},
      {"fp16", "float16"},
      {"half", "float16"},
      {"fp32", "float32"},
      {"gpu", "cuda"},
      {"linear", "dense"},
      {"fc", "dense"},
      {"conv_transpose1d", "conv1d_transpose"},
      {"conv_transpose2d", "conv2d_transpose"},
      {"conv_transpose3d", "conv3d_transpose"},
      {"max_pool1d", "maxpool1d"},
      {"max_pool2d", "maxpool2d"},
      {"max_pool3d", "maxpool3d"},
      {"avg_pool1d", "avgpool1d"},
      {"avg_pool2d", "avgpool2d"},
      {"avg_pool3d", "avgpool3d"},
      {"batchnorm", "batch_norm"},
      {"batch_norm1d", "batch_norm"},
      {"batch_norm2d", "batch_norm"},
      {"layernorm", "layer_norm"},
      {"rmsnorm", "rms_norm"},
      {"swish", "silu"},
      {"cat", "concat"},
      {"mse", "mean_squared_error"},
      {"out_channels", "filters"},
      {"kernel_size", "kernel"},
      {"out_features", "units"},
      {"std", "standard_deviation"},
  };
  for (const auto& [theirs, ours] : words)
    if (theirs == wrong) return ours;
  return {};
}

std::string nearest_name(std::string_view wrong, std::span<const std::string> names) {
  const std::string_view here = name_here(wrong);
  if (!here.empty() && std::find(names.begin(), names.end(), here) != names.end()) return std::string(here);
  // Nobody misspells a name this long, and the distance is quadratic.
  if (wrong.empty() || wrong.size() > 64) return {};
  std::string best;
  std::size_t least = std::max<std::size_t>(wrong.size() / 3, wrong.size() < 5 ? 1 : 2) + 1;
  for (const std::string& name : names) {
    std::size_t d = distance(wrong, name);
    const bool begins = name.size() > 2 && wrong.size() > 2 && (name.starts_with(wrong) || wrong.starts_with(name));
    if (begins) d = std::min<std::size_t>(d, 2);
    // Another letter in a word of three is another word: gpu is not cpu.
    if (wrong.size() < 4 && wrong.size() == name.size()) continue;
    if (d < least) {
      least = d;
      best = name;
    }
  }
  return best;
}

}  // namespace dtrain
