#!/usr/bin/env bash
# Starts the program that puts container images on this node, or tells which digests tags stand for. Runs as root, sent by
# SSM Run Command: looks whether the program is here, fetches it from the stack's own repository where it is not, and becomes
# it.
#
# In:   SSM_images or SSM_tags, SSM_executionTimeout and the document's other parameters, which are the program's
# Out:  what the program prints and its exit code (node/src/main.rs); where it does not come to run:
#       stderr  why
#       exit 1  it could not be fetched, and another time may be, or its lines were lost
#       exit 2  unusable parameters, or a node on which it cannot run
# On Bottlerocket it begins in the control container, whose bash may be 4.2, and goes on in another host container.
set -u -o pipefail
export LC_ALL=C
umask 077

# Written by the stack's deployment. A digest is none where no program was built for the processor.
readonly REPOSITORY='@Repository@' X86_64='@X8664Digest@' ARM64='@Arm64Digest@' # @Deployment@

# For login and download, or half of what the command has.
readonly FETCH_SECONDS=60
# Of the program.
readonly MAX_BYTES=33554432
# For a host container that is enabled, to start.
readonly START_SECONDS=60
# Programs of other deployments that stay.
readonly PREVIOUS=2

folder=/var/lib/prefetch-images host='' arguments=() enter=(env) plugins=/etc/eks/image-credential-provider

main() {
    read_parameters
    if [[ -n ${in_host_container-} ]]; then
        # The host's mounts as they are now; its own /run, /tmp and /var may be mounted noexec.
        folder=/.bottlerocket/host-containers/current/prefetch-images host=/proc/1/root
        arguments=(--host-root=host-container)
        enter=(nsenter --target 1 --mount --) plugins=/usr/libexec/kubernetes/kubelet/plugins
    elif [[ -e /etc/bottlerocket-release ]]; then
        hand_over
    else
        [[ $BASH_VERSION != 4.[0-3].* ]] || refuse "Amazon Linux 2 is not supported (bash $BASH_VERSION, it takes 4.4)"
    fi
    choose_program
    is_here || fetch
    become_program
}

read_parameters() {
    # An agent that does not know interpolationType ENV_VAR writes the values into this text. Each document has the lines of
    # its own parameters.
    local name value
    while read -r name value; do
        name=SSM_$name
        [[ -n ${!name+set} ]] || export "$name=$value"
    done <<'END'
images {{ images }}
tags {{ tags }}
executionTimeout {{ executionTimeout }}
imageGCHighThresholdPercent {{ imageGCHighThresholdPercent }}
maxParallelImagePulls {{ maxParallelImagePulls }}
maxConnections {{ maxConnections }}
maxBandwidthMiB {{ maxBandwidthMiB }}
maxImageGiB {{ maxImageGiB }}
keep {{ keep }}
pin {{ pin }}
reportOnly {{ reportOnly }}
END
    # It is reckoned with here; all else the program judges.
    [[ $SSM_executionTimeout =~ ^[1-9][0-9]{0,5}$ && $SSM_executionTimeout -ge 5 && $SSM_executionTimeout -le 172800 ]] ||
        refuse "executionTimeout is no whole number from 5 to 172800"
}

refuse() {
    echo "prefetch-images: $1" >&2
    exit 2
}

fail() {
    echo "prefetch-images: the program could not be fetched: $1" >&2
    exit 1
}

# --------------------------------------------------------------------------------------------------------- the program

# Sets $digest, in hexadecimal, and $file to the program for this processor, which bash knows by itself.
choose_program() {
    digest=''
    case ${BASH_VERSINFO[5]} in
        x86_64-*) digest=$X86_64 ;;
        aarch64-*) digest=$ARM64 ;;
    esac
    [[ $digest == sha256:* ]] || refuse "the stack has no program for this processor, ${BASH_VERSINFO[5]}"
    digest=${digest#sha256:} file=$folder/${digest#sha256:}
}

# Tells whether the program is here, where nobody but root could have put it.
is_here() {
    [[ $(stat --format '%F %u %a' "$folder" "$file" 2>/dev/null) == $'directory 0 700\nregular file 0 500' ]] &&
        is_program "$file"
}

is_program() {
    [[ $(sha256sum <"$1") == "$digest "* ]]
}

