# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Prints the norm of every tensor of a model that modelsec exec handed over."""
import modelsec_files
import numpy
import safetensors

with safetensors.safe_open(modelsec_files.path("model.safetensors"), framework="np") as f:
    for name in sorted(f.keys()):
        tensor = f.get_tensor(name)
        print(f"{name} {tensor.dtype} {list(tensor.shape)} {numpy.linalg.norm(tensor.astype(numpy.float64)):.6f}")
