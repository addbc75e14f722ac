"""Stack files on disk: where they are, what is in them, and the few edits that commands make to a user's own."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import catalog, incoming, settings
from .errors import SynapseMediaError, UsageError

_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
"""Values in one file, an anchor's counted each time it is used; a store has about 30."""
MAX_DEPTH = 50
MAX_HANDED_ON = 130_000
"""Bytes of configuration. Pulumi's language host hands it all to the program in one environment variable, which Linux
bounds at 128 KiB with its name: more ends in "argument list too long" (execve(2), MAX_ARG_STRLEN)."""


class StackFileError(SynapseMediaError):
    """A stack file that is missing or can't be read."""


@dataclass(frozen=True, slots=True)
class StackFile:
    """A stack as its file has it. `allow` keeps the entries as written: they may outlive their store.

    `name` is what pulumi calls it: with its organization and project, where it was given so.
    `secrets_provider` is pulumi's own `secretsprovider`: passphrase, or the URL of a key in a KMS; "" where the
    file names none. `variables` are the environment variables that the program needs for resources of its own.
    """

    name: str
    path: Path
    stores: Mapping[str, settings.StoreSettings]
    allow: tuple[str, ...]
    secrets_provider: str = ""
    variables: tuple[str, ...] = ()

    @property
    def admin_variables(self) -> tuple[str, ...]:
        """Environment variables with the admin credentials of every provider in the stack, each once."""
        return tuple(dict.fromkeys(name for provider in self._providers for name in provider.admin_variables))

    @property
    def required_variables(self) -> tuple[str, ...]:
        """Those of `admin_variables` that nothing can be made without."""
        optional = {name for provider in self._providers for name in provider.optional_variables}
        return tuple(name for name in self.admin_variables if name not in optional)

    @property
    def _providers(self) -> list[catalog.Provider]:
        return [catalog.load(store.provider) for store in self.stores.values() if store.uses_store]


def project_above(start: Path) -> Path | None:
    """The nearest directory with a Pulumi.yaml, from `start` upwards; None where there is none."""
    here = start.resolve()
    return next((place for place in (here, *here.parents) if (place / "Pulumi.yaml").is_file()), None)


def find_project(start: Path | None = None) -> Path:
    """The same from the current directory, if not from `start`. Raises UsageError where there is none."""
    here = (start or Path.cwd()).resolve()
    found = project_above(here)
    if found is not None:
        try:
            str(found).encode()
        except UnicodeEncodeError:
            raise UsageError(f"the path {str(found)!r} is not UTF-8, which Pulumi can't be told: rename it") from None
        return found
    raise UsageError(
        f"no Pulumi.yaml in {here} or above it: go to your project's directory, or name it with -C DIR. "
        "`synapse-media init` makes a project."
    )


def short_name(stack: str) -> str:
    """The name of a stack without its organization and project, as `pulumi.get_stack()` has it."""
    return stack.rpartition("/")[2]


def without_placeholder(project: Path, stack: str) -> str:
    """The name by which a stack is known here: `organization/PROJECT/NAME` of a backend without organizations is NAME.

    Raises UsageError where it is of another project.
    """
    organization, _, rest = stack.partition("/")
    if organization != "organization" or not rest:
        return stack
    named, _, name = rest.rpartition("/")
    own = str(project_settings(project).get("name"))
    if named not in ("", own):
        raise UsageError(f"--stack is {stack!r}, of the project {named!r}; the project here is {own!r}")
    return name


def path_of(project: Path, stack: str) -> Path:
    """Where a stack's file is: in Pulumi.yaml's `stackConfigDir`, else beside Pulumi.yaml, as pulumi has it.

    Raises:
        UsageError: it can't be a stack's name.
        StackFileError: Pulumi.yaml can't be read.
    """
    name = file_name(stack)
    return project / config_dir(project) / name


def file_name(stack: str) -> str:
    """The name of a stack's file. Raises UsageError where it can't be a stack's name.

    Args:
        stack: NAME, ORGANIZATION/NAME or ORGANIZATION/PROJECT/NAME.
    """
    parts = stack.split("/")
    if len(parts) > 3 or not all(_STACK.fullmatch(part) for part in parts):
        raise UsageError(
            f"the stack's name is {stack!r}; allowed: NAME, ORGANIZATION/NAME or ORGANIZATION/PROJECT/NAME, each of "
            "letters, digits, '-', '_' and '.', at most 100"
        )
    return f"Pulumi.{parts[-1]}.yaml"


def config_dir(project: Path) -> Path:
    """The directory of a project's stack files, relative to the project unless Pulumi.yaml has it absolute."""
    named = project_settings(project).get("stackConfigDir") or "."
    if not isinstance(named, str):
        raise StackFileError(f"{project / 'Pulumi.yaml'}: stackConfigDir is {named!r}; allowed: a directory's name")
    return Path(named)


def project_settings(project: Path) -> Mapping[str, Any]:
    """What Pulumi.yaml says. Raises StackFileError."""
    return read_yaml(project / "Pulumi.yaml")


