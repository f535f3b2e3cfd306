package agent

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/csrapproval"
	"github.com/chandler-k8s/chandler/leader/csrsigning"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

// AdmissionPolicies returns the admission policies that depend on a configuration,
// as YAML to be applied: those that pin scraper certificates to its common name,
// signer and duration.
func AdmissionPolicies(cfg *config.Config) ([]byte, error) {
	rules := scraperRules(cfg)
	rules.Namespace = config.Namespace
	policies, err := scrapercsr.Policies(rules)
	if err != nil {
		return nil, fmt.Errorf("policies of scraper certificates: %w", err)
	}
	return policies, nil
}

// scraperRules lacks the namespace, which is the process's.
func scraperRules(cfg *config.Config) scrapercsr.Rules {
	return scrapercsr.Rules{
		CommonName: cfg.Scraper.CommonName, SignerName: cfg.Scraper.SignerName, LongestLife: cfg.Scraper.Duration.Duration,
	}
}

// scraperTasks lists the tasks that decide on requests for scraper certificates.
func scraperTasks(cfg *config.Config, reg prometheus.Registerer) ([]newTask, error) {
	rules := scraperRules(cfg)
	approvals, err := csrapproval.NewMetrics(reg)
	if err != nil {
		return nil, err
	}
	tasks := []newTask{func(term leader.Term) (leader.Task, error) {
		return csrapproval.New(term, csrapproval.Options{Rules: rules, Metrics: approvals})
	}}
	if rules.SignerName != config.SignerChandler {
		return tasks, nil
	}
	signatures, err := csrsigning.NewMetrics(reg)
	if err != nil {
		return nil, err
	}
	return append(tasks, func(term leader.Term) (leader.Task, error) {
		return csrsigning.New(term, csrsigning.Options{Rules: rules, Metrics: signatures})
	}), nil
}
