# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Loads the weights of a model with torch, out of sealed memory or through the gateway, and compares every tensor with the directory that was pushed."""
import os
import sys

import safetensors.torch
import torch

original = sys.argv[1]
if "MODELSEC_FILES" in os.environ:
    import modelsec_files

    names = list(modelsec_files.descriptors())

    def load(name):
        return safetensors.torch.load_file(modelsec_files.path(name))
else:
    import boto3

    s3 = boto3.client("s3")
    names = [o["Key"] for o in s3.list_objects_v2(Bucket="model")["Contents"]]

    def load(name):
        return safetensors.torch.load(s3.get_object(Bucket="model", Key=name)["Body"].read())


tensors = 0
for name in names:
    if not name.endswith(".safetensors"):
        continue
    got, want = load(name), safetensors.torch.load_file(os.path.join(original, name))
    assert set(got) == set(want)
    for key in want:
        assert got[key].dtype == want[key].dtype and torch.equal(got[key], want[key]), f"{key} differs"
        tensors += 1
print(tensors)
