module github.com/modelsec/modelsec-go

go 1.26.0

require (
	github.com/BurntSushi/toml v1.6.0
	github.com/klauspost/cpuid/v2 v2.2.3
	github.com/minio/sha256-simd v1.0.1
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/sigstore/cosign/v2 v2.6.5
	golang.org/x/crypto v0.46.0
	golang.org/x/sys v0.39.0
	oras.land/oras-go/v2 v2.6.4
)

require golang.org/x/sync v0.24.0 // indirect
