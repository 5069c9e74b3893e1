#include "launch/cli/data_commands.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "io/dataset/inspect.hpp"
#include "launch/base/progress.hpp"
#include "launch/cli/all_ranks.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

DataCommands::DataCommands(CLI::App& app, CommandTree tree) : tree_(std::move(tree)) {
  CLI::App* data =
      tree_.add(app, "data", "Make data sets and inspect them",
                "  dtrain data import mnist train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz -o train.h5\n"
                "  dtrain data import images photos.tar.gz --split train -o train.h5\n"
                "  dtrain data inspect train.h5\n");
  data->require_subcommand(1);
  CLI::App* import = tree_.add(*data, "import", "Make an HDF5 file from other formats",
                               "  dtrain data import mnist IMAGES LABELS -o train.h5\n"
                               "  dtrain data import images FOLDER -o train.h5\n"
                               "  dtrain data import csv table.csv --target price -o train.h5\n"
                               "  dtrain data import text book.txt --tokenizer gpt2 -o train.h5\n");
  import->require_subcommand(1);
  add_mnist(*import);
  add_images(*import);
  add_csv(*import);
  add_text(*import);
  add_repack(*data);
  add_inspect(*data);
  add_make(*data);
}

void DataCommands::prints(CLI::App* app, std::function<std::string()> work) {
  app->callback([this, work = std::move(work)] {
    tree_.act([work] {
      std::string text = work();
      if (!text.ends_with('\n')) text += '\n';
      print(text);
      return 0;
    });
  });
}

void DataCommands::add_output(CLI::App* app) {
  app->add_option("-o,--output", output_, "HDF5 file to write")->required();
}

void DataCommands::add_storage(CLI::App* app, io::StorageOptions& storage) {
  app->add_option("--compression", compression_, "none (contiguous, reads fastest) or gzip")
      ->check(CLI::IsMember({"none", "gzip"}))
      ->capture_default_str();
  app->add_option("--level", level_, "Level of gzip")->check(CLI::Range(1, 9))->capture_default_str();
  app->add_option("--chunk-rows", storage.chunk_rows,
                  "Samples of each chunk; by default contiguous, or chunks of 256 KiB")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 32));
}

void DataCommands::add_cleaning(CLI::App* app, io::OnError& on_error) {
  app->add_option("--on-error", on_error,
                  "What to do with samples that cannot be used: refuse the whole import, or drop these samples")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, io::OnError>{{"refuse", io::OnError::refuse}, {"drop", io::OnError::drop}}))
      ->option_text("refuse|drop [refuse]");
}

void DataCommands::add_parts(CLI::App* app, const char* split) {
  app->add_option(
         "--split", parts_,
         fmt::format("Write parts of the samples: train=0.8,eval=0.2 gives OUT-train.h5 and OUT-eval.h5{}", split))
      ->option_text("NAME=SHARE,...");
  app->add_option("--folds", split_.folds,
                  "Write so many pairs for a cross-validation: OUT-fold-1-train.h5, OUT-fold-1-eval.h5, ...")
      ->check(CLI::Range(2, 1000));
  app->add_flag("--stratify", split_.stratify, "Each part gets its share of each class");
  seeds_.push_back(app->add_option("--seed", split_.seed, "Which samples go to which part: the same for the same seed")
                       ->capture_default_str());
  app->add_option("--classes-from", classes_from_,
                  "Number the classes as in this HDF5 file, by their names; one that is not there is an error");
}

std::string DataCommands::in_parts(const io::StorageOptions& storage,
                                   const std::function<std::string(const std::string&)>& work) {
  take_parts();
  if (!split_.on() && classes_from_.empty()) return work(output_);
  io::RepackOptions again;
  again.split = split_;
  again.classes_from = classes_from_;
  again.storage = storage;
  // Not where a file of the user's may lie, which a refused import must leave as it is.
  const std::string whole = io::part_path(output_, "all-parts.tmp");
  const auto renamed = [&](std::string text, const std::string& to) {
    for (auto at = text.find(whole); at != text.npos; at = text.find(whole, at + to.size()))
      text.replace(at, whole.size(), to);
    return text;
  };
  try {
    std::string text = work(whole);
    text = io::repack_file(whole, output_, again) + renamed(text.replace(0, text.find(':'), "read"), output_);
    std::filesystem::remove(whole);
    return text;
  } catch (const DataError& e) {
    std::error_code none;
    std::filesystem::remove(whole, none);
    throw DataError(renamed(e.what(), output_));
  } catch (...) {
    std::error_code none;
    std::filesystem::remove(whole, none);
    throw;
  }
}

