package clusterstatus

import "time"

// logged is how many targets' changes one look logs.
const logged = 20

// finding is one look at all targets.
type finding struct {
	verdicts []verdict // by target
	value    float64   // 1 or 0
	known    bool      // value means something
}

// look judges every target by what its watch has shown so far.
func (t *Task) look(now time.Time) finding {
	verdicts := make([]verdict, len(t.sources))
	for i, target := range t.opts.Targets {
		shown, doubt := t.sources[i].find(target, now)
		if doubt != nil {
			verdicts[i] = *doubt // and its lags stay
			continue
		}
		t.lags[i] = t.lags[i].next(shown, now)
		verdicts[i] = target.judge(shown, t.lags[i], now)
	}
	t.present.show(verdicts)
	t.tell(verdicts)
	return conclude(verdicts)
}

// conclude is the value of all targets together: one that is unhealthy settles it,
// else one that is unknown leaves it open.
func conclude(verdicts []verdict) finding {
	f := finding{verdicts: verdicts, value: 1, known: true}
	for _, v := range verdicts {
		switch v.state {
		case healthy:
		case unknown:
			f.known = false
		default:
			return finding{verdicts: verdicts, value: 0, known: true}
		}
	}
	return f
}

// tell logs the targets whose state has changed, and of those that are not healthy
// also a new reason. That one is unknown is logged only with a tick that it costs.
func (t *Task) tell(verdicts []verdict) {
	changes := 0
	t.doubt = ""
	for i, v := range verdicts {
		before := t.told[i]
		if v.state == unknown {
			t.doubt = t.opts.Targets[i].String() + ": " + v.reason
			continue
		}
		if v.state == before.state && (v.state == healthy || v.reason == before.reason) {
			continue
		}
		t.told[i] = v
		target := t.opts.Targets[i].String()
		if v.state == healthy && before.state == "" {
			t.log.Debug("target healthy", "target", target, "reason", v.reason)
			continue
		}
		if changes++; changes > logged {
			continue
		}
		if v.state == healthy {
			t.log.Info("target healthy", "target", target, "reason", v.reason)
		} else {
			t.log.Warn("target not healthy", "target", target, "state", string(v.state), "reason", v.reason)
		}
	}
	if changes > logged {
		t.log.Warn("more targets changed", "count", changes-logged)
	}
}
