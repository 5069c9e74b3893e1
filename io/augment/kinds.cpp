#include "io/augment/kinds.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "io/augment/tables.hpp"

namespace dtrain::io {

namespace {

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
    "random_crop", "random_resized_crop", "flip",           "rotation",
    "scaling",     "color_jitter",        "random_erasing", "rand_augment"};

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

  Table<Augmentation> color("Changes brightness, contrast, saturation and hue, after all changes of place.",
                            ColorJitter{});
  color.add("brightness", of(&ColorJitter::brightness), number({.least = 0}),
            "the factor is drawn from 1 - this to 1 + this");
  color.add("contrast", of(&ColorJitter::contrast), number({.least = 0}), "the same for contrast, about the mean gray");
  color.add("saturation", of(&ColorJitter::saturation), number({.least = 0}),
            "the same for saturation, about each pixel's gray");
  color.add("hue", of(&ColorJitter::hue), number({0, 0.5}),
            "largest change, as a fraction of the circle of hues, in either direction");
  color
      .add("random_order", of(&ColorJitter::random_order), boolean(),
           "the four in an order that is drawn for each image, as torchvision does; false: in this order")
      .shown_if([](const Augmentation& a) { return std::get<ColorJitter>(a).random_order; });
  add_kind<ColorJitter>(kinds, color);

  Table<Augmentation> erasing("Replaces a rectangle of the normalized image, at the end.", RandomErasing{});
  erasing.add("probability", of(&RandomErasing::probability), number({0, 1}), "that an image loses a rectangle");
  erasing.add("scale", of(&RandomErasing::scale), interval({0, 1, true, false}),
              "area of the rectangle, as a fraction of the image's");
  erasing.add("ratio", of(&RandomErasing::ratio), interval({0.01, 100}), "height over width, drawn by logarithm");
  erasing.add("value", of(&RandomErasing::value), word_or("random", RandomErasing::random, number()),
              "what the rectangle holds, as a normalized value; random: a draw of the standard normal distribution "
              "for each value");
  add_kind<RandomErasing>(kinds, erasing);

  Table<Augmentation> rand("Some operations of torchvision's RandAugment, one after the other, on the image as bytes.",
                           RandAugment{});
  rand.add("operations", of(&RandAugment::operations), integer({1, 14}), "how many, each drawn out of 14");
  rand.add("magnitude", of(&RandAugment::magnitude), integer({0, 30}), "their strength, from 0 to 30");
  add_kind<RandAugment>(kinds, rand);
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

const TypePtr<std::vector<Augmentation>>& augmentations() {
  static const TypePtr<std::vector<Augmentation>> type = std::make_shared<AugmentType>();
  return type;
}

TypePtr<Mix> mix_table() {
  Table<Mix> table(
      "Mixes each training sample with the one before it in the step's samples, and the loss counts both labels: "
      "part * loss(label) + (1 - part) * loss(other label). The part is drawn for each sample.");
  table.add("mixup", &Mix::mixup, number({0, 1000}),
            "samples become weighted means; this is alpha of the beta distribution that their parts are drawn from, "
            "often 0.2; 0: not used");
  table.add("cutmix", &Mix::cutmix, number({0, 1000}),
            "a rectangle of the image is the other one's; this is alpha of the beta distribution that areas are drawn "
            "from, often 1; 0: not used");
  table.add("probability", &Mix::probability, number({0, 1}), "that a sample is mixed");
  table.add("cutmix_probability", &Mix::cutmix_probability, number({0, 1}),
            "where both are used: that a mixed sample takes cutmix, and not mixup");
  return shared(std::move(table));
}

std::string name_of(const Augmentation& augmentation) {
  return augmentation_names[augmentation.index()];
}

bool moves(const std::vector<Augmentation>& augment) {
  return std::any_of(augment.begin(), augment.end(), [](const Augmentation& a) {
    return !std::holds_alternative<ColorJitter>(a) && !std::holds_alternative<RandomErasing>(a);
  });
}

bool on_host(const std::vector<Augmentation>& augment) {
  return std::any_of(augment.begin(), augment.end(), [](const Augmentation& a) {
    const auto* color = std::get_if<ColorJitter>(&a);
    return std::holds_alternative<RandomErasing>(a) || std::holds_alternative<RandAugment>(a) ||
           (color != nullptr && color->random_order);
  });
}

bool cannot_be_followed(const std::vector<Augmentation>& augment) {
  return std::any_of(augment.begin(), augment.end(),
                     [](const Augmentation& a) { return std::holds_alternative<RandAugment>(a); });
}

}  // namespace dtrain::io
