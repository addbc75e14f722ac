// Command storjkit says what the vendor's own library (storj.io/uplink) makes of access grants: the other side of
// synapse_media/plugin/storj_grant.py. Nothing here speaks to a network; the project's secret is made up.
//
//	storjkit vectors            grants and what becomes of them, as JSON: ../vectors.json, the same bytes every time
//	storjkit check < grants     what each grant may do, as JSON; one grant a line
//
// To make the vectors anew after raising the version in go.mod: go run . vectors > ../vectors.json
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"storj.io/common/encryption"
	"storj.io/common/grant"
	"storj.io/common/macaroon"
	"storj.io/common/paths"
	"storj.io/common/storj"
	"storj.io/picobuf"
	"storj.io/uplink"
)

const (
	satellite = "12EayRS2V1kEsWESU9QMRseFhdxYxKicsiFmxrsLZHeLUtdps3S@satellite.invalid:7777"
	bucket    = "media"
	other     = "other"
)

var (
	// What the satellite alone knows: with it a grant can be judged as the satellite would.
	projectSecret = []byte("made up for tests, and for nothing else")
	head          = []byte("head of a made-up API key, 32 by")
	rootKey       = storj.Key(sha256.Sum256([]byte("root key made up for tests")))
	long          = time.Unix(4102444800, 0) // 2100
	// Long past, for grants that have ended.
	past = time.Unix(1577836800, 0) // 2020
)

// counted is the same stream of bytes every time, in place of the system's randomness: only nonces come from it.
type counted struct{ n uint64 }

func (c *counted) Read(b []byte) (int, error) {
	for i := range b {
		c.n++
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, c.n))
		b[i] = sum[0]
	}
	return len(b), nil
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "storjkit:", err)
		os.Exit(1)
	}
	return value
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "vectors" {
		rand.Reader = &counted{}
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		must(0, encoder.Encode(vectors()))
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "check" {
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 1<<20)
		verdicts := []verdict{}
		for lines.Scan() {
			verdicts = append(verdicts, check(lines.Text()))
		}
		must(0, json.NewEncoder(os.Stdout).Encode(verdicts))
		return
	}
	fmt.Fprintln(os.Stderr, "usage: storjkit vectors | storjkit check < grants")
	os.Exit(64)
}

// ---- vectors

type restriction struct {
	Name     string   `json:"name"`
	Parent   string   `json:"parent"`
	Bucket   string   `json:"bucket"`
	Allow    []string `json:"allow"`
	NotAfter int64    `json:"not_after"`
	Nonce    string   `json:"nonce"`
	Child    string   `json:"child"`
}

type file struct {
	Comment      string            `json:"comment"`
	Uplink       string            `json:"uplink"`
	Common       string            `json:"common"`
	Fields       map[string]int    `json:"fields"`
	Parents      map[string]string `json:"parents"`
	Restrictions []restriction     `json:"restrictions"`
}

var objects = uplink.Permission{AllowDownload: true, AllowUpload: true, AllowList: true, AllowDelete: true}

var objectWords = []string{"reads", "writes", "lists", "deletes"}

