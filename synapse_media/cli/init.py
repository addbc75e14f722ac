"""`synapse-media init`: a stack file of one's own, from the provider's example, and a project where there is none."""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from synapse_media import catalog, settings, stackfile
from synapse_media.errors import Problem, SettingsError, UsageError
from synapse_media.methods import METHODS
from synapse_media.settings import StoreSettings

from . import credentials, new_project, programs, stacks

_ASKED = {
    "provider": "Provider",
    "server_name": "Server name of the homeserver (example.com or matrix.example.com)",
    "bucket": "Bucket",
    "region": "Region",
    "endpoint": "Endpoint (https://…)",
    "method": "Method",
    "s3_datastore_id": "Id of the s3 datastore (in media-repo.yaml, if there is one already)",
}
_METHOD = "synapse-s3-storage-provider"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the stack file Pulumi.NAME.yaml, checks it and the admin credential, and says what comes "
        "next. Where no Pulumi.yaml is in this directory or above it, makes a project here first. Asks for what is "
        "missing on a terminal."
    )
    parser.add_argument("name", metavar="NAME", nargs="?", default="prod", help="the stack's name (default: prod)")
    parser.add_argument("--provider", choices=catalog.names())
    homeserver = parser.add_mutually_exclusive_group()
    homeserver.add_argument("--server-name", metavar="HOST", help="the homeserver whose media it is")
    homeserver.add_argument(
        "--store",
        metavar="HOST",
        help="add a store for this homeserver to the stack file that is there; what its `synapse-media:defaults` have "
        "is neither asked for nor repeated",
    )
    parser.add_argument("--bucket", help="default: made from the server name")
    parser.add_argument("--region")
    parser.add_argument("--endpoint", metavar="URL")
    parser.add_argument("--iam-endpoint", metavar="URL")
    parser.add_argument("--method", choices=tuple(METHODS), help=f"default: {_METHOD}")
    parser.add_argument("--prefix", help='a folder in the bucket, such as "media/"')
    parser.add_argument(
        "--set", action="append", default=[], metavar="SETTING=VALUE", help="any other setting, its value in YAML"
    )
    parser.add_argument("--adopt", action="store_true", help="the bucket is there already: take it over as it is")
    parser.add_argument(
        "--ci",
        choices=tuple(new_project.CI),
        default="github",
        help="with a new project: the system whose recipe for previews is written (default: github)",
    )
    parser.add_argument("--json", action="store_true", help="for programs: the stack file, what is wrong, what is next")


def run(arguments: argparse.Namespace) -> int:
    if arguments.store is not None:
        return _add(arguments)
    here = Path.cwd()
    project = stackfile.project_above(here)
    if project is None:
        new_project.require(here)
    directory = here / new_project.STACKS if project is None else project / stackfile.config_dir(project)
    path = directory / stackfile.file_name(arguments.name)
    if path.exists() or stackfile.is_example(arguments.name):
        raise UsageError(
            f"{path} exists already, or is an example's: edit it, add a store with --store HOST, or choose another name"
        )

    def parse(server_name: str, store: Mapping[str, Any]) -> StoreSettings:
        return _parsed({server_name: store})[server_name]

    server_name, store = _answers(arguments, {}, parse)
    made = parse(server_name, store)
    extra = catalog.load(made.provider).extra if made.uses_store else ""
    written = new_project.make(here, extra, arguments.ci) if project is None else new_project.Written()
    _write(path, server_name, store)
    findings = _findings(made)
    steps = _next(arguments.name, made)
    if arguments.json:
        print(programs.text(_shown(arguments.name, path, findings, steps, written.files)))
        return 0
    for name in written.files:
        print(f"wrote {here / name}")
    print(f"wrote {path}")
    for name, lines in written.kept.items():
        stacks.say(f"{here / name} was there and is left as it is" + "".join(f"\n  it lacks: {line}" for line in lines))
    _say(findings, steps)
    return 0


