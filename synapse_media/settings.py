"""The stack file, read and checked: every error of every store at once, before any call.

The stack file's `synapse-media:stores` has a key per homeserver, `synapse-media:defaults` the settings that those
stores have where they don't say otherwise; `synapse-media:allow` names what may pass a guard.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import urlsplit

from . import catalog, values
from .allow import Word, split
from .errors import NO_SETTING, Described, Problem, SettingsError
from .methods import ACCESS, METHODS, MODULE, Access, Method

PROJECT = "synapse-media"
SLOTS = ("a", "b")

# All are matched in full: `$` would let a newline through at the end.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# The engine decides on Pulumi's own; the second kind logs whole requests, with tokens.
_NEVER_PASSED = re.compile(r"PULUMI_\w*|\w+_SDK_GO_LOGGING\w*")
_SERVER_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?")
# No '*' or '?': they are wildcards in the key's policy.
_PREFIX = re.compile(r"[\w!.() /-]+")
_USER = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,40}")

_COMMON = {
    "provider",
    "bucket",
    "method",
    "access",
    "region",
    "endpoint",
    "iam_endpoint",
    "prefix",
    "storage_class",
    "user",
    "keys",
    "adopt",
    "adopt_key",
    "noncurrent_days",
    "abort_days",
    "media_repo",
    "renamed_from",
}

_PER_STORE: Mapping[str, str] = {
    "bucket": "a bucket is of one homeserver",
    "user": "a user is of one homeserver",
    "keys": "`synapse-media rotate` edits it, store by store",
    "adopt": "a bucket is taken over by name",
    "adopt_key": "a key is of one homeserver",
    "media_repo": "the ids of its datastores are of one homeserver",
    "renamed_from": "a former name is of one homeserver",
}


@dataclass(frozen=True, slots=True)
class Keys:
    """The key ring that is wanted: the slot in use, and the ones kept until they are retired."""

    active: str = "a"
    retiring: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[str, ...]:
        return (self.active, *self.retiring)


class _Later:
    def __repr__(self) -> str:
        return "known later"


LATER: Final = _Later()
"""In place of a value that another resource gives while the program runs: checked once it is known."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """One store as its operator wants it.

    Attributes:
        server_name: the key in the stack file.
        adopt_key: access key ID of a key that the adopted user has, to go on with it; its secret is in ADOPTED_SECRET.
        region, endpoint, iam_endpoint: filled in from the catalog where the stack file leaves them out.
        user: name of the user that owns the keys.
        noncurrent_days: an overwritten or deleted version is kept so long (days).
        abort_days: an upload never completed is removed after so many days.
        renamed_from: the name that this homeserver had in the stack file before; its store is this one.
        options: the provider's own settings, as its catalog entry names them.
        allow: the words of `allow` that name this store.
        later: names of the settings that are only known later (`LATER`), and of those that follow from one: what this
            object holds for them says nothing. Empty for a stack file's.
    """

    server_name: str
    provider: str
    bucket: str
    method: str
    access: Access = "least"
    region: str = ""
    endpoint: str = ""
    iam_endpoint: str = ""
    prefix: str = ""
    storage_class: str = "STANDARD"
    user: str = ""
    keys: Keys = field(default_factory=Keys)
    adopt: bool = False
    adopt_key: str = ""
    noncurrent_days: int = 30
    abort_days: int = 7
    media_repo: Mapping[str, str] = field(default_factory=dict)
    renamed_from: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()

    @property
    def uses_store(self) -> bool:
        return METHODS[self.method].uses_store


CONFIRMED = "SYNAPSE_MEDIA_CONFIRMED"
"""The environment variable with what a command confirms for its one run, as entries of `allow`."""


def with_confirmed(allow: object) -> object:
    """`allow` of the stack file, and what the command that started this run confirms."""
    confirmed = os.environ.get(CONFIRMED, "").split()
    entries = from_text(allow)
    return [*(entries if isinstance(entries, list) else []), *confirmed] if confirmed else allow


def from_text(value: object) -> object:
    """A value that may be JSON text, as `pulumi config set` and the Automation API write it; other text stays as it is.

    https://www.pulumi.com/docs/iac/concepts/config/#structured-configuration
    """
    if not isinstance(value, str):
        return value
    try:
        return cast("object", json.loads(value, object_pairs_hook=_once_each))
    except (ValueError, RecursionError):
        return value


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """As YAML's reader has it: JSON's would take the last and drop a store. Raises SettingsError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError([Problem("a key in JSON text", twice, "each key once", "Keep one of the two.")])
    return found