# Puts the program into the folder, whole or not at all; any number of commands may do so at once.
fetch() {
    local partial=$file.$$ seconds=$((SSM_executionTimeout / 2)) authority=$host/etc/pki/tls/certs/ca-bundle.crt
    local end password=''
    [[ -e $folder || -L $folder ]] || mkdir -p "$folder" || fail "there is no folder $folder"
    [[ $(stat --format '%F %u %a' "$folder") == 'directory 0 700' ]] ||
        refuse "$folder is no folder of root that nobody else may read: remove it"
    end=$((SECONDS + (seconds < FETCH_SECONDS ? seconds : FETCH_SECONDS)))
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -f '$partial'" EXIT
    trap 'exit 1' TERM INT HUP
    take_proxies
    log_in
    [[ -z $host || ! -r $authority ]] || export CURL_CA_BUNDLE=$authority
    # The login goes to the registry alone, not to where it redirects.
    in_time 1 curl --disable --config - --fail --silent --show-error --location --proto =https --connect-timeout 10 --retry 3 \
        --max-filesize "$MAX_BYTES" --output "$partial" \
        "https://${REPOSITORY%%/*}/v2/${REPOSITORY#*/}/blobs/sha256:$digest" \
        < <(printf 'user = "AWS:%s"\n' "$password") || fail "curl ended with $? for sha256:$digest in $REPOSITORY"
    is_program "$partial" || fail "what $REPOSITORY has for sha256:$digest is something else"
    { chmod 0500 "$partial" && sync "$partial" && mv -fT "$partial" "$file"; } || fail "it could not be put into $folder"
    remove_older
}

# Runs a command for what the fetch has left, at most, or a half of it, where others come after: <1 or 2> <command>
in_time() {
    local seconds=$(((end - SECONDS) / $1))
    timeout --foreground --kill-after 1 $((seconds > 1 ? seconds : 1)) "${@:2}"
}

