// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// TestSignatureOfThePublishedExample is the GET of the documentation of S3.
func TestSignatureOfThePublishedExample(t *testing.T) {
	c := credentials{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	text := "GET /test.txt HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\nRange: bytes=0-9\r\n" +
		"x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\nx-amz-date: 20130524T000000Z\r\n" +
		"Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, " +
		"Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41\r\n\r\n"
	now := time.Date(2013, 5, 24, 0, 10, 0, 0, time.UTC)
	parse := func(text string) *http.Request {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	// The second form is the one that AWS's own transport sends.
	for _, line := range []string{"GET /test.txt", "GET https://examplebucket.s3.amazonaws.com/test.txt"} {
		if err := c.verify(parse(strings.Replace(text, "GET /test.txt", line, 1)), now); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	for what, change := range map[string][2]string{
		"path":      {"/test.txt", "/test.tx2"},
		"query":     {"/test.txt", "/test.txt?x=1"},
		"method":    {"GET", "PUT"},
		"host":      {"Host: e", "Host: f"},
		"authority": {"GET /test.txt", "GET https://attacker.example/test.txt"},
		"range":     {"bytes=0-9", "bytes=0-8"},
		"date":      {"date: 20130524T000000Z", "date: 20130524T000001Z"},
		"scope":     {"us-east-1", "us-east-2"},
		"service":   {"/s3/", "/ec2/"},
		"id":        {"AKIA", "AKIB"},
		"algorithm": {"AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"},
		"unsigned":  {"host;range;", "range;"},
		"order":     {"host;range;", "range;host;"},
		"repeated":  {"host;range;", "host;range;range;"},
		"signature": {"=f0e8", "=f0e9"},
		"none":      {"Authorization", "X-Authorization"},
	} {
		if err := c.verify(parse(strings.Replace(text, change[0], change[1], 1)), now); err == nil {
			t.Errorf("a changed %s was accepted", what)
		}
	}
	for _, now := range []time.Time{now.Add(time.Hour), now.Add(-time.Hour)} {
		if err := c.verify(parse(text), now); err == nil {
			t.Errorf("a request of another time was accepted at %v", now)
		}
	}
	if err := (credentials{c.id, "another"}).verify(parse(text), now); err == nil {
		t.Error("another secret was accepted")
	}
}

// sign signs a request as a client does.
func sign(r *http.Request, c credentials, now time.Time) {
	hash := sha256.Sum256(nil)
	date := now.UTC().Format(sigTime)
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(hash[:]))
	signed := []string{"host", "x-amz-content-sha256", "x-amz-date"}
	scope := []string{c.id, date[:8], "us-east-1", "s3", "aws4_request"}
	sum := sha256.Sum256([]byte(canonical(r, signed)))
	key := []byte("AWS4" + c.secret)
	for _, part := range scope[1:] {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, strings.Join([]string{sigAlgorithm, date, strings.Join(scope[1:], "/"), hex.EncodeToString(sum[:])}, "\n")))
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s, SignedHeaders=%s, Signature=%s", sigAlgorithm, strings.Join(scope, "/"), strings.Join(signed, ";"), signature))
}

// served is a gateway that runs.
type served struct {
	t           *testing.T
	src         fstest.MapFS
	client      *http.Client
	base        string
	credentials credentials
	settings    string
}

func signingKey(t *testing.T) (*ecdsa.PrivateKey, provenance.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := provenance.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

// gatewayOf serves a model in this process.
func gatewayOf(t *testing.T, listen string) *served {
	t.Helper()
	key, signer := signingKey(t)
	s := &served{t: t, src: fstest.MapFS{}, settings: filepath.Join(t.TempDir(), "run")}
	for _, name := range []string{"a+b c.json", "config.json", "model.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.txt", "z/y/x.bin"} {
		s.src[name] = &fstest.MapFile{Data: bytes.Repeat([]byte(name+"\n"), 1000)}
	}
	c := &modelsec.Client{Registry: registry.NewMemory()}
	const ref = "registry.example.com/team/llama:v3"
	if _, err := c.Push(t.Context(), ref, s.src, &modelsec.PushOptions{Signer: signer}); err != nil {
		t.Fatal(err)
	}
	m, err := c.Open(t.Context(), ref, provenance.RequireKey(key.Public()))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := newSettings(s.settings)
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFront(listen, dir)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: newGateway(m, f.admit), ConnContext: f.connected}
	ended := make(chan error)
	go func() { ended <- server.Serve(f.listener) }()
	t.Cleanup(func() { s.client.CloseIdleConnections(); server.Close(); <-ended; m.Close(); dir.remove() })
	env, err := os.ReadFile(filepath.Join(s.settings, "env"))
	if err != nil {
		t.Fatal(err)
	}
	value := make(map[string]string)
	for line := range strings.Lines(string(env)) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		value[name] = v
	}
	s.base, s.credentials = value["AWS_ENDPOINT_URL"], credentials{value["AWS_ACCESS_KEY_ID"], value["AWS_SECRET_ACCESS_KEY"]}
	transport := &http.Transport{}
	if path, ok := strings.CutPrefix(s.base, "unix:"); ok {
		s.base = "http://model.local"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	} else {
		pem, err := os.ReadFile(value["AWS_CA_BUNDLE"])
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	s.client = &http.Client{Transport: transport}
	return s
}

// do sends a request, signed unless change undoes it.
func (s *served) do(method, path string, change func(r *http.Request)) (*http.Response, []byte) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.base+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	sign(r, s.credentials, time.Now())
	if change != nil {
		change(r)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, b
}

func fronts(t *testing.T, run func(t *testing.T, s *served)) {
	t.Run("TCP", func(t *testing.T) { run(t, gatewayOf(t, "127.0.0.1:0")) })
	if runtime.GOOS != "linux" {
		return
	}
	t.Run("socket", func(t *testing.T) { run(t, gatewayOf(t, "")) })
}

func TestGatewayServesObjects(t *testing.T) {
	fronts(t, func(t *testing.T, s *served) {
		for name, f := range s.src {
			path := "/model/" + (&url.URL{Path: name}).EscapedPath()
			resp, b := s.do("GET", path, nil)
			if resp.StatusCode != http.StatusOK || !bytes.Equal(b, f.Data) {
				t.Errorf("%s: status %d and %d bytes", name, resp.StatusCode, len(b))
			}
			head, _ := s.do("HEAD", path, nil)
			if head.ContentLength != int64(len(f.Data)) || head.Header.Get("ETag") != resp.Header.Get("ETag") || head.Header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s: HEAD answered %v", name, head.Header)
			}
		}
		want := s.src["model.safetensors"].Data
		for r, part := range map[string][]byte{"bytes=5-99": want[5:100], "bytes=100-": want[100:], "bytes=-7": want[len(want)-7:]} {
			resp, b := s.do("GET", "/model/model.safetensors", func(req *http.Request) { req.Header.Set("Range", r) })
			if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(b, part) {
				t.Errorf("%s: status %d and %d bytes", r, resp.StatusCode, len(b))
			}
		}
		for path, want := range map[string]int{"/model/missing": 404, "/other/model.safetensors": 404, "/model/../model.safetensors": 404, "/model/": 501, "/": 404, "/model/?list-type=2&max-keys=x": 400} {
			if resp, _ := s.do("GET", path, nil); resp.StatusCode != want {
				t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
			}
		}
		for _, method := range []string{"PUT", "POST", "DELETE"} {
			if resp, _ := s.do(method, "/model/config.json", nil); resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s: status %d", method, resp.StatusCode)
			}
		}
	})
}

