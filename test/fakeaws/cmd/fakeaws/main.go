// Command fakeaws serves package fakeaws until it is interrupted, and prints the
// environment variables that point the AWS SDK at it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakeaws:", err)
		os.Exit(1)
	}
}

type settings struct {
	server   fakeaws.Options
	instance fakeaws.Instance
	latency  time.Duration
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("fakeaws", flag.ContinueOnError)
	flags.StringVar(&s.server.Address, "address", "", "where ECR and STS listen (default a free port)")
	flags.StringVar(&s.server.Account, "account", "", "account of the keys and the instance (default 123456789012)")
	flags.DurationVar(&s.server.TokenLife, "token-life", 0, "how long ECR passwords last (default 12h)")
	flags.StringVar(&s.instance.Address, "imds-address", "", "where instance metadata listens (default a free port)")
	flags.StringVar(&s.instance.Region, "region", "eu-west-1", "region of the instance")
	flags.StringVar(&s.instance.Zone, "zone", "", "zone of the instance (default zone a of the region)")
	flags.StringVar(&s.instance.ID, "instance-id", "", "ID of the instance (default a random one)")
	flags.StringVar(&s.instance.Type, "instance-type", "", "type of the instance (default m5.large)")
	flags.StringVar(&s.instance.Role, "role", "", "ARN of the instance's role (default none)")
	flags.IntVar(&s.instance.HopLimit, "hop-limit", 0, "hop limit of metadata tokens; with 1 they never arrive (default 2)")
	flags.DurationVar(&s.latency, "latency", 0, "delay of every answer")
	flags.Func("tag", "tag of the instance as KEY=VALUE; may be repeated", func(text string) error {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return errors.New("want KEY=VALUE")
		}
		if s.instance.Tags == nil {
			s.instance.Tags = map[string]string{}
		}
		s.instance.Tags[key] = value
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return settings{}, err
	}
	if flags.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return s, nil
}

// run serves until ctx ends. It prints one export line a variable, among them
// fresh access keys, which open nothing but this server.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	server, err := fakeaws.Listen(s.server)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := server.Close(); err == nil {
			err = closeErr
		}
	}()
	metadata, err := server.AddInstance(s.instance)
	if err != nil {
		return err
	}
	server.Inject(fakeaws.Fault{Latency: s.latency})
	keys := server.NewKeys("fakeaws")
	env := server.Env()
	maps.Copy(env, metadata.Env())
	env["AWS_REGION"] = s.instance.Region
	env["AWS_ACCESS_KEY_ID"] = keys.AccessKeyID
	env["AWS_SECRET_ACCESS_KEY"] = keys.SecretAccessKey
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if _, err := fmt.Fprintf(out, "export %s=%s\n", name, env[name]); err != nil {
			return fmt.Errorf("print environment: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}
