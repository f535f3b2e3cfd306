package pullsecrets

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	keyID     = "AKIAIOSFODNN7EXAMPLE"
	keySecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" // #nosec G101 -- the example of AWS's documentation
)

func keysSecret(data map[string]string) *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ci-cd", Name: "eatr-aws-credentials-" + irish},
		Data:       map[string][]byte{},
	}
	for name, value := range data {
		secret.Data[name] = []byte(value)
	}
	return secret
}

func TestParseKeys(t *testing.T) {
	tests := map[string]struct {
		data  map[string]string
		want  accessKeys
		wrong []string // all of these in the error; none means no error
	}{
		"as eatr has them": {
			data: map[string]string{"aws_region": "eu-west-1", "aws_access_key_id": keyID, "aws_secret_access_key": keySecret},
			want: accessKeys{id: keyID, secret: secret(keySecret)},
		},
		"newlines and blanks around them": {
			data: map[string]string{"aws_access_key_id": " " + keyID + "\n", "aws_secret_access_key": keySecret + "\r\n"},
			want: accessKeys{id: keyID, secret: secret(keySecret)},
		},
		"temporary keys": {
			data: map[string]string{"aws_access_key_id": keyID, "aws_secret_access_key": keySecret, "aws_session_token": strings.Repeat("FwoG", 99) + "\n"},
			want: accessKeys{id: keyID, secret: secret(keySecret), session: secret(strings.Repeat("FwoG", 99))},
		},
		"all missing": {
			wrong: []string{"Secret ci-cd/eatr-aws-credentials-" + irish, "aws_access_key_id is missing", "aws_secret_access_key is missing"},
		},
		"one blank": {
			data:  map[string]string{"aws_access_key_id": "  \n", "aws_secret_access_key": keySecret},
			wrong: []string{"aws_access_key_id is missing"},
		},
		"quoted": {
			data:  map[string]string{"aws_access_key_id": `"` + keyID + `"`, "aws_secret_access_key": `'` + keySecret + `'`},
			wrong: []string{"aws_access_key_id is malformed", "aws_secret_access_key is malformed"},
		},
		"two lines": {
			data:  map[string]string{"aws_access_key_id": keyID, "aws_secret_access_key": keySecret + "\n" + keySecret},
			wrong: []string{"aws_secret_access_key is malformed"},
		},
		"malformed session token": {
			data:  map[string]string{"aws_access_key_id": keyID, "aws_secret_access_key": keySecret, "aws_session_token": "a b"},
			wrong: []string{"aws_session_token is malformed"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseKeys(keysSecret(test.data))
			if (err != nil) != (len(test.wrong) > 0) {
				t.Fatalf("got error %v, want one: %t", err, len(test.wrong) > 0)
			}
			for _, want := range test.wrong {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got error %q, want %q in it", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), keySecret) {
				t.Errorf("the error shows the secret key")
			}
			if got != test.want {
				t.Errorf("got id %q, secret %q, session %q, want id %q, secret %q, session %q", got.id, got.secret.reveal(), got.session.reveal(),
					test.want.id, test.want.secret.reveal(), test.want.session.reveal())
			}
		})
	}
}

func TestRegionDiffers(t *testing.T) {
	registry, err := Parse(irish)
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{"": false, "eu-west-1": false, "eu-west-1\n": false, "us-east-1": true} {
		if got := regionDiffers(keysSecret(map[string]string{"aws_region": value}), registry); got != want {
			t.Errorf("aws_region %q: got %t, want %t", value, got, want)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(keyID, keySecret, "")
	f.Add("\n"+keyID, keySecret+" ", "session")
	f.Add("", "", "\x00")
	f.Fuzz(func(t *testing.T, id, secret, session string) {
		keys, err := parseKeys(keysSecret(map[string]string{
			"aws_access_key_id": id, "aws_secret_access_key": secret, "aws_session_token": session,
		}))
		if err != nil {
			return
		}
		for _, value := range []string{keys.id, keys.secret.reveal(), keys.session.reveal()} {
			if strings.ContainsAny(value, " \t\r\n\x00") {
				t.Errorf("accepted %q", value)
			}
		}
	})
}
