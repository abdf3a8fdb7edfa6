# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Files of a model that `modelsec exec` put into sealed memory.

    modelsec exec REF --key signing.pub --identity identity.key -- python3 serve.py

    import modelsec_files, safetensors
    with safetensors.safe_open(modelsec_files.path("model.safetensors"), framework="np") as f:
        weights = {name: f.get_tensor(name) for name in f.keys()}

Every file was verified and decrypted before this process began, is in no file
system, and cannot be changed by any process: path() and open_file() check the
seals that say so. The paths are of this process: a process that it starts
needs descriptors of its own (pass_fds of subprocess).
"""
import fcntl
import json
import os

# From linux/fcntl.h: seal, shrink, grow, write.
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8
_F_GET_SEALS = 1034


class NotSealed(Exception):
    """A descriptor is not one of sealed memory."""


def descriptors() -> dict[str, int]:
    """The descriptor of every file, by its path in the model."""
    try:
        files = json.loads(os.environ["MODELSEC_FILES"])
    except KeyError:
        raise NotSealed("MODELSEC_FILES is not set: this process was not started by modelsec exec") from None
    return {name: int(fd) for name, fd in files.items()}


def descriptor(name: str) -> int:
    """The descriptor of one file, whose seals were checked."""
    try:
        fd = descriptors()[name]
    except KeyError:
        raise FileNotFoundError(f"the model has no file {name!r}, or exec was not asked for it") from None
    try:
        seals = fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError as e:
        raise NotSealed(f"{name!r}: descriptor {fd} is not a file in memory") from e
    if seals & _ALL_SEALS != _ALL_SEALS:
        raise NotSealed(f"{name!r}: descriptor {fd} has seals {seals:#x}, want {_ALL_SEALS:#x}")
    return fd


def path(name: str) -> str:
    """A path by which any library of this process opens the file to read it."""
    return f"/proc/self/fd/{descriptor(name)}"


def open_file(name: str):
    """The file, opened to read bytes, at its beginning."""
    return open(path(name), "rb")
