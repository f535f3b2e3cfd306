package fakeaws_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

const readerARN = "arn:aws:iam::111122223333:role/teams/ecr-reader"

type identity struct{ Account, ARN string }

func identityOf(t *testing.T, cfg aws.Config) identity {
	t.Helper()
	out, err := getIdentity(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.UserId) == "" {
		t.Error("no user ID")
	}
	return identity{aws.ToString(out.Account), aws.ToString(out.Arn)}
}

func TestGetCallerIdentity(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := loadConfig(t, s.Env())
	for _, tc := range []struct {
		name string
		keys fakeaws.Keys
		want identity
	}{
		{"made by the server", s.NewKeys("ci"), identity{"123456789012", "arn:aws:iam::123456789012:user/ci"}},
		{"set", s.SetKeys(fakeaws.Keys{AccessKeyID: "AKIA1", SecretAccessKey: "s", Account: "111122223333"}), identity{"111122223333", "arn:aws:iam::111122223333:user/fakeaws"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(identityOf(t, signWith(cfg, tc.keys)), tc.want); diff != "" {
				t.Errorf("identity (-got +want):\n%s", diff)
			}
		})
	}
}

func TestAssumeRole(t *testing.T) {
	for _, tc := range []struct {
		name   string
		role   fakeaws.Role
		change func(*sts.AssumeRoleInput)
		want   string
	}{
		{"anyone", fakeaws.Role{}, func(*sts.AssumeRoleInput) {}, ""},
		{"external ID", fakeaws.Role{ExternalID: "e1"}, func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("e1") }, ""},
		{"no external ID", fakeaws.Role{ExternalID: "e1"}, func(*sts.AssumeRoleInput) {}, "AccessDenied"},
		{"wrong external ID", fakeaws.Role{ExternalID: "e1"}, func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("e2") }, "AccessDenied"},
		{"trusted", fakeaws.Role{Trusts: []string{"arn:aws:iam::123456789012:user/ci"}}, func(*sts.AssumeRoleInput) {}, ""},
		{"not trusted", fakeaws.Role{Trusts: []string{"arn:aws:iam::123456789012:user/other"}}, func(*sts.AssumeRoleInput) {}, "AccessDenied"},
		{"no such role", fakeaws.Role{}, func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String("arn:aws:iam::111122223333:role/none") }, "AccessDenied"},
		{"bad session name", fakeaws.Role{}, func(in *sts.AssumeRoleInput) { in.RoleSessionName = aws.String("a b") }, "ValidationError"},
		{"too short", fakeaws.Role{}, func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(899) }, "ValidationError"},
		{"too long", fakeaws.Role{}, func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3601) }, "ValidationError"},
		{"longest", fakeaws.Role{MaxSession: 12 * time.Hour}, func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(43200) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			tc.role.ARN = readerARN
			s.SetRole(tc.role)
			in := &sts.AssumeRoleInput{RoleArn: aws.String(readerARN), RoleSessionName: aws.String("test")}
			tc.change(in)
			client := sts.NewFromConfig(signWith(loadConfig(t, s.Env()), s.NewKeys("ci")))
			out, err := client.AssumeRole(t.Context(), in)
			if got := code(err); got != tc.want {
				t.Fatalf("got error %q (%v), want %q", got, err, tc.want)
			}
			if err != nil {
				return
			}
			if got, want := aws.ToString(out.AssumedRoleUser.Arn), "arn:aws:sts::111122223333:assumed-role/ecr-reader/test"; got != want {
				t.Errorf("got user %q, want %q", got, want)
			}
		})
	}
}

// assumed returns a configuration whose keys come from AssumeRole.
func assumed(cfg aws.Config) aws.Config {
	client := sts.NewFromConfig(cfg)
	cfg = cfg.Copy()
	cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, readerARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = "test"
		o.ExternalID = aws.String("e1")
	}))
	return cfg
}

