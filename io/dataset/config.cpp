#include "io/dataset/config.hpp"

#include <array>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "io/dataset/tables.hpp"

namespace dtrain::io {

namespace {

TypePtr<Normalize> normalize_table() {
  Table<Normalize> table("A stored value v becomes (v * scale - mean) / standard_deviation.");
  table.add("scale", &Normalize::scale, number(), "0.00392156862745098 takes 0..255 to 0..1");
  table.add("mean", &Normalize::mean, one_or_list_of(number(), "numbers"),
            "subtracted after scaling: one number, or one for each channel");
  table
      .add("standard_deviation", &Normalize::standard_deviation,
           one_or_list_of(number({.least = 0, .above_least = true}), "numbers"),
           "the result is divided by it: one number, or one for each channel")
      .old_spelling("deviation");
  return shared(std::move(table));
}

/// [least, most].
class IntervalType final : public Type<std::array<double, 2>> {
 public:
  explicit IntervalType(NumberRange range) : number_(number(range)) {}
  void read(const Document& d, std::array<double, 2>& into, Reader& r) const override {
    if (d.kind != Document::Kind::list || d.items.size() != 2) return r.unexpected(d, expected());
    std::array<double, 2> read = into;
    for (std::size_t i = 0; i < 2; ++i) number_->read(d.items[i], read[i], r);
    if (read[0] > read[1]) return r.unexpected(d, expected());
    into = read;
  }
  Document write(const std::array<double, 2>& value) const override {
    return Document::list({number_->write(value[0]), number_->write(value[1])});
  }
  Document schema() const override {
    return fields::schema_of("array")
        .set("items", number_->schema())
        .set("minItems", Document::integer(2))
        .set("maxItems", Document::integer(2));
  }
  std::string expected() const override { return "an interval [least, most], each " + number_->expected(); }

 private:
  TypePtr<double> number_;
};

TypePtr<std::array<double, 2>> interval(NumberRange range) {
  return std::make_shared<IntervalType>(range);
}

const std::array<std::string, std::variant_size_v<Augmentation>> augmentation_names{
    "random_crop", "random_resized_crop", "flip", "rotation", "scaling", "color_jitter"};

/// Reaches a member of one kind of augmentation.
template <class Kind, class Member>
auto of(Member Kind::*member) {
  return [member](auto& augmentation) -> auto& {
    return std::get<Kind>(augmentation).*member;
  };
}

template <class Kind>
void add_kind(OneOf<Augmentation>& kinds, const Table<Augmentation>& table) {
  kinds.add(name_of(table.defaults()), table, [](const Augmentation& a) { return std::holds_alternative<Kind>(a); });
}

TypePtr<Augmentation> augmentation() {
  OneOf<Augmentation> kinds("an augmentation");
  Table<Augmentation> crop("A window of the input's size somewhere in the padded image.", RandomCrop{});
  crop.add("padding", of(&RandomCrop::padding), integer({0, 1 << 16}), "pixels of 0 on each side");
  add_kind<RandomCrop>(kinds, crop);

  Table<Augmentation> resized("A window of random area and shape, scaled to the input's size (bilinear).",
                              RandomResizedCrop{});
  resized.add("scale", of(&RandomResizedCrop::scale), interval({0, 1, true, false}),
              "area of the window, as a fraction of the image's");
  resized.add("ratio", of(&RandomResizedCrop::ratio), interval({0.01, 100}), "width over height, drawn by logarithm");
  add_kind<RandomResizedCrop>(kinds, resized);

  Table<Augmentation> flip("Mirrors the image: left and right, or up and down.", Flip{});
  flip.add("horizontal", of(&Flip::horizontal), number({0, 1}), "probability to mirror left and right");
  flip.add("vertical", of(&Flip::vertical), number({0, 1}), "probability to mirror up and down");
  add_kind<Flip>(kinds, flip);

  Table<Augmentation> rotation("Turns the image about its centre; pixels from outside are 0.", Rotation{});
  rotation.add("degrees", of(&Rotation::degrees), number({0, 180}), "largest angle, in either direction");
  add_kind<Rotation>(kinds, rotation);

  Table<Augmentation> scaling("Enlarges or shrinks the image about its centre; pixels from outside are 0.", Scaling{});
  scaling.add("factor", of(&Scaling::factor), interval({0.01, 100}),
              "the image grows by this factor; below 1 it shrinks");
  add_kind<Scaling>(kinds, scaling);

  Table<Augmentation> color("Changes brightness, contrast, saturation and hue, in this order, after all other changes.",
                            ColorJitter{});
  color.add("brightness", of(&ColorJitter::brightness), number({.least = 0}),
            "the factor is drawn from 1 - this to 1 + this");
  color.add("contrast", of(&ColorJitter::contrast), number({.least = 0}), "the same for contrast, about the mean gray");
  color.add("saturation", of(&ColorJitter::saturation), number({.least = 0}),
            "the same for saturation, about each pixel's gray");
  color.add("hue", of(&ColorJitter::hue), number({0, 0.5}),
            "largest change, as a fraction of the circle of hues, in either direction");
  add_kind<ColorJitter>(kinds, color);
  return shared(std::move(kinds));
}

/// Each kind at most once: its draws are keyed by its name.
class AugmentType final : public Type<std::vector<Augmentation>> {
 public:
  AugmentType() : list_(list_of(augmentation(), "augmentations")) {}
  void read(const Document& d, std::vector<Augmentation>& into, Reader& r) const override {
    list_->read(d, into, r);
    if (d.kind != Document::Kind::list || into.size() != d.items.size()) return;
    std::set<std::size_t> seen;
    for (std::size_t i = 0; i < into.size(); ++i) {
      if (!seen.insert(into[i].index()).second) {
        r.problem(d.items[i].place, name_of(into[i]) + " stands here twice; expected each kind once");
      }
    }
  }
  Document write(const std::vector<Augmentation>& value) const override { return list_->write(value); }
  Document schema() const override { return list_->schema(); }
  std::string expected() const override { return list_->expected(); }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    list_->reference(to, path);
  }

