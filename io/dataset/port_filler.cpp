#include "io/dataset/port_filler.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/hdf5/stored.hpp"
#include "io/samples/text_samples.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// The largest index value that a type holds, and 1.
std::int64_t end_of(DType type) {
  return with_index_type(type, [](auto tag) -> std::int64_t { return std::numeric_limits<decltype(tag)>::max(); }) + 1;
}

bool holds(DType type, std::int64_t value) {
  return with_index_type(type, [value](auto tag) {
    return value >= std::numeric_limits<decltype(tag)>::min() && value <= std::numeric_limits<decltype(tag)>::max();
  });
}

/// Extents of a sample in memory: without the batch, and without the channels of numbers.
std::vector<std::int64_t> positions_of(const TensorDesc& desc) {
  const auto all = desc.shape.extents();
  const bool channels = !desc.is_index() && all.size() > 1;
  return {all.begin() + 1, all.end() - (channels ? 1 : 0)};
}

std::int64_t product(std::span<const std::int64_t> extents) {
  std::int64_t result = 1;
  for (const auto e : extents) result *= e;
  return result;
}

std::vector<std::int64_t> without_ones(std::span<const std::int64_t> extents) {
  std::vector<std::int64_t> result;
  std::copy_if(extents.begin(), extents.end(), std::back_inserter(result), [](std::int64_t e) { return e != 1; });
  return result;
}

}  // namespace

void Follower::follow(std::uint64_t position, const std::byte* from, const std::byte* outside, std::byte* to) const {
  const AffineMap map = image_.draw(position).map();
  for (int y = 0; y < height_; ++y) {
    for (int x = 0; x < width_; ++x, to += pixel_bytes_) {
      const ImagePoint p = source_of(map, x, y);
      const bool inside = p.x >= 0 && p.y >= 0 && p.x < static_cast<float>(width_) && p.y < static_cast<float>(height_);
      const std::byte* pixel = outside;
      if (inside) {
        const auto row = static_cast<std::size_t>(p.y), column = static_cast<std::size_t>(p.x);
        pixel = from + (row * static_cast<std::size_t>(width_) + column) * pixel_bytes_;
      }
      std::memcpy(to, pixel, pixel_bytes_);
    }
  }
}

// ---- what all kinds have -------------------------------------------------------------------------------------------

namespace {

/// What is read of the set: of pairs, each half.
TensorDesc desc_of(const BatchLayout& layout, const PortOptions& options, std::size_t port) {
  const TensorDesc& desc = layout.ports[port].desc;
  return options.pairs ? TensorDesc{desc.dtype, Shape{desc.batch()}} : desc;
}

}  // namespace

PortFiller::PortFiller(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                       std::size_t port)
    : data_(data), options_(ports[port]), desc_(desc_of(layout, options_, port)) {
  bytes_ = desc_.bytes() / static_cast<std::size_t>(desc_.batch());
  // Weights have no channels: [m, positions...].
  const std::vector<std::int64_t> extents =
      is_weight(options_) ? std::vector<std::int64_t>(desc_.shape.extents().begin() + 1, desc_.shape.extents().end())
                          : positions_of(desc_);
  positions_ = product(extents);
  per_step_ = extents.empty() ? 1 : positions_ / std::max<std::int64_t>(1, extents[0]);
}

void PortFiller::reserve(FillScratch& scratch) const {
  const std::size_t wanted = options_.source >= 0 && !stored().labels ? stored().scratch_bytes() : 0;
  if (scratch.stored.size() < wanted) scratch.stored.resize(wanted);
}

void PortFiller::pad(std::byte* to) const {
  std::memset(to, 0, bytes_);
}

std::string PortFiller::position_text(std::int64_t flat) const {
  const auto extents = desc_.shape.extents().subspan(1);
  if (extents.size() < 2) return fmt::format("position {}", flat);
  std::vector<std::int64_t> at(extents.size());
  for (std::size_t i = extents.size(); i-- > 0; flat /= extents[i]) at[i] = flat % extents[i];
  return fmt::format("position [{}]", fmt::join(at, ", "));
}

// ---- numbers -------------------------------------------------------------------------------------------------------

