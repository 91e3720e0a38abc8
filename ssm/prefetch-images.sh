#!/usr/bin/env bash
# Puts container images on this node before pods need them. Runs as root, sent by SSM Run Command.
#
# In:   SSM_images            1 to 50 references registry/repository[:tag]@sha256:<64 hex>, one space between two
#       SSM_executionTimeout  seconds after which SSM kills the command; this script ends by itself before that
#       SSM_imageGCHighThresholdPercent  no pull may fill containerd's file system above it, in percent
#       SSM_maxParallelImagePulls        how many images are pulled at once
#       SSM_maxImageGiB       images of more compressed GiB are skipped; 0 for no limit
#       SSM_keep              how many newest images of ours stay per repository; 0 to remove none
#       SSM_pin               true to exempt images of ours from kubelet's garbage collection while they are kept
#       SSM_reportOnly        true to say what would be done and to change nothing
# Out:  stdout  one JSON line per image: image, digest, status, reason, seconds, bytes, attempts;
#               status is pulled, cached, skipped or failed; bytes is the compressed size of what was pulled, or what
#               would be, else 0;
#               reason is tag-moved where the image is here, but its tag stands for another one and stays there
#       stderr  what went wrong, for people
#       exit    0 every image was pulled, cached or skipped; 1 at least one failed; 2 unusable parameters or
#               a node that is not supported, nothing done
set -u -o pipefail
export LC_ALL=C TZ=UTC

readonly RUN=/run/prefetch-images
readonly SOCKET=/run/containerd/containerd.sock

readonly MAX_IMAGES=50
readonly MAX_ATTEMPTS=4
readonly STALL_SECONDS=30   # how long a first attempt may make no progress
readonly BOOT_SECONDS=60    # how long containerd may take to answer at all
readonly FRESH_SECONDS=5    # how old what is known of containerd may be where a pull begins
readonly LOOK_UP_SECONDS=30 # one question to containerd, the registry or a login helper
readonly BALLAST_BYTES=$((4 << 20)) # what containerd needs to clean up on a full disk
readonly CLAIMED_AT_ONCE=8           # images that are done and get their labels before others are
readonly MAX_BLOB_KIB=8192           # of a manifest or configuration; registries take 4 MiB
readonly MAX_BLOB_TOGETHER_KIB=1024  # of each of those that are asked for together
readonly TOGETHER_SECONDS=10         # that all of them may take
FILE_LIMIT=$(ulimit -S -f)
readonly FILE_LIMIT
readonly MAX_NEED=1000000000000000   # bytes, beyond which nothing has to be added to what an image needs
readonly MAX_JSON_LINES=20000        # of a manifest that is read; some ten stand for a layer
readonly MAX_TALK=7000      # characters on standard error, of which SSM returns the first 8,000

# On every name that a pull of ours made: when. An image is ours where its name by digest carries it.
readonly OURS=prefetch-images/pulled-at
readonly PINNED=io.cri-containerd.pinned

main() {
    read_parameters
    prepare
    look_for_images "${!images[@]}" && report_complete_images
    if work_is_left || ((keep > 0)); then
        take_lock
        look_again
        prefetch_the_rest
        let_go_of_older_images
    fi
    exit "$exit_code"
}

# -------------------------------------------------------------------------------------------------------- parameters

# Per image: its digest and registry, its two names (without a tag only one) and, once it has an outcome, its status.
images=() digests=() registries=() names_by_digest=() names_by_tag=() outcomes=()

read_parameters() {
    # An agent that does not know interpolationType ENV_VAR writes the values into this text. The quotes hold:
    # allowedPattern admits none.
    [[ -n ${SSM_images+set} ]] || SSM_images='{{ images }}'
    [[ -n ${SSM_executionTimeout+set} ]] || SSM_executionTimeout='{{ executionTimeout }}'
    [[ -n ${SSM_imageGCHighThresholdPercent+set} ]] || SSM_imageGCHighThresholdPercent='{{ imageGCHighThresholdPercent }}'
    [[ -n ${SSM_maxParallelImagePulls+set} ]] || SSM_maxParallelImagePulls='{{ maxParallelImagePulls }}'
    [[ -n ${SSM_maxImageGiB+set} ]] || SSM_maxImageGiB='{{ maxImageGiB }}'
    [[ -n ${SSM_keep+set} ]] || SSM_keep='{{ keep }}'
    [[ -n ${SSM_pin+set} ]] || SSM_pin='{{ pin }}'
    [[ -n ${SSM_reportOnly+set} ]] || SSM_reportOnly='{{ reportOnly }}'

    accept_number executionTimeout 5 172800
    accept_number imageGCHighThresholdPercent 1 100
    accept_number maxParallelImagePulls 1 16
    accept_number maxImageGiB 0 9999
    accept_number keep 0 50
    accept_switch pin
    accept_switch reportOnly
    threshold=$SSM_imageGCHighThresholdPercent keep=$SSM_keep
    ! report_only || dry="report only: "
    [[ $SSM_pin == false ]] || ((keep > 0)) || refuse "pin needs keep, or what is pinned fills the disk"

    local margin=$((SSM_executionTimeout / 10))
    margin=$((margin < 3 ? 3 : margin > 15 ? 15 : margin))
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

# <name> <least> <most>
accept_number() {
    local variable=SSM_$1
    [[ ${!variable} =~ ^(0|[1-9][0-9]{0,5})$ ]] && ((${!variable} >= $2 && ${!variable} <= $3)) && return
    refuse "$1 is no whole number from $2 to $3"
}

accept_switch() {
    local variable=SSM_$1
    [[ ${!variable} =~ ^(true|false)$ ]] || refuse "$1 is neither true nor false"
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
    outcomes+=("")
}

refuse() {
    echo "prefetch-images: $1" >&2
    exit 2
}

dry=''

report_only() {
    [[ $SSM_reportOnly == true ]]
}

# Where the machine's own file system and programs are, as seen from here, and ctr for Kubernetes' images.
host='' on_host=() ctr=(ctr --namespace k8s.io) plugins=/etc/eks/image-credential-provider

prepare() {
    if [[ -n ${in_admin-} ]]; then
        # The host's mounts as they are now; what runs there needs no other namespace of the host's.
        host=/proc/1/root on_host=(nsenter --target 1 --mount --) ctr=("${on_host[@]}" "${ctr[@]}")
        plugins=/usr/libexec/kubernetes/kubelet/plugins
    elif [[ -e /etc/bottlerocket-release ]]; then
        hand_over_to_admin
    fi
    ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) ||
        refuse "bash $BASH_VERSION is too old: it takes 5.1 (Amazon Linux 2 is not supported)"
    local program
    for program in "${ctr[0]}" jq flock; do
        command -v "$program" >/dev/null ||
            refuse "there is no $program on this node; it cannot be prefetched to"
    done
    exec 8>&1 # the reports' way out, also from a trap that strikes while standard output leads elsewhere
    umask 077
    # The folder of this command; each of its processes at work has one of its own in it.
    shared=$host$RUN/$$ files=$shared
    [[ ! -e $shared ]] || rm -rf "$shared"
    mkdir -p "$shared"
    trap 'end_command $?' EXIT
    trap stop TERM INT HUP
    this_start=$(stat --format '%i %Y' "$host$SOCKET" 2>/dev/null)
    if [[ -z $this_start ]] || ! of_this_start config; then
        begin "$LOOK_UP_SECONDS" "${on_host[@]}" containerd config dump >"$files/config" 2>/dev/null
        config_dump=$!
    fi
}

