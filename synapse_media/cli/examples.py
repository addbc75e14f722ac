"""What stands below each command's `--help`: examples, and the page of the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import synapse_media
from synapse_media.homeserver import synapse


@dataclass(frozen=True, slots=True)
class Examples:
    """Of one command. `lines`: each a command line and what it does; `page`: below docs/, or README.md."""

    page: str
    lines: tuple[tuple[str, str], ...]


OF: Mapping[str, Examples] = {
    "init": Examples(
        "library.md",
        (
            ("init prod --provider wasabi --server-name example.com --region eu-central-1",
             "a stack file, and a project"),
            ("init prod --store two.example.com", "another store in the same stack file"),
            ("init prod --provider s3_compatible --server-name example.com --endpoint https://s3.example.net "
             "--set existing_key=true", "a store without an IAM API"),
        ),
    ),
    "list": Examples("state.md", (("list", "stacks, homeservers, when each was last changed"),)),
    "show": Examples(
        "state.md",
        (
            ("show", "everything that exists"),
            ("show --stack prod --drift", "and what was changed by hand"),
            ("show --stack prod --json", "of one stack, for programs"),
        ),
    ),
    "diff": Examples(
        "changes.md",
        (
            ("diff --stack prod", "what `up` would change"),
            ("diff --stack prod --refresh", "what was changed by hand"),
            ("diff --stack prod --from-nothing", "without state and credentials"),
            ("diff --stack 'shard-*'", "of several stacks, side by side"),
        ),
    ),
    "up": Examples(
        "changes.md",
        (
            ("up --stack prod", "previews, asks, makes it"),
            ("up --stack prod --refresh", "mends what was changed by hand"),
            ("up --stack 'shard-*' --parallel 2", "several stacks; asks once for all"),
        ),
    ),
    "check": Examples(
        "check.md",
        ((f"check {synapse.CONFIGURATION}/homeserver.yaml", "what in it breaks or loses media"),
         ("check --strict vars.yml", "warnings count, too")),
    ),
    "render": Examples(
        "methods/synapse-s3-storage-provider.md",
        (
            ("render --stack prod --out rendered", "variables for the Ansible playbook"),
            ("render --stack prod --form plain --out rendered", "what Synapse itself reads"),
        ),
    ),
    "prove": Examples(
        "library.md",
        (("prove --stack prod", "the keys of a stack"), ("prove --store store.json", "on the server, without Pulumi")),
    ),
    "rotate": Examples(
        "changes.md",
        (
            ("rotate --stack prod", "a second key; then render, restart Synapse, and"),
            ("rotate --stack prod --finish --confirm", "retire the former one"),
            ("rotate --stack 'shard-*' --all", "every key of several stacks"),
        ),
    ),
    "switch": Examples(
        "switching.md",
        (("switch --stack prod --to filesystem", "back to the local disk"),
         ("switch --stack prod --to goofys", "to another method")),
    ),
    "media": Examples(
        "media.md",
        (
            (f"media copy {synapse.MEDIA_STORE} --store store.json", "what is missing or differs in the bucket"),
            (
                f"media verify {synapse.MEDIA_STORE} --store store.json --config {synapse.CONFIGURATION}",
                "is all of it there, by content",
            ),
            (
                f"media free {synapse.MEDIA_STORE} --store store.json --older-than 30d",
                "what could be deleted here; --delete deletes it",
            ),
            (f"media restore {synapse.MEDIA_STORE} --store store.json", "what is missing on the disk"),
        ),
    ),
    "doctor": Examples("changes.md", (("doctor --stack prod", "permissions, versions, credentials, the state"),)),
    "destroy": Examples("changes.md", (("destroy --stack prod", "as far as the stack file's `allow` says"),)),
    "abort-uploads": Examples(
        "providers/storj.md",
        (("abort-uploads --store store.json --older-than 7d --dry-run", "which would go"),
         ("abort-uploads --store store.json --older-than 7d", "remove them")),
    ),
    "cost": Examples(
        "choosing.md",
        (("cost --stored 400GB --growth 10GB/month", "every provider, side by side"),
         (f"cost --media {synapse.MEDIA_STORE}", "from the media that is there")),
    ),
    "embedded": Examples(
        "engine.md",
        (("embedded up", "a server, a stack on it, a proved key"),
         ("embedded env", 'for `eval "$(synapse-media embedded env)"`, then `pulumi refresh -s embedded`'),
         ("embedded stop", "keeps everything"),
         ("embedded clean", "deletes the stack, the server and its data")),
    ),
    "env": Examples("changes.md", (("env", 'for `eval "$(synapse-media env)"`, then plain pulumi'),)),
    "completion": Examples(
        "commands.md",
        (("completion bash", "for ~/.local/share/bash-completion/completions/synapse-media"),
         ("completion fish", "for ~/.config/fish/completions/synapse-media.fish")),
    ),
    "help": Examples("commands.md", (("help rotate", "the same as `synapse-media rotate --help`"),)),
}  # fmt: skip


def epilog(command: str) -> str:
    """The examples of a command, and where more is said."""
    found = OF[command]
    lines = [f"  synapse-media {line}\n      {what}" for line, what in found.lines]
    return "\n".join(["examples:", *lines, "", f"more: {_place(found.page)}"])


def _place(page: str) -> str:
    """A page as it is found: in a checkout; elsewhere by its name in the project's repository."""
    here = Path(synapse_media.__file__).resolve().parents[1] / "docs" / page
    return str(here) if here.is_file() else f"docs/{page}"
