"""Every resource of the vendors' plugins that we make, and each of its inputs: what a change does, there and here.

    python -m tests.providers.vendor_table      # writes the table in docs/vendors.md anew

`test_vendor_table.py` tries each row on the real engine with the stand-ins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/vendors.md"
BEGIN: Final = "<!-- the table: python -m tests.providers.vendor_table -->\n"
END: Final = "<!-- end of the table -->\n"

REPLACED: Final = "replaced"
IN_PLACE: Final = "updated in place"
IGNORED: Final = "ignored"
"""Left as an earlier release made it."""
STATE: Final = "state alone"
"""An update that reaches nothing at the vendor's: it is read when the thing is deleted, or never."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input of one resource.

    Attributes:
        kind: the resource's type.
        other: another value than the program's, from the program's.
        vendor: what the vendor's plugin does.
        here: what comes of it with our options, "" for the same.
        word: what `allow` must name for a change from the program's value to the other; "" for no danger.
        note: what else there is to know.
    """

    kind: str
    name: str
    other: Callable[[Any], Any]
    vendor: str
    here: str = ""
    word: str = ""
    note: str = ""

    @property
    def verb(self) -> str:
        """What the engine calls it."""
        return "replace" if REPLACED in (self.vendor, self.here) else "update"


def _another(value: Any) -> Any:
    return f"{value}-other"


def _without(_: Any) -> bool:
    return False


def _not(value: Any) -> bool:
    return not value


def _tagged(value: Any) -> dict[str, str]:
    return {**value, "by": "hand"}


def _all_actions(_: Any) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})


def _opened(_: Any) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}]})


def _trusting(_: Any) -> str:
    return json.dumps({"Statement": [{"Effect": "Allow", "Principal": {"AWS": "1"}, "Action": "sts:AssumeRole"}]})


def _sooner(rules: list[Any]) -> list[Any]:
    """One day for old versions."""
    (days,) = set(rules[0]["noncurrentVersionExpiration"]) - {"__defaults"}
    return [{**rules[0], "noncurrentVersionExpiration": {days: 1}}]


def _by_kms(_: Any) -> list[Any]:
    return [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}]


_S3 = "aws:s3/bucket"
BUCKET: Final = f"{_S3}:Bucket"
BLOCK: Final = f"{_S3}PublicAccessBlock:BucketPublicAccessBlock"
OWNERSHIP: Final = f"{_S3}OwnershipControls:BucketOwnershipControls"
ENCRYPTION: Final = f"{_S3}ServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
VERSIONING: Final = f"{_S3}Versioning:BucketVersioning"
LIFECYCLE: Final = f"{_S3}LifecycleConfiguration:BucketLifecycleConfiguration"
LOGGING: Final = f"{_S3}Logging:BucketLogging"
POLICY: Final = f"{_S3}Policy:BucketPolicy"
USER: Final = "aws:iam/user:User"
USER_POLICY: Final = "aws:iam/userPolicy:UserPolicy"
ROLE: Final = "aws:iam/role:Role"
ROLE_POLICY: Final = "aws:iam/rolePolicy:RolePolicy"
PROFILE: Final = "aws:iam/instanceProfile:InstanceProfile"
SPACE: Final = "digitalocean:index/spacesBucket:SpacesBucket"

_KEPT = "of the bucket left behind nothing is deleted"
_FORCE = "read when it is deleted"

ROWS: Final = (
    Row(BUCKET, "bucket", _another, REPLACED, word="replace-bucket"),
    Row(BUCKET, "forceDestroy", _not, STATE, note=f"{_FORCE}; asked for by `delete-media`"),
    Row(BUCKET, "tags", _tagged, IN_PLACE),
    Row(BLOCK, "bucket", _another, REPLACED, note=_KEPT),
    *(
        Row(BLOCK, name, _without, IN_PLACE, word="public-bucket")
        for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    ),
    Row(OWNERSHIP, "bucket", _another, REPLACED, note=_KEPT),
    Row(OWNERSHIP, "rule", lambda _: {"objectOwnership": "ObjectWriter"}, IN_PLACE),
    Row(ENCRYPTION, "bucket", _another, REPLACED, note=_KEPT),
    Row(ENCRYPTION, "rules", _by_kms, IN_PLACE),
    Row(VERSIONING, "bucket", _another, REPLACED, note=_KEPT),
    Row(VERSIONING, "versioningConfiguration", lambda _: {"status": "Suspended"}, IN_PLACE, word="disable-versioning"),
    Row(LIFECYCLE, "bucket", _another, REPLACED, note=_KEPT),
    Row(LIFECYCLE, "rules", _sooner, IN_PLACE, word="shorten-retention", note="waits 30 to 55 s"),
    Row(LOGGING, "bucket", _another, REPLACED, note="deleted first"),
    Row(LOGGING, "targetBucket", _another, IN_PLACE),
    Row(LOGGING, "targetPrefix", _another, IN_PLACE),
    Row(POLICY, "bucket", _another, REPLACED, note=_KEPT),
    Row(POLICY, "policy", _opened, IN_PLACE, word="public-bucket"),
    Row(USER, "name", _another, IN_PLACE, REPLACED, "retire-key", "UpdateUser there: the keys live on"),
    Row(USER, "path", lambda _: "/other/", IN_PLACE, here=IGNORED, note="UpdateUser"),
    Row(USER, "forceDestroy", _not, STATE, note=_FORCE),
    Row(USER, "tags", _tagged, IN_PLACE),
    Row(USER_POLICY, "name", _another, REPLACED, note="deleted first"),
    Row(USER_POLICY, "user", _another, REPLACED, note="deleted first"),
    Row(USER_POLICY, "policy", _all_actions, IN_PLACE, word="widen-policy"),
    Row(ROLE, "name", _another, REPLACED, word="retire-key"),
    Row(ROLE, "path", lambda _: "/other/", REPLACED, here=IGNORED),
    Row(ROLE, "assumeRolePolicy", _trusting, IN_PLACE, word="widen-policy"),
    Row(ROLE, "tags", _tagged, IN_PLACE),
    Row(ROLE_POLICY, "name", _another, REPLACED, note="deleted first"),
    Row(ROLE_POLICY, "role", _another, REPLACED, note="deleted first"),
    Row(ROLE_POLICY, "policy", _all_actions, IN_PLACE, word="widen-policy"),
    Row(PROFILE, "name", _another, REPLACED, word="retire-key"),
    Row(PROFILE, "path", lambda _: "/other/", REPLACED, here=IGNORED),
    Row(PROFILE, "role", _another, IN_PLACE, word="retire-key"),
    Row(PROFILE, "tags", _tagged, IN_PLACE),
    Row(SPACE, "name", _another, STATE, REPLACED, "replace-bucket", "there it then empties what has the new name"),
    Row(SPACE, "region", lambda _: "ams3", REPLACED, word="replace-bucket", note="one that Spaces has not is refused"),
    Row(SPACE, "acl", lambda _: "public-read", IN_PLACE, word="public-bucket", note="never read: our key ring looks"),
    Row(SPACE, "forceDestroy", _not, STATE, note=f"{_FORCE}; asked for by `delete-media`"),
    Row(SPACE, "versioning", lambda _: {"enabled": False}, IN_PLACE, word="disable-versioning"),
    Row(SPACE, "lifecycleRules", _sooner, IN_PLACE, word="shorten-retention"),
)
"""In the order of the page."""


def table() -> str:
    """The table of the page."""
    lines = ["| resource | input | the vendor's plugin | here | word | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in ROWS:
        vendor, _, kind = row.kind.partition(":")
        word = f"`{row.word}`" if row.word else "–"
        name = f"{vendor} {kind.rpartition(':')[2]}"
        lines.append(f"| {name} | `{row.name}` | {row.vendor} | {row.here or row.vendor} | {word} | {row.note} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with today's table in it."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
