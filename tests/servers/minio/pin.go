//go:build pin

// Package pin keeps the command's module in go.mod when `go mod tidy` runs.
package pin

import _ "github.com/minio/minio"
