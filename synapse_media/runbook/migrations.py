"""The migrations from one method or store to another: to a store, from one, and between two.

All but the direct ones go by way of the local filesystem, which is a safe place to stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from synapse_media.allow import Word, entry
from synapse_media.homeserver import media_repo, playbook, synapse
from synapse_media.methods import GOOFYS, MEDIA_REPO, MODULE

from . import rclone
from .rclone import KEYS, SAME, Remote
from .site import HERE, SERVER, Site
from .steps import Effect, Step, require_safe

_TIMER, _JOB = f"{playbook.MIGRATION_UNIT}.timer", f"{playbook.MIGRATION_UNIT}.service"
_DROP_IN = f"{synapse.CONFIGURATION}/{synapse.DROP_IN}"
_FOR_NOW = "zz-switch.yml"
"""Variables for the time of the import alone; the last file of the directory, so that it wins."""
_STEADY = "Nothing has changed yet: stop here as long as you like."
_LOOK = (
    "Open an old picture in a client, one that nobody looked at today, and send a new one; the log has no error of "
    "media."
)


@dataclass(frozen=True, slots=True)
class Migration:
    """The steps of a migration; `last` waits until everything else of the runbook is done. The rest: `require_safe`."""

    steps: tuple[Step, ...]
    last: tuple[Step, ...]
    copies_media: bool = True
    one_at_a_time: bool = False
    written_both_ways: bool = False
    deletes_by_name: bool = False

    def checked(self) -> Migration:
        """This migration, if its order can't lose media; else DangerousOrderError."""
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


# Steps that several have


def _make(new: Remote, method: str, site: Site) -> Step:
    if new.store is not None:
        return Step(
            "Prove the new store",
            HERE,
            f"Media goes to {Remote('new', new.store, new.stack).shown}, with {method}.",
            "Every line is as expected; nothing says failed.",
            _STEADY,
            commands=(f"synapse-media prove --stack {new.stack}",),
        )
    ids = "media_repo: {s3_datastore_id: ID}"
    if new.edited:
        more = f", {ids}" if method == MEDIA_REPO else ""
        return Step(
            "Make the store",
            HERE,
            f"In stacks/Pulumi.{new.stack}.yaml, in the entry of {site.name}: `provider: {new.provider}`, "
            f"`bucket: BUCKET`, `method: {method}`{more}, with names of your own.",
            "`up` ends with what the key may and may not do.",
            f"synapse-media destroy --stack {new.stack}: the bucket is empty, and nothing uses it.",
            commands=(f"synapse-media diff --stack {new.stack}", f"synapse-media up --stack {new.stack}"),
        )
    setting = f" --set '{ids}'" if method == MEDIA_REPO else ""
    return Step(
        "Make the new store",
        HERE,
        "In a stack of its own, so that the old store and its key stay as they are until the end.",
        "`up` ends with what the key may and may not do.",
        f"synapse-media destroy --stack {new.stack}: the bucket is empty, and nothing uses it.",
        files=(f"stacks/Pulumi.{new.stack}.yaml, which `init` writes; names of your own for what is in capitals",),
        commands=(
            f"synapse-media init {new.stack} --provider {new.provider} --server-name {site.name} --bucket BUCKET \\\n"
            f"    --method {method}{setting}",
            f"synapse-media up --stack {new.stack}",
        ),
    )


def _render(site: Site, new: Remote, method: str, *, key: bool = True) -> Step:
    """`key`: the copy needs store.json on the server."""
    out = f"rendered/{site.host}"
    return Step(
        "Render what the server will read",
        HERE,
        f"The files of {method} in the {site.form} form"
        + (", and store.json, which the copy takes the key from." if key else "."),
        f"synapse-media check {out}/{site.configuration}   says that nothing was found.",
        "Remove the directory.",
        files=(f"{out}/…: what `render` lists, with how to apply it; all of it is 0600 and holds the key",),
        commands=(
            f"synapse-media render --stack {new.stack} --server {site.name} --form {site.form} --out rendered",
            *(_bring(site, new, out) if key else ()),
        ),
    )


def _bring(site: Site, remote: Remote, directory: str) -> tuple[str, ...]:
    return (
        f"ssh root@{site.machine} mkdir -p -m 0700 {KEYS} {KEYS}/{remote.name}",
        f"scp -p {directory}/store.json root@{site.machine}:{KEYS}/{remote.name}/",
    )


