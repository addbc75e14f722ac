"""Every resource of the plugin: its inputs, and what its state holds beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from .connection import Connection
from .model import State, prop

_CONNECTION: Final = "How the store is reached."
_OWNER: Final = "The mark on what is this store's: project/stack/homeserver."
_NONCE: Final = (
    "Random, and in this state alone: by it the names of its keys differ from those of another state of the same store."
)
_OF_BUCKET: Final = "The bucket's: part of the names of its keys. Empty where an earlier release made the bucket."
_FORMER_OWNER: Final = "The mark from before the homeserver was renamed."


# ---- buckets


@dataclass(frozen=True, kw_only=True)
class AnyBucketInputs:
    """What every bucket takes."""

    bucket: str = prop("The bucket's name.", replaces=True)
    connection: Connection = prop(_CONNECTION)
    owner: str = prop(_OWNER)
    former_owner: str | None = prop(_FORMER_OWNER, default=None, transient=True)
    adopt: bool = prop(
        "Take over an existing bucket: its media and settings stay, differences are reported.", default=False
    )
    manage: tuple[str, ...] = prop(
        "Groups of settings of an adopted bucket that may be changed: versioning, access, encryption, lifecycle, "
        "policy, quota, as far as the provider has them.",
        default=(),
    )
    force_destroy: bool = prop("Delete the media with the bucket.", default=False)
    own: bool = prop(
        "Whether this run may turn an adopted bucket into a fully managed one, if it has the settings of a new one.",
        default=False,
        transient=True,
    )
    media_in: tuple[str, ...] = prop(
        "Key prefixes under which Synapse will look for media; an adopted bucket without any there is reported. Empty "
        "if the method has no fixed prefixes.",
        default=(),
        transient=True,
    )
    expiring_rules: tuple[str, ...] = prop(
        "Lifecycle rules, found at the store, that delete or hide media by age.", default=(), drift=True
    )


BucketIn = TypeVar("BucketIn", bound=AnyBucketInputs)


@dataclass(kw_only=True)
class AnyBucketState(State[BucketIn]):
    """What is known of every bucket."""

    lacks: tuple[str, ...] = prop("Settings that this store does not have, in words.", default=())
    adopted: bool = prop("Whether the bucket was adopted.", default=False)
    differences: tuple[str, ...] = prop("Descriptions of how an adopted bucket differs from a new one.", default=())


@dataclass(frozen=True, kw_only=True)
class BucketInputs(AnyBucketInputs):
    """Inputs of a bucket over the S3 API."""

    versioning: bool = prop("Keep old versions of overwritten and deleted objects.", default=False)
    noncurrent_days: int = prop("Days that an old version is kept; 0: no rule.", default=0)
    abort_days: int = prop("Days after which an unfinished upload is removed; 0: no rule.", default=0)
    policy: str | None = prop("Bucket policy (JSON); empty: there must be none; missing: not looked at.", default=None)
    public_access_block: bool = prop("Block public access lists and policies.", default=False)
    encryption: bool = prop("Encrypt at rest by default (AES256).", default=False)
    acl: str = prop("`private`; empty: not looked at.", default="")
    may_be_denied: bool = prop(
        "The key is no administrator's: what it may not set or see is said in `lacks`.", default=False
    )


S3BucketIn = TypeVar("S3BucketIn", bound=BucketInputs)


@dataclass(kw_only=True)
class AnyS3BucketState(AnyBucketState[S3BucketIn]):
    """What is known of every bucket over the S3 API."""

    arn: str = prop("The bucket's ARN.", default="")
    has_no_tags: bool = prop("The store can't tag buckets, so this one carries no mark.", default=False)


@dataclass(kw_only=True)
class BucketState(AnyS3BucketState[BucketInputs]):
    """State of a bucket over the S3 API."""


@dataclass(frozen=True, kw_only=True)
class StorjBucketInputs(BucketInputs):
    """Inputs of a bucket at Storj."""

    key_permissions: tuple[str, ...] = prop(
        "What its keys will be given (deletes, lists, reads, writes …; `*`: all): whether the operator's access grant "
        "can give it is known before anything is made.",
        default=(),
        transient=True,
    )


@dataclass(kw_only=True)
class StorjBucketState(AnyS3BucketState[StorjBucketInputs]):
    """State of a bucket at Storj."""

    fingerprint: str = prop("Hash of the project and the key that decrypts the bucket.", default="")


@dataclass(frozen=True, kw_only=True)
class B2BucketInputs(AnyBucketInputs):
    """Inputs of a bucket over Backblaze B2's native API."""

    private: bool = prop("Nobody reads it without a key.", default=True)
    encryption: bool = prop("Encrypt at rest by default (SSE-B2).", default=True)
    noncurrent_days: int = prop("Days that a hidden version is kept.", default=1)
    abort_days: int = prop("Days after which an unfinished large file is removed.", default=7)
    region: str = prop("The account's region; empty: whatever it is.", default="")
    endpoint: str = prop("The account's S3 endpoint; empty: whatever it is.", default="")


