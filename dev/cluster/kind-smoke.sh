#!/bin/sh
# Builds the images, installs the laptop preset on the current kind cluster and waits for an accepted submission.
set -eu
images="operator fixer miner gateway tools trellis"
make images IMAGES="$images"
for image in $images; do
    kind load docker-image "$(python3 dev/tools/images.py --name "$image")"
done
helm install sn17 charts/sn17 -f charts/sn17/values-laptop.yaml --set "image.tag=$(make -s image-tag)" --wait --timeout 5m
deadline=$(($(date +%s) + 300))
until kubectl get sn17miners sn17 -o 'jsonpath={.status.success}' | grep -q '[1-9]'; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        kubectl get pods,sn17miners -o wide
        kubectl get events --sort-by=.lastTimestamp | tail -40
        echo "no submission was accepted within 300 s" >&2
        exit 1
    fi
    sleep 5
done
kubectl get sn17miners
