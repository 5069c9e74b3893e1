// Configurations: the exact words of every complaint, overrides, origins, the canonical form.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"
#include "models/layers/layer_fields.hpp"

namespace dtrain::launch {
namespace {

constexpr std::string_view small = R"(name: small
model:
  input: [4]
  layers:
    - dense: {units: 3, activation: relu}
    - dense: {units: 2}
data:
  train: a.h5
)";

/// "one of conv2d, ...": ops come and go.
std::string layer_kinds() {
  return models::layer_type()->expected().substr(std::string_view("a layer: ").size());
}

/// The message of all problems, or "" where there is none.
std::string complaint(std::string_view text, const std::vector<std::string>& overrides = {}) {
  try {
    parse_config(text, "c.yaml", overrides);
    return "";
  } catch (const ConfigError& e) {
    return e.what();
  }
}
std::string with(std::string_view more) {
  return std::string(small) + std::string(more);
}

struct Bad {
  std::string text;
  std::vector<std::string> overrides;
  std::string message;
};

TEST(ConfigFile, NamesEveryProblemWithItsPlace) {
  const std::vector<Bad> table = {
      // misspelt keys
      {with("optimzer: {}\n"),
       {},
       "c.yaml:9:1: unknown key \"optimzer\"; expected one of name, seed, device, precision, threads, model, data, "
       "batch, "
       "optimizer, schedule, train, memory, cuda, communication, checkpoint, deterministic, log; did you mean "
       "optimizer?"},
      {with("batch: {gobal: 64}\n"),
       {},
       "c.yaml:9:9: batch: unknown key \"gobal\"; expected one of global, micro, warmup; did you mean global?"},
      {with("optimizer: {adam: {lerning_rate: 1}}\n"),
       {},
       "c.yaml:9:20: optimizer.adam: unknown key \"lerning_rate\"; expected one of learning_rate, beta1, beta2, "
       "epsilon, "
       "weight_decay; did you mean learning_rate?"},
      {with("optimizer: {adma: {}}\n"),
       {},
       "c.yaml:9:13: optimizer: unknown kind \"adma\"; expected one of sgd, adam, adamw, lars, lamb, muon; did you "
       "mean "
       "adam?"},
      {with("epochs: 5\n"),
       {},
       "c.yaml:9:1: unknown key \"epochs\"; expected one of name, seed, device, precision, threads, model, data, "
       "batch, "
       "optimizer, schedule, train, memory, cuda, communication, checkpoint, deterministic, log; did you mean "
       "train.epochs?"},
      // types and ranges
      {with("batch: {global: abc}\n"),
       {},
       "c.yaml:9:17: batch.global: got abc; expected an integer from 1 to 1000000000"},
      {with("batch: {global: 0}\n"), {}, "c.yaml:9:17: batch.global: got 0; expected an integer from 1 to 1000000000"},
      {with("batch: {global: 1e2}\n"),
       {},
       "c.yaml:9:17: batch.global: got 1e2; expected an integer from 1 to 1000000000; did you mean 100?"},
      {with("batch: {global: 010}\n"),
       {},
       "c.yaml:9:17: batch.global: got 010; expected an integer from 1 to 1000000000; did you mean 10?"},
      {with("batch: {global: 0x10}\n"),
       {},
       "c.yaml:9:17: batch.global: got 0x10; expected an integer from 1 to 1000000000"},
      {with("batch: {global: \"64\"}\n"),
       {},
       "c.yaml:9:17: batch.global: got \"64\"; expected an integer from 1 to 1000000000; did you mean 64?"},
      {with("batch: {micro: atuo}\n"),
       {},
       "c.yaml:9:16: batch.micro: got atuo; expected auto or an integer from 1 to 1000000000; did you mean auto?"},
      {with("seed: -1\n"), {}, "c.yaml:9:7: seed: got -1; expected an integer of at least 0"},
      {with("seed: 99999999999999999999\n"),
       {},
       "c.yaml:9:7: seed: got 99999999999999999999; expected an integer of at least 0"},
      {with("train: {clip_norm: .nan}\n"),
       {},
       "c.yaml:9:20: train.clip_norm: got .nan; expected a number of at least 0"},
      {with("log: {samples: yes}\n"),
       {},
       "c.yaml:9:16: log.samples: got yes; expected true or false; did you mean true?"},
      {with("device: gpu\n"), {}, "c.yaml:9:9: device: got gpu; expected one of auto, cpu, cuda; did you mean cuda?"},
      {with("device: cudaa\n"),
       {},
       "c.yaml:9:9: device: got cudaa; expected one of auto, cpu, cuda; did you mean cuda?"},
      {with("train: 5\n"),
       {},
       "c.yaml:9:8: train: got 5; expected a map of epochs, steps, clip_norm, ema, loss_scale, dynamic_loss_scale, "
       "eval_every_steps, stop_after, target, max_hours"},
      {with("train:\n"),
       {},
       "c.yaml:9:1: train: got nothing; expected a map of epochs, steps, clip_norm, ema, loss_scale, "
       "dynamic_loss_scale, eval_every_steps, stop_after, target, max_hours"},
      {with("log: {directory: 5}\n"), {}, "c.yaml:9:18: log.directory: got 5; expected text; did you mean \"5\"?"},
      {with("name2: x\n"),
       {},
       "c.yaml:9:1: unknown key \"name2\"; expected one of name, seed, device, precision, threads, model, data, batch, "
       "optimizer, schedule, train, memory, cuda, communication, checkpoint, deterministic, log; did you mean name?"},
      {with("optimizer: {sgd: {}, adam: {}}\n"),
       {},
       "c.yaml:9:22: optimizer: 2 kinds are given (sgd and adam); expected one; are the keys below it indented?"},
      {with("checkpoint: {keep: 1}\n"),
       {},
       "c.yaml:9:20: checkpoint.keep: got 1; expected an integer from 2 to 1000000"},
      // YAML itself
      {with("name: twice\n"),
       {},
       "c.yaml:9:1: duplicate key \"name\"; it is already given in line 1; expected each key once"},
      {with("batch: &b {global: 1}\n"),
       {},
       "c.yaml:9:8: an anchor (&name); expected the value itself: anchors and aliases are not allowed"},
      {with("seed: !!int 5\n"), {}, "c.yaml:9:7: the tag \"tag:yaml.org,2002:int\"; expected a value without a tag"},
      {with("---\nname: b\n"), {}, "c.yaml:9:1: a second YAML document begins here; expected one"},
      {with("? [a, b]\n: 1\n"), {}, "c.yaml:9:3: a key that is a map or a list; expected a name"},
      {"a: [1, 2\n", {}, "c.yaml:2:1: not valid YAML: end of sequence flow not found"},
      {"- a\n- b\n", {}, "c.yaml:1:1: got a list; expected a map of settings"},
      {"name: \"a\x01\"\n", {}, "c.yaml:1:9: byte 0x01; expected UTF-8 text"},
      {"name: \xff\n", {}, "c.yaml:1:7: byte 0xff; expected UTF-8 text"},
      // missing, contradicting
      {"", {}, "c.yaml: model is missing; expected a map\nc.yaml: data is missing; expected a map"},
      {"name: x\nmodel: {input: [4], layers: [{dense: {units: 2}}]}\ndata: {eval: b.h5}\n",
       {},
       "c.yaml:3:7: data: train is missing; expected text or a non-empty list of files"},
      {with("train: {epochs: 2, steps: 10}\n"),
       {},
       "c.yaml:9:27: train: both epochs and steps are given; expected one of them"},
      {with("batch: {global: 100, micro: 33}\n"),
       {},
       "c.yaml:9:29: batch.micro: 33 does not divide batch.global 100; expected a divisor of it, or auto"},
      {with("optimizer: {sgd: {nesterov: true}}\n"),
       {},
       "c.yaml:9:29: optimizer.sgd.nesterov: true without momentum; expected momentum above 0"},
      {with("schedule: {decay: step}\n"),
       {},
       "c.yaml:9:19: schedule.every_steps: 0 with decay: step; expected an integer of at least 1"},
      {with("name2: 1\nlog: {every_steps: 0}\n"),
       {},
       "c.yaml:9:1: unknown key \"name2\"; expected one of name, seed, device, precision, threads, model, data, batch, "
       "optimizer, schedule, train, memory, cuda, communication, checkpoint, deterministic, log; did you mean name?\n"
       "c.yaml:10:20: log.every_steps: got 0; expected an integer of at least 1"},
      // known, but not here
      {with("device: cpu\nprecision: float16\n"),
       {},
       "c.yaml:10:12: precision: float16 with device: cpu; expected bfloat16 or float32, or device: cuda"},
      {with("communication: {gradient_dtype: float16}\n"),
       {},
       "c.yaml:9:33: communication.gradient_dtype: sums of float16 gradients overflow; expected float32 or bfloat16"},
      // what elastic needs
      {with("deterministic: elastic\n"),
       {},
       "c.yaml:9:16: batch.micro: auto with deterministic: elastic, whose bits depend on it; expected a number, such "
       "as "
       "16"},
      {with("deterministic: elastic\nbatch: {global: 96, micro: 8}\n"),
       {},
       "c.yaml:10:28: batch.micro: 8 makes 12 micro batches of batch.global 96; deterministic: elastic expected a "
       "power "
       "of two of them, such as batch.micro: 12"},
      {with("deterministic: elastic\nbatch: {micro: 16}\ncommunication: {gradient_dtype: bfloat16}\n"),
       {},
       "c.yaml:11:33: communication.gradient_dtype: bfloat16 with deterministic: elastic; expected float32: a single "
       "rank rounds nothing"},
      {with("deterministic: elastic\nbatch: {micro: 16}\n"),
       {"model.batch_norm={sync: true}"},
       "command line: model.batch_norm={sync: true}: model.batch_norm.sync: true with deterministic: elastic; expected "
       "false: means over all ranks depend on their number"},
      // what stands beside an optimizer's name
      {with("optimizer: {adam: {}, groups: [{match: \"*.bias\"}, {match: \"dens_*\", frozen: true}]}\n"),
       {},
       "c.yaml:9:59: optimizer.groups.1.match: \"dens_*\" matches no parameter of the model; did you mean "
       "\"dense_1.*\"?"},
      {with("optimizer: {adam: {}, groups: [{match: \"*\", frozen: true}]}\n"),
       {},
       "c.yaml:9:31: optimizer.groups: all parameters are frozen; expected some to train"},
      {with("optimizer: {adam: {}, groups: [{frozen: true}]}\n"),
       {},
       "c.yaml:9:32: optimizer.groups.0: match is missing; expected text"},
      {with("optimizer: {adam: {}, sgd: {}, shard: 3}\n"),
       {},
       "c.yaml:9:23: optimizer: 2 kinds are given (adam and sgd); expected one; are the keys below it indented?\n"
       "c.yaml:9:39: optimizer.shard: got 3; expected true or false"},
      {with("optimizer: {adam: {}, shrad: true}\n"),
       {},
       "c.yaml:9:23: optimizer: unknown key \"shrad\"; expected one of sgd, adam, adamw, lars, lamb, muon, and beside "
       "it "
       "shard, groups; did you mean shard?"},
      {std::string(small) + "  augment: [flip, flip]\n",
       {},
       "c.yaml:9:19: data.augment: flip stands here twice; expected each kind once"},
      // the model
      {"model:\n  input: [4]\n  layers:\n    - dens: {units: 2}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:4:7: model.layers.0: unknown kind \"dens\"; expected " + layer_kinds() + "; did you mean dense?"},
      {"model:\n  input: [4]\n  layers:\n    - dense\ndata: {train: a.h5}\n",
       {},
       "c.yaml:4:7: model.layers.0: dense needs settings; expected dense: {...}"},
      {"model:\n  input: [4]\n  layers:\n    - dense: {}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:4:14: model.layers.0.dense: units is missing; expected an integer of at least 1"},
      {"model:\n  input: [1, 8, 8]\n  layers:\n    - conv2d: {filters: 4, kernel: 3}\n    - dense: {units: 2}\n"
       "data: {train: a.h5}\n",
       {},
       "c.yaml:5:7: model: layer dense_1: its input has shape [4, 6, 6]; expected [features] or [length, "
       "channels]: put `- flatten` before it, or say per_position: true"},
      {"model:\n  input: [1, 8, 8]\n  layers:\n    - conv2d: {filters: 4, kernel: [3, 9]}\n    - flatten\n"
       "    - dense: {units: 2}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:4:7: model: layer conv2d_1: a kernel of [3, 9] does not fit its input of shape [1, 8, 8]"},
      {"model:\n  input: [4]\n  layers:\n    - dense: {name: a, units: 4}\n    - relu\n"
       "    - add: {from: [relu_1, relu_2]}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:6:7: model: layer add_1: from: there is no layer \"relu_2\"; expected input or a layer before it; "
       "did you mean relu_1?"},
      {"model:\n  input: [4]\ndata: {train: a.h5}\n",
       {},
       "c.yaml:2:3: model: none of layers, mlp, resnet, efficientnet-b0, gpt, llama, bert, vit is given; expected one "
       "of them"},
      {"model:\n  input: [3, 32, 32]\n  mlp: {widths: [4]}\n  resnet: {depth: 18}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:4:11: model: both mlp and resnet are given; expected one of them"},
      {"model:\n  input: [3, 32, 32]\n  resnet: {depth: 19}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:3:19: model.resnet.depth: got 19; expected one of 18, 34, 50"},
      {"model:\n  input: [32]\n  resnet: {depth: 18}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:3:11: model: layer conv1: its input has shape [32]; expected [channels, height, width]"},
      {"model:\n  input: [4]\n  mlp: {widths: [4]}\n  loss: {cross_entropy: {label_smoothing: 1}}\n"
       "data: {train: a.h5}\n",
       {},
       "c.yaml:4:43: model.loss.cross_entropy.label_smoothing: got 1; expected a number of at least 0 and below 1"},
      {"model:\n  input: [4]\n  mlp: {widths: [4]}\n  batch_norm: {sync: all}\ndata: {train: a.h5}\n",
       {},
       "c.yaml:4:22: model.batch_norm.sync: got all; expected true or false"},
      // the command line
      {std::string(small),
       {"batch.global=abc"},
       "command line: batch.global=abc: batch.global: got abc; expected an integer from 1 to 1000000000"},
      {std::string(small),
       {"bach.global=5"},
       "command line: bach.global=5: unknown key \"bach\"; expected one of name, seed, device, precision, threads, "
       "model, data, "
       "batch, optimizer, schedule, train, memory, cuda, communication, checkpoint, deterministic, log; did you mean "
       "batch?"},
      {std::string(small), {"nonsense"}, "command line: nonsense: expected key.sub=value"},
      {std::string(small), {"a..b=1"}, "command line: a..b=1: an empty part in the key; expected key.sub=value"},
      {std::string(small),
       {"model.layers.7.dense.units=1"},
       "command line: model.layers.7.dense.units=1: no item \"7\" in a list of 2; expected an index from 0 to 1"},
      {std::string(small), {"seed=}"}, "command line: seed=}: not valid YAML: illegal flow end"},
      {std::string(small),
       {"train={steps: 5, epochs: 5}"},
       "command line: train={steps: 5, epochs: 5}: train: both epochs and steps are given; expected one of them"},
      {std::string(small),
       {"model.layers=[{dense: {units: 2}}, {conv2d: {filters: 1, kernel: 1}}]"},
       "command line: model.layers=[{dense: {units: 2}}, {conv2d: {filters: 1, kernel: 1}}]: model: layer conv2d_1: "
       "its input "
       "has shape [2]; expected [channels, height, width]"},
  };
  for (const Bad& bad : table) EXPECT_EQ(complaint(bad.text, bad.overrides), bad.message) << bad.text;
}

TEST(ConfigFile, RefusesAnAliasBombBeforeItGrows) {
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i > 0 ? ", " : "") + "*" + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_EQ(complaint(bomb),
            "c.yaml:1:4: an anchor (&name); expected the value itself: anchors and aliases are not allowed");
}

