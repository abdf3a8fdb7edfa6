# Copyright The modelsec Authors
# SPDX-License-Identifier: Apache-2.0
"""A second reader of modelsec artifacts, written from FORMAT.md alone.

    python3 docs/format_check.py LAYOUT TAG|DIGEST [--key PUB.pem]... [--name NAME] [--identity KEYFILE]... [--out DIR]
    python3 docs/format_check.py --vectors encrypt/testdata/vectors

It resolves a tag or digest in an OCI image layout, verifies the signed release, checks the manifest, index, grants and
every segment, and decrypts. It exits with 0 and a summary, or with 1 and one line that names the section of FORMAT.md
that the artifact breaks. It shares no code with the Go packages and is meant to be read beside the text; it is no
replacement for them (policies, key services, registries and side channels are out of its reach). Needs Python 3.11 and
`cryptography` 48 or later, for ML-KEM.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
GRANT = "application/vnd.modelsec.grant.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
FLOE_LAYER = "application/vnd.cncf.model.weight.v1.raw+floe"
INDEX_LAYER = "application/vnd.cncf.model.doc.v1.raw"
FILEPATH, TITLE = "org.cncf.model.filepath", "org.opencontainers.image.title"
RELEASE = "https://modelsec.github.io/release/v1"
GRANTED = "https://modelsec.github.io/grant/v1"
SLSA = "https://slsa.dev/provenance/v1"
ROLES = ["weight", "weight.config", "code", "doc", "dataset"]
SEGMENT_SIZES = (65536, 262144, 1048576, 4194304, 16777216)
MIB = 1 << 20
HEADER, OVERHEAD = 74, 32  # FLOE: bytes of the header, and what a segment adds
FORMAT, DECRYPT = "format failure", "decrypt failure"


class Violation(Exception):
    """Says which section of FORMAT.md does not hold, and of what kind the failure is (for vectors)."""

    def __init__(self, section, message, kind=FORMAT):
        super().__init__(f"FORMAT.md §{section}: {message}")
        self.kind = kind


def need(condition, section, message, kind=FORMAT):
    if not condition:
        raise Violation(section, message, kind)


# ---- strict JSON, FORMAT.md §3 ----

def parse_json(data, section, limit=4 * MIB):
    """Decodes one JSON document: UTF-8, no repeated key, nothing behind it, depth at most 32 (§11)."""
    def pairs(items):
        need(len(dict(items)) == len(items), section, "a JSON key is repeated")
        return dict(items)

    def refuse(token):
        raise Violation(section, f"{token} is no JSON number of this format")

    def depth(v, d=1):
        if isinstance(v, (dict, list)):
            need(d <= 32, section, "JSON is nested too deep")
            for x in v.values() if isinstance(v, dict) else v:
                depth(x, d + 1)

    need(len(data) <= limit, section, f"JSON of {len(data)} bytes")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=refuse,
                           parse_int=lambda s: int(s) if s != "-0" else refuse(s))
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on half a surrogate pair
    except (ValueError, RecursionError) as e:
        raise Violation(section, f"not JSON in UTF-8 ({type(e).__name__})") from None
    depth(value)
    return value


def record(v, section, what, required, optional=None):
    """Checks an object with a closed set of members; values are tests."""
    need(isinstance(v, dict), section, f"{what} is no object")
    tests = required | (optional or {})
    for name in v:
        need(name in tests, section, f"{what} has the unknown member {name!r}")
    for name, test in tests.items():
        need(name in v or name not in required, section, f"{what} lacks {name}")
        need(name not in v or test(v[name]), section, f"{what} has an unsuitable {name}")
    return v


def uint(v):
    return type(v) is int and v >= 0


def is_text(v):
    return isinstance(v, str)


def is_list(v):
    return isinstance(v, list)


def is_digest(v):
    return is_text(v) and re.fullmatch(r"sha256:[0-9a-f]{64}", v) is not None


def is_hex(n):
    return lambda v: is_text(v) and re.fullmatch(f"[0-9a-f]{{{2 * n}}}", v) is not None


def unbase64(v):
    """Returns the bytes, or None unless v is their one encoding (§8.1)."""
    try:
        raw = base64.b64decode(v, validate=True)
    except (TypeError, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == v else None


def is_base64(low, high):
    return lambda v: is_text(v) and (raw := unbase64(v)) is not None and low <= len(raw) <= high


def seconds(v):
    """Returns seconds since 1970, or None unless v is RFC 3339, UTC as Z, whole seconds, after 1970 began (§8.1)."""
    if not is_text(v) or re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", v) is None:
        return None
    try:
        t = int(datetime.strptime(v, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        return None
    return t if t > 0 and v[17:19] < "60" else None


def is_time(v):
    return seconds(v) is not None


def sha256(data):
    return hashlib.sha256(data).digest()


# ---- OCI image layout ----

class Layout:
    def __init__(self, root):
        self.root = Path(root)
        try:
            version = parse_json((self.root / "oci-layout").read_bytes(), "1")
            index = parse_json((self.root / "index.json").read_bytes(), "1", 64 * MIB)
            need(version["imageLayoutVersion"] == "1.0.0", "1", "not an OCI image layout 1.0.0")
            self.entries = [e for e in index["manifests"]]
            need(all(is_digest(e["digest"]) for e in self.entries), "1", "index.json has an unsuitable digest")
        except (OSError, KeyError, TypeError) as e:
            raise Violation("1", f"not an OCI image layout: {e}") from None

    def path(self, digest):
        return self.root / "blobs" / "sha256" / digest[7:]

    def blob(self, digest, limit, section, size=None):
        """Reads a blob whole and compares it with its digest."""
        try:
            with open(self.path(digest), "rb") as f:
                data = f.read(limit + 1)
        except OSError as e:
            raise Violation(section, f"{digest} cannot be read: {e.strerror}") from None
        need(len(data) <= limit, section, f"{digest} is over {limit} bytes")
        need(size is None or len(data) == size, section, f"{digest} has {len(data)} bytes, not {size}")
        need("sha256:" + sha256(data).hex() == digest, section, f"{digest} has another digest")
        return data

    def resolve(self, ref):
        if is_digest(ref):
            return ref
        found = {e["digest"] for e in self.entries
                 if (e.get("annotations") or {}).get("org.opencontainers.image.ref.name") == ref}
        need(len(found) == 1, "7", f"tag {ref!r} names {len(found)} manifests")
        return found.pop()

    def referrers(self, digest):
        """Yields (digest, manifest) of what has the manifest as its subject, classified by what was fetched (§8)."""
        need(len(self.entries) <= 10000, "11", "more than 10,000 entries")
        for d in sorted({e["digest"] for e in self.entries} - {digest}):
            try:
                m = parse_manifest(self.blob(d, 4 * MIB, "8"), "8")
            except Violation:
                continue
            if "subject" in m and m["subject"]["digest"] == digest and (
                    m["config"]["mediaType"], m["config"]["digest"]) == (EMPTY, "sha256:" + sha256(b"{}").hex()):
                yield d, m


# ---- manifest, FORMAT.md §2 ----

MANIFEST_MEMBERS = "schemaVersion mediaType artifactType config layers subject annotations manifests".split()
DESCRIPTOR_MEMBERS = "mediaType digest size urls annotations data platform artifactType".split()


def exact(v, names, section):
    """Refuses names in another case, which some JSON decoders take for the same."""
    folded = {n.lower(): n for n in names}
    for name in v:
        need(folded.get(name.lower(), name) == name, section, f"member {name!r} in another case")


def parse_manifest(data, section="2"):
    m = parse_json(data, section)
    need(isinstance(m, dict) and "manifests" not in m, section, "not an image manifest")
    exact(m, MANIFEST_MEMBERS, section)
    need(m.get("mediaType") == MANIFEST and uint(m.get("schemaVersion")) and m["schemaVersion"] == 2, section,
         "not an OCI image manifest")
    need(is_list(m.get("layers")) and len(m["layers"]) <= 4096, section, "unsuitable layers")
    for d in [m.get("config")] + m["layers"] + ([m["subject"]] if "subject" in m else []):
        need(isinstance(d, dict) and is_text(d.get("mediaType")) and uint(d.get("size")) and is_digest(d.get("digest")),
             section, "unsuitable descriptor")
        exact(d, DESCRIPTOR_MEMBERS, section)
        d.setdefault("annotations", {})
    m.setdefault("annotations", {})
    for a in [m["annotations"]] + [d["annotations"] for d in m["layers"]]:
        need(isinstance(a, dict) and all(map(is_text, a.values())), section, "unsuitable annotations")
    return m


def check_manifest(m):
    """Checks a model manifest and returns its profile."""
    need(m.get("artifactType") == MODEL, "2", "artifactType is not that of a model")
    need(m["config"]["mediaType"] == CONFIG, "2", "config.mediaType is not that of a model")
    profile = m["annotations"].get("io.github.modelsec.profile")
    need(profile in ("plain", "encrypted"), "2", f"profile {profile!r}")
    # FORMAT.md §2.4: one index, last, by digest and by name.
    digest = m["annotations"].get("io.github.modelsec.index")
    need(is_digest(digest), "2.4", "no annotation names the index")
    by_digest = [i for i, d in enumerate(m["layers"]) if d["digest"] == digest]
    by_name = [i for i, d in enumerate(m["layers"]) if d["annotations"].get(FILEPATH) == ".modelsec.index"]
    need(by_digest == by_name == [len(m["layers"]) - 1], "2.4", "not exactly one layer, the last, is the index")
    last = m["layers"][-1]
    need(last["mediaType"] == INDEX_LAYER and TITLE not in last["annotations"], "2.4", "index with another form")
    need(len(m["layers"]) > 1, "2", "no content layers")
    tars = dict.fromkeys(ROLES, 0)
    for i, d in enumerate(m["layers"][:-1]):
        if profile == "encrypted":  # FORMAT.md §2.3
            name = f"{i + 1:05d}.floe"
            need(d["mediaType"] == FLOE_LAYER, "2.3", f"layer {i} has media type {d['mediaType']}")
            need(d["annotations"] == {FILEPATH: name, TITLE: name}, "2.3", f"layer {i} has other annotations")
        else:  # FORMAT.md §2.2
            role, packed = layer_kind(d)
            name, title = d["annotations"].get(FILEPATH), d["annotations"].get(TITLE)
            need(name is not None and title == (None if packed else name), "2.2", f"layer {i}: filepath and title")
            tars[role] += packed
            need(not packed or name == f".modelsec-packed/{role}-{tars[role]:05d}.tar", "2.2",
                 f"layer {i}: filepath of a packed layer")
    return profile


def layer_kind(d):
    """Returns role and whether packed of a layer of the plain profile (§2.2)."""
    kind = re.fullmatch(r"application/vnd\.cncf\.model\.(.+)\.v1\.(raw|tar)", d["mediaType"])
    need(kind and kind[1] in ROLES, "2.2", f"media type {d['mediaType']!r}")
    return kind[1], kind[2] == "tar"


# ---- index, FORMAT.md §3 to §5 ----

class Layer:
    """Where the segments of a layer are (§5)."""

    def __init__(self, profile, size, segment):
        need(size <= 1 << 50, "11", f"a layer of {size} bytes")
        self.size, self.segment, self.first, self.extra = size, segment, 0, 0
        self.length, self.count = size, -(-size // segment)
        if profile == "encrypted":
            need(size >= HEADER + OVERHEAD, "5", f"an encrypted layer of {size} bytes")
            self.count = -(-(size - HEADER) // (segment + OVERHEAD))
            self.length = size - HEADER - OVERHEAD * self.count
            self.first, self.extra = HEADER, OVERHEAD
            need(self.length >= 0 and self.count == max(1, -(-self.length // segment)), "5",
                 f"no content has {size} bytes when encrypted")

    def stored(self, k):
        """Returns blob offset and stored length of segment k."""
        content = min((k + 1) * self.segment, self.length) - k * self.segment
        return self.first + k * (self.segment + self.extra), content + self.extra


def parse_index(data, m, profile):
    """Returns the header and the layers, each with the digests of its segments."""
    need(len(data) >= 8, "3", "the index is too short")
    n = int.from_bytes(data[:8], "little")
    need(2 <= n <= 16 * MIB and 8 + n <= len(data), "3", f"a header of {n} bytes")
    own = {"files": is_list} if profile == "plain" else {"encryption": lambda v: isinstance(v, dict)}
    h = record(parse_json(data[8:8 + n], "4", 16 * MIB), "4", "the index header",
               {"formatVersion": lambda v: type(v) is int and v == 1, "profile": lambda v: v == profile,
                "segmentSize": lambda v: type(v) is int and v in SEGMENT_SIZES, "layers": is_list} | own)
    for d in h["layers"]:
        record(d, "4", "a layer", {"digest": is_digest, "size": uint})
    need(h["layers"] == [{"digest": d["digest"], "size": d["size"]} for d in m["layers"][:-1]], "4",
         "layers are not those of the manifest")
    layers = [Layer(profile, d["size"], h["segmentSize"]) for d in h["layers"]]
    at = 8 + n
    need(len(data) == at + 32 * sum(layer.count for layer in layers), "3", "another number of segment digests")
    for layer in layers:
        layer.digests, at = [data[at + 32 * k:at + 32 * k + 32] for k in range(layer.count)], at + 32 * layer.count
    return h, layers


def fold(s):
    """Simple Unicode case folding: one character for one, so ß stays."""
    return "".join(f if len(f := c.casefold()) == 1 else low if len(low := c.lower()) == 1 else c for c in s)


def check_paths(paths):
    """FORMAT.md §5.2"""
    for p in paths:
        need(1 <= len(p.encode()) <= 1024, "5.2", "a path of unsuitable length")
        need(not re.search("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\\\\:]", p), "5.2", f"{p!r} has a character that is refused")
        for c in p.split("/"):
            need(1 <= len(c.encode()) <= 255 and c[-1] not in ". ", "5.2", f"{p!r} has an unsuitable component")
            need(not re.fullmatch(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])", c.split(".")[0].rstrip(" "), re.ASCII), "5.2",
                 f"{p!r} has a reserved name")
        need(not p.lower().startswith(".modelsec"), "5.2", f"{p!r} is reserved")
    folded = {fold(p) for p in paths}
    need(len(folded) == len(paths), "5.2", "two paths are equal")
    for p in folded:
        while "/" in p:
            p = p.rsplit("/", 1)[0]
            need(p not in folded, "5.2", f"{p!r} is a file and a directory")


def check_files(files, layers, m=None):
    """FORMAT.md §5.1. layers has the content length of each layer; m, in the plain profile, is the manifest. Returns the
    runs of each layer as (layerOffset, length, path, fileOffset), sorted."""
    need(is_list(files) and len(files) <= 65536, "5.1", "unsuitable files")
    runs, owner = {i: [] for i in layers}, {i: [] for i in layers}
    for f in files:
        record(f, "5.1", "a file", {"path": is_text, "role": lambda v: v in ROLES, "size": uint, "runs": is_list})
        at = 0
        for r in f["runs"]:
            need(is_list(r) and len(r) == 4 and all(map(uint, r)), "5.1", f"{f['path']!r} has an unsuitable run")
            start, layer, offset, length = r
            need(layer in layers, "5.1", f"{f['path']!r} has a run in a layer that is not there")
            need(start == at and offset + length <= layers[layer], "5.1", f"{f['path']!r} has a run out of place")
            need(length > 0 or f["size"] == 0 and len(f["runs"]) == 1, "5.1", f"{f['path']!r} has an empty run")
            runs[layer].append((offset, length, f["path"], start))
            owner[layer].append(f)
            at += length
        need(at == f["size"] and f["runs"], "5.1", f"runs of {f['path']!r} do not cover it")
    check_paths([f["path"] for f in files])
    need(sum(map(len, runs.values())) <= 131072, "11", "too many runs")
    for i, of_layer in runs.items():
        of_layer.sort()
        end = 0
        for offset, length, path, _ in of_layer:
            need(offset >= end, "5.1", f"{path!r} overlaps another file in layer {i}")
            end = max(end, offset + length)
        need(of_layer, "5.1", f"layer {i} has no run")
        if m is None:
            continue
        d, (role, packed) = m["layers"][i], layer_kind(m["layers"][i])
        need(all(f["role"] == role for f in owner[i]), "5.1", f"layer {i} has a file of another role")
        if packed:
            need(all(len(f["runs"]) == 1 for f in owner[i]), "5.1", f"packed layer {i} has a part of a file")
            continue
        f = owner[i][0]
        need(len(of_layer) == 1 and of_layer[0][:2] == (0, layers[i]), "5.1", f"raw layer {i} is not one run")
        part = f["runs"].index([of_layer[0][3], i, 0, layers[i]])
        name = f["path"] if len(f["runs"]) == 1 else f"{f['path']}.part{part + 1:05d}"
        need(d["annotations"][FILEPATH] == name, "5.1", f"layer {i} has another filepath than its file")
    return runs


# ---- encryption, FORMAT.md §6 ----

def hkdf_expand(prk, info, length, h="sha384"):
    out = block = b""
    for i in range(1, -(-length // hashlib.new(h).digest_size) + 1):
        block = hmac.digest(prk, block + info + bytes([i]), h)
        out += block
    return out[:length]


def gcm_open(key, nonce, data, aad, section, message, kind=DECRYPT):
    try:
        return AESGCM(key).decrypt(nonce, data, aad)
    except (InvalidTag, ValueError):
        raise Violation(section, message, kind) from None


def derive(dek, label, artifact_id, rest=b""):
    """E(label, rest) of FORMAT.md §6"""
    return hkdf_expand(dek, label.encode() + b"\0" + artifact_id + rest, 32)


def check_encryption(e, layers):
    record(e, "6", "encryption", {"artifactId": is_hex(16), "commitment": is_hex(32), "headers": is_list,
                                  "minWrapClass": lambda v: v in ("post-quantum", "classical"),
                                  "sealed": is_base64(28, 16 * MIB)})
    need(all(map(is_hex(HEADER), e["headers"])) and len(e["headers"]) == len(layers), "6", "unsuitable headers")
    return bytes.fromhex(e["artifactId"]), [bytes.fromhex(h) for h in e["headers"]]


class Part:
    """One layer as a FLOE message (FORMAT.md §6.1, c2sp.org/FLOE)."""

    def __init__(self, dek, artifact_id, i, length, segment, header):
        self.aad = (b"modelsec/v1/part\0" + artifact_id + i.to_bytes(4) + length.to_bytes(8)
                    + (segment + OVERHEAD).to_bytes(4))
        params = bytes([0, 0]) + (segment + OVERHEAD).to_bytes(4) + (32).to_bytes(4)
        need(len(header) == HEADER and header[:10] == params, "6.1", f"layer {i}: FLOE parameters", "header failure")
        self.layer, self.prefix, key = i, header[:42], derive(dek, "modelsec/v1/file", artifact_id, i.to_bytes(4))
        need(hmac.compare_digest(self.kdf(key, b"HEADER_TAG:", 32), header[42:]), "6.1",
             f"layer {i}: FLOE header tag", "header failure")
        self.message_key, self.keys = self.kdf(key, b"MESSAGE_KEY:", 48), {}

    def kdf(self, key, purpose, length):
        return hkdf_expand(key, self.prefix + purpose + self.aad, length)

    def open(self, k, final, stored):
        where, epoch = f"layer {self.layer}, segment {k}", k >> 20 << 20
        word = len(stored) if final else 0xFFFFFFFF
        need(stored[:4] == word.to_bytes(4), "6.1", f"{where}: final-length word", "segment failure")
        if epoch not in self.keys:
            self.keys = {epoch: self.kdf(self.message_key, b"DEK:" + epoch.to_bytes(8), 32)}
        return gcm_open(self.keys[epoch], stored[4:16], stored[16:], k.to_bytes(8) + bytes([final]), "6.1",
                        f"{where}: AES-GCM tag", "segment failure")


# ---- recipients, FORMAT.md §8.4 and §8.7 ----

# type: KEM, KDF, hash of the KDF, bytes of enc, bytes of the public key
TYPES = {"hpke-mlkem768-x25519": (0x647a, 1, "sha256", 1120, 1216),
         "hpke-mlkem768-p256": (0x0050, 1, "sha256", 1153, 1249),
         "hpke-mlkem1024-p384": (0x0051, 2, "sha384", 1665, 1665),
         "hpke-p256": (0x0010, 1, "sha256", 65, 65)}
ORDER = {"secp256r1": 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551,
         "secp384r1": int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)}
RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw
POINT = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint


class Identity:
    """A private key of an HPKE recipient: RFC 9180 and, for the hybrids, draft-ietf-hpke-pq."""

    def __init__(self, kind, private):
        need(kind in TYPES and len(private) == 32, "8.7", f"no private key of type {kind!r}")
        self.kind, self.pq = kind, None
        self.curve = {"hpke-mlkem768-x25519": None, "hpke-mlkem1024-p384": ec.SECP384R1()}.get(kind, ec.SECP256R1())
        if kind == "hpke-p256":
            self.ec = self.scalar(private)
        else:
            n = 48 if "p384" in kind else 32
            seed = hashlib.shake_256(private).digest(64 + (128 if "p256" in kind else n))
            self.pq = (mlkem.MLKEM1024PrivateKey if "1024" in kind else mlkem.MLKEM768PrivateKey).from_seed_bytes(seed[:64])
            if self.curve is None:
                self.ec = x25519.X25519PrivateKey.from_private_bytes(seed[64:])
            else:  # rejection sampling
                parts = (seed[i:i + n] for i in range(64, len(seed), n))
                self.ec = self.scalar(next(p for p in parts if 0 < int.from_bytes(p) < ORDER[self.curve.name]))
        self.ec_public = self.ec.public_key().public_bytes(*(RAW if self.curve is None else POINT))
        self.public = (self.pq.public_key().public_bytes(*RAW) if self.pq else b"") + self.ec_public

    def scalar(self, b):
        need(0 < int.from_bytes(b) < ORDER[self.curve.name], "8.7", "the scalar is out of range")
        return ec.derive_private_key(int.from_bytes(b), self.curve)

    def key_id(self, artifact_id):  # FORMAT.md §8.3
        fingerprint = sha256(b"modelsec/v1/recipient\0" + self.kind.encode() + b"\0" + self.public)
        return hmac.digest(artifact_id, fingerprint, "sha256")[:16].hex()

    def decapsulate(self, enc):
        split = len(enc) - len(self.ec_public)
        try:
            if self.curve is None:
                shared = self.ec.exchange(x25519.X25519PublicKey.from_public_bytes(enc[split:]))
            else:
                shared = self.ec.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self.curve, enc[split:]))
        except ValueError:
            raise Violation("8.4", "enc is no public key", DECRYPT) from None
        if self.pq:
            label = {"hpke-mlkem768-x25519": rb"\.//^\ "[:-1]}.get(self.kind) or self.kind[5:].upper().encode()
            shared = self.pq.decapsulate(enc[:split]) + shared + enc[split:] + self.ec_public + label
            return hashlib.sha3_256(shared).digest()
        suite = b"KEM" + TYPES[self.kind][0].to_bytes(2)
        prk = labeled_extract("sha256", suite, b"", b"eae_prk", shared)
        return labeled_expand("sha256", suite, prk, b"shared_secret", enc + self.public, 32)

    def unwrap(self, body, info):
        """HPKE Open in base mode with empty aad."""
        kem, kdf, h, n, _ = TYPES[self.kind]
        need(len(body) == n + 128 + 16, "8.4", "a body of another length", DECRYPT)
        suite = b"HPKE" + kem.to_bytes(2) + kdf.to_bytes(2) + (2).to_bytes(2)
        context = b"\0" + labeled_extract(h, suite, b"", b"psk_id_hash", b"") + labeled_extract(
            h, suite, b"", b"info_hash", info)
        secret = labeled_extract(h, suite, self.decapsulate(body[:n]), b"secret", b"")
        key = labeled_expand(h, suite, secret, b"key", context, 32)
        nonce = labeled_expand(h, suite, secret, b"base_nonce", context, 12)
        return gcm_open(key, nonce, body[n:], b"", "8.4", "the wrapped key does not authenticate")


def labeled_extract(h, suite, salt, label, ikm):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, h)


def labeled_expand(h, suite, prk, label, info, length):
    return hkdf_expand(prk, length.to_bytes(2) + b"HPKE-v1" + suite + label + info, length, h)


def parse_key_file(text, passphrase=None):
    """FORMAT.md §8.7. Returns an Identity, or (type, public key) of a recipient."""
    m = re.fullmatch(r"\s*-----BEGIN (MODELSEC (?:RECIPIENT|IDENTITY|ENCRYPTED IDENTITY))-----\nType: ([a-z0-9.-]+)\n\n"
                     r"([A-Za-z0-9+/=\n]+)\n-----END \1-----\s*", text)
    need(m, "8.7", "not a key file")
    label, kind, body = m.groups()
    lines = body.split("\n")
    raw = unbase64("".join(lines))
    need(raw is not None and all(len(x) == 64 for x in lines[:-1]) and 1 <= len(lines[-1]) <= 64 and kind in TYPES,
         "8.7", "unsuitable key file")
    if label == "MODELSEC RECIPIENT":
        need(len(raw) == TYPES[kind][4], "8.7", "a public key of another length")
        return kind, raw
    if label == "MODELSEC ENCRYPTED IDENTITY":
        need(len(raw) == 30 + 32 + 16 and raw[0] == 1 and 15 <= raw[1] <= 20, "8.7", "unsuitable encrypted identity")
        need(passphrase is not None, "8.7", "the identity needs a passphrase", DECRYPT)
        key = hashlib.scrypt(passphrase, salt=raw[2:18], n=1 << raw[1], r=8, p=1, dklen=32, maxmem=1100 * MIB)
        raw = gcm_open(key, raw[18:30], raw[30:], b"modelsec/v1/identity\0" + kind.encode(), "8.7", "wrong passphrase")
    return Identity(kind, raw)


# ---- grants, FORMAT.md §8 ----

def parse_grant(data):
    """FORMAT.md §8.1"""
    def params(v):
        return isinstance(v, dict) and len(v) <= 16 and all(
            is_text(x) and len(k.encode()) + len(x.encode()) <= 1024 for k, x in v.items())

    g = record(parse_json(data, "8.1"), "8.1", "the grant",
               {"formatVersion": lambda v: type(v) is int and v == 1, "artifactId": is_hex(16), "commitment": is_hex(32),
                "manifest": is_digest, "recipients": lambda v: is_list(v) and len(v) <= 1000})
    for r in g["recipients"]:
        record(r, "8.1", "a recipient",
               {"type": lambda v: is_text(v) and re.fullmatch(r"[a-z0-9.-]{1,64}", v) is not None, "keyId": is_hex(16),
                "scope": lambda v: v in ("artifact", "files"), "body": is_base64(1, 8192)},
               {"notAfter": is_time, "params": params, "sealed": is_base64(28, 4 * MIB)})
        need(("sealed" in r) == (r["scope"] == "files"), "8.1", "sealed is for scope files and no other")
    return g


def unwrap_entry(r, identity, artifact_id, commitment, manifest, now):
    """FORMAT.md §8.2. Returns the DEK, or in scope files (the files, the part keys)."""
    need("params" not in r, "8.1", "an HPKE entry has params", DECRYPT)
    expiry = seconds(r["notAfter"]) if "notAfter" in r else 0
    expected = (b"MSG1" + bytes([r["scope"] == "files", 0, 0, 0]) + expiry.to_bytes(8) + artifact_id
                + bytes.fromhex(manifest[7:]) + commitment)
    got = identity.unwrap(unbase64(r["body"]), b"modelsec/v1/grant\0" + expected[4:])
    need(hmac.compare_digest(got[:96], expected), "8.2", "the wrapped bytes are for another artifact", "key mismatch")
    need(expiry == 0 or int(now) <= expiry, "8.2", "the grant has expired", "expired")
    key = got[96:]
    if r["scope"] == "files":  # FORMAT.md §8.6
        label = b"modelsec/v1/grant-files\0" + artifact_id + bytes.fromhex(manifest[7:])
        sealed = unbase64(r["sealed"])
        plain = gcm_open(hkdf_expand(key, label, 32), sealed[:12], sealed[12:], label, "8.6", "sealed files")
        opened = record(parse_json(plain, "8.6"), "8.6", "sealed", {"files": is_list, "keys": is_list})
        keys = {}
        for k in opened["keys"]:
            record(k, "8.6", "a key", {"layer": lambda v: uint(v) and v < 4096, "key": is_base64(32, 32)})
            need(k["layer"] not in keys, "8.6", "a layer has two keys")
            keys[k["layer"]] = unbase64(k["key"])
        check_files(opened["files"], dict.fromkeys(keys, 1 << 50))
        return opened["files"], keys
    need(hmac.compare_digest(derive(key, "modelsec/v1/commit", artifact_id), commitment), "6",
         "the key is not the one committed to", "key mismatch")
    return key


def open_grants(grants, identities, artifact_id, commitment, manifest, now, scope="artifact"):
    """Tries the entries that bear the key id of an identity; the first that opens counts."""
    failure = Violation("8", "no grant is for one of the identities", "no key")
    for g in grants:
        if (g["artifactId"], g["commitment"], g["manifest"]) != (artifact_id.hex(), commitment.hex(), manifest):
            continue
        for r in g["recipients"]:
            for identity in identities:
                if (r["type"], r["keyId"], r["scope"]) == (identity.kind, identity.key_id(artifact_id), scope):
                    try:
                        return unwrap_entry(r, identity, artifact_id, commitment, manifest, now)
                    except Violation as e:
                        failure = e
    raise failure


# ---- attestations, FORMAT.md §9 ----

def verify_signature(key, signature, message):
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:  # the hash follows the curve
            h = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}[key.curve.name]
            key.verify(signature, message, ec.ECDSA(h))
        return True
    except InvalidSignature:
        return False


def load_key(path):
    key = serialization.load_pem_public_key(Path(path).read_bytes())
    if not isinstance(key, ed25519.Ed25519PublicKey) and getattr(getattr(key, "curve", None), "name", "") not in (
            "secp256r1", "secp384r1", "secp521r1"):
        raise ValueError("neither ECDSA on P-256, P-384 or P-521 nor Ed25519")
    return key


def verify_bundle(data, manifest, keys):
    """Returns the statement of a bundle that one of the keys signed, about this manifest only."""
    try:
        bundle = parse_json(data, "9")
        need(bundle["mediaType"] == BUNDLE, "9", "not a Sigstore bundle v0.3")
        envelope = bundle["dsseEnvelope"]
        need(envelope["payloadType"] == "application/vnd.in-toto+json", "9", "another payload type")
        need(len(envelope["signatures"]) == 1, "9", "not exactly one signature")
        payload, kind = unbase64(envelope["payload"]), envelope["payloadType"]
        signature = unbase64(envelope["signatures"][0]["sig"])
        need(payload is not None and signature is not None, "9", "payload or signature is no base64")
        message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        need(any(verify_signature(k, signature, message) for k in keys), "9", "signed by none of the keys")
        st = parse_json(payload, "9")
        need(st["_type"] in ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"), "9", "not an in-toto statement")
        need(len(st["subject"]) == 1 and "sha256:" + st["subject"][0]["digest"]["sha256"] == manifest, "9",
             "the one subject is not this manifest")
        need(is_text(st["predicateType"]), "9", "predicateType")
        return st["predicateType"], st["predicate"]
    except (KeyError, TypeError, IndexError):
        raise Violation("9", "malformed bundle or statement") from None


def check_release(p, tag, name, profile, index, now):
    """FORMAT.md §9.1"""
    record(p, "9.1", "the release", {"name": is_text, "tags": lambda v: is_list(v) and all(map(is_text, v)),
                                     "sequence": lambda v: uint(v) and v < 1 << 53, "profile": is_text,
                                     "indexDigest": is_digest}, {"expires": is_time})
    need((p["profile"], p["indexDigest"]) == (profile, index), "9.1", "the release is for another profile or index")
    need("expires" not in p or int(now) <= seconds(p["expires"]), "9.1", "the release has expired")
    need(tag is None or tag in p["tags"], "9.1", f"the release does not bear the tag {tag!r}")
    need(name is None or p["name"] == name, "9.1", f"the release is of {p['name']!r}")


def check_provenance(p):
    """FORMAT.md §9.3: our build types; those of others pass."""
    try:
        definition = p["buildDefinition"]
        m = re.fullmatch(r"https://modelsec\.github\.io/buildtypes/(.*)/v1", definition["buildType"])
        if not m:
            return
        number = lambda v: type(v) in (int, float)  # noqa: E731
        seed = {"config": is_text, "seed": lambda v: type(v) is int}
        required, optional = {
            "train": ({"source": is_text}, seed), "fine-tune": ({"method": is_text}, seed | {"source": is_text}),
            "quantise": ({"scheme": is_text}, {"calibration": lambda v: isinstance(v, bool)}),
            "merge": ({"method": is_text}, {"weights": lambda v: is_list(v) and all(map(number, v))}),
            "convert": ({}, {"from": is_text, "to": is_text})}[m[1]]
        record(definition["externalParameters"], "9.3", "externalParameters", required, optional)
        dependencies = definition.get("resolvedDependencies", [])
        need(all(is_hex(32)(d["digest"]["sha256"]) for d in dependencies), "9.3", "a dependency without digest")
        roles = [d["annotations"]["role"] for d in dependencies]
        need(set(roles) <= {"base", "adapter", "dataset", "code", "container", "tokenizer"}, "9.3", "unknown role")
        enough = {"train": "dataset" in roles, "fine-tune": {"base", "dataset"} <= set(roles), "quantise": "base" in roles,
                  "merge": sum(r in ("base", "adapter") for r in roles) >= 2, "convert": True}
        need(enough[m[1]], "9.3", "a dependency is missing")
    except (KeyError, TypeError):
        raise Violation("9.3", "malformed provenance") from None


# ---- a reader, FORMAT.md §7 ----

def read_referrers(layout, manifest, keys):
    """Returns the statements that a key signed, the grant documents, and notes on what was passed over."""
    statements, grants, notes, counts, budget = [], [], [], {BUNDLE: 0, GRANT: 0}, 64 * MIB
    for digest, m in layout.referrers(manifest):
        kind = m.get("artifactType")
        if kind not in counts:
            continue
        counts[kind] += 1
        need(counts[BUNDLE] <= 256 and counts[GRANT] <= 64, "11", "too many referrers")
        try:
            section = "9" if kind == BUNDLE else "8"
            need([d["mediaType"] for d in m["layers"]] in ([[BUNDLE]] if kind == BUNDLE else [[GRANT], [GRANT, BUNDLE]]),
                 section, "other layers")
            blobs = [layout.blob(d["digest"], 4 * MIB, section, d["size"]) for d in m["layers"]]
            budget -= sum(map(len, blobs))
            need(budget >= 0, "11", "more than 64 MiB of referrers")
            if kind == GRANT:
                grants.append(parse_grant(blobs[0]))
                signed = keys and blobs[1:] and verify_bundle(blobs[1], manifest, keys)
                if signed:  # FORMAT.md §8.5; local keys need no signature, so this only adds a note
                    good = signed == (GRANTED, {"grant": {"sha256": sha256(blobs[0]).hex()}})
                    notes.append(f"{digest}: grant {'signed' if good else 'with a signature on something else'}")
                continue
            need(m["annotations"].get("dev.sigstore.bundle.content") == "dsse-envelope"
                 and "dev.sigstore.bundle.predicateType" in m["annotations"], "9", "other annotations")
            if keys:
                statements.append(verify_bundle(blobs[0], manifest, keys))
        except Violation as e:
            notes.append(f"{digest} passed over: {e}")
    return statements, grants, notes


def open_artifact(layout, ref, keys=(), name=None, identities=(), now=0):
    """Takes steps 1 to 4 of FORMAT.md §7. Without keys signatures are not looked at, without identities content is only
    compared with its digests."""
    manifest = layout.resolve(ref)
    raw = layout.blob(manifest, 4 * MIB, "2")
    statements, grants, notes = read_referrers(layout, manifest, keys)
    need(statements or not keys, "9", "no attestation is signed by one of the keys" + "".join(f"; {n}" for n in notes))
    m = parse_manifest(raw)
    profile, index = check_manifest(m), m["annotations"]["io.github.modelsec.index"]
    released, refusal = not keys, Violation("9.1", "no release statement is signed by one of the keys")
    for kind, predicate in statements:
        try:
            if kind == RELEASE:
                check_release(predicate, ref if ref != manifest else None, name, profile, index, now)
                released = True
            elif kind == SLSA:
                check_provenance(predicate)
        except Violation as e:
            notes.append(f"{kind} passed over: {e}")
            refusal = e if kind == RELEASE else refusal
    if not released:
        raise refusal
    config = parse_json(layout.blob(m["config"]["digest"], 4 * MIB, "2.1", m["config"]["size"]), "2.1")
    header, layers = parse_index(layout.blob(index, 64 * MIB, "3", m["layers"][-1]["size"]), m, profile)
    lengths, parts, headers = dict(enumerate(layer.length for layer in layers)), None, [b""] * len(layers)
    files = header.get("files")
    if profile == "encrypted":
        artifact_id, headers = check_encryption(header["encryption"], layers)
        if identities:
            commitment = bytes.fromhex(header["encryption"]["commitment"])
            dek = open_grants(grants, identities, artifact_id, commitment, manifest, now)
            sealed, label = unbase64(header["encryption"]["sealed"]), "modelsec/v1/index"
            plain = gcm_open(derive(dek, label, artifact_id), sealed[:12], sealed[12:],
                             label.encode() + b"\0" + artifact_id, "6", "the sealed section does not authenticate")
            files = record(parse_json(plain, "6", 16 * MIB), "6", "sealed", {"files": is_list})["files"]
            parts = [Part(dek, artifact_id, i, x.length, x.segment, headers[i]) for i, x in enumerate(layers)]
    runs = None if files is None else check_files(files, lengths, m if profile == "plain" else None)
    return SimpleNamespace(layout=layout, manifest=manifest, raw=raw, m=m, config=config, profile=profile, header=header,
                           layers=layers, headers=headers, parts=parts, files=files, runs=runs, notes=notes)


def read_content(a, out=None):
    """Takes step 5 of FORMAT.md §7: reads every segment. Files appear below out when all of them are verified."""
    stage = tempfile.mkdtemp(prefix=".format-check-", dir=Path(out).parent) if out and a.files is not None else None
    try:
        for f in a.files if stage else ():
            path = Path(stage, f["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for i in range(len(a.layers)):
            for at, data in read_layer(a, i):
                if stage:
                    write_runs(stage, a.runs[i], at, data)
        if stage:
            os.rename(stage, out)
    finally:
        if stage:
            shutil.rmtree(stage, ignore_errors=True)


def read_layer(a, i):
    """Yields (content offset, content) of each segment that passed, in the order of FORMAT.md §6.2."""
    layer, digest, whole = a.layers[i], a.header["layers"][i]["digest"], hashlib.sha256()
    try:
        with open(a.layout.path(digest), "rb") as f:
            need(os.fstat(f.fileno()).st_size == layer.size, "4", f"layer {i} has another size")
            first = f.read(len(a.headers[i]))
            need(first == a.headers[i], "5", f"layer {i} has another FLOE header than the index")
            whole.update(first)
            for k in range(layer.count):
                offset, length = layer.stored(k)
                f.seek(offset)
                stored = f.read(length)
                whole.update(stored)
                need(sha256(stored) == layer.digests[k], "5", f"layer {i}, segment {k} has another digest")
                yield k * layer.segment, a.parts[i].open(k, k == layer.count - 1, stored) if a.parts else stored
    except OSError as e:
        raise Violation("4", f"layer {i} cannot be read: {e.strerror}") from None
    need("sha256:" + whole.hexdigest() == digest, "4", f"layer {i} has another digest")


def write_runs(stage, runs, at, data):
    for offset, length, path, start in runs:
        low, high = max(at, offset), min(at + len(data), offset + length)
        if low < high:
            with open(Path(stage, path), "r+b") as f:
                f.seek(start + low - offset)
                f.write(data[low - at:high - at])


# ---- vectors, encrypt/testdata/README.md ----

def run_part(v, folder):
    dek, artifact_id, segment = bytes.fromhex(v["dek"]), bytes.fromhex(v["artifact-id"]), int(v["segment-size"])
    length, layer = int(v["length"]), int(v["layer"])
    need(segment in SEGMENT_SIZES and length <= 1 << 50, "4", "geometry", "geometry failure")
    count = max(1, -(-length // segment))
    geometry = Layer("encrypted", HEADER + length + OVERHEAD * count, segment)
    part, stored = Part(dek, artifact_id, layer, length, segment, bytes.fromhex(v["header"])), b""
    for line in v.get("stored", []):
        if line.startswith("hex "):
            stored += bytes.fromhex(line[4:])
        else:
            name, at, n = line.split(" ")
            stored += (folder / name).read_bytes()[int(at):int(at) + int(n)]
    need(len(stored) == length + OVERHEAD * count, "5", "stored length", "length failure")
    content = b""
    for k in range(count):
        at, n = geometry.stored(k)
        content += part.open(k, k == count - 1, stored[at - HEADER:at - HEADER + n])
    need(content == bytes(j % 251 for j in range(length)), "6.1", "content", "another content")


def run_grant(v, body):
    artifact_id, commitment = bytes.fromhex(v["artifact-id"]), bytes.fromhex(v["commitment"])
    grant, scope = parse_grant(body), v.get("scope", "artifact")
    need((grant["artifactId"], grant["commitment"], grant["manifest"]) == (v["artifact-id"], v["commitment"], v["manifest"]),
         "8.1", "for another artifact", "other artifact")
    identity = Identity(v["identity-type"], bytes.fromhex(v["identity"]))
    got = open_grants([grant], [identity], artifact_id, commitment, v["manifest"], seconds(v["now"]), scope)
    if scope == "files":
        need(got[0] == json.loads(v["files"]), "8.6", "files", "other files")
        need([f"{i} {k.hex()}" for i, k in sorted(got[1].items())] == v["layer-key"], "8.6", "keys", "other keys")


def run_key_file(v, body):
    got = parse_key_file(body.decode(), v["passphrase"].encode() if "passphrase" in v else None)
    public = got[1] if isinstance(got, tuple) else got.public
    need("public" not in v or public.hex() == v["public"], "8.7", "public key", "another key")
    need("private" not in v or public == Identity(got.kind, bytes.fromhex(v["private"])).public, "8.7", "private key",
         "another key")


def run_vectors(root):
    """Runs the vectors and returns how many there are and the complaints."""
    paths, complaints = sorted(p for kind in ("part", "grant", "keyfile") for p in Path(root, kind).glob("*.txt")), []
    for path in paths:
        head, _, body = path.read_bytes().partition(b"\n\n")
        v = {}
        for line in head.decode().split("\n"):
            key, _, value = line.partition(": ")
            if key in ("stored", "layer-key"):
                v.setdefault(key, []).append(value)
            else:
                v[key] = value
        try:
            if path.parent.name == "part":
                run_part(v, path.parent)
            else:
                (run_grant if path.parent.name == "grant" else run_key_file)(v, body)
            got = "success"
        except Violation as e:
            got = e.kind
        if got != v["expect"]:
            complaints.append(f"{path.parent.name}/{path.name}: {got}, expected {v['expect']}")
    return len(paths), complaints


def main():
    p = argparse.ArgumentParser(description="Reads a modelsec artifact in an OCI image layout by FORMAT.md.")
    p.add_argument("layout", nargs="?")
    p.add_argument("ref", nargs="?", metavar="TAG|DIGEST")
    p.add_argument("--key", action="append", default=[], help="PEM public key whose release statements count")
    p.add_argument("--name", help="name that the release must bear; needed to open a tag with --key")
    p.add_argument("--identity", action="append", default=[],
                   help="key file (§8.7); a passphrase is taken from $FORMAT_CHECK_PASSPHRASE")
    p.add_argument("--out", help="write the files below this directory, which must not exist")
    p.add_argument("--json", action="store_true", help="print the summary as JSON")
    p.add_argument("--vectors", metavar="DIR", help="run the vectors of encrypt/testdata instead")
    a = p.parse_args()
    if a.vectors:
        count, complaints = run_vectors(a.vectors)
        print("\n".join(complaints + [f"{count} vectors, {len(complaints)} not as expected"]))
        return 0 if count and not complaints else 1
    if a.ref is None:
        p.error("LAYOUT and TAG|DIGEST, or --vectors, are needed")
    if a.key and not a.name and not is_digest(a.ref):
        p.error("to open a tag with --key, --name is needed")
    if a.out and os.path.exists(a.out):
        p.error("--out exists")
    try:
        passphrase = os.environ.get("FORMAT_CHECK_PASSPHRASE")
        identities = [parse_key_file(Path(f).read_text(), passphrase and passphrase.encode()) for f in a.identity]
        need(all(isinstance(i, Identity) for i in identities), "8.7", "a public key is no identity")
        keys = [load_key(f) for f in a.key]
    except (Violation, OSError, ValueError) as e:
        p.error(str(e))
    try:
        art = open_artifact(Layout(a.layout), a.ref, keys, a.name, identities, datetime.now(timezone.utc).timestamp())
        read_content(art, a.out)
    except Violation as e:
        print(f"refused: {e}")
        return 1
    summary = {"manifest": art.manifest, "profile": art.profile, "signed": bool(keys), "layers": len(art.layers),
               "segments": sum(x.count for x in art.layers), "bytes": sum(x.length for x in art.layers), "notes": art.notes,
               "files": art.files and [{k: f[k] for k in ("path", "role", "size")} for f in art.files]}
    if a.json:
        print(json.dumps(summary, indent=1))
        return 0
    print("{manifest}: {profile}, {layers} layers, {segments} segments, {bytes} bytes,".format(**summary),
          "release verified" if keys else "signatures NOT verified (no --key)")
    for f in summary["files"] or []:
        print(f"  {f['role']:13} {f['size']:>12} {f['path']}")
    for n in art.notes + (["names are sealed, and there is no --identity"] if art.files is None else []):
        print(f"  note: {n}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