def parse(stores: object, allow: object = None, defaults: object = None) -> dict[str, StoreSettings]:
    """The settings of a stack by homeserver. Raises SettingsError with every problem there is.

    Args:
        stores: the value of `synapse-media:stores`: an object, or JSON text of one.
        allow: the value of `synapse-media:allow`: a list, or JSON text of one; None for none.
        defaults: the value of `synapse-media:defaults`: an object, or JSON text of one; None for none.
    """
    problems: list[Problem] = []
    stores, allow, defaults = from_text(stores), from_text(allow), from_text(defaults)
    _refuse_secure(f"{PROJECT}:stores", stores, problems)
    _refuse_secure(f"{PROJECT}:defaults", defaults, problems)
    if problems:
        # What a command sees of it is ciphertext: nothing else can be said of its store.
        raise SettingsError(problems)
    shared = usable_defaults(defaults, problems)
    if problems:
        # Every store would lack what could not be taken from there.
        raise SettingsError(problems)
    words = _parse_allow(allow, problems)
    inherited = _Inherited()
    parsed: dict[str, StoreSettings] = {}
    if not isinstance(stores, Mapping) or not stores:
        problems.append(
            Problem(
                f"{PROJECT}:stores",
                stores,
                "an object with a key per homeserver",
                _NO_JSON if isinstance(stores, str) else _NO_STORES,
            )
        )
        raise SettingsError(problems)
    for server_name, raw in stores.items():
        reader = _Reader(f"stores.{server_name}", raw, problems, defaults=shared, inherited=inherited)
        if not isinstance(server_name, str) or not _SERVER_NAME.fullmatch(server_name):
            reader.add("", server_name, _A_SERVER_NAME, "It is the key of the store.")
        store = _parse_store(str(server_name), reader, words.get(str(server_name), frozenset()))
        if store is not None:
            parsed[store.server_name] = store
    problems += inherited.problems()
    _check_together([(f"stores.{name}", store) for name, store in parsed.items()], problems)
    if problems:
        raise SettingsError(problems)
    return parsed


_NO_JSON = "This text is no JSON: correct it, or write the stores as YAML."
_NO_STORES = (
    "See stacks/ for a complete example of each provider. To give a stack up, leave its stores there and run "
    "`synapse-media destroy`. A store that the program declares itself is changed by `synapse-media up`, or by plain "
    "`pulumi`; its key is rotated by the argument `keys`."
)


def per_store() -> dict[str, str]:
    """The settings that are no default for several stores, each with the reason."""
    own = (catalog.load(name).value("settings", {}).items() for name in catalog.names())
    return {**_PER_STORE, **{key: rule["per_store"] for items in own for key, rule in items if "per_store" in rule}}


def usable_defaults(defaults: object, problems: list[Problem]) -> Mapping[str, Any]:
    """The settings under `synapse-media:defaults` that a store may take, by name; what is wrong with others is added.

    A value replaces, or is replaced, as a whole: also one with entries of its own, such as `tags`.
    """
    if defaults is None:
        return {}
    name = f"{PROJECT}:defaults"
    if not isinstance(defaults, Mapping):
        step = "Write it as key: value lines, as in a store."
        problems.append(Problem(name, defaults, "an object with settings of a store", step))
        return {}
    reasons = per_store()
    known = _COMMON.union(*(catalog.load(provider).value("settings", {}) for provider in catalog.names()))
    allowed = sorted(known - reasons.keys())
    usable = {}
    for setting, value in defaults.items():
        if setting in reasons:
            step = f"Set it in each store: {reasons[setting]}."
            problems.append(Problem(f"defaults.{setting}", Described("no default"), ", ".join(allowed), step))
        elif setting not in allowed:
            guess = catalog.nearest(str(setting), allowed)
            step = f"Did you mean {guess!r}?" if guess else "Remove it."
            problems.append(Problem(f"defaults.{setting}", NO_SETTING, ", ".join(allowed), step))
        elif setting == "method" and isinstance(value, str) and value in METHODS and not METHODS[value].uses_store:
            using = ", ".join(name for name, method in METHODS.items() if method.uses_store)
            step = f"Set {value} in each store: a store is given up by name."
            problems.append(Problem("defaults.method", value, using, step))
        else:
            usable[setting] = value
    return usable


class _Inherited:
    """What is wrong with defaults, each said once however many stores take it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[Problem, dict[str, None]]] = {}

    def add(self, problem: Problem, store: str) -> None:
        key = (problem.setting, problem.allowed, problem.next_step)
        self._found.setdefault(key, (problem, {}))[1][store] = None

    def problems(self) -> list[Problem]:
        return [
            replace(problem, next_step=f"{problem.next_step} It is the default of {_first_of(list(stores))}.")
            for problem, stores in self._found.values()
        ]


def _first_of(names: list[str]) -> str:
    others = len(names) - 1
    return names[0] if not others else f"{names[0]} and {others} other{'s' if others > 1 else ''}"


def check(server_name: str, raw: Mapping[str, Any], allow: Collection[str] = (), *, where: str) -> StoreSettings:
    """The settings of one store that a program declares. Raises SettingsError with every problem there is.

    Args:
        raw: the settings by the names that a stack file has for them; LATER for a value that is not known yet.
        allow: words of synapse_media.allow.
        where: what stands before a setting's name in a message.
    """
    problems: list[Problem] = []
    reader = _Reader(where, raw, problems, in_file=False)
    if not _SERVER_NAME.fullmatch(server_name):
        reader.add("server_name", server_name, _A_SERVER_NAME, "It is the name of the homeserver.")
    for word in sorted(set(allow) - set(Word)):
        guess = catalog.nearest(word, tuple(one.value for one in Word))
        reader.add("allow", word, ", ".join(Word), f"Did you mean {guess!r}?" if guess else "Mend or remove it.")
    if raw.get("method") in [name for name, method in METHODS.items() if not method.uses_store]:
        reader.add(
            "method",
            raw["method"],
            ", ".join(name for name, method in METHODS.items() if method.uses_store),
            "This method uses no store: declare none.",
        )
        raise SettingsError(problems)
    store = _parse_store(server_name, reader, frozenset(allow))
    if problems or store is None:
        raise SettingsError(problems)
    return store


def check_allow(allow: object) -> None:
    """Raise SettingsError with every problem of a stack file's `allow`, where the program declares the stores."""
    problems: list[Problem] = []
    _parse_allow(allow, problems)
    if problems:
        raise SettingsError(problems)


