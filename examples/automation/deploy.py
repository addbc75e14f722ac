"""A store from a program that runs pulumi itself: `deploy.py up ENDPOINT IAM_ENDPOINT`, and `deploy.py destroy …`."""

import os
import sys
from pathlib import Path

import pulumi
from pulumi import automation
from synapse_media.components import S3Compatible, S3CompatibleArgs

from synapse_media import contract
from synapse_media.renderer import render
from synapse_media.renderer.writing import write

command, endpoint, iam_endpoint = sys.argv[1:]


def program(allow=()):
    args = S3CompatibleArgs(
        server_name="example.com",
        bucket="automation-media",
        endpoint=endpoint,
        iam_endpoint=iam_endpoint,
        allow=allow,
    )
    media = S3Compatible("media", args)
    pulumi.export("media", media.outputs)  # a secret, since the secret access key is in it


# pulumi finds our plugin, which lies beside this Python, on PATH.
path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
options = automation.LocalWorkspaceOptions(env_vars={"PATH": path})
stack = automation.create_or_select_stack("prod", "automation", program, opts=options)

if command == "up":
    result = stack.up()
    store = contract.from_json(result.outputs["media"].value)
    write(render(store, "plain"), Path("rendered"))  # refuses a key that was not proved; files of mode 0600
    print(result.summary.resource_changes)
else:
    # Leave to delete is in the state: it is given by one `up`, and used by the next.
    stack.up(program=lambda: program(allow=["delete-bucket", "retire-key"]))
    stack.destroy()
    stack.workspace.remove_stack("prod")
