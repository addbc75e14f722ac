"""The base of all components: checks of arguments, options of the resources, the proof and the outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

import pulumi
from pulumi.resource import DependencyResource
from pulumi.runtime.mocks import MockMonitor

from synapse_media import catalog, settings
from synapse_media.allow import (
    deletes_media,
    managed_settings,
    owns_bucket,
    protects_bucket,
    retains_bucket,
    retires_key,
)
from synapse_media.contract import VERSION, policy_sha256
from synapse_media.errors import Described, Problem, SettingsError, a_value_of
from synapse_media.methods import METHODS, expectations
from synapse_media.schema.resources import ComponentInput
from synapse_media.settings import StoreSettings

from . import policies, resources
from .args import StoreArgs, is_known

Args = TypeVar("Args", bound=StoreArgs)
T = TypeVar("T")

PACKAGE = "synapse-media"
"""The first part of every component's type, which does not depend on the project's name."""

_REFUSED = (
    "additional_secret_outputs",
    "custom_timeouts",
    "delete_before_replace",
    "deleted_with",
    "id",
    "ignore_changes",
    "import_",
    "plugin_download_url",
    "replace_on_changes",
    "replace_with",
    "replacement_trigger",
    "urn",
    "version",
)
"""Options for a single resource, which make no sense for the several of a component."""


class ArgumentsError(pulumi.RunError):
    """Invalid arguments.

    Attributes:
        problems: one message for each.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(SettingsError(problems)))
        self.problems = tuple(problems)


def given(function: Callable[..., T], *values: object) -> T | pulumi.Output[T]:
    """The result of a pure function, as an Output if an argument is one."""
    if is_known(values):
        return function(*values)
    return pulumi.Output.all(*values).apply(lambda found: function(*found))