@dataclass(kw_only=True)
class B2BucketState(AnyBucketState[B2BucketInputs]):
    """State of a bucket over Backblaze B2's native API."""

    bucket_id: str = prop("B2's ID of the bucket.", default="")
    account_id: str = prop("B2's ID of the account.", default="")
    account_region: str = prop("The account's region, fixed at sign-up.", default="")
    account_endpoint: str = prop("URL of the account's S3 API.", default="")
    nonce: str = prop(_NONCE, default="")


@dataclass(frozen=True, kw_only=True)
class GarageBucketInputs(AnyBucketInputs):
    """Inputs of a bucket over Garage's admin API."""

    abort_days: int = prop("Days after which an unfinished upload is removed.", default=7)
    quota_bytes: int = prop("Bytes that the bucket may hold; 0: no limit.", default=0)
    quota_objects: int = prop("Objects that the bucket may hold; 0: no limit.", default=0)
    website: bool = prop("Serve the bucket as a website.", default=False)


@dataclass(kw_only=True)
class GarageBucketState(AnyBucketState[GarageBucketInputs]):
    """State of a bucket over Garage's admin API."""

    bucket_id: str = prop("Garage's ID of the bucket.", default="")
    nonce: str = prop(_NONCE, default="")


# ---- users


@dataclass(frozen=True, kw_only=True)
class UserMark:
    """Whose an IAM user has to be before anything of it is changed."""

    path: str = prop("The path that names project, stack, homeserver and bucket.", default="")
    former_paths: tuple[str, ...] = prop(
        "Other paths under which the user is this store's: earlier releases', a renamed homeserver's.", default=()
    )
    bucket: str = prop("The bucket that the user's policy is for.", default="")


@dataclass(frozen=True, kw_only=True)
class UserInputs:
    """Inputs of an IAM user."""

    user_name: str = prop("The user's name.", replaces=True)
    path: str = prop("The IAM path under which it is made; it stays where it was made.", transient=True)
    connection: Connection = prop(_CONNECTION)
    adopt: bool = prop("Take over an existing user.", default=False)
    mark: UserMark | None = prop("Whose the user has to be.", default=None, transient=True)
    moved_to: str = prop("The path to which somebody moved it.", default="", drift=True)


@dataclass(kw_only=True)
class UserState(State[UserInputs]):
    """State of an IAM user; the path among its inputs is where the user is."""

    arn: str = prop("The user's ARN.", default="")
    adopted: bool = prop("It was there before, and is never deleted.", default=False)


@dataclass(frozen=True, kw_only=True)
class UserPolicyInputs:
    """Inputs of an inline policy of an IAM user."""

    user_name: str = prop("The user's name.", replaces=True)
    policy_name: str = prop("The policy's name.", replaces=True)
    policy: str = prop("The policy document (JSON).")
    connection: Connection = prop(_CONNECTION)
    adopt: bool = prop("Whether the user is adopted.", default=False, transient=True)
    mark: UserMark | None = prop("Whose the user has to be.", default=None, transient=True)


@dataclass(kw_only=True)
class UserPolicyState(State[UserPolicyInputs]):
    """State of an inline policy."""


# ---- keys


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """An access key, without its secret."""

    access_key_id: str = prop("The access key ID.", default="")
    created_at: str = prop(
        "When it was made (ISO 8601); empty: it was brought along, and is never deleted.", default=""
    )


