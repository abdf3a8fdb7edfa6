# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Loads a model through the gateway as vLLM does with --load-format runai_streamer and compares it with the directory that was pushed."""
import os
import sys
import tempfile

import safetensors.torch
import torch
from runai_model_streamer import ObjectStorageModel, SafetensorsStreamer, list_safetensors

original = sys.argv[1]
model = "s3://model/"
with tempfile.TemporaryDirectory() as small:
    with ObjectStorageModel(model, small) as files:
        files.pull_files(ignore_pattern=["*.safetensors"])
    for folder, _, names in os.walk(original):
        for name in names:
            path = os.path.join(folder, name)
            pulled = os.path.join(small, os.path.relpath(path, original))
            if name.endswith(".safetensors"):
                assert not os.path.exists(pulled)
                continue
            with open(path, "rb") as want, open(pulled, "rb") as got:
                assert want.read() == got.read(), f"{pulled} differs"
shards = list_safetensors(model)
wanted = {}
for shard in shards:
    wanted |= safetensors.torch.load_file(os.path.join(original, shard.removeprefix(model)))
count = len(wanted)
with SafetensorsStreamer() as streamer:
    streamer.stream_files(shards, device="cpu", is_distributed=False)
    for name, tensor in streamer.get_tensors():
        want = wanted.pop(name)
        assert tensor.dtype == want.dtype and torch.equal(tensor, want), f"{name} differs"
assert not wanted, f"not streamed: {list(wanted)}"
print(count)
