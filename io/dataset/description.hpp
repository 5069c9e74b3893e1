// A Description is what a file, or a checkpoint, says of the rows of one port: the names of classes or of columns, and
// the layout of images. Plain values; a RowMap brings rows of one file to the numbers of another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/stored.hpp"
#include "runtime/graph/graph.hpp"

namespace dtrain::io {

namespace h5 {
class File;
struct DatasetInfo;
}  // namespace h5

/// How a file stores images, volumes or series, where that is said.
enum class StoredLayout : std::uint8_t { unknown, channels_first, channels_last };

struct Description {
  std::string source;  // who says it, for messages: "train.h5: /labels"
  std::string port;    // of the model
  PortUse use = PortUse::input;
  /// What labels 0, 1, ... mean, or the columns of features or values; empty: nothing is said.
  std::vector<std::string> names{};
  bool classes = false;  // names are of labels
  StoredLayout layout = StoredLayout::unknown;
  std::string shard{};          // of a file that is one of several: shard_text()
  std::string preprocessing{};  // of images: the options of the import that made samples of them
  std::string tokenizer{};      // of tokens: "gpt2, hash 0123456789abcdef"
};

/// The data set that says of which file each sample was made, and what it says; empty where there is none, or it has
/// another number of names than there are samples. Throws DataError where it cannot be read.
inline constexpr const char* file_names_set = "file_names";
std::vector<std::string> file_names(const h5::File&, const h5::DatasetInfo& samples);

/// What `repack` writes in each of the files that it makes of one set. `set`: of its samples, in whatever order and
/// files.
std::string shard_text(const std::string& set, std::uint64_t shard, std::uint64_t shards);

/// What the file says of a data set: `class_names` for labels (`index` targets), `feature_names` for inputs,
/// `target_names` for values, each beside the data set or at the root, and its attributes `layout`, `preprocessing` and
/// `shard`. Throws DataError where such a thing is damaged.
Description describe(const h5::File&, const h5::DatasetInfo&, const std::string& port, PortUse, bool index);

/// The data set of a file that holds such names.
const char* name_set(const Description&);

/// The one that names most; the first of these.
const Description& fullest(std::span<const Description>);

/// The layout that some of them say. Throws DataError where others say another one.
StoredLayout agreed_layout(std::span<const Description>);

/// Throws DataError where files are shards of one set that was cut in two ways, or of two sets under one name.
void check_shards(std::span<const Description>);

/// Throws DataError where tokens of some of them are those of another tokenizer than those of others, or of `reference`
/// (which may be null).
void check_tokenizers(std::span<const Description>, const Description* reference);
/// What differs, for that: nothing where one of them says nothing.
std::string other_tokenizer(const Description&, const Description&);

/// How stored rows of `found` become rows of `wanted`: labels by the names of classes, which must be some of those of
/// `wanted`, columns by theirs, which must be the same. Nothing changes where one of them says nothing.
class RowMap {
 public:
  RowMap() = default;
  /// Throws DataError with both lists.
  RowMap(const Description& wanted, const Description& found, StoredType);
  bool empty() const noexcept { return labels_.empty() && swaps_.empty(); }
  /// Of one label of `found`; itself where it is none of the named ones and that is right: `ignored`. -1: it has no
  /// name.
  std::int64_t label(std::int64_t stored, std::optional<std::int64_t> ignored) const noexcept;
  /// So many stored numbers, in place. False where one is a label without a name.
  bool apply(std::byte* stored, std::size_t count, std::optional<std::int64_t> ignored) const;

 private:
  StoredType type_ = StoredType::u8;
  std::vector<std::int32_t> labels_;                        // by stored label
  std::vector<std::pair<std::size_t, std::size_t>> swaps_;  // of columns, one after the other
  std::size_t columns_ = 0;
};

/// Names and preprocessing, for a checkpoint; empty where there are none, or they are far too many.
std::string to_text(std::span<const Description>);
/// Throws DataError where it is none of to_text(). `source`: of the descriptions.
std::vector<Description> descriptions_from(const std::string& text, const std::string& source);
/// That of the port, or null.
const Description* find_description(std::span<const Description>, PortUse, const std::string& port);

}  // namespace dtrain::io
