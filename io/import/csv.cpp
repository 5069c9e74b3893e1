#include "io/import/csv.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 18;

gzFile as_gz(void* file) {
  return static_cast<gzFile>(file);
}
bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

}  // namespace

void CsvReader::Close::operator()(void* file) const noexcept {
  gzclose(as_gz(file));
}

CsvReader::CsvReader(const std::string& path, char delimiter)
    : path_(path), delimiter_(delimiter), buffer_(buffer_bytes) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw DataError(fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) throw DataError(fmt::format("{}: is not a regular file; it is read twice", path));
  file_.reset(gzopen(path.c_str(), "rbe"));
  if (file_ == nullptr) throw DataError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
}

void CsvReader::fail(std::size_t column, const std::string& why) const {
  throw DataError(fmt::format("{}:{}:{}: {}", path_, line_, column, why));
}
std::string CsvReader::where(const CsvField& field) const {
  return fmt::format("{}:{}:{}", path_, line_, field.column);
}

bool CsvReader::read_line() {
  text_.clear();
  for (;;) {
    const char* from = buffer_.data() + begin_;
    const auto* stop = static_cast<const char*>(std::memchr(from, '\n', end_ - begin_));
    const std::size_t bytes = stop != nullptr ? static_cast<std::size_t>(stop - from) : end_ - begin_;
    if (text_.size() + bytes > max_line) fail(1, "the line is too long; is this a CSV file?");
    text_.append(from, bytes);
    begin_ += bytes;
    if (stop != nullptr) {
      ++begin_;
      break;
    }
    if (!finished_) {
      const int got = gzread(as_gz(file_.get()), buffer_.data(), static_cast<unsigned>(buffer_.size()));
      int code = 0;
      const char* why = gzerror(as_gz(file_.get()), &code);
      if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
        throw DataError(fmt::format("{}: is damaged or truncated after line {} ({})", path_, line_, why));
      begin_ = 0;
      end_ = static_cast<std::size_t>(got);
      finished_ = got == 0;
      if (!finished_) continue;
    }
    if (text_.empty()) return false;
    break;
  }
  ++line_;
  if (text_.ends_with('\r')) text_.pop_back();
  if (line_ == 1 && text_.starts_with("\xef\xbb\xbf")) text_.erase(0, 3);  // the mark of UTF-8
  if (const auto zero = text_.find('\0'); zero != std::string::npos)
    fail(zero + 1, "there is a zero byte; this is no CSV file");
  return true;
}

std::size_t CsvReader::read_field(std::size_t at, CsvField& field) {
  const std::size_t end = text_.size();
  while (at < end && is_blank(text_[at]) && text_[at] != delimiter_) ++at;
  field.column = at + 1;
  field.quoted = at < end && text_[at] == '"';
  if (!field.quoted) {
    const std::size_t stop = std::min(text_.find(delimiter_, at), end);
    std::size_t last = stop;
    while (last > at && is_blank(text_[last - 1])) --last;
    field.text = std::string_view(text_).substr(at, last - at);
    return stop;
  }
  // Doubled quotes are moved together within the line.
  const std::size_t begin = ++at;
  std::size_t to = begin;
  for (;; ++at) {
    if (at >= end) fail(field.column, "a quote is not closed on its line");
    if (text_[at] == '"') {
      if (at + 1 >= end || text_[at + 1] != '"') break;
      ++at;
    }
    text_[to++] = text_[at];
  }
  field.text = std::string_view(text_).substr(begin, to - begin);
  ++at;
  while (at < end && is_blank(text_[at]) && text_[at] != delimiter_) ++at;
  if (at < end && text_[at] != delimiter_) fail(at + 1, "text follows a closed quote");
  return at;
}

bool CsvReader::next(std::vector<CsvField>& fields) {
  fields.clear();
  do {
    if (!read_line()) return false;
  } while (std::all_of(text_.begin(), text_.end(), is_blank));
  std::size_t at = 0;
  for (;;) {
    at = read_field(at, fields.emplace_back());
    if (at >= text_.size()) return true;
    ++at;
  }
}

}  // namespace dtrain::io
