# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""Tests format_check.py, and with it artifacts and FORMAT.md.

    python3 docs/format_check_test.py [LAYOUT TAG [KEYFILE]]

Without arguments it tests small rules and the vectors. With an artifact in an OCI image layout it also holds the artifact
to the rules that only writers must keep, and flips bits of every blob that the artifact consists of: the reader must
refuse each time. KEYFILE is an identity that opens it.
"""

import io
import json
import re
import shutil
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

import format_check as fc
from format_check import FILEPATH, MANIFEST, MIB, MODEL, ROLES, Violation, layer_kind, need, record

METADATA = "org.cncf.model.file.metadata+json"
ARGS = sys.argv[1:]
VECTORS = Path(__file__).parent.parent / "encrypt/testdata/vectors"


def go_json(v):
    """Encodes as Go does: compact, HTML escapes."""
    text = json.dumps(v, ensure_ascii=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def check_writer(a):
    """What §2 asks of writers and readers need not look at."""
    m, raw, profile, config = a.m, a.raw, a.profile, a.config

    def descriptor(d):
        out = {k: d[k] for k in ("mediaType", "digest", "size")}
        return out | ({"annotations": dict(sorted(d["annotations"].items()))} if d["annotations"] else {})

    canonical = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": MODEL, "config": descriptor(m["config"]),
                 "layers": [descriptor(d) for d in m["layers"]], "annotations": dict(sorted(m["annotations"].items()))}
    need(go_json(canonical).encode() == raw, "2", "the manifest has another encoding")
    need(profile == "plain" or len(m["annotations"]) == 2, "2", "other annotations in the encrypted profile")
    need(len(m["layers"]) <= 401 and len(raw) <= 2 * MIB, "2.5", "too many layers, or too large a manifest")
    # FORMAT.md §2.1
    record(config, "2.1", "config", dict.fromkeys(("descriptor", "config", "modelfs"), lambda v: isinstance(v, dict)))
    need(config["modelfs"] == {"type": "layers", "diffIds": [d["digest"] for d in m["layers"]]}, "2.1", "modelfs")
    if profile == "encrypted":
        need(config["descriptor"] == {"name": "encrypted"} and config["config"] == {"format": "floe"}, "2.1",
             "the config is not neutral")
        return
    order = []
    for i, d in enumerate(m["layers"][:-1]):  # FORMAT.md §2.2
        name, (role, packed) = d["annotations"][FILEPATH], layer_kind(d)
        meta = {"name": name.rsplit("/", 1)[-1], "mode": 420, "uid": 0, "gid": 0, "size": d["size"],
                "mtime": "1970-01-01T00:00:00Z", "typeflag": 0}
        need(d["annotations"].get(METADATA) == go_json(meta), "2.2", f"layer {i} has other metadata")
        order.append((ROLES.index(role), packed, name.count("/"), re.sub(r"\.part[0-9]{5}$", "", name).encode(),
                      name.encode()))
    need(order == sorted(order), "2.2", "layers in another order")


def check_packed(content, runs, files):
    """FORMAT.md §5.3, for writers: the archive agrees with the runs."""
    try:
        entries = list(tarfile.open(fileobj=io.BytesIO(content), mode="r:"))
    except tarfile.TarError as e:
        raise Violation("5.3", f"no archive: {e}") from None
    need([(e.offset_data, e.size, e.name) for e in entries if e.size] == [r[:3] for r in runs if r[1]]
         and {e.name for e in entries} == {r[2] for r in runs}, "5.3", "runs do not point at the entries")
    for e in entries:
        need(e.isreg() and (e.mode, e.uid, e.gid, e.uname, e.gname, e.mtime) == (0o644, 0, 0, "", "", 0), "5.3",
             f"{e.name!r} has other metadata")
    order = [(ROLES.index(files[e.name]["role"]), e.name.count("/"), e.name.encode()) for e in entries]
    need(order == sorted(order), "5.3", "entries in another order")
    end = entries[-1].offset_data + -(-entries[-1].size // 512) * 512
    need(content[end:] == bytes(1024), "5.3", "the archive does not end with two zero blocks")


class Rules(unittest.TestCase):
    def refused(self, section, f, *args):
        with self.assertRaises(Violation) as e:
            f(*args)
        self.assertIn(f"§{section}:", str(e.exception))

    def test_json(self):
        for bad in (b"", b"{", b"{}x", b"{}{}", b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b"\xff", b'"\xff"', b'"\\ud800"',
                    b"NaN", b"-0", b"01", b"\xef\xbb\xbf{}", b"[" * 33 + b"]" * 33, b"[" * 9999):
            self.refused("3", fc.parse_json, bad, "3")
        fc.parse_json(b"[" * 32 + b"1" + b"]" * 32, "3")

    def test_paths(self):
        for bad in ("", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a:b", "a\x00b", "a\x7fb", "a.", "a ", "CON", "con.txt",
                    "a/Lpt9.tar.gz", ".modelsec", ".modelsec-x/a", "a" * 256, "\u00e9" * 128, "a/" * 512 + "b"):
            self.refused("5.2", fc.check_paths, [bad])
        for a, b in (("a", "A"), ("s", "\u017f"), ("k", "\u212a"), ("\u00df", "\u1e9e"), ("d", "D/x"), ("d/e", "D")):
            self.refused("5.2", fc.check_paths, [a, b])
        fc.check_paths(["\u00df", "ss", "a/.modelsec", "com", "com10", "\u00e9", "e\u0301", "d/x", "D/y"])

    def test_geometry(self):
        s = 65536
        for size in (0, 105, 74 + s + 32 + 32, 74 + s + 32 + 1):
            self.refused("5", fc.Layer, "encrypted", size, s)
        for length, count in ((0, 1), (1, 1), (s, 1), (s + 1, 2), (2 * s, 2), (1 << 40, 1 << 24)):
            layer = fc.Layer("encrypted", 74 + length + 32 * count, s)
            self.assertEqual((layer.length, layer.count), (length, count))
        self.assertEqual([fc.Layer("plain", n, s).count for n in (0, 1, s, s + 1)], [0, 1, 1, 2])

    def test_files(self):
        def check(*runs, size=10, lengths={0: 10}):
            fc.check_files([{"path": f"f{i}", "role": "doc", "size": size, "runs": r} for i, r in enumerate(runs)], lengths)
        check([[0, 0, 0, 10]])
        check([[0, 0, 4, 6], [6, 0, 0, 4]])
        check([[0, 0, 10, 0]], size=0)
        for bad in ([], [[0, 0, 0, 9]], [[1, 0, 1, 9]], [[0, 0, 1, 10]], [[0, 1, 0, 10]], [[0, 0, 0, 10], [10, 0, 0, 0]],
                    [[0, 0, 0]], [[0, 0, 0, 10.0]], [[0, 0, True, 10]], [[0, 0, 0, 6], [6, 0, 5, 4]], [None], [[0, 0, 2**64, 10]]):
            self.refused("5.1", check, bad)
        self.refused("5.1", check, [[0, 0, 0, 10]], [[0, 0, 0, 10]])

    @unittest.skipUnless(VECTORS.is_dir(), "no vectors")
    def test_vectors(self):
        count, complaints = fc.run_vectors(VECTORS)
        self.assertEqual(complaints, [])
        self.assertGreater(count, 100)


@unittest.skipUnless(ARGS, "no artifact given")
class Artifact(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(tempfile.TemporaryDirectory())
        self.identities = [fc.parse_key_file(Path(ARGS[2]).read_text())] if ARGS[2:] else []

    def open(self, root):
        a = fc.open_artifact(fc.Layout(root), ARGS[1], identities=self.identities)
        fc.read_content(a)
        return a

    def test_writer(self):
        a = self.open(ARGS[0])
        check_writer(a)
        for i, layer in enumerate(a.layers):
            whole = a.runs and len(a.runs[i]) == 1 and a.runs[i][0][:2] == (0, layer.length)
            if a.files and not whole:
                check_packed(b"".join(data for _, data in fc.read_layer(a, i)), a.runs[i], {f["path"]: f for f in a.files})

    def test_flips(self):
        root = Path(self.dir, "layout")
        shutil.copytree(ARGS[0], root)
        a = self.open(root)
        blobs = {a.manifest, *(d["digest"] for d in [a.m["config"]] + a.m["layers"])}
        if a.profile == "encrypted" and a.files:  # without its grant it does not open
            for d, m in a.layout.referrers(a.manifest):
                if m["artifactType"] == fc.GRANT:
                    blobs |= {d, m["layers"][0]["digest"]}
        for digest in sorted(blobs):
            path = a.layout.path(digest)
            good = path.read_bytes()
            step = max(1, len(good) // 1024)
            for i in {*range(0, len(good), step), *range(max(0, len(good) - 64), len(good))}:
                path.write_bytes(good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1:])
                with self.assertRaises(Violation, msg=f"byte {i} of {digest}"):
                    self.open(root)
            for bad in (good[:-1], good + b"\0", b""):
                if bad != good:
                    path.write_bytes(bad)
                    with self.assertRaises(Violation, msg=f"length of {digest}"):
                        self.open(root)
            path.unlink()
            with self.assertRaises(Violation, msg=f"without {digest}"):
                self.open(root)
            path.write_bytes(good)
        self.open(root)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
