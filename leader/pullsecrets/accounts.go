package pullsecrets

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	// accountRetry is for a ServiceAccount that others write at the same time;
	// usually the news of their write comes first.
	accountRetry = time.Second
	// refusedRetry is for one that we may not change.
	refusedRetry = 15 * time.Minute
)

// syncAccounts adds the entry for a Secret of ours to the configured
// ServiceAccounts of its namespace, and takes it out of those that are configured
// no longer. Without the permission to see the accounts it does nothing; once they
// are seen, each is news.
func (t *Task) syncAccounts(ctx context.Context, p pair) (again time.Duration, err error) {
	for name, accounts := range t.accounts {
		account, err := accounts.ServiceAccounts(p.namespace).Get(name)
		if apierrors.IsNotFound(err) {
			continue // one that is made or seen later is an event
		}
		if err != nil {
			return 0, err
		}
		change := changeAccount(account.ImagePullSecrets, p.host, true)
		if change == nil {
			continue
		}
		// First: an entry that somebody else made is not ours to remove later.
		waiting := func() []string { return t.lacking(p.host, name) }
		if err := t.ledger.enter(ctx, p.host, accountKey(p.namespace, name), waiting); err != nil {
			return 0, err
		}
		outcome, err := t.patchAccount(ctx, account, change)
		if err != nil {
			return 0, err
		}
		again = max(again, outcome)
	}
	var former []string
	for _, name := range t.ledger.accounts(p) {
		if _, wanted := t.accounts[name]; !wanted {
			former = append(former, name)
		}
	}
	left, err := t.leaveAccounts(ctx, p, former)
	return max(again, left), err
}

// lacking returns the ledger's keys of the accounts that are about to get our
// entry: those beside a Secret that we have written.
func (t *Task) lacking(host, name string) []string {
	var keys []string
	for _, namespace := range t.asking(host) {
		state, _ := t.state(pair{namespace, host})
		if state.content == nil || !state.foreign.IsZero() {
			continue
		}
		account, err := t.accounts[name].ServiceAccounts(namespace).Get(name)
		if err == nil && changeAccount(account.ImagePullSecrets, host, true) != nil {
			keys = append(keys, accountKey(namespace, name))
		}
	}
	return keys
}

// leaveAccounts takes our entry out of the named accounts of a namespace, and then
// them out of the ledger. It asks the API server for each: what is configured no
// longer is not watched. A positive answer is when to try again.
func (t *Task) leaveAccounts(ctx context.Context, p pair, names []string) (again time.Duration, err error) {
	for _, name := range names {
		found, err := t.client.CoreV1().ServiceAccounts(p.namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if apierrors.IsForbidden(err) {
			t.accountRefused("accounts "+name, t.home, name, err)
			again = max(again, refusedRetry)
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read ServiceAccount %s/%s: %w", p.namespace, name, err)
		}
		t.report.clear("accounts " + name)
		outcome := time.Duration(0)
		for i := range found.Items {
			if change := changeAccount(found.Items[i].ImagePullSecrets, p.host, false); change != nil {
				if outcome, err = t.patchAccount(ctx, &found.Items[i], change); err != nil {
					return 0, err
				}
			}
		}
		if again = max(again, outcome); outcome == 0 {
			t.ledger.leaveAccount(p, name)
			t.enqueue(ledgerKey)
		}
	}
	return again, nil
}

// patchAccount answers when to try again: soon if the patch was made for a list
// that is no longer the account's, later if it is not allowed.
func (t *Task) patchAccount(ctx context.Context, account *corev1.ServiceAccount, change []jsonOperation) (again time.Duration, err error) {
	body, err := json.Marshal(change)
	if err != nil {
		return 0, err
	}
	_, err = t.client.CoreV1().ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.JSONPatchType, body,
		metav1.PatchOptions{FieldManager: leader.FieldManager})
	about := "account " + account.Namespace + "/" + account.Name
	switch {
	case err == nil:
		t.report.clear(about)
		return 0, nil
	case apierrors.IsInvalid(err) && !refused(err): // what a failed test of a JSON patch becomes
		return accountRetry, nil
	case apierrors.IsNotFound(err), leader.NamespaceEnding(err):
		return 0, nil
	case apierrors.IsForbidden(err):
		t.accountRefused(about, account.Namespace, account.Name, err)
		return refusedRetry, nil
	}
	return 0, fmt.Errorf("change ServiceAccount %s/%s: %w", account.Namespace, account.Name, err)
}

// accountRefused tells that accounts cannot be seen, or that one cannot be changed.
func (t *Task) accountRefused(about, namespace, name string, err error) {
	t.report.warn(about, namespaceReference(namespace), reasonAccount, "ServiceAccount "+name+
		" is left as it is; deploy/optional/pullsecrets-serviceaccounts.yaml with this name in resourceNames allows it: "+err.Error())
}
