#include "io/checkpoint/config.hpp"

#include <memory>
#include <utility>

#include "io/checkpoint/tables.hpp"

namespace dtrain::io {

namespace {

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

std::string_view name_of(Best best) noexcept {
  return best == Best::loss ? "loss" : best == Best::accuracy ? "accuracy" : "none";
}

TypePtr<CheckpointConfig> checkpoint_table() {
  static const TypePtr<CheckpointConfig> table = [] {
    Table<CheckpointConfig> checkpoint("What is saved, how often, and what a run continues from.");
    checkpoint
        .add("directory", &CheckpointConfig::directory, text_or_empty(),
             "where checkpoints lie; by default <log.directory>/checkpoints")
        .shown_if([](const auto& c) { return !c.directory.empty(); });
    checkpoint.add("every_steps", &CheckpointConfig::every_steps, integer(),
                   "save after so many steps; 0: only at the end and on a signal");
    checkpoint.add("verify_every_steps", &CheckpointConfig::verify_every_steps, integer(),
                   "after so many steps compare what the ranks hold in memory, also where nothing is saved; 0: only "
                   "before each save");
    checkpoint.add("keep", &CheckpointConfig::keep, integer<int>({2, 1'000'000}), "how many of the newest to keep");
    checkpoint.add("keep_every", &CheckpointConfig::keep_every, integer(),
                   "keep each checkpoint of a multiple of this step for good; 0: none");
    checkpoint.add("best", &CheckpointConfig::best,
                   choice<Best>({{"none", Best::none}, {"loss", Best::loss}, {"accuracy", Best::accuracy}}),
                   "save when an evaluation is the best so far by this, label it, and keep it whatever comes after");
    checkpoint.add("export", &CheckpointConfig::exported,
                   choice<Export>({{"none", Export::none}, {"safetensors", Export::safetensors}}),
                   "safetensors: with each checkpoint write the folder safetensors in it, as checkpoint export does: "
                   "the model for Hugging Face's transformers, or a file with dtrain's names");
    checkpoint.add(
        "resume", [](auto& c) -> auto& { return c; }, TypePtr<CheckpointConfig>(std::make_shared<ResumeType>()),
        "what a run begins from that has no checkpoint of its own; auto, never: from its start; or a directory: from "
        "the "
        "checkpoint there. A run that has some always goes on from the newest valid one; `dtrain --fresh` begins anew");
    checkpoint.add("failures_allowed", &CheckpointConfig::failures_allowed, integer<int>({0, 1'000'000}),
                   "failed saves in a row before the run stops");
    checkpoint.add("force", &CheckpointConfig::force, boolean(), "accept a checkpoint of another configuration");
    return shared(std::move(checkpoint));
  }();
  return table;
}

}  // namespace dtrain::io
