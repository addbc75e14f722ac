//go:build pin

// Package pin keeps the command's module in go.mod when `go mod tidy` runs.
package pin

import (
	_ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
	_ "github.com/pulumi/pulumi/sdk/v3/go/common/version"
)
