package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/hostfiles"
)

// reloads follows the configuration file. It watches the directory, since a
// mounted ConfigMap changes by a swap of links there.
type reloads struct {
	path string
	log  *slog.Logger
	// next hands out a good configuration that differs from the one before. Only
	// the newest waits.
	next chan *config.Config
	ok   prometheus.Gauge
	last prometheus.Gauge

	mu      sync.Mutex // guards what follows: hints may overlap
	current *config.Config
	problem string
}

func newReloads(path string, current *config.Config, reg prometheus.Registerer, log *slog.Logger) *reloads {
	r := &reloads{
		path: path, log: log, current: current, next: make(chan *config.Config, 1),
		ok: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_config_last_reload_successful",
			Help: "1 if the configuration file is the one in use, 0 if it has problems and the one before is in use.",
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in use was loaded.",
		}),
	}
	reg.MustRegister(r.ok, r.last)
	r.ok.Set(1)
	r.last.SetToCurrentTime()
	return r
}

// reloadTick is the net under lost file events.
const reloadTick = 30 * time.Second

func (r *reloads) run(ctx context.Context) {
	hostfiles.Follow(ctx, []string{filepath.Dir(r.path)}, reloadTick, r.look, func(err error) {
		r.log.Warn("cannot watch the configuration, polling instead", "every", reloadTick, "err", err)
	})
}

// refuse tells of a configuration that is valid and does not start.
func (r *reloads) refuse(err error) {
	r.ok.Set(0)
	r.log.Error("configuration does not start, the one before is used again", "path", r.path, "err", err)
}

func (r *reloads) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, err := config.Load(r.path)
	if err != nil {
		r.ok.Set(0)
		if r.problem != err.Error() {
			r.log.Error("configuration refused, the one before stays in use", "path", r.path, "err", err)
		}
		r.problem = err.Error()
		return
	}
	if r.problem != "" {
		r.problem = ""
		r.ok.Set(1)
	}
	if reflect.DeepEqual(cfg, r.current) {
		return
	}
	r.ok.Set(1)
	r.current = cfg
	r.last.SetToCurrentTime()
	select {
	case <-r.next: // not taken yet, and out of date now
	default:
	}
	r.next <- cfg
}
