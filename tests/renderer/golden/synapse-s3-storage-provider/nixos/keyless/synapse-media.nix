# Written by `synapse-media render` for matrix.example.com; the next run writes it again.
#
# What it does on the server:
# - Synapse copies every new file of local and remote users to the bucket "example-com-media" before
#   it answers an upload, and reads from the bucket what it does not have on disk. Files that are
#   there already are not copied: `synapse-media media copy` does that.
# - Every file stays on the local disk as well: nothing is deleted. To free the disk, by a timer
#   too, use `synapse-media media free`, which compares the content first; never `s3_media_upload`,
#   which goes by names alone.
# - There is no key: the machine's own role signs. It is to be proved on the instance:
#   `synapse-media prove --store store.json` there.
# To apply:
# Install synapse-media.nix as INSTALL.md says, then:
#     sudo nixos-rebuild switch
# To undo:
# Take synapse-media.nix out of `imports` and rebuild, then remove synapse-media.nix. Local copies
# stay, so no media is lost as long as nobody cleaned the local disk up.
#
# Its list is added to a `media_storage_providers` that other modules of yours set.
{ config, lib, ... }:

let
  synapse = config.services.matrix-synapse;
in
{
  config = lib.mkIf synapse.enable {
    services.matrix-synapse = {
      plugins = [ synapse.package.plugins.matrix-synapse-s3-storage-provider ];
      settings.media_storage_providers = [
        {
          module = "s3_storage_provider.S3StorageProviderBackend";
          store_local = true;
          store_remote = true;
          store_synchronous = true;
          config = {
            bucket = "example-com-media";
            region_name = "eu-central-1";
            endpoint_url = "https://s3.eu-central-1.amazonaws.com";
            storage_class = "STANDARD";
          };
        }
      ];
    };
  };
}
