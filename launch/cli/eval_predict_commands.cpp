#include "launch/cli/eval_predict_commands.hpp"

#include <map>
#include <utility>

#include "launch/cli/trained_model_options.hpp"

namespace dtrain::launch {

EvalPredictCommands::EvalPredictCommands(CLI::App& app, CommandTree tree,
                                         std::function<void(CLI::App*, Work)> on_all_ranks)
    : tree_(std::move(tree)), on_all_ranks_(std::move(on_all_ranks)) {
  CLI::App* eval = add(app, "eval", "Compute loss and accuracy of a trained model over a data set",
                       "  mpirun -np 2 dtrain eval config.yaml --checkpoint runs/mnist-cnn/checkpoints\n"
                       "  dtrain eval runs/mnist-cnn --checkpoint best\n"
                       "  dtrain eval config.yaml --checkpoint best --data other-test.h5 --json\n",
                       [this](const LoadedConfig& loaded, comm::World& world) {
                         return evaluate_model(loaded, world, options_, files_, json_);
                       });
  eval->add_option("--data", files_, "HDF5 files or globs in place of data.eval");
  eval->add_flag("--json", json_, "Print one JSON object");
  CLI::App* predict_app = add(
      app, "predict", "Write the outputs of a trained model for each row of a file, or for each image, as HDF5",
      "  mpirun -np 2 dtrain predict config.yaml --checkpoint best --input images.h5 -o out.h5\n"
      "  dtrain predict config.yaml --input photos/ -o out.h5            every image of a folder; /file has its name\n"
      "  dtrain predict config.yaml --input a.jpg 'more/*.png' -o out.h5\n",
      [this](const LoadedConfig& loaded, comm::World& world) {
        if (resize_option_->count() > 0) options_.images.resize = resize_;
        return predict(loaded, world, options_, files_, output_);
      });
  predict_app->add_option("--input", files_, "HDF5 files or globs with samples; or images: folders, archives, files")
      ->required();
  predict_app->add_option("-o,--output", output_, "HDF5 file to write: logits, probabilities and class, or prediction")
      ->required();
  resize_option_ =
      predict_app
          ->add_option("--resize", resize_,
                       "Scale images to the model's input, or their shorter side to so many pixels, and keep the "
                       "centre; by default as the images of training")
          ->expected(0, 1)
          ->check(CLI::Range(1, 1 << 16))
          ->option_text("[PIXELS]");
  predict_app
      ->add_option("--on-error", options_.images.on_error,
                   "What to do with image files that cannot be read: refuse them all, or drop these")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, io::OnError>{{"refuse", io::OnError::refuse}, {"drop", io::OnError::drop}}))
      ->option_text("refuse|drop [refuse]");
  predict_app->add_flag("--logits", options_.logits, "Write logits, too, where there is a class for each position");
}

CLI::App* EvalPredictCommands::add(CLI::App& app, const char* name, const char* what, const char* examples, Run run) {
  CLI::App* sub = tree_.add(app, name, what, examples);
  add_trained_model(*sub, file_, overrides_, options_);
  on_all_ranks_(sub, [this, run = std::move(run)](comm::World& world) {
    const auto group = world.make_group();
    LoadedConfig loaded;
    group->agree([&] { loaded = load_trained(file_, overrides_); });
    return run(loaded, world);
  });
  return sub;
}

}  // namespace dtrain::launch