def tidy_up() -> Step:
    """For the end of a runbook that brought keys to the server."""
    return Step(
        "Take the keys off the server again",
        SERVER,
        "Synapse has its own copy of the one it uses.",
        f"ls {KEYS}/*/store.json   finds none.",
        "Bring them again.",
        commands=(f"rm -f {KEYS}/old/store.json {KEYS}/new/store.json",),
    )


def _have_key(site: Site, old: Remote) -> Step:
    return Step(
        "Bring the old store's key to the server",
        HERE,
        "For the copy. It is the key that the server uses now.",
        f"The file is there, 0600: ls -l {old.json}",
        "Remove the file.",
        files=("old/…/store.json, which `render` writes",),
        commands=(
            f"synapse-media render --stack {old.stack} --server {site.name} --form {site.form} --out old",
            *_bring(site, old, f"old/{site.host}"),
        ),
    )


def _reach(remotes: Iterable[Remote], more: str = "") -> Step:
    found = tuple(remotes)
    commands = [line for remote in found for line in remote.configuration]
    return Step(
        "Let rclone reach the store" + ("s" if len(found) > 1 else ""),
        SERVER,
        "In one root shell (bash) that stays open for all that follows, rclone 1.60 or newer. The key is in that "
        f"shell's environment alone.{more}",
        "The sizes are printed, and no error.",
        "Close the shell.",
        files=tuple(remote.json for remote in found),
        commands=(*dict.fromkeys(commands), *(f"rclone size {remote.path}" for remote in found)),
    )


def _stop(site: Site, why: str, also: str = "") -> Step:
    return Step(
        "Stop Synapse",
        site.operator,
        f"{why} The homeserver is down from here until it is started again.",
        f"systemctl is-active {synapse.UNIT}   says inactive on the server.",
        f"Start it again: {site.apply[0] if site.plain else 'the same command with --tags=start'}",
        commands=(*site.stop, *((also,) if also and site.plain else ())),
        effects=(Effect.STOPS,),
    )


def _no_clean_up(site: Site) -> tuple[Step, ...]:
    """The playbook's job deletes local files by name, also those that were just copied back."""
    if site.plain:
        return (
            Step(
                "Make sure that nothing deletes local media",
                SERVER,
                "A job of your own with s3_media_upload --delete (cron, timer) deletes by name whatever is copied.",
                f"grep -rl s3_media_upload /etc/cron* {synapse.UNITS} /var/spool/cron   finds nothing that is on.",
                "Switch the job on again, if you go no further.",
                effects=(Effect.CLEAN_UP_OFF,),
            ),
        )
    return (
        Step(
            "Switch the nightly clean-up off",
            SERVER,
            "At 05:00 the playbook's job deletes local files that have a namesake in the bucket, also those that were "
            "just copied back. Taking its unit file away does not stop a timer that runs.",
            f"systemctl is-active {_TIMER}   says inactive.",
            f"systemctl enable --now {_TIMER}, if you go no further.",
            commands=(f"systemctl disable --now {_TIMER}", f"systemctl stop {_JOB}"),
            effects=(Effect.CLEAN_UP_OFF,),
        ),
    )


def _install(site: Site) -> tuple[str, ...]:
    if site.plain:
        return (f"# as rendered/{site.host}/INSTALL.md says", *site.apply)
    return (f"cp -r rendered/{site.host}/inventory .", *site.apply)


def _room(old: Remote, directory: str) -> Step:
    return Step(
        "Look whether there is room",
        SERVER,
        "All of the bucket comes to the local disk.",
        "df shows more available than rclone prints, with a reserve for what comes in meanwhile.",
        _STEADY,
        commands=(f"rclone size {old.path}", f"df -h {directory}"),
    )


