package fakeaws

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Keys are AWS access keys that the server accepts.
type Keys struct {
	// AccessKeyID is e.g. "AKIA...", or "ASIA..." for temporary keys.
	AccessKeyID string
	// SecretAccessKey is what requests are signed with.
	SecretAccessKey string
	// SessionToken must come with every request of temporary keys. Empty for
	// lasting ones.
	SessionToken string
	// Account is the account they belong to. Empty means Options.Account.
	Account string
	// ARN is what GetCallerIdentity answers. Empty means user "fakeaws" of
	// Account.
	ARN string
	// Role is the ARN of the role that they are a session of. Empty for users.
	Role string
	// Expires is when they stop being accepted. Zero means never.
	Expires time.Time
}

// LogValue shows nothing but the access key ID.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.AccessKeyID) }

// NewKeys makes lasting keys of a user and accepts them from now on.
func (s *Server) NewKeys(user string) Keys {
	return s.SetKeys(Keys{
		AccessKeyID:     "AKIA" + rand.Text()[:16],
		SecretAccessKey: secretAccessKey(),
		ARN:             fmt.Sprintf("arn:aws:iam::%s:user/%s", s.options.Account, user),
	})
}

// SetKeys accepts keys from now on, in place of any of the same access key ID,
// and returns them with the defaults filled in.
func (s *Server) SetKeys(k Keys) Keys {
	if k.Account == "" {
		k.Account = s.options.Account
	}
	if k.ARN == "" {
		k.ARN = fmt.Sprintf("arn:aws:iam::%s:user/fakeaws", k.Account)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.AccessKeyID] = k
	return k
}

// ExpireKeys makes keys answer as temporary ones past their time. Unknown keys
// are left alone.
func (s *Server) ExpireKeys(accessKeyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.keys[accessKeyID]; ok {
		k.Expires = time.Unix(0, 0)
		s.keys[accessKeyID] = k
	}
}

// RemoveKeys makes keys unknown, as deleting them does at AWS.
func (s *Server) RemoveKeys(accessKeyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, accessKeyID)
}

// newSession issues temporary keys of a role.
func (s *Server) newSession(roleARN, session string, life time.Duration) Keys {
	partition, account, name := splitRoleARN(roleARN)
	return s.SetKeys(Keys{
		AccessKeyID:     "ASIA" + rand.Text()[:16],
		SecretAccessKey: secretAccessKey(),
		SessionToken:    strings.Repeat(rand.Text(), 16),
		Account:         account,
		ARN:             fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", partition, account, name, session),
		Role:            roleARN,
		Expires:         s.now().Add(life),
	})
}

// splitRoleARN takes "arn:aws:iam::123456789012:role/path/name" apart.
func splitRoleARN(arn string) (partition, account, name string) {
	parts := append(strings.SplitN(arn, ":", 6), make([]string, 6)...)
	return parts[1], parts[4], parts[5][strings.LastIndex(parts[5], "/")+1:]
}

func secretAccessKey() string { return (rand.Text() + rand.Text())[:40] }

func (s *Server) lookup(accessKeyID string) (Keys, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.keys[accessKeyID]
	return k, ok
}

// principal is the ARN for Call.Principal.
func (s *Server) principal(accessKeyID string) string {
	k, _ := s.lookup(accessKeyID)
	if k.Role != "" {
		return k.Role
	}
	return k.ARN
}

// userID has the form of AWS's unique IDs, followed for sessions by their name.
func (k Keys) userID() string {
	if k.Role == "" {
		return "AIDA" + k.AccessKeyID[min(4, len(k.AccessKeyID)):]
	}
	return "AROA" + k.AccessKeyID[min(4, len(k.AccessKeyID)):] + ":" + k.ARN[strings.LastIndex(k.ARN, "/")+1:]
}

func (k Keys) element() credentialsElement {
	return credentialsElement{
		AccessKeyID:     k.AccessKeyID,
		SecretAccessKey: k.SecretAccessKey,
		SessionToken:    k.SessionToken,
		Expiration:      k.Expires.UTC().Format(time.RFC3339),
	}
}
