// Runs that train adapters of a model that another run has trained: what moves, what travels, what a checkpoint holds,
// and how such a run goes on.
#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "io/checkpoint/checkpoint.hpp"
#include "launch/plan/check.hpp"
#include "launch/train/merged_model.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test_training::expect_same;
using test_training::mlp;
using test_training::Outcome;
using test_training::Steps;

class LoraTraining : public test_training::Training {
 protected:
  std::string at(const std::string& run) const { return (folder_ / run).string(); }
  /// Adapters of rank 4 beside both dense layers (64 to 32 to 10) of the model in the folder of `base`.
  std::vector<std::string> lora(const std::string& base, std::vector<std::string> more = {}) const {
    more.push_back("model.initialize_from=" + at(base));
    more.emplace_back("model.lora={rank: 4, alpha: 8, targets: [dense_*]}");
    return more;
  }
  void train_base(const std::string& name = "base", std::vector<std::string> overrides = {}) const {
    overrides.emplace_back("train.steps=9");
    const Outcome o = train_on(nullptr, mlp, overrides, name);
    ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  }
  static constexpr std::size_t adapters = 4 * (64 + 32) + 4 * (32 + 10);
};

TEST_F(LoraTraining, only_adapters_move_and_travel) {
  for (const int ranks : {1, 2}) {
    comm::run_local(ranks, [&](comm::LocalRank& rank) {
      Steps s(config(mlp, lora("base"), "steps"), std::make_unique<test::AsyncDevice>(), &rank);
      const FlatLayout& layout = s.engine->store().layout();
      std::size_t floats = layout.state_floats + layout.extras;
      for (const FlatParam& p : layout.trained()) floats += (p.size + 15) / 16 * 16;
      if (ranks > 1) {
        EXPECT_EQ(s.step->communication().bytes_per_step, floats * sizeof(float));
      }
      const auto values = [&] {
        s.step->settle();
        s.step->model().pull();
        std::map<std::string, std::vector<float>> out;
        for (const io::StateTensor& t : s.step->model().replicated_tensors()) {
          const auto* data = static_cast<const float*>(t.data);
          out[t.name].assign(data, data + t.shape.elements());
        }
        return out;
      };
      const auto before = values();
      s.go(3);
      s.read(0);
      std::size_t moved = 0;
      for (const auto& [name, data] : values()) {
        if (!name.starts_with("param/")) continue;
        if (models::is_adapter(name)) {
          EXPECT_NE(data, before.at(name)) << name;
          moved += data.size();
        } else {
          EXPECT_EQ(data, before.at(name)) << name;
        }
      }
      EXPECT_EQ(moved, adapters);
      std::size_t saved = 0;
      for (const io::StateTensor& t : s.step->model().tensors()) {
        EXPECT_TRUE(models::is_adapter(t.name)) << t.name;
        saved += static_cast<std::size_t>(t.shape.elements());
      }
      EXPECT_EQ(saved, 2 * adapters);  // and their momentum
      s.world.make_group()->barrier();
    });
  }
}

TEST_F(LoraTraining, a_run_that_goes_on_has_the_bits_of_one_that_was_not_stopped) {
  train_base();
  int runs = 0;
  for (const char* more : {"train.ema={decay: 0.9}", "optimizer.adam={}"}) {
    const std::vector<std::string> settings = lora("base", {more});
    const std::string number = std::to_string(runs++), whole_name = "whole-" + number, name = "halves-" + number;
    const Outcome whole = train_on(nullptr, mlp, settings, whole_name);
    EXPECT_NE(whole.out.find("starts from the weights in"), std::string::npos) << whole.out;
    EXPECT_EQ(whole.out.find("lora_a"), std::string::npos) << whole.out;  // nobody expects them there
    std::vector<std::string> half = settings;
    half.emplace_back("train.steps=9");
    train_on(nullptr, mlp, half, name);
    Outcome halves = train_on(nullptr, mlp, settings, name);
    EXPECT_NE(halves.out.find("resumed from"), std::string::npos) << halves.out << halves.error;
    EXPECT_EQ(halves.out.find("starts from the weights in"), std::string::npos) << halves.out;
    halves.metrics = whole.metrics;
    expect_same(whole, halves, more);
  }
}

TEST_F(LoraTraining, another_base_is_refused) {
  train_base();
  train_base("other", {"seed=2"});
  Outcome o = train_on(nullptr, mlp, lora("base", {"train.steps=4"}), "run");
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  o = train_on(nullptr, mlp, lora("other", {"train.steps=8"}), "run");
  EXPECT_EQ(o.code, ExitCode::checkpoint);
  EXPECT_NE(o.error.find("has adapters of another model than the one in " + at("other")), std::string::npos) << o.error;
  EXPECT_NE(o.error.find("set model.initialize_from to the weights that the run began with"), std::string::npos);
  // A model is not started from adapters alone.
  o = train_on(nullptr, mlp, {"train.steps=4", "model.initialize_from=" + at("run")}, "third");
  EXPECT_EQ(o.code, ExitCode::data);
  EXPECT_NE(o.error.find("holds the adapters of a LoRA run without the model that they adapt"), std::string::npos)
      << o.error;
}

