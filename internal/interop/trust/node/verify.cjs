// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// verify.cjs BUNDLE TRUSTED_ROOT ISSUER SUBJECT: npm's verifier of Sigstore
// bundles, with one log entry and one timestamp required. It prints who signed.
"use strict";
const fs = require("node:fs");
const { bundleFromJSON } = require("@sigstore/bundle");
const { TrustedRoot } = require("@sigstore/protobuf-specs");
const { Verifier, toSignedEntity, toTrustMaterial } = require("@sigstore/verify");

const [bundle, root, issuer, subject] = process.argv.slice(2);
const json = (path) => JSON.parse(fs.readFileSync(path, "utf8"));
const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(json(root))), {
  tlogThreshold: 1,
  timestampThreshold: 1,
  ctlogThreshold: 0, // the local instance has no certificate log
});
// subjectAlternativeName is a regular expression to this library.
const exactly = "^" + subject.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + "$";
const signer = verifier.verify(toSignedEntity(bundleFromJSON(json(bundle))), {
  subjectAlternativeName: exactly,
  extensions: { issuer },
});
console.log(JSON.stringify(signer.identity));
