"""Checks values as their readers do: one function per field, for `check`, the stack file and the renderer.

The readers are `parse_config` of synapse-s3-storage-provider (1.7.0; its version is an argument where older releases
differ), boto3 (`is_valid_endpoint_url`, `validate_region_name` and `VALID_BUCKET` of botocore, 1.44), minio-go in
matrix-media-repo (1.3.8), and the roles of matrix-docker-ansible-deploy (c0681e4b).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, urlsplit

from . import catalog
from .homeserver import synapse
from .methods import GOOFYS, MEDIA_REPO, METHODS, MODULE

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a value is wrong, under its rule in `check`. Never contains a secret."""

    rule: str
    reason: str
    mend: str


UNSURE = frozenset({"bucket-name-unusual", "region-not-endpoints", "prefix-form", "public-url-private", "module-old"})
"""Rules on values that may be intended, or work at some stores: `check` only warns."""
SECRETS = ("access_key_id", "secret_access_key", "session_token", "customer_key")
"""Fields whose value is never shown."""


def judge(field: str, text: str, method: str, *, endpoint: str = "", module: Version | None = None) -> Fault | None:
    """The fault of a non-empty value; None if there is none.

    Args:
        field: bucket, region, endpoint, prefix, storage_class, or one of SECRETS, of which customer_key is judged.
        method: the method whose program reads it.
        endpoint: the store's endpoint, which a region is compared with.
        module: the version of Synapse's module, if known.
    """
    fault = _not_replaced(field, text) or _stray(field, text, method)
    if fault is not None:
        return fault
    if field == "bucket":
        return bucket(text, method)
    if field == "endpoint":
        return endpoint_url(text, method) or other_host(text)
    if field == "region":
        return region(text, method) or (None if _not_replaced("endpoint", endpoint) else region_at(text, endpoint))
    if field == "storage_class":
        return storage_class(text, method, endpoint)
    if field == "prefix":
        return prefix(text, method, module)
    return customer_key(text) if field == "customer_key" else None


def refused(field: str, text: str, method: str) -> Fault | None:
    """The fault of a value that can't work, as the stack file and the renderer refuse it; None for "" too."""
    fault = judge(field, text, method) if text else None
    return None if fault is None or fault.rule in UNSURE else fault


# ---- placeholders and unexpanded variables

