"""Thin classes of the resources that the plugin `s3store` makes; what each takes and gives is said there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi


class _Resource(pulumi.CustomResource):
    def __init__(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        outputs: tuple[str, ...],
        options: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(f"s3store:index:{kind}", name, {**dict.fromkeys(outputs), **inputs}, options)

    def out(self, name: str) -> pulumi.Output[Any]:
        """An output by its name in the plugin."""
        found: pulumi.Output[Any] = pulumi.get(self, name)
        return found


class Bucket(_Resource):
    """A bucket; `kind` says which family makes it, `more` what that gives beside what all give."""

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Any],
        options: pulumi.ResourceOptions,
        kind: str = "Bucket",
        more: tuple[str, ...] = (),
    ) -> None:
        super().__init__(kind, name, inputs, ("lacks", "adopted", "differences", *(more or ("arn",))), options)


class User(_Resource):
    """synapse_media.plugin.iam.User"""

    def __init__(self, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__("User", name, inputs, ("arn",), options)


class UserPolicy(_Resource):
    """synapse_media.plugin.iam.UserPolicy"""

    def __init__(self, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__("UserPolicy", name, inputs, (), options)


class KeyRing(_Resource):
    """A key ring of any provider; `kind` says which family keeps it."""

    def __init__(
        self, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions, kind: str = "KeyRing"
    ) -> None:
        outputs = ("keys", "secrets", "accessKeyId", "secretAccessKey", "unknownKeys", "inactiveKeys")
        super().__init__(kind, name, inputs, outputs, options)


def by_name(options: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """The options of a ring whose keys are known again by their names: made anew, the old keys go first.

    After, they would take the new ones of the same names with them.
    """
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(delete_before_replace=True))


class ExistingKey(_Resource):
    """synapse_media.plugin.existing_key.ExistingKey"""

    def __init__(self, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__("ExistingKey", name, inputs, ("accessKeyId", "secretAccessKey"), options)


class Proof(_Resource):
    """synapse_media.plugin.proof.ProofResource"""

    def __init__(self, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__("Proof", name, inputs, ("madeFor", "lines", "secretSha256"), options)


class SpacesAdminKey(_Resource):
    """synapse_media.plugin.digitalocean_spaces.SpacesAdminKey"""

    def __init__(self, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__("SpacesAdminKey", name, inputs, ("accessKeyId", "secretAccessKey"), options)