@dataclass(frozen=True, kw_only=True)
class AnyRingInputs:
    """What every key ring takes."""

    user_name: str = prop(
        "Whose keys these are: the user, or where there are no users, the name that keys carry.", replaces=True
    )
    active: str = prop("The slot whose key is used.")
    slots: tuple[str, ...] = prop("Every slot that there shall be a key in.")
    connection: Connection = prop(_CONNECTION)
    adopt: bool = prop(
        "Whether user or bucket are adopted: keys found there may be in use, and are only reported.", default=False
    )
    retire_confirmed: bool = prop(
        "Leave, for this run, to delete a key that may be in use.", default=False, transient=True
    )
    adopt_key: str | None = prop(
        "ID of an existing key that becomes the first; its secret is in the environment.", default=None, transient=True
    )


RingIn = TypeVar("RingIn", bound=AnyRingInputs)


@dataclass(kw_only=True)
class AnyRingState(State[RingIn]):
    """What is known of every key ring."""

    keys: dict[str, AccessKey] = prop("The keys by slot.", default={})
    secrets: dict[str, str] = prop("The secret access keys by slot.", default={}, secret=True)
    access_key_id: str = prop("The access key ID of the active slot.", default="")
    secret_access_key: str = prop("The secret access key of the active slot.", default="", secret=True)
    unknown_keys: tuple[str, ...] = prop("Keys of the user that this ring did not make; left alone.", default=())
    inactive_keys: tuple[str, ...] = prop("Keys of the ring that somebody switched off.", default=())
    orphan_until: str | None = prop(
        "Until when (ISO 8601) the store may still make a key that was asked for without an answer.",
        default=None,
        pending=True,
    )


@dataclass(frozen=True, kw_only=True)
class KeyRingInputs(AnyRingInputs):
    """Inputs of the access keys of an IAM user."""

    adopt: bool = prop("The user may be somebody else's.", default=False, transient=True)
    mark: UserMark | None = prop("Whose the user has to be.", default=None, transient=True)
    user_takes_keys: bool = prop(
        "Whether the user's deletion deletes every key it has, whoever made it: then the ring is deleted only if the "
        "user has no key that the state does not know.",
        default=False,
        transient=True,
    )
    other_policies: tuple[str, ...] = prop("Inline policies beside this store's.", default=(), drift=True)
    attached_policies: tuple[str, ...] = prop("ARNs of policies attached to the user.", default=(), drift=True)
    groups: tuple[str, ...] = prop("Groups that the user is in.", default=(), drift=True)


@dataclass(kw_only=True)
class KeyRingState(AnyRingState[KeyRingInputs]):
    """State of the access keys of an IAM user."""


@dataclass(frozen=True, kw_only=True)
class B2KeyRingInputs(AnyRingInputs):
    """Inputs of Backblaze B2's application keys for one bucket."""

    owner: str = prop(_OWNER)
    bucket_id: str = prop("B2's ID of the bucket.", replaces=True)
    capabilities: tuple[str, ...] = prop("What a key may do, in B2's words.")
    nonce: str = prop(_OF_BUCKET, default="", transient=True)


@dataclass(kw_only=True)
class B2KeyRingState(AnyRingState[B2KeyRingInputs]):
    """State of Backblaze B2's application keys for one bucket."""

    account_id: str = prop("B2's ID of the account that the keys are of.", default="")


@dataclass(frozen=True, kw_only=True)
class GarageKeyRingInputs(AnyRingInputs):
    """Inputs of Garage's keys for one bucket."""

    owner: str = prop(_OWNER)
    bucket_id: str = prop("Garage's ID of the bucket.")
    permissions: dict[str, bool] = prop(
        "What a key may do on the bucket: read, write, owner.", default={"read": True, "write": True, "owner": False}
    )
    nonce: str = prop(_OF_BUCKET, default="", transient=True)


@dataclass(kw_only=True)
class GarageKeyRingState(AnyRingState[GarageKeyRingInputs]):
    """State of Garage's keys for one bucket."""


@dataclass(frozen=True, kw_only=True)
class SpacesGrant:
    """What a Spaces key may do with one bucket."""

    bucket: str = prop("The bucket; empty: all of them.", default="")
    permission: str = prop("DigitalOcean's word for it.", default="", choices=("read", "readwrite", "fullaccess"))


@dataclass(frozen=True, kw_only=True)
class SpacesKeyRingInputs(AnyRingInputs):
    """Inputs of DigitalOcean's limited Spaces keys."""

    owner: str = prop(_OWNER)
    grants: tuple[SpacesGrant, ...] = prop("What a key may do, by bucket.")
    acl: str = prop("`public`, where the bucket has a public access list.", default="", drift=True)
    policy: str = prop("The bucket's policy (JSON), where it has one.", default="", drift=True)


