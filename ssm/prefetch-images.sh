#!/usr/bin/env bash
# Puts container images on this node before pods need them. Runs as root, sent by SSM Run Command.
#
# In:   SSM_images            1 to 50 references registry/repository[:tag]@sha256:<64 hex>, one space between two
#       SSM_executionTimeout  seconds after which SSM kills the command; this script ends by itself before that
# Out:  stdout  one JSON line per image: image, digest, status, reason, seconds, bytes, attempts;
#               status is pulled, cached, skipped or failed; bytes is the compressed size of what was pulled, else 0;
#               reason is tag-moved where the image is here, but its tag stands for another one and stays there
#       stderr  what went wrong, for people
#       exit    0 every image was pulled, cached or skipped; 1 at least one failed; 2 unusable parameters or
#               a node without ctr, nothing done
set -u -o pipefail
export LC_ALL=C

readonly RUN=/run/prefetch-images
readonly SOCKET=/run/containerd/containerd.sock
readonly PLUGINS=/etc/eks/image-credential-provider

readonly MAX_IMAGES=50
readonly MAX_ATTEMPTS=4
readonly MIN_ATTEMPT_SECONDS=10
readonly BOOT_SECONDS=60    # how long containerd may take to answer at all
readonly LOOK_UP_SECONDS=30 # one question to containerd, the registry or a login helper

main() {
    read_parameters
    prepare
    look_for_images "${!images[@]}"
    report_complete_images
    if work_is_left; then
        take_lock
        remember_what_was_here
        prefetch_the_rest
    fi
    exit "$exit_code"
}

# -------------------------------------------------------------------------------------------------------- parameters

# Per image: its digest and registry, its two names (without a tag only one) and, once it has an outcome, its status.
images=() digests=() registries=() names_by_digest=() names_by_tag=() statuses=()

