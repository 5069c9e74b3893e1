#include "models/layers/layer_fields.hpp"

#include <cstddef>
#include <utility>
#include <variant>

#include "runtime/ops/kinds.hpp"

namespace dtrain::models {

namespace {

/// A layer that remembers where it stands.
class PlacedLayer final : public Type<Layer> {
 public:
  explicit PlacedLayer(TypePtr<Layer> kinds) : kinds_(std::move(kinds)) {}
  void read(const Document& d, Layer& into, Reader& r) const override {
    kinds_->read(d, into, r);
    into.line = d.place.line;
  }
  Document write(const Layer& layer) const override { return kinds_->write(layer); }
  Document schema() const override { return kinds_->schema(); }
  std::string expected() const override { return kinds_->expected(); }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    kinds_->reference(to, path);
  }

 private:
  TypePtr<Layer> kinds_;
};

/// The kinds of an op, where users may write it.
template <class Op>
void add_kinds(OneOf<Layer>& layers) {
  if constexpr (requires { Op::kinds(); }) {
    for (const OpKind<Op>& kind : Op::kinds()) {
      Table<Layer> table = kind.table.within(
          Layer{{}, kind.table.defaults()}, [](auto& layer) -> auto& { return std::get<Op>(layer.op); });
      table.add("name", &Layer::name, text_or_empty(), "a name of its own; by default the kind with a number")
          .shown_if([](const Layer& layer) { return !layer.name.empty(); });
      table
          .add("from", &Layer::from, one_or_list_of(text(), "names of layers", 1),
               "what it reads: layers before it by name, or input; by default the layer before")
          .shown_if([](const Layer& layer) { return !layer.from.empty(); });
      if constexpr (requires { Op::may_tie; }) {
        table.add("tie", &Layer::tie, text(), "an earlier layer: both use one weight, so that their shapes are equal")
            .shown_if([](const Layer& layer) { return !layer.tie.empty(); });
      }
      layers.add(kind.name, std::move(table), [is = kind.is](const Layer& layer) {
        const Op* op = std::get_if<Op>(&layer.op);
        return op != nullptr && (!is || is(*op));
      });
    }
  }
}

template <std::size_t... i>
void add_all_kinds(OneOf<Layer>& layers, std::index_sequence<i...>) {
  (add_kinds<std::variant_alternative_t<i, OpSpec>>(layers), ...);
}

}  // namespace

TypePtr<Layer> layer_type() {
  OneOf<Layer> layers("a layer");
  add_all_kinds(layers, std::make_index_sequence<std::variant_size_v<OpSpec>>());
  return std::make_shared<PlacedLayer>(shared(std::move(layers)));
}

}  // namespace dtrain::models