class Store(pulumi.ComponentResource, Generic[Args]):
    """A homeserver's store. Subclasses create its resources.

    Creates, as far as the provider supports them: a private bucket (protected from deletion), a user, its policy, its
    key ring, and the proof of the active key. `opts` are passed on to them; a provider in `opts` for a vendor's plugin
    is used instead of ours. The plugin `s3store` reads its credentials from the environment.

    Raises pulumi.RunError with all invalid arguments, before anything is created.
    """

    family = ""
    """The component family in the catalog."""

    bucket: pulumi.Output[str]
    """The bucket's name."""
    endpoint_url: pulumi.Output[str]
    """URL of the S3 API, with scheme, without a trailing slash."""
    region: pulumi.Output[str]
    """The region as used in signatures."""
    access_key_id: pulumi.Output[str]
    """The ID of the active key; "" for a store that is used with a machine's role."""
    secret_access_key: pulumi.Output[str]
    """The secret of the active key; "" for a store that is used with a machine's role."""
    proof: pulumi.Output[Any]
    """The proof of the key: {made_for, lines: [{operation, expected, outcome, detail}]}; None without a key."""
    outputs: pulumi.Output[dict[str, Any]]
    """The whole contract (synapse_media.contract.StorageOutputs), a secret since the secret access key is in it."""
    storage_outputs: dict[str, Any]
    """The contract as a mapping whose values may be Outputs: what `publish` takes."""

    def __init__(self, name: str, args: Args, opts: pulumi.ResourceOptions | None = None) -> None:
        self._require_types(name, args, opts)
        opts = opts or pulumi.ResourceOptions()
        self.name, self.opts = name, opts
        self.raw, self._given, self.store = self._checked(args)
        self.server_name = self.store.server_name
        self.provider = catalog.load(self.store.provider)
        self.method = METHODS[self.store.method]
        # If the component is named after the homeserver, renaming the homeserver changes its URN.
        renamed = self.store.renamed_from if name == self.server_name else ""
        # The children need aliases too: after an interrupted run, the component has the new name and they the former
        # one.
        self.former = [pulumi.Alias(name=renamed)] if renamed else []
        super().__init__(
            f"{PACKAGE}:index:{type(self).__name__}",
            name,
            # Of a store in a stack file, the commands know the homeserver by the component's name.
            {} if args.from_stack_file else self._said_to_commands(),
            pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(aliases=self._former_tokens())),
        )
        self.provision()

    def _require_types(self, name: object, args: object, opts: object) -> None:
        """Raises pulumi.RunError where a constructor's argument is of another type than it is declared with."""
        component = type(self).__name__
        wanted = _arguments_of(type(self))
        problems = []
        if not isinstance(name, str) or not name:
            problems.append(
                Problem("name", Described(a_value_of(name)), "a string that is not empty", "Name the component.")
            )
        if not isinstance(args, wanted):
            step = f"Write {wanted.__name__}(server_name=…, bucket=…)."
            problems.append(Problem("args", Described(a_value_of(args)), wanted.__name__, step))
        if opts is not None and not isinstance(opts, pulumi.ResourceOptions):
            step = "Write pulumi.ResourceOptions(…)."
            problems.append(Problem("opts", Described(a_value_of(opts)), "pulumi.ResourceOptions or None", step))
        if problems:
            where = f"{component} {name!r}" if isinstance(name, str) and name else component
            raise ArgumentsError([dataclasses.replace(one, setting=f"{where}: {one.setting}") for one in problems])

    def _said_to_commands(self) -> dict[str, Any]:
        """The component's inputs, which the guards read from a preview: a preview has no outputs of a component."""
        said: dict[str, Any] = {
            ComponentInput.SERVER_NAME.value: self.server_name,
            ComponentInput.RENAMED_FROM.value: self.store.renamed_from,
            ComponentInput.S3_DATASTORE_ID.value: self.store.media_repo.get("s3_datastore_id", ""),
        }
        if self.keyless:
            # A store without a key has no proof, which says this of every other.
            places = {"endpointUrl": "endpoint", "region": "region", "bucket": "bucket", "prefix": "prefix"}
            place = {name: self.setting(setting) for name, setting in places.items()}
            said[ComponentInput.KEYLESS_PLACE.value] = {**place, "method": self.store.method}
        return {name: value for name, value in said.items() if value != ""}

    @property
    def keyless(self) -> bool:
        """Whether a machine's role signs in place of a key."""
        return bool(self.store.options.get("keyless"))

    def provision(self) -> None:
        """Create the resources, and call `finish` at the end."""
        raise NotImplementedError

    if not TYPE_CHECKING:  # it would have type checkers accept every name

        def __getattr__(self, name: str) -> Any:
            # Computed only when asked for: an Output of every value in it is a tenth of what a store's program takes.
            if name != "outputs" or "storage_outputs" not in vars(self):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            self.outputs = pulumi.Output.from_input(self.storage_outputs)
            return self.outputs

    # ---- arguments

    def _checked(self, args: StoreArgs) -> tuple[dict[str, Any], dict[str, pulumi.Output[Any]], StoreSettings]:
        """Raises pulumi.RunError with all problems of the arguments known so far."""
        self._where = f"{type(self).__name__} {self.name!r}: args"
        raw, later, found = args.raw()
        raw.setdefault("provider", self.family)
        problems = [
            *(
                Problem(
                    f"opts.{option}", Described("set"), "nothing: a component has several resources", _OF_ONE_RESOURCE
                )
                for option in _REFUSED
                if getattr(self.opts, option, None) is not None
            ),
            *(dataclasses.replace(problem, setting=f"{self._where}.{problem.setting}") for problem in found),
        ]
        unknown = {problem.setting for problem in found}
        # A placeholder for an unknown argument that must be known, so that the others are still checked.
        server_name = "example.com" if "server_name" in unknown else args.server_name
        allow = () if "allow" in unknown else args.allow
        try:
            if raw["provider"] in catalog.names() and catalog.load(raw["provider"]).component != self.family:
                presets = [name for name in catalog.names() if catalog.load(name).component == self.family]
                next_step = f"For {raw['provider']} there is a component of its own."
                problems.append(Problem(f"{self._where}.provider", raw["provider"], ", ".join(presets), next_step))
            store = settings.check(server_name, raw, allow, where=self._where)
        except SettingsError as error:
            problems += error.problems
        if problems:
            raise ArgumentsError(problems)
        try:
            # A program may catch what this raises, and declare another store in its place.
            _declared(pulumi.runtime.settings.get_monitor()).add(self._where, store)
        except SettingsError as error:
            raise pulumi.RunError(str(error)) from None
        return raw, later, store

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting by its name: a plain value if it is known, else an Output that is checked once it is.

        Args:
            default: for a setting of the provider that was not given.
        """
        if name not in self.store.later:
            own = self.provider.value("settings", {})
            return self.store.options.get(name, default) if name in own else getattr(self.store, name)
        source = name if name in self._given else settings.SOURCES[name]

        def checked(found: dict[str, Any]) -> Any:
            store = self._checked_later(found)
            own = self.provider.value("settings", {})
            return store.options.get(name, default) if name in own else getattr(store, name)

        def of_source(value: object) -> Any:
            behind = settings.SOURCES.get(source)
            if value is None and behind in self._given:
                # Left out after all: it follows from another one that was not known either.
                return self._given[behind].apply(lambda found: checked({source: None, behind: found}))
            return checked({source: value})

        return self._given[source].apply(of_source)

    def _checked_later(self, found: dict[str, Any]) -> StoreSettings:
        known = {name: value for name, value in {**self.raw, **found}.items() if value is not None}
        try:
            return settings.check(self.server_name, known, self.store.allow, where=self._where)
        except SettingsError as error:
            raise pulumi.RunError(str(error)) from None

    def is_set(self, name: str) -> bool:
        """Whether a setting has a value, known or not."""
        return name in self.store.later or bool(self.setting(name))

    # ---- options

    def _former_tokens(self) -> list[pulumi.Alias]:
        """The type in earlier releases, which began with the name of the project."""
        token = f"{pulumi.get_project()}:store:{self.family.title().replace('_', '')}"
        found = [pulumi.Alias(type_=token), *self.former]
        # Aliases are not combined: those for another name or parent are needed with the former type too.
        others = [alias for alias in (*self.former, *(self.opts.aliases or ())) if isinstance(alias, pulumi.Alias)]
        return found + [
            pulumi.Alias(alias.name, token, alias.parent, alias.stack, alias.project)
            for alias in others
            if not isinstance(alias.type_, str)
        ]

    def child(self, *depends_on: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options of this store's resources: with the component's `depends_on` and `retain_on_delete`."""
        own = pulumi.ResourceOptions(
            parent=self,
            depends_on=list(depends_on),
            aliases=self.former,
            retain_on_delete=self.opts.retain_on_delete,
        )
        if self.opts.depends_on is None:
            return own
        return pulumi.ResourceOptions.merge(own, pulumi.ResourceOptions(depends_on=self.opts.depends_on))

    def of_named_keys(self, bucket: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options of a key ring with named keys: a replacement deletes the old keys before it creates new ones.

        Deleting them afterwards would delete the new keys, which have the same names.
        """
        return pulumi.ResourceOptions.merge(self.child(bucket), pulumi.ResourceOptions(delete_before_replace=True))

    def of_bucket(self) -> pulumi.ResourceOptions:
        """Options of the bucket: protected, unless `opts` overrides that or `allow` permits its deletion."""
        allow = self.store.allow
        protect = self.opts.protect
        if protect is None and protects_bucket(allow):
            protect = True
        retain = True if retains_bucket(allow) else self.opts.retain_on_delete
        return pulumi.ResourceOptions.merge(
            self.child(), pulumi.ResourceOptions(protect=protect, retain_on_delete=retain)
        )

    def keeping_in_previews(self, *inputs: str) -> pulumi.ResourceOptions:
        """Options of a vendor's resource that another value of one of `inputs` replaces.

        A vendor's plugin takes a value that is unknown in a preview for another one: the engine would show a
        replacement, and stop at a protected bucket, whenever the resource that gives the name changes. So a preview
        shows the prior value in its place. When applied, every value is known, and a real change replaces.
        """
        # Pulumi's mocks, in a program's own tests, have no transforms, and no prior values either.
        mocked = isinstance(pulumi.runtime.settings.get_monitor(), MockMonitor)
        if mocked or not (pulumi.runtime.is_dry_run() and self.store.later):
            return pulumi.ResourceOptions()

        async def keep_unknown(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult:
            unknown = [name for name in inputs if not await pulumi.Output.from_input(args.props[name]).is_known()]
            kept = pulumi.ResourceOptions(ignore_changes=unknown)
            return pulumi.ResourceTransformResult(args.props, pulumi.ResourceOptions.merge(args.opts, kept))

        return pulumi.ResourceOptions(transforms=[keep_unknown])

    @property
    def alone(self) -> bool:
        """Whether it knows of no other store of its program, which is in another language: only a stand-in for the
        parent is here then, and each component is made by a call of its own."""
        return isinstance(self.opts.parent, DependencyResource)

    # ---- values

    @property
    def owner(self) -> str:
        """The ownership mark: project, stack and homeserver."""
        return f"{pulumi.get_project()}/{pulumi.get_stack()}/{self.server_name}"

    @property
    def former_owner(self) -> str:
        """The mark with the homeserver's former name; "" if it was not renamed."""
        former = self.store.renamed_from
        return f"{pulumi.get_project()}/{pulumi.get_stack()}/{former}" if former else ""

    @property
    def addressing(self) -> str:
        """The addressing style of the bucket in URLs: "path" or "virtual"."""
        return str(self.provider.value("addressing", "path"))

    def connection(self) -> resources.ConnectionArgs:
        """The plugin's connection to the store."""
        known = dataclasses.asdict(self.provider.connection(endpoint="", region="", options=self.store.options))
        places = {name: self.setting(name) for name in ("endpoint", "region", "iam_endpoint")}
        said = {name: value for name, value in known.items() if value != ""}
        return resources.ConnectionArgs(**{**said, **places, "addressing": self.addressing})

    def key_policy(self) -> policies.Policy | pulumi.Output[policies.Policy]:
        """The key's policy document, or an Output of it."""

        def document(bucket: str, prefix: str) -> policies.Policy:
            return policies.key_policy(bucket, self.method, self.store.access, prefix)

        return given(document, self.setting("bucket"), self.setting("prefix"))

    @property
    def known_lacks(self) -> list[str]:
        """The features that this provider lacks by the catalog, as text."""
        can = self.provider.can
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
        if can("bucket_policy") is not False and can("tls_only_policy") is False:
            lacks.append("refusal of plain http by the bucket policy")
        return lacks

    def with_known_lacks(self, found: pulumi.Output[Sequence[str]]) -> pulumi.Output[list[str]]:
        """The features that this provider lacks, by the catalog and as found by the plugin."""
        known = self.known_lacks
        return found.apply(lambda lacks: [*known, *(lacks or ())])

    def any_bucket(self) -> resources.AnyBucketArgs:
        """The arguments common to the buckets of all families."""
        allow = self.store.allow
        return resources.AnyBucketArgs(
            bucket=self.setting("bucket"),
            connection=self.connection(),
            owner=self.owner,
            former_owner=self.former_owner or None,
            adopt=self.store.adopt,
            manage=managed_settings(allow),
            force_destroy=deletes_media(allow),
            own=owns_bucket(allow),
            media_in=given(self._media_in, self.setting("prefix")),
        )

    def _media_in(self, prefix: str) -> list[str]:
        return [prefix + folder for folder in self.method.folders]

    def bucket_args(self) -> resources.BucketArgs:
        """The arguments of a bucket over the S3 API."""
        store, can = self.store, self.provider.can
        lifecycle = can("lifecycle") is not False
        return resources.BucketArgs(
            **vars(self.any_bucket()),
            versioning=can("versioning") is not False,
            noncurrent_days=store.noncurrent_days if lifecycle else 0,
            abort_days=store.abort_days if lifecycle else 0,
            policy=self._bucket_policy(),
            public_access_block=can("public_access_block") is not False,
            encryption=can("encryption") is not False,
            acl="private" if can("acl") is not False else "",
        )

    def _bucket_policy(self) -> str | pulumi.Output[str] | None:
        """The bucket's policy (JSON), or an Output of it; "": no policy; None: the store does not support policies."""
        if self.provider.can("bucket_policy") is False:
            return None
        if self.provider.can("tls_only_policy") is False:
            return ""

        def document(bucket: str, endpoint: str) -> str:
            return policies.to_json(policies.tls_only(bucket)) if endpoint.startswith("https://") else ""

        return given(document, self.setting("bucket"), self.setting("endpoint"))

    def any_ring(self) -> resources.AnyRingArgs:
        """The arguments common to the key rings of all families."""
        keys = self.store.keys
        return resources.AnyRingArgs(
            user_name=self.setting("user"),
            active=keys.active,
            slots=sorted(keys.slots),
            retire_confirmed=retires_key(self.store.allow),
            connection=self.connection(),
            adopt=self.store.adopt,
            adopt_key=self.store.adopt_key or None,
        )

    def _created_at(self, keys: pulumi.Output[Mapping[str, Mapping[str, str]]]) -> pulumi.Output[str]:
        """When the active key was created; "" if there is none, as in a ring that is incomplete or not updated yet."""
        slot = self.store.keys.active
        return keys.apply(lambda found: (found or {}).get(slot, {}).get("createdAt", ""))

    # ---- the proof and the outputs

    def finish(
        self,
        key: resources.AnyRing[Any] | resources.ExistingKey,
        *made: pulumi.Resource,
        lacks: pulumi.Input[Sequence[str]],
        region: pulumi.Input[str] | None = None,
        endpoint_url: pulumi.Input[str] | None = None,
        user: pulumi.Input[str] = "",
        policy: object = None,
        admin: bool = True,
        cannot_refuse: Sequence[str] | None = None,
    ) -> None:
        """Prove the key and set the outputs.

        Args:
            key: the resource with the active key.
            made: further resources that the proof depends on.
            lacks: the features that the store lacks, as text.
            region, endpoint_url: as reported by the store; None for those of the settings.
            user: the IAM user of the key; "" if the store has none.
            policy: the key's policy document, or an Output of it; None if the store has none.
            admin: there is an admin credential, with which the proof uses a decoy bucket and cleans up.
            cannot_refuse: operations that can't be denied to this key; None for those of the catalog.
        """
        store = self.store
        region = self.setting("region") if region is None else region
        endpoint_url = self.setting("endpoint") if endpoint_url is None else endpoint_url
        secret_access_key: pulumi.Output[str] = pulumi.Output.secret(key.secret_access_key)
        policy_hash = given(policy_sha256, policy)
        open_anyway = tuple(self.provider.value("cannot_refuse", ()) if cannot_refuse is None else cannot_refuse)
        expected = expectations(
            self.method,
            store.access,
            open_anyway,
            bucket_policies=self.provider.can("bucket_policy") is not False,
        )
        proof = resources.Proof(
            self.name,
            resources.ProofArgs(
                connection=dataclasses.replace(self.connection(), endpoint=endpoint_url, region=region),
                bucket=self.setting("bucket"),
                prefix=self.setting("prefix"),
                method=store.method,
                access=store.access,
                endpoint_url=endpoint_url,
                region=region,
                policy_sha256=policy_hash,
                access_key_id=key.access_key_id,
                secret_access_key=secret_access_key,
                expected={operation.value: value.value for operation, value in expected.items()},
                admin=admin,
                decoy=admin and self.provider.can("decoy_bucket") is not False,
                administrator=self.provider.administrator,
                owner=self.owner,
                former_owner=self.former_owner or None,
                user_name=user,
                settle_seconds=store.options.get("settle_seconds", self.provider.value("key_settle_seconds", 0)),
            ),
            self.child(*made, key),
        )
        self._publish(
            region=region,
            endpoint_url=endpoint_url,
            policy_sha256=policy_hash,
            cannot_refuse=list(open_anyway),
            lacks=lacks,
            access_key_id=key.access_key_id,
            secret_access_key=secret_access_key,
            key_created_at=self._created_at(key.keys) if isinstance(key, resources.AnyRing) else "",
            user=user,
            proof={
                "made_for": proof.made_for,
                "lines": proof.lines,
                "secret_sha256": pulumi.Output.secret(proof.secret_sha256),
            },
        )

    def finish_keyless(self, *, policy: object, lacks: pulumi.Input[Sequence[str]]) -> None:
        """Set the outputs of a store that is used with a machine's role, without a key. It can be proved only on that
        machine."""
        self._publish(
            region=self.setting("region"),
            endpoint_url=self.setting("endpoint"),
            policy_sha256=given(policy_sha256, policy),
            cannot_refuse=list(self.provider.value("cannot_refuse", ())),
            lacks=lacks,
            access_key_id="",
            secret_access_key="",
            keyless=True,
            proof=None,
        )

    def _publish(self, *, proof: dict[str, pulumi.Output[Any]] | None, **found: object) -> None:
        store = self.store
        self.storage_outputs = {
            "version": VERSION,
            "server_name": store.server_name,
            "provider": store.provider,
            "method": store.method,
            "access": store.access,
            "bucket": self.setting("bucket"),
            "storage_class": store.storage_class,
            "prefix": self.setting("prefix"),
            "addressing": self.addressing,
            "checksums": self.provider.value("checksums", "when_required"),
            "media_repo": dict(store.media_repo),
            "ca_file": str(store.options.get("ca_file", "")),
            **found,
            "proof": proof,
        }
        for name in ("bucket", "endpoint_url", "region", "access_key_id", "secret_access_key"):
            setattr(self, name, pulumi.Output.from_input(self.storage_outputs[name]))
        shown = None if proof is None else {name: value for name, value in proof.items() if name != "secret_sha256"}
        self.proof = pulumi.Output.from_input(shown)
        self.register_outputs({"outputs": self.storage_outputs})


def _arguments_of(component: type) -> type[StoreArgs]:
    """The class of a component's arguments, by what it is a `Store` of."""
    for kind in component.__mro__:
        for base in kind.__dict__.get("__orig_bases__", ()):
            for found in get_args(base):
                if isinstance(found, type) and issubclass(found, StoreArgs):
                    return found
    return StoreArgs


_OF_ONE_RESOURCE = "Remove it, or set it on one of the resources by a transform."


@cache
def _declared(program: object) -> settings.Together:  # noqa: ARG001 - a cache key: a run of the program
    """The stores that this run of the program declared so far."""
    return settings.Together()