void DataCommands::take_parts() {
  if (!parts_.empty()) split_.parts = io::parse_parts(parts_);
  if (!split_.parts.empty() && split_.folds > 0) throw ConfigError("--split and --folds: expected one of them");
  if (!split_.on() && std::any_of(seeds_.begin(), seeds_.end(), [](const auto* seed) { return seed->count() > 0; }))
    throw ConfigError("--seed: expected --split or --folds with it");
  if (split_.stratify && !split_.on()) throw ConfigError("--stratify: expected --split or --folds with it");
}

void DataCommands::add_mnist(CLI::App& import) {
  CLI::App* mnist =
      tree_.add(import, "mnist", "From two IDX files, gzip or not",
                "  dtrain data import mnist train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz -o train.h5\n");
  mnist->add_option("images", first_, "IDX file of images")->required();
  mnist->add_option("labels", second_, "IDX file of labels")->required();
  add_output(mnist);
  add_parts(mnist, "");
  prints(mnist, [this] {
    return in_parts({}, [this](const std::string& out) { return io::import_mnist(first_, second_, out).text(); });
  });
}

void DataCommands::add_images(CLI::App& import) {
  CLI::App* images = tree_.add(
      import, "images", "From folders or tar archives of class folders with JPEG, PNG, WebP, GIF, BMP and TIFF files",
      "  dtrain data import images photos/ -o photos.h5                           photos/CLASS/FILE.jpg\n"
      "  dtrain data import images cifar.tar.gz --split train -o train.h5         train/CLASS/FILE.jpg\n"
      "  dtrain data import images photos/ --split train=0.9,eval=0.1 --stratify -o p.h5   p-train.h5 and p-eval.h5\n"
      "  dtrain data import images imagenet.tar --resize 256 --size 224 -o i.h5   shorter side, centre crop\n"
      "  dtrain data import images scans/ --no-labels --channels 1 -o scans.h5    all images below, as grey\n");
  images->add_option("source", files_, "Folders, .tar, .tar.gz (.bz2, .xz, .zst)")->required();
  add_output(images);
  add_parts(images, "; or one name: the split to import, if files are ordered as SPLIT/CLASS/FILE");
  images->add_flag("!--no-labels", images_.labels,
                   "Take every image, at any depth, without labels; a source may be an image itself");
  images->add_option("--channels", images_.how.channels, "3: red, green, blue; 1: grey, also of colours")
      ->check(CLI::IsMember({1, 3}))
      ->option_text("1|3 [3]");
  images->add_option("--size", size_, "Height and width of all images, or one number for both")
      ->expected(1, 2)
      ->check(CLI::Range(1, 1 << 16))
      ->option_text("H [W]");
  images
      ->add_option("--resize", images_.how.size.shorter,
                   "Scale images to fit the size, or their shorter side to so many pixels, and keep the centre")
      ->expected(0, 1)
      ->check(CLI::Range(1, 1 << 16))
      ->option_text("[PIXELS]");
  images->add_option("--threads", images_.threads, "Threads that decode; by default one for each core")
      ->check(CLI::Range(1, 1024));
  add_cleaning(images, images_.on_error);
  add_storage(images, images_.storage);
  prints(images, [this, images] {
    io::ImageSize& size = images_.how.size;
    size.resize = images->count("--resize") > 0;
    if (!size_.empty()) {
      size.height = size_.front();
      size.width = size_.back();
    }
    if (compression_ == "gzip") images_.storage.gzip = level_;
    if (parts_.find('=') == std::string::npos) images_.split = std::exchange(parts_, "");
    return in_parts(images_.storage,
                    [this](const std::string& out) { return io::import_images(files_, out, images_).text; });
  });
}

