#!/bin/sh
# Tells CloudWatch every 30 seconds how many workers are needed. Runs beside the API, with its
# environment and the permission cloudwatch:PutMetricData; needs the AWS command line.
set -eu
service=${1:-async-jobs-worker}
while :; do
    if needed=$(async-jobs autoscaling --lead 60 | sed -n '1s/^workers=\([0-9]*\) .*/\1/p'); then
        aws cloudwatch put-metric-data --namespace AsyncJobs --metric-name WorkersNeeded \
            --dimensions "ServiceName=$service" --value "$needed" || true
    fi
    sleep 30
done
