module github.com/modelsec/modelsec-go/examples/sigstore-kms-hsm

go 1.26.0

require (
	github.com/modelsec/modelsec-go/encrypt/pkcs11 v0.0.0
	github.com/sigstore/sigstore v1.10.11
)

require (
	github.com/google/go-containerregistry v0.21.9 // indirect
	github.com/miekg/pkcs11 v1.1.2 // indirect
	github.com/modelsec/modelsec-go v0.0.0 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/secure-systems-lab/go-securesystemslib v0.11.1 // indirect
	github.com/sigstore/protobuf-specs v0.5.2 // indirect
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/term v0.45.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260727163830-6c54dddc4772 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/modelsec/modelsec-go => ../..
	github.com/modelsec/modelsec-go/encrypt/pkcs11 => ../../encrypt/pkcs11
)
