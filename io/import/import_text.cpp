#include "io/import/import_text.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "io/files/output.hpp"
#include "io/import/job_queue.hpp"
#include "io/import/text_file.hpp"
#include "io/import/token_writer.hpp"
#include "io/text/tokenizer_files.hpp"
#include "io/text/unicode.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

using Kind = TextImportOptions::Document;

constexpr std::size_t job_bytes = std::size_t{1} << 20;
constexpr std::size_t read_bytes = std::size_t{256} << 10;
constexpr std::size_t most_text = std::size_t{1} << 30;  // of a line, or of what cannot be cut
constexpr auto progress_pause = std::chrono::milliseconds(100);

/// Text that one thread encodes: whole lines, or a part of a file.
struct Job {
  std::size_t index = 0;
  const std::string* path = nullptr;
  std::string text;
  std::uint64_t first_byte = 0, first_line = 1;  // where the text begins in its file
  bool ends_file = false;
  TextPlace next;  // behind it
};

/// Reads so much of the text, and what was read behind it.
void skip(TextFile& file, const std::string& path, std::uint64_t bytes, std::string& behind) {
  while (bytes > 0) {
    behind.resize(read_bytes);
    const std::size_t got = file.read(behind.data(), read_bytes);
    if (got == 0) throw DataError(fmt::format("{}: is shorter than it was for the shards that are there", path));
    behind.resize(got);
    const std::size_t skipped = std::min<std::uint64_t>(got, bytes);
    behind.erase(0, skipped);
    bytes -= skipped;
  }
}

/// What the tokens of a job are: the ids as they are stored, and how many there are up to each document's end.
struct Encoded {
  std::vector<std::byte> bytes;
  std::vector<std::uint64_t> ends;
  std::uint64_t text_bytes = 0;  // that were encoded
  std::uint64_t empty = 0;
};

class TextImport {
 public:
  TextImport(std::span<const std::string> files, const std::string& out, const TextImportOptions& options)
      : files_(files),
        options_(options),
        kind_(options.document.value_or(options.key.empty() ? Kind::file : Kind::line)),
        tokenizer_(open_tokenizer(options.tokenizer)),
        any_bytes_(tokenizer_->name() == "bytes"),
        threads_(options.threads > 0 ? static_cast<std::size_t>(options.threads)
                                     : std::max(1u, std::thread::hardware_concurrency())),
        queue_(2 * threads_),
        writer_(*tokenizer_, out, options.shard_tokens, id(), files) {}
  std::string run();

 private:
  std::string id() const;
  void read_all();
  bool read(std::size_t index, std::uint64_t before, std::uint64_t total);
  std::size_t cut_of(std::string_view text) const;
  void work();
  Encoded encode(const Job&, Encoder&) const;
  void add_document(std::string_view text, bool ends, const Job&, Encoder&, std::vector<TokenId>&, Encoded&) const;
  std::string text_of(std::string_view line, const std::string& where) const;

  const std::span<const std::string> files_;
  const TextImportOptions& options_;
  const Kind kind_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const bool any_bytes_;
  const std::size_t threads_;
  JobQueue<Job> queue_;
  TokenWriter writer_;
  std::size_t jobs_ = 0;
  std::uint64_t text_bytes_ = 0;
  std::uint64_t empty_ = 0;
  std::chrono::steady_clock::time_point told_{};
};

/// Where the text may be cut: lines behind their last end, a file's text where its ids stay the same. 0: nowhere.
std::size_t TextImport::cut_of(std::string_view text) const {
  if (kind_ == Kind::line) return text.rfind('\n') + 1;
  if (any_bytes_) return text.size();
  if (!tokenizer_->lines_apart()) return 0;
  for (std::size_t end = text.rfind('\n'); end != text.npos && end > 0; end = text.rfind('\n', end - 1)) {
    if (end + 1 == text.size()) continue;
    std::size_t before = end - 1;
    while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) --before;
    const char* const last = text.data() + text.size();
    const Character left = character_at(text.data() + before, last), right = character_at(text.data() + end + 1, last);
    if (left.valid && right.valid && !is_white_space(left.code) && class_of(right.code) == CharacterClass::letter)
      return end + 1;
  }
  return 0;
}

