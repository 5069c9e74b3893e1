#include "models/model/ports.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::models {

namespace {

constexpr const char* sample_weight = "weight";  // the port of losses without weights of their own

class PortList {
 public:
  explicit PortList(const StoredPorts& stored) : stored_(stored) {}

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

  /// Losses whose weights come to the same share a port.
  void add_weight(PortLoss& of_port) {
    const ModelLoss& loss = of_port.loss;
    const bool padded = stored_.by_position.contains(loss.target);
    const bool by_label = padded || !loss.class_weights.empty();
    of_port.counted = by_label || loss.ignore || !loss.weight.empty();
    const std::string name = by_label ? loss.name + ".weight" : loss.weight.empty() ? sample_weight : loss.weight;
    of_port.weight = by_label ? -1 : find(name, PortUse::weight);
    if (of_port.weight >= 0) return;
    of_port.weight = add({name,
                          PortUse::weight,
                          loss.weight,
                          false,
                          {},
                          by_label ? of_port.target : -1,
                          loss.class_weights,
                          by_label || stored_.by_position.contains(loss.weight)});
  }

  Ports take() {
    for (PortLoss& loss : ports_.losses) add_weight(loss);
    return std::move(ports_);
  }

 private:
  const StoredPorts& stored_;
  Ports ports_;
};

}  // namespace

Ports ports_of(const ModelConfig& model, const StoredPorts& stored) {
  PortList list(stored);
  for (const ModelInput& input : inputs_of(model)) list.add({input.name, PortUse::input, input.name, input.indices()});
  for (const ModelLoss& loss : losses_of(model)) list.add_target(loss);
  return list.take();
}

}  // namespace dtrain::models
