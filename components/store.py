"""What the components of all providers share: names, protection, the proof and the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from synapse_media import catalog
from synapse_media.allow import deletes_media, managed_settings, protects_bucket, retains_bucket
from synapse_media.contract import VERSION, policy_sha256
from synapse_media.methods import METHODS, Operation, expectations
from synapse_media.settings import StoreSettings

from . import policies, resources


class Store(pulumi.ComponentResource):
    """A homeserver's store. Subclasses make the parts; `outputs` is its StorageOutputs.

    Produces, as far as the provider has them: a private bucket (protected from deletion), a user, its policy, its key
    ring, and the proof of the active key.
    """

    outputs: dict[str, Any]

    def __init__(self, name: str, store: StoreSettings) -> None:
        self.store = store
        self.provider = catalog.load(store.provider)
        self.method = METHODS[store.method]
        family = self.provider.component.title().replace("_", "")
        # Of the children, too: where a run was cut off, the component has its new name and they have the former one.
        self.former = [pulumi.Alias(name=store.renamed_from)] if store.renamed_from else []
        options = pulumi.ResourceOptions(aliases=self.former)
        super().__init__(f"{pulumi.get_project()}:store:{family}", name, opts=options)
        self.name = name

    # ---- options

    def child(self, *depends_on: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(depends_on), aliases=self.former)

    def of_bucket(self) -> pulumi.ResourceOptions:
        """A bucket outlives mistakes: protected, unless the stack file's `allow` gives it up."""
        allow = self.store.allow
        return pulumi.ResourceOptions(
            parent=self,
            aliases=self.former,
            protect=protects_bucket(allow),
            retain_on_delete=retains_bucket(allow),
        )

    # ---- values

    @property
    def owner(self) -> str:
        """The mark on what is ours: project, stack and homeserver."""
        return f"{pulumi.get_project()}/{pulumi.get_stack()}/{self.name}"

    @property
    def former_owner(self) -> str:
        """The mark of before the homeserver was renamed; "" where it was not."""
        former = self.store.renamed_from
        return f"{pulumi.get_project()}/{pulumi.get_stack()}/{former}" if former else ""

    @property
    def addressing(self) -> str:
        """How the bucket is named in a URL: "path" or "virtual"."""
        return str(self.provider.value("addressing", "path"))

    def connection(self) -> dict[str, Any]:
        """How the plugin reaches the store (synapse_media.store.connection.Connection)."""
        return {
            "endpoint": self.store.endpoint,
            "region": self.store.region,
            "iamEndpoint": self.store.iam_endpoint,
            "addressing": self.addressing,
            "checksums": self.provider.value("checksums", "when_required"),
            "variables": list(self.provider.admin_variables),
            "caFile": str(self.store.options.get("ca_file", "")),
        }

    def key_policy(self) -> dict[str, Any]:
        store = self.store
        return policies.key_policy(store.bucket, self.method, store.access, store.prefix)

    def bucket_inputs(self) -> tuple[dict[str, Any], list[str]]:
        """Inputs of `resources.Bucket`, and in words what this provider is known not to have."""
        store, can = self.store, self.provider.can
        lacks = [
            words
            for capability, words in (
                ("versioning", "versioning"),
                ("lifecycle", "lifecycle rules (old versions and unfinished uploads stay)"),
                ("bucket_policy", "bucket policy"),
                ("public_access_block", "public access block"),
                ("encryption", "default encryption"),
            )
            if can(capability) is False
        ]
        policy = None
        if can("bucket_policy") is not False:
            tls_only = can("tls_only_policy") is not False
            lacks += [] if tls_only else ["refusal of plain http by the bucket policy"]
            https = store.endpoint.startswith("https://")
            policy = policies.to_json(policies.tls_only(store.bucket)) if https and tls_only else ""
        lifecycle = can("lifecycle") is not False
        allow = store.allow
        manage = managed_settings(allow)
        return {
            "bucket": store.bucket,
            "connection": self.connection(),
            "owner": self.owner,
            **({"formerOwner": self.former_owner} if self.former_owner else {}),
            "adopt": store.adopt,
            "manage": manage,
            "versioning": can("versioning") is not False,
            "noncurrentDays": store.noncurrent_days if lifecycle else 0,
            "abortDays": store.abort_days if lifecycle else 0,
            "policy": policy,
            "publicAccessBlock": can("public_access_block") is not False,
            "encryption": can("encryption") is not False,
            "acl": "private" if can("acl") is not False else "",
            "forceDestroy": deletes_media(allow),
        }, lacks

    def created_at(self, ring: resources.KeyRing) -> pulumi.Output[str]:
        """When the active key was made; "" while there is none, as of a ring that is half made or not touched."""
        slot = self.store.keys.active
        found: pulumi.Output[str] = ring.out("keys").apply(lambda keys: (keys or {}).get(slot, {}).get("createdAt", ""))
        return found

    # ---- the end of every provider's path

    def finish(
        self,
        *,
        region: pulumi.Input[str],
        endpoint_url: pulumi.Input[str],
        access_key_id: pulumi.Input[str],
        secret_access_key: pulumi.Input[str],
        lacks: pulumi.Input[Sequence[str]],
        made: Sequence[pulumi.Resource],
        user: str = "",
        policy: dict[str, Any] | None = None,
        admin: bool = True,
        lender: str = "",
        cannot_refuse: Sequence[str] | None = None,
        created_at: pulumi.Input[str] = "",
    ) -> None:
        """Prove the key and set `outputs`.

        Args:
            made: all that the proof must wait for.
            user: the IAM user whose key it is; "" if the store has none.
            policy: the key's policy document; None if the store has none.
            admin: an admin credential is there, who lends a decoy bucket and clears up.
            lender: who does that in the plugin where the admin has no S3 key; "" for the admin's own S3 key.
            cannot_refuse: operations this key can't be denied; None for those of the catalog.
            created_at: when the active key was made.
        """
        store = self.store
        policy_hash = policy_sha256(policy)
        open_anyway = tuple(self.provider.value("cannot_refuse", ()) if cannot_refuse is None else cannot_refuse)
        expected = expectations(self.method, store.access, open_anyway)
        if self.provider.can("bucket_policy") is False and store.access == "full":
            # Granted, but there is nothing to do with it.
            del expected[Operation.PUT_BUCKET_POLICY]
        proof = resources.Proof(
            self.name,
            {
                "connection": {**self.connection(), "endpoint": endpoint_url, "region": region},
                "bucket": store.bucket,
                "prefix": store.prefix,
                "method": store.method,
                "access": store.access,
                "endpointUrl": endpoint_url,
                "region": region,
                "policySha256": policy_hash,
                "accessKeyId": access_key_id,
                "secretAccessKey": pulumi.Output.secret(secret_access_key),
                "expected": {operation.value: value.value for operation, value in expected.items()},
                "admin": admin,
                "decoy": admin and self.provider.can("decoy_bucket") is not False,
                "lender": lender,
                "owner": self.owner,
                **({"formerOwner": self.former_owner} if self.former_owner else {}),
                "userName": user,
                "settleSeconds": store.options.get("settle_seconds", self.provider.value("key_settle_seconds", 0)),
            },
            self.child(*made),
        )
        self._publish(
            region=region,
            endpoint_url=endpoint_url,
            policy_sha256=policy_hash,
            cannot_refuse=list(open_anyway),
            lacks=lacks,
            access_key_id=access_key_id,
            secret_access_key=pulumi.Output.secret(secret_access_key),
            key_created_at=created_at,
            user=user,
            proof={
                "made_for": proof.out("madeFor"),
                "lines": proof.out("lines"),
                "secret_sha256": proof.out("secretSha256"),
            },
        )

    def finish_keyless(self, *, policy: dict[str, Any], lacks: pulumi.Input[Sequence[str]]) -> None:
        """Set `outputs` of a store that a machine's own role signs for: there is no key, and no proof but there."""
        self._publish(
            region=self.store.region,
            endpoint_url=self.store.endpoint,
            policy_sha256=policy_sha256(policy),
            cannot_refuse=list(self.provider.value("cannot_refuse", ())),
            lacks=lacks,
            access_key_id="",
            secret_access_key="",
            keyless=True,
            proof=None,
        )

    def _publish(self, **found: Any) -> None:
        store = self.store
        self.outputs = {
            "version": VERSION,
            "server_name": store.server_name,
            "provider": store.provider,
            "method": store.method,
            "access": store.access,
            "bucket": store.bucket,
            "storage_class": store.storage_class,
            "prefix": store.prefix,
            "addressing": self.addressing,
            "checksums": self.provider.value("checksums", "when_required"),
            "media_repo": dict(store.media_repo),
            "ca_file": str(store.options.get("ca_file", "")),
            **found,
        }
        self.register_outputs({"outputs": self.outputs})
