#!/bin/sh
# Preview changes of stack files, in any CI system: writes a Markdown section for each stack that would change to
# OUT/<stack>.md and standard output, and to OUT/digests a line "<stack> <digest>" for each that ci/up.sh may then
# change.
#
#   ci/preview.sh [--refresh | --from-nothing] [STACK …]
#
# It needs the environment in .venv (`make setup`; `pip install -r requirements.txt` in a project that `init` made), or
# the command in SYNAPSE_MEDIA. Without a STACK: every stack file there is. Where the environment lacks what a stack's
# state needs (a fork's build has nothing), that preview is from nothing, and says why. What it needs follows from the
# backend (PULUMI_BACKEND_URL, or Pulumi.yaml) and the stack file's `secretsprovider`: a passphrase
# (PULUMI_CONFIG_PASSPHRASE or …_FILE), the credentials of a KMS, or PULUMI_ACCESS_TOKEN.
# Exit code: 0 nothing to do, 1 a preview failed, 2 changes pending, 3 changes that can lose media or cut access.
set -eu
cd "$(dirname "$0")/.."
out=${OUT:-out/preview}
command=${SYNAPSE_MEDIA:-.venv/bin/synapse-media}

# Some CI systems set the variable of a missing secret to an empty string, which would override a role's credential.
for name in $(env | sed -n 's/^\([A-Z][A-Z0-9_]*\)=$/\1/p'); do
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
named=yes
if [ $# -eq 0 ]; then
    named=no
    for file in stacks/Pulumi.*.yaml; do
        stack=${file#stacks/Pulumi.}
        stack=${stack%.yaml}
        # The embedded store of this machine needs no review.
        [ "$stack" = embedded ] || [ ! -f "$file" ] || set -- "$@" "$stack"
    done
fi

rm -rf "$out"
mkdir -p "$out"
worst=0
for stack; do
    # ORGANIZATION/NAME is one file, too.
    file=$out/$(printf %s "$stack" | tr / -).md
    code=0
    # shellcheck disable=SC2086 # no mode is no argument
    "$command" diff --ci --stack "$stack" --format markdown $mode >"$file" || code=$?
    case $code in
    0) rm "$file" ;;
    1 | 2 | 3) cat "$file" ;;
    64)
        # An example is not a stack: it can only be previewed from nothing, which was not requested.
        rm "$file"
        [ "$named" = no ] || exit 64
        continue
        ;;
    *) exit "$code" ;;
    esac
    [ "$code" -ne 2 ] || sed -n "s|^Digest of these changes: |$stack |p" "$file" >>"$out/digests"
    # A failed preview takes precedence, since its changes are unknown; then dangers, then changes.
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
