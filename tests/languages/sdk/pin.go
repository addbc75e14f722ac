//go:build pin

// Keeps in go.mod what ../go/main.go imports, so that the two share one build of it.
package main

import (
	_ "github.com/pulumi/pulumi/sdk/v3/go/auto"
	_ "github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)
