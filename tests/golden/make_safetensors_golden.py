#!/usr/bin/env python3
"""Makes small.safetensors: tensors of every type that both NumPy and the safetensors package know, an empty and a scalar one.

    python3 tests/golden/make_safetensors_golden.py        # needs torch and safetensors; a second
"""
import pathlib

import safetensors.torch
import torch

values = [0, 1, 2, 100, 127]
tensors = {f"of.{name}": torch.tensor(values).to(getattr(torch, name)) for name in
           ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")}
tensors["matrix"] = torch.tensor([[1.5, -2.25, 3e-5], [65504, -0.0, 1e9]])
tensors["halves"] = torch.tensor([6e-8, 65504.0, -1.0009765625]).half()
tensors["empty"] = torch.zeros(0, 4)
tensors["scalar"] = torch.tensor(7.5)
tensors["a \"name\" of others: ü"] = torch.tensor([1.0])
safetensors.torch.save_file(tensors, pathlib.Path(__file__).parent / "small.safetensors", metadata={"format": "pt", "who": "golden"})
