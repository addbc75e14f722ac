// Command versitygw is the S3 gateway with its posix backend alone, and its IAM service: what the embedded store runs.
//
// What is not set here has the value that versitygw's own command line gives it, where that is not Go's zero value.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

const (
	maxConnections = 250000
	maxRequests    = 100000
	maxParts       = 10000
	maxCopy        = 5 << 30 // bytes
	concurrency    = 5000    // calls of the file system at once
	cacheTTL       = 120     // seconds that an IAM account is kept
	cachePrune     = 3600    // seconds
)

// Version is set by the linker.
var Version = "none"

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: versitygw s3|iam|--version")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGHUP)
	var err error
	switch os.Args[1] {
	case "s3":
		err = runS3(ctx, os.Args[2:])
	case "iam":
		err = runIAM(ctx, os.Args[2:])
	case "--version":
		fmt.Println("versitygw", Version)
	default:
		err = fmt.Errorf("there is no command %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// service has the options of both services. The root credentials are variables, since other users see arguments.
type service struct {
	*flag.FlagSet
	listen, region, cert, key, iamSocket *string
	rootAccess, rootSecret               string
}

func newService(name string) service {
	options := flag.NewFlagSet(name, flag.ExitOnError)
	return service{
		FlagSet:    options,
		listen:     options.String("listen", "", "`HOST:PORT`"),
		region:     options.String("region", "us-east-1", "the region that requests are signed for"),
		cert:       options.String("cert", "", "certificate `FILE`, for https"),
		key:        options.String("key", "", "key `FILE`, for https"),
		iamSocket:  options.String("iam-socket", "", "Unix socket by which the gateway asks the IAM service"),
		rootAccess: os.Getenv("ROOT_ACCESS_KEY"),
		rootSecret: os.Getenv("ROOT_SECRET_KEY"),
	}
}

func runS3(ctx context.Context, arguments []string) error {
	options := newService("s3")
	health := options.String("health", "", "path that answers without a signature")
	versions := options.String("versions", "", "`DIRECTORY` of noncurrent versions")
	data := options.String("data", "", "`DIRECTORY` of the buckets")
	_ = options.Parse(arguments) // ends the process where it fails
	if err := (meta.XattrMeta{}).Test(*data); err != nil {
		return fmt.Errorf("xattr check failed: %w", err)
	}
	settings := posix.PosixOpts{
		VersioningDir:       *versions,
		Concurrency:         concurrency,
		CopyObjectThreshold: maxCopy,
	}
	settings.SetNewDirPerm(0o700)
	settings.SetNewFilePerm(0o600)
	store, err := posix.New(*data, meta.XattrMeta{}, settings)
	if err != nil {
		return fmt.Errorf("failed to init posix backend: %w", err)
	}
	return embedgw.RunVersityGW(ctx, store, &embedgw.Config{
		RootUserAccess:        options.rootAccess,
		RootUserSecret:        options.rootSecret,
		Region:                *options.region,
		Ports:                 []string{*options.listen},
		MaxConnections:        maxConnections,
		MaxRequests:           maxRequests,
		MultipartMaxParts:     maxParts,
		// Over TLS, what follows a large body on a connection that is kept is now and then not read as a request ("An
		// error occurred when parsing the HTTP request").
		KeepAlive:             *options.cert == "",
		CertFile:              *options.cert,
		KeyFile:               *options.key,
		Quiet:                 true,
		HealthPath:            *health,
		StandaloneIAMEndpoint: *options.iamSocket,
		IAMCacheTTL:           cacheTTL,
		IAMCachePrune:         cachePrune,
		Version:               Version,
	})
}

func runIAM(ctx context.Context, arguments []string) error {
	options := newService("iam")
	data := options.String("data", "", "`DIRECTORY` of users, policies and keys")
	_ = options.Parse(arguments) // ends the process where it fails
	return embedgw.RunIAMAPI(ctx, &embedgw.IAMConfig{
		RootUserAccess:    options.rootAccess,
		RootUserSecret:    options.rootSecret,
		Region:            *options.region,
		Ports:             []string{*options.listen},
		MaxConnections:    maxConnections,
		MaxRequests:       maxRequests,
		CertFile:          *options.cert,
		KeyFile:           *options.key,
		KeepAlive:         true,
		Quiet:             true,
		PrivatePorts:      []string{*options.iamSocket},
		PrivateSocketPerm: "0600",
		IAMDir:            *data,
		Version:           Version,
	})
}
