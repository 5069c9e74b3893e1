// Files of tokens as `data import text` makes them, and loaders of their samples, for tests.
// Functions and settings that own nothing after the test, on its thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/dataset/loader.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/text/token_file.hpp"
#include "io/text/tokenizer_files.hpp"
#include "tests/io/dataset/port_batch.hpp"

namespace dtrain::io::testing {

using Documents = std::vector<std::vector<std::uint16_t>>;

inline void write_tokens(const std::string& path, const Documents& documents, const Tokenizer& tokenizer) {
  std::vector<std::uint16_t> tokens;
  std::vector<std::int64_t> offsets{0};
  for (const auto& document : documents) {
    tokens.insert(tokens.end(), document.begin(), document.end());
    offsets.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  h5::Writer writer(path);
  const auto add = [&writer](const char* name, StoredType type, std::uint64_t rows, const void* values) {
    const std::array<std::uint64_t, 1> dims{rows};
    const std::size_t index = writer.add(name, type, dims);
    if (rows > 0) writer.write(index, 0, rows, values);
    return index;
  };
  const std::size_t made = add(token_file::tokens, StoredType::u16, tokens.size(), tokens.data());
  add(token_file::offsets, StoredType::i64, offsets.size(), offsets.data());
  add(token_file::tokenizer, StoredType::u8, tokenizer.definition().size(), tokenizer.definition().data());
  writer.attribute(made, token_file::tokenizer, tokenizer.name());
  writer.attribute(made, token_file::tokenizer_hash, tokenizer.hash());
  writer.commit();
}

/// The ports of a model of text: tokens, documents if wanted, labels in this order.
struct TextPorts {
  explicit TextPorts(TextConfig config, bool documents = false, std::int64_t vocabulary = 1000) : text(config) {
    batch.port(PortUse::input, "text", DType::i32, {text.length}).limit = vocabulary;
    if (documents) batch.port(PortUse::input, documents_input, DType::i32, {text.length}).limit = text.length;
    PortOptions& labels = batch.port(PortUse::target, "next", DType::i32, {text.length});
    labels.limit = vocabulary;
    labels.ignore = ignored;
    batch.options.shuffle = false;
    batch.sources.front().text = TextPart::tokens;
    if (documents) batch.sources[1].text = TextPart::documents;
    batch.sources.back().text = TextPart::labels;
    batch.sources.back().ignore = ignored;
  }
  Dataset open(const std::vector<std::string>& files, double cache_mib = 1024) const {
    DatasetOptions of;
    of.ports = batch.sources;
    of.cache_mib = cache_mib;
    of.text = text;
    return Dataset(files, of);
  }

  static constexpr std::int32_t ignored = -1;
  TextConfig text;
  PortBatch batch;
};

}  // namespace dtrain::io::testing