 private:
  TypePtr<std::vector<Augmentation>> list_;
};

}  // namespace

std::string name_of(const Augmentation& augmentation) {
  return augmentation_names[augmentation.index()];
}

TypePtr<DataConfig> data_table() {
  static const TypePtr<DataConfig> table = [] {
    Table<DataConfig> data("Where samples come from and how they are prepared.");
    data.add("train", &DataConfig::train, one_or_list_of(text(), "files", 1),
             "HDF5 files or globs; several are shards, in this order")
        .required();
    data.add("eval", &DataConfig::eval, one_or_list_of(text(), "files"),
             "HDF5 files or globs to evaluate on; [] for none");
    data.add("sample_key", &DataConfig::sample_key, text_or_empty(),
             "HDF5 path of the samples; empty: the usual names are tried");
    data.add("target_key", &DataConfig::target_key, text_or_empty(),
             "HDF5 path of labels or targets; empty: the usual names are tried");
    data.add("shuffle", &DataConfig::shuffle, boolean(), "a new order in every epoch, drawn from the seed");
    data.add("normalize", &DataConfig::normalize, normalize_table(),
             "how stored values become the numbers that the model reads");
    data.add("augment", &DataConfig::augment, TypePtr<std::vector<Augmentation>>(std::make_shared<AugmentType>()),
             "random changes of training images, in this order");
    data.add("prefetch_threads", &DataConfig::prefetch_threads, integer<int>({1, 256}),
             "threads of each rank that read ahead");
    data.add("prefetch_batches", &DataConfig::prefetch_batches, integer<int>({2, 1024}),
             "micro batches that are read ahead");
    data.add(
        "open_files", &DataConfig::open_files, word_or("auto", 0, integer({1, 1 << 20})),
        "how many files of a data set a rank has open at a time; auto: a quarter of the descriptors that it may have");
    data.add("device_cache_mib", &DataConfig::device_cache_mib, number({.least = 0}),
             "a data set of bytes that is not larger is kept whole in each GPU's memory; 0: never");
    data.add("cache_mib", &DataConfig::cache_mib, number({.least = 0}),
             "a data set that is not larger is kept in memory on each rank; 0: never");
    return shared(std::move(data));
  }();
  return table;
}

}  // namespace dtrain::io
