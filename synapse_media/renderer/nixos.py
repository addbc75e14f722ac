"""The form for NixOS: a module next to services.matrix-synapse, which reads the key from a path.

What Nix evaluates lies in its store, which everybody on the machine can read: so no secret is in the module, and
systemd hands the file to Synapse as a credential. boto3 reads it as a shared credentials file.
https://search.nixos.org/options?query=services.matrix-synapse
https://systemd.io/CREDENTIALS/
"""

from __future__ import annotations

from collections.abc import Iterable

from synapse_media.contract import StorageOutputs
from synapse_media.homeserver import synapse

from . import quoting
from . import synapse_s3_storage_provider as module
from .request import Instructions, Request
from .text import PROVE, ca_path, credentials_file, header, host

MODULE_FILE = "synapse-media.nix"
_PATH = "/var/lib/synapse-media/credentials"
CREDENTIALS = "credentials"
SERVICE = f"services.{synapse.UNIT}"
_PLUGIN = f"{synapse.UNIT}-s3-storage-provider"


def instructions(request: Request) -> Instructions:
    key = (
        "" if request.store.keyless or request.by_reference else f", {key_path(request)}, {CREDENTIALS} and store.json"
    )
    return Instructions(
        does=module.does(request),
        apply=(
            f"Install {MODULE_FILE}{'' if request.store.keyless else ' and the key'} as INSTALL.md says, then:",
            "    sudo nixos-rebuild switch",
        ),
        undo=(f"Take {MODULE_FILE} out of `imports` and rebuild, then remove {MODULE_FILE}{key}. {module.UNDO_KEEPS}",),
    )


def files(request: Request) -> dict[str, str]:
    found = {"INSTALL.md": _install(request), MODULE_FILE: _module(request)}
    if not request.store.keyless and not request.by_reference:
        found[CREDENTIALS] = credentials_file(request.store, f"for {key_path(request)}, which is root's and 0600.")
    return found


def key_path(request: Request) -> str:
    return request.source.place if request.source else _PATH


def key_options(request: Request) -> str:
    """The options that say where the key is."""
    return f"""    credentialsFile = lib.mkOption {{
      type = lib.types.str;
      default = {quoting.nix("path", key_path(request))};
      example = lib.literalExpression "config.age.secrets.synapse-media.path";
      description = "The file with the key, outside of the Nix store; root alone needs to read it.";
    }};
    encrypted = lib.mkOption {{
      type = lib.types.bool;
      default = false;
      description = "Whether that file was encrypted by systemd-creds.";
    }};
"""


KEY_ASSERTION = """      {
        assertion =
          builtins.match "/[A-Za-z0-9._/+@-]+" config.synapse-media.credentialsFile != null
          && !(lib.hasPrefix "${builtins.storeDir}/" config.synapse-media.credentialsFile);
        message = "synapse-media.credentialsFile must be an absolute path outside of the Nix store.";
      }
"""
LOADS = '  load = if config.synapse-media.encrypted then "LoadCredentialEncrypted" else "LoadCredential";\n'
LOAD_KEY = """${load} = [ "synapse-media:${config.synapse-media.credentialsFile}" ];
"""
"""An entry of `serviceConfig` that hands the key to a unit, where LOADS is among the module's names."""
UNITS = f"""  # Each process of Synapse may store media.
  units = [ "{synapse.UNIT}" ]
    ++ map (name: "{synapse.UNIT}-worker-${{name}}") (builtins.attrNames synapse.workers);
"""


def variables(request: Request, authority: str) -> list[tuple[str, str]]:
    """What a program that signs with the key has in its environment, as (name, Nix value).

    Args:
        authority: the variable by which it finds the certificate of a private authority.
    """
    store = request.store
    found = [(authority, quoting.nix("ca_file", ca_path(store, "an environment of systemd")))] if store.ca_file else []
    if not store.keyless:
        found.append(("AWS_SHARED_CREDENTIALS_FILE", quoting.nix("path", "%d/synapse-media")))
    return found


def assertions(*found: str) -> str:
    """What must hold for the configuration to build."""
    return f"    assertions = [\n{''.join(found)}    ];\n"


def attributes(name: str, pairs: Iterable[tuple[str, str]], indent: int) -> str:
    """An attribute set of (name, Nix value) at a depth of blanks; "" without any."""
    blanks = " " * indent
    lines = "".join(f"{blanks}  {attribute} = {value};\n" for attribute, value in pairs)
    return f"{blanks}{name} = {{\n{lines}{blanks}}};\n" if lines else ""


def _settings(store: StorageOutputs) -> str:
    indent = " " * 6
    options = "".join(
        f"{indent}      {synapse.MODULE_OPTIONS[name]} = {quoting.nix(name, value)};\n"
        for name, value in module.options(store)
    )
    switches = "".join(
        f"{indent}    {name} = true;\n"
        for name in (synapse.STORE_LOCAL, synapse.STORE_REMOTE, synapse.STORE_SYNCHRONOUS)
    )
    return (
        f"{indent}settings.{synapse.PROVIDERS} = [\n{indent}  {{\n"
        f"{indent}    module = {quoting.nix('module', synapse.MODULE_CLASS)};\n"
        f"{switches}{indent}    config = {{\n{options}{indent}    }};\n{indent}  }}\n{indent}];\n"
    )


