#include "runtime/optim/optimizer_fields.hpp"

#include <string>
#include <utility>
#include <variant>

namespace dtrain {

namespace {

/// Reaches a member of one kind of rule through the UpdateRule.
template <class Kind, class Member>
auto of(Member Kind::*member) {
  return [member](auto& rule) -> auto& {
    return std::get<Kind>(rule.kind).*member;
  };
}

template <class Kind>
void add(OneOf<UpdateRule>& rules, const std::string& name, const Table<UpdateRule>& table) {
  rules.add(name, table, [](const UpdateRule& rule) { return std::holds_alternative<Kind>(rule.kind); });
}

template <class Kind>
Table<Kind> moments(const std::string& help, const std::string& decay) {
  Table<Kind> table(help);
  table.add("learning_rate", &Kind::learning_rate, number({.least = 0}), "learning rate, before the schedule's factor");
  table.add("beta1", &Kind::beta1, number({0, 1, false, true}), "decay of the first moment");
  table.add("beta2", &Kind::beta2, number({0, 1, false, true}), "decay of the second moment");
  table.add("epsilon", &Kind::epsilon, number({0, 1, true}), "added to the root of the second moment");
  table.add("weight_decay", &Kind::weight_decay, number({.least = 0}), decay);
  return table;
}
template <class Kind>
void add_moments(OneOf<UpdateRule>& rules, const std::string& name, const std::string& help, const std::string& decay) {
  add<Kind>(rules, name,
            moments<Kind>(help, decay)
                .within(
                    UpdateRule{Kind{}}, [](auto& rule) -> auto& { return std::get<Kind>(rule.kind); }));
}

Table<UpdateRule> muon_table() {
  Table<UpdateRule> muon(
      "Muon (Jordan et al. 2024), as in PyTorch: the hidden matrices of a model (weights of dense layers and "
      "convolutions that another layer with weights follows; queries, keys, values and the halves of gated layers each "
      "by themselves) step along an orthogonal matrix near their momentum; all else (embeddings, the output layer, "
      "positions, norms, biases) goes by AdamW.",
      UpdateRule{Muon{}});
  muon.add("learning_rate", of(&Muon::learning_rate), number({.least = 0, .above_least = true}),
           "learning rate of the matrices, before the schedule's factor");
  muon.add("momentum", of(&Muon::momentum), number({0, 1, false, true}), "fraction of the last direction that is kept");
  muon.add("nesterov", of(&Muon::nesterov), boolean(), "use Nesterov's momentum");
  muon.add("weight_decay", of(&Muon::weight_decay), number({.least = 0}), "decoupled weight decay of the matrices");
  muon.add(
      "scale", of(&Muon::scale),
      choice<Muon::Scale>({{"match_rms_adamw", Muon::Scale::match_rms_adamw}, {"original", Muon::Scale::original}}),
      "the step of a matrix is multiplied by it; match_rms_adamw: 0.2 sqrt(max(rows, columns)), for learning rates "
      "such as AdamW's; original: sqrt(max(1, rows / columns)), for rates such as 0.02");
  muon.add(
      "products", of(&Muon::products),
      choice<Muon::Products>({{"float32", Muon::Products::float32}, {"bfloat16", Muon::Products::bfloat16}}),
      "the type of the matrices that the 5 Newton-Schulz steps multiply; bfloat16 is for GPUs: a cpu rounds to it, "
      "but multiplies in float32");
  muon.add("epsilon", of(&Muon::epsilon), number({0, 1, true}), "the least norm that a direction is divided by");
  muon.add("adamw", of(&Muon::adamw),
           shared(moments<AdamW>("What Muon does not make orthogonal.",
                                 "decoupled weight decay; biases and norms have none")),
           "the optimizer of all other parameters");
  return muon;
}

TypePtr<ParameterGroup> group_table() {
  Table<ParameterGroup> group(
      "Parameters with settings of their own, by name. Where several groups match a parameter, the last one decides, "
      "with all that it says; a setting that it does not have is the optimizer's.");
  group
      .add("match", &ParameterGroup::match, text(),
           "a pattern over the names of parameters, such as `layer4_*` or `*.bias`: `*` is any text, `?` any character")
      .required();
  group.add("learning_rate_factor", &ParameterGroup::learning_rate_factor, number({.least = 0}),
            "the rate of the schedule is multiplied with it");
  group
      .add<double>(
          "weight_decay", [](const ParameterGroup& g) { return g.weight_decay.value_or(0); },
          [](ParameterGroup& g, double value) { g.weight_decay = value; }, number({.least = 0}),
          "in place of the optimizer's; biases and norms are still spared")
      .shown_if([](const ParameterGroup& g) { return g.weight_decay.has_value(); });
  group
      .add("orthogonalize", &ParameterGroup::orthogonalize, boolean(),
           "false: muon updates the parameters by AdamW, although they are hidden matrices")
      .shown_if([](const ParameterGroup& g) { return !g.orthogonalize; });
  group.add("frozen", &ParameterGroup::frozen, boolean(),
            "true: the parameters keep their values, with no gradient and no state of the optimizer; batch norms go on "
            "updating their running statistics, unless `statistics` is frozen");
  group
      .add("statistics", &ParameterGroup::frozen_statistics, choice<bool>({{"updated", false}, {"frozen", true}}),
           "frozen: batch norms whose weight matches use their running statistics in training, too, and leave them as "
           "they are, as PyTorch's after eval()")
      .shown_if([](const ParameterGroup& g) { return g.frozen_statistics; });
  return shared(std::move(group));
}

}  // namespace

TypePtr<UpdateRule> optimizer_table() {
  static const TypePtr<UpdateRule> table = [] {
    OneOf<UpdateRule> rules("an optimizer");
    Table<UpdateRule> beside("How parameters are updated: one of the kinds below, and beside its name:");
    beside
        .add(
            "shard", &UpdateRule::shard, boolean(),
            "each of N ranks keeps and updates 1/N of the optimizer's state (ZeRO-1); uses fixed_order's sums; with "
            "lars, lamb and muon a rank has whole parameters: parts are of unequal size, and more bytes travel (dtrain "
            "check says how many)")
        .shown_if([](const UpdateRule& rule) { return rule.shard; })
        .may_change();
    beside
        .add("groups", &UpdateRule::groups, list_of(group_table(), "groups"),
             "parameters, by name, with a rate or a decay of their own, or frozen")
        .shown_if([](const UpdateRule& rule) { return !rule.groups.empty(); })
        .may_change();  // state of what is trained anew begins at zero
    rules.beside(std::move(beside));
    Table<UpdateRule> sgd("Stochastic gradient descent, as in PyTorch.", UpdateRule{Sgd{}});
    sgd.add("learning_rate", of(&Sgd::learning_rate), number({.least = 0}),
            "learning rate, before the schedule's factor");
    sgd.add("momentum", of(&Sgd::momentum), number({0, 1, false, true}), "fraction of the last direction that is kept");
    sgd.add("weight_decay", of(&Sgd::weight_decay), number({.least = 0}), "L2 penalty; biases have none");
    sgd.add("nesterov", of(&Sgd::nesterov), boolean(), "use Nesterov's momentum");
    add<Sgd>(rules, "sgd", sgd);
    add_moments<Adam>(rules, "adam", "Adam (Kingma & Ba 2015).", "L2 penalty, added to the gradient; biases have none");
    add_moments<AdamW>(rules, "adamw", "AdamW (Loshchilov & Hutter 2019).", "decoupled weight decay; biases have none");
    Table<UpdateRule> lars("LARS (You et al. 2017), for large batches: each parameter has a rate of its own.",
                           UpdateRule{Lars{}});
    lars.add("learning_rate", of(&Lars::learning_rate), number({.least = 0}),
             "learning rate, before the schedule's factor and each parameter's ratio");
    lars.add("momentum", of(&Lars::momentum), number({0, 1, false, true}), "fraction of the last step that is kept");
    lars.add("weight_decay", of(&Lars::weight_decay), number({.least = 0}),
             "L2 penalty; biases and norms have none, and their ratio is 1");
    lars.add("trust_coefficient", of(&Lars::trust_coefficient), number({0, 1000, true}),
             "the ratio is this times the parameter's norm over its gradient's");
    lars.add("epsilon", of(&Lars::epsilon), number({0, 1}), "added to the gradient's norm");
    lars.add("nesterov", of(&Lars::nesterov), boolean(), "use Nesterov's momentum");
    add<Lars>(rules, "lars", lars);
    add_moments<Lamb>(rules, "lamb",
                      "LAMB (You et al. 2020), for large batches: Adam's direction, and a rate for each parameter.",
                      "decoupled weight decay; biases and norms have none, and their ratio is 1");
    add<Muon>(rules, "muon", muon_table());
    return shared(std::move(rules));
  }();
  return table;
}

TypePtr<Schedule> schedule_table() {
  static const TypePtr<Schedule> table = [] {
    using Decay = Schedule::Decay;
    Table<Schedule> schedule("How the learning rate changes over the run.");
    schedule.add("warmup_steps", &Schedule::warmup_steps, integer(), "rise linearly from 0 over so many steps");
    schedule.add(
        "decay", &Schedule::decay,
        choice<Decay>({{"constant", Decay::constant},
                       {"step", Decay::step},
                       {"cosine", Decay::cosine},
                       {"linear", Decay::linear},
                       {"polynomial", Decay::polynomial},
                       {"wsd", Decay::wsd},
                       {"inverse_sqrt", Decay::inverse_sqrt}}),
        "the curve after warm-up; wsd: constant (stable), and down in the last decay_steps; inverse_sqrt: with "
        "the root of warmup_steps / step");
    schedule.add("final_factor", &Schedule::final_factor, number({0, 1}),
                 "cosine, linear, polynomial and wsd end at this fraction of the learning rate");
    const auto wsd = [](const Schedule& s) { return s.decay == Decay::wsd; };
    schedule.add("decay_steps", &Schedule::decay_steps, integer(), "wsd: the last so many steps are its decay")
        .shown_if([wsd](const Schedule& s) { return wsd(s) && s.decay_steps > 0; })
        .may_change();
    schedule
        .add("decay_fraction", &Schedule::decay_fraction, number({0, 1}),
             "wsd: this fraction of the run's steps (0.2 by default), the last ones, is its decay; 0: none")
        .shown_if([wsd](const Schedule& s) { return wsd(s) && s.decay_steps == 0; })
        .may_change();
    schedule
        .add(
            "decay_shape", &Schedule::decay_shape,
            choice<Schedule::Shape>({{"linear", Schedule::Shape::linear}, {"1-sqrt", Schedule::Shape::one_minus_sqrt}}),
            "wsd: the curve of the decay; linear by default")
        .shown_if(wsd)
        .may_change();
    schedule.exclusive("decay_steps", "decay_fraction");
    schedule.add("power", &Schedule::power, number({0, 100, true}), "polynomial: the exponent");
    schedule.add("every_steps", &Schedule::every_steps, integer(),
                 "step: multiply by `factor` after each so many steps");
    schedule.add("factor", &Schedule::factor, number({0, 1, true}), "step: the factor");
    schedule.add(
        "reference_batch", &Schedule::reference_batch, integer({0, 1'000'000'000}),
        "the learning rate is meant for a batch of so many samples and grows linearly with batch.global; warm-up "
        "starts at it; 0: the rate is used as it is");
    return shared(std::move(schedule));
  }();
  return table;
}

}  // namespace dtrain