# Takes the proxy that containerd's or kubelet's unit has, which reach the registry through it.
take_proxies() {
    local line
    while IFS= read -r line; do
        line=${line//[\"\']/}
        export "$(tr '[:upper:]' '[:lower:]' <<<"${line%%=*}")=${line#*=}"
    done < <(
        { cat "$host/etc/network/proxy.env"; list_settings containerd; list_settings kubelet; } 2>/dev/null |
            grep -v '^\s*[#;]' | grep -oiE "\b(https?|no)_proxy=(\"[^\"]*\"|'[^']*'|[^\"' ]+)"
    )
}

# Prints the lines of a unit and its drop-ins, then those of the files that its environment comes from: <unit>
list_settings() {
    local lines file
    lines=$(cat "$host"/{usr/lib,etc,run}/systemd/system/"$1".service{,.d/*.conf})
    echo "${lines//%%/%}"
    while IFS= read -r file; do
        cat "$host${file#-}"
        echo
    done < <(sed -n 's/^\s*EnvironmentFile=\s*//p' <<<"$lines")
}

# Sets $password to the registry's, from kubelet's credential provider, else from the AWS CLI.
log_in() {
    local profile="/name: *AWS_PROFILE/ { n; s/^ *value: *[\"']*\([^\"']*\).*/\1/p; }" answer region
    answer=$(
        [[ -z $host ]] || export HOME=/root
        profile=$(sed --quiet "$profile" "$host/etc/kubernetes/kubelet/credential-provider-config.yaml" 2>/dev/null)
        [[ -z $profile ]] || export AWS_PROFILE=$profile
        in_time 2 "${enter[@]}" "$plugins/ecr-credential-provider" < <(
            printf '{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"%s"}' \
                "$REPOSITORY"
        )
    )
    if [[ $answer =~ \"password\":\ *\"([^\"\\]+)\" ]]; then
        password=${BASH_REMATCH[1]}
    elif [[ $REPOSITORY =~ ^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\. ]]; then
        region=${BASH_REMATCH[2]}
        password=$(in_time 2 aws ecr get-login-password --region "$region" </dev/null)
    fi
    [[ $password =~ ^[a-zA-Z0-9+/=._-]+$ ]] || fail "neither kubelet's credential provider nor the AWS CLI gave a login"
}

# Removes what was fetched for other deployments, save for the newest, and what commands that were killed left.
remove_older() {
    local name others=0
    while read -r name; do
        case $name in
            # With the reports of the node's boot (examples/boot).
            "$digest" | boot) ;;
            *.*) [[ -e /proc/${name##*.} ]] || rm -f "$folder/$name" ;;
            *) ((++others <= PREVIOUS)) || rm -f "$folder/$name" ;;
        esac
    done < <(ls -t "$folder")
}

# Takes what has passed from the time that there is.
count_time() {
    local left=$((SSM_executionTimeout - SECONDS))
    SSM_executionTimeout=$((left > 5 ? left : 5))
}

become_program() {
    count_time
    shopt -s execfail
    # shellcheck disable=SC2093 # where it fails
    exec "$file" "${arguments[@]}"
    refuse "$file cannot be executed"
}

# -------------------------------------------------------------------------------------------------------- Bottlerocket

# SSM's agent runs in Bottlerocket's control container, from where nothing reaches containerd. There, this script hands
# itself over to a superpowered host container, and passes on what it prints
# (bottlerocket-core-kit, sources/api/apiclient and sources/api/apiserver/src/server/exec).
hand_over() {
    local line code='' margin=$((SSM_executionTimeout / 20)) seconds
    [[ ${SSM_images-} =~ ^([a-zA-Z0-9._/:@-]+(\ [a-zA-Z0-9._/:@-]+)*)?$ ]] ||
        refuse "images is no list of references with one space between two"
    pending=" ${SSM_images-} "
    # Where there are none, only the end tells whether a command has done all: one for tags that is interrupted has not.
    [[ -z ${SSM_tags-} ]] || exit_code=1
    apiclient=$(command -v apiclient || echo /usr/local/bin/apiclient)
    trap report_interrupted TERM INT HUP
    wait_for_container
    margin=$((margin < 1 ? 1 : margin > 7 ? 7 : margin))
    seconds=$((SSM_executionTimeout - SECONDS - margin))
    # Both of the script's outputs come back as one; apiclient ends with 1 also where it has lost the script.
    while IFS= read -r line; do
        case $line in
            '{'*'}') pass_on "$line" ;;
            'exit '*) code=${line#exit } ;;
            ?*) echo "$line" >&2 ;;
        esac
    done < <(
        payload | timeout --foreground $((seconds > 1 ? seconds : 1)) "$apiclient" exec -T "$container" bash 2>&1
        printf '\nexit %s\n' "${PIPESTATUS[1]}"
    )
    [[ $code != 2 ]] || exit 2
    if [[ -z ${SSM_images-} ]]; then
        [[ $code == 0 ]]
        exit_code=$?
    fi
    report_interrupted
}

# Prints the parameters and this script: bash reads both from its standard input, for arguments are limited and an
# environment does not come through.
payload() {
    local name
    echo in_host_container=yes
    count_time
    for name in "${!SSM_@}"; do
        printf 'export %s=%q\n' "$name" "${!name}"
    done
    cat "$0"
}

# Sets $container to the host container to hand over to, once it runs and enters the host.
wait_for_container() {
    until choose_container && api exec -T "$container" nsenter -t 1 -m -- true >/dev/null; do
        ((SECONDS <= START_SECONDS && SECONDS < SSM_executionTimeout - 3)) ||
            refuse "host container $container does not start or cannot enter the host"
        sleep 1
    done
}

# Sets $container to the one that is enabled, that of our own name before Bottlerocket's; fails where the API is silent.
choose_container() {
    local answer silent=''
    for container in prefetch admin; do
        is_set enabled || continue
        is_set superpowered || [[ -n $silent ]] ||
            refuse "on Bottlerocket it takes settings.host-containers.$container.superpowered = true"
        return
    done
    [[ -n $silent ]] ||
        refuse "on Bottlerocket it takes settings.host-containers.prefetch, or settings.host-containers.admin.enabled = true"
    false
}

# Tells whether a setting of $container is true: <setting>
is_set() {
    answer=$(api get "settings.host-containers.$container.$1") || silent=yes
    [[ $answer == *true* ]]
}

api() {
    timeout --foreground 10 "$apiclient" "$@" 2>&1
}

# Of a command that was handed over: the images without a report, and whether one failed.
pending='' exit_code=0

# Passes a report on: <line>
pass_on() {
    local image=${1#'{"image":"'}
    echo "$1"
    pending=${pending/" ${image%%\"*} "/ }
    [[ $1 != *'"status":"failed"'* ]] || exit_code=1
}

# Ends a command that was handed over; an image of which nothing came is to be tried again.
report_interrupted() {
    # A signal that comes while a line is read finds read's.
    local image IFS=' '
    trap '' TERM INT HUP
    for image in $pending; do
        exit_code=1
        printf '{"image":"%s","digest":"%s","status":"failed","reason":"interrupted","seconds":0,"bytes":0,"attempts":0}\n' \
            "$image" "${image##*@}"
    done
    exit "$exit_code"
}

# The lines above are complete: what reads this script from standard input is done reading.
main </dev/null
