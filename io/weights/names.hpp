// What a family's parameters are called in files of Hugging Face's transformers, of torchvision or of timm, and how
// their values lie there: a table a family. Tables are constants; the functions are pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/hdf5/stored.hpp"

namespace dtrain::io {

/// What a tensor here is, of those there.
enum class Layout : unsigned char {
  same,
  transposed,       // of matrices; of others the same
  stacked,          // equal parts, one below the other
  query_key_value,  // the same; of a matrix the first part is square, and the others are equal
  one_sample,       // without the extents of 1 before it there
  with_first_row,  // of the first, with the first row of the second added to each of its rows: folded where it is read,
                   // and zeros where it is written
};

/// A tensor here and what it is made of there.
struct ForeignTensor {
  std::vector<std::string> names;
  Layout layout = Layout::same;
};

/// Names of one family. A `*` is a number, the same in all names of a rule. A rule for "ln_f" is one for its weight and
/// its bias.
class NameMap {
 public:
  struct Rule {
    std::string ours;
    std::vector<std::string> theirs;
    Layout layout = Layout::same;
  };
  /// `prefix`: files may lack it. `passed_over`: what no model here needs, such as masks.
  NameMap(std::string_view prefix, std::vector<Rule> rules, std::vector<std::string_view> passed_over)
      : prefix_(prefix), rules_(std::move(rules)), passed_over_(std::move(passed_over)) {}

  /// Of a parameter here, by its PyTorch name, beside all others of the model: "h_0_ln_1.weight".
  std::optional<ForeignTensor> foreign(const std::string& ours, std::span<const std::string> model) const;
  /// A name as files have it, in the form in which foreign() gives it: "ln_f.gamma" is "transformer.ln_f.weight".
  std::string canonical(const std::string& theirs) const;
  /// In canonical form.
  bool passed_over(const std::string& theirs) const;

 private:
  std::string_view prefix_;
  std::vector<Rule> rules_;
  std::vector<std::string_view> passed_over_;
};

/// Whose names. `usual`: those of transformers, and of torchvision for ResNets and EfficientNets. timm's ResNets have
/// torchvision's.
enum class Library : std::uint8_t { usual, timm };
/// Of the family as a configuration names it ("gpt"); nullptr where the library has no such model, or none that is
/// known here.
const NameMap* foreign_names(std::string_view family, Library = Library::usual);

/// The shape here of tensors of these shapes there. Throws DataError, in words that follow a tensor's name, where they
/// do not fit together.
Dims shape_here(Layout, std::span<const Dims> there, std::size_t rank_here);
/// Their values, in `to`.
void values_here(Layout, std::span<const Dims> shapes, std::span<const std::vector<float>> there, float* to);

/// The shapes there of a tensor of this shape here, which is made of `parts`.
std::vector<Dims> shapes_there(Layout, const Dims& here, std::size_t parts);
/// The bytes of all parts, one behind the other, of elements of `size` bytes.
std::vector<std::byte> bytes_there(Layout, const Dims& here, std::span<const std::byte> data, std::size_t size,
                                   std::size_t parts);

}  // namespace dtrain::io
