module github.com/modelsec/modelsec-go/internal/interop/matrix

go 1.26.0

require (
	github.com/modelsec/modelsec-go v0.0.0
	github.com/modelsec/modelsec-go/encrypt/awskms v0.0.0
	github.com/modelsec/modelsec-go/encrypt/azurekms v0.0.0
	github.com/modelsec/modelsec-go/encrypt/gcpkms v0.0.0
	google.golang.org/grpc v1.84.0
)

require filippo.io/hpke v0.4.0 // indirect

require (
	cloud.google.com/go/kms v1.36.1 // indirect
	cloud.google.com/go/longrunning v1.3.0 // indirect
	filippo.io/age v1.3.2
	github.com/Azure/azure-sdk-for-go/sdk/azcore v1.21.0 // indirect
	github.com/Azure/azure-sdk-for-go/sdk/internal v1.11.2 // indirect
	github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys v1.5.0 // indirect
	github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/internal v1.2.0 // indirect
	github.com/miekg/pkcs11 v1.1.2
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20261012220534-4341edf3f941 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261012220534-4341edf3f941 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/modelsec/modelsec-go => ../../..
	github.com/modelsec/modelsec-go/encrypt/awskms => ../../../encrypt/awskms
	github.com/modelsec/modelsec-go/encrypt/azurekms => ../../../encrypt/azurekms
	github.com/modelsec/modelsec-go/encrypt/gcpkms => ../../../encrypt/gcpkms
)
