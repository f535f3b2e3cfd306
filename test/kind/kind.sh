#!/usr/bin/env bash
# The end-to-end suite on kind, for machines with Docker: up, load, test, down.
set -euo pipefail

readonly usage="usage: kind.sh up|load|test|down"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=$here/../..
readonly cluster=${KIND_CLUSTER:-chandler}
readonly kubeconfig=$root/bin/kind.kubeconfig

need() {
  command -v "$1" >/dev/null || { echo "kind.sh: $1 is needed: $2" >&2; exit 1; }
}

up() {
  need docker https://docs.docker.com/engine/install
  need kind https://kind.sigs.k8s.io
  mkdir -p "$root/bin"
  if kind get clusters 2>/dev/null | grep -qxF "$cluster"; then
    kind export kubeconfig --name "$cluster" --kubeconfig "$kubeconfig"
    return
  fi
  kind create cluster --name "$cluster" --config "$here/cluster.yaml" --kubeconfig "$kubeconfig" --wait 5m
}

# load gives every node the images that the suite runs, under the names that manifests have.
load() {
  need kind https://kind.sigs.k8s.io
  local arch
  arch=$(cd "$root" && go env GOARCH)
  pack . chandler ghcr.io/chandler-k8s/chandler:v0.1.0 "$arch"
  pack ./test/e2e/probe probe chandler.test/probe:e2e "$arch"
}

pack() {
  local package=$1 name=$2 image=$3 arch=$4
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -o "bin/$name-kind" "$package")
  (cd "$root/tools/image" && go run . --out "$root/bin/$name-kind.tar" --name "$image" --binary "$arch=$root/bin/$name-kind")
  kind load image-archive "$root/bin/$name-kind.tar" --name "$cluster"
}

# suite leaves out what needs the nodes' own disks and links. Pods reach this machine
# at the gateway of kind's network.
suite() {
  need docker https://docs.docker.com/engine/install
  need kubectl https://kubernetes.io/docs/tasks/tools
  [[ -f $kubeconfig ]] || { echo "kind.sh: no cluster: run \`make kind-up kind-load\` first" >&2; exit 1; }
  local gateway
  gateway=$(docker network inspect kind --format '{{range .IPAM.Config}}{{.Gateway}} {{end}}' | tr ' ' '\n' | grep -m 1 -F .)
  cd "$root"
  KUBECONFIG=$kubeconfig CHANDLER_E2E_HOST=$gateway go test -count=1 -p 1 -tags e2e -timeout 30m ./test/e2e
}

down() {
  need kind https://kind.sigs.k8s.io
  kind delete cluster --name "$cluster"
  rm -f "$kubeconfig"
}

[[ $# -eq 1 ]] || { echo "$usage" >&2; exit 2; }
case $1 in
  up) up ;;
  load) load ;;
  test) suite ;;
  down) down ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
