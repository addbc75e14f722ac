# Written by `synapse-media render` for matrix.example.com; the next run writes it again.
#
# What it does on the server:
# - Synapse copies every new file of local and remote users to the bucket "acme-media" before it
#   answers an upload, and reads from the bucket what it does not have on disk. Files that are there
#   already are not copied: `synapse-media media copy` does that.
# - Every file stays on the local disk as well: nothing is deleted. To free the disk, by a timer
#   too, use `synapse-media media free`, which compares the content first; never `s3_media_upload`,
#   which goes by names alone.
# - The key was proved to do what this needs, before this was written.
# To apply:
# Install synapse-media.nix and the key as INSTALL.md says, then:
#     sudo nixos-rebuild switch
# To undo:
# Take synapse-media.nix out of `imports` and rebuild, then remove synapse-media.nix,
# /var/lib/synapse-media/credentials, credentials and store.json. Local copies stay, so no media is
# lost as long as nobody cleaned the local disk up.
#
# Its list is added to a `media_storage_providers` that other modules of yours set.
{ config, lib, ... }:

let
  synapse = config.services.matrix-synapse;
  # Each process of Synapse may store media.
  units = [ "matrix-synapse" ]
    ++ map (name: "matrix-synapse-worker-${name}") (builtins.attrNames synapse.workers);
  load = if config.synapse-media.encrypted then "LoadCredentialEncrypted" else "LoadCredential";
in
{
  options.synapse-media = {
    credentialsFile = lib.mkOption {
      type = lib.types.str;
      default = "/var/lib/synapse-media/credentials";
      example = lib.literalExpression "config.age.secrets.synapse-media.path";
      description = "The file with the key, outside of the Nix store; root alone needs to read it.";
    };
    encrypted = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether that file was encrypted by systemd-creds.";
    };
  };

  config = lib.mkIf synapse.enable {
    assertions = [
      {
        assertion =
          builtins.match "/[A-Za-z0-9._/+@-]+" config.synapse-media.credentialsFile != null
          && !(lib.hasPrefix "${builtins.storeDir}/" config.synapse-media.credentialsFile);
        message = "synapse-media.credentialsFile must be an absolute path outside of the Nix store.";
      }
    ];
    services.matrix-synapse = {
      plugins = [ synapse.package.plugins.matrix-synapse-s3-storage-provider ];
      settings.media_storage_providers = [
        {
          module = "s3_storage_provider.S3StorageProviderBackend";
          store_local = true;
          store_remote = true;
          store_synchronous = true;
          config = {
            bucket = "acme-media";
            region_name = "us-east-1";
            endpoint_url = "http://127.0.0.1:7070";
            storage_class = "STANDARD";
            prefix = "media/";
          };
        }
      ];
    };
    systemd.services = lib.genAttrs units (_: {
      environment = {
        AWS_REQUEST_CHECKSUM_CALCULATION = "when_required";
        AWS_RESPONSE_CHECKSUM_VALIDATION = "when_required";
        AWS_SHARED_CREDENTIALS_FILE = "%d/synapse-media";
      };
      serviceConfig.${load} = [ "synapse-media:${config.synapse-media.credentialsFile}" ];
    });
  };
}
