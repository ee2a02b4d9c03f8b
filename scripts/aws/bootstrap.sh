#!/usr/bin/env bash
# Make a GPU instance ready, one shard a GPU. Run again, it changes only what is missing.
#
#   sudo scripts/aws/bootstrap.sh --package REF --input-dir PLACE --output-dir PLACE [OPTION ...]
#
#   --package REF      a wheel (path or URL) or a git reference (git+https://…@v0.1.0)
#   --input-dir PLACE  the corpus: s3://BUCKET/FOLDER, or a folder, the same on every machine
#   --output-dir PLACE the texts: s3://BUCKET/FOLDER, or a folder, made if missing
#   --weights DIR      where the weights go [/opt/dsocr-batch/weights]
#   --num-shards N     shards of the whole fleet [the GPUs of this machine]
#   --first-shard I    the shard of this machine's GPU 0 [0]
#   --run-options STR  more options of `dsocr-batch run`, separated by spaces
#   --min-driver V     the oldest NVIDIA driver that the engine's CUDA accepts [580.65.06]
#   --start            start the shards at the end, and at every boot
#   --dry-run          show every command that would change something, and change nothing
#
# Ubuntu 24.04 and Amazon Linux 2023 are known; elsewhere install Python 3.12 with its headers and
# gcc before. The NVIDIA driver has to be there already: take an AMI that has it.
# DESTDIR is put before the paths of the system, for staged installs and tests.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=/opt/dsocr-batch
settings=/etc/dsocr-batch
logs=/var/log/dsocr-batch
unit=/etc/systemd/system/dsocr-batch@.service
root=${DESTDIR:-}

package='' input_dir='' output_dir='' weights=$prefix/weights
num_shards='' first_shard=0 run_options='' min_driver=580.65.06 start=no dry_run=no
driver='' gpus=0 wrote=no

die() {
    echo "bootstrap: $*" >&2
    exit 2
}

is_url() {
    [[ $1 == *://* ]]
}

# Say a command that changes something, and run it unless --dry-run.
change() {
    printf '+ '
    printf '%q ' "$@"
    printf '\n'
    [ "$dry_run" = yes ] || "$@"
}

# Write stdin to a file that root alone changes, if it says anything else.
install_file() {
    local path=$1 wanted
    wanted=$(cat)
    if [ -f "$path" ] && [ "$(cat "$path")" = "$wanted" ]; then
        return
    fi
    echo "+ write $path"
    wrote=yes
    [ "$dry_run" = yes ] && return
    mkdir -p "$(dirname "$path")"
    printf '%s\n' "$wanted" >"$path.new"
    chmod 644 "$path.new"
    mv "$path.new" "$path"
}

parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --start) start=yes && shift && continue ;;
        --dry-run) dry_run=yes && shift && continue ;;
        --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
        esac
        [ $# -ge 2 ] || die "$1 needs a value, or is unknown; --help lists the options"
        case $1 in
        --package) package=$2 ;;
        --input-dir) input_dir=$2 ;;
        --output-dir) output_dir=$2 ;;
        --weights) weights=$2 ;;
        --num-shards) num_shards=$2 ;;
        --first-shard) first_shard=$2 ;;
        --run-options) run_options=$2 ;;
        --min-driver) min_driver=$2 ;;
        *) die "unknown option $1; --help lists them" ;;
        esac
        shift 2
    done
    # The files of settings are read by systemd, which has its own meaning for these.
    [[ $input_dir$output_dir$weights$run_options != *[$'\n"\'\\']* ]] ||
        die "no quotes, backslashes or line ends in folders and --run-options, please"
    [ -n "$package" ] || die "--package is missing: a wheel or a git reference"
    [ -n "$input_dir" ] || die "--input-dir is missing"
    [ -n "$output_dir" ] || die "--output-dir is missing"
}

