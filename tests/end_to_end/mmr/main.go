// Command mmr reads REPO_CONFIG with matrix-media-repo's own packages, as its main program does.
//
//	mmr show               the datastores as JSON
//	mmr store KIND         stores standard input in the datastore picked for KIND, reads it back, prints its location
//	mmr remove KIND PLACE  removes what is there
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/t2bot/matrix-media-repo/common/config"
	"github.com/t2bot/matrix-media-repo/common/rcontext"
	"github.com/t2bot/matrix-media-repo/datastores"
)

func main() {
	config.Path = os.Getenv("REPO_CONFIG")
	logrus.SetOutput(os.Stderr)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "show":
		return json.NewEncoder(os.Stdout).Encode(config.Get().DataStores)
	case len(args) == 2 && args[0] == "store":
		return store(datastores.Kind(args[1]))
	case len(args) == 3 && args[0] == "remove":
		ctx := rcontext.Initial()
		datastore, err := datastores.Pick(ctx, datastores.Kind(args[1]))
		if err != nil {
			return err
		}
		return datastores.Remove(ctx, datastore, args[2])
	}
	return errors.New("usage: mmr show | store KIND | remove KIND PLACE")
}

func store(kind datastores.Kind) error {
	content, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	ctx := rcontext.Initial()
	datastore, err := datastores.Pick(ctx, kind)
	if err != nil {
		return err
	}
	hash, size, buffered, err := datastores.BufferTemp(datastore, io.NopCloser(bytes.NewReader(content)))
	if err != nil {
		return err
	}
	place, err := datastores.Upload(ctx, datastore, buffered, size, "application/octet-stream", hash)
	if err != nil {
		return err
	}
	stored, err := datastores.Download(ctx, datastore, place)
	if err != nil {
		return err
	}
	defer stored.Close()
	returned, err := io.ReadAll(stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(content, returned) {
		return errors.New("what came back is not what was stored")
	}
	fmt.Println(place)
	return nil
}
