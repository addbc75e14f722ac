"""The migrations: from the local filesystem to a store, back, and between two stores.

All but the direct ones go through the local filesystem, where it is safe to stop.
"""

from __future__ import annotations

from dataclasses import dataclass

from synapse_media.allow import Word, entry
from synapse_media.homeserver import media_repo, playbook, synapse
from synapse_media.methods import FILESYSTEM, GOOFYS, MEDIA_REPO, MODULE
from synapse_media.renderer.nixos import SERVICE

from . import media, rclone
from .rclone import KEYS, SAME, Remote
from .site import HERE, SERVER, Site
from .steps import Effect, Step, require_safe

_TIMER, _JOB = f"{playbook.MIGRATION_UNIT}.timer", f"{playbook.MIGRATION_UNIT}.service"
_TEMPORARY_VARIABLES = "zz-switch.yml"
"""The file of temporary variables during the import. It sorts last in its directory, so its values take precedence."""
_NO_CHANGE = "Nothing has changed yet: you can stop here."
_MEDIA_WORKS = (
    "Open an old picture in a client, one that was not viewed today, and send a new one; the log has no media errors."
)


_ON_A_DISK = "`rm` runs only where the directory is on no file system of type fuse, as a mounted bucket is."
_RESTORED = f"restore says `0 files` to restore and none that differs: all of it is there. {media.PASSED}"


@dataclass(frozen=True, slots=True)
class Migration:
    """The steps of a migration. `last` comes at the end of the whole runbook. For the flags, see `require_safe`."""

    steps: tuple[Step, ...]
    last: tuple[Step, ...]
    copies_media: bool = True
    one_at_a_time: bool = False
    written_both_ways: bool = False
    deletes_by_name: bool = False

    def checked(self) -> Migration:
        """This migration. Raises DangerousOrderError if its order can lose media."""
        require_safe(
            (*self.steps, *self.last),
            copies_media=self.copies_media,
            one_at_a_time=self.one_at_a_time,
            written_both_ways=self.written_both_ways,
            deletes_by_name=self.deletes_by_name,
        )
        return self


def from_filesystem(site: Site, method: str, new: Remote) -> Migration:
    """From the local filesystem to a method."""
    return {MODULE: _to_module, GOOFYS: _to_goofys, MEDIA_REPO: _to_media_repo}[method](site, new).checked()


def to_filesystem(site: Site, method: str, old: Remote) -> Migration:
    """From a method to the local filesystem."""
    return {MODULE: _from_module, GOOFYS: _from_goofys, MEDIA_REPO: _from_media_repo}[method](site, old).checked()


# Common steps


def _create_store(new: Remote, method: str, site: Site, datastore_id: str = "") -> Step:
    """`datastore_id`: of the media that will be copied, for matrix-media-repo; without one it is made up once."""
    if new.store is not None:
        return Step(
            "Prove the new store",
            HERE,
            f"Media goes to {Remote('new', new.store, new.stack).shown}, with {method}.",
            "Every line is as expected; none says failed.",
            _NO_CHANGE,
            commands=(f"synapse-media prove --stack {new.stack}",),
        )
    if new.edited:
        more = (
            ", `media_repo: {s3_datastore_id: ID}`, the ID from `openssl rand -hex 20`," if method == MEDIA_REPO else ""
        )
        return Step(
            "Create the store",
            HERE,
            f"In stacks/Pulumi.{new.stack}.yaml, in the entry of {site.name}: `provider: {new.provider}`, `bucket: "
            f"BUCKET`, `method: {method}`{more} with your own values.",
            "`up` ends with a list of what the key may and may not do.",
            f"`synapse-media destroy --stack {new.stack}`: the bucket is empty, and nothing uses it.",
            commands=(f"synapse-media diff --stack {new.stack}", f"synapse-media up --stack {new.stack}"),
        )
    made_up = "$(openssl rand -hex 20)"
    ids = f'"media_repo={{s3_datastore_id: {datastore_id or made_up}}}"'
    setting = f" \\\n    --set {ids}" if method == MEDIA_REPO else ""
    return Step(
        "Create the new store",
        HERE,
        "In a separate stack, so that the old store and its key are not changed until the end.",
        "`up` ends with a list of what the key may and may not do.",
        f"`synapse-media destroy --stack {new.stack}`: the bucket is empty, and nothing uses it.",
        files=(f"stacks/Pulumi.{new.stack}.yaml, which `init` writes; replace the words in capitals",),
        commands=(
            f"synapse-media init {new.stack} --provider {new.provider} --server-name {site.name} --bucket BUCKET \\\n"
            f"    --method {method}{setting}",
            f"synapse-media up --stack {new.stack}",
        ),
    )


