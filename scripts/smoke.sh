#!/bin/sh
# Runs the command on the sample PDFs under a time limit, then runs it again to resume.
#
#   scripts/smoke.sh .venv/bin/dsocr-batch run [OPTION...]
#
# A run that reaches the limit is no failure of itself (a model may take long to load), but it
# counts as passed only if it had finished a page and the resume then succeeds.
# SMOKE_TIMEOUT_S [300] limits the run, SMOKE_RESUME_TIMEOUT_S [600] the resume.
set -eu

if [ $# -eq 0 ]; then
    echo "usage: scripts/smoke.sh COMMAND [OPTION...]" >&2
    exit 2
fi
timeout_s=${SMOKE_TIMEOUT_S:-300}
resume_timeout_s=${SMOKE_RESUME_TIMEOUT_S:-600}
samples=$(dirname "$0")/demo/samples
out=$(mktemp -d "${TMPDIR:-/tmp}/dsocr-smoke.XXXXXX")
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed() {
    echo "SMOKE FAILED: $*"
    exit 1
}

# A run that cannot stop within 60 s of SIGTERM is killed, and timeout returns 137.
run_within() {
    limit_s=$1
    shift
    timeout --kill-after=60 "$limit_s" "$@" --input-dir "$samples" --output-dir "$out"
}

completed_documents() {
    find "$out" -name .dsocr -prune -o -name '*.json' -print | wc -l
}

# Pages of documents that are not complete yet are in journals: compressed lines, each page's
# with its raw_text. A journal that was cut short is read as far as it goes.
journalled_pages() {
    find "$out/.dsocr" -type f -exec gzip -dcfq {} + 2>/dev/null | grep -c '"raw_text"' || true
}

status=0
run_within "$timeout_s" "$@" || status=$?
case $status in
0) ;;
124)
    echo "stopped after $timeout_s s: $(completed_documents) documents complete," \
        "$(journalled_pages) pages journalled"
    if [ "$(completed_documents)" -eq 0 ] && [ "$(journalled_pages)" -eq 0 ]; then
        failed "no page was finished within $timeout_s s"
    fi
    ;;
*) failed "the run ended with status $status" ;;
esac

status=0
run_within "$resume_timeout_s" "$@" || status=$?
[ "$status" -eq 0 ] || failed "the resume ended with status $status"
for pdf in "$samples"/*.pdf; do
    stem=$(basename "$pdf" .pdf)
    [ -s "$out/$stem.md" ] && [ -s "$out/$stem.json" ] || failed "$stem.pdf has no output"
done
echo "SMOKE PASSED"
