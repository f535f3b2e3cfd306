package agent_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/expect"
)

// publishAWS plays an agent that publishes the set "aws"; no credentials, no file. It is
// open to every user but for the credentials.
func publishAWS(t *testing.T, credentials hostfiles.File) (dir string) {
	t.Helper()
	dir = t.TempDir()
	expect.OK(t, os.Chmod(filepath.Dir(dir), 0o755))
	d, err := hostfiles.Open(dir)
	expect.OK(t, err)
	defer d.Close()
	files := []hostfiles.File{{Name: "config.ini", Mode: 0o444, UID: -1, GID: -1, Data: []byte(eksConfig)}}
	if len(credentials.Data) > 0 {
		credentials.Name = "credentials.ini"
		files = append(files, credentials)
	}
	_, err = d.Publish("aws", files)
	expect.OK(t, err)
	return dir
}

// look waits for the sets no longer than one look at them takes.
func look(dir string, sets ...string) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return agent.Wait(ctx, agent.WaitOptions{HostDir: dir, Sets: sets, RequireCredentials: true, Log: slog.New(slog.DiscardHandler)})
}

func TestWaitForCredentials(t *testing.T) {
	good := credentialsINI(accessKey, secretKey)
	for name, tt := range map[string]struct {
		credentials, set string
		err              string // a part of it; empty means none
	}{
		"there":          {good, "aws", ""},
		"absent":         {"", "aws", "credentials.ini does not exist: the Secret"},
		"half of a pair": {"[default]\naws_access_key_id = " + accessKey + "\n", "aws", "aws_secret_access_key is missing"},
		"no section":     {"\n", "aws", "no [section]"},
		"of no AWS set":  {good, "cluster", "add --set aws or --set aws-NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := publishAWS(t, hostfiles.File{Mode: 0o400, UID: -1, GID: -1, Data: []byte(tt.credentials)})
			err := look(dir, tt.set)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
		})
	}
}

const waitVariable = "CHANDLER_TEST_WAIT"

// TestWaitAsAnotherUser: what a consumer may not read is an error that says who may, and
// what to change.
func TestWaitAsAnotherUser(t *testing.T) {
	if dir := os.Getenv(waitVariable); dir != "" {
		fmt.Println(look(dir, "aws"))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may start a process of another user")
	}
	const user, group = 65532, 65534
	for name, tt := range map[string]struct {
		mode     fs.FileMode
		uid, gid int
		groups   []uint32
		want     []string
	}{
		"a group that it lacks": {
			0o440, 0, group, nil,
			[]string{"mode 0440, user 0 and group 65534", "user 65532 with the groups [65532]", "add 65534 to supplementalGroups"},
		},
		"a group that it has":      {0o440, 0, group, []uint32{group}, []string{"<nil>"}},
		"another user":             {0o400, 0, group, []uint32{group}, []string{"mode 0400", "groups [65532 65534]: change files (uid"}},
		"its own, without a right": {0o040, user, group, []uint32{group}, []string{"mode 0040, user 65532", ": change files (uid"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := publishAWS(t, hostfiles.File{Mode: tt.mode, UID: tt.uid, GID: tt.gid, Data: []byte(credentialsINI(accessKey, secretKey))})
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestWaitAsAnotherUser$") // the other user may not search for it
			cmd.Env = append(os.Environ(), waitVariable+"="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, Groups: tt.groups}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("got %s, want it to say %q", out, want)
				}
			}
			if strings.Contains(string(out), secretKey) {
				t.Errorf("a secret is shown: %s", out)
			}
		})
	}
}
