"""The Pulumi program: the stack file's stores, each made by the component of its provider."""

import pulumi

from components import make
from synapse_media import settings

config = pulumi.Config(settings.PROJECT)
stores = settings.parse(config.get_object("stores"), settings.with_confirmed(config.get_object("allow")))
pulumi.export("stores", {name: make(store) for name, store in stores.items()})
