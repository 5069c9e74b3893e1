#include "io/samples/text_samples.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <xxhash.h>

#include "io/text/token_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t wide_bytes = sizeof(std::int64_t);  // of a label that may be `ignore`

template <class T>
void put(std::byte* out, std::uint64_t at, T value) {
  std::memcpy(out + at * sizeof value, &value, sizeof value);
}

}  // namespace

TextSamples::TextSamples(const TextConfig& config, bool apart, std::optional<std::int64_t> ignore)
    : config_(config), length_(static_cast<std::uint64_t>(config.length)), apart_(apart), ignore_(ignore) {}

std::uint64_t TextSamples::add(const h5::File& file, const std::shared_ptr<OpenFiles>& open_files) {
  const std::optional<TokenFile> found = find_tokens(file);
  if (!found)
    throw DataError(
        fmt::format("{}: is no file of tokens, which data.text needs; `dtrain data import text` makes them; "
                    "the file holds {}",
                    file.path(), file.list().text()));
  if (found->tokens.rows() == 0) throw DataError(fmt::format("{}: {} is empty", file.path(), found->tokens.path));
  if (!next_token() && !mask_tokens_)
    mask_tokens_ = MaskTokens::of(*stored_tokenizer(file, *found), config_.whole_words, file.path());
  if (!shards_.empty() && *found->tokens.type != type_)
    throw DataError(fmt::format("{}: {} differs from {}, whose tokens are {}; shards must agree", file.path(),
                                found->tokens.text(), shards_[0].path, name_of(type_)));
  type_ = *found->tokens.type;
  size_ = size_of(type_);
  Shard shard;
  shard.path = file.path();
  shard.tokens = std::make_unique<Column>(file.path(), found->tokens, open_files);
  shard.document_count = found->offsets.rows() - 1;
  if (apart_ || packed()) read_documents(file.path(), found->offsets, shard);
  const std::uint64_t rows = found->tokens.rows(), behind = next_token() ? 1 : 0;
  if (packed()) {
    shard.packs.emplace(shard.documents, static_cast<std::uint32_t>(length_));
    shard.samples = shard.packs->size();
  } else {
    shard.samples = (rows - behind) / length_;
  }
  shards_.push_back(std::move(shard));
  return shards_.back().samples;
}

void TextSamples::read_documents(const std::string& path, const h5::DatasetInfo& info, Shard& shard) const {
  const Column column(path, info);
  shard.documents.resize(column.rows());
  column.read_all(reinterpret_cast<std::byte*>(shard.documents.data()), 1);
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < shard.documents.size(); ++i) {
    const std::uint64_t offset = shard.documents[i];
    const bool ends = (i == 0 && offset != 0) || (i + 1 == shard.documents.size() && offset != shard.tokens->rows());
    if (offset < last || offset > shard.tokens->rows() || ends)
      throw DataError(fmt::format("{}: {}, row {}: the offset is {}; expected offsets that do not fall, from 0 to {}",
                                  path, info.path, i, static_cast<std::int64_t>(offset), shard.tokens->rows()));
    last = offset;
  }
}

void TextSamples::check_count() const {
  std::uint64_t samples = 0, tokens = 0;
  for (const Shard& shard : shards_) {
    samples += shard.samples;
    tokens = std::max(tokens, shard.tokens->rows());
  }
  if (samples > 0) return;
  throw DataError(
      fmt::format("{}: {} has {} tokens, but a window of data.text.length: {} takes {}; lower the length, or "
                  "name files of more text",
                  shards_[0].path, shards_[0].tokens->info().path, tokens, length_, length_ + (next_token() ? 1 : 0)));
}

double TextSamples::stored_bytes() const noexcept {
  double bytes = 0;
  for (const Shard& shard : shards_) bytes += static_cast<double>(shard.tokens->rows()) * static_cast<double>(size_);
  return bytes;
}