/// One word for the files, as far as that can be told without reading them, and for what is made of them.
std::string TextImport::id() const {
  std::string text = fmt::format("{} {} {} {}\n", tokenizer_->hash(), options_.key,
                                 kind_ == Kind::line ? "line" : "file", options_.shard_tokens);
  for (const std::string& path : files_) {
    std::error_code none;
    const auto bytes = std::filesystem::file_size(path, none);
    const auto time = std::filesystem::last_write_time(path, none).time_since_epoch().count();
    text += fmt::format("{} {} {}\n", path, bytes, time);
  }
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

bool TextImport::read(std::size_t index, std::uint64_t before, std::uint64_t total) {
  const std::string& path = files_[index];
  TextFile file(path);
  std::string text;
  std::uint64_t first_byte = 0, first_line = 1;
  if (const TextPlace& begin = writer_.begin(); begin.file == index && begin.byte > 0) {
    first_byte = begin.byte;
    first_line = begin.line;
    skip(file, path, first_byte, text);
  }
  const auto send = [&](std::size_t bytes, bool ends) {
    Job job{jobs_++, &path, text.substr(0, bytes), first_byte, first_line, ends, {}};
    if (kind_ == Kind::line)
      first_line += static_cast<std::uint64_t>(std::count(job.text.begin(), job.text.end(), '\n'));
    first_byte += bytes;
    job.next = ends ? TextPlace{index + 1} : TextPlace{index, first_byte, first_line};
    text_bytes_ += bytes;
    text.erase(0, bytes);
    return queue_.push(std::move(job));
  };
  for (std::size_t wanted = job_bytes;;) {
    const std::size_t have = text.size();
    text.resize(have + read_bytes);
    const std::size_t got = file.read(text.data() + have, read_bytes);
    text.resize(have + got);
    if (const auto now = std::chrono::steady_clock::now(); options_.progress && now - told_ >= progress_pause) {
      told_ = now;
      options_.progress(before + file.consumed(), total);
    }
    if (got == 0) break;
    if (text.size() < wanted) continue;
    const std::size_t cut = cut_of(text);
    wanted = cut > 0 ? job_bytes : 2 * text.size();  // each byte is looked at a few times, however long a line is
    if (cut > 0 && !send(cut, false)) return false;
    if (text.size() > most_text)
      throw DataError(fmt::format("{}: {} is longer than {} MiB; split the file", path,
                                  kind_ == Kind::line
                                      ? fmt::format("line {}", first_line)
                                      : fmt::format("the text from byte {} on, without a line end,", first_byte),
                                  most_text >> 20));
  }
  if (first_byte == 0 && text.empty()) throw DataError(fmt::format("{}: is empty", path));
  return send(text.size(), true);
}

void TextImport::read_all() {
  std::vector<std::uint64_t> sizes;
  std::uint64_t total = 0, before = 0;
  for (const std::string& path : files_) {
    std::error_code none;
    const auto bytes = std::filesystem::file_size(path, none);
    sizes.push_back(none ? 0 : bytes);
    total += sizes.back();
  }
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (i >= writer_.begin().file && !read(i, before, total)) return;
    before += sizes[i];
  }
  if (options_.progress) options_.progress(total, total);
}

/// The text of a JSON line.
std::string TextImport::text_of(std::string_view line, const std::string& where) const {
  nlohmann::json record;
  try {
    record = nlohmann::json::parse(line);
  } catch (const nlohmann::json::exception& e) {
    throw DataError(fmt::format("{}: this line is no JSON: {}", where, e.what()));
  }
  if (!record.is_object())
    throw DataError(fmt::format("{}: expected a JSON object with the key {}", where, options_.key));
  const auto found = record.find(options_.key);
  if (found == record.end()) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : record.items()) keys.push_back(key);
    throw DataError(fmt::format("{}: has no key {}; its keys are {}", where, options_.key,
                                keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", "))));
  }
  if (!found->is_string())
    throw DataError(fmt::format("{}: {} is no text but {}", where, options_.key, found->type_name()));
  return found->get<std::string>();
}

void TextImport::add_document(std::string_view text, bool ends, const Job& job, Encoder& encoder,
                              std::vector<TokenId>& ids, Encoded& to) const {
  if (!any_bytes_)
    if (const auto bad = first_invalid_utf8(text)) {
      const std::uint64_t at = job.first_byte + static_cast<std::uint64_t>(text.data() - job.text.data()) + *bad;
      throw DataError(
          fmt::format("{}: byte {} of its text, {:#04x}, is not UTF-8; convert the file to UTF-8 (iconv -f "
                      "LATIN1 -t UTF-8, say), or import it with --tokenizer bytes",
                      *job.path, at, static_cast<unsigned char>(text[*bad])));
    }
  encoder.encode(text, ids);
  to.text_bytes += text.size();
  if (!ends) return;
  if (const auto end = tokenizer_->end_of_text()) ids.push_back(*end);
  to.ends.push_back(ids.size());
}