def locate(site: Site, method: str) -> Step:
    """The beginning of a runbook that reads or writes local media, with what the homeserver uses now."""
    mounted = method == GOOFYS
    local = site.aside if mounted and not site.on_server else site.media
    again = "otherwise print the runbook again, with --media-path."
    if not site.on_server:
        parent, _, name = site.media.rpartition("/")
        found = f"The first line ends in /{name}, and the second begins with src={parent}; {again}"
    elif mounted:
        found = f"{synapse.MEDIA_STORE_PATH} is the mount, and {local} is neither in it nor above it; {again}"
    else:
        found = f"{synapse.MEDIA_STORE_PATH} is {local}; {again}"
    if site.on_server and not site.nixos:
        found += " What conf.d says takes precedence."
    older = (
        f" Without a `{synapse.MEDIA_STORE_PATH}` of your own, NixOS has it in {synapse.MEDIA_STORE_OF_NIXOS}, and in "
        f"{synapse.MEDIA_STORE} where `system.stateVersion` is below 22.05."
        if site.nixos
        else ""
    )
    return Step(
        "Make sure which directory is the local media store",
        SERVER,
        (
            f"Media is copied to {local}, which must not be the mount of the bucket."
            if mounted
            else f"The commands below are for media in {local}, which must be Synapse's own directory, not a bucket."
        )
        + older,
        f"{found} findmnt names no file system of type fuse"
        + (", and nothing if the directory does not exist yet." if mounted else "."),
        _NO_CHANGE,
        commands=(*site.configured_media, f"findmnt -T {local}"),
    )


def _remove(*directories: str) -> tuple[str, ...]:
    """Remove local media, but never a mounted bucket, even where somebody has mounted one there meanwhile."""
    return tuple(
        f"stat -f -c %T {directory} | grep -qv fuse && rm -r --one-file-system {directory}" for directory in directories
    )


def _opposite(site: Site, stack: str, before: str, after: str) -> str:
    """What undoes a switch after which media has come in."""
    return (
        f"The runbook from {before} to {after} (`synapse-media switch --stack {stack} --to {after} "
        f"--form {site.form}`, with the same --media-path)"
    )


def _render(site: Site, new: Remote, method: str, *, key: bool = True) -> Step:
    """`key`: the copy needs store.json on the server."""
    out = f"rendered/{site.host}"
    return Step(
        "Render the server's configuration",
        HERE,
        f"The files of {method} in the {site.form} form"
        + (", and store.json, from which the copy reads the key." if key else "."),
        f"nix-instantiate --parse {out}/{site.configuration}   prints the module."
        if site.nixos
        else f"`synapse-media check {out}/{site.configuration}` reports no findings.",
        "Remove the directory.",
        files=(
            f"{out}/…: the files that `render` lists, with how to apply them; all have mode 0600 and some contain "
            "the key",
        ),
        commands=(
            f"synapse-media render --stack {new.stack} --server {site.name} --form {site.form} --out rendered",
            *(_copy_key(site, new, out) if key else ()),
        ),
    )


def _copy_key(site: Site, remote: Remote, directory: str) -> tuple[str, ...]:
    return (
        f"ssh root@{site.machine} mkdir -p -m 0700 {KEYS} {KEYS}/{remote.name}",
        f"scp -p {directory}/store.json root@{site.machine}:{KEYS}/{remote.name}/",
    )


def tidy_up() -> Step:
    """The end of a runbook that copied keys to the server."""
    return Step(
        "Remove the keys from the server",
        SERVER,
        "Synapse has its own copy of the key it uses.",
        f"ls {KEYS}/*/store.json   finds nothing.",
        "Copy them again.",
        commands=(f"rm -f {KEYS}/old/store.json {KEYS}/new/store.json",),
    )


def _copy_old_key(site: Site, old: Remote) -> Step:
    return Step(
        "Copy the old store's key to the server",
        HERE,
        "The copy uses it. It is the key that the server uses now.",
        f"The file exists with mode 0600: ls -l {old.json}",
        "Remove the file.",
        files=("old/…/store.json, which `render` writes",),
        commands=(
            f"synapse-media render --stack {old.stack} --server {site.name} --form {site.form} --out old",
            *_copy_key(site, old, f"old/{site.host}"),
        ),
    )


def _configure_rclone(site: Site, *remotes: Remote) -> Step:
    commands = [media.NIX_SHELL] if site.nixos else []
    commands += [line for remote in remotes for line in remote.configuration]
    return Step(
        "Configure rclone for the stores",
        SERVER,
        "In a root shell (bash) that stays open for the following steps, with rclone 1.60 or newer, which copies one "
        "store to the other. The keys are only in the environment of that shell.",
        "The sizes are printed without an error.",
        "Close the shell.",
        files=tuple(remote.json for remote in remotes),
        commands=(*dict.fromkeys(commands), *(f"rclone size {remote.path}" for remote in remotes)),
    )


def _prepare(site: Site, *stores: Remote) -> Step:
    return Step(
        "Install synapse-media on the server",
        SERVER,
        "It copies and compares. It needs neither Pulumi nor a passphrase there, and reads the key from store.json.",
        "prove ends with exit code 0: the key works from here.",
        f"rm -r {KEYS}",
        files=tuple(store.json for store in stores),
        commands=(*media.install(site), *(f"{media.COMMAND} prove --store {store.json}" for store in stores)),
    )


def _stop(site: Site, why: str, also: str = "") -> Step:
    return Step(
        "Stop Synapse",
        site.operator,
        f"{why} The homeserver is down from here until it is started again.",
        f"systemctl is-active {synapse.UNIT}   says inactive on the server.",
        f"Start it again: {site.restart}",
        commands=(*site.stop, *((also,) if also and site.on_server else ())),
        effects=(Effect.STOPS,),
    )


def _copy_new(
    commands: tuple[str, ...],
    undo: str,
    why: str = "Media that arrived since the first copy.",
    check: str = media.ARRIVED,
) -> Step:
    return Step("Copy new media", SERVER, why, check, undo, commands=commands, effects=(Effect.COPIED,))


