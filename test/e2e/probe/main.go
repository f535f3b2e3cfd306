// Command probe is what the end-to-end tests run in pods. With directories as
// arguments it writes to its node, calls the API server and goes on until it is told
// to end. Otherwise:
//
//	say WORD       says it
//	sleep WORD     says it and goes on until it is told to end
//	cat FILE       copies it to its output
//	write FILE...  tries to make each, and says which it could
//	scrape URL [SET]  asks for metrics, with the certificate of a set of files
//	read DIR       reads the sets of files there, as fast as it can, until it is told
//	               to end, and says what does not fit together
//
// Called yace, it is a stand-in of that exporter.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if filepath.Base(os.Args[0]) == "yace" {
		return exporter(ctx)
	}
	if len(os.Args) < 3 {
		return errors.New("want arguments")
	}
	switch arg := os.Args[2]; os.Args[1] {
	case "say":
		fmt.Println(arg)
	case "sleep":
		fmt.Println(arg)
		<-ctx.Done()
	case "cat":
		data, err := os.ReadFile(arg)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(data)
		return err
	case "write":
		for _, path := range os.Args[2:] {
			fmt.Printf("%s: %t\n", path, os.WriteFile(path, []byte("probe"), 0o600) == nil)
		}
	case "scrape":
		return scrape(ctx, arg, os.Args[3:]...)
	case "read":
		return read(ctx, arg)
	default:
		return keep(ctx)
	}
	return nil
}

// keep appends the node's name to the file "starts" in each directory of the
// arguments, and then one byte a second to the file "alive" in the first. It says so
// once the API server has answered.
func keep(ctx context.Context) error {
	for _, dir := range os.Args[1:] {
		if err := add(dir+"/starts", os.Getenv("NODE")+"\n"); err != nil {
			return err
		}
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for said := false; ; {
		if err := add(os.Args[1]+"/alive", "."); err != nil {
			return err
		}
		if !said {
			status, err := call(ctx)
			if said = err == nil; said {
				fmt.Printf("probe on %s: the API server answers %s\n", os.Getenv("NODE"), status)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func add(path, text string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// call asks for the version through Service "kubernetes", as this pod.
func call(ctx context.Context) (string, error) {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return "", err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return "", err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/api/v1", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	client := &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	return response.Status, response.Body.Close()
}