func vectors() file {
	parents := map[string]string{
		"full":        serialize(full(storj.EncAESGCM)),
		"plain-names": serialize(full(storj.EncNull)),
	}
	share := func(parent string, permission uplink.Permission, prefixes ...uplink.SharePrefix) string {
		access := must(uplink.ParseAccess(parents[parent]))
		return must(must(access.Share(permission, prefixes...)).Serialize())
	}
	all := objects
	parents["the-bucket"] = share("full", all, uplink.SharePrefix{Bucket: bucket})
	parents["another-bucket"] = share("full", all, uplink.SharePrefix{Bucket: other})
	parents["a-prefix"] = share("full", all, uplink.SharePrefix{Bucket: bucket, Prefix: "synapse/"})
	ends := objects
	ends.NotAfter, ends.NotBefore = long, past
	parents["ends"] = share("full", ends)
	ended := objects
	ended.NotAfter = past
	parents["ended"] = share("full", ended)
	early := objects
	early.NotBefore = long
	parents["not-yet"] = share("full", early)
	parents["read-only"] = share("full", uplink.ReadOnlyPermission())
	ttl := 24 * time.Hour
	expiring := objects
	expiring.MaxObjectTTL = &ttl
	parents["objects-expire"] = share("full", expiring)
	overridden := must(uplink.ParseAccess(parents["full"]))
	uplinkKey := must(uplink.DeriveEncryptionKey("passphrase made up for tests", []byte("salt")))
	must(0, overridden.OverrideEncryptionKey(bucket, "synapse/", uplinkKey))
	parents["a-prefix-has-its-own-key"] = must(overridden.Serialize())
	parents["no-node-id"] = must((&grant.Access{
		SatelliteAddress: "satellite.invalid:7777", APIKey: apiKey(), EncAccess: encAccess(storj.EncAESGCM),
	}).Serialize())

	found := file{
		Comment: "Made by `go run . vectors` in tests/storj/go; every secret in here is made up.",
		Uplink:  version("storj.io/uplink"),
		Common:  version("storj.io/common"),
		Fields:  fields(),
		Parents: parents,
	}
	for _, parent := range []string{"full", "plain-names", "the-bucket", "ends", "a-prefix-has-its-own-key"} {
		for _, notAfter := range []time.Time{{}, long.Add(-time.Hour)} {
			permission := objects
			permission.NotAfter = notAfter
			child := share(parent, permission, uplink.SharePrefix{Bucket: bucket})
			name := parent
			if !notAfter.IsZero() {
				name += ", ending"
			}
			found.add(name, parent, objectWords, notAfter, child)
		}
	}
	child := share("full", uplink.ReadOnlyPermission(), uplink.SharePrefix{Bucket: bucket})
	found.add("read-only", "full", []string{"reads", "lists"}, time.Time{}, child)
	// uplink.Permission doesn't show the notification permissions, so this one goes a layer deeper.
	everything := must(must(grant.ParseAccess(parents["full"])).Restrict(grant.Permission{
		AllowDownload: true, AllowUpload: true, AllowList: true, AllowDelete: true, AllowLock: true,
		AllowPutObjectRetention: true, AllowGetObjectRetention: true,
		AllowPutObjectLegalHold: true, AllowGetObjectLegalHold: true, AllowBypassGovernanceRetention: true,
		AllowPutBucketObjectLockConfiguration: true, AllowGetBucketObjectLockConfiguration: true,
		AllowPutBucketNotificationConfiguration: true, AllowGetBucketNotificationConfiguration: true,
	}, grant.SharePrefix{Bucket: bucket}))
	words := []string{}
	for name := range found.Fields {
		if word, is := strings.CutPrefix(name, "disallow_"); is {
			words = append(words, word)
		}
	}
	found.add("everything", "full", words, time.Time{}, must(everything.Serialize()))
	return found
}

func (f *file) add(name, parent string, allow []string, notAfter time.Time, child string) {
	key := must(grant.ParseAccess(child)).APIKey
	caveats := must(macaroon.ParseMacaroon(key.SerializeRaw())).Caveats()
	last := must(macaroon.ParseCaveat(caveats[len(caveats)-1]))
	ending := int64(0)
	if !notAfter.IsZero() {
		ending = notAfter.Unix()
	}
	if len(allow) > len(objectWords) {
		allow = []string{"*"}
	}
	f.Restrictions = append(f.Restrictions, restriction{
		Name: name, Parent: parent, Bucket: bucket, Allow: allow, NotAfter: ending,
		Nonce: hex.EncodeToString(last.Nonce), Child: child,
	})
}

func apiKey() *macaroon.APIKey { return must(macaroon.FromParts(head, projectSecret)) }

func encAccess(cipher storj.CipherSuite) *grant.EncryptionAccess {
	key := rootKey
	access := grant.NewEncryptionAccessWithDefaultKey(&key)
	access.SetDefaultPathCipher(cipher)
	return access
}

func full(cipher storj.CipherSuite) *grant.Access {
	return &grant.Access{SatelliteAddress: satellite, APIKey: apiKey(), EncAccess: encAccess(cipher)}
}

func serialize(access *grant.Access) string { return must(access.Serialize()) }

