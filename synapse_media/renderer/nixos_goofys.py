"""The form for NixOS with Goofys: a module with a service that mounts the bucket, next to services.matrix-synapse.

The service is root's, since nixpkgs has the set-uid fusermount no longer on every machine, and Goofys mounts without
it as root; `allow_other` lets Synapse's user in, and systemd, which binds the media store into Synapse's own file
system (`ReadWritePaths=`). Goofys has the kernel check the modes, which `--uid` and `--file-mode` set.
https://github.com/NixOS/nixpkgs/pull/528369
https://github.com/NixOS/nixpkgs/blob/master/pkgs/by-name/go/goofys/package.nix
https://github.com/NixOS/nixpkgs/blob/master/nixos/modules/services/matrix/synapse.nix
"""

from __future__ import annotations

from synapse_media.homeserver import synapse

from . import goofys, quoting
from .nixos import (
    CREDENTIALS,
    KEY_ASSERTION,
    KEYLESS,
    LOAD_KEY,
    LOADS,
    MODULE_FILE,
    SERVICE,
    UNITS,
    assertions,
    attributes,
    key_options,
    key_path,
    key_step,
    prove,
    remove_key,
    trusted,
    variables,
)
from .request import Instructions, Request
from .text import credentials_file, header, host

_NAME = synapse.GOOFYS_NAME
_BESIDE = "synapse-media.besideMediaStore = true;"
_WITHIN = f"""  mediaStore = toString synapse.settings.{synapse.MEDIA_STORE_PATH};
  # The same directory in one spelling, with a slash at its end.
  spelled = path:
    let parts = builtins.filter (part: builtins.isString part && part != "" && part != ".") (builtins.split "/" path);
    in builtins.concatStringsSep "" (map (part: "/${{part}}") parts) + "/";
  within = inner: outer: lib.hasPrefix (spelled outer) (spelled inner);
"""
_APART = f"""      {{
        assertion =
          config.synapse-media.besideMediaStore
          -> !(within mountPoint mediaStore) && !(within mediaStore mountPoint);
        message =
          "The bucket's mount point, ${{mountPoint}}, is Synapse's {synapse.MEDIA_STORE_PATH}, ${{mediaStore}}, or one "
          + "is in the other, so the mount would hide media. Render again with another --media-path.";
      }}
"""
"""While media is copied to the mount, it must not cover what is copied."""


def instructions(request: Request) -> Instructions:
    return Instructions(
        does=goofys.instructions(request, "plain").does,
        apply=(
            "Install these files as INSTALL.md says, which copies the media first, then:",
            "    sudo nixos-rebuild switch",
        ),
        undo=(
            "Copy the media back first, since it lies in the bucket alone: INSTALL.md says how. Then take "
            f"{MODULE_FILE} out of `imports` and rebuild.",
        ),
    )


def files(request: Request) -> dict[str, str]:
    goofys.check(request)
    found = {"INSTALL.md": _install(request), MODULE_FILE: _module(request)}
    if not request.store.keyless and not request.by_reference:
        found[CREDENTIALS] = credentials_file(request.store, f"for {key_path(request)}, which is root's and 0600.")
    return found


def _mount(request: Request) -> str:
    allowed = "an absolute path of letters, digits and . _ / + -, and no /../"
    path = request.media_path or synapse.GOOFYS_MOUNT
    # NixOS has the path in ReadWritePaths=, where it quotes nothing.
    return quoting.need("media_path", path, r"(?!.*/\.\.(?:/|$))/[A-Za-z0-9._/+-]+", allowed, "a mount on NixOS")


