module github.com/modelsec/modelsec-go/examples/modelsec-helper-pkcs11

go 1.26.0

require (
	github.com/modelsec/modelsec-go v0.0.0
	github.com/modelsec/modelsec-go/encrypt/pkcs11 v0.0.0
)

require (
	github.com/miekg/pkcs11 v1.1.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	golang.org/x/crypto v0.46.0 // indirect
)

replace (
	github.com/modelsec/modelsec-go => ../..
	github.com/modelsec/modelsec-go/encrypt/pkcs11 => ../../encrypt/pkcs11
)
