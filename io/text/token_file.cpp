#include "io/text/token_file.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "io/hdf5/column.hpp"
#include "io/hdf5/names.hpp"
#include "io/text/tokenizer_files.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint64_t most_bytes = std::uint64_t{256} << 20;  // of a definition

bool is_list_of(const h5::DatasetInfo& info, std::initializer_list<StoredType> types) {
  return info.refused.empty() && info.dims.size() == 1 && info.type &&
         std::find(types.begin(), types.end(), *info.type) != types.end();
}

}  // namespace

std::optional<TokenFile> find_tokens(const h5::File& file) {
  TokenFile found;
  const std::string tokens = std::string("/") + token_file::tokens, offsets = std::string("/") + token_file::offsets;
  found.tokenizer = h5::read_text_attribute(file, tokens, token_file::tokenizer);
  found.tokenizer_hash = h5::read_text_attribute(file, tokens, token_file::tokenizer_hash);
  found.text_bytes = h5::read_number_attribute(file, tokens, token_file::text_bytes);
  if (found.tokenizer.empty() || !file.find(offsets)) return std::nullopt;
  found.tokens = file.info(tokens);
  found.offsets = file.info(offsets);
  if (!is_list_of(found.tokens, {StoredType::u16, StoredType::u32}) || !is_list_of(found.offsets, {StoredType::i64}) ||
      found.offsets.rows() == 0)
    return std::nullopt;
  return found;
}

std::unique_ptr<Tokenizer> stored_tokenizer(const h5::File& file, const TokenFile& of) {
  const h5::DatasetInfo info = file.info(std::string("/") + token_file::tokenizer);
  if (!is_list_of(info, {StoredType::u8}) || info.rows() > most_bytes)
    throw DataError(fmt::format("{}: {} is no definition of a tokenizer", file.path(), info.text()));
  std::string definition(info.rows(), '\0');
  Column(file.path(), info).read_all(reinterpret_cast<std::byte*>(definition.data()), 1);
  auto tokenizer = tokenizer_of(definition, fmt::format("{}: /{}", file.path(), token_file::tokenizer));
  if (tokenizer->hash() != of.tokenizer_hash)
    throw DataError(fmt::format("{}: the tokenizer in the file has the hash {}, but its tokens are of {}", file.path(),
                                tokenizer->hash(), of.tokenizer_hash));
  return tokenizer;
}

std::vector<Document> first_documents(const TokenFile& of, const std::string& path, const Tokenizer& tokenizer,
                                      std::uint64_t documents, std::uint64_t most_tokens) {
  documents = std::min(documents, of.offsets.rows() - 1);
  std::vector<std::int64_t> offsets(documents + 1);
  Column(path, of.offsets).read_range(0, documents + 1, reinterpret_cast<std::byte*>(offsets.data()));
  const Column tokens(path, of.tokens);
  std::vector<Document> found;
  std::vector<std::byte> bytes;
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < documents; ++i) {
    const std::int64_t begin = offsets[i], end = offsets[i + 1];
    if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > of.tokens.rows())
      throw DataError(fmt::format("{}: {}: document {} is [{}, {}); expected offsets that grow from 0 to {}", path,
                                  of.offsets.path, i, begin, end, of.tokens.rows()));
    const auto count = static_cast<std::uint64_t>(end - begin);
    const std::uint64_t shown = std::min(count, most_tokens);
    const std::size_t size = size_of(*of.tokens.type);
    bytes.resize(shown * size);
    if (shown > 0) tokens.read_range(static_cast<std::uint64_t>(begin), shown, bytes.data());
    ids.resize(shown);
    for (std::size_t t = 0; t < shown; ++t) ids[t] = stored_as<TokenId>(*of.tokens.type, bytes.data() + t * size);
    found.push_back({count, tokenizer.decode(ids)});
  }
  return found;
}

}  // namespace dtrain::io
