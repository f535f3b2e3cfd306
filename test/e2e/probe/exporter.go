package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
)

// exporter stands for programs that read their AWS credentials once, at their start. It
// shows at :5000/metrics with which key it would sign.
func exporter(ctx context.Context) error {
	config, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: ":5000", ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			keys, err := config.Credentials.Retrieve(r.Context())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprintf(w, "aws_key_info{id=%q,region=%q} 1\n", keys.AccessKeyID, config.Region) //nolint:errcheck // the test's own
		})}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(server.Close(), ignoreClosed(<-ended))
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
