// The commands below `dtrain data`: import, repack, inspect, make.
// A DataCommands owns what their options set, and lives as long as the tree of commands; everything is on one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "io/import/import_csv.hpp"
#include "io/import/import_images.hpp"
#include "io/import/import_mnist.hpp"
#include "io/import/import_text.hpp"
#include "io/import/repack.hpp"
#include "launch/cli/command_tree.hpp"

namespace dtrain::launch {

class DataCommands {
 public:
  DataCommands(CLI::App& app, CommandTree tree);

 private:
  void add_mnist(CLI::App& import);
  void add_images(CLI::App& import);
  void add_csv(CLI::App& import);
  void add_text(CLI::App& import);
  void add_repack(CLI::App& data);
  void add_inspect(CLI::App& data);
  void add_make(CLI::App& data);
  /// The command prints what `work` returns.
  void prints(CLI::App* app, std::function<std::string()> work);
  void add_output(CLI::App* app);
  void add_storage(CLI::App* app, io::StorageOptions&);
  void add_cleaning(CLI::App* app, io::OnError&);
  /// --split, --folds, --stratify, --seed, --classes-from; `split`: what --split also means there, or nothing.
  void add_parts(CLI::App* app, const char* split);
  /// Imports to the output with what they say: `work` imports to a path.
  std::string in_parts(const io::StorageOptions&, const std::function<std::string(const std::string&)>& work);
  void take_parts();

  CommandTree tree_;
  std::string first_, second_, output_, compression_ = "none", delimiter_ = "auto", document_;
  std::vector<std::string> files_, rename_;
  bool json_ = false;
  std::vector<std::int64_t> size_;
  std::uint64_t shuffle_ = 0;
  int level_ = 4;
  io::ImageImportOptions images_;
  io::CsvImportOptions csv_;
  io::TextImportOptions text_;
  io::RepackOptions repack_;
  io::SplitOptions split_;
  std::string parts_, classes_from_;
  std::vector<const CLI::Option*> seeds_;  // --seed of each command
  io::RegressionOptions regression_;
};

}  // namespace dtrain::launch
