"""What reliability stands on, each taken out alone by `tests/campaign mutants --promises`: some test must fail."""
import collections

Promise = collections.namedtuple("Promise", "what file old new")

ALL = [
    Promise("the fsync of a shard", "io/checkpoint/checkpoint_publish.cpp", "  file.sync();\n  file.close();\n", "  file.close();\n"),
    Promise("the fsync of a shard's directory", "io/checkpoint/checkpoint_publish.cpp",
            "  sync_directory(files, temporary);\n  return digest.hex();", "  return digest.hex();"),
    Promise("the fsync of the manifest", "io/files/file.cpp",
            "  file.write(std::as_bytes(std::span(text)));\n  file.sync();\n", "  file.write(std::as_bytes(std::span(text)));\n"),
    Promise("the fsync of the directory with the manifest", "io/checkpoint/checkpoint_publish.cpp",
            "    sync_directory(files, p.temporary);\n", ""),
    Promise("the fsync behind the rename", "io/checkpoint/checkpoint_publish.cpp", "    sync_directory(files, p.directory);\n", ""),
    Promise("the look at the shards before a checkpoint is published", "io/checkpoint/checkpoint_publish.cpp",
            "    check_shards(files, p);\n", "    if (false) check_shards(files, p);\n"),
    Promise("the reading back of the manifest", "io/checkpoint/checkpoint_publish.cpp",
            "    parse_manifest(text);  // what cannot be read back must not be published\n", ""),
    Promise("the checksum of a tensor", "io/checkpoint/checkpoint_read.cpp", "if (hash_.value() != tensor.xxh3) {", "if (false) {"),
    Promise("the SHA-256 of a shard", "io/checkpoint/checkpoint_read.cpp", "if (digest.hex() != shard.sha256) {", "if (false) {"),
    Promise("the size of a shard", "io/checkpoint/checkpoint_read.cpp", "if (status.bytes > expected) {", "if (false) {"),
    Promise("the SHA-256 of a manifest", "io/checkpoint/checkpoint_manifest.cpp",
            'if (std::string_view(text).substr(body.size()) != tail) corrupt("MANIFEST.json does not match its own SHA-256");', ""),
    Promise("the waiting for every rank's shard", "io/checkpoint/checkpoint_writer.cpp",
            "  if (std::any_of(statuses.begin(), statuses.end(), [](const auto& text) { return text[0] == busy; })) {",
            "  if (statuses[0][0] == busy) {"),
    Promise("the failure of another rank's shard", "io/checkpoint/checkpoint_writer.cpp",
            "if (statuses[rank][0] == failed && error.empty()) {", "if (rank == 0 && statuses[rank][0] == failed && error.empty()) {"),
    Promise("the comparison of the ranks' parameters", "io/checkpoint/checkpoint_snapshot.cpp",
            "if (std::all_of(values.begin(), values.end(), [&](auto v) { return v == values[0]; })) continue;", "continue;"),
    Promise("the look for numbers that are not finite", "io/checkpoint/checkpoint_snapshot.cpp",
            "    if (headers[rank].nonfinite < 0) continue;\n", "    continue;\n"),
    Promise("the lock of a directory", "io/files/lock.cpp", "const int r = files.try_lock(file.descriptor());", "const int r = 0;"),
    Promise("the removing of what a killed save left", "io/checkpoint/checkpoint_writer.cpp",
            "    remove_leftovers(files, s.config.directory);\n", ""),
    Promise("the agreement on a failed load", "io/checkpoint/checkpoint.cpp",
            "  group.agree([&] {\n    if (error) std::rethrow_exception(error);\n  });", "  if (error) std::rethrow_exception(error);"),
    Promise("the hash of the parameters that were loaded", "launch/train/saving.cpp",
            "if (const std::string hash = model.parameter_hash(); hash != found_->state.parameter_hash)",
            "if (const std::string hash = model.parameter_hash(); false)"),
]


def apply(text, old, new):
    """Throws ValueError where the text is not there exactly once."""
    if text.count(old) != 1:
        raise ValueError(f"{text.count(old)} places hold\n{old}")
    return text.replace(old, new)
