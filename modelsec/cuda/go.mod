module github.com/modelsec/modelsec-go/modelsec/cuda

go 1.26.0

require (
	github.com/ebitengine/purego v0.11.3
	github.com/modelsec/modelsec-go v0.0.0
	github.com/opencontainers/image-spec v1.1.1
)

require (
	github.com/klauspost/cpuid/v2 v2.2.3 // indirect
	github.com/minio/sha256-simd v1.0.1 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	golang.org/x/crypto v0.46.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	oras.land/oras-go/v2 v2.6.4 // indirect
)

replace github.com/modelsec/modelsec-go => ../..
