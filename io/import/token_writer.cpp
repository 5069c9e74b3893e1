#include "io/import/token_writer.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "io/files/output.hpp"
#include "io/hdf5/names.hpp"
#include "io/text/token_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t copy_bytes = std::size_t{4} << 20;  // at a time into the file
constexpr const char* import_attribute = "import";        // of a shard: which import, and where the text behind begins

/// What a shard says of itself: empty where it is none.
std::string import_of(const std::string& path) {
  std::error_code none;
  if (!std::filesystem::exists(path, none)) return {};
  try {
    const h5::File file(path);
    if (!find_tokens(file)) return {};
    return h5::read_text_attribute(file, std::string("/") + token_file::tokens, import_attribute);
  } catch (const DataError&) {
    return {};
  }
}

}  // namespace

TokenWriter::TokenWriter(const Tokenizer& tokenizer, std::string out, std::uint64_t shard_tokens, std::string import,
                         std::span<const std::string> inputs)
    : tokenizer_(tokenizer),
      out_(std::move(out)),
      import_(std::move(import)),
      shard_tokens_(shard_tokens),
      inputs_(inputs),
      type_(tokenizer.vocabulary() <= (1u << 16) ? StoredType::u16 : StoredType::u32) {
  if (shard_tokens_ > 0) find_shards();
  open();
  std::string name = out_ + ".tokens-XXXXXX";
  spool_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (spool_ < 0) spool_failed();
  ::unlink(name.c_str());  // nothing is left of it when the process ends
}

TokenWriter::~TokenWriter() {
  if (spool_ >= 0) ::close(spool_);
}

std::string TokenWriter::path(std::size_t shard) const {
  if (shard_tokens_ == 0) return out_;
  const std::filesystem::path path(out_);
  return (path.parent_path() / fmt::format("{}-{:05}{}", path.stem().string(), shard, path.extension().string()))
      .string();
}

/// Those of this import, up to the first that is lacking.
void TokenWriter::find_shards() {
  for (;; ++index_) {
    std::istringstream words(import_of(path(index_)));
    std::string import;
    std::size_t shard = 0;
    TextPlace next;
    if (!(words >> import >> shard >> next.file >> next.byte >> next.line) || import != import_ || shard != index_)
      break;
    begin_ = next;
  }
  kept_ = index_;
}

void TokenWriter::open() {
  check_output(path(index_), inputs_);
  writer_.emplace(path(index_));
}

void TokenWriter::append(std::span<const std::byte> tokens, std::span<const std::uint64_t> ends,
                         std::uint64_t text_bytes) {
  text_bytes_ += text_bytes;
  const std::uint64_t before = spooled_ / size_of(type_);
  for (const std::uint64_t end : ends) offsets_.push_back(static_cast<std::int64_t>(before + end));
  while (!tokens.empty()) {
    const auto done = ::write(spool_, tokens.data(), tokens.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) spool_failed();
    tokens = tokens.subspan(static_cast<std::size_t>(done));
    spooled_ += static_cast<std::uint64_t>(done);
  }
}

void TokenWriter::cut(const TextPlace& next) {
  if (shard_tokens_ == 0 || spooled_ / size_of(type_) < shard_tokens_) return;
  write(next);
  open();
}

void TokenWriter::finish(const TextPlace& next) {
  if (offsets_.size() > 1) write(next);
  writer_.reset();
  if (shard_tokens_ > 0 && index_ > 0) remove_others();
}

/// Shards behind the last one are of an older import, and would be taken for some of this one.
void TokenWriter::remove_others() const {
  for (std::size_t shard = index_; !import_of(path(shard)).empty(); ++shard) std::filesystem::remove(path(shard));
}

void TokenWriter::read(std::span<std::byte> to, std::uint64_t at) const {
  while (!to.empty()) {
    const auto done = ::pread(spool_, to.data(), to.size(), static_cast<off_t>(at));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) spool_failed();
    to = to.subspan(static_cast<std::size_t>(done));
    at += static_cast<std::uint64_t>(done);
  }
}

void TokenWriter::write(const TextPlace& next) {
  const std::uint64_t size = size_of(type_), count = spooled_ / size;
  const auto add = [&](const char* name, StoredType type, std::uint64_t rows, const StorageOptions& storage = {}) {
    const std::array<std::uint64_t, 1> dims{rows};
    return writer_->add(name, type, dims, storage);
  };
  const std::string& definition = tokenizer_.definition();
  const std::size_t tokens = add(token_file::tokens, type_, count);
  const std::size_t offsets = add(token_file::offsets, StoredType::i64, offsets_.size());
  const std::size_t tokenizer =
      add(token_file::tokenizer, StoredType::u8, definition.size(), {.chunk_rows = 0, .gzip = 6});
  std::vector<std::byte> block(std::min<std::uint64_t>(copy_bytes, spooled_));
  for (std::uint64_t at = 0; at < spooled_; at += block.size()) {
    const std::span part(block.data(), std::min<std::uint64_t>(block.size(), spooled_ - at));
    read(part, at);
    writer_->write(tokens, at / size, part.size() / size, part.data());
  }
  writer_->write(offsets, 0, offsets_.size(), offsets_.data());
  writer_->write(tokenizer, 0, definition.size(), definition.data());
  writer_->attribute(tokens, token_file::tokenizer, tokenizer_.name());
  writer_->attribute(tokens, token_file::tokenizer_hash, tokenizer_.hash());
  const auto number = [&](const char* name, double value) { writer_->attribute(tokens, name, std::span(&value, 1)); };
  number(token_file::vocabulary, tokenizer_.vocabulary());
  number(token_file::text_bytes, static_cast<double>(text_bytes_));
  if (const auto end = tokenizer_.end_of_text()) number(token_file::end_of_document, *end);
  if (shard_tokens_ > 0)
    writer_->attribute(tokens, import_attribute,
                       fmt::format("{} {} {} {} {}", import_, index_, next.file, next.byte, next.line));
  writer_->commit();
  writer_.reset();
  all_tokens_ += count;
  all_documents_ += offsets_.size() - 1;
  ++index_;
  offsets_.assign(1, 0);
  spooled_ = text_bytes_ = 0;
  if (::ftruncate(spool_, 0) != 0 || ::lseek(spool_, 0, SEEK_SET) != 0) spool_failed();
}

void TokenWriter::spool_failed() const {
  throw DataError(fmt::format("{}: the tokens cannot be written beside it: {}", out_, std::strerror(errno)));
}

}  // namespace dtrain::io