@dataclass(kw_only=True)
class SpacesKeyRingState(AnyRingState[SpacesKeyRingInputs]):
    """State of DigitalOcean's limited Spaces keys."""


@dataclass(frozen=True, kw_only=True)
class StorjKeyRingInputs(AnyRingInputs):
    """Inputs of Storj's S3 keys for one bucket."""

    bucket: str = prop("The bucket.", replaces=True)
    permissions: tuple[str, ...] = prop("What a key may do (deletes, lists, reads, writes …; `*`: all).")
    expires_in_days: int = prop("Days until a key ends; 0: never.", default=0)


@dataclass(kw_only=True)
class StorjKeyRingState(AnyRingState[StorjKeyRingInputs]):
    """State of Storj's S3 keys for one bucket."""

    endpoint: str = prop("URL of the gateway that knows the active key.", default="")
    endpoints: dict[str, str] = prop("The gateways' URLs by slot.", default={})
    ends: dict[str, str] = prop("When a key ends before its grant (ISO 8601), by slot; empty: it does not.", default={})
    grants: dict[str, str] = prop("The access grants by slot.", default={}, secret=True)
    ending: tuple[str, ...] = prop("Access grants that are still to be revoked.", default=(), secret=True)
    lifetimes: tuple[str, ...] = prop("When each key ends, in words.", default=())


@dataclass(frozen=True, kw_only=True)
class SpacesAdminKeyInputs:
    """Inputs of a full-access Spaces key of the stack's own."""

    name: str = prop("How the key's name begins.", replaces=True)
    owner: str = prop("project/stack.", replaces=True)
    connection: Connection = prop(_CONNECTION)


@dataclass(kw_only=True)
class SpacesAdminKeyState(State[SpacesAdminKeyInputs]):
    """State of a full-access Spaces key of the stack's own."""

    access_key_id: str = prop("The access key ID.", default="")
    secret_access_key: str = prop("The secret access key.", default="", secret=True)


@dataclass(frozen=True, kw_only=True)
class ExistingKeyInputs:
    """Inputs of a key that the operator has already."""

    active: str = prop("The slot in use; another one has the key read anew.")
    connection: Connection = prop(_CONNECTION)
    bucket: str = prop("The bucket that it is tried on.", default="", transient=True)


@dataclass(kw_only=True)
class ExistingKeyState(State[ExistingKeyInputs]):
    """State of a key that the operator has already."""

    access_key_id: str = prop("The access key ID.", default="")
    secret_access_key: str = prop("The secret access key.", default="", secret=True)


# ---- the proof


@dataclass(frozen=True, kw_only=True)
class ProofLine:
    """What became of one operation."""

    operation: str = prop("The operation's name.", default="")
    expected: str = prop("What was expected of it.", default="")
    outcome: str = prop("What became of it.", default="")
    detail: str = prop("Why, where it is not as expected.", default="")


@dataclass(frozen=True, kw_only=True)
class ProofInputs:
    """Inputs of a proof: all that it was made for."""

    connection: Connection = prop(_CONNECTION)
    bucket: str = prop("The bucket.")
    access_key_id: str = prop("The key to prove.")
    secret_access_key: str = prop("Its secret.", secret=True)
    expected: dict[str, str] = prop("What is expected of each operation.")
    prefix: str = prop("The store's prefix, put before each key as it is.", default="")
    method: str = prop("The method.", default="")
    access: str = prop("The access.", default="", choices=("least", "full"))
    endpoint_url: str = prop("URL of the S3 API, as the outputs have it.", default="")
    region: str = prop("The region, as the outputs have it.", default="")
    policy_sha256: str = prop("SHA-256 of the key's policy; empty where there is none.", default="")
    admin: bool = prop("There is an administrator, who clears up.", default=False)
    decoy: bool = prop("The administrator may make an empty bucket that the key must not reach.", default=False)
    administrator: str = prop(
        "The provider family whose administrator creates the decoy and cleans up; empty: one with an S3 key.",
        default="",
        former="lender",
    )
    owner: str = prop(_OWNER, default="")
    former_owner: str | None = prop(_FORMER_OWNER, default=None, transient=True)
    user_name: str = prop("The IAM user; empty where there is none.", default="")
    settle_seconds: float = prop("Seconds that a new key may need until the store knows it.", default=0.0)