// fields asks the library itself for the number of every field of a caveat: each is set alone, and the tag read back.
func fields() map[string]int {
	found := map[string]int{}
	kind := reflect.TypeOf(macaroon.Caveat{})
	for i := range kind.NumField() {
		caveat := macaroon.Caveat{}
		value := reflect.ValueOf(&caveat).Elem().Field(i)
		switch value.Interface().(type) {
		case bool:
			value.SetBool(true)
		case []byte:
			value.SetBytes([]byte{1})
		case []*macaroon.Caveat_Path:
			value.Set(reflect.ValueOf([]*macaroon.Caveat_Path{{Bucket: []byte(bucket)}}))
		case *time.Time:
			value.Set(reflect.ValueOf(&long))
		case *time.Duration:
			day := 24 * time.Hour
			value.Set(reflect.ValueOf(&day))
		default:
			must(0, fmt.Errorf("a caveat's field of a new kind: %s", kind.Field(i).Name))
		}
		tag, _ := binary.Uvarint(must(picobuf.Marshal(&caveat)))
		name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		found[name] = int(tag >> 3)
	}
	return found
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			return dependency.Version
		}
	}
	return ""
}

// ---- what a grant may do, decided by the library as the satellite decides it

type verdict struct {
	Error string `json:"error"`
	// "media/object": the permissions that APIKey.Check grants there.
	Allowed map[string][]string `json:"allowed"`
	// Bucket -> the key that decrypts an object in it, hashed; absent: the grant has none.
	Keys     map[string]string `json:"keys"`
	NotAfter int64             `json:"not_after"`
}

var actions = map[string]macaroon.ActionType{
	"reads": macaroon.ActionRead, "writes": macaroon.ActionWrite, "lists": macaroon.ActionList,
	"deletes": macaroon.ActionDelete, "locks": macaroon.ActionLock,
	"put_retention": macaroon.ActionPutObjectRetention, "get_retention": macaroon.ActionGetObjectRetention,
	"put_legal_hold": macaroon.ActionPutObjectLegalHold, "get_legal_hold": macaroon.ActionGetObjectLegalHold,
	"bypass_governance_retention":           macaroon.ActionBypassGovernanceRetention,
	"put_bucket_object_lock_configuration":  macaroon.ActionPutBucketObjectLockConfiguration,
	"get_bucket_object_lock_configuration":  macaroon.ActionGetBucketObjectLockConfiguration,
	"put_bucket_notification_configuration": macaroon.ActionPutBucketNotificationConfiguration,
	"get_bucket_notification_configuration": macaroon.ActionGetBucketNotificationConfiguration,
}

func check(text string) verdict {
	if _, err := uplink.ParseAccess(text); err != nil {
		return verdict{Error: err.Error()}
	}
	inner := must(grant.ParseAccess(text))
	found := verdict{Allowed: map[string][]string{}, Keys: map[string]string{}}
	every := macaroon.APIKeyVersionObjectLock | macaroon.APIKeyVersionAuditable | macaroon.APIKeyVersionEventing
	for _, name := range []string{bucket, other} {
		for _, path := range []string{"object", ""} {
			words := []string{}
			for word, action := range actions {
				err := inner.APIKey.Check(context.Background(), projectSecret, every, macaroon.Action{
					Op: action, Bucket: []byte(name), EncryptedPath: []byte(path), Time: time.Now(),
				}, nil)
				if err == nil {
					words = append(words, word)
				}
			}
			found.Allowed[name+"/"+path] = words
		}
		key, err := encryption.DerivePathKey(name, paths.NewUnencrypted("a/b"), inner.EncAccess.Store)
		if err == nil {
			sum := sha256.Sum256(key[:])
			found.Keys[name] = hex.EncodeToString(sum[:])
		}
	}
	for _, raw := range must(macaroon.ParseMacaroon(inner.APIKey.SerializeRaw())).Caveats() {
		caveat := must(macaroon.ParseCaveat(raw))
		if caveat.NotAfter != nil && (found.NotAfter == 0 || caveat.NotAfter.Unix() < found.NotAfter) {
			found.NotAfter = caveat.NotAfter.Unix()
		}
	}
	return found
}