def parse_variables(variables: object) -> tuple[str, ...]:
    """The environment variables that the program's own resources and providers need, by name, each once.

    Args:
        variables: the value of `synapse-media:variables`: a list, or JSON text of one; None for none.

    Raises:
        SettingsError: with every name that is not allowed.
    """
    given = from_text(variables)
    setting = f"{PROJECT}:variables"
    if given is None:
        return ()
    if not isinstance(given, list):
        step = "Write it as a list: [GITHUB_TOKEN]."
        raise SettingsError([Problem(setting, Described("no list"), "a list of names of environment variables", step)])
    problems: list[Problem] = []
    allowed = "the name of an environment variable, not PULUMI_… and not …_SDK_GO_LOGGING…"
    for place, name in enumerate(given):
        where = f"{setting}[{place}]"
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            # Not shown: it may be the value, which may be a secret.
            step = "Name the variable only; its value stays in the environment."
            problems.append(Problem(where, Described("no name"), allowed, step))
        elif _NEVER_PASSED.fullmatch(name):
            step = "Remove it: those that say where Pulumi's state is are passed on anyway; others write secrets."
            problems.append(Problem(where, name, allowed, step))
    if problems:
        raise SettingsError(problems)
    return tuple(dict.fromkeys(given))


class Together:
    """The stores that one program has declared so far, none of which excludes another."""

    def __init__(self) -> None:
        self._stores: list[tuple[str, StoreSettings]] = []
        self._having: dict[tuple[str, ...], list[int]] = {}

    def add(self, where: str, store: StoreSettings) -> None:
        """Take one more. Raises SettingsError where it and another exclude each other; it is not taken then.

        It is compared with the stores alone that share something with it: with all, N stores would take N² looks.

        Args:
            where: what stands before its settings in a message.
        """
        sharing = sorted({number for key in _excluding(store) for number in self._having.get(key, ())})
        others = [self._stores[number] for number in sharing]
        # Components of one name under parents of different types are two.
        where = f"another {where}" if where in {other for other, _ in others} else where
        problems: list[Problem] = []
        _check_together([*others, (where, store)], problems)
        if problems:
            raise SettingsError(problems)
        for key in _distinguishing(store):
            self._having.setdefault(key, []).append(len(self._stores))
        self._stores.append((where, store))


_A_SERVER_NAME = "a host name such as matrix.example.com"


def secure_value(setting: str, shown: str = "a `secure:` value") -> Problem:
    """What is wrong with a setting that is encrypted, or holds something that is."""
    return Problem(
        setting,
        Described(shown),
        "plain text alone",
        "No setting of a store is a secret: admin credentials come from the environment, and keys are made and kept in "
        "the encrypted state. Set it again with `pulumi config set --plaintext`.",
    )


def _refuse_secure(setting: str, value: object, problems: list[Problem]) -> None:
    """Name each `secure:` value of `pulumi config set --secret`: no setting of a store is a secret."""
    if not isinstance(value, Mapping):
        return
    if set(value) == {"secure"}:
        problems.append(secure_value(setting))
        return
    for name, item in value.items():
        _refuse_secure(f"{setting}.{name}", item, problems)


class _Reader:
    """The raw settings of one store, and where its problems go.

    Attributes:
        raw: the store's own, and the defaults where it has none of that name. Null takes a default away, so that the
            built-in one counts; where there is none to take away, it is a value that somebody forgot.
        in_file: they are a stack file's, and not a program's arguments: how to write a value follows from it.
        told: how many problems were found so far.
    """

    def __init__(
        self,
        where: str,
        raw: object,
        problems: list[Problem],
        *,
        in_file: bool = True,
        defaults: Mapping[str, Any] = MappingProxyType({}),
        inherited: _Inherited | None = None,
    ) -> None:
        self.where = where
        self.in_file = in_file
        self.problems = problems
        own: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
        unset = {name for name in defaults if name in own and own[name] is None}
        self.raw: Mapping[str, Any] = {k: value for k, value in {**defaults, **own}.items() if k not in unset}
        self.told = 0
        self._inherited = inherited
        self._from_defaults = defaults.keys() - own.keys()
        if not isinstance(raw, Mapping):
            self.add("", raw, "an object with at least provider, bucket and method", "Write it as key: value lines.")

    def add(self, name: str, value: object, allowed: str, next_step: str) -> None:
        self.told += 1
        if self._inherited is not None and name.partition(".")[0] in self._from_defaults:
            self._inherited.add(Problem(f"defaults.{name}", value, allowed, next_step), self.where)
            return
        setting = f"{self.where}.{name}" if name else self.where
        self.problems.append(Problem(setting, value, allowed, next_step))

    def later(self, name: str) -> bool:
        """Whether a value is only known later. Until then it reads as its default, and nothing is said of it."""
        return self.raw.get(name) is LATER

    def text(self, name: str, default: str = "") -> str:
        value = default if self.later(name) else self.raw.get(name, default)
        if isinstance(value, str) and "\n" not in value:
            return value.strip() if name != "prefix" else value
        step = "Put it in quotes if YAML reads it as something else." if self.in_file else "Write it as a string."
        self.add(name, value, "one line of text", step)
        return default

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        if self.later(name):
            return default
        value = self.raw.get(name, default)
        if isinstance(value, str) and value in allowed:
            return value
        guess = catalog.nearest(str(value), allowed) if value else ""
        self.add(
            name,
            value or None,
            ", ".join(allowed),
            f"Did you mean {guess!r}?" if guess else f"Set {name} to one of them.",
        )
        return ""

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = default if self.later(name) else self.raw.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.add(name, value, f"a whole number from {low} to {high}", "It is a number of days.")
        return default

    def flag(self, name: str) -> bool:
        value = False if self.later(name) else self.raw.get(name, False)
        if isinstance(value, bool):
            return value
        self.add(name, value, "true or false", f"Write it {'without quotes' if self.in_file else 'as a boolean'}.")
        return False


