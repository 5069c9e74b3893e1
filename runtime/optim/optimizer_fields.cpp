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
Table<UpdateRule> moments(const std::string& help, const std::string& decay) {
  Table<UpdateRule> table(help, UpdateRule{Kind{}});
  table.add("learning_rate", of(&Kind::learning_rate), number({.least = 0}),
            "learning rate, before the schedule's factor");
  table.add("beta1", of(&Kind::beta1), number({0, 1, false, true}), "decay of the first moment");
  table.add("beta2", of(&Kind::beta2), number({0, 1, false, true}), "decay of the second moment");
  table.add("epsilon", of(&Kind::epsilon), number({0, 1, true}), "added to the root of the second moment");
  table.add("weight_decay", of(&Kind::weight_decay), number({.least = 0}), decay);
  return table;
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
  group.add("frozen", &ParameterGroup::frozen, boolean(),
            "true: the parameters keep their values, with no gradient and no state of the optimizer; batch norms go on "
            "updating their running statistics");
  return shared(std::move(group));
}

}  // namespace

TypePtr<UpdateRule> optimizer_table() {
  static const TypePtr<UpdateRule> table = [] {
    OneOf<UpdateRule> rules("an optimizer");
    Table<UpdateRule> beside("How parameters are updated: one of the kinds below, and beside its name:");
    beside
        .add("shard", &UpdateRule::shard, boolean(),
             "each of N ranks keeps and updates 1/N of the optimizer's state (ZeRO-1); uses fixed_order's sums; with "
             "lars and lamb a rank has whole parameters: parts are of unequal size, and more bytes travel (dtrain "
             "check says how "
             "many)")
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
    add<Adam>(rules, "adam",
              moments<Adam>("Adam (Kingma & Ba 2015).", "L2 penalty, added to the gradient; biases have none"));
    add<AdamW>(rules, "adamw",
               moments<AdamW>("AdamW (Loshchilov & Hutter 2019).", "decoupled weight decay; biases have none"));
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
    add<Lamb>(
        rules, "lamb",
        moments<Lamb>("LAMB (You et al. 2020), for large batches: Adam's direction, and a rate for each parameter.",
                      "decoupled weight decay; biases and norms have none, and their ratio is 1"));
    return shared(std::move(rules));
  }();
  return table;
}

TypePtr<Schedule> schedule_table() {
  static const TypePtr<Schedule> table = [] {
    using Decay = Schedule::Decay;
    Table<Schedule> schedule("How the learning rate changes over the run.");
    schedule.add("warmup_steps", &Schedule::warmup_steps, integer(), "rise linearly from 0 over so many steps");
    schedule.add("decay", &Schedule::decay,
                 choice<Decay>({{"constant", Decay::constant},
                                {"step", Decay::step},
                                {"cosine", Decay::cosine},
                                {"linear", Decay::linear},
                                {"polynomial", Decay::polynomial}}),
                 "the curve after warm-up");
    schedule.add("final_factor", &Schedule::final_factor, number({0, 1}),
                 "cosine, linear and polynomial end at this fraction of the learning rate");
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
