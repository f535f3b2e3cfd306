#!/usr/bin/env bash
# Prometheus' sigv4 of remote write takes the region of the AWS config file for a proof
# that there is one, and then signs for an empty region.
#
# Versions: github.com/prometheus/sigv4 v0.2.1 and v0.4.1 (Prometheus 3.5 to 3.14), seen
# 2026-11-29 with Go 1.26. v0.5.0 signs for the region of the file. AWS refuses a signature
# for another region than its own, so remote write fails at each request, not at the start.
#
# Seen:
#   v0.2.1 scope: AKIAEXAMPLE/DATE//aps/aws4_request
#   v0.4.1 scope: AKIAEXAMPLE/DATE//aps/aws4_request
#   v0.5.0 scope: AKIAEXAMPLE/DATE/eu-west-1/aps/aws4_request
#
# Remedy for users: `sigv4: {region: …}` in Prometheus' own configuration, or v0.5.0.
# Exits 1 if that changes. Needs Go and a module proxy; sends nothing to AWS.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'GO'
package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/sigv4"
)

// recorder shows what a request would have been sent with.
type recorder struct{}

func (recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	parts := strings.Split(scope, "/")
	parts[1] = "DATE"
	fmt.Println("scope:", strings.Join(parts, "/"))
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func main() {
	transport, err := sigv4.NewSigV4RoundTripper(&sigv4.SigV4Config{}, recorder{})
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	request, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:1/api/v1/remote_write", strings.NewReader("x"))
	if err == nil {
		_, err = transport.RoundTrip(request)
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}
GO
go mod init probe 2>/dev/null
printf '[default]\nregion = eu-west-1\n' >config.ini
printf '[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n' >credentials.ini
export AWS_CONFIG_FILE=$dir/config.ini AWS_SHARED_CREDENTIALS_FILE=$dir/credentials.ini AWS_EC2_METADATA_DISABLED=true
unset AWS_REGION AWS_DEFAULT_REGION AWS_PROFILE AWS_CA_BUNDLE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN

status=0
expect() { # VERSION SCOPE
  GOFLAGS=-mod=mod go get "github.com/prometheus/sigv4@$1" 2>/dev/null
  got=$(GOFLAGS=-mod=mod go run .) || true
  echo "$1 $got"
  if [[ $got != "scope: $2" ]]; then
    echo "changed: want scope: $2" >&2
    status=1
  fi
}
expect v0.2.1 AKIAEXAMPLE/DATE//aps/aws4_request
expect v0.4.1 AKIAEXAMPLE/DATE//aps/aws4_request
expect v0.5.0 AKIAEXAMPLE/DATE/eu-west-1/aps/aws4_request
[[ $status == 0 ]] || exit 1
