"""What goes wrong with a store's settings, whatever names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from synapse_media import methods, values
from synapse_media.homeserver import playbook, synapse
from synapse_media.lint import references, stores
from synapse_media.lint.config import Config, ConfiguredStore, Field, Kind
from synapse_media.lint.findings import EVERYWHERE, Find, Hit, Severity, rule

REQUIRED = tuple(playbook.MODULE_VARIABLES[name] for name in ("bucket", "region", "endpoint"))
"""What the playbook refuses to go without: said by one rule of its own."""


def is_example(text: str) -> bool:
    """Whether a secret is one of the guides' or of the defaults', there to be replaced."""
    return values.is_placeholder("secret_access_key", text) or bool(values.expansion("secret_access_key", text))


def _in_use(config: Config) -> Iterator[ConfiguredStore]:
    """All that are not switched off."""
    return (store for store in config.stores if store.enabled is not False)


def _fields(config: Config, *names: str) -> Iterator[tuple[ConfiguredStore, Field]]:
    """Fields with a literal that is not empty, of what is not switched off."""
    for store in _in_use(config):
        for name in names:
            found = store.fields.get(name)
            if found is not None and found.text:
                yield store, found


def _hit(found: Field, store: ConfiguredStore, reason: str, mend: str, link: str = "") -> Hit:
    return Hit(found.value or store.where, found.setting, reason, mend, link)


_LINKS = {methods.GOOFYS: references.PLAYBOOK_GOOFYS, methods.MEDIA_REPO: references.MEDIA_REPO}
"""Where a rule on every method has the reason for these two."""


_MODULE_KINDS = (Kind.SYNAPSE, Kind.PLAYBOOK)
_JUDGED: tuple[tuple[str, Severity, str, str, tuple[Kind, ...]], ...] = (
    (
        "placeholder",
        Severity.BREAKS,
        "A value of the documentation's example was never replaced: <…>, your-…, CHANGE_ME.",
        references.PLAYBOOK_S3,
        EVERYWHERE,
    ),
    (
        "not-expanded",
        Severity.BREAKS,
        "`${X}`, `$X` or the path of a file: nobody puts the value there.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "stray-character",
        Severity.BREAKS,
        "A blank, a line break, a quotation mark or an invisible character is part of a value.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "bucket-name",
        Severity.BREAKS,
        "A bucket's name with a folder, an address, or a sign that no name has.",
        references.BUCKET_NAMES,
        EVERYWHERE,
    ),
    (
        "bucket-name-unusual",
        Severity.WARNS,
        "A bucket's name with capitals, '_', or of a length that no store allows any more.",
        references.BUCKET_NAMES,
        EVERYWHERE,
    ),
    (
        "endpoint-without-scheme",
        Severity.BREAKS,
        "The module's endpoint has no https://: every request for media fails.",
        references.MODULE,
        _MODULE_KINDS,
    ),
    (
        "endpoint-with-scheme",
        Severity.BREAKS,
        "matrix-media-repo's endpoint has a scheme or a path: the first upload fails.",
        references.MEDIA_REPO,
        (Kind.PLAYBOOK, Kind.MEDIA_REPO),
    ),
    (
        "endpoint-host",
        Severity.BREAKS,
        "boto3 refuses the endpoint: a host with '_', a port that is none, '?' or '#'.",
        references.MODULE,
        _MODULE_KINDS,
    ),
    (
        "region-form",
        Severity.BREAKS,
        "An availability zone in place of a region, or a region that boto3 refuses.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "region-not-endpoints",
        Severity.WARNS,
        "The region is another than the endpoint's.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "storage-class-refused",
        Severity.BREAKS,
        "The module knows four storage classes; with another, or none after the colon, Synapse does not start.",
        references.MODULE,
        _MODULE_KINDS,
    ),
    (
        "prefix-form",
        Severity.WARNS,
        "The prefix is put before a key as it is: without an ending '/', media/ becomes medialocal_content/.",
        references.MODULE,
        _MODULE_KINDS,
    ),
)
"""Rules on one value, each found by `values.judge`."""


def _finds(name: str) -> Find:
    def find(config: Config) -> Iterable[Hit]:
        for store in _in_use(config):
            for field, found in store.fields.items():
                fault = _judge(config, store, field, found)
                if fault is not None and fault.rule == name:
                    yield _hit(found, store, fault.reason, fault.mend, _LINKS.get(store.method, ""))

    return find


def _judge(config: Config, store: ConfiguredStore, field: str, found: Field) -> values.Fault | None:
    if found.value is None or not found.literal:
        return None
    # Nothing after the colon: the module asserts a class, and boto3 takes "" for a URL. The rest is in no-value.
    nothing = (field == "storage_class", field == "endpoint" and found.given)
    if not found.text and (not any(nothing) or found.setting in REQUIRED):
        return None
    return values.judge(
        field, found.text, store.method, endpoint=store.fields["endpoint"].text, module=config.module_version
    )


for _name, _severity, _summary, _link, _kinds in _JUDGED:
    rule(_name, _severity, _summary, _link, _kinds)(_finds(_name))


@rule(
    "no-value",
    Severity.BREAKS,
    "A key or a region with nothing after the colon: it becomes the text None, or nothing is signed with.",
    references.MODULE,
    _MODULE_KINDS,
)
def no_value(config: Config) -> Iterable[Hit]:
    for store in _in_use(config):
        for field in ("access_key_id", "secret_access_key", "region", "customer_key"):
            found = store.fields.get(field)
            if found is not None and _is_valueless(config, store, field):
                yield _hit(
                    found,
                    store,
                    _valueless(found, field, "secret_access_key" in found.setting),
                    "Write the value, or remove the line: then the machine's role or the environment has the key."
                    if "key" in field and field != "customer_key"
                    else "Write the value, or remove the line.",
                )


def _is_valueless(config: Config, store: ConfiguredStore, field: str) -> bool:
    """Whether the module is handed nothing for what it then takes for a value. The playbook's own variables are judged
    by setting-required."""
    found = store.fields[field]
    if store.method != methods.MODULE or found.value is None or not found.empty or found.setting in config.settings:
        return False
    other = {"access_key_id": "secret_access_key", "secret_access_key": "access_key_id"}.get(field)
    if other and not store.fields[other].empty:
        return False  # said by key-half
    makes_text = _makes_text(config)
    if not found.given and not makes_text:
        return False  # handed on as None, which is as if the line were not there
    if field == "secret_access_key" and not found.given:
        return makes_text and store.fields["access_key_id"].value is not None
    return True


def _makes_text(config: Config) -> bool:
    """Whether the module makes text of the region and the access key ID, whatever they are."""
    return config.module_version is None or config.module_version >= synapse.THREADPOOL_SINCE


def _valueless(found: Field, field: str, secret: bool) -> str:
    if field == "customer_key":
        return "each request names an algorithm and no key, which a store refuses"
    if found.given:
        return "it is an empty text, and every request is signed with nothing"
    if secret:
        return "with an access key ID and no secret boto3 raises PartialCredentialsError on every request"
    return "the module makes the text 'None' of it" + (
        ", and boto3 raises PartialCredentialsError on every request"
        if field == "access_key_id"
        else ", for which every request is signed"
    )


@rule(
    "bucket-missing",
    Severity.BREAKS,
    "No bucket is named: Synapse does not start, or Goofys and matrix-media-repo take a placeholder.",
    references.MODULE,
)
def bucket_missing(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        found = store.fields["bucket"]
        if store.enabled and found.empty and found.setting not in REQUIRED:
            reason = (
                "the module fails without a bucket, and Synapse does not start"
                if store.method == methods.MODULE
                else "without it the name is a placeholder of the defaults"
            )
            yield _hit(found, store, reason, "Name the bucket.", _LINKS.get(store.method, ""))


@rule(
    "endpoint-missing",
    Severity.BREAKS,
    "matrix-media-repo has no endpoint: the playbook's default is one of DigitalOcean's.",
    references.MEDIA_REPO,
    (Kind.PLAYBOOK, Kind.MEDIA_REPO),
)
def endpoint_missing(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        found = store.fields["endpoint"]
        if store.method != methods.MEDIA_REPO or not store.enabled or not found.empty or config.hidden:
            continue
        default = config.kind is Kind.PLAYBOOK and not found.given
        yield _hit(
            found,
            store,
            "it is not set, and the playbook's default is sfo2.digitaloceanspaces.com"
            if default
            else "without a host it starts, and fails at the first upload",
            "Set it to the store's host, without a scheme: s3.example.com.",
        )


@rule(
    "key-half",
    Severity.BREAKS,
    "Only one of access key ID and secret is there.",
    references.CREDENTIALS,
)
def key_half(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        identity, secret = store.fields["access_key_id"], store.fields["secret_access_key"]
        if not store.enabled or identity.empty == secret.empty or config.hidden:
            continue
        there, missing = (secret, identity) if identity.empty else (identity, secret)
        yield _hit(
            there,
            store,
            f"{missing.setting} is not there: with half a key every request fails",
            "Set both, or neither where the machine's role or the environment has the key.",
        )


@rule(
    "key-missing",
    Severity.BREAKS,
    "matrix-media-repo has no key: it knows no other way to sign.",
    references.MEDIA_REPO,
    (Kind.PLAYBOOK, Kind.MEDIA_REPO),
)
def key_missing(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        identity, secret = store.fields["access_key_id"], store.fields["secret_access_key"]
        if (
            store.method == methods.MEDIA_REPO
            and store.enabled
            and identity.empty
            and secret.empty
            and not config.hidden
        ):
            yield _hit(
                identity,
                store,
                "there is no key, and matrix-media-repo does not ask the machine for its role",
                "Set it and the secret. If another file does, give that one to this command as well.",
            )


@rule(
    "keys-swapped",
    Severity.BREAKS,
    "The access key ID looks like a secret, or the secret like an access key ID.",
    references.CREDENTIALS,
)
def keys_swapped(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        identity, secret = store.fields["access_key_id"], store.fields["secret_access_key"]
        if not (identity.text and secret.text):
            continue
        if _looks_like_id(secret.text) or (_looks_like_secret(identity.text) and len(secret.text) < len(identity.text)):
            yield _hit(
                identity,
                store,
                f"{identity.setting} and {secret.setting} look swapped: the shorter one is usually the ID",
                "Exchange the two values.",
            )


def _looks_like_id(text: str) -> bool:
    """Amazon, DigitalOcean, Scaleway, Garage, Backblaze: ids that no secret looks like."""
    shapes = r"(?:AKIA|ASIA)[A-Z0-9]{16}|DO00[A-Z0-9]{16}|SCW[A-Z0-9]{17}|GK[0-9a-f]{24}|00[0-9a-f]{23}"
    return re.fullmatch(shapes, text) is not None


def _looks_like_secret(text: str) -> bool:
    """Forty of base64's characters, Backblaze's K00…, 64 hexadecimal digits."""
    return re.fullmatch(r"[A-Za-z0-9/+]{40}|K00\d[A-Za-z0-9/+]{27}|[0-9a-f]{64}", text) is not None


@rule(
    "endpoint-names-bucket",
    Severity.BREAKS,
    "The endpoint holds the bucket's name, which is added again: media lands in a folder of that name, or nowhere.",
    references.MODULE,
)
def endpoint_names_bucket(config: Config) -> Iterable[Hit]:
    for store, found in _fields(config, "endpoint"):
        bucket = store.fields["bucket"].text
        parts = values.split(found.text)
        host = (parts.hostname or "").lower()
        in_path = bucket in parts.path.strip("/").split("/") and store.method != methods.MEDIA_REPO
        if bucket and (in_path or host.startswith(f"{bucket.lower()}.")):
            yield _hit(
                found,
                store,
                f"the bucket {bucket!r} is in the endpoint, and is put before each key once more",
                "Leave the bucket out of it. If media was stored with it, look first under which keys it lies.",
                _LINKS.get(store.method, ""),
            )


@rule(
    "endpoint-path",
    Severity.WARNS,
    "The endpoint has a path, which few stores have.",
    references.MODULE,
    (Kind.SYNAPSE, Kind.PLAYBOOK),
)
def endpoint_path(config: Config) -> Iterable[Hit]:
    for store, found in _fields(config, "endpoint"):
        path, bucket = values.split(found.text).path.strip("/"), store.fields["bucket"].text
        refused = values.endpoint_url(found.text, store.method)
        if store.method != methods.MEDIA_REPO and path and bucket not in path.split("/") and refused is None:
            yield _hit(
                found,
                store,
                f"the path {'…' if '@' in found.text else '/' + path} is put before the bucket in each request",
                "Leave it out, unless the store's documentation has it.",
            )


@rule(
    "region-missing",
    Severity.WARNS,
    "No region: requests are signed for us-east-1, Goofys takes eu-central-1, matrix-media-repo asks the store.",
    references.MODULE,
)
def region_missing(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        found = store.fields["region"]
        host = values.split(store.fields["endpoint"].text).hostname or ""
        amazon = host.endswith(".amazonaws.com")
        if not store.enabled or not found.empty or (store.method == methods.MEDIA_REPO and amazon):
            continue
        if found.setting in REQUIRED or _is_valueless(config, store, "region"):
            continue
        reason = {
            methods.MODULE: "boto3 signs for us-east-1, which many stores refuse, unless AWS_DEFAULT_REGION is set",
            methods.GOOFYS: "the playbook hands eu-central-1 to Goofys then",
            methods.MEDIA_REPO: "it asks the store for the bucket's location then, which a narrow key may not",
        }[store.method]
        yield _hit(found, store, reason, "Write the region as the store has it.", _LINKS.get(store.method, ""))


@rule(
    "read-as-other",
    Severity.BREAKS,
    "A text without quotes is read as a number, a date or yes/no: 0123 becomes 83.",
    references.YAML_11,
)
def read_as_other(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        for name, found in store.fields.items():
            value = found.value
            if value is None or value.quoted or value.tag or not value.text or value.data is None:
                continue
            if config.kind is Kind.MEDIA_REPO:
                changed = changed_by_go(value.text)
            else:
                # The module makes text of these two itself; everything else it hands on as it is.
                made_text = ("access_key_id", "region") if _makes_text(config) else ()
                strict = store.method == methods.MODULE and name not in made_text
                changed = str(value.data) != value.text or (strict and not isinstance(value.data, str))
            if changed:
                shown = "it" if name in stores.SECRETS or name == "access_key_id" else repr(value.text)
                yield _hit(
                    found,
                    store,
                    f"without quotes {shown} is no text to YAML, and arrives as something else",
                    "Put it in double quotes.",
                )


def changed_by_go(text: str) -> bool:
    """Whether yaml.v3 makes a number or a date of this, whose text is another: 0123, 0x1F, 1e10, 1_000, 2026-01-01."""
    if re.fullmatch(r"[1-9][0-9]*|0", text):
        return False
    return (
        re.fullmatch(r"[-+.0-9][0-9_.eE+-]*|[-+]?0[xob][0-9A-Fa-f_]+", text) is not None
        or re.match(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ]|$)", text) is not None
    )


@rule(
    "secret-is-template",
    Severity.BREAKS,
    "A key holds {{ or {%: Ansible evaluates it, and another key arrives.",
    references.UNSAFE,
    (Kind.PLAYBOOK,),
)
def secret_is_template(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        for name in ("access_key_id", *stores.SECRETS):
            found = store.fields.get(name)
            value = found.value if found else None
            if found is None or value is None or value.tag or not isinstance(value.data, str):
                continue
            # One expression and nothing beside it is a look-up, and meant.
            if re.search(r"\{[{%#]", value.data) and not re.fullmatch(
                r"\s*\{\{(?:(?!\}\}).)*\}\}\s*", value.data, re.DOTALL
            ):
                yield _hit(
                    found,
                    store,
                    "it holds {{, {% or {#, which Ansible evaluates",
                    'Tag it: `!unsafe "…"` keeps it as it is.',
                )


@rule(
    "not-for-a-shell",
    Severity.BREAKS,
    "A value stands in a shell's command line without quotes there, and has a blank or a sign that the shell takes.",
    references.PLAYBOOK_GOOFYS_UNIT,
    (Kind.PLAYBOOK,),
)
def not_for_a_shell(config: Config) -> Iterable[Hit]:
    for store, found in _fields(config, "bucket", "region", "endpoint", "prefix"):
        if found.setting not in config.settings or store.method == methods.MEDIA_REPO:
            continue
        # Goofys' command stands in single quotes; the module's job has "$BUCKET" without any.
        bad = r"[\s'\"`$\\;&|<>()*?]" if store.method == methods.GOOFYS else r"[\s*?]"
        if re.search(bad, found.text):
            yield _hit(
                found,
                store,
                "it stands unquoted in a shell's command, which takes a blank or this sign for its own",
                "Use a value without blanks and without a shell's signs.",
            )
