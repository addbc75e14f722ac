"""Checks of a store's settings, in any kind of file."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Iterator

from synapse_media import methods, values
from synapse_media.homeserver import playbook, synapse
from synapse_media.lint import references, stores
from synapse_media.lint.config import Config, ConfiguredStore, Field, Kind
from synapse_media.lint.findings import EVERYWHERE, Find, Hit, Severity, rule

REQUIRED = tuple(playbook.MODULE_VARIABLES[name] for name in ("bucket", "region", "endpoint"))
"""Variables that the playbook requires, which the rule setting-required reports."""


def is_example(text: str) -> bool:
    """Whether a secret is a placeholder of a guide or a default."""
    return values.is_placeholder("secret_access_key", text) or bool(values.expansion("secret_access_key", text))


def _in_use(config: Config) -> Iterator[ConfiguredStore]:
    """The stores that are not disabled."""
    return (store for store in config.stores if store.enabled is not False)


def _fields(config: Config, *names: str) -> Iterator[tuple[ConfiguredStore, Field]]:
    """Fields with a non-empty literal, of stores that are not disabled."""
    for store in _in_use(config):
        for name in names:
            found = store.fields.get(name)
            if found is not None and found.text and not isinstance(found.value and found.value.data, tuple):
                yield store, found


def _hit(found: Field, store: ConfiguredStore, reason: str, mend: str, link: str = "") -> Hit:
    return Hit(found.value or store.where, found.setting, reason, mend, link)


_LINKS = {methods.GOOFYS: references.PLAYBOOK_GOOFYS, methods.MEDIA_REPO: references.MEDIA_REPO}
"""The source of a rule on every method, for these two."""


_MODULE_KINDS = (Kind.SYNAPSE, Kind.PLAYBOOK)
_JUDGED: tuple[tuple[str, Severity, str, str, tuple[Kind, ...]], ...] = (
    (
        "placeholder",
        Severity.BREAKS,
        "A placeholder of the documentation was never replaced: <…>, your-…, CHANGE_ME.",
        references.PLAYBOOK_S3,
        EVERYWHERE,
    ),
    (
        "not-expanded",
        Severity.BREAKS,
        "`${X}`, `$X` or a file path that nothing expands.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "stray-character",
        Severity.BREAKS,
        "A value contains a space, line break, quotation mark or invisible character.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "bucket-name",
        Severity.BREAKS,
        "A bucket name with a folder, an address or an invalid character.",
        references.BUCKET_NAMES,
        EVERYWHERE,
    ),
    (
        "bucket-name-unusual",
        Severity.WARNS,
        "A bucket name with capital letters, '_', or a length that stores no longer allow.",
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
        "boto3 or minio-go rejects the endpoint: an invalid host or port, '?'.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "endpoint-not-s3",
        Severity.BREAKS,
        "The endpoint is a vendor's console, public address or other API, not its S3 endpoint.",
        references.PLAYBOOK_S3,
        EVERYWHERE,
    ),
    (
        "region-form",
        Severity.BREAKS,
        "An availability zone instead of a region, or a region that boto3 rejects.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "region-not-endpoints",
        Severity.WARNS,
        "The region does not match the endpoint.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "storage-class-refused",
        Severity.BREAKS,
        "A storage class that the module does not accept, or from which matrix-media-repo can't read.",
        references.MODULE,
        EVERYWHERE,
    ),
    (
        "customer-key-length",
        Severity.BREAKS,
        "sse_customer_key does not have 32 characters: the store rejects every request.",
        references.MODULE,
        _MODULE_KINDS,
    ),
    (
        "prefix-form",
        Severity.WARNS,
        "The prefix is prepended to each key unchanged: without a trailing '/', media becomes medialocal_content/.",
        references.MODULE,
        _MODULE_KINDS,
    ),
)
"""Rules on a single value, checked by `values.judge`."""


def _finds(name: str) -> Find:
    def find(config: Config) -> Iterable[Hit]:
        for store in _in_use(config):
            for field, found in store.fields.items():
                fault = _judge(config, store, field, found)
                if fault is not None and fault.rule == name:
                    yield _hit(found, store, fault.reason, fault.mend, _LINKS.get(store.method, ""))

    return find


def _judge(config: Config, store: ConfiguredStore, field: str, found: Field) -> values.Fault | None:
    if found.value is None or not found.literal or isinstance(found.value.data, tuple | dict):
        return None
    # An empty value: the module asserts a storage class, and boto3 parses "" as a URL. no-value reports the others.
    nothing = (field == "storage_class", field == "endpoint" and found.given)
    if not found.text and (not any(nothing) or found.setting in REQUIRED):
        return None
    endpoint = store.fields["endpoint"]
    # Spaces before a URL are dropped by the URL parser that boto3 uses.
    text = found.text.lstrip(" ") if (field, store.method) == ("endpoint", methods.MODULE) else found.text
    fault = values.judge(field, text, store.method, endpoint=endpoint.text, module=config.module_version)
    nowhere = store.method == methods.MODULE and not endpoint.given and endpoint.setting not in REQUIRED
    if fault is None and field == "region" and nowhere:
        return values.region_at_amazon(found.text)
    return fault


for _name, _severity, _summary, _link, _kinds in _JUDGED:
    rule(_name, _severity, _summary, _link, _kinds)(_finds(_name))


@rule(
    "no-value",
    Severity.BREAKS,
    "A key or region without a value: it becomes the string None, or requests are signed with an empty value.",
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
                    _valueless(store, field),
                    "Set a value, or remove the line if the machine's role or the environment provides the key."
                    if "key" in field and field != "customer_key"
                    else "Set a value, or remove the line.",
                )


def _is_valueless(config: Config, store: ConfiguredStore, field: str) -> bool:
    """Whether the module gets an empty value and uses it as if it were set. setting-required reports the playbook's own
    variables."""
    found = store.fields[field]
    if store.method != methods.MODULE or found.value is None or not found.empty or found.setting in config.settings:
        return False
    makes_text = _makes_text(config)
    if not found.given and not makes_text:
        return False  # passed on as None, which has the same effect as no line
    if field == "secret_access_key" and not found.given:
        return makes_text and store.fields["access_key_id"].value is not None
    return True


def _makes_text(config: Config) -> bool:
    """Whether the module converts region and access key ID to strings, even None."""
    return config.module_version is None or config.module_version >= synapse.THREADPOOL_SINCE


def _valueless(store: ConfiguredStore, field: str) -> str:
    found = store.fields[field]
    if field == "customer_key":
        return "every request has an algorithm but no key, which the store rejects"
    if found.given:
        return "it is an empty string, with which every request is signed"
    if field == "secret_access_key":
        return "with an access key ID but no secret, boto3 raises PartialCredentialsError on every request"
    if field == "region":
        effect = "for which every request is signed"
    elif store.fields["secret_access_key"].given:
        effect = "with which every request is signed"
    else:
        effect = "and boto3 raises PartialCredentialsError on every request"
    return f"the module turns it into the string 'None', {effect}"


@rule(
    "bucket-missing",
    Severity.BREAKS,
    "No bucket is set: Synapse does not start, or Goofys and matrix-media-repo use a placeholder.",
    references.MODULE,
)
def bucket_missing(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        found = store.fields["bucket"]
        if store.enabled and found.empty and found.setting not in REQUIRED:
            reason = (
                "the module fails without a bucket, and Synapse does not start"
                if store.method == methods.MODULE
                else "without it the default is used, which is a placeholder"
            )
            yield _hit(found, store, reason, "Set it to the bucket's name.", _LINKS.get(store.method, ""))


@rule(
    "endpoint-missing",
    Severity.BREAKS,
    "matrix-media-repo has no endpoint: the playbook's default is DigitalOcean's.",
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
            else "without a host it starts, but the first upload fails",
            "Set it to the store's host, without a scheme: s3.example.com.",
        )


@rule(
    "key-half",
    Severity.BREAKS,
    "Only one of access key ID and secret access key is set.",
    references.CREDENTIALS,
)
def key_half(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        identity, secret = store.fields["access_key_id"], store.fields["secret_access_key"]
        if not store.enabled or identity.empty == secret.empty or config.hidden:
            continue
        there, missing = (secret, identity) if identity.empty else (identity, secret)
        if _is_valueless(config, store, "access_key_id" if identity.empty else "secret_access_key"):
            continue  # reported by no-value, on its own line
        yield _hit(
            there,
            store,
            f"{missing.setting} is not set: with only half of the key pair every request fails",
            "Set both, or neither if the machine's role or the environment provides the key.",
        )


@rule(
    "key-missing",
    Severity.BREAKS,
    "matrix-media-repo has no access key and supports no other credentials.",
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
                "there is no access key, and matrix-media-repo does not use the machine's role",
                "Set it and the secret. If another file does, pass that file to this command as well.",
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
                f"{identity.setting} and {secret.setting} look swapped: the ID is usually the shorter one",
                "Swap the two values.",
            )


def _looks_like_id(text: str) -> bool:
    """Whether it has the form of an ID of Amazon, DigitalOcean, Scaleway, Garage or Backblaze, which no secret has."""
    shapes = r"(?:AKIA|ASIA)[A-Z0-9]{16}|DO00[A-Z0-9]{16}|SCW[A-Z0-9]{17}|GK[0-9a-f]{24}|00[0-9a-f]{23}"
    return re.fullmatch(shapes, text) is not None


def _looks_like_secret(text: str) -> bool:
    """Whether it is 40 base64 characters, Backblaze's K00… or 64 hexadecimal digits."""
    return re.fullmatch(r"[A-Za-z0-9/+]{40}|K00\d[A-Za-z0-9/+]{27}|[0-9a-f]{64}", text) is not None