_NAMES = (
    r"(?:AWS_|S3_|B2_|MINIO_|MY_)*(?:ACCESS|SECRET)(?:_?ACCESS)?_?KEY(?:_?ID)?|(?:S3_|MY_)*BUCKET(?:_?NAME)?"
    r"|(?:AWS_|S3_|B2_|MINIO_)+(?:SECRET|TOKEN|PASSWORD|USER|KEY(?:_?ID)?)"
    r"|(?:AWS_|S3_|MY_)*(?:DEFAULT_)?REGION(?:_?NAME)?|(?:S3_|MY_)*ENDPOINT(?:_?URL)?|SESSION_TOKEN|ACCOUNT_?ID"
)
_WHOLE = re.compile(
    r"[<‹«⟨\[{]<?(?!path:|SOPS:)(?![0-9A-Fa-f:.]+\])[^<>‹›«»⟨⟩]+[>›»⟩\]}]>?"
    rf"|{_NAMES}|(?:MY|CHANGE|REPLACE|INSERT|ENTER|YOUR|EXAMPLE)[_-][A-Z0-9_-]+"
    r"|(?i:your[-_ ](?!objectstorage).*|your(?:bucket|region|access|secret|endpoint|key).*"
    r"|change[-_. ]?(?:me|this)(?![a-z]).*|changeit|replace[-_. ]?(?:me|this|with)(?![a-z]).*"
    r"|(?:fill|set)[-_ ]?(?:me|in|this)(?:[-_ ](?:in|up|here))?"
    r"|(?:put|insert|enter|add)[-_. ](?:your|the)[-_. ].*|some-region-name|(?:my-)?region|xx-x+-\d"
    r"|(?:put|insert|enter|add|paste|your|access|secret|key|token|password|bucket|region|endpoint|value)"
    r"[-_. ](?:.*[-_. ])?here"
    r"|(?:AKIA|ASIA|DO00|GK|SCW|K00\d?)?(?:x{3,}|\*{3,}|\.{3,}|…)|(?:to-?do|tbd|fix-?me)(?:[: ].*)?"
    r"|(?:my-?)?placeholder|redacted|(?:my[-_])?bucket[-_]?name|key[-_]?id|key[-_]secret|application[-_]?key"
    r"|(?:(?:my|aws|s3|b2|minio)[-_ ])*(?:access|secret)[-_ ](?:access[-_ ])?key(?:[-_ ]id)?)",
)
_LABEL = re.compile(
    r"(?i:your[-_](?!objectstorage).*|your(?:domain|company|server|host|account)(?:name|id)?|x{4,}|account[-_]?id)"
    rf"|{_NAMES}|.*REGION_NAME.*|(?:MY|CHANGE|REPLACE|YOUR)_[A-Z0-9_]+"
)
_REGION_LABEL = re.compile(r"[a-z]{2}-[a-z]+-x{2,}")
"""As in s3.us-west-xxx.backblazeb2.com; a bucket may be called so."""
_HETZNER = re.compile(r"\.your-(?:objectstorage|server|storagebox|storageshare)\.(?:com|de)\b", re.IGNORECASE)
"""Domains of Hetzner's, of which every machine there has one."""
_INSIDE = re.compile(r"<(?!path:|SOPS:)[^<>]+>|‹[^‹›]+›|«[^«»]+»|(?<!\{)\{[A-Za-z][\w -]*\}(?!\})")
_EXPANSION = re.compile(
    r"\$\{[^{}]+\}|\$\([A-Za-z_]\w*\)|%[A-Z][A-Z0-9_]+%|__[A-Z][A-Z0-9_]*__|@[A-Za-z]\w*@|@@\w+@@|%%\w+%%"
    r"|#\{[\w.]+\}#?|%\(\w+\)s|\$env:[A-Za-z_]\w*|env[:/][A-Za-z_]\w*"
    r"|/(?:etc|home|mnt|opt|root|run|secrets|srv|usr|var|vault)/[\w./@-]+|file://\S+"
)
_NAME_OF = re.compile(r"(?<=\w)\W")
_VARIABLE = re.compile(r"\$\$?[A-Za-z_]\w*")


def is_placeholder(field: str, text: str) -> bool:
    """Whether a value is a placeholder."""
    bare = re.sub(r"^https?://", "", text.strip())
    if field not in SECRETS:
        bare = _HETZNER.sub("", bare)
    if _WHOLE.fullmatch(bare):
        return True
    if field in SECRETS:
        return False
    labels = re.split(r"[./:]", bare)
    if field in ("endpoint", "region") and any(map(_REGION_LABEL.fullmatch, labels)):
        return True
    return _INSIDE.search(text) is not None or any(map(_LABEL.fullmatch, labels))


def expansion(field: str, text: str) -> str:
    """The variable in a value, such as `${X}` or `@X@`, or the file path that it is; "" if there is none."""
    bare = re.sub(r"^https?://", "", text.strip())
    if _EXPANSION.fullmatch(bare) or (
        _VARIABLE.fullmatch(bare) and (field not in SECRETS or bare.upper() == bare or bare.count("_"))
    ):
        return bare
    found = None if field in SECRETS else re.search(r"\$\{[^{}]+\}|\$[A-Z_][A-Z0-9_]+|#\{[\w.]+\}#|%\(\w+\)s", text)
    return found.group() if found else ""


_REFERENCE = re.compile(
    r"\{[{%]|ENC\[|ref\+\w+://|op://|vault:|<path:|<SOPS:|arn:aws:(?:secretsmanager|ssm):|\(\([\w./-]+\)\)|\$__\w+\{|<%"
)


def is_reference(text: str) -> bool:
    """Whether a value is a reference that another tool resolves: a template, SOPS, Vault, vals, 1Password …"""
    return _REFERENCE.search(text) is not None


