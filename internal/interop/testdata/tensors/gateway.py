# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads a model through the gateway with boto3 and compares it with the directory that was pushed."""
import os
import sys

import boto3
import botocore.exceptions
import numpy
import safetensors.numpy

original = sys.argv[1]
s3 = boto3.client("s3")
pages = s3.get_paginator("list_objects_v2").paginate(Bucket="model", PaginationConfig={"PageSize": 3})
listed = {o["Key"]: o["Size"] for page in pages for o in page["Contents"]}
files = {}
for folder, _, names in os.walk(original):
    for name in names:
        path = os.path.join(folder, name)
        files[os.path.relpath(path, original)] = os.path.getsize(path)
assert listed == files, (listed, files)
for key in listed:
    assert s3.head_object(Bucket="model", Key=key)["ContentLength"] == files[key]
    with open(os.path.join(original, key), "rb") as f:
        want = f.read()
    got = s3.get_object(Bucket="model", Key=key)["Body"].read()
    assert got == want, f"{key} differs"
    part = s3.get_object(Bucket="model", Key=key, Range="bytes=10-99")["Body"].read()
    assert part == want[10:100], f"a part of {key} differs"
    if key.endswith(".safetensors"):
        tensors, wanted = safetensors.numpy.load(got), safetensors.numpy.load(want)
        assert set(tensors) == set(wanted) and all(numpy.array_equal(tensors[n], wanted[n]) for n in wanted)
stranger = boto3.client("s3", aws_access_key_id="x", aws_secret_access_key="y")
for attempt in (
    lambda: s3.put_object(Bucket="model", Key="config.json", Body=b"{}"),
    lambda: s3.delete_object(Bucket="model", Key="config.json"),
    lambda: s3.get_object(Bucket="model", Key="missing"),
    lambda: stranger.get_object(Bucket="model", Key="config.json"),
):
    try:
        attempt()
    except botocore.exceptions.ClientError:
        pass
    else:
        raise AssertionError("the gateway did what it should not")
print(len(listed))