TEST(ConfigFile, HoldsItsLimits) {
  EXPECT_EQ(complaint("a: " + std::string(40, '[') + std::string(40, ']')),
            "c.yaml:1:35: more than 32 levels; is this a configuration?");
  EXPECT_NE(complaint(std::string(100'000, '[')), "");
  std::string many = "a: [";
  for (int i = 0; i < 20'000; ++i) many += "1, ";
  EXPECT_NE(complaint(many + "1]").find("more than 10000 values; is this a configuration?"), std::string::npos);
  EXPECT_EQ(complaint(std::string((1 << 20) + 1, ' ')),
            "c.yaml: 1048577 bytes; expected a configuration of at most 1024 KiB");
  EXPECT_THROW(load_config("/dev/zero"), ConfigError);
  EXPECT_THROW(load_config("."), ConfigError);
  EXPECT_THROW(load_config("no such file.yaml"), ConfigError);
}

TEST(ConfigFile, FillsDefaultsAndKeepsOrigins) {
  const std::vector<std::string> overrides{"optimizer={sgd: {learning_rate: 0.05}}", "model.layers.0.dense.units=7"};
  const LoadedConfig loaded = parse_config(with("optimizer: {adam: {beta1: 0.5}}\nseed: 3\n"), "c.yaml", overrides);
  const RunConfig& c = loaded.config;
  EXPECT_EQ(c.seed, 3u);
  EXPECT_EQ(c.batch.global, 128);
  EXPECT_EQ(c.log.directory, "runs/small");
  EXPECT_EQ(c.checkpoint.directory, "runs/small/checkpoints");
  ASSERT_TRUE(std::holds_alternative<Sgd>(c.optimizer.kind));
  EXPECT_EQ(std::get<Sgd>(c.optimizer.kind).learning_rate, 0.05);
  EXPECT_EQ(std::get<Dense>(c.model.layers[0].op).units, 7);
  EXPECT_EQ(c.model.layers[1].line, 6);
  EXPECT_EQ(loaded.places.at("seed").line, 10);
  EXPECT_EQ(loaded.places.at("optimizer.sgd.learning_rate").file, "command line: " + overrides[0]);
  EXPECT_EQ(loaded.places.count("batch.global"), 0u);
  const std::string shown = show_config(loaded);
  EXPECT_NE(shown.find("# c.yaml:10:7"), std::string::npos) << shown;
  EXPECT_NE(shown.find("# default"), std::string::npos);
  EXPECT_NE(shown.find("dense.units: command line: model.layers.0.dense.units=7"), std::string::npos) << shown;
}

TEST(ConfigFile, TheCommandLineWins) {
  const std::string file = with("train: {epochs: 3}\noptimizer: {sgd: {momentum: 0.9}}\n");
  const RunConfig c =
      parse_config(file, "c.yaml", std::vector<std::string>{"train.steps=7", "optimizer.adam.beta1=0.5"}).config;
  EXPECT_EQ(c.train.steps, 7);
  ASSERT_TRUE(std::holds_alternative<Adam>(c.optimizer.kind));
  EXPECT_EQ(std::get<Adam>(c.optimizer.kind).beta1, 0.5);
  // A member of what the file chose keeps the rest of it; a value replaces all that stood there; the last one counts.
  const RunConfig d =
      parse_config(file, "c.yaml", std::vector<std::string>{"optimizer.sgd.learning_rate=1", "seed=4", "seed=5"})
          .config;
  EXPECT_EQ(std::get<Sgd>(d.optimizer.kind).momentum, 0.9);
  EXPECT_EQ(std::get<Sgd>(d.optimizer.kind).learning_rate, 1);
  EXPECT_EQ(d.seed, 5u);
  const RunConfig e = parse_config(with("optimizer: adamw\ntrain: {steps: 9}\n"), "c.yaml",
                                   std::vector<std::string>{"optimizer.adamw.beta1=0.1", "train.epochs=2"})
                          .config;
  EXPECT_EQ(std::get<AdamW>(e.optimizer.kind).beta1, 0.1);
  EXPECT_EQ(e.train.steps, 0);
  EXPECT_EQ(e.train.epochs, 2);
}

TEST(ConfigFile, TheCanonicalFormReadsBackToItself) {
  const std::vector<std::string> texts = {
      std::string(small),
      with("name2: 1\n").substr(0, small.size()) + "train: {steps: 5}\nlog: {directory: \"a: b # c\"}\n",
      with("checkpoint: {resume: runs/x, directory: '~', export: safetensors}\ndeterministic: \"off\"\nseed: "
           "9223372036854775807\n"),
      R"(model:
  input: [3, 8, 8]
  layers:
    - conv2d: {name: stem, filters: 4, kernel: [3, 5], padding: [1, 2], stride: 2}
    - maxpool2d: {size: 2, stride: 1}
    - relu
    - flatten
    - dropout
    - dense: {units: 10, bias: false}
data:
  train: [a.h5, "b*.h5"]
  eval: []
  normalize: {scale: 0.00392156862745098, mean: [0.1, 0.2, 1e-17], standard_deviation: 3}
optimizer: {sgd: {learning_rate: 0.1, momentum: 0.9, nesterov: true}}
)",
      R"(model:
  input: [3, 8, 8]
  layers:
    - conv2d: {name: stem, filters: 8, kernel: 3, padding: same, dilation: 2, groups: 1, activation: silu}
    - batch_norm: {epsilon: 0.001, momentum: 0.01, activation: relu}
    - avgpool2d: {size: 2, stride: 1, count_padding: false}
    - conv2d: {from: stem, filters: 8, kernel: 2, groups: 8}
    - drop_path: {rate: 0.2}
    - add: {from: [avgpool2d_1, drop_path_1], activation: relu}
    - global_avgpool
    - multiply: {from: [add_1, global_avgpool_1]}
    - layer_norm
    - hard_swish
    - soft_cap: {name: capped, cap: 5}
    - concat: {from: [capped, multiply_1]}
    - flatten
    - dense: {units: 10}
  loss: {cross_entropy: {label_smoothing: 0.1}}
  batch_norm: {sync: true}
data: {train: a.h5}
precision: bfloat16
)",
      "model: {input: [2, 4, 8, 8], layers: [{conv3d: {filters: 8, kernel: [1, 3, 3], padding: same}}, {maxpool3d: "
      "{size: [1, 2, 2]}}, {conv3d_transpose: {filters: 4, kernel: 2, stride: 2, output_padding: [0, 1, 1], groups: "
      "2}}, {upsample3d: {factor: [1, 2, 2], mode: linear}}, {avgpool3d: {size: 2}}, flatten, {dense: {units: 2}}]}\n"
      "data: {train: a.h5}\n",
      "model: {input: [32, 2], layers: [{conv1d: {filters: 8, kernel: 3, dilation: 2}}, maxpool1d, {conv1d_transpose: "
      "{filters: 4, kernel: 2}}, upsample1d, {avgpool1d: {size: [3]}}, global_avgpool, flatten, {dense: {units: 2}}]}\n"
      "data: {train: a.h5}\n",
      "model: {input: [3, 32, 32], resnet: {depth: 50, stem: cifar}, loss: mean_squared_error}\ndata: {train: a.h5}\n",
      "model: {input: [3, 32, 32], mlp: {widths: [8, 4], activation: tanh}}\ndata: {train: a.h5}\n",
      "model: {input: [3, 32, 32], efficientnet-b0: {drop_path: 0, classes: 7}}\ndata: {train: a.h5}\n"};
  for (const std::string& text : texts) {
    const LoadedConfig once = parse_config(text, "c.yaml");
    const LoadedConfig twice = parse_config(once.canonical, "config.yaml");
    EXPECT_EQ(once.canonical, twice.canonical) << text;
    EXPECT_EQ(once.hash, twice.hash);
    EXPECT_EQ(once.fields, twice.fields);
  }
  EXPECT_NE(parse_config(small, "c").hash, parse_config(small, "c", std::vector<std::string>{"seed=2"}).hash);
}

TEST(ConfigFile, TheFieldsAreTheScalarsByPath) {
  const LoadedConfig loaded = parse_config(small, "c.yaml");
  const auto value = [&](const std::string& path) {
    for (const auto& [at, text] : loaded.fields)
      if (at == path) return text;
    return std::string("none");
  };
  EXPECT_EQ(value("model.layers.0.dense.units"), "3");
  EXPECT_EQ(value("model.input"), "[4]");
  EXPECT_EQ(value("optimizer.sgd.learning_rate"), "0.01");
  EXPECT_EQ(value("batch.micro"), "auto");
  EXPECT_EQ(value("train.steps"), "none");
}

TEST(ConfigFile, TheFieldsOfAnOlderProgramAreThoseOfNow) {
  const LoadedConfig now = parse_config(small, "c.yaml");
  // It knew neither these sections nor the bias of a layer: they are at their defaults.
  std::string older = now.canonical;
  older.erase(older.find("cuda:"), older.find("checkpoint:") - older.find("cuda:"));
  older.erase(older.find("bias: true, "), 12);
  EXPECT_EQ(fields_of(older, {}), now.fields);
  const std::vector<std::pair<std::string, std::string>> recorded{{"model.layers.0.quantum", "1"}};
  EXPECT_EQ(fields_of(older + "quantum: {}\n", recorded), recorded);
  EXPECT_EQ(fields_of("", recorded), recorded);
}

TEST(ConfigFile, RanksShareABatchOrSayWhatWould) {
  const auto split = [](std::int64_t global, const std::string& micro, int ranks) -> std::string {
    const LoadedConfig c =
        parse_config(small, "c.yaml",
                     std::vector<std::string>{"batch={global: " + std::to_string(global) + ", micro: " + micro + "}"});
    try {
      const BatchSplit s = check_batch(c, ranks);
      return std::to_string(s.micro) + " x " + std::to_string(s.accumulation);
    } catch (const ConfigError& e) {
      return e.problems().at(0).text;
    }
  };
  EXPECT_EQ(split(96, "auto", 3), "32 x 1");
  EXPECT_EQ(split(96, "8", 3), "8 x 4");
  EXPECT_EQ(split(100, "auto", 3),
            "batch.global: 100 cannot be divided among 3 ranks; expected a multiple of 3: 99 or 102");
  EXPECT_EQ(split(2, "auto", 3), "batch.global: 2 cannot be divided among 3 ranks; expected a multiple of 3: 3");
  EXPECT_EQ(split(96, "32", 2),
            "batch.global: 96 cannot be divided among 2 ranks in micro batches of 32; expected a multiple of 64: 64 or "
            "128; or "
            "batch.micro: auto");
}

TEST(ConfigFile, CountsSteps) {
  RunConfig c;
  c.batch.global = 64;
  c.train.epochs = 5;
  EXPECT_EQ(total_steps(c, 60'000), 4688);  // 300,000 / 64 = 4687.5
  c.train.steps = 3;
  EXPECT_EQ(total_steps(c, 60'000), 3);
}

TEST(ConfigFile, WhatACudaDeviceMayDoFollowsFromTheSettings) {
  const auto options = [](const std::vector<std::string>& overrides, int ranks = 1) {
    return cuda_options(parse_config(small, "c.yaml", overrides).config, ranks);
  };
  EXPECT_FALSE(options({}).tf32);
  EXPECT_TRUE(options({"cuda.tf32=true"}).tf32);
  EXPECT_FALSE(options({}).nondeterministic);
  EXPECT_TRUE(options({"deterministic=off"}).nondeterministic);
  EXPECT_FALSE(options({}).own_norms);
  EXPECT_TRUE(options({}, 2).own_norms);
  EXPECT_TRUE(options({"deterministic=elastic", "batch.micro=16"}).own_norms);
}

TEST(ConfigFile, AFamilyTakesThePlaceOfLayers) {
  const std::vector<std::string> overrides{"model.resnet={depth: 34}", "model.input=[3, 32, 32]"};
  const models::ModelConfig m = parse_config(small, "c.yaml", overrides).config.model;
  EXPECT_TRUE(m.layers.empty());
  EXPECT_EQ(std::get<models::ResNet>(m.family).depth, 34);
}

}  // namespace
}  // namespace dtrain::launch
