# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads every tensor file of a directory with the reference readers and prints what they see as JSON."""
import hashlib
import json
import os
import sys
import warnings

warnings.simplefilter("ignore")


def safetensors(path):
    from safetensors import deserialize

    with open(path, "rb") as f:
        tensors = deserialize(f.read())
    return [
        {"name": name, "dtype": t["dtype"], "shape": [str(n) for n in t["shape"]], "sha256": hashlib.sha256(t["data"]).hexdigest()}
        for name, t in tensors
    ]


def gguf(path):
    from gguf import GGUFReader

    return [
        {"name": t.name, "dtype": t.tensor_type.name, "shape": [str(n) for n in reversed(t.shape)], "at": int(t.data_offset), "size": int(t.n_bytes)}
        for t in GGUFReader(path).tensors
    ]


def main(directory):
    out = {}
    for name in sorted(os.listdir(directory)):
        read = safetensors if name.endswith(".safetensors") else gguf
        try:
            out[name] = {"tensors": read(os.path.join(directory, name))}
        except Exception as e:  # whatever they raise, they refused
            out[name] = {"refused": f"{type(e).__name__}: {e}"[:200]}
    json.dump(out, sys.stdout)


main(sys.argv[1])