def _parse_allow(allow: object, problems: list[Problem]) -> dict[str, frozenset[str]]:
    words: dict[str, set[str]] = {}
    allowed = f"a list of <homeserver>/<word>, the word one of {', '.join(Word)}"
    if allow is not None and not isinstance(allow, list):
        problems.append(Problem(f"{PROJECT}:allow", allow, allowed, "Write it as a list, even of one."))
        return {}
    for entry in allow or []:
        server_name, word = split(entry) if isinstance(entry, str) else ("", "")
        if server_name and word in set(Word):
            words.setdefault(server_name, set()).add(word)
            continue
        guess = catalog.nearest(word, [one.value for one in Word])
        next_step = f"Did you mean {server_name or 'matrix.example.com'}/{guess}?" if guess else "Mend or remove it."
        problems.append(Problem(f"{PROJECT}:allow", entry, allowed, next_step))
    return {name: frozenset(found) for name, found in words.items()}


def _parse_store(server_name: str, reader: _Reader, allow: frozenset[str]) -> StoreSettings | None:
    # An unknown method is told; the rest is judged as for the usual one.
    method_name = reader.choice("method", MODULE, tuple(METHODS)) or MODULE
    if method_name == "filesystem":
        # What the store had may stay there, for the way back.
        _check_names(reader, reader.choice("provider", "", catalog.names()) if "provider" in reader.raw else "")
        return StoreSettings(server_name, provider="", bucket="", method=method_name, allow=allow)
    provider_name = reader.choice("provider", "", catalog.names())
    if not provider_name:
        # What does not hang on it.
        _check_names(reader, "")
        _check_user(reader, _check_bucket(reader, catalog.load("s3_compatible")))
        _, _, adopt, _, _ = _check_plain(reader)
        for name in ("endpoint", "iam_endpoint"):
            _check_url(reader, name, "", required=False)
        _check_prefix(reader, method_name)
        _check_adopt_key(reader, "perhaps", adopt=adopt)
        _check_media_repo(reader, method_name)
        return None
    provider = catalog.load(provider_name)
    own: Mapping[str, Mapping[str, Any]] = provider.value("settings", {})
    _check_names(reader, provider_name)
    region = _check_region(reader, provider)
    # Where it follows from a region that is missing, that is told already.
    follows = bool(provider.value("endpoint")) if reader.later("region") else not region
    required = not follows and not provider.value("endpoint_from_account", False)
    endpoint = _check_url(reader, "endpoint", provider.endpoint(region), required=required)
    iam_endpoint = _check_url(reader, "iam_endpoint", provider.iam_endpoint(region), required=False)
    if iam_endpoint and provider.can("iam") is False:
        reader.add("iam_endpoint", iam_endpoint, f"nothing: {provider.title} has no IAM-style API", "Remove it.")
    given = reader.raw.get("iam_endpoint")
    # One that is refused is told already.
    has_iam = bool(iam_endpoint or (given.strip() if isinstance(given, str) else given))
    if "existing_key" in own and not has_iam and not reader.raw.get("existing_key"):
        reader.add(
            "iam_endpoint",
            None,
            "the URL of the store's IAM-style API, which makes the user and the key",
            "If the store has none, make a key limited to the bucket by hand and set existing_key: true.",
        )
    if (iam_endpoint or reader.later("iam_endpoint")) and reader.raw.get("existing_key") is True:
        reader.add(
            "existing_key",
            True,
            "nothing beside iam_endpoint, by which a user and a key are made",
            "Remove the one that does not apply.",
        )
    _check_keyless(reader, METHODS[method_name])
    bucket = _check_bucket(reader, provider)
    access, keys, adopt, noncurrent_days, abort_days = _check_plain(reader, provider.value("noncurrent_days", 30))
    for name, why in retention_lacks(provider).items():
        if name in reader.raw:
            reader.add(name, reader.raw[name], f"nothing: {why}", "Remove it.")
    return StoreSettings(
        server_name=server_name,
        provider=provider_name,
        bucket=bucket,
        method=method_name,
        access=access,
        region=region,
        endpoint=endpoint,
        iam_endpoint=iam_endpoint,
        prefix=_check_prefix(reader, method_name),
        storage_class=_check_class(reader, provider, method_name),
        user=_check_user(reader, bucket),
        keys=keys,
        adopt=adopt,
        adopt_key=_check_adopt_key(
            reader, "known later" if reader.later("iam_endpoint") else iam_endpoint, adopt=adopt
        ),
        noncurrent_days=noncurrent_days,
        abort_days=abort_days,
        media_repo=_check_media_repo(reader, method_name),
        renamed_from=_check_renamed(reader, server_name),
        options=_check_options(reader, own, allow),
        allow=allow,
        later=_later(reader, provider),
    )


