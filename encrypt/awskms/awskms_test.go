// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskms_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/awskms"
	"github.com/modelsec/modelsec-go/encrypt/awskms/awskmstest"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

const (
	keyARN   = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	otherARN = "arn:aws:kms:eu-central-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321"
	mrk      = "mrk-1234abcd12ab34cd56ef1234567890ab"
	primary  = "arn:aws:kms:eu-central-1:111122223333:key/" + mrk
	replica  = "arn:aws:kms:us-east-1:111122223333:key/" + mrk
)

// service is KMS with two keys of one Region and one of two.
func service(t *testing.T) (*awskmstest.Server, string) {
	t.Helper()
	s := awskmstest.New()
	s.CreateKey(keyARN)
	s.CreateKey(otherARN)
	s.CreateKey(primary)
	s.Replicate(primary, replica)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, h.URL
}

func open(t *testing.T, s *awskmstest.Server, url, arn string) *awskms.Key {
	t.Helper()
	k, err := awskms.New(t.Context(), "awskms:///"+arn+"?endpoint="+url, &awskms.Options{Config: &aws.Config{
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKeyID, s.SecretAccessKey, ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSuite runs the real SDK client against a server of ours.
func TestSuite(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		s, url := service(t)
		k := open(t, s, url, keyARN)
		return encrypttest.Pair{
			Recipient: k, Identity: k, Stranger: open(t, s, url, otherARN),
			Binds:    true,
			Secrets:  [][]byte{[]byte(s.SecretAccessKey)},
			Requests: s.Requests,
			Service:  s.Service(keyARN),
		}
	})
}

func TestReplicaOpensWhatThePrimaryWrapped(t *testing.T) {
	s, url := service(t)
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, open(t, s, url, primary))
	if err != nil {
		t.Fatal(err)
	}
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, open(t, s, url, replica))
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}

// TestEncryptionContext is FORMAT.md §8.4: key policies and logs depend on it.
func TestEncryptionContext(t *testing.T) {
	s, url := service(t)
	sent := make(chan map[string]string, 1)
	s.Intercept = func(_ http.ResponseWriter, _ *http.Request, body []byte) bool {
		var q struct{ EncryptionContext map[string]string }
		if err := json.Unmarshal(body, &q); err != nil {
			t.Error(err)
		}
		sent <- q.EncryptionContext
		return false
	}
	b := encrypt.Binding{
		Manifest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		Scope:    encrypt.ScopeFiles, NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	b.ArtifactID[15], b.Commitment[0] = 1, 2
	for _, want := range []map[string]string{{
		"modelsec:scope": "files", "modelsec:not-after": "1798761600",
		"modelsec:artifact":   "00000000000000000000000000000001",
		"modelsec:manifest":   "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"modelsec:commitment": "0200000000000000000000000000000000000000000000000000000000000000",
	}, {
		"modelsec:scope": "artifact", "modelsec:not-after": "0",
		"modelsec:artifact":   "00000000000000000000000000000001",
		"modelsec:manifest":   "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"modelsec:commitment": "0200000000000000000000000000000000000000000000000000000000000000",
	}} {
		if _, err := open(t, s, url, keyARN).Wrap(t.Context(), make([]byte, 128), b); err != nil {
			t.Fatal(err)
		}
		if got := <-sent; !maps.Equal(got, want) {
			t.Errorf("encryption context %v, want %v", got, want)
		}
		b.Scope, b.NotAfter = "", time.Time{}
	}
}

// TestCredentialsMustBeRight: the server checks signatures, so a refusal of the
// suite is not an accident of the fake.
func TestCredentialsMustBeRight(t *testing.T) {
	s, url := service(t)
	wrong := &awskmstest.Server{AccessKeyID: s.AccessKeyID, SecretAccessKey: rand.Text()}
	key, b := encrypttest.NewBinding(t)
	_, err := encrypt.WrapKey(t.Context(), key, b, open(t, wrong, url, keyARN))
	if !errors.Is(err, encrypt.ErrDenied) {
		t.Errorf("error %v, want ErrDenied", err)
	}
}

func TestServiceOutOfReachIsUnavailable(t *testing.T) {
	s, url := service(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, b := encrypttest.NewBinding(t)
	if _, err := open(t, s, gone.URL, keyARN).Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	s.Intercept = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte(`{"CiphertextBlob":"AAAA`))
		return true
	}
	if _, err := open(t, s, url, keyARN).Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("cut answer: error %v, want ErrUnavailable", err)
	}
}

// TestWrapRefusesWhatNoReaderTakes: the answer of a broken service does not
// become a grant.
func TestWrapRefusesWhatNoReaderTakes(t *testing.T) {
	s, url := service(t)
	_, b := encrypttest.NewBinding(t)
	for _, size := range []int{0, 6<<10 + 1} {
		s.Intercept = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			w.Write([]byte(`{"CiphertextBlob":"` + base64.StdEncoding.EncodeToString(make([]byte, size)) + `"}`))
			return true
		}
		if _, err := open(t, s, url, keyARN).Wrap(t.Context(), make([]byte, 128), b); err == nil || !strings.Contains(err.Error(), "the service returned") {
			t.Errorf("%d bytes: error %v", size, err)
		}
	}
}

// TestAnswersAreBounded: the SDK reads an answer into memory whole.
func TestAnswersAreBounded(t *testing.T) {
	s, url := service(t)
	s.Intercept = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		w.Write([]byte(`{"CiphertextBlob":"`))
		zeros := bytes.Repeat([]byte("A"), 32<<10)
		for range 1 << 10 { // 32 MiB, unless the client hangs up
			if _, err := w.Write(zeros); err != nil {
				break
			}
		}
		return true
	}
	_, b := encrypttest.NewBinding(t)
	if _, err := open(t, s, url, keyARN).Wrap(t.Context(), make([]byte, 128), b); err == nil || strings.Contains(err.Error(), "the service returned") {
		t.Errorf("error %v, want one about the length", err)
	}
}