NumberFiller::NumberFiller(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                           std::size_t port, const Augmenter* augmenter, const Augmenter* followed)
    : PortFiller(data, layout, ports, port),
      converter_(data, static_cast<std::size_t>(options_.source), desc_.sample(), options_.normalize, options_.layout),
      augmenter_(augmenter) {
  if (desc_.dtype != DType::f32) throw BugError("loader: numbers that are no float32");
  if (stored().ragged()) data.check_lengths(static_cast<std::size_t>(options_.source), desc_.sample()[0]);
  if (followed != nullptr) {
    const Shape sample = desc_.sample();
    follower_.emplace(*followed, sample[1], sample[2], static_cast<std::size_t>(sample[0]) * sizeof(float));
  }
}

void NumberFiller::reserve(FillScratch& scratch) const {
  PortFiller::reserve(scratch);
  const std::size_t wanted = follower_ ? bytes_ + static_cast<std::size_t>(desc_.channels()) * sizeof(float) : 0;
  if (scratch.value.size() < wanted) scratch.value.resize(wanted);
}

std::int64_t NumberFiller::fill(std::uint64_t index, std::uint64_t position, FillScratch& scratch,
                                std::byte* to) const {
  const Dataset::Row held = row(index, scratch);
  auto* const out = reinterpret_cast<float*>(follower_ ? scratch.value.data() : to);
  std::int64_t bad = -1;
  if (stored().ragged()) {
    std::memset(to, 0, bytes_);
    bad = converter_(held.data, held.length, out);
  } else {
    bad = augmenter_ != nullptr ? (*augmenter_)(held.data, position, out) : converter_(held.data, out);
  }
  if (bad >= 0) throw_not_finite(index, held.data, bad);
  if (follower_) {
    std::byte* const outside = scratch.value.data() + bytes_;
    std::memset(outside, 0, scratch.value.size() - bytes_);
    follower_->follow(position, scratch.value.data(), outside, to);
  }
  return stored().ragged() ? std::min(held.length, positions_) : positions_;
}

void NumberFiller::throw_not_finite(std::uint64_t index, const std::byte* bytes, std::int64_t element) const {
  const StoredType type = stored().type;
  const double value = stored_number(type, bytes + static_cast<std::size_t>(element) * size_of(type));
  throw DataError(fmt::format("{}: value {} is {}; {} must be finite", where(index), element, value,
                              options_.use == PortUse::input ? "samples" : "targets"));
}

// ---- index values --------------------------------------------------------------------------------------------------

IndexFiller::IndexFiller(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                         std::size_t port, const Augmenter* followed, const Masking* masking)
    : PortFiller(data, layout, ports, port),
      end_(options_.limit > 0 ? options_.limit : end_of(desc_.dtype)),
      padding_(options_.use == PortUse::target ? options_.ignore.value_or(0) : 0),
      masking_(masking) {
  const DataPort& held = stored();
  const std::string name = fmt::format("{}: {}", data.files()[0], held.key);
  if (!held.index) throw BugError(fmt::format("loader: {} was not opened as index values", held.name));
  if (end_ > end_of(desc_.dtype)) {
    throw BugError(fmt::format("loader: {} has {} values, more than its type holds", held.name, options_.limit));
  }
  if (options_.ignore && !holds(desc_.dtype, *options_.ignore)) {
    throw ConfigError(
        fmt::format("the target {}: ignore: {} is no {}, which the labels are; expected a number of that "
                    "type, such as {}",
                    held.name, *options_.ignore, name_of(desc_.dtype), end_of(desc_.dtype) - 1));
  }
  std::vector<std::int64_t> extents;
  if (held.ragged() && desc_.shape.rank() > 1) extents.push_back(desc_.shape[1]);
  extents.insert(extents.end(), held.row.extents().begin(), held.row.extents().end());
  const std::vector<std::int64_t> wanted = positions_of(desc_);
  if (without_ones(extents) != without_ones(wanted) || (held.ragged() && wanted.empty())) {
    one_hot_ = wanted.empty() && !held.ragged() && options_.use == PortUse::target && end_ > 1 &&
               without_ones(extents) == std::vector<std::int64_t>{end_};
    if (one_hot_ && held.mapped) {
      throw DataError(
          fmt::format("{}: its one-hot rows have classes in another order than the file that they are "
                      "compared with; store labels as one integer a sample, [{}]",
                      name, data.count()));
    }
    if (wanted.empty() && !one_hot_) {
      std::vector<std::int64_t> all{static_cast<std::int64_t>(data.count())};
      all.insert(all.end(), extents.begin(), extents.end());
      const bool labels = options_.use == PortUse::target;
      throw DataError(fmt::format("{} {} [{}]: {} must be one integer a sample, [{}]{}", name, name_of(held.type),
                                  fmt::join(all, ", "), labels ? "labels" : held.name, data.count(),
                                  labels ? fmt::format(", or one-hot rows of {} values", end_) : ""));
    }
    if (!one_hot_) {
      throw ShapeError(fmt::format("{} holds {} {}, but {} has [{}] a sample", name,
                                   held.ragged() ? "positions of shape" : "samples of shape", held.row.str(),
                                   model_name(held), fmt::join(wanted, ", ")));
    }
  }
  if (held.labels) data.check_labels(static_cast<std::size_t>(options_.source), end_, options_.ignore);
  if (held.ragged()) data.check_lengths(static_cast<std::size_t>(options_.source), desc_.shape[1]);
  if (held.text == TextPart::tokens && data.in_memory()) data.text()->check_tokens(end_);
  if (masking != nullptr && masking->vocabulary() > end_)
    throw ConfigError(
        fmt::format("data.text.objective: masked puts any token in place of some, and the tokenizer has {}, "
                    "but {} has a vocabulary of {}; expected {}",
                    masking->vocabulary(), model_name(held), end_, masking->vocabulary()));
  if (followed != nullptr) follower_.emplace(*followed, desc_.shape[1], desc_.shape[2], size_of(desc_.dtype));
}

