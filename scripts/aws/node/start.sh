#!/usr/bin/env bash
# Makes a fresh node (Amazon Linux 2023 with NVIDIA's driver) ready and starts the supervisor. Called by the user data of
# scripts/aws/trainer.yaml as root, once in a node's life; whatever fails here ends the node instead of letting it idle.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
root=$PWD
set -a
source /etc/sdar/node.env
set +a

line=
give_up() { # CODE: what ended the script; a line is known for a command that failed, not for an unset variable
    local set_up="$root/.venv/bin/python" why="setting up the node failed with status $1${line:+ in line $line of start.sh}"
    echo "sdar: $why" >&2
    [[ -x $set_up ]] || set_up=python3
    "$set_up" scripts/aws/node/supervise.py --give-up "$why"
}
# In a function (-E hands the trap on to it) the line of its call says more.
trap 'line=${BASH_LINENO[0]:-0}; ((line > 0)) || line=$LINENO' ERR
trap 'code=$?; [[ $code == 0 ]] || give_up "$code"' EXIT
# Taken away, by an interruption or a shutdown: the next node shall go on.
trap 'trap - EXIT; exit 143' TERM INT HUP

again() { # COMMAND...: three tries, for what a network does
    local try
    for try in 1 2; do
        "$@" && return 0
        echo "sdar: try $try of '$*' failed" >&2
        sleep $((try * 20))
    done
    "$@"
}

install -d -m 755 /var/log/sdar
again dnf install --assumeyes --quiet amazon-cloudwatch-agent python3.11 python3.11-devel

cat > /etc/sdar/logs.json << LOGS
{"logs": {"logs_collected": {"files": {"collect_list": [
  {"file_path": "/var/log/sdar/*.log", "log_group_name": "$SDAR_LOG_GROUP", "log_stream_name": "$SDAR_RUN/{instance_id}"},
  {"file_path": "/var/log/cloud-init-output.log", "log_group_name": "$SDAR_LOG_GROUP",
   "log_stream_name": "$SDAR_RUN/{instance_id}/setup"}
]}}}}
LOGS
/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:/etc/sdar/logs.json

# Local NVMe where the image has mounted it, else the root volume.
scratch=/opt/sdar-scratch
! mountpoint --quiet /opt/dlami/nvme || scratch=/opt/dlami/nvme/sdar
id sdar > /dev/null 2>&1 || useradd --system --create-home --shell /usr/sbin/nologin sdar
install -d -m 750 -o sdar -g sdar "$scratch" "$scratch/data" "$scratch/runs" "$scratch/cache"
if [[ -n $SDAR_DATA_KEY ]]; then
    again aws s3 cp --only-show-errors --region "$AWS_REGION" "s3://$SDAR_BUCKET/$SDAR_DATA_KEY" "$scratch/data.tar"
    tar --extract --auto-compress --no-same-owner --file "$scratch/data.tar" --directory "$scratch/data"
    rm "$scratch/data.tar"
    chown -R sdar:sdar "$scratch/data"
fi

# pip reads a wheel's version from its name, so that it keeps it.
if [[ $SDAR_FLASH_ATTN == releases/* ]]; then
    wheel=$scratch/${SDAR_FLASH_ATTN##*/}
    again aws s3 cp --only-show-errors --region "$AWS_REGION" "s3://$SDAR_BUCKET/$SDAR_FLASH_ATTN" "$wheel"
    SDAR_FLASH_ATTN=$wheel
fi
FLASH_ATTN=$SDAR_FLASH_ATTN PYTHON=python3.11 again bash scripts/setup.sh gpu

cat > /etc/systemd/system/sdar.service << UNIT
[Unit]
Description=sdar training run $SDAR_RUN
Wants=network-online.target
After=network-online.target
# Without these a supervisor that the kernel kills for memory would come back for ever.
StartLimitIntervalSec=3600
StartLimitBurst=5
OnFailure=sdar-given-up.service

[Service]
Type=exec
User=sdar
WorkingDirectory=$root
EnvironmentFile=/etc/sdar/node.env
Environment=SDAR_SCRATCH=$scratch HF_HOME=$scratch/cache PATH=$root/.venv/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin
ExecStart=$root/.venv/bin/python $root/scripts/aws/node/supervise.py
# The supervisor starts the run again by itself; this is for its own death.
Restart=on-failure
RestartSec=10
# 75: it was told to stop, which is no failure.
SuccessExitStatus=75
RestartForceExitStatus=75
# A process of the run that the kernel kills for memory is the supervisor's to count.
OOMPolicy=continue
KillMode=mixed
TimeoutStopSec=115
RuntimeDirectory=sdar
RuntimeDirectoryMode=0700
StandardOutput=append:/var/log/sdar/run.log
StandardError=inherit
LimitNOFILE=1048576
LimitMEMLOCK=infinity
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target
UNIT
cat > /etc/systemd/system/sdar-given-up.service << UNIT
[Unit]
Description=lets the node of the sdar training run $SDAR_RUN go

[Service]
Type=oneshot
Restart=on-failure
RestartSec=60
User=sdar
WorkingDirectory=$root
EnvironmentFile=/etc/sdar/node.env
ExecStart=$root/.venv/bin/python $root/scripts/aws/node/supervise.py --give-up "its supervisor ended again and again"
StandardOutput=append:/var/log/sdar/run.log
StandardError=inherit
NoNewPrivileges=true
UNIT
systemctl daemon-reload
systemctl enable --now sdar.service
