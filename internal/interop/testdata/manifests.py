# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Validates Kubernetes manifests against published schemas, strictly.

    manifests.py CRD MANIFEST...

Kinds of Kubernetes by the schemas in kubernetes-validate, the kind of the CRD
by its own. Members that a schema does not know are errors: an API server
drops them without a word.
"""
import sys

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.35"


def closed(schema):
    """A structural schema that admits no unknown members."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: closed(v) for k, v in schema.items()}
    if isinstance(out.get("properties"), dict) and "additionalProperties" not in out and not out.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    # Quantities and ports are "integer or string" in the dialect of CRDs.
    if out.pop("x-kubernetes-int-or-string", False):
        out.pop("type", None)
    return out


def main(crd_path, *paths):
    with open(crd_path) as f:
        crd = yaml.safe_load(f)
    versions = {
        f"{crd['spec']['group']}/{v['name']}": closed(v["schema"]["openAPIV3Schema"]) for v in crd["spec"]["versions"]
    }
    for path in paths:
        with open(path) as f:
            documents = list(yaml.safe_load_all(f))
        for d in documents:
            print(path, d["apiVersion"], d["kind"])
            if d["kind"] == crd["spec"]["names"]["kind"]:
                schema = versions[d["apiVersion"]]
                schema["properties"]["metadata"] = {"type": "object"}
                jsonschema.Draft202012Validator(schema).validate(d)
            else:
                kubernetes_validate.validate(d, VERSION, strict=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
