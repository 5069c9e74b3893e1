#!/usr/bin/env python3
"""Shuffled reading of an HDF5 set: dtrain's Loader against h5py + torch.utils.data.DataLoader.

  data_read_peer.py FILE.h5 --ours build/release/tests/bench_data_read [--batch 128] [--runs 5]

Both normalize every image by (value / 255 - 0.1307) / 0.3081 and deliver shuffled float batches; both sum each batch.
First whole epochs are compared (sums of pixels and labels), then runs are interleaved and medians printed. The peer reads
as its users write it: h5py in a Dataset's __getitem__, the better of 0, 1 and 2 workers. dtrain uses one prefetch thread,
once from the file (cache_mib 0, pread a row) and once with the set in memory (the default for a set of this size).
"""
import argparse
import json
import statistics
import subprocess
import time

import h5py
import numpy
import torch


class Images(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path, self.file = path, None
        with h5py.File(path, "r") as f:
            self.count = len(f["images"])

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if self.file is None:  # a handle a worker
            self.file = h5py.File(self.path, "r")
            self.images, self.labels = self.file["images"], self.file["labels"]
        image = torch.from_numpy(self.images[i].astype(numpy.float32))
        return image.mul_(1 / 255).sub_(0.1307).div_(0.3081), int(self.labels[i])


def peer(path, batch, steps, workers):
    loader = torch.utils.data.DataLoader(Images(path), batch_size=batch, shuffle=True, num_workers=workers)
    pixels, labels, seen, done = 0.0, 0.0, 0, 0
    begin, processor = time.perf_counter(), time.process_time()
    for images, target in loader:
        pixels += float(images.sum())
        labels += float(target.sum())
        seen += len(target)
        done += 1
        if done == steps:
            break
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    return {"samples": seen, "seconds": seconds, "processor_seconds": processor, "sum": pixels, "label_sum": labels}


def ours(arguments, batch, steps, cache):
    command = [arguments.ours, arguments.file, str(batch), str(steps), "1", str(cache)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--ours", required=True)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-steps", type=int, default=100)
    parser.add_argument("--steps", type=int, default=5000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with h5py.File(arguments.file, "r") as f:
        count = len(f["images"])
        reference = f["images"][:].astype(numpy.float64)
        expected = float(((reference / 255 - 0.1307) / 0.3081).sum())
        expected_labels = float(f["labels"][:].astype(numpy.int64).sum())
        del reference
    # A batch that divides the set: then so many steps are exactly one epoch on both sides.
    whole = next(b for b in range(arguments.batch, 0, -1) if count % b == 0)
    sides = {"dtrain, file": ours(arguments, whole, count // whole, 0), "dtrain, memory": ours(arguments, whole, count // whole, 1024),
             "h5py + DataLoader": peer(arguments.file, whole, count // whole, 0)}
    for name, result in sides.items():
        # Sums of float32 batches against float64: 1e-5 of the sum of magnitudes is far above rounding.
        assert result["samples"] == count and result["label_sum"] == expected_labels, (name, result)
        assert abs(result["sum"] - expected) < 1e-5 * count * 784, (name, result["sum"], expected)
    print(f"one epoch of {count} samples: the same sums on all sides ({expected:.1f} and {expected_labels:.0f})")

    # Processor time of all threads a sample: what is left to compare on a machine that others use too.
    processor = {"file": [], "memory": [], "0": []}
    rates = {"file": [], "memory": [], "0": [], "1": [], "2": []}
    for _ in range(arguments.runs):
        for name, cache in (("file", 0), ("memory", 1024)):
            r = ours(arguments, arguments.batch, arguments.steps, cache)
            rates[name].append(r["samples"] / r["seconds"])
            processor[name].append(r["processor_seconds"] / r["samples"])
        for workers in (0, 1, 2):
            r = peer(arguments.file, arguments.batch, arguments.peer_steps, workers)
            rates[str(workers)].append(r["samples"] / r["seconds"])
            if workers == 0:
                processor["0"].append(r["processor_seconds"] / r["samples"])
    median = {name: statistics.median(values) for name, values in rates.items()}
    best = max(median[w] for w in ("0", "1", "2"))
    print(f"medians of {arguments.runs} interleaved runs, samples/s, batch {arguments.batch}:")
    for name in ("file", "memory"):
        print(f"  dtrain, 1 prefetch thread, {name:7s} {median[name]:12.0f}   {median[name] / best:6.1f}x")
    for workers in ("0", "1", "2"):
        print(f"  h5py + DataLoader, {workers} workers     {median[workers]:12.0f}   {median[workers] / best:6.1f}x")
    used = {name: statistics.median(values) * 1e6 for name, values in processor.items()}
    print(f"processor time a sample, microseconds: dtrain file {used['file']:.2f} ({used['0'] / used['file']:.1f}x), memory "
          f"{used['memory']:.2f} ({used['0'] / used['memory']:.1f}x), h5py + DataLoader without workers {used['0']:.2f}")
    print(json.dumps({"medians": median, "processor_microseconds": used, "ratio_file": median["file"] / best, "ratio_memory": median["memory"] / best}))


if __name__ == "__main__":
    main()