@dataclass(kw_only=True)
class ProofState(State[ProofInputs]):
    """State of a proof."""

    made_for: str = prop("Fingerprint of what the proof was made for.", default="")
    lines: tuple[ProofLine, ...] = prop("What became of each operation.", default=())
    secret_sha256: str = prop("SHA-256 of the key with its secret.", default="", secret=True)
    decoys_left: tuple[str, ...] = prop(
        "Decoy buckets that could not be deleted; the next proof tries again.", default=(), drift=True
    )


# ---- all of them


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A resource type of the plugin.

    Attributes:
        one_of_a_name: its ID is its name at the store, and making it takes over what has the name and is this store's.
        found_again: what a run made of it that was killed, and that is in no state, is found or removed by the next.
    """

    name: str
    doc: str
    inputs: type
    state: type[State[Any]]
    one_of_a_name: bool = False
    found_again: bool = False

    @property
    def token(self) -> str:
        """Its type, as Pulumi names it."""
        return f"{PLUGIN}:index:{self.name}"

    @property
    def constant(self) -> str:
        """Its name in this module."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).upper()


PLUGIN: Final = "s3store"


class ComponentInput(StrEnum):
    """The inputs of a component that a program declares: what the guards can't read from its resources."""

    SERVER_NAME = "serverName"
    RENAMED_FROM = "renamedFrom"
    S3_DATASTORE_ID = "s3DatastoreId"
    KEYLESS_PLACE = "keylessPlace"


BUCKET: Final = ResourceType(
    "Bucket", "A private bucket over the S3 API.", BucketInputs, BucketState, one_of_a_name=True, found_again=True
)
STORJ_BUCKET: Final = ResourceType(
    "StorjBucket", "A private bucket at Storj.", StorjBucketInputs, StorjBucketState, one_of_a_name=True
)
B2_BUCKET: Final = ResourceType(
    "B2Bucket", "A private bucket at Backblaze B2.", B2BucketInputs, B2BucketState, one_of_a_name=True
)
GARAGE_BUCKET: Final = ResourceType(
    "GarageBucket", "A bucket at Garage.", GarageBucketInputs, GarageBucketState, one_of_a_name=True
)
USER: Final = ResourceType("User", "An IAM user.", UserInputs, UserState, one_of_a_name=True, found_again=True)
USER_POLICY: Final = ResourceType(
    "UserPolicy",
    "An inline policy of an IAM user.",
    UserPolicyInputs,
    UserPolicyState,
    one_of_a_name=True,
    found_again=True,
)
KEY_RING: Final = ResourceType(
    "KeyRing", "The access keys of an IAM user, by slot.", KeyRingInputs, KeyRingState, found_again=True
)
B2_KEY_RING: Final = ResourceType(
    "B2KeyRing", "Backblaze B2's application keys for one bucket, by slot.", B2KeyRingInputs, B2KeyRingState
)
GARAGE_KEY_RING: Final = ResourceType(
    "GarageKeyRing", "Garage's keys for one bucket, by slot.", GarageKeyRingInputs, GarageKeyRingState
)
SPACES_KEY_RING: Final = ResourceType(
    "SpacesKeyRing", "DigitalOcean's limited Spaces keys, by slot.", SpacesKeyRingInputs, SpacesKeyRingState
)
STORJ_KEY_RING: Final = ResourceType(
    "StorjKeyRing", "Storj's S3 keys for one bucket, by slot.", StorjKeyRingInputs, StorjKeyRingState
)
SPACES_ADMIN_KEY: Final = ResourceType(
    "SpacesAdminKey",
    "A full-access Spaces key of the stack's own, for where an API token is all there is.",
    SpacesAdminKeyInputs,
    SpacesAdminKeyState,
)
EXISTING_KEY: Final = ResourceType(
    "ExistingKey",
    "A key that the operator has already, from the environment. It is never changed, and never deleted.",
    ExistingKeyInputs,
    ExistingKeyState,
    found_again=True,
)
PROOF: Final = ResourceType(
    "Proof",
    "The key, tried: every operation that the method needs, and those that it must not be able to do.",
    ProofInputs,
    ProofState,
    found_again=True,
)

RESOURCES: Final = tuple(found for found in tuple(globals().values()) if isinstance(found, ResourceType))
"""Every resource type of the plugin, in the order of this module."""