void TextSamples::load(int threads) {
  for (Shard& shard : shards_) {
    shard.memory.resize(shard.tokens->rows() * size_);
    shard.tokens->read_all(shard.memory.data(), threads);
    with_stored_type(type_, [&shard](auto value) {
      for (const std::byte* at = shard.memory.data(); at != shard.memory.data() + shard.memory.size();
           at += sizeof value) {
        std::memcpy(&value, at, sizeof value);
        shard.largest = std::max(shard.largest, static_cast<std::uint64_t>(value));
      }
    });
  }
}

void TextSamples::check_tokens(std::int64_t limit) const {
  for (const Shard& shard : shards_) {
    if (shard.largest < static_cast<std::uint64_t>(limit)) continue;
    for (std::uint64_t i = 0; i < shard.tokens->rows(); ++i) {
      const std::int64_t id = *stored_whole(type_, shard.memory.data() + i * size_);
      if (id < limit) continue;
      throw DataError(fmt::format("{}: {}, position {}: the token is {}, but the model's vocabulary has {} (0 to {})",
                                  shard.path, shard.tokens->info().path, i, id, limit, limit - 1));
    }
  }
}

StoredType TextSamples::type(TextPart part) const noexcept {
  return part == TextPart::documents ? StoredType::i32 : wide(part) ? StoredType::i64 : type_;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

const std::byte* TextSamples::read(const Shard& shard, std::uint64_t first, std::uint64_t count,
                                   std::byte* scratch) const {
  if (!shard.memory.empty()) return shard.memory.data() + first * size_;
  shard.tokens->read_range(first, count, scratch);
  return scratch;
}

/// As int64. What is read from the file lies at the end of its place, where no value is written before it was used.
void TextSamples::widen(const Shard& shard, std::uint64_t first, std::uint64_t count, std::byte* out) const {
  if (count == 0) return;
  const std::byte* from = read(shard, first, count, out + count * (wide_bytes - size_));
  with_stored_type(type_, [&](auto value) {
    for (std::uint64_t i = 0; i < count; ++i, from += sizeof value) {
      std::memcpy(&value, from, sizeof value);
      put(out, i, static_cast<std::int64_t>(value));
    }
  });
}

const std::byte* TextSamples::window(TextPart part, const Shard& shard, std::uint64_t first, std::byte* scratch) const {
  const bool next = part == TextPart::labels && next_token();
  if (next) ++first;
  if (!wide(part)) return read(shard, first, length_, scratch);
  widen(shard, first, length_, scratch);
  if (!next || !apart_) return scratch;
  // Where a document begins, its first token is no label of the position before it.
  const auto& documents = shard.documents;
  for (auto at = std::lower_bound(documents.begin(), documents.end(), first);
       at != documents.end() && *at < first + length_; ++at)
    put(scratch, *at - first, *ignore_);
  return scratch;
}

void TextSamples::pack_tokens(const Shard& shard, std::span<const Piece> pieces, std::byte* out) const {
  std::uint64_t p = 0;
  for (const Piece& piece : pieces) {
    std::byte* const to = out + p * size_;
    const std::byte* const from = read(shard, piece.begin, piece.length, to);
    if (from != to) std::memcpy(to, from, piece.length * size_);
    p += piece.length;
  }
  std::memset(out + p * size_, 0, (length_ - p) * size_);
}

void TextSamples::pack_labels(const Shard& shard, std::span<const Piece> pieces, std::byte* out) const {
  std::uint64_t p = 0;
  for (const Piece& piece : pieces) {
    const bool next = next_token(), last = next && !piece.continues;
    const std::uint64_t labels = piece.length - (last ? 1 : 0);
    widen(shard, piece.begin + (next ? 1 : 0), labels, out + p * wide_bytes);
    if (last) put(out, p + labels, *ignore_);
    p += piece.length;
  }
  for (; p < length_; ++p) put(out, p, *ignore_);
}

void TextSamples::documents_of(const Shard& shard, std::uint64_t sample, std::int32_t* out) const {
  std::uint64_t p = 0;
  const auto add = [&](std::uint64_t count) {
    std::fill_n(out + p, count, static_cast<std::int32_t>(p));
    p += count;
  };
  if (packed()) {
    for (const Piece& piece : (*shard.packs)[sample]) add(piece.length);
  } else {
    const std::uint64_t first = sample * length_, end = first + length_;
    const auto& documents = shard.documents;
    for (auto at = std::upper_bound(documents.begin(), documents.end(), first); first + p < end; ++at)
      add((at == documents.end() ? end : std::min(*at, end)) - first - p);
  }
  add(length_ - p);  // padding is a document of its own
}

const std::byte* TextSamples::row(TextPart part, std::size_t s, std::uint64_t sample, std::byte* scratch) const {
  const Shard& shard = shards_[s];
  if (part == TextPart::documents) {
    documents_of(shard, sample, reinterpret_cast<std::int32_t*>(scratch));
  } else if (!packed()) {
    return window(part, shard, sample * length_, scratch);
  } else if (part == TextPart::labels) {
    pack_labels(shard, (*shard.packs)[sample], scratch);
  } else {
    pack_tokens(shard, (*shard.packs)[sample], scratch);
  }
  return scratch;
}

std::int64_t TextSamples::held(std::size_t s, std::uint64_t sample) const noexcept {
  if (!packed()) return length();
  std::int64_t held = 0;
  for (const Piece& piece : (*shards_[s].packs)[sample]) held += piece.length;
  return held;
}

std::uint64_t TextSamples::band_samples(std::size_t s) const noexcept {
  return packed() ? 1 : std::max<std::uint64_t>(1, shards_[s].tokens->band_rows() / length_);
}

// ---- what is said --------------------------------------------------------------------------------------------------

std::string TextSamples::where(std::size_t s, std::uint64_t sample) const {
  return fmt::format("{}, {} {}", shards_[s].tokens->info().path, packed() ? "pack" : "window", sample);
}

std::uint64_t TextSamples::place_of(TextPart part, const Shard& shard, std::uint64_t sample, std::uint64_t p) const {
  const std::uint64_t behind = part == TextPart::labels && next_token() ? 1 : 0;
  if (!packed()) return sample * length_ + p + behind;
  for (const Piece& piece : (*shard.packs)[sample]) {
    if (p < piece.length) return piece.begin + p + behind;
    p -= piece.length;
  }
  return 0;
}

std::string TextSamples::where(TextPart part, std::size_t s, std::uint64_t sample, std::int64_t position) const {
  return fmt::format("{}, position {}", shards_[s].tokens->info().path,
                     place_of(part, shards_[s], sample, static_cast<std::uint64_t>(position)));
}

std::string TextSamples::digest() const {
  std::uint64_t hash = 0;
  for (const Shard& shard : shards_) {
    const auto& documents = shard.documents;
    const std::uint64_t words[] = {hash, shard.samples,
                                   XXH3_64bits(documents.data(), documents.size() * sizeof documents[0])};
    hash = XXH3_64bits(words, sizeof words);
  }
  return fmt::format("{} {} {} {} {:016x}", length_, packed() ? 1 : 0, next_token() ? 1 : 0, apart_ ? 1 : 0, hash);
}

std::string TextSamples::text() const {
  std::uint64_t tokens = 0, documents = 0, samples = 0, cut = 0;
  for (const Shard& shard : shards_) {
    tokens += shard.tokens->rows();
    documents += shard.document_count;
    samples += shard.samples;
    if (shard.packs) cut += shard.packs->cut_documents();
  }
  const auto count = [](std::uint64_t n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  };
  std::string text = fmt::format("{} of {} in {} of {}", count(tokens, "token"), count(documents, "document"),
                                 count(samples, packed() ? "pack" : "window"), length_);
  if (!packed()) return text + fmt::format("; {} at the end of files are in none", tokens - samples * length_);
  const double full = 100 * static_cast<double>(tokens) / static_cast<double>(samples * length_);
  text += fmt::format(", {:.2f} % full", full);
  return cut == 0 ? text
                  : text + fmt::format("; {} longer than that, and cut",
                                       cut == 1 ? "1 document is" : fmt::format("{} documents are", cut));
}

}  // namespace dtrain::io