def retention_lacks(provider: catalog.Provider) -> dict[str, str]:
    """The settings of how long something is kept that a provider can't carry out, each with the reason."""
    if provider.can("lifecycle") is False:
        return dict.fromkeys(("noncurrent_days", "abort_days"), f"{provider.title} has no lifecycle rules")
    if provider.can("versioning") is False:
        return {"noncurrent_days": f"{provider.title} keeps no versions"}
    return {}


SOURCES: Mapping[str, str] = {"user": "bucket", "endpoint": "region", "iam_endpoint": "region"}
"""A setting that may be left out, and the one that it follows from then."""


def _later(reader: _Reader, provider: catalog.Provider) -> frozenset[str]:
    """The settings whose values are only known later: given so, or following from one that is."""
    given = {name for name in reader.raw if reader.later(name)}
    following = {"user", *(name for name in ("endpoint", "iam_endpoint") if "{region}" in provider.value(name, ""))}
    return frozenset(given | {name for name in following - set(reader.raw) if SOURCES[name] in given})


def _check_keyless(reader: _Reader, method: Method) -> None:
    if reader.raw.get("keyless") is True and not method.keyless:
        reader.add(
            "keyless",
            True,
            f"nothing with method {method.name}, which signs with an access key only",
            "Remove keyless, or choose another method.",
        )


def _check_names(reader: _Reader, provider_name: str) -> None:
    """Every setting is one that the provider knows; "": any provider."""
    providers = (provider_name,) if provider_name else catalog.names()
    known = _COMMON.union(*(catalog.load(name).value("settings", {}) for name in providers))
    for name in sorted(set(map(str, reader.raw)) - known):
        guess = catalog.nearest(name, known)
        reader.add(
            name,
            # Not its value: somebody may have put a secret there.
            NO_SETTING,
            ", ".join(sorted(known)),
            f"Did you mean {guess!r}?" if guess else "Remove it.",
        )


def _check_plain(reader: _Reader, noncurrent_days: int = 30) -> tuple[Access, Keys, bool, int, int]:
    """What is the same for every provider and method: access, keys, adopt, noncurrent_days, abort_days."""
    return (
        cast("Access", reader.choice("access", "least", ACCESS)),
        _check_keys(reader),
        reader.flag("adopt"),
        reader.number("noncurrent_days", noncurrent_days, 1, 3650),
        reader.number("abort_days", 7, 1, 365),
    )


ADOPTED_SECRET = "SYNAPSE_MEDIA_ADOPTED_SECRET"  # noqa: S105 - the name of an environment variable
"""Where the secret access key of `adopt_key` is read from, until it is in the encrypted state."""


def _check_adopt_key(reader: _Reader, iam_endpoint: str, *, adopt: bool) -> str:
    key = reader.text("adopt_key")
    if key and not (adopt and iam_endpoint):
        reader.add(
            "adopt_key",
            NO_SETTING,  # it may be the secret
            "a key beside adopt: true, where the store has an IAM API",
            "Set adopt: true, and user to the name of the user that has the key."
            if iam_endpoint
            else "Remove it: here a new key is made, and the old one stays until you delete it.",
        )
    elif key and not re.fullmatch(r"[A-Za-z0-9]{4,128}", key):
        reader.add("adopt_key", NO_SETTING, "an access key ID: letters and digits", "Not the secret access key.")
    return key


def _check_bucket(reader: _Reader, provider: catalog.Provider) -> str:
    """The name of the bucket; "" where it is none."""
    limits = provider.value("bucket_name", {"min": 3, "max": 63})
    allowed = f"{limits['min']} to {limits['max']} characters a-z, 0-9 and '-', not starting with b2- or xn--"
    if reader.later("bucket"):
        return ""
    if "bucket" not in reader.raw:
        reader.add("bucket", None, allowed, "Choose a name that nobody else has at this provider.")
        return ""
    told = reader.told
    bucket = reader.text("bucket")
    if reader.told > told:
        return ""
    fault = catalog.bucket_name_fault(bucket, provider)
    if fault is None:
        return "" if _is_refused(reader, "bucket", bucket, allowed) else bucket
    legacy = fault.rule is not catalog.NameRule.RESERVED and _LEGACY_BUCKET.fullmatch(bucket)
    if legacy and reader.raw.get("adopt") is True:
        return bucket
    read = values.judge("bucket", bucket, MODULE)
    mend = f" {read.mend}" if read is not None and read.rule == "bucket-name" else ""
    reader.add("bucket", bucket, allowed, f"{fault.words[0].upper()}{fault.words[1:]}: choose another name.{mend}")
    return ""