def _empty_bucket(site: Site, old: Remote) -> Step:
    return Step(
        "Give the old bucket up, after some weeks",
        HERE,
        "Not before the comparison above, and not before people have used the new place for a while. In "
        f"stacks/Pulumi.{old.stack}.yaml: "
        f"`synapse-media:allow: [{entry(site.name, Word.DELETE_BUCKET)}, {entry(site.name, Word.DELETE_MEDIA)}]`. "
        f"If the stack has other homeservers, take this one's entry out, name {entry(site.name, Word.RETIRE_KEY)} and "
        f"{entry(site.name, Word.NARROW_POLICY)} in `allow` too, and use `up` instead of `destroy`.",
        "Before it deletes, it names the bucket of this homeserver and nothing else.",
        "None: what is deleted is gone. Until then the bucket is the backup.",
        commands=(f"synapse-media destroy --stack {old.stack}",),
        effects=(Effect.EMPTIED,),
    )


# The storage provider module


def _to_module(site: Site, new: Remote) -> Migration:
    steps = (
        _make(new, MODULE, site),
        _render(site, new, MODULE),
        Step(
            "Take the module into use",
            site.operator,
            "From now on each new file is on the disk and in the bucket. Older files are still only on the disk, "
            "and are served from there.",
            "Send a picture: `rclone lsf` (next step) lists one folder below local_content. "
            + "synapse-media check on the server's files finds nothing.",
            f"Remove {site.configuration} and run the last command again: every file is on the local disk.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=_install(site),
            effects=(Effect.ENTERED,),
        ),
        _reach([new]),
        Step(
            "Copy what was there before",
            SERVER,
            "While Synapse runs; it may be interrupted and started again. url_cache is left out: it is never read from "
            "a bucket.",
            "rclone ends with 0 errors.",
            "Nothing to undo: copies are only added.",
            commands=rclone.upload(site, new),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Both sides are read: a half object under the right name shows here, and nowhere else.",
            f"{SAME} Otherwise copy again, and compare again. {rclone.COUNTS}",
            "Nothing to undo.",
            files=(f"{KEYS}/same.txt, which it writes: what is the same in both",),
            commands=(rclone.compare(rclone.word(site.media), new.path, f"--match {KEYS}/same.txt"),),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Look",
            SERVER,
            "The bucket is only asked for what is not on the disk, so move one file away for a moment.",
            "A picture whose file was moved away is still shown.",
            "Move the file back.",
        ),
    )
    last = (
        Step(
            "Free the local disk, if you need to",
            SERVER,
            "Only what was compared, by the list that the comparison wrote. Keeping everything is the best backup "
            "there is. Never use a job that deletes by name.",
            "df shows the room; an old picture is still shown.",
            f"rclone copy {new.path} {site.media} --ignore-existing brings all of it back.",
            commands=(f"rclone delete {site.media} --files-from-raw {KEYS}/same.txt",),
            effects=(Effect.LEFT, Effect.EMPTIED),
        ),
    )
    return Migration(steps, last, written_both_ways=True)


def _remove_module(site: Site) -> tuple[str, ...]:
    if site.plain:
        return (f"rm {_DROP_IN}",)
    return (f"rm {site.configuration}    # and every line of {playbook.MODULE} elsewhere",)


def _no_module(site: Site) -> str:
    """How to see that nothing configures the module any more; a check of what is configured can't tell."""
    return f"grep -rn {synapse.MODULE_PACKAGE} {synapse.CONFIGURATION if site.plain else 'inventory'}   finds nothing"


def _from_module(site: Site, old: Remote) -> Migration:
    steps = (
        *_no_clean_up(site),
        _have_key(site, old),
        _reach([old]),
        _room(old, site.media),
        Step(
            "Copy back what is in the bucket alone",
            SERVER,
            "While Synapse runs: what is new is on the disk anyway. A file that is on the disk is left as it is.",
            "rclone ends with 0 errors.",
            "Nothing to undo: the bucket stays as it is.",
            commands=rclone.download(site, old),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Everything of the bucket must be on the disk, with the same content: both are read.",
            f"{SAME} Anything else: do not go on; a file of the disk that differs is to be looked at by hand. "
            f"{rclone.COUNTS}",
            "Nothing to undo.",
            commands=(rclone.compare(old.path, rclone.word(site.media)),),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Take the module out of use",
            site.operator,
            "Synapse reads from the disk alone from now on. What to remove, `render` of the method filesystem lists as "
            "well; no file is needed. The stack stays as it is: a change to `method: filesystem` gives the bucket up.",
            f"{_no_module(site)}. {_LOOK}",
            "Put the file back and run the last command again: the bucket lacks only what came in meanwhile, which is "
            "on the disk.",
            commands=(*_remove_module(site), *site.apply),
            effects=(Effect.LEFT, Effect.ENTERED),
        ),
    )
    return Migration(steps, (_empty_bucket(site, old),), written_both_ways=True, deletes_by_name=True)