def _compare(what: str, commands: tuple[str, ...], undo: str, check: str = media.PASSED) -> Step:
    return Step(
        "Compare the content",
        SERVER,
        f"{what}, with the same content.",
        check,
        undo,
        commands=commands,
        effects=(Effect.VERIFIED,),
    )


def _disable_clean_up(site: Site) -> tuple[Step, ...]:
    """Disable clean-up jobs, which delete local files by name, including those just copied back."""
    if site.on_server:
        return (
            Step(
                "Make sure that no job deletes local media",
                SERVER,
                "Your own jobs (cron, timer) with s3_media_upload --delete would delete the copied files by name.",
                "grep names no file of an enabled job, and no script that a timer or a crontab runs calls "
                "s3_media_upload. Disable what does, and run the commands again.",
                "Enable the job again, if you do not continue.",
                commands=site.jobs,
                effects=(Effect.CLEAN_UP_OFF,),
            ),
        )
    return (
        Step(
            "Disable the nightly clean-up",
            SERVER,
            "At 05:00 the playbook's job deletes local files if the bucket has an object of the same name, "
            "including those just copied back. Removing its unit file does not stop a running timer.",
            f"systemctl is-active {_TIMER}   says inactive.",
            f"systemctl enable --now {_TIMER}, if you do not continue.",
            commands=(f"systemctl disable --now {_TIMER}", f"systemctl stop {_JOB}"),
            effects=(Effect.CLEAN_UP_OFF,),
        ),
    )


def _install(site: Site, method: str) -> tuple[str, ...]:
    if site.nixos:
        own = f"# remove a `{synapse.MEDIA_STORE_PATH}` of your own, if there is one: two don't build"
        return (
            f"# the key as rendered/{site.host}/INSTALL.md says; {site.in_use}, and in `imports`",
            *((own,) if method == GOOFYS else ()),
            *site.apply,
        )
    if site.on_server:
        return (f"# as rendered/{site.host}/INSTALL.md says", *site.apply)
    return (f"cp -r rendered/{site.host}/inventory .", *site.apply)


def _delete_old_bucket(site: Site, old: Remote) -> Step:
    return Step(
        "Delete the old bucket, after some weeks",
        HERE,
        "Not before the comparison above succeeded and the new place was in use for a while. In "
        f"stacks/Pulumi.{old.stack}.yaml: `synapse-media:allow: [{entry(site.name, Word.DELETE_BUCKET)}, "
        f"{entry(site.name, Word.DELETE_MEDIA)}]`. If the stack has other homeservers, remove this one's entry, name "
        f"{entry(site.name, Word.RETIRE_KEY)} and {entry(site.name, Word.NARROW_POLICY)} in `allow` too, and use "
        "`up` instead of `destroy`.",
        "Before it deletes, it lists the bucket of this homeserver and nothing else.",
        "None: deletion is final. Until then the bucket is the backup.",
        commands=(f"synapse-media destroy --stack {old.stack}",),
        effects=(Effect.EMPTIED,),
    )


# The storage provider module


def _to_module(site: Site, new: Remote) -> Migration:
    steps = (
        _create_store(new, MODULE, site),
        _render(site, new, MODULE),
        Step(
            "Enable the module",
            site.operator,
            "From now on each new file is written to the disk and to the bucket. Older files are only on the disk "
            "and are served from there.",
            "Send a picture: Synapse's log has no error of the module. "
            + (
                "The last command prints a file of Synapse's configuration."
                if site.nixos
                else "`synapse-media check` on the server's files reports no findings."
            ),
            (
                f"Take {site.in_use} out of `imports`, remove it and run `nixos-rebuild switch`"
                if site.nixos
                else f"Remove {site.in_use} and run the last command again"
            )
            + ": every file is still on the local disk.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=(
                *_install(site, MODULE),
                *((site.running(f"grep -l {synapse.MODULE_PACKAGE}"),) if site.nixos else ()),
            ),
            effects=(Effect.ENTERED,),
        ),
        _prepare(site, new),
        Step(
            "Copy the existing media",
            SERVER,
            "While Synapse runs; the copy may be interrupted and restarted. url_cache is left out: it is never read "
            "from a bucket.",
            media.ARRIVED,
            "Nothing to undo: objects are only added.",
            commands=(media.copy(site.media, new),),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Only the content tells an incomplete object with the right name.",
            f"{media.PASSED} Then copy and compare again.",
            "Nothing to undo.",
            commands=(media.verify(site.media, new),),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Test reading from the bucket",
            SERVER,
            "Synapse reads from the bucket only what is not on the disk, so move one file away temporarily.",
            "A picture whose file was moved away is still shown.",
            "Move the file back.",
        ),
    )
    last = (
        Step(
            "Free the local disk, if you need to",
            SERVER,
            "Only what nobody asked for in a month, and what is compared once more: the first command counts, the "
            "second deletes. Keeping everything is the best backup. Never use a job that deletes by name.",
            "It ends with exit code 0; an old picture is still shown.",
            "The same command with `restore` in place of `free`, and without --older-than, restores everything.",
            commands=media.free(site, new),
            effects=(Effect.LEFT, Effect.EMPTIED),
        ),
    )
    return Migration(steps, last, written_both_ways=True)


def _out_of_imports(site: Site) -> str:
    """NixOS: remove the file that is in use. It takes effect with the next rebuild."""
    return f"rm {site.in_use}    # and take it out of `imports`; keep a copy"


def _remove_module(site: Site) -> tuple[str, ...]:
    if site.nixos:
        return (_out_of_imports(site),)
    if site.on_server:
        return (f"rm {site.in_use}",)
    return (f"rm {site.configuration}    # and every line of {playbook.MODULE} elsewhere",)