def _not_replaced(field: str, text: str) -> Fault | None:
    variable = expansion(field, text)
    if variable and not (field == "prefix" and variable.startswith("/")):
        path = variable.startswith(("/", "file:"))
        # A secret may begin with `$`, and be what stands in braces.
        # A default may be one, too: of `${X:-…}` and `${X-…}` the name alone is shown.
        whole = re.fullmatch(r"\W*\w{1,40}\W{0,2}", variable)
        shown_variable = "it" if field in SECRETS else variable if whole else f"{_NAME_OF.split(variable)[0][:40]}…"
        return Fault(
            "not-expanded",
            "it is a file path, but the file is not read: the path itself becomes the value"
            if path
            else f"{shown_variable} is used literally: Synapse and its module, matrix-media-repo and the playbook "
            "don't expand it",
            "Expand it before the file is read (envsubst, a template, an init container), and check the generated "
            "file. If this file is the template, name it as one, such as *.tmpl.",
        )
    if text.strip().lower() in ("none", "null", "nil", "n/a", "undefined", "<no value>"):
        return Fault(
            "placeholder",
            "it stands for no value, as a template without one writes it, but is used literally",
            "Set it to your store's value.",
        )
    if is_placeholder(field, text):
        return Fault("placeholder", "this is a placeholder from the documentation", "Set it to your store's value.")
    return None


# ---- stray characters

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_QUOTES = "\"'`“”„‘’"
_REFUSED = {
    "region": "boto3 rejects such a region (InvalidRegionError)",
    "endpoint": "boto3 rejects it (Invalid endpoint)",
    "bucket": "boto3 rejects such a name (Invalid bucket name)",
}


def _stray(field: str, text: str, method: str) -> Fault | None:
    ends = text.strip(_INVISIBLE).strip()
    # URL parsers strip leading spaces; prefixes and passwords may contain spaces.
    within = field in ("bucket", "region", "endpoint", "access_key_id") and re.search(r"\s", ends)
    if text == ends and not within and not set(text) & set(_INVISIBLE + "\r\n\t"):
        quoted = len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES
        if not quoted:
            return None
        what = "the value includes the quotation marks"
    elif text != ends:
        stray = "line break" if text.rstrip(" \t") != text.rstrip() else "space"
        what = f"the value begins or ends with a {stray}"
    else:
        what = "the value contains a space, a line break or an invisible character"
    refused = _REFUSED.get(field, "") if method == MODULE else ""
    effect = refused or (
        "the key is wrong, and every request is refused" if field in SECRETS else "it is a different value"
    )
    return Fault("stray-character", f"{what}: {effect}", "Remove it. In YAML, `|` and `>` add a line break at the end.")


# ---- bucket

_ACCESS_POINT = r"arn:[a-z-]+:(?:s3|s3-outposts|s3-object-lambda):[a-z0-9-]*:\d{12}:(?:accesspoint|outpost)[:/][^/:]+.*"
_BOTO_BUCKET = re.compile(r"[a-zA-Z0-9.\-_]{1,255}")
_MINIO_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-_:]{1,61}[A-Za-z0-9]")
_USUAL_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def bucket(text: str, method: str) -> Fault | None:
    """The fault of a bucket name, as boto3, minio-go or Goofys reads it; None if there is none."""
    if method == GOOFYS:
        text = text.partition(":")[0]  # bucket:prefix
    if method == MODULE and re.fullmatch(_ACCESS_POINT, text):
        return None  # boto3 takes its ARN for a bucket
    if bucket_in_host(text):
        return Fault("bucket-name", "it is the bucket's address, not its name", f"Write {bucket_in_host(text)}.")
    if "://" in text or text.startswith("arn:"):
        last = re.sub(r"^(?:\w+://|arn:[^:]*:s3:[^:]*:[^:]*:)", "", text).partition("/")[0]
        # What stands before an "@" may be a key.
        mend = "Write the bucket's name alone." if "@" in last else f"Write {last}."
        return Fault("bucket-name", "it is an address, not a bucket name", mend)
    if "/" in text:
        name, _, folder = text.partition("/")
        into = (
            f"Write {name}, and set prefix: {folder.rstrip('/')}/."
            if METHODS[method].prefix and folder
            else f"Write {name}." + (f" {method} does not support a prefix." if folder else "")
        )
        return Fault(
            "bucket-name", "a bucket name can't contain '/': the rest is a folder, and every request fails", into
        )
    allowed = _MINIO_BUCKET if method == MEDIA_REPO else _BOTO_BUCKET
    if method == MEDIA_REPO and re.search(r"\.\.|\.-|-\.", text):
        return Fault(
            "bucket-name",
            "minio-go refuses a bucket name with '..', '.-' or '-.': every upload fails",
            "Write the bucket's real name.",
        )
    if not allowed.fullmatch(text):
        return Fault(
            "bucket-name", "a bucket name has only letters, digits, '-' and '.'", "Write the bucket's real name."
        )
    if not _USUAL_BUCKET.fullmatch(text) or ".." in text:
        why = "capitals" if text.lower() != text else "'_'" if "_" in text else "this form or length"
        return Fault(
            "bucket-name-unusual",
            f"stores no longer create buckets with {why} (Amazon has some from before 2018, in us-east-1 only)",
            "Look up the bucket's real name: 3 to 63 characters of a-z, 0-9 and '-'.",
        )
    return None