check_machine() {
    [ -n "$root" ] || [ "$dry_run" = yes ] || [ "$(id -u)" -eq 0 ] || die "run it with sudo"
    is_url "$input_dir" || [ -d "$input_dir" ] ||
        die "$input_dir is not there: mount or copy the corpus first"
    command -v nvidia-smi >/dev/null || die "no NVIDIA driver: take an AMI that has one"
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader) ||
        die "nvidia-smi fails: $driver"
    gpus=$(wc -l <<<"$driver")
    driver=${driver%%$'\n'*}
    [ "$(printf '%s\n' "$min_driver" "$driver" | sort -V | head -n 1)" = "$min_driver" ] ||
        die "NVIDIA driver $driver is older than $min_driver: take a newer AMI"
    num_shards=${num_shards:-$gpus}
    [[ $num_shards =~ ^[0-9]+$ && $first_shard =~ ^[0-9]+$ ]] ||
        die "--num-shards and --first-shard are whole numbers"
    [ $((first_shard + gpus)) -le "$num_shards" ] ||
        die "GPUs $first_shard to $((first_shard + gpus - 1)) do not fit into $num_shards shards"
    echo "driver $driver, $gpus GPUs: shards $first_shard to $((first_shard + gpus - 1))" \
        "of $num_shards"
}

# vLLM compiles kernels at run time, so headers and a compiler are needed beside Python.
python_is_ready() {
    command -v gcc >/dev/null && command -v python3.12 >/dev/null && python3.12 -c '
import ensurepip, pathlib, sysconfig
assert (pathlib.Path(sysconfig.get_path("include")) / "Python.h").is_file()' 2>/dev/null
}

install_python() {
    python_is_ready && return
    # shellcheck source=/dev/null
    case $(. "$root/etc/os-release" && echo "$ID") in
    ubuntu)
        change apt-get update
        change apt-get install --yes python3.12 python3.12-venv python3.12-dev gcc git
        ;;
    amzn) change dnf install --assumeyes python3.12 python3.12-pip python3.12-devel gcc git ;;
    *) die "install Python 3.12 with its headers, and gcc, then run this again" ;;
    esac
}

make_user_and_folders() {
    id dsocr >/dev/null 2>&1 ||
        change useradd --system --home-dir "$prefix" --shell /usr/sbin/nologin dsocr
    local folder folders=("$root$prefix" "$root$weights" "$root$logs")
    is_url "$output_dir" || folders+=("$root$output_dir")
    for folder in "${folders[@]}"; do
        [ -d "$folder" ] && continue
        change mkdir -p "$folder"
        change chown dsocr: "$folder"
    done
}

install_package() {
    local stamp=$root$prefix/package venv=$root$prefix/venv requirement
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$package" ] && return
    case $package in
    git+* | https://*) requirement="dsocr-batch[vllm,s3] @ $package" ;;
    *) requirement="${package}[vllm,s3]" ;;
    esac
    [ -x "$venv/bin/python" ] || change python3.12 -m venv "$venv"
    change "$venv/bin/python" -m pip install --upgrade "$requirement"
    install_file "$stamp" <<<"$package"
}

# `download` compares what is there with the Hub and fetches the rest: given again, it is a check.
fetch_weights() {
    change runuser --user dsocr -- "$root$prefix/venv/bin/dsocr-batch" download \
        --dir "$root$weights"
}

write_settings() {
    install_file "$root$unit" <"$here/dsocr-batch@.service"
    install_file "$root$settings/run.env" <<EOF
MODEL=$weights
INPUT_DIR=$input_dir
OUTPUT_DIR=$output_dir
NUM_SHARDS=$num_shards
RUN_OPTIONS=$run_options
EOF
    # The shards of a machine share its cores; one is left to each engine.
    local gpu workers=$(($(nproc) / gpus - 1))
    for ((gpu = 0; gpu < gpus; gpu++)); do
        install_file "$root$settings/gpu-$gpu.env" <<EOF
SHARD_INDEX=$((first_shard + gpu))
CPU_WORKERS=$((workers > 1 ? workers : 1))
EOF
    done
}

start_shards() {
    [ "$wrote" = no ] || change systemctl daemon-reload
    local gpu
    for ((gpu = 0; gpu < gpus; gpu++)); do
        start_shard "dsocr-batch@$gpu.service"
    done
}

start_shard() {
    if [ "$start" = no ]; then
        echo "ready; to start: systemctl enable --now $1"
    elif ! systemctl is-active --quiet "$1"; then
        change systemctl enable --now "$1"
    elif [ "$wrote" = yes ]; then # it resumes with the new settings
        change systemctl restart "$1"
    fi
}

parse_options "$@"
check_machine
install_python
make_user_and_folders
install_package
fetch_weights
write_settings
start_shards