def _module(request: Request) -> str:
    store = request.store
    user = f"config.users.users.{synapse.USER}"
    words = " ".join((f"--endpoint={store.endpoint_url}", "--region", store.region, *goofys.TUNING, store.bucket))
    keyless = store.keyless
    return (
        header(request, instructions(request))
        + "{ config, lib, pkgs, ... }:\n\nlet\n"
        + f"  synapse = config.{SERVICE};\n"
        + f"  mountPoint = {quoting.nix('media_path', _mount(request))};\n"
        + _WITHIN
        + UNITS
        + ("" if keyless else LOADS)
        + "in\n{\n  options.synapse-media = {\n"
        + """    besideMediaStore = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the bucket is mounted and Synapse keeps its present media store, while media is copied.";
    };
"""
        + ("" if keyless else key_options(request))
        + "  };\n\n  config = lib.mkIf synapse.enable {\n"
        + assertions(_APART, *(() if keyless else (KEY_ASSERTION,)))
        + f"    {SERVICE}.settings = lib.mkIf (!config.synapse-media.besideMediaStore) {{\n"
        + f"      {synapse.MEDIA_STORE_PATH} = mountPoint;\n    }};\n"
        + f'    systemd.tmpfiles.rules = [ "d ${{mountPoint}} 0700 {synapse.USER} {synapse.USER} -" ];\n'
        + f"    systemd.services = {{\n      {_NAME} = {{\n"
        + """        description = "Synapse's media on S3, mounted with Goofys";
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        after = [ "network-online.target" ];
        before = map (unit: "${unit}.service") units;
        path = [ pkgs.util-linux ];
"""
        + attributes("environment", variables(request, "SSL_CERT_FILE"), 8)
        + "        serviceConfig = {\n"
        + ("" if keyless else f"          {LOAD_KEY}")
        + f"""          ExecStart =
            "${{pkgs.goofys}}/bin/goofys -f -o allow_other"
            + " --uid ${{toString {user}.uid}} --gid ${{toString config.users.groups.{synapse.USER}.gid}} "
            + {quoting.nix("bucket", words)}
            + " ${{mountPoint}}";
          ExecStop = "${{pkgs.util-linux}}/bin/umount ${{mountPoint}}";
          Restart = "always";
          RestartSec = 2;
        }};
        # What a Goofys that died has left in the way.
        preStart = "umount --lazy ${{mountPoint}} 2>/dev/null || true";
        # Synapse must not start before the bucket is there: it would write below the mount.
        postStart = ''
          for i in $(seq 60); do
            if mountpoint -q -- ${{mountPoint}}; then exit 0; fi
            sleep 0.5
          done
          exit 1
        '';
      }};
    }}
    // lib.optionalAttrs (!config.synapse-media.besideMediaStore) (
      # They start after the bucket is mounted, and stop with the mount.
      lib.genAttrs units (_: {{
        requires = [ "{_NAME}.service" ];
        after = [ "{_NAME}.service" ];
      }})
    );
  }};
}}
"""
    )


def _install(request: Request) -> str:
    store = request.store
    what = instructions(request)
    mount = _mount(request)
    key, number, remove = "", 1, ""
    if not store.keyless:
        key, number, remove = key_step(request, "Goofys"), 2, remove_key(request)
    return f"""# {host(store.server_name)}: media on S3 with Goofys, on NixOS

What it does: {" ".join(what.does)}
{KEYLESS if store.keyless else ""}
Prove the key from the server itself first: {prove(request)}.
{trusted(store)}
Where there are workers, it is `{synapse.UNIT}.target` that is stopped and started below.

## Install

{key}{number}. {MODULE_FILE} beside configuration.nix, with Synapse still on its present media store:

       imports = [ ./{MODULE_FILE} ];
       {_BESIDE}

   and then

       sudo nixos-rebuild switch
       findmnt {mount}

{number + 1}. Copy the media that is there. MEDIA is the directory that `{SERVICE}.settings.{synapse.MEDIA_STORE_PATH}`
   names, /var/lib/{synapse.UNIT}/media_store by default (`media` where `system.stateVersion` is below 22.05), and
   never the mount. This prints it:

       grep {synapse.MEDIA_STORE_PATH} $(systemctl cat {synapse.UNIT} | grep -om1 '/nix/store/[^ ]*homeserver.yaml')

   The second run, with Synapse stopped, is the one that counts:

       sudo nix-shell -p rsync --run 'rsync -rt --size-only MEDIA/. {mount}/.'
       sudo systemctl stop {synapse.UNIT}
       sudo nix-shell -p rsync --run 'rsync -rt --size-only MEDIA/. {mount}/.'

{number + 2}. Remove the line `{_BESIDE}`, and a `{synapse.MEDIA_STORE_PATH}` of your own, and let Synapse use
   the mount:

       sudo nixos-rebuild switch
       sudo systemctl start {synapse.UNIT}

Look at an old picture and send a new one before you think of removing MEDIA. After another key was rendered, put its
file in place of the old one and `sudo systemctl restart {_NAME}`, which restarts Synapse as well.

## Undo

    sudo systemctl stop {synapse.UNIT}
    sudo nix-shell -p rsync --run 'rsync -rtog --size-only --chown={synapse.USER}:{synapse.USER} {mount}/. MEDIA/.'

Take {MODULE_FILE} out of `imports`, set `{synapse.MEDIA_STORE_PATH}` again where you had set it, then:

    sudo nixos-rebuild switch
    sudo systemctl start {synapse.UNIT}
{remove}"""