void IndexFiller::reserve(FillScratch& scratch) const {
  PortFiller::reserve(scratch);
  const std::size_t wanted = follower_ ? bytes_ + size_of(desc_.dtype) : 0;
  if (scratch.value.size() < wanted) scratch.value.resize(wanted);
}

void IndexFiller::put(std::byte* to, std::int64_t first, std::int64_t count, std::int64_t value) const {
  with_index_type(desc_.dtype, [&](auto tag) {
    auto* const values = reinterpret_cast<decltype(tag)*>(to);
    std::fill_n(values + first, count, static_cast<decltype(tag)>(value));
  });
}

void IndexFiller::pad(std::byte* to) const {
  put(to, 0, positions_, padding_);
}

std::int64_t IndexFiller::fill(std::uint64_t index, std::uint64_t position, FillScratch& scratch, std::byte* to) const {
  if (stored().labels) {  // checked when the set was opened
    put(to, 0, 1, data_.label(static_cast<std::size_t>(options_.source), index));
    return 1;
  }
  const Dataset::Row held = row(index, scratch);
  if (one_hot_) {
    put(to, 0, 1, place_of_one(index, held.data));
    return 1;
  }
  const std::int64_t count = stored().ragged() ? held.length * per_step_ : positions_;
  std::byte* const out = follower_ ? scratch.value.data() : to;
  const bool sound = with_stored_type(stored().type, [&](auto stored_tag) {
    using From = decltype(stored_tag);
    return with_index_type(desc_.dtype, [&](auto tag) {
      using To = decltype(tag);
      auto* const values = reinterpret_cast<To*>(out);
      const auto end = static_cast<std::uint64_t>(end_);
      // Without `ignore` this is a value that is in range or refused anyway.
      const std::int64_t ignore = options_.ignore.value_or(0);
      bool good = true;
      for (std::int64_t i = 0; i < count; ++i) {
        From value;
        std::memcpy(&value, held.data + static_cast<std::size_t>(i) * sizeof value, sizeof value);
        const auto whole = whole_number(value);
        const std::int64_t wide = whole.value_or(0);
        good &= whole.has_value() && (static_cast<std::uint64_t>(wide) < end || wide == ignore);
        values[i] = static_cast<To>(wide);
      }
      return good;
    });
  });
  if (!sound) throw_range(index, held.data, count);
  put(out, count, positions_ - count, padding_);
  if (masking_ != nullptr) hide(index, position, out);
  if (follower_) {
    std::byte* const outside = scratch.value.data() + bytes_;
    put(outside, 0, 1, padding_);
    follower_->follow(position, scratch.value.data(), outside, to);
  }
  return count;
}

/// Tokens become what the model reads of them; labels of those that are not hidden are ignored.
void IndexFiller::hide(std::uint64_t index, std::uint64_t position, std::byte* sample) const {
  const std::uint64_t epoch = position / data_.count();
  const bool labels = stored().text == TextPart::labels;
  with_index_type(desc_.dtype, [&](auto tag) {
    using T = decltype(tag);
    auto* const values = reinterpret_cast<T*>(sample);
    masking_->apply(values, data_.held(index), index, epoch, [&](std::int64_t p, bool hidden, TokenId seen) {
      if (!labels)
        values[p] = static_cast<T>(seen);
      else if (!hidden)
        values[p] = static_cast<T>(padding_);
    });
  });
}