# ---- endpoint


def customer_key(text: str) -> Fault | None:
    """The fault of a key that encrypts objects, which boto3 encodes itself (botocore.handlers.sse_md5)."""
    size = len(text.encode())
    if size == CUSTOMER_KEY_BYTES:
        return None
    return Fault(
        "customer-key-length",
        f"it has {size} bytes, but AES256 takes {CUSTOMER_KEY_BYTES}: the store rejects every request"
        + (", since boto3 encodes the key again" if re.fullmatch(r"[A-Za-z0-9+/]{43}=", text) else ""),
        f"Use {CUSTOMER_KEY_BYTES} characters. If objects are stored with another key, keep that one.",
    )


CUSTOMER_KEY_BYTES = 32

_BOTO_HOST = re.compile(r"((?!-)[A-Z\d-]{1,63}(?<!-)\.)*((?!-)[A-Z\d-]{1,63}(?<!-))", re.IGNORECASE)


def split(endpoint: str) -> SplitResult:
    """Split an endpoint with or without a scheme; empty if it is malformed."""
    try:
        return urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    except ValueError:
        return urlsplit("")


def _host(endpoint: str) -> str:
    """The host of an endpoint, in lower case; "" if it is malformed."""
    return (split(endpoint).hostname or "").removesuffix(".")


def shown(endpoint: str) -> str:
    """An endpoint without user and password."""
    return endpoint.rpartition("@")[2]