@rule(
    "endpoint-names-bucket",
    Severity.BREAKS,
    "The endpoint contains the bucket's name, which is added again: media goes to a folder of that name, or nowhere.",
    references.MODULE,
)
def endpoint_names_bucket(config: Config) -> Iterable[Hit]:
    for store, found in _fields(config, "endpoint"):
        bucket = store.fields["bucket"].text
        parts = values.split(found.text)
        host = (parts.hostname or "").lower()
        in_path = bucket in parts.path.strip("/").split("/") and store.method != methods.MEDIA_REPO
        if values.other_host(found.text) is not None:
            continue
        another = values.bucket_in_host(found.text) if store.method == methods.MODULE else ""
        if bucket and another and another != bucket.lower():
            yield _hit(
                found,
                store,
                f"the endpoint is the address of the bucket {another!r}, in which boto3 takes {bucket!r} for a folder: "
                "media goes there, or every request is refused",
                f"Remove {another!r} from it, and write the bucket's name in bucket.",
            )
        elif bucket and (in_path or _is_before(bucket.lower(), host)):
            yield _hit(
                found,
                store,
                f"the endpoint contains the bucket {bucket!r}, which is added to each request again",
                "Remove the bucket from it. If media was stored this way, first look at the keys it has in the bucket.",
                _LINKS.get(store.method, ""),
            )