# A bucket that is there already may carry a name that nobody should choose today.
_LEGACY_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def _is_refused(reader: _Reader, name: str, text: str, allowed: str, *, endpoint: str = "") -> bool:
    """Whether boto3, by which every command reaches a store, and the module refuse a value; then that is told."""
    field_name = "endpoint" if name == "iam_endpoint" else name
    fault = values.judge(field_name, text, MODULE, endpoint=endpoint)
    in_host = values.bucket_in_host(text) if name == "endpoint" else ""
    if fault is None and in_host:
        without = text.replace(f"{in_host}.", "", 1)
        reader.add(
            name, text, allowed, f"It is the address of the bucket {in_host!r}, not the store's: write {without}."
        )
        return True
    if fault is None or fault.rule == "bucket-name-unusual":
        return False  # the catalog says that, and lets an adopted bucket have it
    if fault.rule == "placeholder" and name == "bucket" and reader.raw.get("adopt") is True:
        return False  # it is there, so it is its name
    reason = f"{fault.reason[0].upper()}{fault.reason[1:]}"
    reader.add(name, text, allowed, f"{reason}. {fault.mend}")
    return True


def _check_region(reader: _Reader, provider: catalog.Provider) -> str:
    region = reader.text("region", str(provider.value("default_region", "")))
    regions = provider.regions
    if provider.value("endpoint_from_account", False):
        return region
    if reader.later("region"):
        return ""
    if not region:
        reader.add(
            "region", None, ", ".join(regions) or "a region name", f"Choose where {provider.title} keeps the bucket."
        )
    elif regions and region not in regions:
        guess = catalog.nearest(region, regions)
        reader.add("region", region, ", ".join(regions), f"Did you mean {guess!r}?" if guess else "Choose one of them.")
    elif not _REGION.fullmatch(region):
        reader.add("region", region, "letters, digits and '-'", "Use the region as the store signs it.")
    else:
        endpoint = reader.raw.get("endpoint")
        at = endpoint if isinstance(endpoint, str) else ""
        _is_refused(reader, "region", region, "the region that the endpoint is in", endpoint=at)
    return region


def _check_url(reader: _Reader, name: str, default: str, *, required: bool) -> str:
    # Nothing, or nothing but blanks, as of a variable that is not set.
    value = reader.text(name, default) or default
    if reader.later(name):
        return ""
    if not value:
        if required:
            reader.add(name, None, "an http(s) URL such as https://s3.example.com", "Ask the store's documentation.")
        return ""
    try:
        parts = urlsplit(value)
        scheme, host, port = parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower(), parts.port
        bare = host.removesuffix(f":{port}")
        whole = scheme in ("http", "https") and port != 0 and _HOST.fullmatch(bare) is not None
    except ValueError:
        whole, scheme, bare, port = False, "", "", None
    if not whole or value.lower() not in (f"{scheme}://{host}", f"{scheme}://{host}/"):
        reader.add(
            name,
            # A password in it stays out of the message.
            f"…@{value.rpartition('@')[2]}" if "@" in value else value,
            "scheme and host, perhaps a port: https://s3.example.com",
            _mending_url(value),
        )
        return ""
    if name in ("endpoint", "iam_endpoint") and _is_refused(reader, name, value, "a URL that boto3 takes"):
        return ""
    # In one form, so that two stores at one place are seen to be.
    return f"{scheme}://{bare}" + (f":{port}" if port and port != {"http": 80, "https": 443}[scheme] else "")


def _mending_url(value: str) -> str:
    if "://" in value:
        return "Leave out the path, the bucket and any user name."
    host = value.rstrip("/").partition(":")[0]
    return "Add the scheme." if _HOST.fullmatch(host.lower()) else "Write http:// or https://, and the host."


def _check_prefix(reader: _Reader, method: str) -> str:
    prefix = reader.text("prefix")
    if not prefix:
        return ""
    if not METHODS[method].prefix:
        reader.add("prefix", prefix, f"nothing: {method} knows no prefix", "Remove it, or use a bucket of its own.")
    # What lies in a bucket that is taken over may lie under one without: the module's README has such an example.
    elif prefix.startswith("/") or "//" in prefix or not (prefix.endswith("/") or reader.raw.get("adopt") is True):
        reader.add(
            "prefix",
            prefix,
            'a folder such as "media/": ends with "/", does not start with it',
            "The module puts it before every key as it is, without adding a '/'. One that ends without is for a bucket "
            "in which media lies so: adopt: true.",
        )
    elif not _PREFIX.fullmatch(prefix) or len(prefix) > 200 or {".", ".."} & set(prefix.split("/")):
        reader.add(
            "prefix",
            prefix,
            "letters, digits, spaces and !.()_-/, at most 200, no folder called '.' or '..'",
            "Choose a plainer one.",
        )
    else:
        fault = values.refused("prefix", prefix, method)
        # One that looks like a placeholder works, and may have media under it.
        if fault is not None and fault.rule != "placeholder":
            reader.add(
                "prefix", prefix, "a folder's name", f"{fault.reason[0].upper()}{fault.reason[1:]}. {fault.mend}"
            )
    return prefix


def _check_class(reader: _Reader, provider: catalog.Provider, method: str) -> str:
    value = reader.text("storage_class", "STANDARD")
    classes: tuple[str, ...] = tuple(
        item["name"] for item in provider.value("storage_classes", ({"name": "STANDARD"},)) if item.get("instant", True)
    )
    by_method = METHODS[method].storage_classes
    allowed = tuple(name for name in classes if by_method is None or name in by_method)
    if value not in allowed:
        guess = catalog.nearest(value, allowed)
        reader.add(
            "storage_class",
            value,
            ", ".join(allowed),
            f"{method} at {provider.title} reads from these at once." + (f" Did you mean {guess!r}?" if guess else ""),
        )
    return value