def _search_module(site: Site, *, applied: bool) -> tuple[str, ...]:
    """Commands that find what still configures the module; `synapse-media check` can't tell.

    Args:
        applied: the configuration is in use; otherwise it is only written.
    """
    if site.nixos:
        search = f"grep -Hc {synapse.MODULE_PACKAGE}"
        return (site.running(search),) if applied else site.built(search)
    written = f"grep -Rn {synapse.MODULE_PACKAGE} {site.settings}"
    if site.on_server or not applied:
        return (written,)
    return (written, f"ssh root@{site.machine} grep -n {synapse.MODULE_PACKAGE} {playbook.HOMESERVER_CONFIGURATION}")


def _module_is_gone(site: Site) -> str:
    """The check by the commands of `_search_module`."""
    if site.nixos:
        return "The last command prints each file of Synapse's configuration, with :0"
    return "grep finds nothing"


def _from_module(site: Site, old: Remote) -> Migration:
    steps = (
        *_disable_clean_up(site),
        _copy_old_key(site, old),
        _prepare(site, old),
        Step(
            "Copy back what is only in the bucket",
            SERVER,
            "While Synapse runs: new media is on the disk anyway. Existing files are kept. It refuses where the disk "
            "has too little space.",
            media.ARRIVED,
            "Nothing to undo: the bucket is only read.",
            commands=(media.restore(site.media, old),),
            effects=(Effect.COPIED,),
        ),
        _compare(
            "Everything in the bucket must be on the disk",
            (media.restore(site.media, old), media.verify(site.media, old)),
            "Nothing to undo.",
            f"{_RESTORED} Otherwise do not continue, and inspect the files that differ.",
        ),
        Step(
            "Disable the module",
            site.operator,
            "From now on Synapse reads from the disk alone. `render` for the method filesystem also lists what to "
            "remove; it needs no file. Do not change the stack: `method: filesystem` would delete the bucket.",
            f"{_module_is_gone(site)}. {_MEDIA_WORKS}",
            (
                f"Put {site.in_use} back, and into `imports`, and run `nixos-rebuild switch`"
                if site.nixos
                else "Put the file back and restart Synapse with every worker"
                if site.on_server
                else f"Put the file back and run `{site.apply[-1]}`"
            )
            + ": the bucket lacks only newer media, which is on the disk.",
            commands=(*_remove_module(site), *site.apply, *_search_module(site, applied=True)),
            effects=(Effect.LEFT, Effect.ENTERED),
        ),
    )
    return Migration(steps, (_delete_old_bucket(site, old),), written_both_ways=True, deletes_by_name=True)


# Goofys


