#!/usr/bin/env bash
# On an AWS spot node: wait for the notice that the node will be taken back, then tell Ray, so that
# training writes a checkpoint while there is time. Ends after that one notice.
set -u
metadata=${METADATA:-http://169.254.169.254/latest}

token() {
  curl --silent --fail --max-time 2 -X PUT "$metadata/api/token" \
    -H "X-aws-ec2-metadata-token-ttl-seconds: 60"
}

until curl --silent --fail --max-time 2 -o /dev/null \
  -H "X-aws-ec2-metadata-token: $(token)" "$metadata/meta-data/spot/instance-action"; do
  sleep "${PAUSE:-5}"
done
exec "${RAY:-ray}" drain-node --reason DRAIN_NODE_REASON_PREEMPTION \
  --reason-message "the provider takes this node back" --deadline-remaining-seconds 110
