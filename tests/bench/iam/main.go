// Command iam is the IAM service of the embedded store for many users: what it takes does not grow with their number.
//
// versitygw keeps all users in one file, and reads or writes that file for each call. Here each user has a file of its
// own, so that a measurement with a thousand stores measures what asks and not what answers. It begins with nothing.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/versity/versitygw/iamapi"
	"github.com/versity/versitygw/iamapi/iamerr"
	"github.com/versity/versitygw/iamapi/private"
	"github.com/versity/versitygw/iamapi/storage"
	"github.com/versity/versitygw/iamapi/types"
)

const (
	maxConnections = 250000
	maxRequests    = 100000
)

// users keeps each user in a store of its own, and all else in the one that it is made of.
type users struct {
	storage.Storer
	directory string
	lock      sync.RWMutex
	byName    map[string]storage.Storer // by the name in small letters, as IAM compares names
	byKey     map[string]string         // access key ID to the name of its user
}

func (u *users) of(name string) (storage.Storer, error) {
	u.lock.RLock()
	defer u.lock.RUnlock()
	if one, ok := u.byName[strings.ToLower(name)]; ok {
		return one, nil
	}
	return nil, iamerr.NoSuchEntityUser(name)
}

func (u *users) ofKey(id string) (storage.Storer, error) {
	u.lock.RLock()
	name, ok := u.byKey[id]
	u.lock.RUnlock()
	if !ok {
		return nil, iamerr.NoSuchEntityAccessKey(id)
	}
	return u.of(name)
}

func (u *users) CreateUser(ctx context.Context, user types.User) (*types.User, error) {
	u.lock.Lock()
	defer u.lock.Unlock()
	name := strings.ToLower(user.UserName)
	if _, ok := u.byName[name]; ok {
		return nil, iamerr.EntityAlreadyExistsUser(user.UserName)
	}
	one, err := made(filepath.Join(u.directory, name))
	if err != nil {
		return nil, err
	}
	u.byName[name] = one
	return one.CreateUser(ctx, user)
}

func (u *users) DeleteUser(ctx context.Context, name string) error {
	one, err := u.of(name)
	if err != nil {
		return err
	}
	if err := one.DeleteUser(ctx, name); err != nil {
		return err
	}
	u.lock.Lock()
	defer u.lock.Unlock()
	delete(u.byName, strings.ToLower(name))
	return nil
}

func (u *users) GetUser(ctx context.Context, name string) (*types.User, error) {
	one, err := u.of(name)
	if err != nil {
		return nil, err
	}
	return one.GetUser(ctx, name)
}

func (u *users) GetUserByAccessKeyID(ctx context.Context, id string) (*types.User, error) {
	one, err := u.ofKey(id)
	if err != nil {
		return nil, err
	}
	return one.GetUserByAccessKeyID(ctx, id)
}

// ListUsers knows no pages: it is there for the look whether the service responds.
func (u *users) ListUsers(ctx context.Context, input storage.ListUsersInput) (*storage.ListUsersOutput, error) {
	u.lock.RLock()
	defer u.lock.RUnlock()
	found := &storage.ListUsersOutput{}
	for _, one := range u.byName {
		listed, err := one.ListUsers(ctx, storage.ListUsersInput{PathPrefix: input.PathPrefix})
		if err != nil {
			return nil, err
		}
		found.Users = append(found.Users, listed.Users...)
	}
	slices.SortFunc(found.Users, func(a, b types.User) int { return strings.Compare(a.UserName, b.UserName) })
	return found, nil
}

// UpdateUser changes a path; nothing that is measured gives a user another name.
func (u *users) UpdateUser(ctx context.Context, input storage.UpdateUserInput) (*types.User, error) {
	one, err := u.of(input.UserName)
	if err != nil {
		return nil, err
	}
	return one.UpdateUser(ctx, input)
}

func (u *users) TagUser(ctx context.Context, name string, tags []types.Tag) error {
	one, err := u.of(name)
	if err != nil {
		return err
	}
	return one.TagUser(ctx, name, tags)
}

func (u *users) UntagUser(ctx context.Context, name string, keys []string) error {
	one, err := u.of(name)
	if err != nil {
		return err
	}
	return one.UntagUser(ctx, name, keys)
}

func (u *users) ListUserTags(ctx context.Context, input storage.ListUserTagsInput) (*storage.ListTagsOutput, error) {
	one, err := u.of(input.UserName)
	if err != nil {
		return nil, err
	}
	return one.ListUserTags(ctx, input)
}

