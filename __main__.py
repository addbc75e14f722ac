"""The Pulumi program: the stack file's stores, each made by the component of its provider."""

from components import from_config, make, publish

publish({name: make(store) for name, store in from_config().items()})
