#!/bin/bash
# Pulls the images of the node's rules before kubelet starts (README.md). Whatever fails or hangs: it ends with 0, at the
# latest some seconds after BOOT_TIMEOUT, and kubelet starts.
STACK=eks-image-prefetch RULES=default REGION=eu-west-1 # the stack's name, the names of the node's rules, and the Region
BOOT_TIMEOUT=${BOOT_TIMEOUT:-300}

prefetch_at_boot() {
    # It stays until what it runs has ended: only then does timeout kill what does not.
    trap exit TERM
    umask 077
    export AWS_METADATA_SERVICE_TIMEOUT=2 AWS_METADATA_SERVICE_NUM_ATTEMPTS=5 AWS_MAX_ATTEMPTS=4 AWS_RETRY_MODE=standard AWS_PAGER=
    local folder=/var/lib/prefetch-images/boot rule name names=() list text settings n seconds=0
    mkdir -p "$folder" && cd "$folder" && rm -f ./*.stdout ./*.reported && exec >log 2>&1 || return
    # Without --no-block it would wait for units that may wait for this script.
    if grep -qs '^ *snapshotter *= *"soci"' /etc/containerd/config.toml; then
        timeout -k 1 10 systemctl start --no-block soci-snapshotter
    fi
    timeout -k 1 10 systemctl start --no-block containerd

    ask get-document --name "$STACK-prefetch-images" --document-version "\$LATEST" |
        jq -er '.Content | fromjson | .mainSteps[0].inputs.runCommand | join("\n")' >script || return
    # A rule has a second list where the first has no room for all; SSM gives ten by one call.
    for rule in $RULES; do names+=("/$STACK/boot/$rule" "/$STACK/boot/$rule.more"); done
    for ((n = 0; n < ${#names[@]}; n += 10)); do ask get-parameters --names "${names[@]:n:10}" | jq -c .Parameters[]; done >lists
    for name in "${names[@]}"; do
        # Values are words of the document's parameters: nothing in a list becomes anything but SSM_<parameter>.
        text=$(jq -ers --arg name "$name" '.[] | select(.Name == $name).Value | fromjson |
            .parameters + {images} | to_entries[] | if (.key | test("\\A[A-Za-z]+\\z")) and
            (.value | test("\\A[A-Za-z0-9._/:@% -]+\\z")) then "SSM_\(.key)=\(.value)" else error("no list") end' lists) || continue
        list=${name##*/}
        mapfile -t settings <<<"$text"
        while [[ ! -S /run/containerd/containerd.sock ]] && ((SECONDS < 60)); do sleep 0.2; done
        seconds=$((BOOT_TIMEOUT - SECONDS))
        echo "list $list: $seconds seconds"
        env "${settings[@]}" SSM_executionTimeout="$((seconds > 5 ? seconds : 5))" PREFETCH_IMAGES_AT_BOOT=yes \
            bash script >"$list.stdout" 2>"$list.stderr"
        echo "list $list: ended with $?"
    done
}

ask() {
    timeout -k 1 $((BOOT_TIMEOUT / 5 + 1)) aws ssm "$@" --region "$REGION" --output json --cli-connect-timeout 5 --cli-read-timeout 10
}

export -f prefetch_at_boot ask
export STACK RULES REGION BOOT_TIMEOUT
timeout --kill-after=3 "$BOOT_TIMEOUT" bash -c prefetch_at_boot </dev/null >/dev/null 2>&1
true