func TestGatewayListsInPages(t *testing.T) {
	fronts(t, func(t *testing.T, s *served) {
		for query, want := range map[string]string{
			"":                             "a+b c.json config.json model.safetensors tokenizer/merges.txt tokenizer/vocab.txt z/y/x.bin",
			"&delimiter=%2F":               "a+b c.json config.json model.safetensors tokenizer/ z/",
			"&prefix=tokenizer%2F":         "tokenizer/merges.txt tokenizer/vocab.txt",
			"&delimiter=%2F&prefix=z%2F":   "z/y/",
			"&prefix=none":                 "",
			"&start-after=model":           "model.safetensors tokenizer/merges.txt tokenizer/vocab.txt z/y/x.bin",
			"&encoding-type=url&prefix=a":  "a%2Bb+c.json",
			"&delimiter=%2F&prefix=tok":    "tokenizer/",
			"&start-after=tokenizer%2Fn":   "tokenizer/vocab.txt z/y/x.bin",
			"&delimiter=o&prefix=c":        "co",
			"&delimiter=%2F&start-after=n": "tokenizer/ z/",
		} {
			for _, page := range []string{"", "&max-keys=1", "&max-keys=2"} {
				var got []string
				for token := ""; ; {
					_, b := s.do("GET", "/model?list-type=2"+query+page+token, nil)
					var l listResult
					if err := xml.Unmarshal(b, &l); err != nil {
						t.Fatalf("%v: %s", err, b)
					}
					for _, o := range l.Contents {
						got = append(got, o.Key)
					}
					for _, p := range l.CommonPrefixes {
						got = append(got, p.Prefix)
					}
					if l.KeyCount != len(l.Contents)+len(l.CommonPrefixes) || len(got) > 10 {
						t.Fatalf("%s: %s", query, b)
					}
					if !l.IsTruncated {
						break
					}
					token = "&continuation-token=" + url.QueryEscape(l.NextContinuationToken)
				}
				slices.Sort(got)
				if strings.Join(got, " ") != want {
					t.Errorf("%s%s: got %q, want %q", query, page, got, want)
				}
			}
		}
	})
}