def _add(arguments: argparse.Namespace) -> int:
    """Add a store to a stack file that is there."""
    project = stackfile.find_project()
    path = stackfile.path_of(project, arguments.name)
    if stackfile.is_example(arguments.name):
        raise UsageError(f"{path} is an example's, which is never changed: choose another stack")
    if not path.exists():
        raise UsageError(f"{path} does not exist: make it with --server-name {arguments.store} in place of --store")
    there = stackfile.read(project, arguments.name).stores
    if arguments.store in there:
        raise UsageError(f"{path} has a store for {arguments.store} already: edit it there")
    stores, allow, defaults = stackfile.values(stackfile.read_yaml(path))

    def parse(server_name: str, store: Mapping[str, Any]) -> StoreSettings:
        return _parsed({**stores, server_name: store}, allow, defaults)[server_name]

    server_name, store = _answers(arguments, defaults if isinstance(defaults, Mapping) else {}, parse)
    made = parse(server_name, store)
    stackfile.add_store(path, server_name, store)
    findings = _findings(made)
    steps = _next(arguments.name, made)
    if arguments.json:
        print(programs.text(_shown(arguments.name, path, findings, steps, ())))
        return 0
    print(f"added {arguments.store} to {path}")
    _say(findings, steps)
    return 0


def _findings(made: StoreSettings) -> list[str]:
    if not made.uses_store:
        return []
    with stacks.waiting(f"{made.provider}: is the admin credential accepted?"):
        return credentials.findings(made)


def _shown(
    stack: str, path: Path, findings: Sequence[str], steps: Sequence[str], project: Sequence[str]
) -> dict[str, Any]:
    return {"stack": stack, "file": str(path), "project": list(project), "findings": findings, "next": steps}


def _say(findings: Sequence[str], steps: Sequence[str]) -> None:
    for finding in findings:
        stacks.say(finding)
    print("Next:\n" + "\n".join(f"  {line}" for line in steps))


def _parsed(stores: Mapping[str, Any], allow: object = None, defaults: object = None) -> dict[str, StoreSettings]:
    """The settings. Raises SettingsError, which names the options of this command in place of lines of a stack file."""
    try:
        return settings.parse(stores, allow, defaults)
    except SettingsError as error:
        raise SettingsError(
            replace(problem, next_step=_SETTING.sub(_as_option, problem.next_step)) for problem in error.problems
        ) from None


_SETTING = re.compile(r"\b([Ss])et (\w+): (\w+)")


def _as_option(line: re.Match[str]) -> str:
    return f"{'Pass' if line[1] == 'S' else 'pass'} --set {line[2]}={line[3]}"


def _next(name: str, store: StoreSettings) -> list[str]:
    """The commands from here to a configuration."""
    exports = []
    if store.uses_store:
        provider = catalog.load(store.provider)
        required = [variable for variable in provider.admin_variables if variable not in provider.optional_variables]
        exports.append(
            f"export {' '.join(required)}      # `synapse-media doctor --stack {name}` says what it must be allowed"
        )
        if provider.optional_variables:
            exports.append(f"export {' '.join(provider.optional_variables)}      # optional")
    return [
        f"synapse-media diff --stack {name}      # what would be made",
        *exports,
        f"synapse-media up --stack {name}        # make it, and prove the key",
        f"synapse-media render --stack {name} --out DIR",
    ]


_Parse = Callable[[str, Mapping[str, Any]], StoreSettings]
"""(server name, settings of its store) -> the settings judged. Raises SettingsError."""