def _minio_takes(text: str) -> bool:
    """Whether minio-go takes a host with an optional port: getEndpointURL and s3utils.IsValidDomain.

    https://github.com/minio/minio-go/blob/v7.0.82/utils.go
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]*))(?::(\d*))?", text)
    if found is None:
        return False
    host = found[1] or found[2]
    return (
        0 < len(host) <= 255
        and host[0] not in "-_."
        and host[-1] not in "-_"
        and not _MINIO_REFUSES.search(found[2] or "")
    )


_MINIO_REFUSES = re.compile(r"[`~!@#$%^&*()+={}\[\]|\\\"';:><?/]")


def bucket_in_host(text: str) -> str:
    """The bucket in the host that a vendor gives it: `media` of media.s3.eu-central-1.amazonaws.com; "" without one."""
    labels = _host(text).split(".")
    splits = ((".".join(labels[:at]), ".".join(labels[at:])) for at in range(1, len(labels)))
    return next((bucket for bucket, rest in splits if any(form.fullmatch(rest) for _, form in _patterns())), "")


def _minio_endpoint(text: str) -> Fault | None:
    # minio-go, which checks this, accepts one "/" at the end.
    if "/" in text.removesuffix("/"):
        bare = split(text).netloc.rpartition("@")[2] or "s3.example.com"
        return Fault(
            "endpoint-with-scheme",
            "it must be a host with an optional port; with a scheme or path the first upload fails",
            f"Write {bare}; `ssl` chooses http or https.",
        )
    if not _minio_takes(text.removesuffix("/")):
        return Fault(
            "endpoint-host",
            "minio-go refuses such a host or port (Endpoint … does not follow ip address or domain name "
            "standards): the first upload fails",
            "Write the store's host name or IP address (an IPv6 address in [ ]), and perhaps a port.",
        )
    return None


def endpoint_url(text: str, method: str) -> Fault | None:
    """The fault of an endpoint, as boto3 or minio-go reads it; None if there is none. Goofys completes it itself."""
    if method == MEDIA_REPO:
        return _minio_endpoint(text)
    if method != MODULE:
        return None
    if not re.match(r"https?://[^/]", text, re.IGNORECASE):
        bare = re.sub(r"^(?:[a-z0-9]*:/*|[a-z]*/+)(?=[^0-9])", "", shown(text), flags=re.IGNORECASE)
        if re.match(r"https?:?//?", text, re.IGNORECASE) is None and "://" not in text:
            bare = shown(text)
        written_as = f"{shown(text)!r}" if text else "an empty string"
        return Fault(
            "endpoint-without-scheme",
            f"{written_as} is not a URL to boto3: Synapse starts, but every media request fails",
            f"Write https://{bare.strip('/') or 's3.example.com'}"
            + ("." if text else ", or remove the line for Amazon S3."),
        )
    parts = split(text)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = parts.hostname or "", -1
    if host in ("http", "https") and parts.path.startswith("//"):
        return Fault("endpoint-host", "it has two schemes: 'https' is parsed as the host", "Write the scheme once.")
    if port in (-1, 0):
        return Fault(
            "endpoint-host",
            "the port is invalid (allowed: 1 to 65535): boto3 rejects it",
            "Write the store's port, or none.",
        )
    if ":" in host:
        return None  # IPv6
    if len(host) > 255 or not _BOTO_HOST.fullmatch(host.removesuffix(".")):
        why = "has '_'" if "_" in host else "is not a host name"
        return Fault(
            "endpoint-host",
            f"boto3 rejects a host that {why} (ValueError: Invalid endpoint): Synapse starts, but every media request "
            "fails",
            "Give the host a name of letters, digits and '-' (in Docker: a network alias or another container name), "
            "or use its IP address.",
        )
    if parts.query:
        return Fault("endpoint-host", "boto3 rejects a URL with '?'", "Write only scheme, host and port.")
    return None


# ---- region

_BOTO_REGION = re.compile(r"(?![0-9]+$)(?!-)[a-zA-Z0-9-]{1,63}(?<!-)")
_ZONE = re.compile(r"((?:[a-z]{2})(?:-[a-z]+)+-\d)[a-z]")


def region(text: str, method: str) -> Fault | None:
    """The fault of a region name, as boto3 reads it; None if there is none."""
    zone = _ZONE.fullmatch(text.lower())
    if zone and zone[1] in catalog.load("amazon_s3").regions:
        return Fault("region-form", f"{text!r} is an availability zone, not a region", f"Write {zone[1]}.")
    if method == MODULE and not _BOTO_REGION.fullmatch(text):
        return Fault(
            "region-form",
            "boto3 rejects such a region (InvalidRegionError): letters, digits and '-', not only digits",
            "Write the region that the store signs for, such as eu-central-1.",
        )
    return None


def region_at(text: str, endpoint: str) -> Fault | None:
    """The fault of a region that does not match its endpoint; None if it does, or can't be compared."""
    if other_host(endpoint) is not None:
        return None  # reported for the endpoint
    host = _host(endpoint)
    for named, pattern in _hosts():
        signed = named.value("signed_region", ())
        if text and text not in signed and pattern.fullmatch(host):
            return Fault(
                "region-not-endpoints",
                f"{named.title} refuses requests signed for {text!r}; allowed: {', '.join(signed)}",
                f"Write {named.value('default_region')}.",
            )
    found = provider_of(endpoint)
    if found is None:
        return None
    provider, own = found
    zone = _ZONE.fullmatch(own)
    if zone and zone[1] in provider.regions:
        return Fault("region-form", f"the endpoint names the availability zone {own}", f"Write {zone[1]} in it.")
    if not text or text == own or own not in provider.regions:
        # Without regions in the catalog it is unknown what the store signs for; what is in the host may be a second
        # name of a region (Wasabi's nl-1) or none (Amazon's s3-accelerate).
        return None
    if provider.value("signed_region") == "any" and text not in provider.regions:
        return None
    return Fault(
        "region-not-endpoints",
        f"the endpoint is {provider.title}'s in {own}, but requests are signed for {text!r}, which the store refuses",
        f"Write {own}, or the endpoint of {text}, depending on where the bucket is.",
    )


_AMAZON_REGION = re.compile(r"(?:cn|us-gov|us-iso[a-z]?|eu-isoe|eusc)-[a-z-]+-\d")
"""Amazon's regions outside its main partition, whose hosts boto3 knows too."""


