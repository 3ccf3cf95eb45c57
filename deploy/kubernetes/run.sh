#!/bin/sh
# Runs the export Job to its end, then the sealing Job, in the namespace of the current context. Ends with 0 when the
# archive is sealed. Kubernetes has no order between Jobs, so somebody has to wait: this script, or a step of your CI.
set -eu
cd "$(dirname "$0")"

# Waits until a Job has ended, and prints the condition that it has ended with.
ended() {
    while true; do
        conditions=$(kubectl get job "$1" -o jsonpath='{.status.conditions[?(@.status=="True")].type}')
        for condition in $conditions; do
            case $condition in Complete | Failed)
                echo "$condition"
                return
                ;;
            esac
        done
        sleep 15
    done
}

kubectl apply -f common.yaml -f export.yaml
how=$(ended moveout-export)
echo "the export has ended: $how"
reason=$(kubectl get job moveout-export -o jsonpath='{.status.conditions[?(@.type=="Failed")].reason}')
if [ "$reason" = PodFailurePolicy ]; then
    echo "a shard ended with 2: see what it says by kubectl logs job/moveout-export" >&2
    exit 2
fi

# A shard that has failed is no reason not to seal: the sealing Job does what is left, or says what is missing.
kubectl apply -f seal.yaml
how=$(ended moveout-seal)
kubectl logs job/moveout-seal --tail=40
[ "$how" = Complete ]
