module github.com/modelsec/modelsec-go

go 1.26.0