def region_at_amazon(text: str) -> Fault | None:
    """The fault of a region without an endpoint, for which boto3 derives Amazon's; None if Amazon has it."""
    amazon = catalog.load("amazon_s3")
    if text in amazon.regions or _AMAZON_REGION.fullmatch(text) or text == "aws-global":
        return None
    return Fault(
        "region-not-endpoints",
        f"without an endpoint boto3 connects to Amazon, at s3.{text}.amazonaws.com, and Amazon has no region {text!r}: "
        "every request fails, unless AWS_ENDPOINT_URL is set",
        "Set endpoint_url to the store's URL, or, for Amazon S3, write the bucket's region.",
    )


def provider_of(endpoint: str) -> tuple[catalog.Provider, str] | None:
    """The provider and region of an endpoint, by the catalog's patterns; None if none matches."""
    host = _host(endpoint)
    plain = re.sub(r"^(?:.+\.)?s3[.-](?:fips[.-])?(?:dualstack\.)?(?=[a-z])", "s3.", host)
    plain = plain.replace(".vpce.amazonaws.com", ".amazonaws.com")
    for provider, pattern in _patterns():
        fits = pattern.fullmatch(host) or pattern.fullmatch(plain)
        if fits:
            return provider, fits[1]
    return None


@cache
def _hosts() -> tuple[tuple[catalog.Provider, re.Pattern[str]], ...]:
    """The providers with a fixed list of regions to sign for, and the pattern of their endpoints' hosts."""
    found = [provider for provider in map(catalog.load, catalog.names()) if provider.value("endpoint_host")]
    return tuple((provider, re.compile(provider.value("endpoint_host"))) for provider in found)


@cache
def _other_hosts() -> tuple[tuple[catalog.Provider, re.Pattern[str], str, str], ...]:
    """(provider, pattern of host and port, what it is, what to write) of the hosts mistaken for an endpoint."""
    return tuple(
        (provider, re.compile(other["host"]), other["what"], other["write"])
        for provider in map(catalog.load, catalog.names())
        for other in provider.value("other_hosts", ())
    )


def other_host(text: str) -> Fault | None:
    """The fault of an endpoint at a vendor's host that does not serve S3; None if it is not known as one."""
    place = split(text).netloc.rpartition("@")[2].lower()
    for provider, pattern, what, write in _other_hosts():
        if pattern.fullmatch(place):
            return Fault(
                "endpoint-not-s3",
                f"{place} is no S3 endpoint of {provider.title} but {what}: every request fails",
                f"Write {write}.",
            )
    return None


@cache
def _patterns() -> tuple[tuple[catalog.Provider, re.Pattern[str]], ...]:
    found = []
    for provider in map(catalog.load, catalog.names()):
        where = split(str(provider.value("endpoint", ""))).netloc
        if "{region}" in where:
            found.append((provider, re.compile(re.escape(where).replace(r"\{region\}", "([a-z0-9-]+)"))))
    return tuple(found)


# ---- storage class, prefix, public URL


_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Classes whose objects can't be read until they are restored:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
"""


def storage_class(text: str, method: str, endpoint: str = "") -> Fault | None:
    """The fault of a storage class. The module accepts four, and not ""; matrix-media-repo passes on what is set."""
    if method == MEDIA_REPO and text.upper() in _ARCHIVES:
        return Fault(
            "storage-class-refused",
            f"uploads into {text.upper()} work, but every download fails (InvalidObjectState): its objects must be "
            "restored before they can be read",
            "Choose a class that can be read at once, such as STANDARD, or GLACIER_IR at Amazon. Restore what was "
            "stored, and copy it to that class.",
        )
    host = _host(endpoint)
    if method == MEDIA_REPO and text != text.upper() and host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return Fault(
            "storage-class-refused",
            f"Amazon refuses {text!r} (InvalidStorageClass): every upload fails",
            f"Write {text.upper()}.",
        )
    allowed = METHODS[MODULE].storage_classes or ()
    if method != MODULE or text in allowed:
        return None
    shown_class = f"{text!r}" if text else "an empty value"
    return Fault(
        "storage-class-refused",
        f"the module requires one of {', '.join(allowed)}: with {shown_class} Synapse does not start"
        + (", although s3_media_upload accepts more of them" if text.isupper() else ""),
        "Choose one of the four. A lifecycle rule of the bucket can move objects to another later."
        if text
        else "Remove the line; the default is STANDARD.",
    )


PREFIX_SINCE: Version = (1, 4)
"""The module's first release with a prefix."""