read_parameters() {
    # SSM writes executionTimeout into this text, and an agent that does not know interpolationType ENV_VAR writes
    # the images too. The quotes hold: allowedPattern admits none.
    [[ -n ${SSM_images+set} ]] || SSM_images='{{ images }}'
    [[ -n ${SSM_executionTimeout+set} ]] || SSM_executionTimeout='{{ executionTimeout }}'

    [[ $SSM_executionTimeout =~ ^([5-9]|[1-9][0-9]{1,5})$ ]] || refuse "executionTimeout is no number of seconds from 5"
    local margin=$((SSM_executionTimeout / 10))
    margin=$((margin < 2 ? 2 : margin > 15 ? 15 : margin))
    deadline=$((SSM_executionTimeout - margin))
    clean_up_seconds=$((margin / 2))

    ((${#SSM_images} <= 40000)) || refuse "images is longer than $MAX_IMAGES references can be"
    [[ $SSM_images =~ ^[a-zA-Z0-9._/:@-]+(\ [a-zA-Z0-9._/:@-]+)*$ ]] ||
        refuse "images is no list of references with one space between two"
    read -r -a images <<<"$SSM_images"
    ((${#images[@]} <= MAX_IMAGES)) || refuse "images names ${#images[@]} images, more than $MAX_IMAGES"
    local image
    for image in "${images[@]}"; do
        read_reference "$image"
    done
}

readonly LABEL='[a-z0-9]+(-+[a-z0-9]+)*'
readonly HOST="$LABEL(\\.$LABEL)+(:[0-9]{1,5})?"
readonly COMPONENT='[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*'
readonly REFERENCE="^$HOST(/$COMPONENT)+(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?@sha256:[a-f0-9]{64}\$"

read_reference() {
    [[ $1 =~ $REFERENCE ]] || refuse "not registry/repository[:tag]@sha256:digest: ${1:0:200}"
    local registry=${1%%/*} repository=${1#*/} tag=
    repository=${repository%@*}
    [[ $repository != *:* ]] || tag=${repository#*:}
    repository=${repository%:*}
    ((${#repository} <= 255 && ${#tag} <= 128)) || refuse "repository over 255 or tag over 128 characters: ${1:0:200}"

    digests+=("${1##*@}")
    registries+=("$registry")
    names_by_digest+=("$registry/$repository@${1##*@}")
    names_by_tag+=("${tag:+$registry/$repository:$tag}")
    statuses+=("")
}

refuse() {
    echo "prefetch-images: $1" >&2
    exit 2
}

prepare() {
    command -v ctr >/dev/null || refuse "there is no ctr on this node; it cannot be prefetched to"
    exec 8>&1 # the reports' way out, also from a trap that strikes while standard output leads elsewhere
    umask 077
    work=$RUN/$$
    mkdir -p "$work"
    trap 'rm -rf "$work"' EXIT
    trap interrupt TERM INT HUP
    containerd config dump >"$work/config" 2>/dev/null &
    config_dump=$!
}

# ----------------------------------------------------------------------------------------------------------- outcomes

exit_code=0
began=$EPOCHREALTIME
attempts=0
note='' # tag-moved, or nothing

# Reports an image, counting its seconds from $began: <number> <status> <reason> <bytes> <attempts>
report() {
    local now=${EPOCHREALTIME/[.,]/} seconds
    local spent=$((now - ${began/[.,]/}))
    printf -v seconds '%d.%03d' $((spent / 1000000)) $((spent % 1000000 / 1000))
    printf '{"image":"%s","digest":"%s","status":"%s","reason":"%s","seconds":%s,"bytes":%d,"attempts":%d}\n' \
        "${images[$1]}" "${digests[$1]}" "$2" "$3" "$seconds" "$4" "$5" >&8
    statuses[$1]=$2
    [[ $2 != failed ]] || exit_code=1
}

report_complete_images() {
    local number
    for number in "${!images[@]}"; do
        ! is_complete "$number" || report "$number" cached "" 0 0
    done
}

work_is_left() {
    local status
    for status in "${statuses[@]}"; do
        [[ -n $status ]] || return 0
    done
    return 1
}

# Gives every image without an outcome the same one: <reason>
fail_the_rest() {
    local number
    for number in "${!images[@]}"; do
        [[ -n ${statuses[number]} ]] || report "$number" failed "$1" 0 "$attempts"
        attempts=0
    done
}

# shellcheck disable=SC2317 # called by trap
# Ends on a signal: what is being pulled and what was not begun is reported as failed, to be tried again.
interrupt() {
    trap '' TERM INT HUP
    [[ -z $child ]] || kill "$child" 2>/dev/null
    fail_the_rest interrupted
    [[ -z $current ]] || clean_up "$current"
    exit "$exit_code"
}

# ----------------------------------------------------------------------------------------------- one command at a time

# Waits for the other commands of this node. The lock dies with this process: children do not inherit it.
take_lock() {
    exec 9>"$RUN/lock"
    if ! flock --nonblock 9; then
        echo "prefetch-images: waiting for another command on this node" >&2
        flock --wait "$((deadline > SECONDS ? deadline - SECONDS : 0))" 9 &
        if ! wait_for_child $!; then
            fail_the_rest timeout
            exit "$exit_code"
        fi
    fi
    remove_leftovers
}

# Removes the folders of commands that were killed.
remove_leftovers() {
    local folder
    for folder in "$RUN"/[0-9]*; do
        [[ -e /proc/${folder##*/} ]] || rm -rf "$folder"
    done
}

# --------------------------------------------------------------------------------------------------------- one image

# The image in work.
current=

prefetch_the_rest() {
    for current in "${!images[@]}"; do
        [[ -n ${statuses[current]} ]] || prefetch "$current"
    done
    current=
}

prefetch() {
    began=$EPOCHREALTIME attempts=0 reason=timeout outcome=cached note=''
    while ((SECONDS < deadline)); do
        attempts=$((attempts + 1)) reason='' detail=''
        try "$1" && break
        tell "$1"
        if ! may_pass || ((attempts == MAX_ATTEMPTS)) || ! back_off; then
            break
        fi
    done
    conclude "$1"
}

# Makes one attempt; where it fails, $reason says why. What is found here complete is no attempt.
try() {
    look_for_images "$1" || { reason=interrupted detail="containerd does not answer" && return 1; }
    if has_content "$1"; then
        add_names "$1" || return
        [[ $outcome == pulled ]] || attempts=$((attempts - 1))
    else
        fetch "$1" && add_names "$1"
    fi
}

fetch() {
    log_in "$1"
    describe "$1" ask_registry
    [[ $platform != foreign ]] || { reason=platform && return 1; }
    pull "$1" || return
    [[ $platform == own ]] || describe "$1" ask_containerd
    [[ $platform != foreign ]] || { reason=platform && return 1; }
    outcome=pulled
    right[${names_by_digest[$1]}]=yes
}

add_names() {
    add_missing_name "$1" || return
    look_for_images "$1" && is_complete "$1" && return
    reason=interrupted detail="containerd does not hold it completely"
    return 1
}

# Reports, and only then cleans up: containerd may not answer, and time may be short.
conclude() {
    if [[ -n $reason && $reason != platform ]] && came_meanwhile "$1"; then
        reason=''
    fi
    [[ $outcome == pulled ]] || bytes=0
    case $reason in
        '') report "$1" "$outcome" "$note" "$bytes" "$attempts" ;;
        platform) report "$1" skipped "$reason" 0 "$attempts" ;;
        *) report "$1" failed "$reason" 0 "$attempts" ;;
    esac
    if [[ -n $reason ]] && ((attempts > 0)); then
        ((SECONDS < deadline)) || fail_the_rest_in_time
        clean_up "$1"
    fi
    attempts=0
}

fail_the_rest_in_time() {
    began=$EPOCHREALTIME attempts=0
    fail_the_rest timeout
}

# Tells whether somebody else, such as kubelet, has pulled the image since the last attempt began, and names it.
came_meanwhile() {
    ((attempts > 0 && SECONDS < deadline)) && ! has_content "$1" &&
        look_for_images "$1" && has_content "$1" && ! is_foreign "$1" && add_names "$1"
}

# Tells whether the same may succeed later. A refused login may, if a login helper failed at it.
may_pass() {
    case $reason in
        registry | timeout | interrupted) return 0 ;;
        denied) [[ $login_failed == yes ]] ;;
        *) return 1 ;;
    esac
}

# Sleeps 1 to 2 seconds after the first attempt, 2 to 4 after the second, 4 to 8 after the third.
back_off() {
    local base=$((1000 << (attempts - 1))) pause
    pause=$((base + RANDOM % base))
    login_registry=
    ((pause / 1000 < deadline - SECONDS)) || return
    sleep "$((pause / 1000)).$((pause % 1000 / 100))" 9>&- &
    wait_for_child $!
}

tell() {
    local cause=$detail
    ((${#cause} <= 300)) || cause="…${cause: -300}" # the innermost cause stands last
    echo "prefetch-images: ${images[$1]}: attempt $attempts: $reason${cause:+: $cause}" >&2
}

# ---------------------------------------------------------------------------------------------- what containerd holds

# Names that stand for their image's digest, those that did before any pull, and digests that are unpacked.
declare -A right=() right_before=() unpacked=()

# Looks for both names of these images in one question, and for the unpacked content behind them in another.
look_for_images() {
    local names=() contents=() number name
    for number; do
        for name in "${names_by_digest[number]}" ${names_by_tag[number]:+"${names_by_tag[number]}"}; do
            names+=("name==$name,target.digest==${digests[number]}")
            unset "right[$name]"
        done
        unset "unpacked[${digests[number]}]"
    done
    ask_about_images ls --quiet "${names[@]}" || return
    while read -r name; do
        right[$name]=yes
    done <"$work/images"

    for number; do
        for name in "${names_by_digest[number]}" "${names_by_tag[number]}"; do
            [[ -z ${right[${name:-none}]-} ]] || { contents+=("name==$name") && break; }
        done
    done
    ((${#contents[@]})) || return 0
    find_snapshotter
    ask_about_images check --snapshotter "$snapshotter" "${contents[@]}" || return
    local line columns
    while read -r line; do
        read -r -a columns <<<"$line"
        unpacked[${columns[2]-none}]=${columns[-1]} # STATUS, between, says little: EKS discards unpacked layers
    done <"$work/images"
}

ask_about_images() {
    limited "$LOOK_UP_SECONDS" ctr --namespace k8s.io images "$@" >"$work/images" 2>"$work/error" && return
    echo "prefetch-images: containerd does not answer: $(tail -n 1 "$work/error")" >&2
    return 1
}

# Looks again once no other command is at work, and waits a while for a containerd that does not answer, as at boot.
remember_what_was_here() {
    local name patience=$((SECONDS + BOOT_SECONDS))
    until look_for_images "${!images[@]}"; do
        if ((SECONDS > patience || SECONDS >= deadline)); then
            fail_the_rest interrupted
            exit "$exit_code"
        fi
        sleep 1 9>&- &
        wait_for_child $!
    done
    for name in "${!right[@]}"; do
        right_before[$name]=yes
    done
}

is_complete() {
    has_content "$1" && [[ -n ${right[${names_by_digest[$1]}]-} ]] &&
        [[ -z ${names_by_tag[$1]} || -n ${right[${names_by_tag[$1]}]-} || $note == tag-moved ]]
}

has_content() {
    [[ ${unpacked[${digests[$1]}]-} == true ]]
}

# Gives the image whichever of its names is missing, so that kubelet finds it by tag and by digest.
add_missing_name() {
    local by_digest=${names_by_digest[$1]} by_tag=${names_by_tag[$1]}
    [[ -n ${right[$by_digest]-} ]] || copy_name "$by_tag" "$by_digest" || return
    [[ -n $by_tag && -z ${right[$by_tag]-} ]] || return 0
    look_for_tag "$1" || return
    [[ $note == tag-moved ]] || copy_name "$by_digest" "$by_tag"
}

copy_name() {
    limited "$LOOK_UP_SECONDS" ctr --namespace k8s.io images tag --force "$1" "$2" >/dev/null 2>"$work/error" && return
    reason=interrupted detail=$(tail -n 1 "$work/error")
    return 1
}

# Sets $note to tag-moved where the tag stands for another image, here and by now in the registry as well: commands
# may come late. Fails where the registry does not say.
look_for_tag() {
    note=''
    ask_about_images ls --quiet "name==${names_by_tag[$1]},target.digest!=${digests[$1]}" ||
        { reason=interrupted && return 1; }
    [[ -s $work/images ]] || return 0
    log_in "$1"
    if ask_registry_for_tag "$1"; then
        [[ $(sha256sum "$work/blob") != "${digests[$1]#sha256:} "* ]] || return 0
    else
        explain $? "$(tail -n 1 "$work/error")"
        [[ $reason == not-found ]] || return
        reason=''
    fi
    note="tag-moved"
    echo "prefetch-images: ${images[$1]}: the tag stands for another image by now and stays there" >&2
}

# Removes what attempts that came to nothing left behind, unless the image has become complete by other hands.
clean_up() {
    grace=$clean_up_seconds
    if look_for_images "$1" && { ! has_content "$1" || is_foreign "$1"; }; then
        remove_new_names "$1"
    fi
    grace=0
}

# Removes the names that a pull left behind; those that were there before stay.
remove_new_names() {
    local name new=() ids=() others=0
    ask_about_images ls --quiet "target.digest==${digests[$1]}" || return
    while read -r name; do
        case $name in
            sha256:*) ids+=("$name") ;;
            *)
                if is_name_of "$1" "$name" && [[ -z ${right_before[$name]-} ]]; then
                    new+=("$name")
                else
                    others=1
                fi
                ;;
        esac
    done <"$work/images"
    ((others)) || new+=("${ids[@]}") # the name by which CRI alone knows the image
    ((${#new[@]} == 0)) || limited "$LOOK_UP_SECONDS" ctr --namespace k8s.io images rm "${new[@]}" >/dev/null 2>&1
}

is_name_of() {
    [[ $2 == "${names_by_digest[$1]}" || $2 == "${names_by_tag[$1]}" ]]
}

snapshotter=

# Reads from containerd, once, which snapshotter CRI unpacks into.
find_snapshotter() {
    local line table=''
    [[ -z $snapshotter ]] || return 0
    wait_for_child "$config_dump"
    snapshotter=overlayfs
    while read -r line; do
        case $line in
            '['*) table=$line ;;
            'snapshotter = '*)
                case $table in
                    *'io.containerd.grpc.v1.cri".containerd]' | *"io.containerd.cri.v1.images']")
                        line=${line#*[\"\']}
                        snapshotter=${line%[\"\']*}
                        ;;
                esac
                ;;
        esac
    done <"$work/config"
}

# --------------------------------------------------------------------------------------------------- what the image is

# Sets $platform to own, foreign or unknown and $bytes to the compressed size: <number> <ask_registry|ask_containerd>
describe() {
    local kind first rest
    platform=unknown bytes=0
    "$2" "$1" object "${digests[$1]}" && read -r kind first rest < <(summary) || return
    if [[ $kind == index ]]; then
        [[ $first != none ]] || { platform=foreign && return; }
        [[ $first != unknown ]] || return
        "$2" "$1" object "$first" && read -r kind first rest < <(summary) || return
        platform=own
    fi
    bytes=$rest
    [[ $platform == own ]] || ! "$2" "$1" blob "$first" || read_platform
}

is_foreign() {
    describe "$1" ask_containerd
    [[ $platform == foreign ]]
}

# Prints "index <digest of this node's manifest>", "index none", "index unknown" where children name no platform, or
# "manifest <digest of its configuration> <bytes>".
summary() {
    jq --raw-output --arg architecture "$ARCHITECTURE" "$NORMALIZE"'
        if .manifests then
            [.manifests[] | select(.platform.os == "linux" and (.platform.architecture | normalize) == $architecture)]
                as $own
            | (if any(.manifests[]; .platform == null) then "unknown" else "none" end) as $otherwise
            | "index \($own[0].digest // $otherwise)"
        else
            "manifest \(.config.digest) \(.config.size + ([.layers[].size] | add // 0))"
        end' "$work/blob" 2>/dev/null
}

# Other words for an architecture, which containerd takes as well.
readonly NORMALIZE='
    def normalize:
        if . == "x86_64" or . == "x86-64" then "amd64" elif . == "aarch64" then "arm64" else . end;'

read_platform() {
    local found
    found=$(jq --raw-output "$NORMALIZE"'"\(.os)/\(.architecture | normalize)"' "$work/blob" 2>/dev/null)
    case $found in
        "linux/$ARCHITECTURE") platform=own ;;
        *null* | */ | '') ;;
        *) platform=foreign ;;
    esac
}

# shellcheck disable=SC2317 # both are called by describe
# Both put a manifest (object) or a configuration (blob) into $work/blob: <number> <object|blob> <digest>
ask_registry() {
    limited "$LOOK_UP_SECONDS" ctr content "fetch-$2" --hosts-dir "$work/hosts" "${names_by_digest[$1]%@*}@$3" "$3" \
        >"$work/blob" 2>"$work/error"
}

# Puts the manifest that the tag has now into $work/blob.
ask_registry_for_tag() {
    limited "$LOOK_UP_SECONDS" ctr content fetch-object --hosts-dir "$work/hosts" "${names_by_tag[$1]}" \
        "${digests[$1]}" >"$work/blob" 2>"$work/error"
}

# shellcheck disable=SC2317
ask_containerd() {
    limited "$LOOK_UP_SECONDS" ctr --namespace k8s.io content get "$3" >"$work/blob" 2>"$work/error"
}

case $HOSTTYPE in
    x86_64) ARCHITECTURE=amd64 ;;
    aarch64) ARCHITECTURE=arm64 ;;
    *) ARCHITECTURE=$HOSTTYPE ;;
esac

# --------------------------------------------------------------------------------------------------------------- pull

curl_features=

# Pulls by digest into CRI's snapshotter: through CRI, as kubelet does, or with ctr where curl cannot speak to CRI.
# The first attempt may take a third of the whole time, each further one twice as long: what is cut off starts anew.
pull() {
    local limit=$((deadline / 3))
    limit=$(((limit < MIN_ATTEMPT_SECONDS ? MIN_ATTEMPT_SECONDS : limit) << (attempts - 1)))
    [[ -n $curl_features ]] || curl_features=$(curl --version 2>&1 9>&-)
    if [[ $curl_features == *HTTP2* && $curl_features == *UnixSockets* ]]; then
        pull_through_cri "$1" "$limit"
    else
        pull_with_ctr "$1" "$limit"
    fi
}

pull_through_cri() {
    local line status='' message='' code
    : >"$work/answer"
    limited "$2" curl --disable --silent --show-error --noproxy '*' --http2-prior-knowledge --unix-socket "$SOCKET" \
        --header 'content-type: application/grpc' --header 'te: trailers' --data-binary @- \
        --dump-header "$work/answer" --output /dev/null http://localhost/runtime.v1.ImageService/PullImage \
        < <(pull_request "$1") 2>"$work/error"
    code=$?
    while IFS=': ' read -r line rest; do
        case $line in
            grpc-status) status=${rest%$'\r'} ;;
            grpc-message) message=${rest%$'\r'} ;;
        esac
    done <"$work/answer"
    [[ $status != 0 ]] || return 0
    [[ -n $status ]] || message=$(tail -n 1 "$work/error")
    explain "$code" "$message"
    [[ -n $status || $reason == timeout ]] || reason=interrupted
    return 1
}

pull_with_ctr() {
    local code options=(--hosts-dir "$work/hosts" --platform "linux/$ARCHITECTURE")
    find_snapshotter
    options+=(--snapshotter "$snapshotter")
    # containerd 2.x unpacks into another snapshotter than its default only when ctr does the work itself.
    [[ $(ctr images pull --help 2>&1 9>&-) != *--local* ]] || options+=(--local)
    limited "$2" ctr --namespace k8s.io images pull "${options[@]}" "${names_by_digest[$1]}" >/dev/null 2>"$work/error"
    code=$?
    ((code)) || return 0
    explain "$code" "$(grep -v level=warning "$work/error" | tail -n 1)"
    return 1
}

# Sets $reason and $detail from what a pull ended with. What fails once the image is resolved is the transfer.
explain() {
    detail=$2
    case $1:$(without_names "$2") in
        124:* | 137:* | *'context deadline exceeded'*) reason=timeout ;;
        *'no match for platform'*) reason=platform ;;
        *'failed to copy'*) reason=registry ;;
        *'401 Unauthorized'* | *'403 Forbidden'* | *'authorization failed'* | *'no basic auth'* | *denied*)
            reason=denied
            ;;
        *'not found'*) reason=not-found ;;
        *) reason=registry ;;
    esac
}