def _to_goofys(site: Site, new: Remote) -> Migration:
    install = _install(site, GOOFYS)
    switch = install if site.on_server else (f"ssh root@{site.machine} mv {site.media} {site.aside}", *install)
    local = site.media if site.on_server else site.aside
    beside = "`besideMediaStore`" if site.nixos else "The migration variant of the rendered files"
    steps = (
        _create_store(new, GOOFYS, site),
        _render(site, new, GOOFYS),
        _prepare(site, new),
        Step(
            "Copy the existing media",
            SERVER,
            "While Synapse runs, to keep the downtime short; directly to the bucket, which is faster than through a "
            "mount.",
            media.ARRIVED,
            "Nothing to undo: the local media is only read.",
            commands=(media.copy(site.media, new),),
        ),
        _stop(site, "With Goofys, media is in the bucket alone, so nothing may be written during the last copy."),
        _copy_new((media.copy(site.media, new, "--min-age 0"),), "Start Synapse again."),
        _compare(
            "Everything on the disk must be in the bucket",
            (media.verify(site.media, new),),
            "Start Synapse again.",
        ),
        Step(
            "Mount the bucket and start",
            site.operator,
            f"The local media is kept in another directory. {beside} and the rsync of INSTALL.md are not needed: the "
            "media is in the bucket already.",
            f"findmnt -t fuse.goofys,fuse   shows the mount. {_MEDIA_WORKS}",
            f"{_opposite(site, new.stack, GOOFYS, FILESYSTEM)}: it copies newer media to {local}, where the older is "
            "still, and unmounts.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=switch,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    last = (
        Step(
            "Remove the local media, after some weeks",
            SERVER,
            "It is the backup of the older media. Goofys has had no release since 2020: consider migrating to the "
            f"module. {_ON_A_DISK}",
            "An old picture is still shown.",
            "None: deletion is final.",
            commands=_remove(local),
            effects=(Effect.EMPTIED,),
        ),
    )
    return Migration(steps, last)


def _mount_again(site: Site) -> str:
    """How the mount that was removed, and is in use by Synapse, comes back; it starts Synapse."""
    if site.nixos:
        return (
            f"put {site.in_use} back, and into `imports`, remove a `{synapse.MEDIA_STORE_PATH}` of your own, then "
            f"`nixos-rebuild switch` and `systemctl start {synapse.UNIT}`."
        )
    if site.on_server:
        return (
            f"put both files back, as `render` writes them, then `systemctl daemon-reload`, "
            f"`systemctl enable --now {synapse.GOOFYS_UNIT}` and "
            f"`systemctl start {synapse.UNIT}`."
        )
    return f"put the file back, move {site.media} to {site.aside} if it has media, and run `{site.apply[-1]}`."


def _from_goofys(site: Site, old: Remote) -> Migration:
    # In the plain form the mount is in another directory than the local media store; in the playbook it covers it.
    target = site.media if site.on_server else site.aside
    unmount = (
        (
            _out_of_imports(site),
            f"# set the `{synapse.MEDIA_STORE_PATH}` of your own again, if you had one",
            *site.built(f"grep -H {synapse.MEDIA_STORE_PATH}"),
            f"# only if that is {target}; otherwise set `{SERVICE}.settings.{synapse.MEDIA_STORE_PATH}` to it first",
            *site.apply,
        )
        if site.nixos
        else (
            f"rm {site.in_use}",
            f"rm {synapse.UNITS}/{synapse.UNIT_DROP_INS}/{synapse.GOOFYS_NAME}.conf",
            f"systemctl disable --now {synapse.GOOFYS_UNIT}",
            f"{site.configured_media[0]}    # only {target}; otherwise set it in homeserver.yaml",
            "systemctl daemon-reload",
            site.start,
        )
        if site.on_server
        else (
            f"ssh root@{site.machine} systemctl disable --now {playbook.GOOFYS_UNIT}",
            f"ssh root@{site.machine} 'mountpoint -q {site.media} || rmdir {site.media}'",
            f"ssh root@{site.machine} mv -T {target} {site.media}",
            f"rm {site.configuration}    # and every line of {playbook.GOOFYS} elsewhere",
            *site.apply,
        )
    )
    steps = (
        _copy_old_key(site, old),
        _prepare(site, old),
        Step(
            "Copy back the existing media",
            SERVER,
            f"To {target}, which is not the mount, while Synapse runs. The bucket is read directly. Existing files are "
            "kept. It refuses where the disk has too little space.",
            media.ARRIVED,
            _NO_CHANGE,
            commands=(f"mkdir -p {target} && chown {site.user} {target}", media.restore(target, old)),
        ),
        _stop(
            site,
            "Media is in the bucket alone, so nothing may be written during the last copy. Goofys writes a file on "
            "close.",
        ),
        _copy_new(
            (media.restore(target, old),),
            "Start Synapse again: the mount is started with it.",
            "Media that arrived since. What is there is kept: media files never change.",
        ),
        _compare(
            "Everything in the bucket must be on the disk",
            (media.restore(target, old), media.verify(target, old)),
            "Start Synapse again: the mount is started with it.",
            _RESTORED,
        ),
        Step(
            "Unmount the bucket and start",
            site.operator,
            "Synapse goes back to the local directory."
            if site.on_server
            else "The mount point must be empty once the bucket is unmounted. Files there were written below the "
            "mount: inspect them (rmdir fails).",
            f"findmnt -t fuse.goofys,fuse   shows no mount of the bucket. {_MEDIA_WORKS}",
            f"Stop Synapse, copy newer media to the bucket (`media copy`, with store.json copied again), and only "
            f"then mount again: {_mount_again(site)}",
            commands=unmount,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (_delete_old_bucket(site, old),))


# matrix-media-repo


def _compare_hashes(site: Site) -> tuple[str, ...]:
    """Commands that check Synapse's files against the hashes in matrix-media-repo's database."""
    path = "substr(media_id, 1, 2) || '/' || substr(media_id, 3, 2) || '/' || substr(media_id, 5)"
    # The domain is a validated host name, so it is safe in SQL. Media ids that begin with a date belong to url_cache.
    where = f"origin = '{site.domain}' AND NOT (media_id ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}_')"
    psql = (
        f"sudo -u postgres psql {media_repo.DATABASE}"
        if site.on_server
        else f"{playbook.PSQL} --dbname={media_repo.DATABASE}"
    )
    return (
        f"mkdir -p -m 0700 {KEYS}",
        rclone.lines(
            f"{psql} -At -c",
            f"\"SELECT sha256_hash || '  ' || {path}",
            f'FROM media WHERE {where}" > {KEYS}/sums',
        ),
        f"wc -l {KEYS}/sums",
        f"(cd {site.media}/local_content && sha256sum --quiet -c {KEYS}/sums)",
    )


def _tool(site: Site, command: str, *, media: str = "") -> str:
    """The command for a program of matrix-media-repo. `media`: options of the container's mount of the media store."""
    if site.on_server:
        return f"REPO_CONFIG={media_repo.CONFIGURATION} {command}"
    if not media:
        return f"docker exec -it {media_repo.UNIT} {command}"
    base = playbook.MEDIA_REPO_BASE
    return rclone.lines(
        f"docker run --rm -it --network=container:{media_repo.UNIT} --env-file={base}/env",
        f"-v {base}/config:/config:ro -v {base}/data:/data -w /data",
        f"-v {site.media}:/media-store{media} {media_repo.IMAGE}",
        command,
    )


def _database(site: Site) -> str:
    host, user = ("localhost", "synapse") if site.on_server else (playbook.DATABASE_HOST, playbook.USER)
    return f"-dbHost {host} -dbName synapse -dbUsername {user}"


_UNTESTED = (
    "The programs are part of matrix-media-repo. Their use was derived from their source "
    f"({media_repo.VERSION}) and not tested: rely on the comparison. They ask for the password of Synapse's "
    "database; the names of databases and users are the defaults."
)


def _to_media_repo(site: Site, new: Remote) -> Migration:
    store = f"{KEYS}/export" if site.on_server else "/data/synapse-export"
    media = site.media if site.on_server else "/media-store"
    export = _tool(
        site,
        rclone.lines(
            f"export_synapse_for_import -serverName {site.domain} {_database(site)}",
            f"-mediaDirectory {media} -destination {store}",
        ),
        media=":ro",
    )
    import_ = _tool(site, f"gdpr_import -directory {store}")
    verify = _tool(site, f"gdpr_import -directory {store} -verify")
    beside = (
        (
            f"# media-repo.d/synapse-media.yaml as INSTALL.md says; not yet {synapse.DROP_IN}, nor the routes",
            f"systemctl start {media_repo.UNIT}",
        )
        if site.on_server
        else (
            f"cp -r rendered/{site.host}/inventory .",
            f"cat > {site.host_vars}/{_TEMPORARY_VARIABLES} <<'END'\n"
            f"{playbook.SYNAPSE_GIVES_MEDIA_AWAY}: false\n{playbook.MEDIA_REPO_ROUTES}: false\nEND",
            *site.apply,
        )
    )
    switch = (
        (
            f"# {synapse.DROP_IN} and the routes, as INSTALL.md says",
            *site.apply,
            "systemctl reload nginx    # or your proxy",
        )
        if site.on_server
        else (f"rm {site.host_vars}/{_TEMPORARY_VARIABLES}", *site.apply)
    )
    steps = (
        _create_store(new, MEDIA_REPO, site),
        _render(site, new, MEDIA_REPO, key=False),
        Step(
            "Start matrix-media-repo beside Synapse's own repository",
            site.operator,
            "It gets no requests yet, so that media is imported before it is requested."
            + (
                ""
                if site.on_server
                else " The second file keeps Synapse's repository enabled and the routes unchanged meanwhile."
            ),
            "matrix-media-repo is active and its log has no error; media works as before.",
            "Stop it, remove the files and apply again.",
            files=(
                f"rendered/{site.host}/…"
                if site.on_server
                else f"rendered/{site.host}/{site.configuration}, and {_TEMPORARY_VARIABLES}, which the command writes",
            ),
            commands=beside,
        ),
        Step(
            "Import the existing media",
            SERVER,
            f"Media of your own users, with its metadata, from the disk and Synapse's database. {_UNTESTED} Media of "
            "other servers is not imported: it is fetched from them again, and what they no longer have remains "
            "only in the old directory.",
            "The output has no WARN. It may be run again: media that was imported is skipped.",
            "Nothing to undo: Synapse's media is only read.",
            commands=(export, import_),
        ),
        _stop(site, "New media would be known to Synapse alone, so none may arrive during the last import.")
        if site.on_server
        else Step(
            "Stop Synapse",
            SERVER,
            "New media would be known to Synapse alone, so none may arrive during the last import. The database and "
            "matrix-media-repo keep running. The homeserver is down from here until it is started again.",
            f"systemctl is-active {playbook.SYNAPSE_UNIT}   says inactive.",
            f"systemctl start {playbook.SYNAPSE_UNIT}",
            commands=(f"systemctl stop '{playbook.SYNAPSE_UNIT}*'",),
            effects=(Effect.STOPS,),
        ),
        Step(
            "Import new media",
            SERVER,
            "The same again: a new export, of which only new media is imported.",
            "It ends with `All MXC URIs have been imported.`",
            "Start Synapse again.",
            commands=(
                f"rm -r {store if site.on_server else playbook.MEDIA_REPO_BASE + store}",
                export,
                import_,
                verify,
            ),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            f"The hash of each file in matrix-media-repo's database is compared with Synapse's file. {site.domain} "
            "must be the domain of your user ids.",
            "sha256sum prints nothing, and the number of lines equals that of `find … -type f` below local_content. "
            "If it is smaller, files were not imported.",
            "Start Synapse again.",
            commands=(*_compare_hashes(site), f"find {site.media}/local_content -type f | wc -l"),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Switch over and start",
            site.operator,
            "Synapse's own repository is disabled, and the routes lead to matrix-media-repo.",
            f"{_MEDIA_WORKS} matrix-media-repo's log shows both requests.",
            "Newer media is known to matrix-media-repo alone: the runbook from matrix-media-repo to filesystem "
            "copies it back.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=switch,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    last = (
        Step(
            "Remove Synapse's media directory, after some months",
            SERVER,
            "It has media of other servers that may no longer exist there, and is the backup of your own media. "
            f"{_ON_A_DISK}",
            "An old picture is still shown.",
            "None: deletion is final.",
            commands=_remove(f"{site.media}/local_content", f"{site.media}/local_thumbnails"),
            effects=(Effect.EMPTIED,),
        ),
    )
    return Migration(steps, last)


def _from_media_repo(site: Site, old: Remote) -> Migration:
    store = f"{KEYS}/gdpr-data" if site.on_server else "/data/gdpr-data"
    export = _tool(site, f"gdpr_export -entity {site.domain} -destination {store}")
    media = site.media if site.on_server else "/media-store"
    import_ = _tool(
        site,
        rclone.lines(
            f"import_to_synapse -serverName {site.domain} {_database(site)}",
            f"-mediaDirectory {media} -directory {store}",
        ),
        media=":rw",
    )
    stop_uploads = (
        ("systemctl stop nginx    # or your proxy", *site.stop)
        if site.on_server
        else (f"systemctl stop {playbook.PROXY_UNIT}", f"systemctl stop '{playbook.SYNAPSE_UNIT}*'")
    )
    switch = (
        (
            f"rm {site.in_use}    # and the routes, in the proxy",
            site.start,
            "systemctl start nginx    # or your proxy",
            f"systemctl disable --now {media_repo.UNIT}",
        )
        if site.on_server
        else (
            f"rm {site.configuration}    # and every line of {playbook.MEDIA_REPO} elsewhere; keep a copy of them",
            *site.apply,
        )
    )
    steps = (
        Step(
            "Check the free disk space",
            SERVER,
            "The media is written to the disk twice: as an export, and to Synapse's media store.",
            "df shows more than twice what the bucket holds of your own users' media.",
            _NO_CHANGE,
            commands=(f"df -h {site.media}",),
        ),
        Step(
            "Stop uploads",
            SERVER,
            "matrix-media-repo caches access tokens for hours, even while Synapse is down: stop the proxy, or "
            "uploads that arrive meanwhile are lost. The database and matrix-media-repo keep running. The "
            "homeserver is down from here until it is started again.",
            "A client can't connect.",
            "Start them again.",
            commands=stop_uploads,
            effects=(Effect.STOPS,),
        ),
        Step(
            "Export, and import into Synapse",
            SERVER,
            f"Media of your own users, into Synapse's media store and its database. {_UNTESTED} Media of other servers "
            "is fetched from them again.",
            "The output has no WARN. It may be run again: media that Synapse has is skipped.",
            "Start them again: matrix-media-repo still has everything.",
            commands=(export, import_, f"chown -R {site.user} {site.media}"),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "The hash of each file in matrix-media-repo's database is compared with the file that Synapse received. "
            f"{site.domain} must be the domain of your user ids.",
            "sha256sum prints nothing, and the number of lines is not 0. A file it names is missing or differs: do not "
            "continue.",
            "Start them again: matrix-media-repo still has everything.",
            commands=_compare_hashes(site),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Switch over and start",
            site.operator,
            "Synapse's own repository is enabled, and the routes lead to it. Do not change the stack, the database of "
            "matrix-media-repo or its datastore ids.",
            f"{_MEDIA_WORKS} `synapse-media check` on the server's files reports no findings.",
            (
                f"`systemctl start {media_repo.UNIT}`, put the file and the routes back, restart Synapse and the proxy"
                if site.on_server
                else f"Put the file and the lines back and run `{site.apply[-1]}`"
            )
            + "; newer media is known to Synapse alone.",
            commands=switch,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (_delete_old_bucket(site, old),))


# Direct migrations, not through the local disk


def module_to_goofys(site: Site, old: Remote) -> Migration:
    """On the same bucket, with the same object keys: the module is removed before the bucket is mounted."""
    local = site.media if site.on_server else site.aside
    steps = (
        *_disable_clean_up(site),
        _copy_old_key(site, old),
        _prepare(site, old),
        Step(
            "Copy what is only on the disk",
            SERVER,
            "While Synapse runs, to keep the downtime short.",
            media.ARRIVED,
            "Nothing to undo: the local media is only read.",
            commands=(media.copy(site.media, old),),
        ),
        _change_method(
            site, old, GOOFYS, Word.WIDEN_POLICY, "Goofys deletes and renames objects, so its key must be allowed to."
        ),
        _render(site, old, GOOFYS, key=False),
        _stop(
            site,
            "The module and a mount of its bucket must never exist at the same time: its job would delete the objects.",
        ),
        _copy_new((media.copy(site.media, old, "--min-age 0"),), "Start Synapse again: the module is still in use."),
        _compare(
            "Everything on the disk must be in the bucket",
            (media.verify(site.media, old),),
            "Start Synapse again: the module is still in use.",
            f"{media.PASSED} The bucket may have more: files that are no longer on the disk.",
        ),
        Step(
            "Remove the module",
            site.operator,
            "Before the bucket is mounted, and with a separate command."
            + (" Synapse is stopped, so the configuration is built, but not applied yet." if site.nixos else ""),
            _module_is_gone(site)
            + ("." if site.on_server else f", and systemctl list-timers on the server shows no {_TIMER}."),
            f"Put the file back, and into `imports`. Nothing else was changed: {site.restart}"
            if site.nixos
            else f"Put the file back, and start Synapse again: {site.restart}",
            commands=(*_remove_module(site), *_search_module(site, applied=False)),
            effects=(Effect.LEFT,),
        ),
        Step(
            "Mount the bucket and start",
            site.operator,
            "The local media is kept in another directory.",
            f"findmnt -t fuse.goofys,fuse   shows the mount. {_MEDIA_WORKS}",
            f"{_opposite(site, old.stack, GOOFYS, MODULE)}: the bucket has everything, and the local media is still at "
            f"{local}.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=(
                *(() if site.on_server else (f"ssh root@{site.machine} mv {site.media} {site.aside}",)),
                *_install(site, GOOFYS),
            ),
            effects=(Effect.ENTERED, Effect.STARTS),
        ),
    )
    last = (
        Step(
            "Remove the local media, after some weeks",
            SERVER,
            f"It was compared with the bucket. {_ON_A_DISK}",
            "An old picture is still shown.",
            "None: deletion is final.",
            commands=_remove(local),
            effects=(Effect.EMPTIED,),
        ),
    )
    return Migration(steps, last, one_at_a_time=True, deletes_by_name=True).checked()


def goofys_to_module(site: Site, old: Remote) -> Migration:
    """On the same bucket, with the same object keys: nothing is copied, but the mount must be removed first."""
    unmount = (
        (_out_of_imports(site), f"systemctl stop {synapse.GOOFYS_UNIT}")
        if site.nixos
        else (
            f"rm {site.in_use}",
            f"rm {synapse.UNITS}/{synapse.UNIT_DROP_INS}/{synapse.GOOFYS_NAME}.conf",
            f"systemctl disable --now {synapse.GOOFYS_UNIT}",
            "systemctl daemon-reload",
        )
        if site.on_server
        else (
            f"rm {site.configuration}    # and every line of {playbook.GOOFYS} elsewhere",
            f"ssh root@{site.machine} systemctl disable --now {playbook.GOOFYS_UNIT}",
        )
    )
    steps = (
        _stop(
            site,
            "The mount must be removed before the module is installed: its job would delete the objects through it.",
        ),
        Step(
            "Unmount the bucket",
            site.operator,
            "Goofys writes each file when it is closed, and Synapse has closed all of them.",
            "On the server: findmnt -t fuse.goofys,fuse   shows no mount of the bucket."
            + (
                ""
                if site.on_server
                else f" ls -A {site.media}   lists nothing; files it lists were written below the mount: keep them."
            ),
            f"Put {site.in_use} back, and into `imports`. Nothing else was changed, and Synapse starts the mount: "
            f"{site.restart}"
            if site.nixos
            else f"Mount it again and start Synapse: {_mount_again(site)}",
            commands=unmount,
            effects=(Effect.LEFT,),
        ),
        _change_method(
            site, old, MODULE, Word.NARROW_POLICY, "The module never deletes, so its key must not be allowed to."
        ),
        _render(site, old, MODULE, key=False),
        Step(
            "Enable the module and start",
            site.operator,
            "Synapse finds nothing on the disk and reads from the bucket, under the same keys as before. New files are "
            "written to both."
            + (
                f" {synapse.MEDIA_STORE_PATH} {'' if site.nixos else 'in homeserver.yaml '}names a local directory."
                if site.on_server
                else ""
            ),
            f"{_MEDIA_WORKS} The new picture is below {site.media}/local_content and in the bucket.",
            f"{_opposite(site, old.stack, MODULE, GOOFYS)}: it removes the module before it mounts.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=_install(site, MODULE),
            effects=(Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (), copies_media=False, one_at_a_time=True).checked()


def _change_method(site: Site, old: Remote, method: str, word: Word, why: str) -> Step:
    path = f"stacks/Pulumi.{old.stack}.yaml"
    return Step(
        "Change the method of the stack",
        HERE,
        f"In {path}: `method: {method}`, and for this change `synapse-media:allow: [{entry(site.name, word)}]`. {why}",
        f"synapse-media diff --stack {old.stack}   shows a change of the policy and none of the bucket, before `up`; "
        "then the key is proved again.",
        "Change the line back, and `up` again.",
        commands=(f"synapse-media up --stack {old.stack}",),
    )


def between_stores(site: Site, method: str, old: Remote, new: Remote) -> Migration:
    """The same method on another store: object keys stay the same, so objects are copied from bucket to bucket."""
    local = method == MODULE
    last_copy = (*((media.copy(site.media, new, "--min-age 0"),) if local else ()), *rclone.between(old, new))
    compared = (rclone.compare(old.path, new.path), *((media.verify(site.media, new),) if local else ()))
    ids = (
        " The datastore id must not change: matrix-media-repo finds each object by id and name."
        if method == MEDIA_REPO
        else ""
    )
    steps = (
        *(_disable_clean_up(site) if local else ()),
        _create_store(new, method, site, str(old.store.media_repo.get("s3_datastore_id", "")) if old.store else ""),
        _render(site, new, method),
        _copy_old_key(site, old),
        *((_prepare(site, new),) if local else ()),
        _configure_rclone(site, old, new),
        Step(
            "Copy the existing media",
            SERVER,
            "From bucket to bucket, through this machine, while Synapse runs. The old provider may charge for egress.",
            "rclone ends with 0 errors.",
            "Nothing to undo: the old bucket is only read.",
            commands=rclone.between(old, new),
        ),
        _stop(
            site,
            "New media goes to the old bucket, so none may arrive during the last copy.",
            f"systemctl stop {media_repo.UNIT}" if method == MEDIA_REPO else "",
        ),
        _copy_new(
            last_copy,
            "Start Synapse again: the old bucket is still in use.",
            "Media that arrived since the first copy" + (", and what is only on the disk." if local else "."),
            "rclone ends with 0 errors.",
        ),
        _compare(
            "Everything in the old place must be in the new bucket",
            compared,
            "Start Synapse again: the old bucket is still in use.",
            f"{SAME} {rclone.COUNTS}",
        ),
        Step(
            "Use the new bucket and start",
            site.operator,
            f"The new file replaces the old one.{ids}",
            f"{_MEDIA_WORKS} The new picture is in the new bucket, and `rclone size` of the old one does not change.",
            "Stop Synapse, copy newer media back (the same commands with the stores swapped), and run these commands "
            "again with the old file and its key.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=(
                *(
                    (f"ssh root@{site.machine} systemctl stop {playbook.GOOFYS_UNIT}",)
                    if method == GOOFYS and not site.on_server
                    else (f"systemctl stop {synapse.GOOFYS_NAME}",)
                    if method == GOOFYS
                    else ()
                ),
                *_install(site, method),
            ),
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (_delete_old_bucket(site, old),), deletes_by_name=local).checked()