def _answers(arguments: argparse.Namespace, defaults: Mapping[str, Any], parse: _Parse) -> tuple[str, dict[str, Any]]:
    """The server name, and the settings of its store; on a terminal such as `parse` takes.

    Args:
        defaults: those of the stack file: neither asked for nor written, unless the command line says otherwise.
    """
    named = arguments.provider or defaults.get("provider") or _ask_provider()
    provider = catalog.load(str(named))
    server_name: str = arguments.store or arguments.server_name or ""
    # Of a store that has nothing else, only the name can be wrong.
    server_name = server_name or _ask("server_name", fault=lambda name: _fault(parse, name, {"method": "filesystem"}))
    store: dict[str, Any] = {"provider": provider.name, "bucket": arguments.bucket or _bucket(server_name, provider)}
    store |= _place(
        arguments, provider, defaults, lambda name, value: _fault(parse, server_name, {**store, name: value}, name)
    )
    if arguments.iam_endpoint:
        store["iam_endpoint"] = arguments.iam_endpoint
    store["method"] = arguments.method or defaults.get("method") or _METHOD
    # Who names the provider on the command line gives all that is not the default there.
    if arguments.method is None and not (arguments.provider or defaults):
        titles = {name: method.title for name, method in METHODS.items()}
        store["method"] = _ask("method", _METHOD, titles)
        if METHODS[store["method"]].datastore_ids and not any(x.startswith("media_repo=") for x in arguments.set):
            store["media_repo"] = {"s3_datastore_id": _ask("s3_datastore_id", secrets.token_hex(20))}
    if arguments.prefix:
        store["prefix"] = arguments.prefix
    if arguments.adopt:
        store["adopt"] = True
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set is {pair!r}; allowed: SETTING=VALUE, the value in YAML")
        store[name] = stackfile.scalar(value)
    store = {name: value for name, value in store.items() if name not in defaults or defaults[name] != value}
    if sys.stdin.isatty():
        while problem := _problem(parse, server_name, store):
            _ask_again(server_name, store, problem)
    return server_name, store


def _problems(parse: _Parse, server_name: str, store: Mapping[str, Any]) -> tuple[Problem, ...]:
    try:
        parse(server_name, store)
    except SettingsError as error:
        return error.problems
    return ()


def _problem(parse: _Parse, server_name: str, store: Mapping[str, Any]) -> Problem | None:
    """The first thing that is wrong with a setting of this store."""
    own = f"stores.{server_name}."
    return next((one for one in _problems(parse, server_name, store) if one.setting.startswith(own)), None)


def _fault(parse: _Parse, server_name: str, store: Mapping[str, Any], name: str = "") -> str:
    """What is wrong with one setting of a store that is not whole yet, or with the server name; "" for nothing."""
    setting = f"stores.{server_name}.{name}" if name else f"stores.{server_name}"
    return next((str(one) for one in _problems(parse, server_name, store) if one.setting == setting), "")


def _ask_again(server_name: str, store: dict[str, Any], problem: Problem) -> None:
    """Ask for the setting that is missing or wrong; the answer may give another one in its place, or none."""
    stacks.say(str(problem))
    setting = problem.setting.removeprefix(f"stores.{server_name}.")
    answer = _line(f"{setting} (or another setting in its place, as SETTING=VALUE; {setting}= takes it out)")
    named, equals, value = answer.partition("=")
    if not equals or not _NAME.fullmatch(named):
        named, value = setting, answer
    if answer:
        _set(store, setting, None)
        _set(store, named, stackfile.scalar(value) if value else None)


def _set(store: dict[str, Any], setting: str, value: object) -> None:
    """Set `name` or `outer.name`; None takes it out."""
    *outer, last = setting.split(".")
    for name in outer:
        store = store.setdefault(name, {})
    if value is None:
        store.pop(last, None)
    else:
        store[last] = value


_NAME = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)*")


def _place(
    arguments: argparse.Namespace,
    provider: catalog.Provider,
    defaults: Mapping[str, Any],
    fault: Callable[[str, str], str],
) -> dict[str, Any]:
    """Region and endpoint, as far as the provider needs to be told.

    Args:
        fault: (setting, value) -> what is wrong with it, or "".
    """
    said = {name: value for name in ("region", "endpoint") if (value := getattr(arguments, name))}
    if provider.value("endpoint_from_account", False):
        # Nothing is asked for; what is said is compared with the account's.
        return said
    region = said.get("region") or defaults.get("region") or str(provider.value("default_region", ""))
    region = region or _ask(
        "region", allowed=dict.fromkeys(provider.regions, ""), fault=lambda answer: fault("region", answer)
    )
    if "endpoint" in said or "endpoint" in defaults or provider.endpoint(str(region)):
        return {"region": region, **said}
    return {"region": region, "endpoint": _ask("endpoint", fault=lambda url: fault("endpoint", url))}


