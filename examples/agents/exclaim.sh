#!/usr/bin/env bash
# An agent in bash and curl: it does tasks of the capability `exclaim`, one at a time.
# Inputs: text, and seconds (how long it takes, default 0). It needs OPSCORE_API_URL and
# OPSCORE_API_KEY (scope agent; admin too, unless it is registered); OPSCORE_AGENT_NAME may name it.
set -u
: "${OPSCORE_API_URL:?is not set: the address of the platform}"
: "${OPSCORE_API_KEY:?is not set: a key with the scope agent}"
NAME=${OPSCORE_AGENT_NAME:-exclaimer-sh}
API=${OPSCORE_API_URL%/}/api/v1
FILES=$(mktemp -d)
session="" stopping=""
trap 'stopping=1' TERM INT
trap 'rm -rf "$FILES"' EXIT

# once METHOD PATH BODY [SECONDS]: prints the answer and on a line of its own its status (000: none)
once() {
    # By stdin: what stands on a command line is read by every account of the machine.
    printf 'Authorization: Bearer %s\n' "$OPSCORE_API_KEY" |
        curl -s --max-time "${4:-10}" -X "$1" -d "$3" -w '\n%{http_code}' \
            -H @- -H "Content-Type: application/json" "$API$2"
}

# ask METHOD PATH BODY [SECONDS]: asks until the platform is there; prints the answer.
# Fails when it is refused.
ask() {
    local answer status
    while :; do
        answer=$(once "$@")
        status=${answer##*$'\n'}
        answer=${answer%$'\n'*}
        case $status in
            2??) printf '%s' "$answer"; return 0 ;;
            000 | 5??) sleep 0.5 ;;
            *) echo "$NAME: $1 $2 answers $status: $answer" >&2; return 1 ;;
        esac
    done
}

# field NAME: prints the first value of that name in the JSON that it reads, escapes as they are
field() {
    grep -oE "\"$1\":(\"([^\"\\\\]|\\\\.)*\"|[0-9.]+)" | head -1 |
        sed -E "s/^\"$1\"://; s/^\"//; s/\"\$//"
}

# pause SECONDS: sleeps, unless a signal comes
pause() { sleep "$1" & wait $!; }

begin() {
    local began
    began=$(ask POST "/agents/$NAME/sessions" "{\"host\": \"$(hostname)\", \"pid\": $$}") || exit 1
    session=$(field session_id <<<"$began")
    beat_every=$(field heartbeat_s <<<"$began" | awk '{print $1 / 2}')
}

# The work itself: replace this by your own. Its output is the task's result, as JSON.
work() {
    sleep "$(field seconds <<<"$1" | grep . || echo 0)"
    printf '{"text": "%s!"}' "$(field text <<<"$1")"
}

# beat: says that the task is in work; fails when the platform does not want it any more
beat() {
    local answer
    answer=$(once POST "/sessions/$session/heartbeat" "{\"tasks\": [{\"id\": \"$task\", \"fence\": $fence}]}")
    case ${answer##*$'\n'} in
        409) return 1 ;;
        200) ! grep -q "\"cancelled\":\[[^]]*$task" <<<"$answer" ;;
        *) return 0 ;; # the platform is away: go on, it may be back for the next one
    esac
}

# one CLAIMED: does the task that a claim's answer holds
one() {
    local body worker
    task=$(field id <<<"$1")
    fence=$(field fence <<<"$1")
    ask POST "/tasks/$task/logs" "{\"fence\": $fence, \"lines\": [\"exclaiming\"]}" >/dev/null
    work "$1" >"$FILES/result" &
    worker=$!
    while kill -0 "$worker" 2>/dev/null; do
        if ! beat; then
            pkill -P "$worker" 2>/dev/null
            kill "$worker" 2>/dev/null
            rm -f "$FILES/result"
            break
        fi
        for _ in 1 2 3 4 5; do
            kill -0 "$worker" 2>/dev/null && pause "$(awk "BEGIN {print $beat_every / 5}")"
        done
    done
    wait "$worker" 2>/dev/null
    if [ -s "$FILES/result" ] && [ -n "$(field text <<<"$1")" ]; then
        body="{\"fence\": $fence, \"status\": \"completed\", \"result\": $(cat "$FILES/result")}"
    else
        # Also of a task that was cancelled: refused, but now the platform knows that it is let go.
        body="{\"fence\": $fence, \"status\": \"failed\", \"error\": {\"type\": \"no_text\",
               \"message\": \"there is nothing to exclaim\", \"retryable\": false}}"
    fi
    # Refused means that the attempt is over: then nothing of it counts, and the work is dropped.
    ask POST "/tasks/$task/report" "$body" >/dev/null
}

# A key that may only execute is refused here: then somebody else has registered the agent.
ask POST /agents "{\"name\": \"$NAME\", \"kind\": \"remote\", \"capabilities\": [\"exclaim\"]}" >/dev/null
begin
echo "$NAME is there: session $session"
while [ -z "$stopping" ]; do
    # In the background, so that a signal is heard while the claim waits.
    ask POST "/sessions/$session/claim" '{"limit": 1, "wait_s": 20}' 40 >"$FILES/claimed" &
    claim=$!
    if wait "$claim"; then
        claimed=$(cat "$FILES/claimed")
        if grep -q '"fence"' <<<"$claimed"; then one "$claimed"; fi
    elif [ -n "$stopping" ]; then
        pkill -P "$claim" 2>/dev/null
        kill "$claim" 2>/dev/null
    else
        begin # the session has ended: this is a new life
    fi
done
# What was claimed meanwhile, and is not known here, is given back by this.
once DELETE "/sessions/$session" "" >/dev/null
echo "$NAME has signed off"
