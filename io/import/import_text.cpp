#include "io/import/import_text.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/import/job_queue.hpp"
#include "io/import/text_file.hpp"
#include "io/text/token_file.hpp"
#include "io/text/tokenizer_files.hpp"
#include "io/text/unicode.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

using Kind = TextImportOptions::Document;

constexpr std::size_t job_bytes = std::size_t{1} << 20;
constexpr std::size_t read_bytes = std::size_t{256} << 10;
constexpr std::size_t most_text = std::size_t{1} << 30;   // of a line, or of what cannot be cut
constexpr std::size_t copy_bytes = std::size_t{4} << 20;  // at a time into the file
constexpr auto progress_pause = std::chrono::milliseconds(100);

/// Text that one thread encodes: whole lines, or a part of a file.
struct Job {
  std::size_t index = 0;
  const std::string* path = nullptr;
  std::string text;
  std::uint64_t first_byte = 0, first_line = 1;  // where the text begins in its file
  bool ends_document = false;                    // of a file
};

/// Tokens that wait for their number. Nothing is left of the file when the process ends.
class Spool {
 public:
  explicit Spool(const std::string& out) : out_(out) {
    std::string name = out + ".tokens-XXXXXX";
    descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (descriptor_ < 0) failed();
    ::unlink(name.c_str());
  }
  ~Spool() { ::close(descriptor_); }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  void append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto done = ::write(descriptor_, bytes.data(), bytes.size());
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) failed();
      bytes = bytes.subspan(static_cast<std::size_t>(done));
      bytes_ += static_cast<std::uint64_t>(done);
    }
  }
  void read(std::span<std::byte> to, std::uint64_t at) const {
    while (!to.empty()) {
      const auto done = ::pread(descriptor_, to.data(), to.size(), static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) failed();
      to = to.subspan(static_cast<std::size_t>(done));
      at += static_cast<std::uint64_t>(done);
    }
  }
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  [[noreturn]] void failed() const {
    throw DataError(fmt::format("{}: the tokens cannot be written beside it: {}", out_, std::strerror(errno)));
  }
  const std::string out_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

/// What the tokens of a job are: the ids as they are stored, and how many there are up to each document's end.
struct Encoded {
  std::vector<std::byte> bytes;
  std::vector<std::uint64_t> ends;
  std::uint64_t tokens = 0, empty = 0;
};

class TextImport {
 public:
  TextImport(std::span<const std::string> files, const std::string& out, const TextImportOptions& options)
      : files_(files),
        out_(out),
        options_(options),
        kind_(options.document.value_or(options.key.empty() ? Kind::file : Kind::line)),
        tokenizer_(open_tokenizer(options.tokenizer)),
        any_bytes_(tokenizer_->name() == "bytes"),
        type_(tokenizer_->vocabulary() <= (1u << 16) ? StoredType::u16 : StoredType::u32),
        threads_(options.threads > 0 ? static_cast<std::size_t>(options.threads)
                                     : std::max(1u, std::thread::hardware_concurrency())),
        queue_(2 * threads_),
        writer_(out),
        spool_(out) {}
  std::string run();

 private:
  void read_all();
  bool read(const std::string& path, std::uint64_t before, std::uint64_t total);
  std::size_t cut_of(std::string_view text) const;
  void work();
  Encoded encode(const Job&, Encoder&) const;
  void add_document(std::string_view text, bool ends, const Job&, Encoder&, std::vector<TokenId>&, Encoded&) const;
  std::string text_of(std::string_view line, const std::string& where) const;
  void take(const Encoded&);
  void write();

