#include "io/config.hpp"

#include <string>
#include <utility>
#include <vector>

#include "io/tables.hpp"

namespace dtrain::io {

namespace {

TypePtr<Normalize> normalize_table() {
  Table<Normalize> table("A stored value v becomes (v * scale - mean) / deviation.");
  table.add("scale", &Normalize::scale, number(), "0.00392156862745098 takes 0..255 to 0..1");
  table.add("mean", &Normalize::mean, one_or_list_of(number(), "numbers"),
            "subtracted after scaling: one number, or one a channel");
  table.add("deviation", &Normalize::deviation, one_or_list_of(number({.least = 0, .above_least = true}), "numbers"),
            "divided by: one number, or one a channel");
  return shared(std::move(table));
}

/// `auto`, `never` or a directory.
class ResumeType final : public Type<CheckpointConfig> {
 public:
  void read(const Document& d, CheckpointConfig& into, Reader& r) const override {
    std::string word;
    text()->read(d, word, r);
    into.resume = word == "auto" ? Resume::automatic : word == "never" ? Resume::never : Resume::directory;
    into.resume_directory = into.resume == Resume::directory ? word : std::string();
  }
  Document write(const CheckpointConfig& c) const override {
    return Document::string(c.resume == Resume::automatic ? "auto"
                            : c.resume == Resume::never   ? "never"
                                                          : c.resume_directory);
  }
  Document schema() const override { return text()->schema(); }
  std::string expected() const override { return "auto, never or a directory"; }
};

}  // namespace

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
    data.add("normalize", &DataConfig::normalize, normalize_table(), "scale, mean and deviation");
    data.add<std::vector<std::string>>(
        "augment", [](const DataConfig&) { return std::vector<std::string>(); },
        [](DataConfig&, const std::vector<std::string>&) {}, list_of(text(), "augmentations"),
        "random changes of training samples; none is there yet: only []");
    data.add("prefetch_threads", &DataConfig::prefetch_threads, integer<int>({1, 256}),
             "threads a rank that read ahead");
    data.add("prefetch_batches", &DataConfig::prefetch_batches, integer<int>({2, 1024}),
             "micro batches that are read ahead");
    data.add("cache_mib", &DataConfig::cache_mib, number({.least = 0}),
             "a set that is not larger is kept in memory on each rank; 0: never");
    return shared(std::move(data));
  }();
  return table;
}

TypePtr<CheckpointConfig> checkpoint_table() {
  static const TypePtr<CheckpointConfig> table = [] {
    Table<CheckpointConfig> checkpoint("What is saved, how often, and what a run continues from.");
    checkpoint.add("directory", &CheckpointConfig::directory, text_or_empty(),
                   "where checkpoints lie; by default <log.directory>/checkpoints");
    checkpoint.add("every_steps", &CheckpointConfig::every_steps, integer(),
                   "save after so many steps; 0: only at the end and on a signal");
    checkpoint.add("keep", &CheckpointConfig::keep, integer<int>({2, 1'000'000}), "how many of the newest to keep");
    checkpoint.add("keep_every", &CheckpointConfig::keep_every, integer(),
                   "keep each checkpoint of a multiple of this step for good; 0: none");
    checkpoint.add(
        "resume", [](auto& c) -> auto& { return c; }, TypePtr<CheckpointConfig>(std::make_shared<ResumeType>()),
        "auto: continue from the newest valid one, if there is any; never; or a directory");
    checkpoint.add("failures_allowed", &CheckpointConfig::failures_allowed, integer<int>({0, 1'000'000}),
                   "failed saves in a row before the run stops");
    checkpoint.add("force", &CheckpointConfig::force, boolean(), "accept a checkpoint of another configuration");
    return shared(std::move(checkpoint));
  }();
  return table;
}

}  // namespace dtrain::io
