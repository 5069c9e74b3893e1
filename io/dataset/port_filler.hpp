// PortFillers make one sample's part of a batch, a port each: numbers, index values, or weights; internal to io/.
// A filler is immutable, borrows the Dataset and may be used from any thread, which brings scratch memory of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/dataset/augment.hpp"
#include "io/dataset/convert.hpp"
#include "io/dataset/loader.hpp"
#include "io/samples/masking.hpp"

namespace dtrain::io {

/// Calls f with a value of the C++ type of an index value.
template <class F>
decltype(auto) with_index_type(DType type, F&& f) {
  switch (type) {
    case DType::u8:
      return f(std::uint8_t{});
    case DType::u16:
      return f(std::uint16_t{});
    default:
      break;
  }
  return f(std::int32_t{});
}

inline bool is_weight(const PortOptions& options) noexcept {
  return options.use == PortUse::weight;
}

/// Sums the hashes of a sample's rows, each once, however many ports read it.
struct RowHash {
  std::uint64_t sum = 0;
  std::vector<bool> done;  // by port of the Dataset
  void begin() {
    sum = 0;
    done.assign(done.size(), false);
  }
  void add(const Dataset& data, std::size_t port, std::uint64_t index, const Dataset::Row& row) {
    if (!done[port]) sum += data.row_hash(port, index, row);
    done[port] = true;
  }
};

/// Memory of one thread: a stored row, a converted sample, and what PortFillers need.
struct FillScratch {
  std::vector<std::byte> stored, value;
  RowHash* hash = nullptr;                      // of the sample that is filled; null: not wanted
  std::vector<std::int64_t> held;               // positions of a sample, a port each
  std::vector<std::vector<std::byte>> partner;  // the first sample's, a port each; where samples are mixed
};

/// The pixels of one port after the geometric draw of an image: the nearest ones.
class Follower {
 public:
  Follower(const Augmenter& image, std::int64_t height, std::int64_t width, std::size_t pixel_bytes)
      : image_(image), height_(static_cast<int>(height)), width_(static_cast<int>(width)), pixel_bytes_(pixel_bytes) {}
  /// From a whole sample to a whole sample. `outside`: one pixel.
  void follow(std::uint64_t position, const std::byte* from, const std::byte* outside, std::byte* to) const;

 private:
  const Augmenter& image_;
  int height_, width_;
  std::size_t pixel_bytes_;
};

/// What all kinds of ports have.
class PortFiller {
 public:
  /// `ports`: all of the layout's, for what a port says of others. Throws ShapeError, ConfigError or DataError where
  /// the set does not suit the port.
  PortFiller(const Dataset&, const BatchLayout&, std::span<const PortOptions>, std::size_t port);
  virtual ~PortFiller() = default;
  PortFiller(const PortFiller&) = delete;
  PortFiller& operator=(const PortFiller&) = delete;

  /// Makes room.
  virtual void reserve(FillScratch&) const;
  std::size_t bytes() const noexcept { return bytes_; }  // of a sample
  /// Of a sample that is padding.
  virtual void pad(std::byte* to) const;
  /// Positions that hold something; all but of ragged rows.
  virtual std::int64_t fill(std::uint64_t index, std::uint64_t position, FillScratch&, std::byte* to) const = 0;

  std::int64_t positions() const noexcept { return positions_; }

 protected:
  const DataPort& stored() const { return data_.port(static_cast<std::size_t>(options_.source)); }
  Dataset::Row row(std::uint64_t index, FillScratch& scratch) const {
    const auto source = static_cast<std::size_t>(options_.source);
    const Dataset::Row found = data_.row(source, index, scratch.stored.data());
    if (scratch.hash != nullptr) scratch.hash->add(data_, source, index, found);
    return found;
  }
  std::string where(std::uint64_t index) const { return data_.where(static_cast<std::size_t>(options_.source), index); }
  /// "position 3" or "position [2, 5]".
  std::string position_text(std::int64_t flat) const;