// TestGatewayAdmitsNobodyElse: without the credentials of this run, under
// another name, or in the clear.
func TestGatewayAdmitsNobodyElse(t *testing.T) {
	s := gatewayOf(t, "127.0.0.1:0")
	for what, change := range map[string]func(r *http.Request){
		"no signature":   func(r *http.Request) { r.Header.Del("Authorization") },
		"another secret": func(r *http.Request) { sign(r, credentials{s.credentials.id, "x"}, time.Now()) },
		"another id":     func(r *http.Request) { sign(r, credentials{"x", s.credentials.secret}, time.Now()) },
		"an old request": func(r *http.Request) { sign(r, s.credentials, time.Now().Add(-time.Hour)) },
		"another file":   func(r *http.Request) { r.URL.Path = "/model/model.safetensors" },
		"another host":   func(r *http.Request) { r.Host = "attacker.example"; sign(r, s.credentials, time.Now()) },
		"localhost":      func(r *http.Request) { r.Host = "localhost"; sign(r, s.credentials, time.Now()) },
		"another query":  func(r *http.Request) { r.URL.RawQuery = "x-id=GetObject" },
		"a signed link": func(r *http.Request) {
			q := url.Values{"X-Amz-Algorithm": {sigAlgorithm}, "X-Amz-Date": {r.Header.Get("X-Amz-Date")}, "X-Amz-SignedHeaders": {"host"}, "X-Amz-Credential": {s.credentials.id}, "X-Amz-Signature": {strings.Repeat("0", 64)}}
			r.URL.RawQuery = q.Encode()
			r.Header.Del("Authorization")
		},
	} {
		if resp, b := s.do("GET", "/model/config.json", change); resp.StatusCode != http.StatusForbidden || bytes.Contains(b, s.src["config.json"].Data[:20]) {
			t.Errorf("%s: status %d: %s", what, resp.StatusCode, b)
		}
	}
	if resp, err := http.Get("http" + strings.TrimPrefix(s.base, "https") + "/model/config.json"); err == nil {
		if resp.Body.Close(); resp.StatusCode == http.StatusOK {
			t.Error("the gateway speaks in the clear")
		}
	}
	for _, name := range []string{"", "env", "ca.pem"} {
		info, err := os.Stat(filepath.Join(s.settings, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q in the settings: %v, %v", name, info.Mode(), err)
		}
	}
	for _, listen := range []string{"127.0.0.1:8080", "0.0.0.0:0", ":0", "localhost:0", "192.0.2.1:0", "127.0.0.1"} {
		if _, err := newFront(listen, nil); err == nil {
			t.Errorf("--listen %s was accepted", listen)
		}
	}
}
