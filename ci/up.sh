#!/bin/sh
# Apply the changes that ci/preview.sh showed, and no others: for each line "<stack> <digest>" on standard input, `up`
# continues only if the changes have that digest.
#
#   ci/up.sh <out/preview/digests
#
# The environment needs what the preview needed, and the admin credential of every provider in the stacks.
# Exit code: 0 done or nothing to do, 1 a stack failed or its changes differ from those reviewed, 3 it would lose
# media or cut off access. It stops at the first failure.
set -eu
cd "$(dirname "$0")/.."
command=${SYNAPSE_MEDIA:-.venv/bin/synapse-media}

# Some CI systems set the variable of a missing secret to an empty string, which would override a role's credential.
for name in $(env | sed -n 's/^\([A-Z][A-Z0-9_]*\)=$/\1/p'); do
    eval "[ -n \"\${$name:-}\" ]" || unset "$name"
done

while read -r stack digest; do
    [ -n "$stack" ] || continue
    if [ -z "$digest" ]; then
        echo "ci/up.sh: \"$stack\" has no digest: give the lines of out/preview/digests" >&2
        exit 64
    fi
    # The command must not read the remaining lines.
    "$command" up --ci --yes --stack "$stack" --reviewed "$digest" </dev/null
done
