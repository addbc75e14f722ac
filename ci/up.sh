#!/bin/sh
# Make what ci/preview.sh showed, and nothing else: for each line "<stack> <digest>" on standard input, `up` goes on only
# if the changes are those of the digest.
#
#   ci/up.sh <out/preview/digests
#
# The environment needs what the preview needed, and the admin credential of every provider in the stacks.
# Exit code: 0 done or nothing to do, 1 a stack failed or would change otherwise than was reviewed, 3 it would lose media
# or cut access. The first that fails ends it.
set -eu
cd "$(dirname "$0")/.."
command=${SYNAPSE_MEDIA:-.venv/bin/synapse-media}

# Where a secret is missing, some systems set its variable to nothing, which would stand before a role's credential.
for name in $(env | sed -n 's/^\([A-Z][A-Z0-9_]*\)=$/\1/p'); do
    eval "[ -n \"\${$name:-}\" ]" || unset "$name"
done

while read -r stack digest; do
    [ -n "$stack" ] || continue
    if [ -z "$digest" ]; then
        echo "ci/up.sh: \"$stack\" has no digest: give the lines of out/preview/digests" >&2
        exit 64
    fi
    # What it starts must not read the lines that are left.
    "$command" up --ci --yes --stack "$stack" --reviewed "$digest" </dev/null
done