std::int64_t IndexFiller::place_of_one(std::uint64_t index, const std::byte* bytes) const {
  return with_stored_type(stored().type, [&](auto value) {
    std::int64_t ones = 0, others = 0, place = 0;
    for (std::int64_t i = 0; i < end_; ++i) {
      std::memcpy(&value, bytes + static_cast<std::size_t>(i) * sizeof value, sizeof value);
      const auto whole = whole_number(value);
      if (whole == 1) place = i;
      ones += whole == 1;
      others += whole != 0 && whole != 1;
    }
    if (ones == 1 && others == 0) return place;
    throw DataError(
        fmt::format("{}: this is no one-hot row: {} of its {} values are 1, {} are neither 0 nor 1; labels are one "
                    "integer a sample, or rows with one 1 and zeros",
                    where(index), ones, end_, others));
  });
}

void IndexFiller::throw_range(std::uint64_t index, const std::byte* bytes, std::int64_t count) const {
  const StoredType type = stored().type;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::byte* const value = bytes + static_cast<std::size_t>(i) * size_of(type);
    const auto whole = stored_whole(type, value);
    if (whole && ((*whole >= 0 && *whole < end_) || whole == options_.ignore)) continue;
    const std::string at = positions_ > 1 ? ", " + position_text(i) : std::string();
    std::string range;
    if (!whole) {
      range = fmt::format("; expected whole numbers from 0 to {}", end_ - 1);
    } else if (options_.limit == 0) {
      range = fmt::format("; expected 0 to {}", end_ - 1);
    } else if (options_.use == PortUse::target) {
      range = fmt::format(", but the model has {} classes (0 to {})", end_, end_ - 1);
    } else {
      range = fmt::format(", but the vocabulary has {} (0 to {})", end_, end_ - 1);
    }
    if (options_.ignore) range += fmt::format(", or {}, which is ignored", *options_.ignore);
    const std::string place = stored().text == TextPart::none
                                  ? where(index) + at
                                  : data_.token_place(static_cast<std::size_t>(options_.source), index, i);
    throw DataError(fmt::format("{}: the value is {}{}", place, stored_text(type, value), range));
  }
  throw BugError("loader: an index value out of range that is none");
}

// ---- weights -------------------------------------------------------------------------------------------------------

namespace {

/// Smaller ones have too few digits in the sums of weights, whose unit is 2^-32.
constexpr double least_weight = 0x1p-20;
constexpr const char* least_weight_text =
    "weights that are not 0 must be at least 2^-20; multiply them all by a number: only their ratios matter";

/// Neither is a number that is none.
bool sound_weight(double value) {
  return value == 0 || (value >= least_weight && value <= static_cast<double>(std::numeric_limits<float>::max()));
}

}  // namespace

