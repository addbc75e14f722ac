#!/bin/sh
# What a change of stack files would do, for any continuous integration: a Markdown section for each stack that would
# change, in OUT/<stack>.md and on standard output.
#
#   ci/preview.sh [--refresh | --from-nothing] [STACK …]
#
# It needs the environment in .venv (`make setup`; `pip install -r requirements.txt` in a project that `init` made), or
# the command in SYNAPSE_MEDIA. Without a STACK: every stack file there is. Without state and passphrase (a fork's build
# has none), or without anything to say where they are, the preview is from nothing, and says so.
# Exit code: 0 nothing to do, 1 a preview failed, 2 changes pending, 3 changes that can lose media or cut access.
set -eu
cd "$(dirname "$0")/.."
out=${OUT:-out/preview}
command=${SYNAPSE_MEDIA:-.venv/bin/synapse-media}

# Where a secret is missing, some systems set its variable to nothing.
for name in PULUMI_BACKEND_URL PULUMI_CONFIG_PASSPHRASE PULUMI_CONFIG_PASSPHRASE_FILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    eval "[ -n \"\${$name:-}\" ]" || unset "$name"
done

mode=
case "${1:-}" in
--refresh | --from-nothing)
    mode=$1
    shift
    ;;
-*)
    echo "ci/preview.sh: $1 is no option; there are --refresh and --from-nothing" >&2
    exit 64
    ;;
esac
if [ -z "${PULUMI_BACKEND_URL:-}" ] || [ -z "${PULUMI_CONFIG_PASSPHRASE:-}${PULUMI_CONFIG_PASSPHRASE_FILE:-}" ]; then
    if [ "$mode" = --refresh ]; then
        echo "ci/preview.sh: --refresh needs the state: set PULUMI_BACKEND_URL, and PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE" >&2
        exit 64
    fi
    mode=--from-nothing
fi
named=yes
if [ $# -eq 0 ]; then
    named=no
    for file in stacks/Pulumi.*.yaml; do
        stack=${file#stacks/Pulumi.}
        stack=${stack%.yaml}
        # The one on this machine's own store is nobody's to review.
        [ "$stack" = embedded ] || [ ! -f "$file" ] || set -- "$@" "$stack"
    done
fi

rm -rf "$out"
mkdir -p "$out"
worst=0
for stack; do
    code=0
    # shellcheck disable=SC2086 # no mode is no argument
    "$command" diff --stack "$stack" --format markdown $mode >"$out/$stack.md" || code=$?
    case $code in
    0) rm "$out/$stack.md" ;;
    1 | 2 | 3) cat "$out/$stack.md" ;;
    64)
        rm "$out/$stack.md"
        # An example is no stack: it can only be previewed from nothing.
        [ "$named" = no ] || exit 64
        continue
        ;;
    *) exit "$code" ;;
    esac
    # A failed preview first: what it would have said is not known. Then dangers, then changes.
    case "$worst$code" in
    1? | 00) ;;
    ?1) worst=1 ;;
    3?) ;;
    ?3) worst=3 ;;
    ?2) worst=2 ;;
    esac
done
[ "$worst" -ne 0 ] || echo "No stack would change."
exit "$worst"