def _module(request: Request) -> str:
    store = request.store
    environment = [(name, quoting.nix(name, "when_required")) for name in module.checksum_variables(store)]
    environment += variables(request, "AWS_CA_BUNDLE")
    option = load = checks = loads = ""
    if not store.keyless:
        option = f"  options.synapse-media = {{\n{key_options(request)}  }};\n\n"
        checks, load, loads = assertions(KEY_ASSERTION), f"      serviceConfig.{LOAD_KEY}", LOADS
    per_unit = attributes("environment", environment, 6) + load
    units = "    systemd.services = lib.genAttrs units (_: {\n" + per_unit + "    });\n" if per_unit else ""
    names = UNITS if per_unit else ""
    more = f"Its list is added to a `{synapse.PROVIDERS}` that other modules of yours set."
    return (
        header(request, instructions(request), more)
        + f"{{ config, lib, ... }}:\n\nlet\n  synapse = config.{SERVICE};\n"
        + names
        + loads
        + "in\n{\n"
        + option
        + "  config = lib.mkIf synapse.enable {\n"
        + checks
        + f"    {SERVICE} = {{\n"
        + f"      plugins = [ synapse.package.plugins.{_PLUGIN} ];\n"
        + _settings(store)
        + "    };\n"
        + units
        + "  };\n}\n"
    )


def key_step(request: Request, readers: str) -> str:
    """The first step of INSTALL.md: the key's file.

    Args:
        readers: the processes that systemd hands it to.
    """
    path = key_path(request)
    put = f"    sudo install -D -o root -g root -m 0600 {CREDENTIALS} {path}"
    if request.by_reference:
        put = f"The file is {path} by default; put it there by your own means, with root as its owner and mode "
        put += "0600 or 0400."
    return f"""1. The key, in a file that root alone can read:

   {put}

   systemd hands it to {readers} (`LoadCredential=`); it is neither in the Nix store nor in an environment.
   Keep `{CREDENTIALS}` out of the directory of a flake or of a configuration under git: Nix copies that to its store.
   The file's content, a shared credentials file of AWS:

       [default]
       aws_access_key_id = ID
       aws_secret_access_key = SECRET

   Where your secrets are kept elsewhere, say in your configuration what its path is:

   - agenix (the file encrypted as synapse-media.age):

         age.secrets.synapse-media.file = ./synapse-media.age;
         synapse-media.credentialsFile = config.age.secrets.synapse-media.path;

   - sops-nix (the file encrypted as a whole):

         sops.secrets.synapse-media = {{ sopsFile = ./synapse-media.sops; format = "binary"; }};
         synapse-media.credentialsFile = config.sops.secrets.synapse-media.path;

   - systemd's encrypted credentials, bound to this machine:

         sudo install -d -m 0700 /etc/credstore.encrypted
         sudo systemd-creds encrypt --name=synapse-media {CREDENTIALS} /etc/credstore.encrypted/synapse-media

     and in the configuration:

         synapse-media.credentialsFile = "/etc/credstore.encrypted/synapse-media";
         synapse-media.encrypted = true;

"""


def remove_key(request: Request) -> str:
    """The commands that remove the key's file, and what was rendered with the key in it."""
    text = f"    sudo rm -f {key_path(request)} /etc/credstore.encrypted/synapse-media\n"
    return text if request.by_reference else text + f"    rm -f {CREDENTIALS} store.json\n"


def prove(request: Request) -> str:
    """The command that proves the key on the server, as part of a sentence."""
    if request.by_reference and not request.store.keyless:
        return f"`AWS_SHARED_CREDENTIALS_FILE={key_path(request)} {PROVE}` as root, since store.json has no secret"
    return f"`{PROVE}`"


def trusted(store: StorageOutputs) -> str:
    """The sentence on the file of a private authority, if there is one."""
    if not store.ca_file:
        return ""
    return f"\nThe store's certificate is trusted with {store.ca_file}: that file must be on this machine.\n"


KEYLESS = "\nFirst run `synapse-media prove --store store.json` on this very machine: its role was not proved.\n"


def _install(request: Request) -> str:
    store = request.store
    what = instructions(request)
    name = host(store.server_name)
    key, number, remove = "", 1, ""
    if not store.keyless:
        key, number, remove = key_step(request, "Synapse's processes"), 2, f"\n{remove_key(request)}"
    return f"""# {name}: media on S3 with synapse-s3-storage-provider, on NixOS

What it does: {" ".join(what.does)}
{KEYLESS if store.keyless else ""}
A wrong key does not keep Synapse from starting: every upload fails instead. So prove the key from the server
itself first: {prove(request)}.
{trusted(store)}
## Install

{key}{number}. {MODULE_FILE} beside configuration.nix, and in `imports` there:

       imports = [ ./{MODULE_FILE} ];

{number + 1}. `sudo nixos-rebuild switch`, which builds Synapse with the module and restarts it. nixpkgs builds the
   module against its own Synapse; this says which release of it:

       nix-instantiate --eval '<nixpkgs>' -A {synapse.UNIT}.plugins.{_PLUGIN}.version

After another key was rendered, put its file in place of the old one and `sudo systemctl restart {synapse.UNIT}`
({synapse.UNIT}.target where there are workers).

## Undo

{" ".join(what.undo)}
{remove}
{module.NEVER_DELETES}
"""
