// Command infra has a store in a Go program, by the generated SDK; its outputs are printed as JSON, secrets with them.
// The Automation API runs it without Pulumi's Go language host: the program itself is the host.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"example.com/pulumi-synapse-media/sdk/go/synapsemedia"
	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

func program(ctx *pulumi.Context) error {
	method := synapsemedia.MethodGoofys
	active := "b"
	settled := 0
	media, err := synapsemedia.NewS3Compatible(ctx, "media", &synapsemedia.S3CompatibleArgs{
		ServerName:    "example.com",
		Bucket:        pulumi.String(os.Getenv("BUCKET")),
		Endpoint:      pulumi.String(os.Getenv("ENDPOINT")),
		IamEndpoint:   pulumi.String(os.Getenv("IAM_ENDPOINT")),
		Method:        &method,
		Keys:          &synapsemedia.KeysArgs{Active: &active},
		SettleSeconds: &settled,
	})
	if err != nil {
		return err
	}
	ctx.Export("bucket", media.Bucket)
	ctx.Export("accessKeyId", media.AccessKeyId)
	ctx.Export("secretAccessKey", media.SecretAccessKey)
	ctx.Export("proof", media.Proof)
	return nil
}

func main() {
	ctx := context.Background()
	stack, err := auto.NewStackInlineSource(ctx, "go", "infra", program)
	check(err)
	result, err := stack.Up(ctx)
	check(err)
	outputs := map[string]map[string]any{}
	for name, output := range result.Outputs {
		outputs[name] = map[string]any{"value": output.Value, "secret": output.Secret}
	}
	check(json.NewEncoder(os.Stdout).Encode(outputs))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