def _check_user(reader: _Reader, bucket: str) -> str:
    """The name of the user; "" where it follows from a bucket that has none."""
    if "user" not in reader.raw or reader.later("user"):
        return f"synapse-media-{bucket}"[:64] if bucket else ""
    told = reader.told
    user = reader.text("user")
    if reader.told == told and not _USER.fullmatch(user):
        reader.add("user", user, "1 to 64 letters, digits and +=,.@_-", "It names the user that owns the key.")
    return user


def _check_keys(reader: _Reader) -> Keys:
    raw = {} if reader.later("keys") else reader.raw.get("keys", {})
    if not isinstance(raw, Mapping) or set(raw) - {"active", "retiring"}:
        step = "`synapse-media rotate` edits this line." if reader.in_file else "Write Keys(active, retiring)."
        reader.add("keys", raw, "{active: a, retiring: []}", step)
        return Keys()
    active, retiring = raw.get("active", "a"), raw.get("retiring", [])
    listed = retiring if isinstance(retiring, list) else [retiring]
    slots = [active, *listed]
    if any(slot not in SLOTS for slot in slots) or len(set(slots)) != len(slots):
        reader.add(
            "keys",
            dict(raw),
            f"active one of {', '.join(SLOTS)}, retiring a list of the others",
            "A user has two keys at most; a slot can't be both.",
        )
        return Keys()
    return Keys(active=active, retiring=tuple(listed))


def _check_media_repo(reader: _Reader, method: str) -> dict[str, str]:
    if reader.later("media_repo"):
        return {}
    raw = reader.raw.get("media_repo", {})
    known = {"s3_datastore_id", "file_datastore_id"}
    if not isinstance(raw, Mapping) or set(raw) - known or not all(isinstance(v, str) and v for v in raw.values()):
        reader.add(
            "media_repo",
            raw,
            f"an object with {', '.join(sorted(known))}",
            "Each is text, as matrix-media-repo has it.",
        )
        return {}
    if METHODS[method].datastore_ids and "s3_datastore_id" not in raw:
        reader.add(
            "media_repo.s3_datastore_id",
            None,
            "the id of the s3 datastore, which can never change",
            "Existing installation: take it from media-repo.yaml. New one: make it up once (`openssl rand -hex 20`).",
        )
    if len(set(raw.values())) < len(raw):
        reader.add("media_repo", dict(raw), "an id of its own for each datastore", "Take them from media-repo.yaml.")
    if not METHODS[method].datastore_ids and raw:
        others = " or ".join(name for name in METHODS if METHODS[name].datastore_ids)
        reader.add("media_repo", dict(raw), f"nothing with method {method}", f"Remove it, or set method: {others}.")
    return {str(key): str(value) for key, value in raw.items()}


def _check_renamed(reader: _Reader, server_name: str) -> str:
    former = reader.text("renamed_from")
    if former and (former == server_name or not _SERVER_NAME.fullmatch(former)):
        reader.add(
            "renamed_from",
            former,
            "the host name that this homeserver had in the stack file before",
            "Leave it out where the homeserver has its first name.",
        )
    return former


_TYPES: Mapping[str, type] = {
    "string": str,
    "url": str,
    "boolean": bool,
    "integer": int,
    "object": dict,
    "list": list,
}


_TYPES_IN_WORDS: Mapping[str, str] = {
    "string": "text",
    "url": "an http(s) URL",
    "boolean": "true or false",
    "integer": "a whole number",
    "object": "an object",
    "list": "a list",
}


