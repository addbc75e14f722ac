"""The form for NixOS: a module next to services.matrix-synapse, which reads the key from a path.

What Nix evaluates lies in its store, which everybody on the machine can read: so no secret is in the module, and
systemd hands the file to Synapse as a credential. boto3 reads it as a shared credentials file.
https://search.nixos.org/options?query=services.matrix-synapse
https://systemd.io/CREDENTIALS/
"""

from __future__ import annotations

from synapse_media.contract import StorageOutputs
from synapse_media.homeserver import synapse

from . import quoting
from . import synapse_s3_storage_provider as module
from .request import Instructions, Request
from .text import PROVE, ca_path, credentials_file, header, host

_MODULE = "synapse-media.nix"
_PATH = "/var/lib/synapse-media/credentials"
_CREDENTIALS = "credentials"
_SERVICE = f"services.{synapse.UNIT}"
_PLUGIN = f"{synapse.UNIT}-s3-storage-provider"


def instructions(request: Request) -> Instructions:
    key = "" if request.store.keyless or request.by_reference else f", {_path(request)}, {_CREDENTIALS} and store.json"
    return Instructions(
        does=module.does(request),
        apply=(
            f"Install {_MODULE}{'' if request.store.keyless else ' and the key'} as INSTALL.md says, then:",
            "    sudo nixos-rebuild switch",
        ),
        undo=(f"Take {_MODULE} out of `imports` and rebuild, then remove {_MODULE}{key}. {module.UNDO_KEEPS}",),
    )


def files(request: Request) -> dict[str, str]:
    found = {"INSTALL.md": _install(request), _MODULE: _module(request)}
    if not request.store.keyless and not request.by_reference:
        found[_CREDENTIALS] = credentials_file(request.store, f"for {_path(request)}, which is root's and 0600.")
    return found


def _path(request: Request) -> str:
    return request.source.place if request.source else _PATH


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
    if store.ca_file:
        environment.append(("AWS_CA_BUNDLE", quoting.nix("ca_file", ca_path(store, "an environment of systemd"))))
    option = load = checks = ""
    if not store.keyless:
        environment.append(("AWS_SHARED_CREDENTIALS_FILE", quoting.nix("path", "%d/synapse-media")))
        option = f"""  options.synapse-media = {{
    credentialsFile = lib.mkOption {{
      type = lib.types.str;
      default = {quoting.nix("path", _path(request))};
      example = lib.literalExpression "config.age.secrets.synapse-media.path";
      description = "The file with the key, outside of the Nix store; root alone needs to read it.";
    }};
    encrypted = lib.mkOption {{
      type = lib.types.bool;
      default = false;
      description = "Whether that file was encrypted by systemd-creds.";
    }};
  }};

"""
        checks = """    assertions = [
      {
        assertion =
          builtins.match "/[A-Za-z0-9._/+@-]+" config.synapse-media.credentialsFile != null
          && !(lib.hasPrefix "${builtins.storeDir}/" config.synapse-media.credentialsFile);
        message = "synapse-media.credentialsFile must be an absolute path outside of the Nix store.";
      }
    ];
"""
        load = """      serviceConfig.${load} = [ "synapse-media:${config.synapse-media.credentialsFile}" ];
"""
    variables = "".join(f"        {name} = {value};\n" for name, value in environment)
    per_unit = (f"      environment = {{\n{variables}      }};\n" if variables else "") + load
    units = "    systemd.services = lib.genAttrs units (_: {\n" + per_unit + "    });\n" if per_unit else ""
    loads = (
        '  load = if config.synapse-media.encrypted then "LoadCredentialEncrypted" else "LoadCredential";\n'
        if load
        else ""
    )
    names = (
        "  # Each process of Synapse may store media.\n"
        f'  units = [ "{synapse.UNIT}" ]\n'
        f'    ++ map (name: "{synapse.UNIT}-worker-${{name}}") (builtins.attrNames synapse.workers);\n'
        if per_unit
        else ""
    )
    more = f"Its list is added to a `{synapse.PROVIDERS}` that other modules of yours set."
    return (
        header(request, instructions(request), more)
        + f"{{ config, lib, ... }}:\n\nlet\n  synapse = config.{_SERVICE};\n"
        + names
        + loads
        + "in\n{\n"
        + option
        + "  config = lib.mkIf synapse.enable {\n"
        + checks
        + f"    {_SERVICE} = {{\n"
        + f"      plugins = [ synapse.package.plugins.{_PLUGIN} ];\n"
        + _settings(store)
        + "    };\n"
        + units
        + "  };\n}\n"
    )


def _install(request: Request) -> str:
    store = request.store
    what = instructions(request)
    name = host(store.server_name)
    path = _path(request)
    keyless = "\nFirst run `synapse-media prove --store store.json` on this very machine: its role was not proved.\n"
    if store.keyless:
        key, number, remove = "", 1, ""
    else:
        number = 2
        plain = (
            f"""
       sudo install -D -o root -g root -m 0600 {_CREDENTIALS} {path}
"""
            if not request.by_reference
            else f"""
   The file is {path} by default; put it there by your own means, with root as its owner and mode 0600 or 0400.
"""
        )
        key = f"""1. The key, in a file that root alone can read:
{plain}
   systemd hands it to Synapse's processes (`LoadCredential=`); it is neither in the Nix store nor in an environment.
   Keep `{_CREDENTIALS}` out of the directory of a flake or of a configuration under git: Nix copies that to its store.
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
         sudo systemd-creds encrypt --name=synapse-media {_CREDENTIALS} /etc/credstore.encrypted/synapse-media

     and in the configuration:

         synapse-media.credentialsFile = "/etc/credstore.encrypted/synapse-media";
         synapse-media.encrypted = true;

"""
        remove = f"\n    sudo rm -f {path} /etc/credstore.encrypted/synapse-media\n"
        if not request.by_reference:
            remove += f"    rm -f {_CREDENTIALS} store.json\n"
    prove = f"`{PROVE}`"
    if request.by_reference and not store.keyless:
        prove = f"`AWS_SHARED_CREDENTIALS_FILE={path} {PROVE}` as root, since store.json has no secret"
    authority = (
        f"\nThe store's certificate is trusted with {store.ca_file}: that file must be on this machine.\n"
        if store.ca_file
        else ""
    )
    return f"""# {name}: media on S3 with synapse-s3-storage-provider, on NixOS

What it does: {" ".join(what.does)}
{keyless if store.keyless else ""}
A wrong key does not keep Synapse from starting: every upload fails instead. So prove the key from the server
itself first: {prove}.
{authority}
## Install

{key}{number}. {_MODULE} beside configuration.nix, and in `imports` there:

       imports = [ ./{_MODULE} ];

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