Encoded TextImport::encode(const Job& job, Encoder& encoder) const {
  Encoded to;
  std::vector<TokenId> ids;
  if (kind_ == Kind::file) {
    add_document(job.text, job.ends_file, job, encoder, ids, to);
  } else {
    std::string_view rest = job.text;
    for (std::uint64_t number = job.first_line; !rest.empty(); ++number) {
      const std::size_t end = rest.find('\n');
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.find_first_not_of(" \t") == line.npos) continue;
      if (options_.key.empty()) {
        add_document(line, true, job, encoder, ids, to);
        continue;
      }
      const std::string text = text_of(line, fmt::format("{}:{}", *job.path, number));
      if (text.empty()) {
        ++to.empty;
        continue;
      }
      // The text is UTF-8, as all that the JSON library takes.
      encoder.encode(text, ids);
      to.text_bytes += text.size();
      if (const auto last = tokenizer_->end_of_text()) ids.push_back(*last);
      to.ends.push_back(ids.size());
    }
  }
  to.bytes.resize(ids.size() * size_of(writer_.type()));
  if (writer_.type() == StoredType::u32) {
    if (!ids.empty()) std::memcpy(to.bytes.data(), ids.data(), to.bytes.size());
  } else {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto id = static_cast<std::uint16_t>(ids[i]);
      std::memcpy(to.bytes.data() + i * sizeof id, &id, sizeof id);
    }
  }
  return to;
}

void TextImport::work() {
  const auto encoder = tokenizer_->encoder();
  while (const auto job = queue_.pop()) {
    Encoded encoded;
    std::exception_ptr failure;
    try {
      encoded = encode(*job, *encoder);
    } catch (...) {
      failure = std::current_exception();
    }
    const bool done = queue_.in_turn(job->index, [&] {
      if (failure) std::rethrow_exception(failure);
      writer_.append(encoded.bytes, encoded.ends, encoded.text_bytes);
      empty_ += encoded.empty;
      if (kind_ == Kind::line || job->ends_file) writer_.cut(job->next);
    });
    if (!done) return;
  }
}

std::string TextImport::run() {
  std::vector<std::thread> threads;
  try {
    for (std::size_t i = 0; i < threads_; ++i) {
      threads.emplace_back([this] {
        try {
          work();
        } catch (...) {
          queue_.fail(std::current_exception());
        }
      });
    }
    read_all();
    queue_.close();
  } catch (const std::system_error& e) {
    queue_.fail(std::make_exception_ptr(DataError(
        fmt::format("cannot start {} threads that encode text: {}; lower --threads", threads_, e.code().message()))));
  } catch (...) {
    queue_.fail(std::current_exception());
  }
  for (auto& thread : threads) thread.join();
  queue_.rethrow();
  writer_.finish({files_.size()});
  const std::size_t wrote = writer_.files() - writer_.kept();
  if (writer_.files() == 0) throw DataError(fmt::format("{}: holds no text", fmt::join(files_, ", ")));
  std::string text;
  if (writer_.kept() > 0)
    text = fmt::format("kept what is there of this import: {}{}\n", writer_.kept() == 1 ? "" : writer_.path(0) + " to ",
                       writer_.path(writer_.kept() - 1));
  if (wrote == 0) return text;
  const std::string last = writer_.path(writer_.files() - 1);
  text += fmt::format(
      "wrote {}{}: {} tokens ({}) of {} document{}, made of {} bytes of {}\ntokenizer: {}, {} ids, hash {}",
      wrote == 1 ? "" : writer_.path(writer_.kept()) + " to ", last, writer_.tokens(), name_of(writer_.type()),
      writer_.documents(), writer_.documents() == 1 ? "" : "s", text_bytes_,
      options_.key.empty() ? "text" : "JSON lines", tokenizer_->name(), tokenizer_->vocabulary(), tokenizer_->hash());
  if (const auto end = tokenizer_->end_of_text())
    text += fmt::format("; each document ends with token {}, {}", *end, tokenizer_->piece(*end));
  text += '\n';
  if (empty_ > 0) text += fmt::format("left out {} empty document{}\n", empty_, empty_ == 1 ? "" : "s");
  return text;
}

bool is_json_lines(const std::string& path) {
  constexpr std::string_view names[] = {".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst"};
  return std::any_of(std::begin(names), std::end(names), [&](std::string_view end) { return path.ends_with(end); });
}

}  // namespace

std::string import_text(std::span<const std::string> files, const std::string& out, const TextImportOptions& options) {
  check_output(out, files);  // before a tokenizer is read; shards are looked at one by one
  if (!options.key.empty() && options.document == Kind::file)
    throw ConfigError("import text: with --key each line is a document; leave out --document file");
  if (options.key.empty() && !options.document)
    if (const auto found = std::find_if(files.begin(), files.end(), is_json_lines); found != files.end())
      throw ConfigError(
          fmt::format("import text: {} is JSON lines by its name; say which key of a line has the text "
                      "(--key text), or --document line to take each line as it is",
                      *found));
  return TextImport(files, out, options).run();
}

}  // namespace dtrain::io