def files_in(directory: Path) -> dict[str, Path]:
    """{stack: its file} of the stack files in a directory, examples included, by name."""
    found = {path.name[len("Pulumi.") : -len(".yaml")]: path for path in directory.glob("Pulumi.*.yaml")}
    return dict(sorted(found.items()))


def is_example(stack: str) -> bool:
    """Whether a stack's file is a tracked example, which no command writes to: those are named as providers."""
    return stack.replace("-", "_") in catalog.names()


def examples() -> Path:
    """The directory of the example stack files, one a provider: of the installed package, or of the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "stacks"
    return installed if installed.is_dir() else package.parent / "stacks"


def read(project: Path, stack: str, copy: Path | None = None, *, stores_required: bool = True) -> StackFile:
    """Read and check a stack file. Raises StackFileError, or SettingsError with every problem in it.

    Args:
        copy: a copy of it, to be read in its place.
        stores_required: False where a file without `synapse-media:stores` will do, as that of a program which declares
            its stores itself.
    """
    path = path_of(project, stack)
    raw = read_yaml(copy or path)
    # Pulumi writes a file without it for a program that has no settings.
    config = raw.get("config", {})
    if not isinstance(config, Mapping):
        raise StackFileError(f"{path}: `config:` in it is no object; `synapse-media init` writes one to start from")
    _refuse_too_large(path, config)
    _refuse_misspelt(path, config)
    wanted, allow, defaults = values(raw)
    stores = {}
    if stores_required or wanted is not None:
        stores = settings.parse(wanted, allow, defaults)
    else:
        settings.check_allow(allow)
    entries = tuple(map(str, allow)) if isinstance(allow, list) else ()
    variables = settings.parse_variables(config.get(f"{settings.PROJECT}:variables"))
    return StackFile(stack, path, stores, entries, str(raw.get("secretsprovider") or ""), variables)


_OWN: Final = ("stores", "defaults", "allow", "variables")
_LIKE: Final = 0.8
"""How much a key must be like one of ours to be taken for a slip: another one may be the program's own."""


def _refuse_misspelt(path: Path, config: Mapping[str, Any]) -> None:
    """Raises StackFileError where a key is nearly one of ours: nobody would read it."""
    for key in map(str, config):
        namespace, _, name = key.partition(":")
        if namespace == settings.PROJECT:
            guess = [] if name in _OWN else difflib.get_close_matches(name, _OWN, 1, _LIKE)
        else:
            is_ours = namespace.lower().replace("_", "-") == settings.PROJECT
            guess = [name] if name in _OWN and is_ours else []
        for right in guess:
            raise StackFileError(
                f"{path}: config has {key!r}, which nothing reads; allowed: "
                f"{', '.join(f'{settings.PROJECT}:{one}' for one in _OWN)}. Did you mean "
                f"{settings.PROJECT}:{right}?"
            )


def _refuse_too_large(path: Path, config: Mapping[str, Any]) -> None:
    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, default=str, separators=(",", ":"))

    # As the language host has it: a JSON object of texts, in which a value that is no text is JSON itself.
    size = len(text({str(name): text(value) for name, value in config.items()}))
    if size > MAX_HANDED_ON:
        raise StackFileError(
            f"{path}: its configuration is {size:,} bytes as Pulumi hands it to the program; allowed: "
            f"{MAX_HANDED_ON:,}. Give what the stores share once, under {settings.PROJECT}:defaults, or divide them "
            "among several stacks (docs/many.md)."
        )


def values(raw: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """A stack file's stores, `allow` and defaults, as it has them; None for what it has not."""
    config = raw.get("config", {})
    stores, allow, defaults = (
        settings.from_text(config.get(f"{settings.PROJECT}:{part}")) for part in ("stores", "allow", "defaults")
    )
    return stores, allow, defaults


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A YAML file that holds an object. Raises StackFileError naming the file and the line."""
    import yaml

    try:
        raw = _load(incoming.text(path, MAX_BYTES))
    except FileNotFoundError:
        stacks = ", ".join(files_in(path.parent)) or "none"
        raise StackFileError(f"{path} does not exist; stacks here: {stacks}. `synapse-media init` makes one.") from None
    except OSError as error:
        raise StackFileError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        first = " ".join(str(error).split())[:300]
        raise StackFileError(f"{path} can't be read as YAML: {first}") from None
    except RecursionError:
        raise StackFileError(f"{path} can't be read as YAML: it is nested too deeply") from None
    if not isinstance(raw, Mapping):
        raise StackFileError(f"{path} is not a YAML mapping")
    return raw


def _load(text: str) -> Any:
    """One YAML document, in which no key is there twice: the loader alone would take the last and drop a store.

    Raises YAMLError, ValueError, OverflowError, RecursionError.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    document = loader.get_single_node()
    if document is None:
        return None
    left = MAX_VALUES
    waiting = [(document, 0)]
    while waiting:
        node, depth = waiting.pop()
        left -= 1
        # An anchor that holds itself, or others again and again, comes to the end of one of the two.
        if left < 0 or depth > MAX_DEPTH:
            much = f"more than {MAX_VALUES:,} values" if left < 0 else f"more than {MAX_DEPTH} levels"
            words = f"{much} (anchors counted each time they are used)"
            raise yaml.MarkedYAMLError(problem=words, problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(node)
            waiting += [(item, depth + 1) for pair in node.value for item in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, depth + 1) for item in node.value]
        else:
            _refuse_other_kind(loader, node)
    return loader.construct_document(document)


def _refuse_twice(node: Any) -> None:
    import yaml

    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key.start_mark)
        if (key.tag, key.value) in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice, keep one", problem_mark=key.start_mark)
        seen.add((key.tag, key.value))