WeightFiller::WeightFiller(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                           std::size_t port, const PortFiller* target, const Augmenter* followed)
    : PortFiller(data, layout, ports, port), target_(target), labels_(dynamic_cast<const IndexFiller*>(target)) {
  if (desc_.dtype != DType::f32) throw BugError("loader: weights that are no float32");
  if (target != nullptr) {
    by_position_ = target->positions() == positions_;
    ignore_ = ports[static_cast<std::size_t>(options_.target)].ignore;
    if (!by_position_ && positions_ != 1) throw BugError("loader: weights that do not fit their target");
  }
  if (!options_.class_weights.empty() && (labels_ == nullptr || !by_position_))
    throw BugError("loader: class weights without labels of the weights' positions");
  // Labels are checked against their limit before they choose a weight.
  if (!options_.class_weights.empty()) {
    const std::int64_t classes = ports[static_cast<std::size_t>(options_.target)].limit;
    if (static_cast<std::int64_t>(options_.class_weights.size()) != classes) {
      throw ConfigError(fmt::format("class_weights: {} numbers; expected one for each of {} classes",
                                    options_.class_weights.size(), classes));
    }
  }
  for (const double w : options_.class_weights) {
    if (!(w >= 0) || !std::isfinite(static_cast<float>(w)))
      throw ConfigError(fmt::format("class_weights: {}; expected finite numbers of at least 0", w));
    if (w > 0 && w < least_weight) throw ConfigError(fmt::format("class_weights: {}; {}", w, least_weight_text));
  }
  if (options_.source < 0) return;
  const DataPort& held = stored();
  const std::string name = fmt::format("{}: {}", data.files()[0], held.key);
  std::vector<std::int64_t> extents;
  if (held.ragged() && desc_.shape.rank() > 1) extents.push_back(desc_.shape[1]);
  extents.insert(extents.end(), held.row.extents().begin(), held.row.extents().end());
  const bool one = !held.ragged() && held.row.elements() == 1;
  if (!one && without_ones(extents) != without_ones(desc_.shape.extents().subspan(1))) {
    const auto wanted = desc_.shape.extents().subspan(1);
    throw ShapeError(fmt::format("{} holds weights of shape {}, but {} has {} a sample", name, held.row.str(),
                                 model_name(held),
                                 wanted.empty() ? "one number" : fmt::format("[{}]", fmt::join(wanted, ", "))));
  }
  if (held.ragged()) data.check_lengths(static_cast<std::size_t>(options_.source), desc_.shape[1]);
  if (held.ragged() && by_position_) {
    const auto of_target = static_cast<std::size_t>(ports[static_cast<std::size_t>(options_.target)].source);
    if (data.port(of_target).ragged()) data.check_same_lengths(static_cast<std::size_t>(options_.source), of_target);
  }
  if (followed != nullptr && !one) follower_.emplace(*followed, desc_.shape[1], desc_.shape[2], sizeof(float));
}

void WeightFiller::reserve(FillScratch& scratch) const {
  PortFiller::reserve(scratch);
  const std::size_t wanted = follower_ ? bytes_ : 0;
  if (scratch.value.size() < wanted) scratch.value.resize(wanted);
}

void WeightFiller::read_weights(std::uint64_t index, FillScratch& scratch, float* to) const {
  const Dataset::Row held = row(index, scratch);
  const StoredType type = stored().type;
  const std::int64_t count = stored().ragged()              ? held.length * per_step_
                             : stored().row.elements() == 1 ? 1
                                                            : positions_;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = stored_number(type, held.data + static_cast<std::size_t>(i) * size_of(type));
    to[i] = static_cast<float>(value);
    if (!sound_weight(value)) throw_weight(index, count > 1 ? i : -1, value);
  }
  const bool one = count == 1 && !stored().ragged();
  std::fill(to + count, to + positions_, one ? to[0] : 0.0f);
}

void WeightFiller::throw_weight(std::uint64_t index, std::int64_t position, double value) const {
  const std::string at = position >= 0 ? ", " + position_text(position) : std::string();
  const bool small = value > 0 && value < least_weight;
  throw DataError(fmt::format("{}{}: the weight is {}; {}", where(index), at, value,
                              small ? least_weight_text : "weights must be finite and at least 0"));
}

std::int64_t WeightFiller::fill(std::uint64_t index, std::uint64_t position, FillScratch& scratch,
                                std::byte* to) const {
  auto* const out = reinterpret_cast<float*>(to);
  if (options_.source < 0) {
    std::fill_n(out, positions_, 1.0f);
  } else if (!follower_) {
    read_weights(index, scratch, out);
  } else {
    constexpr float outside = 0;
    read_weights(index, scratch, reinterpret_cast<float*>(scratch.value.data()));
    follower_->follow(position, scratch.value.data(), reinterpret_cast<const std::byte*>(&outside), to);
  }
  return positions_;
}

void WeightFiller::apply_target(std::uint64_t index, const std::byte* target, std::int64_t held, std::byte* to) const {
  if (!by_position_) return;
  auto* const out = reinterpret_cast<float*>(to);
  std::fill(out + held, out + positions_, 0.0f);
  if (labels_ == nullptr || (!ignore_ && options_.class_weights.empty())) return;
  const std::span<const double> classes = options_.class_weights;
  labels_->visit(target, [&](const auto* labels) {
    for (std::int64_t i = 0; i < held; ++i) {
      const auto label = static_cast<std::int64_t>(labels[i]);
      if (label == ignore_) {
        out[i] = 0;
      } else if (!classes.empty()) {
        const double weight = static_cast<double>(out[i]) * classes[static_cast<std::size_t>(label)];
        if (!sound_weight(weight)) throw_weight(index, i, weight);
        out[i] = static_cast<float>(weight);
      }
    }
  });
}

}  // namespace dtrain::io
