//go:build pin

// Package pin keeps the command's module in go.mod when `go mod tidy` runs.
package pin

import _ "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