func (u *users) CreateAccessKey(ctx context.Context, input storage.CreateAccessKeyInput) (*types.AccessKey, error) {
	one, err := u.of(input.UserName)
	if err != nil {
		return nil, err
	}
	key, err := one.CreateAccessKey(ctx, input)
	if err == nil {
		u.lock.Lock()
		u.byKey[key.AccessKeyId] = input.UserName
		u.lock.Unlock()
	}
	return key, err
}

func (u *users) UpdateAccessKey(ctx context.Context, input storage.UpdateAccessKeyInput) error {
	one, err := u.of(input.UserName)
	if err != nil {
		return err
	}
	return one.UpdateAccessKey(ctx, input)
}

func (u *users) DeleteAccessKey(ctx context.Context, name, id string) error {
	one, err := u.of(name)
	if err != nil {
		return err
	}
	if err := one.DeleteAccessKey(ctx, name, id); err != nil {
		return err
	}
	u.lock.Lock()
	defer u.lock.Unlock()
	delete(u.byKey, id)
	return nil
}

func (u *users) ListAccessKeys(ctx context.Context, input storage.ListAccessKeysInput) (*storage.ListAccessKeysOutput, error) {
	one, err := u.of(input.UserName)
	if err != nil {
		return nil, err
	}
	return one.ListAccessKeys(ctx, input)
}

func (u *users) GetAccessKeyLastUsed(ctx context.Context, id string) (*storage.GetAccessKeyLastUsedOutput, error) {
	one, err := u.ofKey(id)
	if err != nil {
		return nil, err
	}
	return one.GetAccessKeyLastUsed(ctx, id)
}

func (u *users) RecordAccessKeyUsage(ctx context.Context, id, service, region string, when time.Time) error {
	one, err := u.ofKey(id)
	if err != nil {
		return err
	}
	return one.RecordAccessKeyUsage(ctx, id, service, region, when)
}

func (u *users) PutUserPolicy(ctx context.Context, input storage.PutUserPolicyInput) error {
	one, err := u.of(input.UserName)
	if err != nil {
		return err
	}
	return one.PutUserPolicy(ctx, input)
}

func (u *users) GetUserPolicy(ctx context.Context, name, policy string) (*types.PolicyEntry, error) {
	one, err := u.of(name)
	if err != nil {
		return nil, err
	}
	return one.GetUserPolicy(ctx, name, policy)
}

func (u *users) DeleteUserPolicy(ctx context.Context, name, policy string) error {
	one, err := u.of(name)
	if err != nil {
		return err
	}
	return one.DeleteUserPolicy(ctx, name, policy)
}

func (u *users) ListUserPolicies(ctx context.Context, input storage.ListUserPoliciesInput) (*storage.ListUserPoliciesOutput, error) {
	one, err := u.of(input.UserName)
	if err != nil {
		return nil, err
	}
	return one.ListUserPolicies(ctx, input)
}

func made(directory string) (storage.Storer, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	return storage.NewInternal(directory)
}

// withoutTLS serves on a socket; the type of its TLS settings has no name outside versitygw.
func withoutTLS[T any](serve func([]string, T) error, socket string) error {
	var none T
	return serve([]string{socket}, none)
}

func main() {
	if len(os.Args) < 2 || os.Args[1] != "iam" {
		log.Fatal("usage: iam iam --listen HOST:PORT --iam-socket PATH --data DIRECTORY")
	}
	options := flag.NewFlagSet("iam", flag.ExitOnError)
	listen := options.String("listen", "", "`HOST:PORT`")
	options.String("region", "", "taken as the embedded store gives it")
	socket := options.String("iam-socket", "", "Unix socket by which the gateway asks")
	data := options.String("data", "", "`DIRECTORY` of users, policies and keys")
	_ = options.Parse(os.Args[2:]) // ends the process where it fails
	root := iamapi.RootCredentials{Access: os.Getenv("ROOT_ACCESS_KEY"), Secret: os.Getenv("ROOT_SECRET_KEY")}
	rest, err := made(*data)
	if err != nil {
		log.Fatal(err)
	}
	store := &users{Storer: rest, directory: *data, byName: map[string]storage.Storer{}, byKey: map[string]string{}}
	public, err := iamapi.New(
		store, root, iamapi.WithConcurrencyLimiter(maxConnections, maxRequests), iamapi.WithKeepAlive(), iamapi.WithQuiet(),
	)
	if err != nil {
		log.Fatal(err)
	}
	gateway, err := private.New(store, root, private.WithPrivateSocketPerm(0o600), private.WithPrivateQuiet())
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- public.ServeMultiPort([]string{*listen}) }()
	go func() { ended <- withoutTLS(gateway.ServeMultiPort, *socket) }()
	select {
	case <-ctx.Done():
	case err := <-ended:
		log.Fatal(err)
	}
}
