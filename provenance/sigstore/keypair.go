// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/modelsec/modelsec-go/provenance"
)

// keypair lets any crypto.Signer sign bundles.
type keypair struct {
	key     crypto.Signer
	details signature.AlgorithmDetails
	der     []byte
}

var _ sign.Keypair = (*keypair)(nil)

func newKeypair(key crypto.Signer) (*keypair, error) {
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		// Logs take hashes, and Ed25519 signs messages.
		return nil, fmt.Errorf("key of type %T cannot be logged: want ECDSA P-256, P-384 or P-521, or provenance.KeySigner", key.Public())
	}
	details, err := signature.GetDefaultAlgorithmDetails(key.Public())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &keypair{key: key, details: details, der: der}, nil
}

func (k *keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return k.details.GetProtoHashType()
}

func (k *keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.details.GetSignatureAlgorithm()
}

// GetHint is the hint that cosign and package provenance write.
func (k *keypair) GetHint() []byte {
	sum := sha256.Sum256(k.der)
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

func (k *keypair) GetKeyAlgorithm() string { return "ECDSA" }

func (k *keypair) GetPublicKey() crypto.PublicKey { return k.key.Public() }

func (k *keypair) GetPublicKeyPem() (string, error) {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})), nil
}

func (k *keypair) SignData(ctx context.Context, data []byte) (sig, digest []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	h := k.details.GetHashType().New()
	h.Write(data)
	digest = h.Sum(nil)
	if c, ok := k.key.(provenance.ContextSigner); ok {
		sig, err = c.SignContext(ctx, rand.Reader, digest, k.details.GetHashType())
	} else {
		sig, err = k.key.Sign(rand.Reader, digest, k.details.GetHashType())
	}
	return sig, digest, err
}