def _bucket(server_name: str, provider: catalog.Provider) -> str:
    """The default; on a terminal, what is answered where it can't be a bucket's name there. Else raises UsageError."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in server_name.lower())
    made = f"{plain}-media"
    fault = _bucket_fault(made, provider)
    if not fault:
        return made
    why = f"{made}, made from the server name, can't be a bucket's name at {provider.name}: {fault}"
    if not sys.stdin.isatty():
        raise UsageError(f"--bucket is missing: {why}. Name one with --bucket.")
    stacks.say(f"{why}.")
    return _ask("bucket", fault=lambda name: _bucket_fault(name, provider))


def _bucket_fault(name: str, provider: catalog.Provider) -> str:
    fault = catalog.bucket_name_fault(name, provider)
    return "" if fault is None else fault.words


def _ask_provider() -> str:
    return _ask("provider", allowed={name: catalog.load(name).title for name in catalog.names()})


def _ask(
    name: str,
    default: str = "",
    allowed: Mapping[str, str] = MappingProxyType({}),
    *,
    fault: Callable[[str], str] = lambda _: "",
) -> str:
    """Ask on a terminal, and again after a typo; elsewhere say which flag is missing.

    Args:
        default: what no answer means; "" asks again.
        allowed: {choice: what it is}; empty for free text.
        fault: what is wrong with an answer in free text, or "".
    """
    flag = "--" + name.replace("_", "-")
    if not sys.stdin.isatty():
        hint = f"; allowed: {', '.join(allowed)}" if allowed else ""
        raise UsageError(f"{flag} is missing, and this is no terminal to ask on{hint}")
    width = max(map(len, allowed), default=0)
    for choice, what in allowed.items():
        stacks.say(f"  {choice:<{width}}  {what}".rstrip())
    while True:
        answer = _line(f"{_ASKED[name]}{f' [{default}]' if default else ''}") or default
        if answer and not (wrong := fault(answer) if not allowed else _no_choice(answer, allowed)):
            return answer
        if answer:
            stacks.say(wrong)


def _line(question: str) -> str:
    # Standard output is the report's.
    with contextlib.redirect_stdout(sys.stderr):
        return input(f"{question}: ").strip()


def _no_choice(answer: str, allowed: Mapping[str, str]) -> str:
    if answer in allowed:
        return ""
    guess = catalog.nearest(answer, tuple(allowed))
    meant = f"Did you mean {guess!r}?" if guess else f"Allowed: {', '.join(allowed)}."
    return f"{answer!r} is none of these. {meant}"


def _write(path: Path, server_name: str, store: dict[str, Any]) -> None:
    """The example of the provider (of its family, for a preset) with this store in it, comments kept."""
    names = (str(store["provider"]), catalog.load(str(store["provider"])).component)
    examples = [stackfile.examples() / stackfile.file_name(name.replace("_", "-")) for name in names]
    example = next(place for place in examples if place.exists())
    key = f"{settings.PROJECT}:stores"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_schema(path.parent)
    with stackfile.editing(path, like=example) as document:
        stores = document["config"][key]
        stores.insert(0, server_name, stores.pop(next(iter(stores))))
        # The example's endpoint, prefix and the like are its own.
        for name in [name for name in stores[server_name] if name not in store and name not in ("access", "keys")]:
            del stores[server_name][name]
        stores[server_name].update(store)
    if _schema_of(path.parent) != _EXAMPLES_SCHEMA:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(_EXAMPLES_SCHEMA, _schema_of(path.parent), 1), encoding="utf-8")


_SCHEMA = "stack-file.schema.json"
_EXAMPLES_SCHEMA = f"../synapse_media/{_SCHEMA}"
"""What the examples' first line names: an editor completes and checks a stack file by it."""


def _schema_of(directory: Path) -> str:
    """The same for a stack file in this directory: that of a checkout, or a copy beside the stack file."""
    return _EXAMPLES_SCHEMA if (directory / _EXAMPLES_SCHEMA).is_file() else _SCHEMA


def _write_schema(directory: Path) -> None:
    """Put that of this release where a stack file names it: an environment's own place is not known to an editor."""
    if _schema_of(directory) == _SCHEMA:
        (directory / _SCHEMA).write_text((new_project.PACKAGE / _SCHEMA).read_text(encoding="utf-8"), encoding="utf-8")