def _check_options(reader: _Reader, own: Mapping[str, Mapping[str, Any]], allow: Collection[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, rule in own.items():
        if name in _COMMON or (name not in reader.raw and "required" not in rule):
            continue
        value = reader.raw.get(name)
        adopted = reader.raw.get("adopt") is True
        for word, why in rule.get("adopted_without", {}).items() if adopted and value else ():
            if word in allow:
                reader.add(name, value, f"nothing beside adopt: true and {word} in allow", why)
        if reader.later(name):
            if "not_adopted" in rule and adopted:
                reader.add(name, value, "nothing beside adopt: true", str(rule["not_adopted"]))
            continue
        if rule["type"] == "url" and name in reader.raw:
            value = _check_url(reader, name, "", required=True)
            if not value:
                continue
        if "not_adopted" in rule and adopted:
            reader.add(name, value, "nothing beside adopt: true", str(rule["not_adopted"]))
        elif _fits(value, rule):
            options[name] = value
            _check_content(reader, name, rule)
        else:
            # In place of a yes or no somebody may have written what it is about: a key.
            hidden = rule["type"] == "boolean" and isinstance(value, str)
            shown = Described("a text") if hidden else value
            reader.add(name, shown, str(rule.get("allowed", _TYPES_IN_WORDS[rule["type"]])), str(rule["what"]))
    return options


def _fits(value: object, rule: Mapping[str, Any]) -> bool:
    if not isinstance(value, _TYPES[rule["type"]]) or (rule["type"] == "integer" and isinstance(value, bool)):
        return False
    if isinstance(value, int) and value.bit_length() > 63:
        return False  # Python writes no number of thousands of digits
    return "pattern" not in rule or re.fullmatch(rule["pattern"], str(value)) is not None


def _check_content(reader: _Reader, name: str, rule: Mapping[str, Any]) -> None:
    """Of a setting of the right type: what it names, and an object's entries, in which a number stands for its text."""
    if "not_bucket" in rule and reader.raw[name] == reader.raw.get("bucket"):
        reader.add(name, reader.raw[name], "another bucket than the store's own", str(rule["not_bucket"]))
    for key, value in reader.raw[name].items() if "entries" in rule else ():
        entries = rule["entries"]
        if not isinstance(key, str) or not re.fullmatch(entries["name"], key):
            reader.add(name, key, entries["names_allowed"], f"It is a name in {name}: choose another.")
        is_text = isinstance(value, (str, int)) and not isinstance(value, bool)
        if not is_text or not re.fullmatch(entries["value"], str(value)):
            # Quoted, since None would be taken for a setting that is missing.
            shown = Described(repr(value))
            reader.add(f"{name}.{key}", shown, entries["values_allowed"], "Write it as text, or remove it.")


def _check_together(stores: Collection[tuple[str, StoreSettings]], problems: list[Problem]) -> None:
    """One bucket, one store: two methods on one bucket destroy media.

    Args:
        stores: each with what stands before its settings in a message.
    """
    seen: dict[tuple[str, ...], str] = {}
    for where, store in stores:
        for place in _place_of(store):
            other = seen.setdefault(place, where)
            if other != where:
                problems.append(
                    Problem(
                        f"{where}.bucket",
                        store.bucket,
                        "a bucket that no other store uses",
                        f"{other} uses it already. Two homeservers or two methods on one bucket destroy media: "
                        "give each its own.",
                    )
                )
    homeservers: dict[str, str] = {}
    for where, store in stores:
        other = homeservers.setdefault(store.server_name, where)
        if other != where:
            problems.append(
                Problem(
                    f"{where}.server_name",
                    store.server_name,
                    "a homeserver that has no other store",
                    f"{other} has it already, and Synapse uses one store at a time. To move, change that one, or "
                    "declare this one in its place.",
                )
            )
    _check_names_are_new(stores, problems)
    _check_admin_keys(stores, problems)
    users: dict[tuple[str, ...], str] = {}
    for where, store in stores:
        for user in _user_of(store):
            other = users.setdefault(user, where)
            if other != where:
                problems.append(Problem(f"{where}.user", store.user, "a user of its own", f"{other} has it."))


def _place_of(store: StoreSettings) -> list[tuple[str, ...]]:
    known = store.uses_store and store.bucket
    return [("bucket", store.endpoint or store.provider, store.bucket)] if known else []


def _user_of(store: StoreSettings) -> list[tuple[str, ...]]:
    known = store.uses_store and store.iam_endpoint and store.user
    return [("user", store.iam_endpoint, store.user)] if known else []


def _made_with(store: StoreSettings) -> list[str]:
    """The variables of the administrator's key that makes this store's."""
    made = store.uses_store and not store.options.get("existing_key")
    return list(catalog.load(store.provider).admin_variables) if made else []


def _brought_in(store: StoreSettings) -> list[str]:
    """The variables that hold this store's own key."""
    return list(catalog.load(store.provider).admin_variables) if store.options.get("existing_key") else []


def _distinguishing(store: StoreSettings) -> list[tuple[str, ...]]:
    """What a store has, as keys by which another finds that the two exclude each other."""
    return [
        *_place_of(store),
        *_user_of(store),
        ("name", store.server_name),
        *([("former name", store.renamed_from)] if store.renamed_from else ()),
        *(("makes keys", name) for name in _made_with(store)),
        *(("is a key", name) for name in _brought_in(store)),
    ]


def _excluding(store: StoreSettings) -> list[tuple[str, ...]]:
    """What no other store may have beside this one: see `_check_together`."""
    return [
        *_place_of(store),
        *_user_of(store),
        ("name", store.server_name),
        ("former name", store.server_name),
        *([("name", store.renamed_from), ("former name", store.renamed_from)] if store.renamed_from else ()),
        *(("is a key", name) for name in _made_with(store)),
        *(("makes keys", name) for name in _brought_in(store)),
    ]


def _check_admin_keys(stores: Collection[tuple[str, StoreSettings]], problems: list[Problem]) -> None:
    """An administrator's key makes the keys of one store, so it may not be another's own: that one goes to Synapse."""
    makers: dict[str, str] = {}
    for where, store in stores:
        makers |= dict.fromkeys(_made_with(store), where)
    for where, store in stores:
        shared = [name for name in _brought_in(store) if name in makers]
        if shared:
            problems.append(
                Problem(
                    f"{where}.existing_key",
                    True,
                    "a store alone in its stack with the variables that its key is in",
                    f"{makers[shared[0]]} is made with an administrator's key in {', '.join(shared)}, which would "
                    "become Synapse's: give this store a stack of its own.",
                )
            )


def _check_names_are_new(stores: Collection[tuple[str, StoreSettings]], problems: list[Problem]) -> None:
    """A former name is that of one store, and of none that is still there."""
    taken = {store.server_name: where for where, store in stores}
    for where, store in stores:
        if not store.renamed_from:
            continue
        other = taken.setdefault(store.renamed_from, where)
        if other != where:
            problems.append(
                Problem(
                    f"{where}.renamed_from",
                    store.renamed_from,
                    "the former name of this store alone",
                    f"{other} has it: remove one of the two.",
                )
            )