  const std::span<const std::string> files_;
  const std::string& out_;
  const TextImportOptions& options_;
  const Kind kind_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const bool any_bytes_;
  const StoredType type_;
  const std::size_t threads_;
  JobQueue<Job> queue_;
  h5::Writer writer_;
  Spool spool_;
  std::size_t jobs_ = 0;
  std::uint64_t text_bytes_ = 0;
  std::vector<std::int64_t> offsets_{0};
  std::uint64_t tokens_ = 0, empty_ = 0;
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

bool TextImport::read(const std::string& path, std::uint64_t before, std::uint64_t total) {
  TextFile file(path);
  std::string text;
  std::uint64_t first_byte = 0, first_line = 1;
  const auto send = [&](std::size_t bytes, bool ends) {
    Job job{jobs_++, &path, text.substr(0, bytes), first_byte, first_line, ends};
    if (kind_ == Kind::line)
      first_line += static_cast<std::uint64_t>(std::count(job.text.begin(), job.text.end(), '\n'));
    first_byte += bytes;
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
    if (!read(files_[i], before, total)) return;
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
  if (!ends) return;
  if (const auto end = tokenizer_->end_of_text()) ids.push_back(*end);
  to.ends.push_back(ids.size());
}

Encoded TextImport::encode(const Job& job, Encoder& encoder) const {
  Encoded to;
  std::vector<TokenId> ids;
  if (kind_ == Kind::file) {
    add_document(job.text, job.ends_document, job, encoder, ids, to);
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
      if (const auto last = tokenizer_->end_of_text()) ids.push_back(*last);
      to.ends.push_back(ids.size());
    }
  }
  to.tokens = ids.size();
  to.bytes.resize(ids.size() * size_of(type_));
  if (type_ == StoredType::u32) {
    if (!ids.empty()) std::memcpy(to.bytes.data(), ids.data(), to.bytes.size());
  } else {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto id = static_cast<std::uint16_t>(ids[i]);
      std::memcpy(to.bytes.data() + i * sizeof id, &id, sizeof id);
    }
  }
  return to;
}

void TextImport::take(const Encoded& of) {
  spool_.append(of.bytes);
  for (const std::uint64_t end : of.ends) offsets_.push_back(static_cast<std::int64_t>(tokens_ + end));
  tokens_ += of.tokens;
  empty_ += of.empty;
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
      take(encoded);
    });
    if (!done) return;
  }
}

void TextImport::write() {
  const std::array<std::uint64_t, 1> count{tokens_}, documents{offsets_.size()}, bytes{tokenizer_->definition().size()};
  const std::size_t tokens = writer_.add(token_file::tokens, type_, count);
  const std::size_t offsets = writer_.add(token_file::offsets, StoredType::i64, documents);
  const std::size_t definition =
      writer_.add(token_file::tokenizer, StoredType::u8, bytes, {.chunk_rows = 0, .gzip = 6});
  const std::uint64_t size = size_of(type_);
  std::vector<std::byte> block(std::min<std::uint64_t>(copy_bytes, spool_.bytes()));
  for (std::uint64_t at = 0; at < spool_.bytes(); at += block.size()) {
    const std::span part(block.data(), std::min<std::uint64_t>(block.size(), spool_.bytes() - at));
    spool_.read(part, at);
    writer_.write(tokens, at / size, part.size() / size, part.data());
  }
  writer_.write(offsets, 0, offsets_.size(), offsets_.data());
  writer_.write(definition, 0, bytes[0], tokenizer_->definition().data());
  writer_.attribute(tokens, token_file::tokenizer, tokenizer_->name());
  writer_.attribute(tokens, token_file::tokenizer_hash, tokenizer_->hash());
  const auto number = [&](const char* name, double value) { writer_.attribute(tokens, name, std::span(&value, 1)); };
  number(token_file::vocabulary, tokenizer_->vocabulary());
  if (const auto end = tokenizer_->end_of_text()) number(token_file::end_of_document, *end);
  writer_.commit();
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
  const std::size_t documents = offsets_.size() - 1;
  if (documents == 0) throw DataError(fmt::format("{}: holds no text", fmt::join(files_, ", ")));
  write();
  std::string text = fmt::format(
      "wrote {}: {} tokens ({}) of {} document{}, made of {} bytes of {}\ntokenizer: {}, {} ids, hash {}", out_,
      tokens_, name_of(type_), documents, documents == 1 ? "" : "s", text_bytes_,
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
  check_output(out, files);
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