  const Dataset& data_;
  const PortOptions& options_;
  const TensorDesc desc_;  // of the micro batch
  std::size_t bytes_ = 0;
  std::int64_t positions_ = 1;  // of a sample
  std::int64_t per_step_ =
      1;  // positions for each one of the outermost, which is what a ragged row has more or less of
  std::optional<Follower> follower_;
};

/// Numbers as f32: normalized, augmented.
class NumberFiller final : public PortFiller {
 public:
  /// `augmenter`: of the port itself; null: none. `followed`: of the image that it follows.
  NumberFiller(const Dataset&, const BatchLayout&, std::span<const PortOptions>, std::size_t port,
               const Augmenter* augmenter, const Augmenter* followed);
  void reserve(FillScratch&) const override;
  std::int64_t fill(std::uint64_t index, std::uint64_t position, FillScratch&, std::byte* to) const override;

 private:
  [[noreturn]] void throw_not_finite(std::uint64_t index, const std::byte* stored, std::int64_t element) const;
  Converter converter_;
  const Augmenter* augmenter_;
};

/// Tokens, categories, labels and label maps, checked against their range. Labels may be stored as floats, and one-hot.
class IndexFiller final : public PortFiller {
 public:
  /// `masking`: of tokens of text and their labels; null: none.
  IndexFiller(const Dataset&, const BatchLayout&, std::span<const PortOptions>, std::size_t port,
              const Augmenter* followed, const Masking* masking);
  void reserve(FillScratch&) const override;
  void pad(std::byte* to) const override;
  std::int64_t fill(std::uint64_t index, std::uint64_t position, FillScratch&, std::byte* to) const override;
  /// Calls f with the values of a filled sample: a pointer of their type.
  template <class F>
  void visit(const std::byte* sample, F&& f) const {
    with_index_type(desc_.dtype, [&](auto tag) { f(reinterpret_cast<const decltype(tag)*>(sample)); });
  }

 private:
  void put(std::byte* to, std::int64_t first, std::int64_t count, std::int64_t value) const;
  void hide(std::uint64_t index, std::uint64_t position, std::byte* sample) const;
  [[noreturn]] void throw_range(std::uint64_t index, const std::byte* stored, std::int64_t count) const;
  /// Of a one-hot row.
  std::int64_t place_of_one(std::uint64_t index, const std::byte* stored) const;
  std::int64_t end_;      // of the range
  std::int64_t padding_;  // behind short rows, and what lies outside a followed image
  const Masking* masking_;
  bool one_hot_ = false;  // a stored row has a value for each class, where the model wants one label
};

/// Weights of samples or positions.
class WeightFiller final : public PortFiller {
 public:
  /// `target`: the filler of PortOptions::target; null: none.
  WeightFiller(const Dataset&, const BatchLayout&, std::span<const PortOptions>, std::size_t port,
               const PortFiller* target, const Augmenter* followed);
  void reserve(FillScratch&) const override;
  std::int64_t fill(std::uint64_t index, std::uint64_t position, FillScratch&, std::byte* to) const override;
  /// Times what the filled target says: ignored labels, classes, its positions that hold something.
  void apply_target(std::uint64_t index, const std::byte* target, std::int64_t held, std::byte* to) const;
  /// Whether they are 0 behind the end of that target's short rows.
  bool masks(const PortFiller& target) const noexcept { return by_position_ && target_ == &target; }

 private:
  void read_weights(std::uint64_t index, FillScratch&, float* to) const;
  [[noreturn]] void throw_weight(std::uint64_t index, std::int64_t position, double value) const;
  const PortFiller* target_;
  const IndexFiller* labels_ = nullptr;  // the target, where it has labels
  std::optional<std::int64_t> ignore_;
  bool by_position_ = false;  // a weight for each of the target's positions
};

}  // namespace dtrain::io
