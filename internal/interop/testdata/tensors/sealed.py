# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Compares a model in sealed memory with the directory that was pushed, and fails to change it."""
import errno
import mmap
import os
import sys

import modelsec_files
import numpy
import safetensors
import safetensors.numpy

original = sys.argv[1]
tensors = 0
for name in modelsec_files.descriptors():
    with open(os.path.join(original, name), "rb") as want, modelsec_files.open_file(name) as got:
        assert want.read() == got.read(), f"{name} differs"
    if not name.endswith(".safetensors"):
        continue
    want = safetensors.numpy.load_file(os.path.join(original, name))
    with safetensors.safe_open(modelsec_files.path(name), framework="np") as f:
        assert set(f.keys()) == set(want)
        for key in f.keys():
            assert numpy.array_equal(f.get_tensor(key), want[key]), f"{key} differs"
            tensors += 1
    for attempt in (
        lambda fd: os.pwrite(fd, b"x", 100),
        lambda fd: os.ftruncate(fd, 1),
        lambda fd: mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        try:
            attempt(modelsec_files.descriptor(name))
        except OSError as e:
            assert e.errno == errno.EPERM, e
        else:
            raise AssertionError(f"{name} was changed")
print(tensors)