def _is_before(bucket: str, host: str) -> bool:
    """Whether a host is the address of a bucket, and not that of a server which has its name, as minio.example.com."""
    rest = host.removeprefix(f"{bucket}.")
    return rest != host and (values.bucket_in_host(host) == bucket or rest.count(".") > 1)


@rule(
    "endpoint-path",
    Severity.WARNS,
    "The endpoint has a path, which few stores use.",
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
                f"the path {'…' if '@' in found.text else '/' + path} precedes the bucket in each request",
                "Remove it, unless the store's documentation has it.",
            )


@rule(
    "region-missing",
    Severity.WARNS,
    "No region: the module signs for us-east-1, Goofys uses eu-central-1, matrix-media-repo asks the store.",
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
            methods.MODULE: "boto3 signs for us-east-1, which many stores reject, unless AWS_DEFAULT_REGION is set",
            methods.GOOFYS: "the playbook then passes eu-central-1 to Goofys",
            methods.MEDIA_REPO: "it then asks the store for the bucket's location, which a limited key may not do",
        }[store.method]
        yield _hit(found, store, reason, "Set it to the store's name for the region.", _LINKS.get(store.method, ""))


@rule(
    "read-as-other",
    Severity.BREAKS,
    "A value is a list or mapping, or is parsed as a number, a date or a boolean, as it is unquoted: 0123 becomes 83.",
    references.YAML_11,
)
def read_as_other(config: Config) -> Iterable[Hit]:
    for store in config.stores:
        for name, found in store.fields.items():
            value = found.value
            if value is not None and isinstance(value.data, tuple | dict) and store.method == methods.MODULE:
                asserted = name in ("bucket", "storage_class")
                effect = "Synapse does not start" if asserted else "every request for media fails"
                a_list = isinstance(value.data, tuple)
                what, without = ("list", "[ ] or '- '") if a_list else ("mapping", "{ } or a name before it")
                yield _hit(
                    found, store, f"it is a {what}, not a string: {effect}", f"Write the value without {without}."
                )
                continue
            if value is None or value.quoted or value.tag or not value.text or value.data is None:
                continue
            if config.kind is Kind.MEDIA_REPO:
                changed = changed_by_go(value.text)
            else:
                # The module converts these two to strings itself; it passes on everything else unchanged.
                made_text = ("access_key_id", "region") if _makes_text(config) else ()
                strict = store.method == methods.MODULE and name not in made_text
                # Ansible hands a date on as text.
                as_date = bool(value.date) and config.kind is Kind.SYNAPSE
                as_text = value.date or str(value.data)
                changed = as_text != value.text or (strict and (as_date or not isinstance(value.data, str)))
            if changed:
                shown = "it" if name in stores.SECRETS or name == "access_key_id" else repr(value.text)
                yield _hit(
                    found,
                    store,
                    f"unquoted, YAML does not parse {shown} as a string, so the value changes",
                    "Put it in double quotes.",
                )