# Prints a message without the image's own names, which may hold any word.
without_names() {
    local message=$1 name=${names_by_digest[$current]%@*} word
    message=${message//"${name%%/*}"/}
    for word in "${name#*/}" "${names_by_tag[$current]##*:}"; do
        [[ -z $word ]] || message=${message//[\/:]"$word"[\/:@\"]/ }
    done
    printf '%s' "$message"
}

# Prints gRPC's frame and CRI's PullImageRequest: image 1 { image 1 }, auth 2 { username 1, password 2 }.
# printf is part of bash: the password reaches curl through a pipe and is seen nowhere else.
pull_request() {
    local message name
    protobuf_field 0a "${names_by_digest[$1]}"
    protobuf_field 0a "$field"
    message=$field
    if [[ -n $password ]]; then
        protobuf_field 0a "$user"
        name=$field
        protobuf_field 12 "${password//\\/\\\\}"
        protobuf_field 12 "$name$field"
        message+=$field
    fi
    escaped_length "$message"
    printf -v length '\\x%02x' $((length >> 24 & 255)) $((length >> 16 & 255)) $((length >> 8 & 255)) $((length & 255))
    printf '%b' "\\x00$length$message"
}

# Sets $field to a length-delimited field, escaped for printf: <key, two hex digits> <escaped content>
protobuf_field() {
    local size=''
    escaped_length "$2"
    while ((length > 127)); do
        printf -v field '\\x%02x' $((length & 127 | 128))
        size+=$field
        length=$((length >> 7))
    done
    printf -v field '%s\\x%02x' "\\x$1$size" "$length"
    field+=$2
}

# Sets $length to the bytes that an escaped text stands for; it holds no NUL.
escaped_length() {
    local bytes
    printf -v bytes '%b' "$1"
    length=${#bytes}
}

# -------------------------------------------------------------------------------------------------------------- login

login_registry='' login_failed='' user='' password=''

# Gets the login of the image's registry: from kubelet's credential provider, else the AWS CLI, else none.
log_in() {
    [[ $login_registry != "${registries[$1]}" ]] || return 0
    user='' password='' login_failed=''
    rm -rf "$work/hosts"
    mkdir -p "$work/hosts"
    log_in_as_kubelet "${names_by_digest[$1]%@*}" || log_in_by_aws_cli "${registries[$1]}" || true
    [[ -z $password ]] || write_hosts "${registries[$1]}"
    login_registry=${registries[$1]}
}

log_in_as_kubelet() {
    local name version patterns
    [[ -r $PLUGINS/config.json ]] || return
    while IFS=$'\t' read -r name version patterns; do
        if matches_any "$1" "$patterns" && ask_provider "$name" "$version" "$1"; then
            return
        fi
    done < <(jq --raw-output '.providers[] | [.name, .apiVersion, (.matchImages | join(" "))] | @tsv' \
        "$PLUGINS/config.json")
    return 1
}

# Asks one of kubelet's plugins, with the arguments and the environment that kubelet's configuration gives it.
ask_provider() {
    local arguments environment
    mapfile -t arguments < <(provider_setting "$1" '.args[]?')
    mapfile -t environment < <(provider_setting "$1" '.env[]? | "\(.name)=\(.value)"')
    {
        IFS= read -r user
        IFS= read -r password
    } < <(printf '{"kind":"CredentialProviderRequest","apiVersion":"%s","image":"%s"}' "$2" "$3" |
        limited "$LOOK_UP_SECONDS" env "${environment[@]}" "$PLUGINS/$1" "${arguments[@]}" |
        jq --raw-output --arg registry "${3%%/*}" '.auth | .[$registry] // first(.[]) | .username, .password')
    [[ -n $password ]] || login_has_failed "$1"
}

provider_setting() {
    jq --raw-output --arg name "$1" ".providers[] | select(.name == \$name) | $2" "$PLUGINS/config.json"
}

log_in_by_aws_cli() {
    [[ $1 =~ ^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\. ]] && command -v aws >/dev/null || return
    user=AWS
    IFS= read -r password < <(limited "$LOOK_UP_SECONDS" aws ecr get-login-password --region "${BASH_REMATCH[2]}")
    [[ -n $password ]] || login_has_failed "the AWS CLI"
}

login_has_failed() {
    login_failed=yes
    echo "prefetch-images: $1 gave no login" >&2
    return 1
}

# Matches an image as kubelet matches it with matchImages: equally many labels of the host, each a glob, then the path.
matches_any() {
    local pattern patterns
    read -r -a patterns <<<"$2"
    for pattern in "${patterns[@]}"; do
        matches "$1" "$pattern" && return
    done
    return 1
}

matches() {
    local image=$1/ pattern=${2#*://}/ index
    local image_host=${image%%/*} pattern_host=${pattern%%/*} labels globs
    [[ ${image#*/} == "${pattern#*/}"* || ${pattern#*/} == '' ]] || return
    IFS=.: read -r -a labels <<<"$image_host"
    IFS=.: read -r -a globs <<<"$pattern_host"
    ((${#labels[@]} == ${#globs[@]})) || return
    for index in "${!labels[@]}"; do
        # shellcheck disable=SC2053 # a glob on the right is meant
        [[ ${labels[index]} == ${globs[index]} ]] || return
    done
}

# Writes the login where ctr, and containerd for it, look: on tmpfs, for root alone, until this process ends.
write_hosts() {
    mkdir "$work/hosts/$1"
    {
        printf 'server = "https://%s"\ncapabilities = ["pull", "resolve"]\n[header]\n' "$1"
        printf 'Authorization = "Basic %s"\n[host]\n' "$(printf '%s:%s' "$user" "$password" | base64 --wrap 0)"
    } >"$work/hosts/$1/hosts.toml"
}

# ---------------------------------------------------------------------------------------------------------- processes

grace=0

# Runs a command for at most so many seconds, and never past the deadline, save for the grace that cleaning up has;
# signals are handled meanwhile.
limited() {
    local seconds=$1 left=$((deadline + grace - SECONDS))
    shift
    ((seconds < left)) || seconds=$left
    ((seconds > 0)) || return 124
    timeout --foreground --kill-after 1 "$seconds" "$@" <&0 8>&- 9>&- &
    wait_for_child $!
}

child=

wait_for_child() {
    local code
    child=$1
    wait "$child"
    code=$?
    child=
    return "$code"
}

main
