// Package fakeaws answers, over plain HTTP on loopback, the few AWS calls that
// chandler makes: EC2 instance metadata, ECR and ECR Public authorization
// tokens, STS, and CloudWatch metrics. It speaks the wire protocols of aws-sdk-go-v2 closely enough
// that the unmodified SDK is pointed at it by its own environment variables. It
// checks signatures for real, so a wrong secret key fails here as it does at
// AWS, and it fails on demand.
//
// It holds no images, no policies and no state between runs, and it is not
// hardened: only integration tests, benchmarks and the demo start it.
package fakeaws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	defaultAddress = "127.0.0.1:0"
	defaultAccount = "123456789012"

	// defaultTokenLife is what ECR gives: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
	defaultTokenLife = 12 * time.Hour
	// defaultPasswordBytes is in the range of real ECR passwords, 1 to 2 kB.
	defaultPasswordBytes = 1600
)

// Options configures a Server. The zero value is usable.
type Options struct {
	// Address is where all but instance metadata listen, e.g. "127.0.0.1:4566".
	// Empty means a free port on 127.0.0.1.
	Address string
	// Account is the 12-digit account of keys and instances that name none.
	// Empty means "123456789012".
	Account string
	// Regions are the only regions that requests may be signed for, e.g.
	// "eu-west-1". Empty means any.
	Regions []string
	// TokenLife is how long issued ECR passwords last. Zero means 12 hours.
	TokenLife time.Duration
	// PasswordBytes is the length of issued ECR passwords, at least 72. Zero
	// means 1600.
	PasswordBytes int
}

// Server is one running fake of AWS. Its methods may be called at any time from
// any goroutine.
type Server struct {
	options  Options
	services []service
	url      string
	ended    chan struct{} // closed by Close, releases the calls that never answer
	serving  sync.WaitGroup

	// mu guards everything below.
	mu        sync.Mutex
	closed    bool
	servers   []*http.Server
	offset    time.Duration
	tokenLife time.Duration
	keys      map[string]Keys // by access key ID
	roles     map[string]Role // by ARN
	issued    []Issued
	data      []Datum
	puts      int // accepted calls of PutMetricData
	counts    map[Call]int
	faults    []*activeFault
}

// Listen starts a Server and returns once it accepts connections. The caller
// must Close it.
func Listen(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("start fake AWS: %w", err)
	}
	s := &Server{
		options:   o,
		ended:     make(chan struct{}),
		tokenLife: o.TokenLife,
		keys:      map[string]Keys{},
		roles:     map[string]Role{},
		counts:    map[Call]int{},
	}
	s.services = []service{s.ecr(), s.ecrPublic(), s.sts(), s.cloudWatch()}
	url, err := s.serve(o.Address, http.HandlerFunc(s.serveAPI))
	if err != nil {
		return nil, fmt.Errorf("start fake AWS: %w", err)
	}
	s.url = url
	return s, nil
}

func (o *Options) complete() error {
	if o.Address == "" {
		o.Address = defaultAddress
	}
	if o.Account == "" {
		o.Account = defaultAccount
	}
	if o.TokenLife == 0 {
		o.TokenLife = defaultTokenLife
	}
	if o.PasswordBytes == 0 {
		o.PasswordBytes = defaultPasswordBytes
	}
	if o.PasswordBytes < bcryptBytes {
		return fmt.Errorf("PasswordBytes is %d, want at least %d", o.PasswordBytes, bcryptBytes)
	}
	return nil
}

// URL is the base URL of all but instance metadata, e.g. "http://127.0.0.1:40123".
func (s *Server) URL() string { return s.url }

// Env returns the environment variables that point every client of the SDK,
// instance metadata excepted, at this server. See IMDS.Env for that one.
func (s *Server) Env() map[string]string {
	return map[string]string{
		// Keeps calls that the fake does not know from leaving the machine.
		"AWS_ENDPOINT_URL":     s.url,
		"AWS_ENDPOINT_URL_ECR": s.url,
		// The global variable does not reach the STS client that exchanges a web
		// identity token, since the SDK makes that one before it reads the former.
		"AWS_ENDPOINT_URL_STS":        s.url,
		"AWS_ENDPOINT_URL_ECR_PUBLIC": s.url,
		"AWS_ENDPOINT_URL_CLOUDWATCH": s.url,
	}
}

// SetClockOffset moves the server's clock, Date header included, to d ahead of
// the machine's; negative is behind. Everything that expires follows it.
func (s *Server) SetClockOffset(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = d
}

func (s *Server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.offset)
}

// Close stops listening, cuts every connection and returns when all calls have
// ended. It is safe to repeat.
func (s *Server) Close() error {
	s.mu.Lock()
	servers := s.servers
	if !s.closed {
		s.closed = true
		close(s.ended)
	}
	s.mu.Unlock()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Close())
	}
	s.serving.Wait()
	return errors.Join(errs...)
}

// serve listens on address and returns the base URL of what handler serves.
func (s *Server) serve(address string, handler http.Handler) (string, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: s.counted(handler), ReadHeaderTimeout: 10 * time.Second}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", errors.Join(http.ErrServerClosed, listener.Close())
	}
	s.servers = append(s.servers, server)
	s.serving.Go(func() {
		// Serve ends with ErrServerClosed after Close; any other end shows at the
		// clients as a refused connection.
		_ = server.Serve(listener)
	})
	return "http://" + listener.Addr().String(), nil
}

// counted lets Close wait for handlers, which http.Server.Close does not.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			hangUp(w)
			return
		}
		s.serving.Add(1)
		s.mu.Unlock()
		defer s.serving.Done()
		next.ServeHTTP(w, r)
	})
}

// hangUp cuts the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // already cut by the client or by Close
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Without lingering the client sees a reset. A refusal of the option
		// leaves it an end of file, which is as good.
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close() // nobody is left to tell
}