TEST_F(LoraTraining, what_the_base_does_not_give_is_trained_or_refused) {
  train_base();
  std::string other = mlp;  // with one class more
  other.replace(other.find("units: 10"), 9, "units: 11");
  const Outcome shape = train_on(nullptr, other, lora("base"), "shape");
  EXPECT_EQ(shape.code, ExitCode::usage);
  EXPECT_NE(shape.error.find("model.lora: dense_2."), std::string::npos) << shape.error;
  EXPECT_NE(shape.error.find("has another shape in " + at("base")), std::string::npos) << shape.error;
  EXPECT_NE(shape.error.find("no adapter trains it; add its layer to model.lora.modules_to_save"), std::string::npos);
  const std::string adapters_of = "model.lora={rank: 4, targets: [dense_1]";
  const std::string skip = "model.initialize_from={path: " + at("base") + ", skip: [\"dense_2.*\"]}";
  const Outcome skipped = train_on(nullptr, mlp, {skip, adapters_of + "}"}, "skipped");
  EXPECT_EQ(skipped.code, ExitCode::usage);
  EXPECT_NE(skipped.error.find("is skipped, so not taken from " + at("base")), std::string::npos) << skipped.error;
  std::string renamed = mlp;
  renamed.replace(renamed.find("{units: 10}"), 11, "{units: 10, name: head}");
  const Outcome absent = train_on(nullptr, renamed, lora("base"), "absent");
  EXPECT_EQ(absent.code, ExitCode::usage);
  EXPECT_NE(absent.error.find("is not in " + at("base")), std::string::npos) << absent.error;
  // A new head is trained whole.
  const std::string from = "model.initialize_from=" + at("base");
  const Outcome whole = train_on(nullptr, other, {from, adapters_of + ", modules_to_save: [dense_2]}"}, "whole");
  EXPECT_EQ(whole.code, ExitCode::ok) << whole.error;
}

TEST_F(LoraTraining, merged_parameters_are_base_and_adapters) {
  train_base();
  const Outcome o = train_on(nullptr, mlp, lora("base"), "run");
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  const auto found = io::find_latest_valid(at("run") + "/checkpoints");
  ASSERT_TRUE(found.has_value());
  EXPECT_FALSE(io::base_hash(found->state).empty());
  MergedModel merged;
  std::vector<std::string> names;
  for (const io::StateTensor& t : merged.read(found->path, found->state, false)) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"param/dense_1.bias", "param/dense_1.weight", "param/dense_2.bias",
                                             "param/dense_2.weight"}));
  // Another base there, or none: there is no setting for it, so the place is said.
  const auto refusal = [&]() -> std::string {
    try {
      merged.read(found->path, found->state, false);
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing";
  };
  const std::string says = "; the base is read from " + at("base") + ", as the checkpoint's configuration says";
  std::filesystem::rename(at("base"), at("moved"));
  EXPECT_NE(refusal().find(says), std::string::npos) << refusal();
  train_base("base", {"seed=2"});
  EXPECT_NE(refusal().find("has adapters of another model"), std::string::npos) << refusal();
  EXPECT_NE(refusal().find(says), std::string::npos) << refusal();
  EXPECT_EQ(refusal().find("set model.initialize_from"), std::string::npos) << refusal();
}

TEST_F(LoraTraining, check_says_what_is_trained) {
  const CheckReport report = check(config(mlp, lora("base"), "check"), {});
  EXPECT_NE(report.text.find("lora: adapters of rank 4 and alpha 8 beside 2 dense layers\n"
                             "552 of these parameters are trained, 2,410 are frozen\n"),
            std::string::npos)
      << report.text;
}

TEST_F(LoraTraining, settings_that_do_not_fit_are_refused) {
  const auto refusal = [&](const std::vector<std::string>& overrides) -> std::string {
    try {
      config(mlp, overrides, "refused");
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "nothing";
  };
  const std::string from = "model.initialize_from=base";
  const auto expect = [&](const std::vector<std::string>& overrides, const std::string& says) {
    const std::string text = refusal(overrides);
    EXPECT_NE(text.find(says), std::string::npos) << text;
  };
  expect({"model.lora={rank: 4, targets: [dense_1]}"},
         "model.lora: adapters without a model to adapt; expected model.initialize_from");
  expect({from, "model.lora={rank: 0, targets: [dense_1]}"},
         "model.lora.rank: got 0; expected an integer of at least 1");
  expect({from, "model.lora={targets: [dense_1]}"}, "rank");
  expect({from, "model.lora={rank: 4}"}, "targets");
  expect({from, "model.lora={rank: 4, targets: [dens_1]}"}, "did you mean \"dense_1\"?");
  expect({from, "model.lora={rank: 4, targets: [flatten_1]}"}, "matches flatten_1, which is flatten");
  expect({from, "model.lora={rank: 33, targets: [dense_1]}"},
         "model.lora.rank: 33 for layer dense_1, whose weight is [32, 64]; expected at most 32");
  expect({from, "model.lora={rank: 4, targets: [dense_1]}", R"(optimizer.groups=[{match: "*_b.*", frozen: true}])"},
         "optimizer.groups.0.match: \"*_b.*\" is to freeze dense_1.lora_b.weight, which model.lora trains");
  EXPECT_EQ(refusal({from, "model.lora={rank: 4, targets: [dense_1]}"}), "nothing");
}

}  // namespace
}  // namespace dtrain::launch