# Goofys


def _to_goofys(site: Site, new: Remote) -> Migration:
    switch = (
        _install(site) if site.plain else (f"ssh root@{site.machine} mv {site.media} {site.aside}", *_install(site))
    )
    local = site.media if site.plain else site.aside
    steps = (
        _make(new, GOOFYS, site),
        _render(site, new, GOOFYS),
        _reach([new], " rclone writes to the bucket itself, which is quicker than through a mount."),
        Step(
            "Copy what there is",
            SERVER,
            "While Synapse runs, so that little is left to copy while it is down.",
            "rclone ends with 0 errors.",
            "Nothing to undo: the local media is only read.",
            commands=rclone.upload(site, new),
        ),
        _stop(site, "With Goofys, media lies in the bucket alone, so the last copy needs quiet."),
        Step(
            "Copy the rest",
            SERVER,
            "What came in since.",
            "rclone ends with 0 errors.",
            "Start Synapse again.",
            commands=rclone.upload(site, new),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Everything of the disk must be in the bucket, with the same content: both are read.",
            f"{SAME} {rclone.COUNTS}",
            "Start Synapse again.",
            commands=(rclone.compare(rclone.word(site.media), new.path),),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Mount the bucket and start",
            site.operator,
            "The local media is kept beside the mount, out of its way. The migration variant of the rendered files, "
            "and the rsync of INSTALL.md, are not needed: the media is there.",
            f"findmnt -t fuse.goofys,fuse   names the mount. {_LOOK}",
            "Stop Synapse; copy what came in since back from the bucket (the runbook to filesystem does it); unmount; "
            "put the local media back in its place.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=switch,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    last = (
        Step(
            "Remove the local media, after some weeks",
            SERVER,
            "It is the backup of what was there before. Goofys has had no release since 2020: the module is the way "
            "off it.",
            "An old picture is still shown.",
            "None: what is deleted is gone.",
            commands=(f"rm -r {local}",),
            effects=(Effect.EMPTIED,),
        ),
    )
    return Migration(steps, last)


def _from_goofys(site: Site, old: Remote) -> Migration:
    # In the plain form the mount is beside the local media store, in the playbook over it.
    target = site.media if site.plain else site.aside
    unmount = (
        (
            f"rm {_DROP_IN}",
            f"rm {synapse.UNITS}/{synapse.UNIT_DROP_INS}/{synapse.GOOFYS_NAME}.conf",
            f"systemctl disable --now {synapse.GOOFYS_UNIT}",
            f"# homeserver.yaml has {synapse.MEDIA_STORE_PATH}: {target}",
            "systemctl daemon-reload",
            site.start,
        )
        if site.plain
        else (
            f"ssh root@{site.machine} systemctl disable --now {playbook.GOOFYS_UNIT}",
            f"ssh root@{site.machine} 'mountpoint -q {site.media} || rmdir {site.media}'",
            f"ssh root@{site.machine} mv -T {target} {site.media}",
            f"rm {site.configuration}    # and every line of {playbook.GOOFYS} elsewhere",
            *site.apply,
        )
    )
    steps = (
        _have_key(site, old),
        _reach([old], " rclone reads the bucket itself, beside the mount."),
        _room(old, str(target).rsplit("/", 1)[0]),
        Step(
            "Copy back what there is",
            SERVER,
            f"To {target}, which is not the mount, while Synapse runs. What is there is left as it is.",
            "rclone ends with 0 errors.",
            _STEADY,
            commands=(f"mkdir -p {target}", *rclone.download(site, old, target)),
        ),
        _stop(
            site,
            "Media lies in the bucket alone, so the last copy needs quiet. Goofys writes a file when it is closed.",
        ),
        Step(
            "Copy the rest",
            SERVER,
            "What came in since. --ignore-existing is right: a file of media is never written twice.",
            "rclone ends with 0 errors.",
            "Start Synapse again: the mount comes with it.",
            commands=rclone.download(site, old, target),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Everything of the bucket must be on the disk, with the same content: both are read.",
            f"{SAME} {rclone.COUNTS}",
            "Start Synapse again: the mount comes with it.",
            commands=(rclone.compare(old.path, rclone.word(target)),),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Unmount the bucket and start",
            site.operator,
            "Synapse goes back to the local directory."
            if site.plain
            else "The mount point must be empty once the bucket is unmounted: what lies there was written below the "
            "mount, and is to be looked at by hand (rmdir refuses it).",
            f"findmnt -t fuse.goofys,fuse   names no mount of the bucket. {_LOOK}",
            "Stop Synapse, put the files back and mount again; what came in since must be copied to the bucket first.",
            commands=unmount,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (_empty_bucket(site, old),))


# matrix-media-repo


def _sums(site: Site) -> tuple[str, ...]:
    """Hashes that matrix-media-repo has of what it stored, against Synapse's files."""
    path = "substr(media_id, 1, 2) || '/' || substr(media_id, 3, 2) || '/' || substr(media_id, 5)"
    # The name was checked to be a host's. What begins with a date is of url_cache.
    where = f"origin = '{site.domain}' AND NOT (media_id ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}_')"
    psql = (
        f"sudo -u postgres psql {media_repo.DATABASE}"
        if site.plain
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
    """A program of matrix-media-repo; `media`: how Synapse's media store is mounted into its container, if at all."""
    if site.plain:
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
    host, user = ("localhost", "synapse") if site.plain else (playbook.DATABASE_HOST, playbook.USER)
    return f"-dbHost {host} -dbName synapse -dbUsername {user}"


_UNTRIED = (
    "The programs are matrix-media-repo's own; how they work was read in their source "
    f"({media_repo.VERSION}), not tried by us: rely on the comparison. They ask for the password of Synapse's "
    "database; names of databases and users are the usual ones."
)


def _to_media_repo(site: Site, new: Remote) -> Migration:
    store = f"{KEYS}/export" if site.plain else "/data/synapse-export"
    media = site.media if site.plain else "/media-store"
    export = _tool(
        site,
        rclone.lines(
            f"export_synapse_for_import -serverName {site.domain} {_database(site)}",
            f"-mediaDirectory {media} -destination {store}",
        ),
        media=":ro",
    )
    bring = _tool(site, f"gdpr_import -directory {store}")
    verify = _tool(site, f"gdpr_import -directory {store} -verify")
    beside = (
        (
            f"# media-repo.d/synapse-media.yaml as INSTALL.md says; not yet {synapse.DROP_IN}, nor the routes",
            f"systemctl start {media_repo.UNIT}",
        )
        if site.plain
        else (
            f"cp -r rendered/{site.host}/inventory .",
            f"cat > {site.host_vars}/{_FOR_NOW} <<'END'\n"
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
        if site.plain
        else (f"rm {site.host_vars}/{_FOR_NOW}", *site.apply)
    )
    steps = (
        _make(new, MEDIA_REPO, site),
        _render(site, new, MEDIA_REPO, key=False),
        Step(
            "Start matrix-media-repo beside Synapse's own repository",
            site.operator,
            "It gets no request yet, so that media is imported before anybody asks for it."
            + (
                ""
                if site.plain
                else " The second file keeps Synapse's repository on and the routes as they are, for this time."
            ),
            "matrix-media-repo is active and its log has no error; media works as before.",
            "Stop it, remove the files, and apply again.",
            files=(
                f"rendered/{site.host}/…"
                if site.plain
                else f"rendered/{site.host}/{site.configuration}, and {_FOR_NOW}, which the command writes",
            ),
            commands=beside,
        ),
        Step(
            "Import what there is",
            SERVER,
            f"Media of your own users, with its metadata, from the disk and Synapse's database. {_UNTRIED} Media of "
            "other servers is not imported: it is fetched from them again, and what they lost stays in the old "
            "directory alone.",
            "No WARN in what it prints. It may be run again: what is known already is left out.",
            "Nothing to undo: Synapse's media is only read.",
            commands=(export, bring),
        ),
        _stop(site, "What comes in now would be known to Synapse alone, so the last import needs quiet.")
        if site.plain
        else Step(
            "Stop Synapse",
            SERVER,
            "What comes in now would be known to Synapse alone, so the last import needs quiet. The database and "
            "matrix-media-repo go on. The homeserver is down from here until it is started again.",
            f"systemctl is-active {playbook.SYNAPSE_UNIT}   says inactive.",
            f"systemctl start {playbook.SYNAPSE_UNIT}",
            commands=(f"systemctl stop '{playbook.SYNAPSE_UNIT}*'",),
            effects=(Effect.STOPS,),
        ),
        Step(
            "Import the rest",
            SERVER,
            "The same once more: a fresh export, of which only the new is imported.",
            "It ends with `All MXC URIs have been imported.`",
            "Start Synapse again.",
            commands=(f"rm -r {store if site.plain else playbook.MEDIA_REPO_BASE + store}", export, bring, verify),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "The hash that matrix-media-repo has of each file it stored, against Synapse's file. "
            f"{site.domain} must be what stands in your user ids.",
            "sha256sum prints nothing. The number of lines is that of: find … -type f below local_content; fewer were "
            "not imported.",
            "Start Synapse again.",
            commands=(*_sums(site), f"find {site.media}/local_content -type f | wc -l"),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Switch over and start",
            site.operator,
            "Synapse's own repository goes off, and the routes lead to matrix-media-repo.",
            f"{_LOOK} matrix-media-repo's log shows both requests.",
            "What came in since is known to matrix-media-repo alone: the runbook from matrix-media-repo to filesystem "
            "brings it back.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=switch,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    last = (
        Step(
            "Remove Synapse's media directory, after some months",
            SERVER,
            "It holds the media of other servers that may not be there any more, and is the backup of your own.",
            "An old picture is still shown.",
            "None: what is deleted is gone.",
            commands=(f"rm -r {site.media}/local_content {site.media}/local_thumbnails",),
            effects=(Effect.EMPTIED,),
        ),
    )
    return Migration(steps, last)


def _from_media_repo(site: Site, old: Remote) -> Migration:
    store = f"{KEYS}/gdpr-data" if site.plain else "/data/gdpr-data"
    export = _tool(site, f"gdpr_export -entity {site.domain} -destination {store}")
    media = site.media if site.plain else "/media-store"
    bring = _tool(
        site,
        rclone.lines(
            f"import_to_synapse -serverName {site.domain} {_database(site)}",
            f"-mediaDirectory {media} -directory {store}",
        ),
        media=":rw",
    )
    quiet = (
        ("systemctl stop nginx    # or your proxy", *site.stop)
        if site.plain
        else (f"systemctl stop {playbook.PROXY_UNIT}", f"systemctl stop '{playbook.SYNAPSE_UNIT}*'")
    )
    switch = (
        (
            f"rm {_DROP_IN}    # and the routes, in the proxy",
            site.start,
            "systemctl start nginx    # or your proxy",
            f"systemctl disable --now {media_repo.UNIT}",
        )
        if site.plain
        else (
            f"rm {site.configuration}    # and every line of {playbook.MEDIA_REPO} elsewhere; keep a copy of them",
            *site.apply,
        )
    )
    steps = (
        Step(
            "Look whether there is room",
            SERVER,
            "The media comes to the disk twice: as an export, and in Synapse's media store.",
            "df shows more than twice what the bucket holds of your own users' media.",
            _STEADY,
            commands=(f"df -h {site.media}",),
        ),
        Step(
            "Let nothing in",
            SERVER,
            "matrix-media-repo trusts an access token for hours, also while Synapse is down: the proxy has to stop, or "
            "uploads that come in meanwhile are lost. The database and matrix-media-repo go on. The homeserver is down "
            "from here until it is started again.",
            "A client can't connect.",
            "Start them again.",
            commands=quiet,
            effects=(Effect.STOPS,),
        ),
        Step(
            "Export, and import into Synapse",
            SERVER,
            f"Media of your own users, into Synapse's media store and its database. {_UNTRIED} Media of other servers "
            "is fetched from them again.",
            "No WARN in what it prints. It may be run again: what Synapse has already is left out.",
            "Start them again: matrix-media-repo still has everything.",
            commands=(export, bring, f"chown -R {site.user} {site.media}"),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "The hash that matrix-media-repo has of each file, against the file that Synapse got. "
            f"{site.domain} must be what stands in your user ids.",
            "sha256sum prints nothing, and the number of lines is not 0. A file it names is missing or other: do "
            "not go on.",
            "Start them again: matrix-media-repo still has everything.",
            commands=_sums(site),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Switch over and start",
            site.operator,
            "Synapse's own repository goes on, and the routes lead to it. The stack, the database of matrix-media-repo "
            "and its datastore ids stay as they are.",
            f"{_LOOK} synapse-media check on the server's files finds nothing.",
            "Put the files back and apply again; what came in since is known to Synapse alone.",
            commands=switch,
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (_empty_bucket(site, old),))


# Direct migrations, without the disk in between


def module_to_goofys(site: Site, old: Remote) -> Migration:
    """The same bucket, whose keys are the same for both: first the module is out, then the mount is in."""
    steps = (
        *_no_clean_up(site),
        _have_key(site, old),
        _reach([old]),
        Step(
            "Copy what is on the disk alone",
            SERVER,
            "While Synapse runs, so that little is left to copy while it is down.",
            "rclone ends with 0 errors.",
            "Nothing to undo: the local media is only read.",
            commands=rclone.upload(site, old),
        ),
        _change_method(site, old, GOOFYS, Word.WIDEN_POLICY, "Goofys deletes and renames, so its key may as well."),
        _render(site, old, GOOFYS, key=False),
        _stop(site, "The module and a mount of its bucket must never be there together: its job deletes the objects."),
        Step(
            "Copy the rest",
            SERVER,
            "What came in since.",
            "rclone ends with 0 errors.",
            "Start Synapse again: the module is still in use.",
            commands=rclone.upload(site, old),
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Everything of the disk must be in the bucket, with the same content: both are read.",
            f"{SAME} The bucket may hold more: what is not on the disk any more.",
            "Start Synapse again: the module is still in use.",
            commands=(rclone.compare(rclone.word(site.media), old.path),),
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Take the module out",
            site.operator,
            "Before the bucket is mounted, and not with the same command.",
            _no_module(site) + ("." if site.plain else f", and systemctl list-timers on the server names no {_TIMER}."),
            "Put the file back.",
            commands=_remove_module(site),
            effects=(Effect.LEFT,),
        ),
        Step(
            "Mount the bucket and start",
            site.operator,
            "The local media is kept beside the mount, out of its way.",
            f"findmnt -t fuse.goofys,fuse   names the mount. {_LOOK}",
            "Stop Synapse, unmount, put the local media back and the module's file: the bucket has all of it.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=(
                *(() if site.plain else (f"ssh root@{site.machine} mv {site.media} {site.aside}",)),
                *_install(site),
            ),
            effects=(Effect.ENTERED, Effect.STARTS),
        ),
    )
    last = (
        Step(
            "Remove the local media, after some weeks",
            SERVER,
            "It was compared with the bucket.",
            "An old picture is still shown.",
            "None: what is deleted is gone.",
            commands=(f"rm -r {site.media if site.plain else site.aside}",),
            effects=(Effect.EMPTIED,),
        ),
    )
    return Migration(steps, last, one_at_a_time=True, deletes_by_name=True).checked()


def goofys_to_module(site: Site, old: Remote) -> Migration:
    """The same bucket, whose keys are the same for both: nothing is copied, but the mount must be gone first."""
    unmount = (
        (
            f"rm {_DROP_IN}",
            f"rm {synapse.UNITS}/{synapse.UNIT_DROP_INS}/{synapse.GOOFYS_NAME}.conf",
            f"systemctl disable --now {synapse.GOOFYS_UNIT}",
            "systemctl daemon-reload",
        )
        if site.plain
        else (
            f"rm {site.configuration}    # and every line of {playbook.GOOFYS} elsewhere",
            f"ssh root@{site.machine} systemctl disable --now {playbook.GOOFYS_UNIT}",
        )
    )
    steps = (
        _stop(site, "The mount must be gone before the module comes: its job deletes the objects through a mount."),
        Step(
            "Unmount the bucket",
            site.operator,
            "Goofys has written a file when it was closed, and Synapse has closed all of them.",
            "On the server: findmnt -t fuse.goofys,fuse   names no mount of the bucket."
            + (
                ""
                if site.plain
                else f" ls -A {site.media}   lists nothing; what it lists was written below the mount: keep it there."
            ),
            "Mount it again and start Synapse.",
            commands=unmount,
            effects=(Effect.LEFT,),
        ),
        _change_method(site, old, MODULE, Word.NARROW_POLICY, "The module never deletes, so its key may not."),
        _render(site, old, MODULE, key=False),
        Step(
            "Take the module into use and start",
            site.operator,
            "Synapse finds nothing on the disk and reads from the bucket, under the same keys as before. New files are "
            "written to both."
            + (f" {synapse.MEDIA_STORE_PATH} in homeserver.yaml names a local directory." if site.plain else ""),
            f"{_LOOK} The new picture is below {site.media}/local_content and in the bucket.",
            "Stop Synapse, take the module out, and only then mount again.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=_install(site),
            effects=(Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (), copies_media=False, one_at_a_time=True).checked()


def _change_method(site: Site, old: Remote, method: str, word: Word, why: str) -> Step:
    path = f"stacks/Pulumi.{old.stack}.yaml"
    return Step(
        "Change the method of the stack",
        HERE,
        f"In {path}: `method: {method}`, and for this once `synapse-media:allow: [{entry(site.name, word)}]`. {why}",
        f"synapse-media diff --stack {old.stack}   names the policy and nothing of the bucket, before `up`; afterwards "
        "the key is proved anew.",
        "Change the line back, and `up` again.",
        commands=(f"synapse-media up --stack {old.stack}",),
    )


def between_stores(site: Site, method: str, old: Remote, new: Remote) -> Migration:
    """The same method on another store: objects keep their keys, so they are copied from bucket to bucket."""
    local = method == MODULE
    last_copy = (*(rclone.upload(site, new)[:1] if local else ()), *rclone.between(old, new))
    compared = (
        rclone.compare(old.path, new.path),
        *((rclone.compare(rclone.word(site.media), new.path),) if local else ()),
    )
    ids = " The datastore id stays: matrix-media-repo finds each object by id and name." if method == MEDIA_REPO else ""
    steps = (
        *(_no_clean_up(site) if local else ()),
        _make(new, method, site),
        _render(site, new, method),
        _have_key(site, old),
        _reach([old, new]),
        Step(
            "Copy what there is",
            SERVER,
            "From bucket to bucket, through this machine, while Synapse runs. The old provider may bill what "
            "leaves it.",
            "rclone ends with 0 errors.",
            "Nothing to undo: the old bucket is only read.",
            commands=rclone.between(old, new),
        ),
        _stop(
            site,
            "What comes in now goes to the old bucket, so the last copy needs quiet.",
            f"systemctl stop {media_repo.UNIT}" if method == MEDIA_REPO else "",
        ),
        Step(
            "Copy the rest",
            SERVER,
            "What came in since" + (", and what is on the disk alone." if local else "."),
            "rclone ends with 0 errors.",
            "Start Synapse again: the old bucket is still in use.",
            commands=last_copy,
            effects=(Effect.COPIED,),
        ),
        Step(
            "Compare the content",
            SERVER,
            "Everything of the old place must be in the new bucket, with the same content: both are read.",
            f"{SAME} {rclone.COUNTS}",
            "Start Synapse again: the old bucket is still in use.",
            commands=compared,
            effects=(Effect.VERIFIED,),
        ),
        Step(
            "Use the new bucket and start",
            site.operator,
            f"One file takes the place of the other.{ids}",
            f"{_LOOK} The new picture is in the new bucket, and `rclone size` of the old one stays as it was.",
            "Stop Synapse, copy what came in since back (the same commands with the stores exchanged), put the old "
            "file back and start.",
            files=(f"rendered/{site.host}/{site.configuration}",),
            commands=(
                *(
                    (f"ssh root@{site.machine} systemctl stop {playbook.GOOFYS_UNIT}",)
                    if method == GOOFYS and not site.plain
                    else (f"systemctl stop {synapse.GOOFYS_NAME}",)
                    if method == GOOFYS
                    else ()
                ),
                *_install(site),
            ),
            effects=(Effect.LEFT, Effect.ENTERED, Effect.STARTS),
        ),
    )
    return Migration(steps, (_empty_bucket(site, old),), deletes_by_name=local).checked()