def changed_by_go(text: str) -> bool:
    """Whether yaml.v3 parses this as a number, date or boolean whose text differs: 0123, 0x1F, 1e10, 1_000, 2026-01-01.

    https://github.com/go-yaml/yaml/blob/v3.0.1/resolve.go: the forms of `resolve`, and what is none of them is text.
    """
    plain = text.replace("_", "") if re.match(r"[-+0-9]|\.[0-9]", text) else text
    whole = re.fullmatch(r"-?(?:0|[1-9][0-9]*)", text)
    if whole:
        # What is longer becomes a float, which is written with an exponent.
        return text == "-0" or len(text) > 20 or not -(2**63) <= int(text) < 2**64
    fraction = re.fullmatch(r"-?(?:0|[1-9][0-9]{0,5})\.[0-9]*[1-9]", text)
    if fraction and not text.lstrip("-").startswith("0.0000"):
        return len(text) > 16
    if re.fullmatch(r"True|TRUE|False|FALSE", text):
        return True
    number = r"[-+]?(?:0[xX][0-9A-Fa-f]+|0[oO]?[0-7]+|0[bB][01]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    # A float that is too large for 64 bits stays text.
    is_number = re.fullmatch(number, plain) and (plain.lower().lstrip("-+")[:2] == "0x" or not _is_infinite(plain))
    return bool(is_number) or _is_date_to_go(text)


def _is_infinite(plain: str) -> bool:
    try:
        return math.isinf(float(plain))
    except ValueError:
        return False


def _is_date_to_go(text: str) -> bool:
    found = re.fullmatch(
        r"(\d{4}-\d{1,2}-\d{1,2})(?:[Tt]\d{1,2}:\d{1,2}:\d{1,2}(?:\.\d+)?(?:Z|[-+]\d\d:\d\d)"
        r"| \d{1,2}:\d{1,2}:\d{1,2}(?:\.\d+)?)?",
        text,
        re.ASCII,
    )
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text, re.ASCII):
        return False  # written as it was
    try:
        return found is not None and bool(dt.date(*map(int, found[1].split("-"))))
    except ValueError:
        return False


@rule(
    "secret-is-template",
    Severity.BREAKS,
    "A key contains {{ or {%, which Ansible evaluates, so that the key changes.",
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
            # A value that is one whole expression is a deliberate lookup.
            if re.search(r"\{[{%#]", value.data) and not re.fullmatch(
                r"\s*\{\{(?:(?!\}\}).)*\}\}\s*", value.data, re.DOTALL
            ):
                yield _hit(
                    found,
                    store,
                    "it contains {{, {% or {#, which Ansible evaluates",
                    'Tag it as `!unsafe "…"` to keep it unchanged.',
                )


@rule(
    "not-for-a-shell",
    Severity.BREAKS,
    "A value used unquoted in a shell command contains a space or a shell metacharacter.",
    references.PLAYBOOK_GOOFYS_UNIT,
    (Kind.PLAYBOOK,),
)
def not_for_a_shell(config: Config) -> Iterable[Hit]:
    for store, found in _fields(config, "bucket", "region", "endpoint", "prefix"):
        if found.setting not in config.settings or store.method == methods.MEDIA_REPO:
            continue
        # Goofys' command is in single quotes; the module's job uses $BUCKET unquoted.
        bad = r"[\s'\"`$\\;&|<>()*?]" if store.method == methods.GOOFYS else r"[\s*?]"
        if re.search(bad, found.text):
            yield _hit(
                found,
                store,
                "it is used unquoted in a shell command, and contains a space or a shell metacharacter",
                "Use a value without spaces and shell metacharacters.",
            )