def prefix(text: str, method: str, module: Version | None = None) -> Fault | None:
    """The fault of a prefix, which the module prepends to each key unchanged; None if there is none."""
    if method != MODULE or (module and module < PREFIX_SINCE):
        return None
    if text.endswith("/") and not text.startswith("/") and "//" not in text:
        return None
    return Fault(
        "prefix-form",
        f"{text!r} is prepended to each key unchanged: keys begin with {text + 'local_content'!r}, which "
        "tools that copy into a folder don't write",
        "In a new store, let it end with '/' and not begin with it. In one that has media, keep it, since a change "
        "would hide that media, and copy with exactly this prefix.",
    )


def public_url(text: str, endpoint: str, bucket_name: str) -> Fault | None:
    """The fault of publicBaseUrl, to which matrix-media-repo redirects downloads, unsigned; None if there is none."""
    fault = _not_replaced("endpoint", text) or _stray("endpoint", text, MEDIA_REPO)
    if fault is not None:
        return fault
    if not re.match(r"https?://[^/]", text, re.IGNORECASE):
        return Fault(
            "public-url", "it has no scheme, so the redirect points back to this server", f"Write https://{shown(text)}"
        )
    if not text.endswith(("/", "=")):
        return Fault(
            "public-url",
            "it is prepended to the object's name unchanged, and does not end with '/': every redirect is broken",
            f"Write {shown_url(text).partition('?')[0]}/",
        )
    host, own = (split(text).hostname or "").lower(), (split(endpoint).hostname or "").lower()
    if own and host == own and bucket_name not in split(text).path.split("/"):
        return Fault(
            "public-url", "it is the store's address without the bucket: every redirect is broken", "Add the bucket."
        )
    # The vendor's own domain: the bucket's address, or a CDN that reads the bucket anonymously.
    vendor = f".{'.'.join(own.split('.')[-2:])}" if provider_of(endpoint) else ""
    if own and (host in (own, f"{bucket_name}.{own}".lower()) or (vendor and host.endswith(vendor))):
        return Fault(
            "public-url-private",
            "it is the bucket's own address, which gets unsigned requests: a private bucket refuses them",
            "Remove it, or use a CDN that may read the bucket. In a public bucket anyone with the URL can read the "
            "media.",
        )
    return None


def shown_url(text: str) -> str:
    """A URL without user and password."""
    return re.sub(r"//[^/]*@", "//", text)


# ---- versions


def version(text: str) -> Version | None:
    """The numbers of 1.140.0, v1.140 or 1.163.0rc1; None for anything else, such as latest."""
    found = re.match(r"v?(\d+(?:\.\d+)+)", text.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else None


def written(numbers: Version) -> str:
    return ".".join(map(str, numbers))


def pair(module: Version | None, homeserver: Version | None) -> Fault | None:
    """The fault of a pair of releases of the module and Synapse (None if unknown); None if they are compatible.

    Releases since 1.6.0 call `ModuleApi.defer_to_threadpool`, which Synapse has since 1.140; older ones use logging
    contexts as they were in Synapse before that, and boto3 before 1.36, without its newer checksums:
    https://github.com/matrix-org/synapse-s3-storage-provider/pull/134
    """
    needs, since = synapse.MODULE_NEEDS_SYNAPSE, synapse.THREADPOOL_SINCE
    if module is None:
        return None
    said = f"the module is {written(module)}"
    upgrade = f"Upgrade the module to {synapse.MODULE_VERSION}, and Synapse to {written(needs)} or newer."
    if module >= since:
        if homeserver is not None and homeserver < needs:
            return Fault(
                "version-pair",
                f"{said} and Synapse {written(homeserver)}: since {written(since)} it needs Synapse {written(needs)} "
                "or newer; with an older one every upload and download fails",
                upgrade,
            )
        if module < synapse.HANG_MENDED:
            return Fault(
                "module-old",
                f"{said}: before {written(synapse.HANG_MENDED)} a missing object makes requests hang",
                upgrade,
            )
        return None
    if homeserver is not None and homeserver >= needs:
        return Fault(
            "version-pair",
            f"{said} and Synapse {written(homeserver)}: before {written(since)} it breaks with Synapse "
            f"{written(needs)} or newer",
            upgrade,
        )
    return Fault(
        "module-old",
        f"{said}: before {written(since)} it breaks with Synapse {written(needs)} or newer, and with boto3 1.36 or "
        "newer it sends checksums that several stores refuse",
        upgrade,
    )
