# Written by `synapse-media render` for matrix.example.com; the next run writes it again.
#
# What it does on the server:
# - Mounts the bucket "acme-media" and makes Synapse keep its media there: new media is written to
#   the bucket alone. Media that was there before is not found until it is copied.
# - Never use the storage provider module on this bucket as well: its clean-up would delete the
#   objects.
# - Goofys has had no release since 2020. The storage provider module is the way off it.
# - The key was proved to do what this needs, before this was written.
# To apply:
# Install these files as INSTALL.md says, which copies the media first, then:
#     sudo nixos-rebuild switch
# To undo:
# Copy the media back first, since it lies in the bucket alone: INSTALL.md says how. Then take
# synapse-media.nix out of `imports` and rebuild.
{ config, lib, pkgs, ... }:

let
  synapse = config.services.matrix-synapse;
  mountPoint = "/var/lib/matrix-synapse/media-s3";
  mediaStore = toString synapse.settings.media_store_path;
  # The same directory in one spelling, with a slash at its end.
  spelled = path:
    let parts = builtins.filter (part: builtins.isString part && part != "" && part != ".") (builtins.split "/" path);
    in builtins.concatStringsSep "" (map (part: "/${part}") parts) + "/";
  within = inner: outer: lib.hasPrefix (spelled outer) (spelled inner);
  # Each process of Synapse may store media.
  units = [ "matrix-synapse" ]
    ++ map (name: "matrix-synapse-worker-${name}") (builtins.attrNames synapse.workers);
  load = if config.synapse-media.encrypted then "LoadCredentialEncrypted" else "LoadCredential";
in
{
  options.synapse-media = {
    besideMediaStore = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the bucket is mounted and Synapse keeps its present media store, while media is copied.";
    };
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
          config.synapse-media.besideMediaStore
          -> !(within mountPoint mediaStore) && !(within mediaStore mountPoint);
        message =
          "The bucket's mount point, ${mountPoint}, is Synapse's media_store_path, ${mediaStore}, or one "
          + "is in the other, so the mount would hide media. Render again with another --media-path.";
      }
      {
        assertion =
          builtins.match "/[A-Za-z0-9._/+@-]+" config.synapse-media.credentialsFile != null
          && !(lib.hasPrefix "${builtins.storeDir}/" config.synapse-media.credentialsFile);
        message = "synapse-media.credentialsFile must be an absolute path outside of the Nix store.";
      }
    ];
    services.matrix-synapse.settings = lib.mkIf (!config.synapse-media.besideMediaStore) {
      media_store_path = mountPoint;
    };
    systemd.tmpfiles.rules = [ "d ${mountPoint} 0700 matrix-synapse matrix-synapse -" ];
    systemd.services = {
      synapse-media-goofys = {
        description = "Synapse's media on S3, mounted with Goofys";
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        after = [ "network-online.target" ];
        before = map (unit: "${unit}.service") units;
        path = [ pkgs.util-linux ];
        environment = {
          AWS_SHARED_CREDENTIALS_FILE = "%d/synapse-media";
        };
        serviceConfig = {
          ${load} = [ "synapse-media:${config.synapse-media.credentialsFile}" ];
          ExecStart =
            "${pkgs.goofys}/bin/goofys -f -o allow_other"
            + " --uid ${toString config.users.users.matrix-synapse.uid} --gid ${toString config.users.groups.matrix-synapse.gid} "
            + "--endpoint=http://127.0.0.1:7070 --region us-east-1 --stat-cache-ttl 60m0s --type-cache-ttl 60m0s --dir-mode 0700 --file-mode 0700 acme-media"
            + " ${mountPoint}";
          ExecStop = "${pkgs.util-linux}/bin/umount ${mountPoint}";
          Restart = "always";
          RestartSec = 2;
        };
        # What a Goofys that died has left in the way.
        preStart = "umount --lazy ${mountPoint} 2>/dev/null || true";
        # Synapse must not start before the bucket is there: it would write below the mount.
        postStart = ''
          for i in $(seq 60); do
            if mountpoint -q -- ${mountPoint}; then exit 0; fi
            sleep 0.5
          done
          exit 1
        '';
      };
    }
    // lib.optionalAttrs (!config.synapse-media.besideMediaStore) (
      # They start after the bucket is mounted, and stop with the mount.
      lib.genAttrs units (_: {
        requires = [ "synapse-media-goofys.service" ];
        after = [ "synapse-media-goofys.service" ];
      })
    );
  };
}