func TestSessionOfRole(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	s.SetRole(fakeaws.Role{ARN: readerARN, ExternalID: "e1"})
	cfg := assumed(signWith(loadConfig(t, s.Env()), s.NewKeys("ci")))
	out, err := getToken(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := aws.ToString(out.AuthorizationData[0].ProxyEndpoint), "https://111122223333.dkr.ecr.eu-west-1.amazonaws.com"; got != want {
		t.Errorf("got endpoint %q, want that of the role's account, %q", got, want)
	}
	if got := s.Count(fakeaws.Call{Service: fakeaws.ServiceECR, Principal: readerARN}); got != 1 {
		t.Errorf("got %d calls of the role, want 1", got)
	}
	if diff := cmp.Diff(identityOf(t, cfg), identity{"111122223333", "arn:aws:sts::111122223333:assumed-role/ecr-reader/test"}); diff != "" {
		t.Errorf("identity (-got +want):\n%s", diff)
	}
}

func TestSessionEnds(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	s.SetRole(fakeaws.Role{ARN: readerARN})
	user := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	out, err := sts.NewFromConfig(user).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(readerARN), RoleSessionName: aws.String("test")})
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	cfg := signWith(user, fakeaws.Keys{
		AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken,
	})
	cfg.Retryer = quickRetryer // the server's clock moves, which the SDK must learn
	if _, err := getToken(t.Context(), cfg); err != nil {
		t.Errorf("at once: %v", err)
	}
	s.SetClockOffset(time.Hour)
	if _, err := getToken(t.Context(), cfg); code(err) != "ExpiredTokenException" {
		t.Errorf("after an hour: got %v, want ExpiredTokenException", err)
	}
}

func TestWebIdentity(t *testing.T) {
	errForged := errors.New("forged")
	decide := func(token string) (string, error) {
		switch token {
		case "good":
			return "system:serviceaccount:chandler:chandler-leader", nil
		case "old":
			return "", fmt.Errorf("at noon: %w", fakeaws.ErrWebIdentityExpired)
		default:
			return "", errForged
		}
	}
	for _, tc := range []struct {
		name, token string
		role        fakeaws.Role
		want        string
	}{
		{"good", "good", fakeaws.Role{ARN: readerARN, WebIdentity: decide}, ""},
		{"expired", "old", fakeaws.Role{ARN: readerARN, WebIdentity: decide}, "ExpiredTokenException"},
		{"forged", "bad", fakeaws.Role{ARN: readerARN, WebIdentity: decide}, "InvalidIdentityToken"},
		{"role without web identity", "good", fakeaws.Role{ARN: readerARN}, "AccessDenied"},
		{"no such role", "good", fakeaws.Role{ARN: "arn:aws:iam::1:role/x", WebIdentity: decide}, "AccessDenied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			s.SetRole(tc.role)
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(tc.token), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := loadConfig(t, s.Env(), map[string]string{
				"AWS_ROLE_ARN":                readerARN,
				"AWS_WEB_IDENTITY_TOKEN_FILE": file,
				"AWS_ROLE_SESSION_NAME":       "irsa",
				"AWS_MAX_ATTEMPTS":            "1",
			})
			_, err := getToken(t.Context(), cfg)
			if got := code(err); got != tc.want {
				t.Fatalf("got error %q (%v), want %q", got, err, tc.want)
			}
			if got := s.Count(fakeaws.Call{Operation: "AssumeRoleWithWebIdentity"}); got != 1 {
				t.Errorf("got %d exchanges, want 1", got)
			}
		})
	}
}

func TestWebIdentityNamesTheSubject(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	s.SetRole(fakeaws.Role{ARN: readerARN, WebIdentity: func(string) (string, error) { return "system:serviceaccount:a:b", nil }})
	out, err := sts.NewFromConfig(loadConfig(t, s.Env())).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(readerARN), RoleSessionName: aws.String("irsa"), WebIdentityToken: aws.String("x"),
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{aws.ToString(out.SubjectFromWebIdentityToken), aws.ToString(out.Audience), aws.ToString(out.AssumedRoleUser.Arn)}
	want := []string{"system:serviceaccount:a:b", "sts.amazonaws.com", "arn:aws:sts::111122223333:assumed-role/ecr-reader/irsa"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("answer (-got +want):\n%s", diff)
	}
}