void DataCommands::add_csv(CLI::App& import) {
  using Header = io::CsvImportOptions::Header;
  CLI::App* csv = tree_.add(import, "csv", "From tables of numbers, compressed or not",
                            "  dtrain data import csv iris.csv --label species -o iris.h5\n"
                            "  dtrain data import csv a.csv b.csv --target=-1 --header no -o table.h5   last column\n"
                            "  dtrain data import csv houses.csv --target price --ignore id -o houses.h5\n"
                            "  dtrain data import csv mnist.csv --label label --shape 28,28 -o mnist.h5   pixels\n");
  csv->add_option("file", files_,
                  "CSV files, also .gz, .bz2, .xz, .zst, or a .zip of one file; several are joined in this order")
      ->required();
  add_output(csv);
  csv->add_option("--label", csv_.label,
                  "Column of labels (integers from 0, also as 0.0, or words): its name, or its index from 0");
  csv->add_option("--target", csv_.targets, "A column of values to predict; may be repeated")->allow_extra_args(false);
  csv->add_option("--ignore", csv_.ignore, "A column to leave out; may be repeated. All other columns are features")
      ->allow_extra_args(false);
  csv->add_option("--header", csv_.header,
                  "Whether the first line is a header; auto: it is one if it holds words in place of numbers, or "
                  "counts three columns or more (0,1,2)")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Header>{{"auto", Header::automatic}, {"yes", Header::yes}, {"no", Header::no}}))
      ->option_text("auto|yes|no [auto]");
  csv->add_option("--delimiter", delimiter_,
                  "The character between fields; auto: what a first line sep=; says, or what the first two lines have "
                  "equally often")
      ->check(CLI::IsMember({"auto", ",", ";", "tab", "|", " "}))
      ->capture_default_str();
  csv->add_option("--decimal", csv_.decimal, "The decimal sign; auto: a point, or commas where ; separates fields")
      ->transform(CLI::CheckedTransformer(std::map<std::string, io::DecimalSign>{
          {"auto", io::DecimalSign::automatic}, {"point", io::DecimalSign::point}, {"comma", io::DecimalSign::comma}}))
      ->option_text("auto|point|comma [auto]");
  csv->add_option(
         "--shape", csv_.shape,
         "The features of a row are the pixels of an image: height,width or channels,height,width. Whole numbers "
         "from 0 to 255 are stored as uint8")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 1 << 16))
      ->option_text("[C,]H,W");
  csv->add_option("--layout", csv_.layout,
                  "How the pixels of several channels stand in a row: channels_first (all r, all g, all b) or "
                  "channels_last (r,g,b,r,g,b)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, io::StoredLayout>{
          {"channels_first", io::StoredLayout::channels_first}, {"channels_last", io::StoredLayout::channels_last}}))
      ->option_text("channels_first|channels_last");
  csv->add_flag("--keep-words", csv_.keep_words,
                "Read NA, None, null, ? and the like as words; by default they are missing values, as in pandas");
  csv->add_option("--classes", csv_.classes, "Labels must be below this number")->check(CLI::Range(1, 1 << 30));
  add_parts(csv, "");
  add_cleaning(csv, csv_.on_error);
  add_storage(csv, csv_.storage);
  prints(csv, [this] {
    if (delimiter_ != "auto") csv_.delimiter = delimiter_ == "tab" ? '\t' : delimiter_[0];
    if (compression_ == "gzip") csv_.storage.gzip = level_;
    return in_parts(csv_.storage, [this](const std::string& out) { return io::import_csv(files_, out, csv_); });
  });
}

void DataCommands::add_text(CLI::App& import) {
  using Document = io::TextImportOptions::Document;
  CLI::App* text = tree_.add(
      import, "text", "From text files and JSON lines, compressed or not, as tokens",
      "  dtrain data import text book.txt -o book.h5                              bytes are the tokens\n"
      "  dtrain data import text *.txt.gz --tokenizer gpt2 -o books.h5            a file is a document\n"
      "  dtrain data import text web.jsonl.zst --key text --tokenizer llama/ -o web.h5   a line is a document\n"
      "  dtrain data import text web/*.zst --key text --shard-tokens 100000000 -o web.h5 several files, web-00000.h5, "
      "...\n");
  text->add_option("file", files_, "Text in UTF-8 or UTF-16, also .gz, .bz2, .xz, .zst; tokens are in this order")
      ->required();
  add_output(text);
  text->add_option("--tokenizer", text_.tokenizer,
                   "bytes; gpt2, from data/gpt2; or a folder or file: tokenizer.json, vocab.json and merges.txt, "
                   "encoder.json and vocab.bpe, or vocab.txt of BERT")
      ->capture_default_str();
  text->add_option("--key", text_.key, "The files are JSON lines, and this key of a line has its text");
  text->add_option("--document", document_, "What a document is; by default a file, and with --key a line")
      ->check(CLI::IsMember({"line", "file"}))
      ->option_text("line|file");
  text->add_option(
          "--shard-tokens", text_.shard_tokens,
          "Write shards of about so many tokens, OUTPUT-00000.h5, ...; the same command again goes on after the "
          "last one that is there")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 40));
  text->add_option("--threads", text_.threads, "Threads that encode; by default one for each core")
      ->check(CLI::Range(1, 1024));
  prints(text, [this] {
    if (!document_.empty()) text_.document = document_ == "line" ? Document::line : Document::file;
    ByteProgress progress;
    text_.progress = [&progress](std::uint64_t done, std::uint64_t all) { progress.show(done, all); };
    return io::import_text(files_, output_, text_);
  });
}

