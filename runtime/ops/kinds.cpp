#include "runtime/ops/kinds.hpp"

#include <utility>

#include <fmt/format.h>

namespace dtrain {

namespace {

/// 3 is [3, 3].
class ExtentsType final : public Type<Extents> {
 public:
  ExtentsType(std::int64_t least, std::size_t dimensions) : item_(at_least(least)), dimensions_(dimensions) {}
  void read(const Document& d, Extents& into, Reader& r) const override {
    if (d.is_scalar()) {
      std::int64_t value = into.size() > 0 ? into[0] : 0;
      item_->read(d, value, r);
      into = Extents::all(dimensions_, value);
    } else if (d.kind == Document::Kind::list && d.items.size() == dimensions_) {
      into = Extents::all(dimensions_, 0);
      for (std::size_t i = 0; i < dimensions_; ++i) item_->read(d.items[i], into[i], r);
    } else {
      r.unexpected(d, expected());
    }
  }
  Document write(const Extents& value) const override {
    if (value == Extents::all(value.size(), value[0])) return item_->write(value[0]);
    Document list = Document::list();
    for (const std::int64_t extent : value) list.items.push_back(item_->write(extent));
    return list;
  }
  Document schema() const override {
    const auto count = static_cast<std::int64_t>(dimensions_);
    Document list = fields::schema_of("array");
    list.set("items", item_->schema())
        .set("minItems", Document::integer(count))
        .set("maxItems", Document::integer(count));
    return Document::map().set("anyOf", Document::list({item_->schema(), list}));
  }
  std::string expected() const override {
    constexpr std::string_view several[] = {"", "a list [length] of one", "a pair [height, width] of them",
                                            "a list [depth, height, width] of them"};
    return fmt::format("{}, or {}", item_->expected(), several[dimensions_]);
  }

 private:
  TypePtr<std::int64_t> item_;
  std::size_t dimensions_;
};

}  // namespace

TypePtr<std::int64_t> at_least(std::int64_t least) {
  return integer({least, std::int64_t{1} << 31});
}

TypePtr<Activation> activation_type() {
  std::vector<std::pair<std::string, Activation>> values;
  for (const Activation a : {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh,
                             Activation::silu, Activation::tanh, Activation::sigmoid, Activation::hard_swish})
    values.emplace_back(name_of(a), a);
  return choice<Activation>(values);
}

TypePtr<double> fraction() {
  return number({0, 1, false, true});
}

TypePtr<Extents> extents_of(std::int64_t least, std::size_t dimensions) {
  return std::make_shared<ExtentsType>(least, dimensions);
}

}  // namespace dtrain
