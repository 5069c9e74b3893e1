#include "models/model/ports.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::models {

namespace {

class PortList {
 public:
  PortList(const StoredPorts& stored, const std::vector<ModelLoss>& losses) : stored_(stored) {
    for (const ModelLoss& loss : losses)
      if (loss.weight == without_weights_) without_weights_ = "weight of samples";
  }

  int find(const std::string& name, PortUse use) const {
    for (std::size_t i = 0; i < ports_.all.size(); ++i)
      if (ports_.all[i].name == name && ports_.all[i].use == use) return static_cast<int>(i);
    return -1;
  }
  int add(Port port) {
    ports_.all.push_back(std::move(port));
    return static_cast<int>(ports_.all.size()) - 1;
  }

  void add_target(const ModelLoss& loss) {
    PortLoss of_port{loss, find(loss.target, PortUse::target), -1, false};
    const bool labels = loss.kind == Loss::cross_entropy;
    if (of_port.target < 0) {
      of_port.target = add({loss.target, PortUse::target, loss.target, labels, loss.ignore});
    } else {
      const Port& port = ports_.all[static_cast<std::size_t>(of_port.target)];
      if (port.indices != labels || port.ignore != loss.ignore)
        throw ShapeError(
            fmt::format("loss {}: another loss reads the target {} in another way; expected the same kind "
                        "of loss and the same `ignore`, or a target of its own",
                        loss.name, loss.target));
    }
    ports_.losses.push_back(std::move(of_port));
  }

  /// Losses whose weights come to the same share a port. Weights of positions lie where those of a target lie.
  void add_weight(PortLoss& of_port) {
    const ModelLoss& loss = of_port.loss;
    const bool padded = stored_.by_position.contains({PortUse::target, loss.target});
    const bool by_label = padded || stored_.mixed || !loss.class_weights.empty();
    const bool by_position = by_label || stored_.by_position.contains({PortUse::weight, loss.weight});
    of_port.counted = by_label || loss.ignore || !loss.weight.empty();
    const int target = by_position ? of_port.target : -1;
    for (std::size_t i = 0; i < ports_.all.size() && !by_label; ++i) {
      const Port& port = ports_.all[i];
      if (port.use == PortUse::weight && port.data == loss.weight && port.target == target &&
          port.class_weights.empty())
        of_port.weight = static_cast<int>(i);
    }
    if (of_port.weight >= 0) return;
    std::string name = loss.weight.empty() ? without_weights_ : loss.weight;
    if (by_label || find(name, PortUse::weight) >= 0) name = loss.name + ".weight";
    of_port.weight =
        add({std::move(name), PortUse::weight, loss.weight, false, {}, target, loss.class_weights, by_position});
  }

  Ports take() {
    for (PortLoss& loss : ports_.losses) add_weight(loss);
    return std::move(ports_);
  }

 private:
  const StoredPorts& stored_;
  std::string without_weights_ = "weight";  // the port of losses without weights of their own
  Ports ports_;
};

}  // namespace

Ports ports_of(const ModelConfig& model, const StoredPorts& stored) {
  const std::vector<ModelLoss> losses = losses_of(model);
  PortList list(stored, losses);
  for (const ModelInput& input : inputs_of(model)) list.add({input.name, PortUse::input, input.name, input.indices()});
  for (const ModelLoss& loss : losses) list.add_target(loss);
  return list.take();
}

}  // namespace dtrain::models
