// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskms_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

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
			Secrets:  [][]byte{[]byte(s.SecretAccessKey)},
			Requests: s.Requests,
			Service:  states(t, s),
		}
	})
}

// states brings a server into the states of the suite.
func states(t *testing.T, s *awskmstest.Server) encrypttest.Service {
	type intercept = func(http.ResponseWriter, *http.Request, []byte) bool
	var now atomic.Pointer[intercept]
	var heal atomic.Pointer[chan struct{}]
	s.Intercept = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		f := now.Load()
		return f != nil && (*f)(w, r, body)
	}
	answer := func(status int, code string) func(*testing.T) {
		return func(*testing.T) {
			f := intercept(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				awskmstest.WriteError(w, status, code, "User: arn:aws:iam::111122223333:user/somebody")
				return true
			})
			now.Store(&f)
		}
	}
	well := func(*testing.T) {
		s.SetEnabled(keyARN, true)
		now.Store(nil)
		if stalled := heal.Swap(nil); stalled != nil {
			close(*stalled)
		}
	}
	t.Cleanup(func() { well(t) })
	return encrypttest.Service{
		Disable:  func(*testing.T) { s.SetEnabled(keyARN, false) },
		Deny:     answer(http.StatusBadRequest, "AccessDeniedException"),
		Throttle: answer(http.StatusBadRequest, "ThrottlingException"),
		Fail:     answer(http.StatusInternalServerError, "KMSInternalException"),
		Quote: func(*testing.T) {
			f := intercept(func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				awskmstest.WriteError(w, http.StatusBadRequest, "ValidationException", s.SecretAccessKey+r.Header.Get("Authorization")+string(body))
				return true
			})
			now.Store(&f)
		},
		Stall: func(*testing.T) {
			stalled := make(chan struct{})
			heal.Store(&stalled)
			f := intercept(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
				select {
				case <-stalled:
				case <-r.Context().Done():
				}
				return true
			})
			now.Store(&f)
		},
		Heal: well,
	}
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
