package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// start runs the command and sets the environment that it prints.
func start(t *testing.T, args ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, writer)
		done <- writer.CloseWithError(err)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	lines := bufio.NewScanner(reader)
	for range 9 {
		if !lines.Scan() {
			t.Fatalf("output ended early: %v", lines.Err())
		}
		setting, ok := strings.CutPrefix(lines.Text(), "export ")
		name, value, _ := strings.Cut(setting, "=")
		if !ok {
			t.Fatalf("got line %q, want an export", lines.Text())
		}
		t.Setenv(name, value)
	}
	go func() { // a line more would keep the command from ever ending
		if lines.Scan() {
			t.Errorf("got one more line: %q", lines.Text())
		}
	}()
}

func TestPrintedEnvironmentServesTheSDK(t *testing.T) {
	start(t, "--region", "eu-central-1", "--instance-id", "i-1", "--tag", "Name=n1", "--tag", "team=a=b")
	cfg, err := awsconfig.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); err != nil {
		t.Error(err)
	}
	client := imds.NewFromConfig(cfg)
	for path, want := range map[string]string{
		"instance-id":        "i-1",
		"placement/region":   "eu-central-1",
		"tags/instance/team": "a=b",
	} {
		out, err := client.GetMetadata(t.Context(), &imds.GetMetadataInput{Path: path})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got, err := io.ReadAll(out.Content); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag": {"--nothing"},
		"argument":     {"x"},
		"bad tag":      {"--tag", "x"},
		"tag refused":  {"--tag", "a/b=c"},
		"no region":    {"--region", ""},
		"bad address":  {"--address", "nowhere.invalid:1"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), args, io.Discard); err == nil {
				t.Error("got no error")
			}
		})
	}
}