void DataCommands::add_repack(CLI::App& data) {
  CLI::App* repack =
      tree_.add(data, "repack", "Write HDF5 files again with other storage, shards or order, or without bad samples",
                "  dtrain data repack train.h5 -o small.h5 --compression gzip\n"
                "  dtrain data repack 'part-*.h5' -o train.h5 --shards 16 --shuffle 1\n"
                "  dtrain data repack raw.h5 -o clean.h5 --classes 10 --on-error drop\n"
                "  dtrain data repack raw.h5 -o usual.h5 --rename pixels=images --rename digit=labels\n"
                "  dtrain data repack all.h5 -o digits.h5 --split train=0.8,eval=0.2 --stratify   digits-train.h5, "
                "digits-eval.h5\n");
  repack->add_option("file", files_, "HDF5 files or globs; several are shards, in this order")->required();
  add_output(repack);
  repack->add_option("--shards", repack_.shards, "Files to write: OUT-00000-of-00016.h5, ...")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  repack->add_option("--shuffle", shuffle_, "Write samples in a random order of this seed");
  repack->add_option("--classes", repack_.classes, "Labels must be below this number")->check(CLI::Range(1, 1 << 30));
  repack->add_option("--sample-key", repack_.sample_key, "HDF5 path of the samples, where the name is unusual");
  repack->add_option("--target-key", repack_.target_key, "HDF5 path of labels or targets");
  repack
      ->add_option(
          "--rename", rename_,
          "Write the data set OLD under the name NEW; a usual one (x, images; y, labels) says what it is. May be "
          "repeated")
      ->allow_extra_args(false)
      ->option_text("OLD=NEW");
  add_parts(repack, "");
  add_cleaning(repack, repack_.on_error);
  add_storage(repack, repack_.storage);
  prints(repack, [this, repack] {
    if (repack->count("--shuffle") > 0) repack_.shuffle = shuffle_;
    for (const std::string& names : rename_) {
      const auto at = names.find('=');
      if (at == 0 || at == names.npos || at + 1 == names.size())
        throw ConfigError("repack: --rename " + names + ": expected OLD=NEW");
      repack_.rename.emplace_back(names.substr(0, at), names.substr(at + 1));
    }
    if (compression_ == "gzip") repack_.storage.gzip = level_;
    take_parts();
    repack_.split = split_;
    repack_.classes_from = classes_from_;
    return io::repack(files_, output_, repack_);
  });
}

void DataCommands::add_inspect(CLI::App& data) {
  CLI::App* inspect = tree_.add(data, "inspect", "What HDF5 files hold, and what training would take from them",
                                "  dtrain data inspect data/mnist-train.h5\n"
                                "  dtrain data inspect data/mnist-train.h5 --json\n");
  inspect->add_option("file", files_, "HDF5 files")->required();
  inspect->add_flag("--json", json_, "Print one JSON object a file");
  prints(inspect, [this] {
    std::string text;
    for (const std::string& file : files_) {
      const io::Inspection found = io::inspect(file);
      text += json_ ? found.json : found.text;
    }
    return text;
  });
}

void DataCommands::add_make(CLI::App& data) {
  CLI::App* make = tree_.add(data, "make", "Make a data set", "  dtrain data make regression -o regression.h5\n");
  make->require_subcommand(1);
  CLI::App* regression =
      tree_.add(*make, "regression", "Make noisy samples of a linear function, and print the function",
                "  dtrain data make regression -o data/regression-train.h5\n"
                "  dtrain data make regression -o r.h5 --samples 5000 --features 3 --noise 0\n");
  add_output(regression);
  regression->add_option("--samples", regression_.samples, "Samples")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1'000'000'000}))
      ->capture_default_str();
  regression->add_option("--features", regression_.features, "Features of a sample")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  regression->add_option("--seed", regression_.seed, "Seed of the function and of the noise")->capture_default_str();
  regression->add_option("--noise", regression_.noise, "Standard deviation of the noise")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  prints(regression, [this] { return io::make_regression(output_, regression_).text; });
}

}  // namespace dtrain::launch
