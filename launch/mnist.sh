# Where the quickstart's data come from; sourced after shell.sh, never run. prepare_data PROGRAM makes data/*.h5 and sets
# `recipe`, the one that trains on them: MNIST where it is at hand or can be downloaded, else the digits shipped here.
# The environment may say
#   DTRAIN_MNIST_DIR     a folder with the four MNIST files (IDX, gzip or not), in place of a download
#   DTRAIN_MNIST_MIRROR  URLs of folders with the four .gz files (https, file), in place of the public mirrors

# SHA-256 of the unpacked files: how they were compressed does not matter.
mnist=(
  "train-images-idx3-ubyte ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
  "train-labels-idx1-ubyte 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
  "t10k-images-idx3-ubyte 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
  "t10k-labels-idx1-ubyte ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
)
read -ra mirrors <<<"${DTRAIN_MNIST_MIRROR:-https://storage.googleapis.com/cvdf-datasets/mnist https://ossci-datasets.s3.amazonaws.com/mnist}"

# Has the content of this file, gzip or not, this checksum?
has_sum() {
  [ "$( (gzip -dcf "$1" 2>/dev/null || true) | sha256sum | cut -d' ' -f1)" = "$2" ] && return
  note "$1 is damaged (its SHA-256 is wrong) and is not used" >&2
  return 1
}
# Is FOLDER/NAME[.gz] there with this checksum?
intact() {
  local file
  for file in "$1/$2.gz" "$1/$2"; do
    if [ -f "$file" ] && has_sum "$file" "$3"; then return 0; fi
  done
  return 1
}
all_intact() {
  local entry
  [ -d "$1" ] || return 1
  for entry in "${mnist[@]}"; do intact "$1" ${entry} || return 1; done
}
# Into data/mnist; a file gets its name only when it is known to be right.
download() {
  local entry name sum mirror part
  mkdir -p data/mnist
  for entry in "${mnist[@]}"; do
    read -r name sum <<<"$entry"
    intact data/mnist "$name" "$sum" 2>/dev/null && continue
    part=data/mnist/$name.gz.part
    for mirror in "${mirrors[@]}"; do
      note "downloading $mirror/$name.gz"
      curl -fsSL --connect-timeout 10 --max-time 120 -o "$part" "$mirror/$name.gz" && has_sum "$part" "$sum" &&
        mv "$part" "data/mnist/$name.gz" && continue 2
    done
    rm -f "$part"
    return 1
  done
}
# import PROGRAM PREFIX FOLDER: PREFIX-train.h5 and PREFIX-test.h5; the importer gives a file its name only when it is
# complete.
import() {
  local program=$1 prefix=$2 folder=$3 pair from to images labels
  for pair in train:train t10k:test; do
    from=${pair%:*} to=$prefix-${pair#*:}.h5
    if [ -f "$to" ]; then
      note "$to is there"
      continue
    fi
    for images in "$folder/$from-images-idx3-ubyte"{.gz,}; do [ -f "$images" ] && break; done
    for labels in "$folder/$from-labels-idx1-ubyte"{.gz,}; do [ -f "$labels" ] && break; done
    "$program" data import mnist "$images" "$labels" -o "$to"
  done
}

prepare_data() {
  local program=$1 source= folder
  mkdir -p data
  recipe=mnist-cnn
  if [ -f data/mnist-train.h5 ] && [ -f data/mnist-test.h5 ]; then
    import "$program" data/mnist data/mnist
    return
  fi
  for folder in "${DTRAIN_MNIST_DIR:-}" ../shared/data/mnist data/mnist; do
    if [ -n "$folder" ] && all_intact "$folder"; then
      source=$folder
      break
    fi
  done
  if [ -n "${DTRAIN_MNIST_DIR:-}" ] && [ "$source" != "$DTRAIN_MNIST_DIR" ]; then
    fail "DTRAIN_MNIST_DIR=$DTRAIN_MNIST_DIR does not hold the four MNIST files; unset it to download them"
  fi
  if [ -z "$source" ] && download; then source=data/mnist; fi
  if [ -n "$source" ]; then
    note "from $source"
    import "$program" data/mnist "$source"
  else
    note "MNIST could not be downloaded: using the 1,797 handwritten digits that the repository ships"
    recipe=digits-mlp
    import "$program" data/digits models/data/digits
  fi
}
