"""Resources of one's own beside the stores of the stack file: here a file that says where the media is."""

from pathlib import Path

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider
from synapse_media.components import from_config, make, publish


class _FileProvider(ResourceProvider):
    def create(self, props):
        Path(props["path"]).write_text(props["text"])
        return CreateResult(id_=props["path"], outs=props)

    def delete(self, _id, props):
        Path(props["path"]).unlink(missing_ok=True)


class File(Resource):
    """Any resource of your own: a DNS record, a host, a dashboard."""

    def __init__(self, name, path, text, opts=None):
        replace = pulumi.ResourceOptions(replace_on_changes=["*"], delete_before_replace=True)
        super().__init__(
            _FileProvider(), name, {"path": path, "text": text}, pulumi.ResourceOptions.merge(replace, opts)
        )


stores = {name: make(store) for name, store in from_config().items()}
for name, store in stores.items():
    place = pulumi.Output.format("{}/{}", store["endpoint_url"], store["bucket"])
    File(f"{name}-place", f"{name}.txt", place)

publish(stores)