# shellcheck disable=SC2317 # called by trap
# Leaves nothing behind, and no image untold where the script itself is at fault: <exit code>
end_command() {
    local number
    [[ $BASHPID == "$self" ]] || return
    trap '' TERM INT HUP
    if (($1 != 2)); then
        ((${#workers[@]} == 0)) || { kill "${!workers[@]}" && wait "${!workers[@]}"; } 2>/dev/null
        for number in "${workers[@]}"; do
            [[ ! -s $shared/$number.outcome ]] || outcomes[number]=$(<"$shared/$number.outcome")
        done
        workers=() done=()
        fail_the_rest interrupted
    fi
    rm -rf "$shared"
}

this_start='' # of containerd: what its socket is told by

# Tells whether a file that commands keep is about the containerd that runs: <name>
of_this_start() {
    local line=''
    [[ ! -r $host$RUN/$1 ]] || IFS= read -r line <"$host$RUN/$1"
    [[ $line == "$this_start" ]]
}

# ----------------------------------------------------------------------------------------------------------- outcomes

exit_code=0
shared=''
began=${EPOCHREALTIME-$SECONDS.000000}
attempts=0
reason='' detail='' outcome='' bytes=0 platform=unknown
note='' # tag-moved, or nothing

# Reports an image: <number> <status> <reason> <bytes> <attempts> [<microseconds>, else those since $began]
report() {
    local seconds spent=${6-} outcome=$2
    busy=yes
    [[ -n $spent ]] || measure_time
    printf -v seconds '%d.%03d' $((spent / 1000000)) $((spent % 1000000 / 1000))
    printf '{"image":"%s","digest":"%s","status":"%s","reason":"%s","seconds":%s,"bytes":%d,"attempts":%d}\n' \
        "${images[$1]}" "${digests[$1]}" "$2" "$3" "$seconds" "$4" "$5" >&8
    [[ $3 != report-only ]] || outcome=$3
    [[ -z $shared ]] || echo "$outcome" >"$shared/$1.outcome"
    settle "$1" "$outcome"
    busy=''
    [[ -z $stopped ]] || $on_signal
}

# Sets $spent to the microseconds since $began.
measure_time() {
    local now=${EPOCHREALTIME-$SECONDS.000000} # without it on bash 4.2, of which see Bottlerocket
    spent=$((${now/[.,]/} - ${began/[.,]/}))
    ((spent > 0)) || spent=0 # the clock was set back
}

settle() {
    outcomes[$1]=$2
    [[ $2 != failed ]] || exit_code=1
}

report_complete_images() {
    local number
    for number in "${!images[@]}"; do
        [[ -n ${outcomes[number]} || " ${workers[*]} " == *" $number "* ]] || ! is_complete "$number" ||
            report "$number" cached "" 0 0
    done
}

work_is_left() {
    local status
    for status in "${outcomes[@]}"; do
        [[ -n $status ]] || return 0
    done
    return 1
}

# Gives every image that has no outcome, is not at work and not done the same one: <reason>
fail_the_rest() {
    local number
    for number in "${!images[@]}"; do
        [[ -n ${outcomes[number]} || " ${workers[*]-} ${done[*]-} " == *" $number "* ]] || report "$number" failed "$1" 0 0
    done
}

talk=$((MAX_TALK / 5)) # characters that this process may still say

# Tells people, within the characters that SSM returns.
say() {
    local line="prefetch-images: $dry$1"
    ((${#line} < talk)) || line=${line:0:talk}
    talk=$((talk - ${#line}))
    [[ -z $line ]] || echo "$line" >&2
}

# What a signal leads to; not in the middle of a report, which is made once.
self=$BASHPID on_signal=interrupt stopped='' busy='' hurried=''

# shellcheck disable=SC2317 # called by trap
# Takes a signal. What was just forked, to become a program, has the traps of the process it comes from.
stop() {
    [[ $BASHPID == "$self" ]] || exit
    stopped=yes
    [[ -n $busy ]] || $on_signal
}

# shellcheck disable=SC2317 # called by trap
# Ends on a signal: what is being pulled and what was not begun is reported as failed, to be tried again.
interrupt() {
    trap '' TERM INT HUP
    stopped='' read_by='' # jq may have been asked something else
    hurried=yes
    ulimit -S -f "$FILE_LIMIT"
    ((deadline < SECONDS + 3)) || deadline=$((SECONDS + 3))
    # shellcheck disable=SC2086 # several
    [[ -z $children ]] || kill $children 2>/dev/null
    ((${#workers[@]} == 0)) || kill "${!workers[@]}" 2>/dev/null
    fail_the_rest interrupted
    grace=$clean_up_seconds
    wait_for_workers 0
    verify last
    exit "$exit_code"
}

# ----------------------------------------------------------------------------------------------- one command at a time

# Waits for the other commands of this node. The lock dies with this process: children do not inherit it.
take_lock() {
    ! report_only || return 0
    exec 9>"$host$RUN/lock"
    if ! flock --nonblock 9; then
        say "waiting for another command on this node"
        looked=
        flock --wait "$((deadline > SECONDS ? deadline - SECONDS : 0))" 9 &
        if ! wait_for_children $!; then
            fail_the_rest timeout
            exit "$exit_code"
        fi
    fi
}

# Removes what commands that were killed left behind: their folders, and snapshots of theirs; and, once after each start of
# containerd, leases that the one before left.
remove_leftovers() {
    local folder lease found snapshot
    ! report_only || return 0
    for folder in "$host$RUN"/[0-9]*; do
        [[ -e /proc/${folder##*/} ]] || { remove_lease_of_ctr "$folder" && rm -rf "$folder"; }
    done
    for snapshot in "${!snapshots[@]}"; do
        [[ $snapshot != prefetch-images-* || -e /proc/${snapshot##*-} ]] ||
            limited "$LOOK_UP_SECONDS" "${ctr[@]}" snapshots --snapshotter "$snapshotter" rm "$snapshot" >/dev/null 2>&1
    done
    ! of_this_start leases-checked && found=$(leases) || return 0
    for lease in $found; do
        (($(date --date "${lease#*=}" +%s) < ${this_start#* })) || continue
        say "removing the lease ${lease%%=*} of a pull that died with its containerd"
        limited "$LOOK_UP_SECONDS" "${ctr[@]}" leases rm "${lease%%=*}" >/dev/null 2>&1 || return
    done
    echo "$this_start" >"$host$RUN/leases-checked"
}

# Looks again where the first look is old or failed, and waits a while for a containerd that does not answer, as at boot.
look_again() {
    local patience=$((SECONDS + BOOT_SECONDS))
    until [[ -n $looked ]] || look_for_images "${!images[@]}"; do
        if ((SECONDS > patience || SECONDS >= deadline)); then
            fail_the_rest interrupted
            exit "$exit_code"
        fi
        sleep 1 9>&- &
        wait_for_children $!
    done
    report_complete_images
}

# ----------------------------------------------------------------------------------------------- several images at once

# The images that are being worked on, by the process that does, and those that are done and not verified.
declare -A workers=()
done=()

# Gives each image that is left to a process of its own, so many at a time. They share the login, and what is looked at
# here: before an image is begun, and for all that are done, so that an image costs no look of its own.
prefetch_the_rest() {
    local index number name at_once=$SSM_maxParallelImagePulls pending=() curl
    work_is_left || return 0
    exec {curl}< <(exec 9>&- && curl --version 2>&1)
    for number in "${!images[@]}"; do
        [[ -n ${outcomes[number]} ]] || pending+=("$number")
    done
    start_reader
    mkdir "${pending[@]/#/"$shared/files."}"
    find_image_service
    begin_to_look_for_tags
    log_in "${pending[0]}"
    find_taken_tags
    curl_features=$(cat <&"$curl")
    ask_together "${pending[@]:0:at_once}"
    for index in "${!pending[@]}"; do
        number=${pending[index]}
        ((index != at_once)) || ask_together "${pending[@]:at_once}" # while the first are pulled
        can_ask_cri || at_once=1 # a killed ctr's lease can be told from others only where one ctr runs
        wait_for_workers $((at_once - 1))
        ((SECONDS < deadline)) || break
        ((SECONDS - looked < FRESH_SECONDS)) || verify
        [[ -z ${outcomes[number]} ]] || continue
        began=$EPOCHREALTIME
        log_in "$number"
        for name in "${names_by_digest[number]}" "${names_by_tag[number]:-none}"; do
            right_before[$name]=${right[$name]-}
        done
        busy=yes # no worker may go unknown
        work_on "$number" &
        workers[$!]=$number busy=''
        [[ -z $stopped ]] || $on_signal
    done
    remove_leftovers
    grace=$clean_up_seconds
    wait_for_workers 0
    verify last
    grace=0
    fail_the_rest timeout
}

pause='' # a sleep, after which what is done is looked at

# Waits until no more than so many are at work. What is done is told within seconds, not when the slowest is.
wait_for_workers() {
    local ended number outcome pids
    while ((${#workers[@]} > $1)); do
        if [[ -z $pause ]] && ((${#done[@]} > 0)); then
            sleep 2 >/dev/null 2>&1 8>&- 9>&- &
            pause=$!
        fi
        pids=("${!workers[@]}")
        wait -n -p ended $pause "${pids[@]}"
        ended=${ended:-${pids[0]}} # nothing is left to wait for
        if [[ $ended == "$pause" ]]; then
            pause=''
            ((${#done[@]} == 0)) || verify
            continue
        fi
        number=${workers[$ended]}
        if [[ -e $shared/$number.outcome ]]; then
            outcome=$(<"$shared/$number.outcome")
            settle "$number" "${outcome:-failed}" # there was no room to write it
        elif [[ -s $shared/$number.done ]]; then
            done+=("$number")
            ((++unclaimed < CLAIMED_AT_ONCE)) || begin_claim
        else
            report "$number" failed interrupted 0 0
            : >"$shared/$number.room"
        fi
        unset "workers[$ended]"
        ((SECONDS - looked < FRESH_SECONDS)) || verify
    done
    (($1 > 0)) || [[ -z $pause ]] || { kill "$pause" 2>/dev/null && pause=''; }
}

# Looks at all images: reports those that are done as what they are where they are complete, and others that came
# meanwhile. The last look waits for a containerd that does not answer.
verify() {
    local number outcome bytes attempts spent note seen=yes
    begin_claim
    until look_for_images "${!images[@]}"; do
        [[ ${1-} == last ]] || return 0
        ((SECONDS < deadline)) || { seen='' && break; }
        sleep 1 9>&- &
        wait_for_children $!
    done
    end_claim
    for number in "${done[@]}"; do
        [[ -z ${outcomes[number]} ]] || continue
        read -r outcome bytes attempts spent note <"$shared/$number.done"
        if [[ -n $seen ]] && is_complete "$number"; then
            report "$number" "$outcome" "$note" "$bytes" "$attempts" "$spent"
        else
            say "${images[number]}: containerd does not hold it completely"
            report "$number" failed interrupted 0 "$attempts" "$spent"
            reason=interrupted
            clean_up "$number"
        fi
    done
    done=() note=''
    [[ -z $seen ]] || report_complete_images
}

work_on() {
    exec 9>&-
    trap - EXIT
    self=$BASHPID on_signal="stop_work $1" busy=''
    trap stop TERM INT HUP
    workers=()
    talk=$((MAX_TALK * 4 / 5 / ${#images[@]}))
    files=$shared/files.$1
    prefetch "$1"
}

# shellcheck disable=SC2317 # called by trap
stop_work() {
    trap '' TERM INT HUP
    stopped='' read_by='' # jq may have been asked something else
    ulimit -S -f "$FILE_LIMIT"
    ((deadline < SECONDS + 3)) || deadline=$((SECONDS + 3))
    # shellcheck disable=SC2086 # several
    [[ -z $children ]] || kill $children 2>/dev/null
    [[ ! -e $shared/$1.done ]] || exit
    [[ -e $shared/$1.outcome ]] || report "$1" failed interrupted 0 "$attempts"
    reason=interrupted
    clean_up "$1"
    exit
}

# Ends where the command's own process is gone.
end_as_orphan() {
    local parent
    read -r _ _ _ parent _ <"/proc/$BASHPID/stat"
    ((parent != $$)) || return 0
    # shellcheck disable=SC2086 # several
    [[ -z $children ]] || { kill $children && wait $children; } 2>/dev/null
    remove_lease_of_ctr "$shared"
    rm -rf "$shared"
    exit
}

# ----------------------------------------------------------------------------------------------------------- one image

prefetch() {
    began=$EPOCHREALTIME attempts=0 reason=timeout outcome=cached note='' detail='' claim=''
    while ((SECONDS < deadline)); do
        attempts=$((attempts + 1)) reason='' detail='' cut_off=''
        try "$1" && break
        tell "$1"
        if ! may_pass "$1" || ((attempts == MAX_ATTEMPTS)) || ! back_off; then
            break
        fi
    done
    conclude "$1"
}

# Makes one attempt; where it fails, $reason says why. Finding the image complete does not count as one.
try() {
    ((attempts == 1 && SECONDS - looked < FRESH_SECONDS)) || look_for_images "$1" ||
        { reason=interrupted detail="containerd does not answer" && return 1; }
    if has_content "$1"; then
        add_names "$1" || return
        [[ $outcome == pulled ]] || attempts=$((attempts - 1))
    else
        fetch "$1" && add_names "$1"
    fi
}

fetch() {
    if [[ -n $no_snapshotter ]]; then
        reason=snapshotter detail="containerd is set to use $snapshotter, which does not run"
        return 1
    fi
    log_in "$1"
    if ! describe ask_registry "${names_by_digest[$1]}" && report_only; then
        explain "$1" 1 "$(last_words)"
        return 1
    fi
    [[ $platform != foreign ]] || { reason=platform && return 1; }
    has_room "$1" || return
    ! report_only || { reason="report-only" detail="would pull $bytes bytes" && return 1; }
    take_ballast
    pull "$1" || return
    [[ $platform == own ]] || describe ask_containerd "${names_by_digest[$1]}"
    [[ $platform != foreign ]] || { reason=platform && return 1; }
    outcome=pulled
    right[${names_by_digest[$1]}]=yes
}

# Labels what a pull of ours made, and gives the image the names that are missing: each gets the labels of the other.
add_names() {
    local by_digest=${names_by_digest[$1]} by_tag=${names_by_tag[$1]} target
    ! report_only || return 0
    if [[ $outcome == pulled && -z ${right_before[$by_digest]-} ]]; then
        now
        if can_be_claimed "$1"; then
            claim="$moment $target" # by the command's own process, for all that are done
            return 0
        fi
        label "$by_digest" "$OURS=$moment"
    fi
    [[ -n ${right[$by_digest]-} ]] || copy_name "$by_tag" "$by_digest" || return
    [[ -z $by_tag || -n ${right[$by_tag]-} ]] || give_tag "$1"
}

# Names an image by its tag, also where that stands for another image: unless it does so in the registry as well.
give_tag() {
    local by_digest=${names_by_digest[$1]} by_tag=${names_by_tag[$1]}
    # Without force, this fails where the name stands for something.
    ! tag "$by_digest" "$by_tag" || return 0
    [[ -z $hurried ]] || return
    ask_about_images ls --quiet "name==$by_tag,target.digest!=${digests[$1]}" || { reason=interrupted && return 1; }
    [[ -s $files/answer ]] || return 0 # kubelet has just given it the name
    look_for_tag "$1" || return
    [[ $note == tag-moved ]] || copy_name "$by_digest" "$by_tag"
}

# Reports, and only then cleans up: containerd may not answer, and time may be short.
conclude() {
    local spent
    : >"$shared/$1.room"
    case $reason in
        '' | platform | too-large | report-only) ;;
        *) ! came_meanwhile "$1" || reason='' ;;
    esac
    [[ $outcome == pulled || $reason == report-only ]] || bytes=0
    case $reason in
        '')
            if report_only; then
                report "$1" "$outcome" "" 0 "$attempts"
            else
                measure_time
                [[ -z $claim ]] || echo "$claim" >"$shared/$1.claim"
                echo "$outcome $bytes $attempts $spent $note" >"$shared/$1.done"
            fi
            ;;
        report-only) report "$1" skipped "$reason" "$bytes" 0 ;;
        platform | too-large | no-space | snapshotter) report "$1" skipped "$reason" 0 "$attempts" ;;
        *) report "$1" failed "$reason" 0 "$attempts" ;;
    esac
    [[ -z $reason ]] || ((attempts == 0)) || clean_up "$1"
}

# Tells whether somebody else, such as kubelet, has pulled the image since the last attempt began, and names it.
came_meanwhile() {
    ((attempts > 0 && SECONDS < deadline)) && ! report_only && ! has_content "$1" &&
        look_for_images "$1" && has_content "$1" && ! is_foreign "$1" && add_names "$1"
}

# Tells whether the same may succeed later. A refused login may, if a login helper failed at it, or has another now.
may_pass() {
    local refused=${passwords[${registries[$1]}]-}
    ! report_only || return
    case $reason in
        registry | timeout | interrupted) return 0 ;;
        denied)
            [[ $renewed == no || -n ${logins_failed[${registries[$1]}]-} ]] || return
            renewed=yes
            log_in_anew "$1"
            [[ -n ${logins_failed[${registries[$1]}]-} || ${passwords[${registries[$1]}]-} != "$refused" ]]
            ;;
        *) return 1 ;;
    esac
}

renewed=no

# Sleeps 1 to 2 seconds after the first attempt, 2 to 4 after the second, 4 to 8 after the third.
back_off() {
    local base=$((1000 << (attempts - 1))) pause
    pause=$((base + RANDOM % base))
    ((pause / 1000 < deadline - SECONDS)) || return
    sleep "$((pause / 1000)).$((pause % 1000 / 100))" &
    wait_for_children $!
}

# Tells what became of an attempt: the end of the image's name, the reason, and the end of the cause, where the
# innermost stands.
tell() {
    local name=${names_by_tag[$1]:-${names_by_digest[$1]}} cause=$detail room
    ((${#name} <= 60)) || name=…${name: -59}
    room=$((talk - ${#name} - ${#reason} - 40))
    ((room < 300)) || room=300
    ((${#cause} <= room)) || { ((room > 20)) && cause="…${cause: -room}"; } || cause=''
    say "$name: attempt $attempts: $reason${cause:+: $cause}"
}

# ---------------------------------------------------------------------------------------------- what containerd holds

# Names that stand for their image's digest, and those that did before any pull.
declare -A right=() right_before=()

# What containerd holds: the labels of each content, the snapshots, one per layer of an image, and those of them that
# a container stands on.
declare -A contents=() snapshots=() used_snapshots=()

no_snapshotter='' # whether containerd has not the one that it is set to use
looked=''         # when all images were last looked for, in $SECONDS

# Looks for both names of these images and for what is behind them, in three questions at once.
look_for_images() {
    local filters=() number name guess=${snapshotter:-overlayfs} pids=()
    no_snapshotter=''
    for number; do
        for name in "${names_by_digest[number]}" ${names_by_tag[number]:+"${names_by_tag[number]}"}; do
            filters+=("name==$name,target.digest==${digests[number]}")
            unset "right[$name]"
        done
    done
    begin "$LOOK_UP_SECONDS" "${ctr[@]}" images ls --quiet "${filters[@]}" >"$files/names" 2>"$files/error" || return
    pids=($!)
    begin "$LOOK_UP_SECONDS" "${ctr[@]}" content ls >"$files/contents" 2>"$files/error.contents" || return
    pids+=($!)
    begin "$LOOK_UP_SECONDS" "${ctr[@]}" snapshots --snapshotter "$guess" ls >"$files/snapshots" \
        2>"$files/error.snapshots" || return
    wait_for_children "${pids[@]}" $! || snapshotter_is_missing || {
        say "containerd does not answer: $(last_words)"
        return 1
    }
    read_containerd_config
    [[ $guess == "$snapshotter" ]] || list_snapshots || return
    read_answers
    looked=$SECONDS
}

read_answers() {
    local name digest labels
    while read -r name; do
        right[$name]=yes
    done <"$files/names"
    contents=()
    while IFS=$'\t' read -r digest _ _ labels; do
        [[ -z $digest ]] || contents[$digest]=$labels # a label says what a manifest does, an empty line too
    done <"$files/contents"
    read_snapshots
}

list_snapshots() {
    no_snapshotter=''
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" snapshots --snapshotter "$snapshotter" ls >"$files/snapshots" \
        2>"$files/error.snapshots" || snapshotter_is_missing
}

snapshotter_is_missing() {
    grep --invert-match --fixed-strings "$SOCKET" "$files/error.snapshots" |
        grep --quiet 'snapshotter not loaded\|dial unix' && no_snapshotter=yes
}

# Reads key, parent and kind, in columns; what is being unpacked has a key of two words, and a base layer no parent.
read_snapshots() {
    local key parent kind
    snapshots=() used_snapshots=() unpacking=''
    while read -r key parent kind; do
        case $key:$kind in
            extract-*) unpacking=yes ;;
            *:Active | *:View) used_snapshots[$parent]=yes ;;
            *) snapshots[$key]=yes ;;
        esac
    done <"$files/snapshots"
}

# Sets chains to the topmost snapshots of an image, one per platform that is here (an index leads to manifests, a
# manifest to its configuration, and that to the snapshot: labels that containerd's garbage collection follows).
find_chains() {
    chains=()
    follow "$1"
}

follow() {
    local labels=${contents[$1]-}
    if [[ $labels =~ containerd\.io/gc\.ref\.snapshot\.$snapshotter=(sha256:[0-9a-f]{64}) ]]; then
        chains+=("${BASH_REMATCH[1]}")
        return
    fi
    while [[ $labels =~ containerd\.io/gc\.ref\.content\.(config|(m\.)?[0-9]+)=(sha256:[0-9a-f]{64})(.*) ]]; do
        labels=${BASH_REMATCH[4]}
        follow "${BASH_REMATCH[3]}"
    done
}

ask_about_images() {
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" images "$@" >"$files/answer" 2>"$files/error" && return
    say "containerd does not answer: $(last_words)"
    return 1
}

# Prints what the last command complained of; ctr says how its configuration is deprecated every time.
last_words() {
    grep --invert-match --extended-regexp 'level=(info|warning)' "$files/error" | tr '\n' ' '
}

is_complete() {
    has_content "$1" && [[ -n ${right[${names_by_digest[$1]}]-} ]] &&
        [[ -z ${names_by_tag[$1]} || -n ${right[${names_by_tag[$1]}]-} || $note == tag-moved ]]
}

has_content() {
    local chains chain
    [[ -n ${right[${names_by_digest[$1]}]-} || -n ${right[${names_by_tag[$1]:-none}]-} ]] || return
    find_chains "${digests[$1]}"
    for chain in "${chains[@]}"; do
        [[ -z ${snapshots[$chain]-} ]] || return 0
    done
    return 1
}

# Gives an image another name: <name> <other name>
copy_name() {
    tag --force "$1" "$2" && return
    reason=interrupted detail=$(last_words)
    return 1
}

tag() {
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" images tag --local "$@" >/dev/null 2>"$files/error"
}

# Sets $note to tag-moved where the tag, which stands for another image here, by now does so in the registry as well:
# commands may come late. Fails where the registry does not say.
look_for_tag() {
    note=''
    log_in "$1"
    if ask_registry object "${names_by_tag[$1]}" "${digests[$1]}"; then
        [[ sha256:$(sha256sum <"$files/blob") != "${digests[$1]} "* ]] || return 0
    else
        explain "$1" $? "$(last_words)"
        [[ $reason == not-found ]] || return
        reason=''
    fi
    note="tag-moved"
    detail="the tag stands for another image by now and stays there"
    reason=$note tell "$1"
}

# Removes what attempts that came to nothing left behind, unless the image has become complete by other hands.
clean_up() {
    local grace=$clean_up_seconds
    ! report_only || return 0
    [[ -z $ballast ]] || { exec {ballast}>&- && ballast=''; }
    ((${#workers[@]} > 0)) || remove_lease_of_ctr "$shared" # where a worker pulls, the lease is its
    if look_for_images "$1" && { ! has_content "$1" || is_foreign "$1"; }; then
        remove_new_names "$1"
    fi
    if [[ $reason =~ ^(no-space|registry|timeout|interrupted)$ ]] && ((SECONDS < deadline + grace)); then
        collect_garbage
    fi
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
    done <"$files/answer"
    ((others)) || new+=("${ids[@]}") # the name by which CRI alone knows the image
    ((${#new[@]} == 0)) || remove_names "${new[@]}"
}

is_name_of() {
    [[ $2 == "${names_by_digest[$1]}" || $2 == "${names_by_tag[$1]}" ]]
}

remove_names() {
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" images rm "$@" >/dev/null 2>"$files/error"
}

# Makes containerd collect what no name and no lease holds, now: it does so whenever a lease goes. What it could not remove
# from a snapshotter on a full disk it tries again only once a snapshot has been removed there.
collect_garbage() {
    local own=prefetch-images-$BASHPID
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" leases create --id "$own" --expires 30s >/dev/null 2>&1 || return
    grace=$((grace + 1)) # it must not stay for want of time
    if [[ $reason == no-space ]]; then
        limited "$LOOK_UP_SECONDS" "${ctr[@]}" snapshots --snapshotter "$snapshotter" prepare "$own"
        limited "$LOOK_UP_SECONDS" "${ctr[@]}" snapshots --snapshotter "$snapshotter" rm "$own"
    fi >/dev/null 2>&1
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" leases rm --sync "$own" >/dev/null 2>&1
}

config_dump='' snapshotter='' containerd_root=/var/lib/containerd hosts_paths='' proxies=' '

# Reads what containerd is set to: from what an earlier command wrote, or anew where containerd has begun since then.
read_containerd_config() {
    local code lines
    [[ -z $snapshotter ]] || return 0
    if [[ -z $config_dump ]]; then
        mapfile -t lines <"$host$RUN/config"
        snapshotter=${lines[1]} containerd_root=${lines[2]} hosts_paths=${lines[3]} proxies=${lines[4]}
        return
    fi
    wait_for_children "$config_dump"
    code=$?
    parse_containerd_config
    ((code > 0)) || report_only || {
        printf '%s\n' "$this_start" "$snapshotter" "$containerd_root" "$hosts_paths" "$proxies" >"$files/config" &&
            mv "$files/config" "$host$RUN/config"
    }
}

# Sets where containerd stores, which snapshotter CRI unpacks into, where its registry hosts stand, and which snapshotters
# run outside of it.
parse_containerd_config() {
    local line table='' value
    snapshotter=overlayfs
    while read -r line; do
        value=${line#*= }
        value=${value#[\"\']}
        value=${value%[\"\']}
        case $line in
            '['*']')
                table=$line
                [[ $line != *'[proxy_plugins.'* ]] || proxies+="$(tr -d "[]\"'" <<<"${line#*'[proxy_plugins.'}") "
                ;;
            'root = '*) [[ -n $table ]] || containerd_root=$value ;;
            'disabled_plugins = '*cri*)
                [[ -n $table ]] ||
                    refuse "containerd's CRI is disabled: kubelet uses another runtime, such as Docker, which is not supported"
                ;;
            'snapshotter = '*)
                case $table in
                    *'io.containerd.grpc.v1.cri".containerd]' | *"io.containerd.cri.v1.images']") snapshotter=$value ;;
                esac
                ;;
            'config_path = '*)
                case $table in
                    *'io.containerd.grpc.v1.cri".registry]' | *"io.containerd.cri.v1.images'.registry]")
                        hosts_paths=$value
                        ;;
                esac
                ;;
        esac
    done <"$files/config"
}

# --------------------------------------------------------------------------------------------------- what the image is

# The manifest that was last described: its configuration's digest, its layers (a line each: digest, compressed bytes,
# unpacked bytes), and the compressed bytes of each layer.
config='' layers=()
declare -A layer_bytes=()

# What is known of manifests, indexes and configurations by their digests: the lines that read_json sets, and their bytes.
declare -A known=() sizes=()

# Sets $platform to own, foreign or unknown, $bytes to the compressed size, $config and $layers: <ask_…> <repo@digest>
# What no node can run, such as an artifact or a manifest of schema 1, is foreign to this one too.
describe() {
    local lines kind line repository=${2%@*} depth=0
    platform=unknown bytes=0 config='' layers=() layer_bytes=()
    learn "$1" object "$2" || return
    while [[ ${lines[0]-} == 'index sha256:'* ]] && ((depth++ < 3)); do # of another index, rarely
        read -r _ line _ <<<"${lines[0]}"
        learn "$1" object "$repository@$line" || return
    done
    case ${lines[0]-unknown} in
        'manifest '*) ((depth == 0)) || platform=own ;;
        'index none '*) platform=foreign detail="it has none for linux/$ARCHITECTURE" ;;
        'index '* | unknown) ;;
        *) ((depth > 0)) || platform=foreign detail="it is no image that a node can run" ;;
    esac
    [[ ${lines[0]-} == 'manifest '* ]] || return 0
    read -r _ config bytes _ <<<"${lines[0]}"
    layers=("${lines[@]:1}")
    for line in "${layers[@]}"; do
        read -r kind line _ <<<"$line"
        layer_bytes[$kind]=$line
    done
    [[ $platform != own ]] || return 0
    learn "$1" blob "$repository@$config" || return 0
    [[ ! ${lines[0]-} =~ ^(own|foreign)$ ]] || platform=${lines[0]}
}

is_foreign() {
    describe ask_containerd "${names_by_digest[$1]}"
    [[ $platform == foreign ]]
}

# Sets $lines to what is known of a document, by asking where nothing is, to none where what was told is not what the
# digest stands for: <ask_…> <object|blob> <repo@digest>
learn() {
    local digest=${3##*@}
    lines=()
    if [[ -z ${known[$digest]+set} ]]; then
        start_reader
        "$1" "$2" "$3" "$digest" || return
        understand "$files/blob"
    fi
    [[ -z ${known[$digest]+set} ]] || mapfile -t lines <<<"${known[$digest]}"
}

# Adds documents to what is known: <file>...
understand() {
    local sum file lines size text
    while read -r sum file; do
        sum=sha256:$sum
        [[ -z ${known[$sum]+set} ]] || continue
        read_json document "$file" || continue
        printf -v text '%s\n' "${lines[@]}"
        known[$sum]=${text%$'\n'} sizes[$sum]=$size
    done < <(sha256sum "$@")
}

# Asks the registry of the first of these images about all that are its, at once, instead of when each has its turn: for
# their manifests, and for what those lead to. What fails here is asked again then, and so is a registry without a login,
# which wants a token first, or with settings of the node's own, which curl does not know.
ask_together() {
    local number registry=${registries[$1]} settings first digest asked=() requests=()
    log_in "$1"
    find_settings "$registry"
    [[ -n ${passwords[$registry]} && -z $settings ]] && can_ask_cri || return 0
    for number; do
        [[ -n ${outcomes[number]} || ${registries[number]} != "$registry" ]] || asked+=("$number")
    done
    for number in "${asked[@]}"; do
        requests+=("$number manifests ${digests[number]}")
    done
    fetch_together "${requests[@]}"
    requests=()
    for number in "${asked[@]}"; do
        read -r first digest _ <<<"${known[${digests[number]}]-}"
        case $first:$digest in
            index:sha256:*) requests+=("$number manifests $digest") ;;
            manifest:sha256:*) requests+=("$number blobs $digest") ;;
        esac
    done
    fetch_together "${requests[@]}"
    find_ample_room
}

# Puts what one registry answers into files and adds it to what is known: <number of the image> <manifests|blobs> <digest>...
# The login goes through a pipe; to another host than the registry curl does not send it.
fetch_together() {
    local request number kind digest file='' answers=() user=${users[$registry]} password=${passwords[$registry]}
    (($# > 0)) || return 0
    user=${user//\\/\\\\} password=${password//\\/\\\\}
    user=${user//\"/\\\"} password=${password//\"/\\\"}
    ulimit -S -f "$MAX_BLOB_TOGETHER_KIB"
    limited "$TOGETHER_SECONDS" curl --disable --silent --fail --location --proto "=https" --parallel --no-progress-meter \
        --max-filesize "${MAX_BLOB_TOGETHER_KIB}K" --config - < <(
        printf 'header = "Accept: %s, */*"\n' "$MANIFEST_TYPES"
        printf 'user = "%s:%s"\n' "$user" "$password"
        for request; do
            read -r number kind digest <<<"$request"
            file=${names_by_digest[number]#*/}
            printf 'url = "https://%s/v2/%s/%s/%s"\n' "$registry" "${file%@*}" "$kind" "$digest"
            printf 'output = "%s/%s.%s"\n' "$files" "$number" "$kind"
        done
    ) 2>"$files/error"
    ulimit -S -f "$FILE_LIMIT"
    for request; do
        read -r number kind _ <<<"$request"
        [[ ! -s $files/$number.$kind ]] || answers+=("$files/$number.$kind")
    done
    ((${#answers[@]} == 0)) || understand "${answers[@]}"
}

readonly OCI=application/vnd.oci.image DOCKER=application/vnd.docker.distribution.manifest
readonly MANIFEST_TYPES="$OCI.index.v1+json, $OCI.manifest.v1+json, $DOCKER.list.v2+json, $DOCKER.v2+json"

# shellcheck disable=SC2317 # called by describe
# Both put a manifest (object) or a configuration (blob) into $files/blob: <object|blob> <name> <digest>
ask_registry() {
    local code
    write_hosts "${2%%/*}"
    ulimit -S -f "$MAX_BLOB_KIB" # whatever the registry sends: this is memory
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" content "fetch-$1" --hosts-dir "${files#"$host"}/hosts" "$2" "$3" \
        >"$files/blob" 2>"$files/error"
    code=$?
    ulimit -S -f "$FILE_LIMIT"
    return "$code"
}

# shellcheck disable=SC2317
ask_containerd() {
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" content get "$3" >"$files/blob" 2>"$files/error"
}

case $HOSTTYPE in
    x86_64) ARCHITECTURE=amd64 ;;
    aarch64) ARCHITECTURE=arm64 ;;
    *) ARCHITECTURE=$HOSTTYPE ;;
esac

# ---------------------------------------------------------------------------------------------------------------- JSON

# The jq that reads: for which process, until when, in $SECONDS, and where it is written to and read from.
read_by='' read_until=0 to_reader='' from_reader=''

# Sets $lines to what a file of JSON says, and $size to its bytes; fails where it is too long to be read, or where jq, which
# it may have killed, does not answer to the end: <document|providers|logins> <file>
read_json() {
    local line text
    lines=()
    [[ -r $2 ]] || return
    mapfile -n $((MAX_JSON_LINES + 1)) lines <"$2"
    ((${#lines[@]} <= MAX_JSON_LINES)) || { lines=() && return 1; }
    printf -v text '%s' "${lines[@]}"
    size=${#text}
    printf -v text '%s ' "${lines[@]%$'\n'}" # a text of JSON holds no line feed but between its words
    lines=()
    start_reader
    trap '' PIPE
    printf '%s%s\n' "${1:0:1}" "$text" 1>&"$to_reader" 2>/dev/null
    trap - PIPE
    while IFS= read -r line <&"$from_reader"; do
        [[ $line != end ]] || return 0
        lines+=("${line#-}")
    done
    exec {to_reader}>&- {from_reader}<&-
    read_by='' lines=()
    return 1
}

# Starts the jq that reads for this process, for it takes longer to start than to read. It has as long as a question may
# take, so that one that hangs is not waited for, and is followed by another in good time. It takes a line for each file:
# the first letter of its kind, and what stands in it. It gives lines that begin with "-", and "end" behind them:
#
# document   of an index "index <digest of this node's manifest, none, or unknown where children name no platform> <media
#            type>"; of a manifest "manifest <digest of its configuration> <bytes> <media type>" and a line per layer: its
#            digest, its bytes, and its unpacked bytes, twice the compressed ones where the manifest does not tell; of a
#            configuration "own" or "foreign"; a media type is one of MANIFEST_TYPES, or "other"
# providers  each of kubelet's credential providers: "provider <name> <apiVersion>", "match <glob>" …, "argument <text>" …,
#            "environment <name>=<value>" …, "asked"
# logins     of a credential provider's answer: a glob, a user and a password each, a line for each of the three
start_reader() {
    local seconds=$((deadline + grace - SECONDS)) in out
    [[ $read_by != "$BASHPID" ]] || ((SECONDS >= read_until)) || return 0
    [[ $read_by != "$BASHPID" ]] || exec {to_reader}>&- {from_reader}<&-
    ((seconds < LOOK_UP_SECONDS)) || seconds=$LOOK_UP_SECONDS
    ((seconds > 0)) || seconds=1
    read_by=$BASHPID read_until=$((SECONDS + (seconds + 1) / 2))
    coproc reader {
        [[ -z $ballast ]] || exec {ballast}>&-
        # shellcheck disable=SC2016 # variables of jq
        exec 8>&- 9>&- timeout --foreground --kill-after 1 "$seconds" \
            jq --unbuffered --raw-input --null-input --raw-output --arg architecture "$ARCHITECTURE" '
        def normalize: # other words for an architecture, which containerd takes as well
            if . == "x86_64" or . == "x86-64" then "amd64" elif . == "aarch64" then "arm64" else . end;
        def digest: .digest | strings | select(test("^sha256:[0-9a-f]{64}\\z"));
        def bytes: numbers | select(0 <= . and . < 1e13) | floor; # no image is larger; bash counts up to 9e18
        def total: [.[] | .size | bytes] | add // 0 | if . < 1e15 then . else 1e15 - 1 end;
        def unpacked: (.annotations["io.containers.estargz.uncompressed-size"]? // empty | tonumber? | bytes) //
            ((.size | bytes) * (if .mediaType | test("gzip|zstd") then 2 else 1 end));
        def type($oci; $docker): "application/vnd.oci.image.\($oci).v1+json" as $oci
            | (.mediaType // $oci)
            | if . == $oci or . == "application/vnd.docker.distribution.manifest.\($docker)+json" then . else "other" end;
        def summary:
            if .manifests then
                [.manifests[] | select(.platform.os == "linux" and (.platform.architecture | normalize) == $architecture)]
                    as $own
                | (if any(.manifests[]; .platform == null) then "unknown" else "none" end) as $otherwise
                | "index \($own[0] | if . then digest else $otherwise end) \(type("index"; "list.v2"))"
            elif (.config.mediaType | IN("application/vnd.oci.image.config.v1+json",
                "application/vnd.docker.container.image.v1+json")) and any(.layers[]; .mediaType | contains("tar")) then
                "manifest \(.config | digest) \([.config, .layers[]] | total) \(type("manifest"; "v2"))",
                (.layers[] | "\(digest) \(.size | bytes) \(unpacked)")
            elif .rootfs and ([.os, .architecture] | all(.[]; . != null)) and .architecture != "" then
                if .os == "linux" and (.architecture | normalize) == $architecture then "own" else "foreign" end
            else
                empty
            end;
        def providers: .providers[] | "provider \(.name) \(.apiVersion)", "match " + .matchImages[],
            "argument " + .args[]?, (.env[]? | "environment \(.name)=\(.value)"), "asked";
        def logins: .auth | to_entries | sort_by(.key) | reverse[] | .key, .value.username // "", .value.password // "";
        def line: "-" + (split("\n")[0] // "");
        inputs | .[:1] as $kind | (.[1:] | fromjson
            | if $kind == "d" then summary elif $kind == "p" then providers else logins end | line)?, "end"'
    } 2>/dev/null
    disown $! # bash would tell of its end by force, with all its text
    # Numbers of their own: bash takes those of a coprocess back once that has ended.
    exec {to_reader}>&"${reader[1]-}" {from_reader}<&"${reader[0]-}"
    [[ -z ${reader[1]-} ]] || { in=${reader[1]} out=${reader[0]} && exec {in}>&- {out}<&-; }
}

# ---------------------------------------------------------------------------------------------------------- disk guard

need=0     # bytes that the image takes on the disk
ample=''   # whether the disk has room for all that are left, and some to spare
ballast='' # a file that holds some more

# Tells whether the image may be pulled: it is not too large, and the disk stays below the threshold with what it and
# the images at work beside it need. Waits for those where only they are in the way.
has_room() {
    local exact=''
    ((SSM_maxImageGiB == 0 || bytes <= SSM_maxImageGiB << 30)) ||
        { reason=too-large detail="$bytes bytes, more than $SSM_maxImageGiB GiB" && return 1; }
    measure_need
    [[ -z $ample ]] || ((attempts > 1)) || return 0
    while ((SECONDS < deadline)); do
        reserve "$1" "$need"
        case $? in
            0) return 0 ;;
            1)
                if [[ -n $exact ]]; then
                    reason=no-space
                    detail="it needs $need bytes, and $used of $capacity are used; the threshold is $threshold %"
                    return 1
                fi
                exact=yes
                count_missing_layers "$1"
                ;;
            2)
                end_as_orphan
                sleep 0.5 &
                wait_for_children $!
                ;;
        esac
    done
    reason=timeout
    return 1
}

# Sets $need to what the image that was described takes on the disk, compressed and unpacked.
measure_need() {
    local line
    need=$bytes
    for line in "${layers[@]}"; do
        ((need < MAX_NEED)) || break
        read -r _ _ line <<<"$line"
        need=$((need + line))
    done
}

# Sets $ample where all images that are left fit together, so that none has to reserve its part.
find_ample_room() {
    local number total=0
    ample=''
    for number in "${pending[@]}"; do
        [[ -z ${outcomes[number]} ]] || continue
        describe false "${names_by_digest[number]}" && ((bytes > 0)) || return
        measure_need
        total=$((total + need))
    done
    ! fits $((total + BALLAST_BYTES * 16)) || ample=yes
}

# Reserves room for an image; 1 where there is too little, 2 where there would be without the images beside it.
reserve() {
    local other others=0 file
    {
        flock 7
        for file in "$shared"/*.room; do
            other=0
            [[ $file == "$shared/$1.room" || ! -r $file ]] || read -r other <"$file"
            others=$((others + ${other:-0}))
        done
        if fits $(($2 + others)); then
            report_only || echo "$2" >"$shared/$1.room"
        elif ((others > 0)) && fits "$2"; then
            return 2
        else
            return 1
        fi
    } 7>"$shared/room"
}

# Tells whether so many further bytes leave the disk at or below the threshold, counted as kubelet counts, or
# another one: <bytes> [<percent>]. True where the disk cannot be read.
fits() {
    local block blocks available
    read -r block blocks available < <(stat --file-system --format '%S %b %a' "$host$containerd_root" 2>/dev/null)
    [[ -n ${available-} ]] || return 0
    capacity=$((block * blocks)) used=$((block * (blocks - available)))
    (($1 <= capacity && (used + $1) * 100 <= ${2:-$threshold} * capacity))
}

# Holds some room where little is going to be left, for a containerd without any cannot even remove what filled the disk.
# The file has no name: it goes with this process.
take_ballast() {
    local file=$host$containerd_root/prefetch-images.$BASHPID
    [[ -z $ample$ballast ]] && ! fits $((need + BALLAST_BYTES * 16)) 100 || return 0
    { exec {ballast}>"$file"; } 2>/dev/null || return 0
    rm -f "$file"
    fallocate --length "$BALLAST_BYTES" "/proc/self/fd/$ballast" 2>/dev/null
}

# Sets need to what the layers that are not here yet take: those unpacked here take nothing, those whose content is
# here only their unpacked bytes.
count_missing_layers() {
    local index digest size unpacked chains=()
    ! ask_registry blob "${names_by_digest[$1]%@*}@$config" "$config" || mapfile -t chains < <(chain_ids)
    need=0
    for index in "${!layers[@]}"; do
        read -r digest size unpacked <<<"${layers[index]}"
        [[ -z ${snapshots[${chains[index]:-none}]-} ]] || continue
        [[ -n ${contents[$digest]+set} ]] || need=$((need + size))
        need=$((need + unpacked))
    done
}

# Prints the names of the snapshots, one per layer, that the configuration in $files/blob stands for (OCI image
# specification, ChainID).
chain_ids() {
    local diff chain=''
    while read -r diff; do
        if [[ -n $chain ]]; then
            chain=$(printf '%s %s' "$chain" "$diff" | sha256sum)
            chain=sha256:${chain%% *}
        else
            chain=$diff
        fi
        echo "$chain"
    done < <(jq --raw-output '.rootfs.diff_ids[] | strings | select(test("^sha256:[0-9a-f]{64}\\z"))' "$files/blob" 2>/dev/null)
}

# --------------------------------------------------------------------------------------------------------------- pull

image_service=''

# How curl makes a call of gRPC, over a socket that has yet to be named.
readonly grpc=(--silent --show-error --noproxy '*' --http2-prior-knowledge
    --header 'content-type: application/grpc' --header 'te: trailers')

# Pulls by digest into CRI's snapshotter: through CRI, as kubelet does, or with ctr where curl cannot speak to CRI.
pull() {
    if can_ask_cri; then
        pull_through_cri "$1"
    else
        pull_with_ctr "$1"
    fi
}

curl_features=''

can_ask_cri() {
    [[ $curl_features == *HTTP2* && $curl_features == *UnixSockets* ]]
}

pull_through_cri() {
    local line rest status='' message='' code
    : >"$files/answer"
    pull_request "$1" >"$files/request"
    watched curl --disable "${grpc[@]}" --max-time "$((deadline - SECONDS + 2))" \
        --unix-socket "$host$image_service" --data-binary "@$files/request" --dump-header "$files/answer" \
        --output /dev/null http://localhost/runtime.v1.ImageService/PullImage 2>"$files/error"
    code=$?
    : >"$files/request"
    while IFS=': ' read -r line rest; do
        case $line in
            grpc-status) status=${rest%$'\r'} ;;
            grpc-message) message=${rest%$'\r'} ;;
        esac
    done <"$files/answer"
    [[ $status != 0 ]] || return 0
    # Unimplemented, nobody listens, or it was answered before curl had asked in full: unimplemented, where curl does not see it.
    if [[ ($status == 12 || $code == 7 || -z $status && $code == 92) && $image_service != "$SOCKET" ]]; then
        image_service=$SOCKET
        pull_through_cri "$1"
        return
    fi
    [[ -n $status ]] || message=$(last_words)
    explain "$1" "$code" "$message"
    [[ -n $status || $reason != registry ]] || reason=interrupted
    return 1
}

# Sets $image_service to the socket that kubelet asks for images, which may be another than containerd's: SOCI's snapshotter
# passes them on from its own, and learns the login by it.
find_image_service() {
    local folder=$host/etc/kubernetes/kubelet file text
    image_service=$SOCKET
    for file in "$folder/config" "$folder/config.json" "$folder"/config.json.d/*; do
        [[ -r $file ]] || continue
        IFS= read -r -d '' text <"$file"
        [[ ! $text =~ imageServiceEndpoint\"?[[:space:]]*:[[:space:]]*\"?unix://([^\",[:space:]]+) ]] ||
            image_service=${BASH_REMATCH[1]}
    done
}

# Pulls with ctr, which knows nothing of what a snapshotter outside containerd needs to be told.
pull_with_ctr() {
    local code before options=(--hosts-dir "${files#"$host"}/hosts" --platform "linux/$ARCHITECTURE" --snapshotter "$snapshotter")
    if [[ $proxies == *" $snapshotter "* ]]; then
        reason=snapshotter detail="only CRI can pull into $snapshotter, and this node's curl cannot speak to CRI"
        return 1
    fi
    # containerd 2.x unpacks into another snapshotter than its default only when ctr does the work itself.
    [[ $("${ctr[@]}" images pull --help 2>&1) != *--local* ]] || options+=(--local)
    write_hosts "${registries[$1]}"
    before=$(leases | tr '\n' ' ')
    echo "${EPOCHREALTIME/[.,]/} $before" >"$shared/ctr"
    watched timeout --foreground --kill-after 1 "$((deadline - SECONDS + 2))" \
        "${ctr[@]}" images pull "${options[@]}" "${names_by_digest[$1]}" 2>"$files/error"
    code=$?
    ((code >= 124)) || rm "$shared/ctr" # it ended by itself
    ((code)) || return 0
    remove_lease_of_ctr "$shared"
    explain "$1" "$code" "$(last_words)"
    return 1
}

# Prints the leases that have a made-up name and nothing but an end, as those of pulls have: their names and since when.
leases() {
    local name created rest
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" leases ls 2>/dev/null | while read -r name created rest; do
        [[ ! $name =~ ^[0-9]+-[A-Za-z0-9_=-]+$ || $rest != containerd.io/gc.expire=* || $rest == *,* ]] || echo "$name=$created"
    done
}

# Removes the lease that a killed ctr of a command has left, with what it holds, where it can be told from all others:
# the only new one of the two seconds in which that ctr began. A lease's name begins with its nanoseconds.
# <the command's folder>
remove_lease_of_ctr() {
    local lease age began before found=()
    [[ -r $1/ctr ]] && read -r began before <"$1/ctr" || return 0
    for lease in $(leases); do
        age=$(($(date --date "${lease#*=}" +%s) * 1000000 + 10#${lease%%-*} / 1000 - began))
        [[ " $before " == *" $lease "* ]] || ((age < 0 || age > 2000000)) || found+=("${lease%%=*}")
    done 2>/dev/null
    rm "$1/ctr"
    ((${#found[@]} != 1)) ||
        limited "$LOOK_UP_SECONDS" "${ctr[@]}" leases rm --sync "${found[0]}" >/dev/null 2>&1
}

# Sets $reason and $detail from what a pull ended with: <number> <exit code> <message>
# What fails once the image is resolved is the transfer, also where a login has become too old for it.
explain() {
    local message
    # shellcheck disable=SC2001
    detail=$(sed 's/?[^" ]*/?…/g' <<<"$3") # an address may be signed
    [[ -z $cut_off ]] || { reason=${cut_off%%:*} detail=${cut_off#*: } && return; }
    message=$(without_names "$1" "$3")
    case $2:$message in
        124:* | 137:* | *'context deadline exceeded'*) reason=timeout ;;
        *'no space left on device'*) reason=no-space ;;
        *'no match for platform'* | *'distribution.manifest.v1+'* | *'no signatures'*) reason=platform ;;
        *'snapshotter not loaded'* | *'extraction snapshot'*'dial unix'*) reason=snapshotter ;;
        *'failed to extract'* | *'parent snapshot'* | *'content digest'*'not found'* | *'lease'*'not found'*)
            reason=interrupted # by containerd's garbage collection, or another pull
            ;;
        *'failed to copy'*) reason=registry ;;
        *'401 Unauthorized'* | *'403 Forbidden'* | *'authorization failed'* | *'no basic auth'* | *denied*)
            reason=denied
            ;;
        *'not found'*) reason=not-found ;;
        *) reason=registry ;;
    esac
    case $message in
        *'failed to copy'*'401 Unauthorized'* | *'failed to copy'*'403 Forbidden'* | *'failed to copy'*'authorization failed'*)
            log_in_anew "$1"
            ;;
    esac
}

# Prints a message without the image's own names, which may hold any word: <number> <message>
without_names() {
    local message=$2 name=${names_by_digest[$1]%@*} word
    message=${message//"${name%%/*}"/}
    for word in "${name#*/}" "${names_by_tag[$1]##*:}"; do
        [[ -z $word ]] || message=${message//[\/:]"$word"[\/:@\"]/ }
    done
    printf '%s' "$message"
}

# Prints CRI's PullImageRequest: image 1 { image 1 }, auth 2 { username 1, password 2 }.
# printf is part of bash: the password reaches curl through a file on tmpfs that only root may read, while it is read.
pull_request() {
    local message name user=${users[${registries[$1]}]-} password=${passwords[${registries[$1]}]-}
    protobuf_field 0a "${names_by_digest[$1]}"
    protobuf_field 0a "$field"
    message=$field
    if [[ -n $password ]]; then
        name=''
        [[ -z $user ]] || { protobuf_field 0a "${user//\\/\\\\}" && name=$field; }
        protobuf_field 12 "${password//\\/\\\\}"
        protobuf_field 12 "$name$field"
        message+=$field
    fi
    grpc_frame "$message"
}

# Prints gRPC's frame around an escaped message.
grpc_frame() {
    escaped_length "$1"
    printf -v length '\\x%02x' $((length >> 24 & 255)) $((length >> 16 & 255)) $((length >> 8 & 255)) $((length & 255))
    printf '%b' "\\x00$length$1"
}

# Sets $field to a length-delimited field, escaped for printf: <key, two hex digits> <escaped content>
protobuf_field() {
    escaped_length "$2"
    protobuf_varint "$length"
    field=\\x$1$varint$2
}

# Sets $varint to a whole number, escaped.
protobuf_varint() {
    local rest=$1 byte
    varint=''
    while ((rest > 127)); do
        printf -v byte '\\x%02x' $((rest & 127 | 128))
        varint+=$byte
        rest=$((rest >> 7))
    done
    printf -v byte '\\x%02x' "$rest"
    varint+=$byte
}

# Sets $field to an entry of the map that is field 2: <key> <value>
protobuf_map_entry() {
    local entry
    protobuf_field 0a "$1"
    entry=$field
    protobuf_field 12 "$2"
    protobuf_field 12 "$entry$field"
}

# Sets $length to the bytes that an escaped text stands for; it holds no NUL.
escaped_length() {
    local bytes
    printf -v bytes '%b' "$1"
    length=${#bytes}
}

# -------------------------------------------------------------------------------------------------- while it is pulled

cut_off='' # the reason why a pull was cut off, and the cause

# Runs a pull, and cuts it off where it makes no progress, where the disk fills, or where nobody waits for it any more.
# A pull has no time limit of its own: what moves may take as long as it likes, up to the deadline. A little later it ends
# where nobody watches it any more.
watched() {
    local pipe pull overdue=0 seen='' begun=${contents[${config:-none}]+yes} quiet_since=$SECONDS looked_at=$SECONDS limit=$((STALL_SECONDS << (attempts - 1))) code
    cut_off=''
    ((SECONDS < deadline)) || return 124
    # The pipe ends when the pull does: no process has to sleep in order to look once a second.
    exec {pipe}< <(exec "$@" 7>&1 >/dev/null 8>&-)
    pull=$!
    children=$pull
    until read -r -t 1 -u "$pipe" || (($? < 128)); do
        end_as_orphan
        [[ -z $cut_off ]] || ((++overdue < 3)) || kill -KILL "$pull" 2>/dev/null
        if ((SECONDS >= deadline)); then
            cut_off="timeout: the time for the command is over"
        elif ! fits 0; then
            cut_off="no-space: $used of $capacity bytes are used; the threshold is $threshold %"
        elif ((SECONDS - looked_at >= (limit + 5) / 6)); then
            looked_at=$SECONDS
            ! has_moved || quiet_since=$SECONDS
            ((SECONDS - quiet_since < limit)) || cut_off="timeout: no progress for $limit seconds"
        fi
        [[ -z $cut_off ]] || kill "$pull" 2>/dev/null
    done
    wait "$pull"
    code=$?
    children=''
    exec {pipe}<&-
    return "$code"
}

# Tells whether a pull goes on: what is being downloaded of it grows or, where all of it waits, what others download;
# where nothing of it is left to download, it is being unpacked, which shows no progress.
has_moved() {
    local ref size rest layer own='' waiting='' others='' unpacking=''
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" content active >"$files/active" 2>/dev/null || return
    while read -r ref size rest; do
        [[ $ref == *-sha256:* ]] || continue
        layer=sha256:${ref##*-sha256:}
        if [[ -n ${layer_bytes[$layer]-} || ${#layers[@]} == 0 ]]; then
            case $size in
                0B) waiting+="$ref;" ;;
                *) is_whole "$size" "${layer_bytes[$layer]-}" || own+="$ref $size;" ;;
            esac
        else
            others+="$ref $size;"
        fi
    done <"$files/active"
    if [[ -n $waiting ]]; then
        own=${own:-$waiting$others}
    elif [[ -z $own && -n $seen$begun ]] && list_snapshots; then
        read_snapshots
        [[ -z $unpacking ]] || return 0
    fi
    [[ $own != "$seen" ]] || return
    seen=$own begun=yes
}

# Tells whether a size as ctr shows it, such as 12.58MB, is all of so many bytes: <size> <bytes, or nothing>
is_whole() {
    [[ -n $2 && $1 =~ ^([0-9]+)(\.([0-9]+))?([kMGT]?)B$ ]] || return
    local fraction=${BASH_REMATCH[3]}000 shown unit=1
    shown=$((BASH_REMATCH[1] * 1000 + 10#${fraction:0:3}))
    case ${BASH_REMATCH[4]} in
        k) unit=1000 ;;
        M) unit=1000000 ;;
        G) unit=1000000000 ;;
        T) unit=1000000000000 ;;
    esac
    ((shown * unit >= $2 * 999)) # in thousandths; four digits are shown
}

# -------------------------------------------------------------------------------------------------------------- login

# The logins by registry; those that a login helper failed to give.
declare -A users=() passwords=() logins_failed=()

# Gets the login of the image's registry, once: from kubelet's credential provider, else the AWS CLI, else none.
log_in() {
    local registry=${registries[$1]}
    [[ -z ${users[$registry]+set} ]] || return 0
    users[$registry]='' passwords[$registry]='' logins_failed[$registry]=''
    log_in_as_kubelet "$registry" "${names_by_digest[$1]%@*}" || log_in_by_aws_cli "$registry" || true
}

# Gets another login for this process alone, beside which others still use the one before.
log_in_anew() {
    rm -rf "$files/hosts"
    unset "users[${registries[$1]}]"
    log_in "$1"
}

# Asks the first of kubelet's plugins whose matchImages take the image and that has a login for it.
log_in_as_kubelet() {
    local line rest name='' version='' matched='' arguments=() environment=() lines size
    read_providers
    for line in "${lines[@]}"; do
        rest=${line#* }
        case $line in
            'provider '*)
                read -r name version <<<"$rest"
                matched='' arguments=() environment=()
                ;;
            'match '*) ! matches "$2" "$rest" || matched=yes ;;
            'argument '*) arguments+=("$rest") ;;
            'environment '*) environment+=("$rest") ;;
            asked) [[ -z $matched ]] || ! ask_provider "$1" "$2" || return 0 ;;
        esac
    done
    return 1
}

# Sets $lines to kubelet's credential providers. Bottlerocket's configuration has one, in YAML.
read_providers() {
    if [[ -z $host ]]; then
        read_json providers "$plugins/config.json"
    else
        mapfile -t lines < <(
            echo "provider ecr-credential-provider credentialprovider.kubelet.k8s.io/v1"
            sed --quiet "s/^ *- *[\"']\(.*\)[\"'] *\$/match \1/p; /name: *AWS_PROFILE/ {
                n; s/^ *value: *[\"']*\([^\"']*\).*/environment AWS_PROFILE=\1/p }" \
                "$host/etc/kubernetes/kubelet/credential-provider-config.yaml" 2>/dev/null
            printf 'environment HOME=/root\nasked\n'
        )
    fi
}

# Asks a plugin, with the arguments and the environment that kubelet's configuration gives it: <registry> <repository>
# Its answer has logins by globs; the first in reverse order that matches is meant, as by kubelet.
ask_provider() {
    local index password='' lines size
    ask_helper "${on_host[@]}" "$plugins/$name" "${arguments[@]}" \
        < <(printf '{"kind":"CredentialProviderRequest","apiVersion":"%s","image":"%s"}' "$version" "$2")
    read_json logins "$files/login"
    : >"$files/login"
    for ((index = 0; index + 2 < ${#lines[@]}; index += 3)); do
        if matches "$2" "${lines[index]}"; then
            password=${lines[index + 2]}
            break
        fi
    done
    take_login "$1" "${lines[index + 1]-}" "$password" "$name"
}

log_in_by_aws_cli() {
    local password='' environment=()
    [[ $1 =~ ^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\. ]] && command -v aws >/dev/null || return
    ask_helper aws ecr get-login-password --region "${BASH_REMATCH[2]}" </dev/null
    IFS= read -r password <"$files/login"
    : >"$files/login"
    take_login "$1" AWS "$password" "the AWS CLI"
}

# Runs a login helper with the environment in $environment, and puts what it prints into $files/login. It has a process
# group of its own, of which nothing outlives its time, and nothing of it stands on a command line.
ask_helper() {
    local left=$((deadline - SECONDS))
    : >"$files/login"
    ((left > 0)) || return 124
    ((left < LOOK_UP_SECONDS)) || left=$LOOK_UP_SECONDS
    {
        exec 8>&- 9>&-
        ((${#environment[@]} == 0)) || export "${environment[@]}"
        exec timeout --kill-after 1 "$left" "$@"
    } <&0 >"$files/login" 2>"$files/error" &
    wait_for_children $!
}

take_login() {
    if [[ -z $3 ]]; then
        logins_failed[$1]=yes
        say "$4 gave no login for $1: $(last_words)"
        return 1
    fi
    users[$1]=$2 passwords[$1]=$3 logins_failed[$1]=''
}

# Matches an image as kubelet matches it with matchImages: equally many labels of the host, each a glob, and the path's
# beginning.
matches() {
    local pattern=${2#*://} path='' index labels globs
    [[ $pattern != */* ]] || path=${pattern#*/}
    [[ ${1#*/} == "$path"* ]] || return
    IFS=.: read -r -a labels <<<"${1%%/*}"
    IFS=.: read -r -a globs <<<"${pattern%%/*}"
    ((${#labels[@]} == ${#globs[@]})) || return
    for index in "${!labels[@]}"; do
        # shellcheck disable=SC2053 # a glob on the right is meant
        [[ ${labels[index]} == ${globs[index]} ]] || return
    done
}

# Sets $settings to the folder with what this node's containerd is told of a registry, mirrors among it, or to nothing.
find_settings() {
    local folder file folders
    settings=''
    IFS=: read -r -a folders <<<"$hosts_paths"
    for folder in "${folders[@]}"; do
        for file in "${1/:/_}_" "$1" _default; do
            [[ -n $settings || ! -d $host$folder/$file ]] || settings=$host$folder/$file
        done
    done
}

# Writes, once, what ctr has to know of a registry: this node's own settings for it, and the login. It is on tmpfs, for
# root alone, until this command ends.
write_hosts() {
    local settings file certificates='' server hosts=$files/hosts
    [[ ! -d $hosts/$1 ]] || return 0
    mkdir -p "$hosts/$1"
    find_settings "$1"
    [[ -z $settings ]] || cp -RL "$settings/." "$hosts/$1"
    [[ -n ${passwords[$1]} ]] || return 0

    file=$hosts/$1/hosts.toml
    if [[ ! -e $file ]]; then
        for server in "$hosts/$1"/*.crt; do
            [[ ! -e $server ]] || certificates+="\"${server##*/}\", "
        done
        printf 'server = "https://%s"\ncapabilities = ["pull", "resolve"]\nca = [%s]\n' "$1" "$certificates" >"$file"
    fi
    # Settings with a header of their own bring the login themselves; to another host than the registry it is not sent.
    server=$(sed --quiet 's/^[[:space:]]*server[[:space:]]*=[[:space:]]*"\(.*\)".*/\1/p' "$file")
    [[ -z $server || $server/ == "https://$1/"* ]] || return 0
    if ! grep -q '^[[:space:]]*\[header\]' "$file"; then
        printf '\n[header]\nAuthorization = "Basic %s"\n' \
            "$(printf '%s:%s' "${users[$1]}" "${passwords[$1]}" | base64 --wrap 0)" >>"$file"
    fi
    grep -q '^[[:space:]]*\[host' "$file" || echo '[host]' >>"$file"
}

# ---------------------------------------------------------------------------------------------------- older images of ours

# The names that we made: when, for which digest, and whether they are pinned.
declare -A our_times=() our_digests=() our_pins=()

# Keeps the newest images of ours in each repository, pinned where that is wanted, and lets go of the older ones.
let_go_of_older_images() {
    local number repository
    local -A tidied=()
    ((keep > 0 && SECONDS < deadline)) && read_ours && look_for_images "${!images[@]}" || return
    for number in "${!images[@]}"; do
        repository=${names_by_digest[number]%@*}
        [[ ${outcomes[number]} =~ ^(pulled|cached|report-only)$ ]] || continue
        [[ -z ${tidied[$repository]-} ]] || continue
        tidied[$repository]=yes
        tidy "$repository"
    done
}

read_ours() {
    local name digest rest
    ask_about_images ls "labels.\"$OURS\"" || return
    while read -r name _ digest rest; do
        [[ $rest =~ $OURS=([0-9TZ:.-]+) ]] || continue
        our_times[$name]=${BASH_REMATCH[1]}
        our_digests[$name]=$digest
        our_pins[$name]=''
        [[ $rest != *"$PINNED=pinned"* ]] || our_pins[$name]=yes
    done <"$files/answer"
}

# What this command named stays in any case, but displaces nothing that came later: a command may be late, or come twice.
tidy() {
    local name named=' ' kept=0 number
    for number in "${!images[@]}"; do
        named+="${names_by_digest[number]} "
        [[ ${outcomes[number]} != report-only || ${names_by_digest[number]} != "$1@"* ]] || kept=$((kept + 1))
    done
    while read -r _ name; do
        if ((kept < keep)) || [[ $named == *" $name "* ]]; then
            kept=$((kept + 1))
            # One pinned name pins the image.
            [[ $SSM_pin == false || -n ${our_pins[$name]} ]] || label "$name" "$PINNED=pinned"
        else
            let_go "$name"
        fi
    done < <(
        for name in "${!our_times[@]}"; do
            [[ $name != "$1@"* ]] || echo "${our_times[$name]} $name"
        done | sort --reverse
    )
}

# Removes an image by its names, or only unpins it where somebody else has named it or a container uses it.
let_go() {
    local name why='' elsewhere='' names ids=()
    mapfile -t names < <(our_names "$1")
    ask_about_images ls --quiet "target.digest==${1##*@}" || return
    while read -r name; do
        case " ${names[*]} " in
            *" $name "*) ;;
            *)
                if [[ $name == sha256:* ]]; then
                    ids+=("$name")
                elif [[ -n ${our_times[$name]-} && -n ${our_times[$(repository_of "$name")@${1##*@}]-} ]]; then
                    elsewhere=yes # ours in another repository, which has newest images of its own
                else
                    why="it is also named $name"
                fi
                ;;
        esac
    done <"$files/answer"
    [[ -z $elsewhere ]] || ids=()
    [[ -n $why ]] || ! is_used "$1" || why="a container uses it"
    if [[ -z $why ]]; then
        say "removing $1: of ours, the newest $keep are kept"
        report_only || remove_names "${names[@]}" "${ids[@]}" || say "could not remove $1: $(last_words)"
        return
    fi
    for name in "${names[@]}"; do
        [[ -z ${our_pins[$name]} ]] || { say "unpinning $name; it stays: $why" && label "$name" "$PINNED="; }
    done
}

# Prints the repository of a name by digest or by tag.
repository_of() {
    [[ $1 == *@* ]] && echo "${1%@*}" || echo "${1%:*}"
}

# Prints the names of ours that an image has in its repository: <repository@digest>
our_names() {
    local name
    for name in "${!our_times[@]}"; do
        [[ ${our_digests[$name]} != "${1##*@}" || $name != "${1%@*}"[:@]* ]] || echo "$name"
    done
}

# Tells whether a container stands on an image, or that cannot be told.
is_used() {
    local chains chain
    find_chains "${1##*@}"
    for chain in "${chains[@]}"; do
        [[ -z ${used_snapshots[$chain]-} ]] || return 0
    done
    ((${#chains[@]} == 0))
}

# Sets labels of a name, or takes off those without a value: <name> <label=value>...
label() {
    ! report_only || return 0
    limited "$LOOK_UP_SECONDS" "${ctr[@]}" images label "$@" >/dev/null 2>"$files/error" ||
        say "could not label $1: $(last_words)"
}

# ------------------------------------------------------------------------------------------ names and labels, together

# The tags that stood for something when this command began to pull, and the ctr that tells; "none" where it does not.
declare -A taken=()
tags_told=none

begin_to_look_for_tags() {
    local number tags=()
    for number in "${pending[@]}"; do
        [[ -z ${names_by_tag[number]} ]] || tags+=("name==${names_by_tag[number]}")
    done
    begin "$LOOK_UP_SECONDS" "${ctr[@]}" images ls --quiet "${tags[@]}" >"$files/tags" 2>/dev/null && tags_told=$!
}

find_taken_tags() {
    local name
    [[ $tags_told != none ]] || return
    wait_for_children "$tags_told" || tags_told=none
    while read -r name; do
        taken[$name]=yes
    done <"$files/tags"
}

# Tells whether the command's own process can label an image that was pulled, and name it by its tag, which is free; sets
# $target to the media type and the bytes of what the name is to stand for.
can_be_claimed() {
    local first by_tag=${names_by_tag[$1]}
    can_ask_cri && [[ $tags_told != none && -z ${taken[${by_tag:-none}]-} ]] || return
    read -r first <<<"${known[${digests[$1]}]-}"
    target="${first##* } ${sizes[${digests[$1]}]-}"
    [[ ", $MANIFEST_TYPES," == *", ${first##* },"* ]]
}

# What containerd was asked: the image's number, the file for its answer, and the command that asks ctr for the same. The
# curl that asks. How many are done and were not claimed.
claims=() claimer='' unclaimed=0

# Begins to label images that are done as ours, and to name them by their tags where those are free. One curl for many:
# each start of a program costs more than what it asks.
begin_claim() {
    local number claim by_digest by_tag field image calls=()
    end_claim
    ((SECONDS < deadline + grace)) || return 0
    unclaimed=0
    for number in "${done[@]}"; do
        [[ -s $shared/$number.claim ]] || continue
        read -r -a claim <"$shared/$number.claim"
        by_digest=${names_by_digest[number]} by_tag=${names_by_tag[number]}
        image_field "$by_digest" "$number" "${claim[@]}"
        image=$field
        protobuf_field 0a "labels.$OURS"
        protobuf_field 12 "$field"
        add_call "$number" Update "$image$field" label "$by_digest" "$OURS=${claim[0]}"
        if [[ -n $by_tag ]]; then
            image_field "$by_tag" "$number" "${claim[@]}"
            add_call "$number" Create "$field" give_tag "$number"
        fi
        : >"$shared/$number.claim"
    done
    ((${#calls[@]} == 0)) || ! begin "$LOOK_UP_SECONDS" curl --disable "${calls[@]:1}" 2>"$files/error.claim" || claimer=$!
}

# Adds to $calls one of containerd's Images service, and to $claims: <number> <method> <escaped message> <command for ctr>...
# A host of its own is a connection of its own: curl 7.88 fails at the second call on one.
add_call() {
    local file=$files/claim.${#claims[@]}
    grpc_frame "$3" >"$file"
    : >"$file.answer"
    calls+=(--next "${grpc[@]}" --unix-socket "$host$SOCKET" --header 'containerd-namespace: k8s.io'
        --data-binary "@$file" --dump-header "$file.answer" --output /dev/null
        "http://${#claims[@]}/containerd.services.images.v1.Images/$2")
    claims+=("$1 $file.answer ${*:4}")
}

# Waits for what was asked, and does with ctr what came to nothing, or tells why it cannot. A tag that stands for another
# image by now, and has to stay, becomes the note of what is done.
end_claim() {
    local claim number file command answer note reason detail attempts=1
    [[ -z $claimer ]] || wait_for_children "$claimer"
    for claim in "${claims[@]}"; do
        read -r number file command <<<"$claim"
        mapfile -t answer <"$file"
        note='' reason='' detail=''
        # shellcheck disable=SC2086 # several words, none of which is a glob
        if [[ ${answer[*]} == *'grpc-status: 0'* ]] || $command; then
            [[ $command != give_tag* ]] || right[${names_by_tag[number]}]=yes
            [[ -z $note ]] || echo "$(<"$shared/$number.done") $note" >"$shared/$number.done"
        else
            reason=${reason:-interrupted}
            tell "$number"
        fi
    done
    claims=() claimer=''
}

# Sets $field to the field 1 with containerd's Image: name 1, labels 2 { key 1, value 2 } …, target 3 { media_type 1,
# digest 2, size 3 }: <name> <number> <time> <media type> <bytes>
# containerd ends with a panic where an image comes without target, also where that is not to be changed.
image_field() {
    local message target
    protobuf_field 0a "$1"
    message=$field
    protobuf_map_entry "$OURS" "$3"
    message+=$field
    protobuf_map_entry io.cri-containerd.image managed # as CRI has labelled the name by digest
    message+=$field
    protobuf_field 0a "$4"
    target=$field
    protobuf_field 12 "${digests[$2]}"
    target+=$field
    protobuf_varint "$5"
    protobuf_field 1a "$target\\x18$varint"
    protobuf_field 0a "$message$field"
}

# Sets $moment to the time (RFC 3339, to the microsecond, so that pulls have an order).
now() {
    printf -v moment '%(%Y-%m-%dT%H:%M:%S)T.%sZ' "${EPOCHREALTIME%[.,]*}" "${EPOCHREALTIME#*[.,]}"
}

# ---------------------------------------------------------------------------------------------------------- processes

grace=0
children=''

# Starts a command for at most so many seconds, and never past the deadline, save for the grace that cleaning up has.
begin() {
    local seconds=$1 left=$((deadline + grace - SECONDS))
    shift
    ((seconds < left)) || seconds=$left
    ((seconds > 0)) || return 124
    timeout --foreground --kill-after 1 "$seconds" "$@" <&0 8>&- 9>&- &
}

# Starts a command likewise and waits for its end; signals are handled meanwhile.
limited() {
    begin "$@" || return
    wait_for_children $!
}

# Returns the exit code of the last that failed, or 0.
wait_for_children() {
    local pid code=0 others=$children
    children+=" $*"
    for pid; do
        wait "$pid" || code=$?
    done
    children=$others
    return "$code"
}

# -------------------------------------------------------------------------------------------------------- Bottlerocket

# SSM's agent runs in Bottlerocket's control container, from where nothing reaches containerd. There, this script hands
# itself over to the admin container, and passes on what it prints. Until then it has to do with bash 4.2.
# (bottlerocket-core-kit, sources/api/apiclient and sources/api/apiserver/src/server/exec)
hand_over_to_admin() {
    local line code='' apiclient
    apiclient=$(command -v apiclient || echo /usr/local/bin/apiclient)
    exec 8>&1
    trap 'fail_the_rest interrupted; exit "$exit_code"' TERM INT HUP
    wait_for_admin
    # Both of the script's outputs come back as one; apiclient ends with 1 also where it has lost the script.
    while read -r line; do
        case $line in
            '{'*'}') pass_on "$line" ;;
            'exit '*) code=${line#exit } ;;
            ?*) echo "$line" >&2 ;;
        esac
    done < <(
        payload | timeout --foreground $((deadline - SECONDS + clean_up_seconds)) "$apiclient" exec -T admin sh -c 'test -x /opt/bin/bash && exec /opt/bin/bash; exec bash' 2>&1
        printf '\nexit %s\n' "${PIPESTATUS[1]}"
    )
    [[ $code != 2 ]] || exit 2
    fail_the_rest interrupted
    exit "$exit_code"
}

# Prints the parameters, which were accepted, and this script: bash reads both from its standard input, for arguments
# are limited and an environment does not come through.
payload() {
    local name value
    echo in_admin=yes
    SSM_executionTimeout=$((SSM_executionTimeout - SECONDS > 5 ? SSM_executionTimeout - SECONDS : 5))
    for name in images executionTimeout imageGCHighThresholdPercent maxParallelImagePulls maxImageGiB keep pin reportOnly; do
        value=SSM_$name
        printf "SSM_%s='%s'\n" "$name" "${!value}"
    done
    cat "$0"
}

wait_for_admin() {
    local patience=$((SECONDS + BOOT_SECONDS))
    until timeout --foreground 10 "$apiclient" exec -T admin nsenter -t 1 -m -- true </dev/null >/dev/null 2>&1; do
        if ((SECONDS > patience || SECONDS >= deadline)) ||
            [[ $("$apiclient" get settings.host-containers.admin.enabled 2>&1) != *true* ]]; then
            refuse "on Bottlerocket it takes the admin container: set settings.host-containers.admin.enabled = true"
        fi
        sleep 1
    done
}

# Passes a report on and remembers it.
pass_on() {
    local number
    echo "$1" >&8
    for number in "${!images[@]}"; do
        [[ -z ${outcomes[number]} && $1 == "{\"image\":\"${images[number]}\","* ]] || continue
        case $1 in
            *'"status":"failed"'*) settle "$number" failed ;;
            *) settle "$number" reported ;;
        esac
        return
    done
}

# The lines above are complete: what reads this script from standard input is done reading.
main </dev/null