def _refuse_other_kind(loader: Any, node: Any) -> None:
    """Refuse a scalar that is none of its kind: 2026-02-30, 0x_, !!int x."""
    import yaml

    if node.tag == "tag:yaml.org,2002:merge":
        return
    try:
        # YAML reads a hexadecimal number of any length; Python refuses to write one of more than 4,300 digits.
        str(loader.construct_object(node))
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError):
        raise yaml.MarkedYAMLError(
            problem="this value is none of its kind (a number, a date …); put text in quotes",
            problem_mark=node.start_mark,
        ) from None


def scalar(text: str) -> Any:
    """A value as YAML reads it: true, 7, text, {a: b}. Raises UsageError."""
    import yaml

    try:
        return _load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UsageError(f"{text[:200]!r} is no YAML value: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise UsageError(f"{text[:200]!r} is no YAML value: it is nested too deeply") from None


@contextlib.contextmanager
def editing(path: Path, like: Path | None = None) -> Iterator[Any]:
    """Change a stack file in place: comments, order and what isn't touched stay; written as a whole or not at all.

    Yields the document; for a new file that of `like`, or an empty one. An unchanged document is not written. Settings
    in JSON text, as `pulumi config set` writes them, are yielded as the object that they are, and written as one.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    before = incoming.text(path, MAX_BYTES) if path.exists() else ""
    try:
        start = before or (like.read_text(encoding="utf-8") if like else "")
        document = yaml.load(start) if start.strip() else {}
    except YAMLError as error:
        raise StackFileError(f"{path} can't be read as YAML: {' '.join(str(error).split())[:300]}") from None
    config = document.get("config") if isinstance(document, dict) else None
    for name in (f"{settings.PROJECT}:{part}" for part in ("stores", "defaults", "allow")):
        if isinstance(config, dict) and isinstance(config.get(name), str):
            config[name] = settings.from_text(config[name])
            unchanged = io.StringIO()
            yaml.dump(document, unchanged)
            before = unchanged.getvalue()
    yield document
    text = io.StringIO()
    yaml.dump(document, text)
    if text.getvalue() != before:
        _write(path, text.getvalue())


def add_store(path: Path, server_name: str, store: Mapping[str, Any]) -> None:
    """Add a store after the last one of a stack file; every other line stays as it is. Raises StackFileError.

    `editing` would put it below the comment that stands before what follows the stores.
    """
    import yaml

    key = f"{settings.PROJECT}:stores"
    text = incoming.text(path, MAX_BYTES)
    place = _after_the_stores(yaml.compose(text, yaml.SafeLoader), key)
    if place is not None:
        line, indent, step = place
        block = yaml.safe_dump({server_name: dict(store)}, sort_keys=False, allow_unicode=True, indent=step, width=4096)
        lines = text.splitlines(keepends=True)
        lines[:line] = [item if item.endswith("\n") else f"{item}\n" for item in lines[:line]]
        lines[line:line] = [" " * indent + item for item in block.splitlines(keepends=True)]
        wanted = _load(text)
        wanted["config"][key][server_name] = dict(store)
        if _load("".join(lines)) == wanted:
            _write(path, "".join(lines))
            return
    # In JSON text, within braces, or with an anchor at the end.
    with editing(path) as document:
        document["config"][key][server_name] = dict(store)


def _after_the_stores(document: Any, key: str) -> tuple[int, int, int] | None:
    """Where another store goes: its line (from 0), its indentation, and that of what is below it; None: no such place.

    Args:
        document: the file's root node.
    """
    stores = _below(_below(document, "config"), key)
    if not _is_block(stores) or not all(_is_block(value) for _, value in stores.value):
        return None
    first, below = stores.value[0]
    last = stores.value[-1][1]
    while last.value and _is_block(last):
        last = last.value[-1][1]
    indent: int = first.start_mark.column
    return last.end_mark.line + 1, indent, max(2, below.start_mark.column - indent)


def _is_block(node: Any) -> bool:
    """Whether a node is a mapping with entries, on lines of their own."""
    import yaml

    return isinstance(node, yaml.MappingNode) and not node.flow_style and bool(node.value)


def _below(node: Any, key: str) -> Any:
    import yaml

    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _write(path: Path, text: str) -> None:
    """A stack file as a whole, or not at all; its mode stays. Raises StackFileError."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StackFileError(f"{path} can't be written: {error.strerror}") from None
