// Command sdk writes the SDKs of a package, by the code that the engine's Go and Node.js language hosts call.
//
//	sdk SCHEMA FOLDER    SCHEMA: as `pulumi package get-schema` prints it; into FOLDER/go and FOLDER/nodejs
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	gogen "github.com/pulumi/pulumi/pkg/v3/codegen/go"
	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

func main() {
	raw, err := os.ReadFile(os.Args[1])
	check(err)
	for language, generate := range map[string]func(*schema.Package) (map[string][]byte, error){
		"go": func(found *schema.Package) (map[string][]byte, error) {
			return gogen.GeneratePackage("pulumi", found, nil)
		},
		"nodejs": func(found *schema.Package) (map[string][]byte, error) {
			return nodejs.GeneratePackage("pulumi", found, nil, nil, true, nil)
		},
	} {
		files, err := generate(bound(raw))
		check(err)
		for name, text := range files {
			path := filepath.Join(os.Args[2], language, name)
			check(os.MkdirAll(filepath.Dir(path), 0o755))
			check(os.WriteFile(path, text, 0o644))
		}
	}
}

// bound is the package as `pulumi package add` has it, apart for each language: a generator changes it.
func bound(raw []byte) *schema.Package {
	var spec schema.PackageSpec
	check(json.Unmarshal(raw, &spec))
	found, diagnostics, err := schema.BindSpec(spec, schema.NewNullLoader(), schema.ValidationOptions{})
	check(err)
	if diagnostics.HasErrors() {
		log.Fatal(diagnostics)
	}
	found.SupportPack = true
	return found
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
