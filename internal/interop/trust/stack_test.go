// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// logOrigin is the name under which the log signs its checkpoints. Verifiers
// take it from the host of the log's URL in the trusted root.
const logOrigin = "rekor.local"

// stack is a Sigstore instance on loopback.
type stack struct {
	issuer            *issuer
	certificateLog    *certificateLog
	fulcio, log, tsa  string // URLs
	root, config      []byte // trusted root, signing configuration
	rootPath, cfgPath string
	processes         []*process
}

var (
	scratch string // a directory of the whole run
	running struct {
		sync.Once
		stack *stack
		err   error
	}
)

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "trust"); err != nil {
		panic(err)
	}
	code := m.Run()
	if running.stack != nil {
		running.stack.stop()
	}
	os.RemoveAll(scratch)
	os.Exit(code)
}

// sigstoreStack starts the services once for all tests.
func sigstoreStack(t *testing.T) *stack {
	t.Helper()
	paths := [3]string{program(t, "fulcio"), program(t, "rekor-posix"), program(t, "timestamp-server")}
	running.Do(func() {
		running.stack = &stack{}
		running.err = running.stack.start(paths)
	})
	if running.err != nil {
		t.Fatal(running.err)
	}
	return running.stack
}

// start needs ports that are free now and may not be when the service asks for
// them, so a service that does not come up gets others.
func (s *stack) start(programs [3]string) (err error) {
	if s.issuer, err = newIssuer(); err != nil {
		return err
	}
	if s.certificateLog, err = newCertificateLog(); err != nil {
		return err
	}
	logKey, err := s.startLog(programs[1])
	if err != nil {
		return err
	}
	if err := s.startFulcio(programs[0]); err != nil {
		return err
	}
	if err := s.startTSA(programs[2]); err != nil {
		return err
	}
	return s.describe(logKey)
}

func (s *stack) startFulcio(path string) error {
	config := filepath.Join(scratch, "fulcio.yaml")
	text := fmt.Sprintf("oidc-issuers:\n  %[1]s:\n    issuer-url: %[1]s\n    client-id: sigstore\n    type: email\n"+
		"  %[2]s:\n    issuer-url: %[2]s\n    client-id: sigstore\n    type: github-workflow\n", s.issuer.people(), s.issuer.workflows())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	return s.launch(&s.fulcio, "/api/v2/trustBundle", func(p ports) *exec.Cmd {
		return exec.Command(path, "serve", "--host", "127.0.0.1", "--port", p.next(), "--grpc-host", "127.0.0.1", "--grpc-port", p.next(),
			"--metrics-port", p.next(), "--ca", "ephemeralca", "--ct-log-url", s.certificateLog.server.URL, "--config-path", config,
			"--legacy-unix-domain-socket", filepath.Join(scratch, "fulcio"+p.name()+".sock"))
	})
}

func (s *stack) startLog(path string) (ed25519.PublicKey, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(scratch, "log.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	return pub, s.launch(&s.log, "/healthz", func(p ports) *exec.Cmd {
		return exec.Command(path, "serve", "--hostname", logOrigin, "--storage-dir", filepath.Join(scratch, "log"+p.name()), "--signer-filepath", file,
			"--http-port", p.next(), "--grpc-port", p.next(), "--http-metrics-port", p.next(), "--checkpoint-interval", "1s")
	})
}

func (s *stack) startTSA(path string) error {
	return s.launch(&s.tsa, "/api/v1/timestamp/certchain", func(p ports) *exec.Cmd {
		return exec.Command(path, "serve", "--host", "127.0.0.1", "--port", p.next(), "--timestamp-signer", "memory", "--disable-ntp-monitoring")
	})
}

// describe writes the trusted root and the signing configuration.
func (s *stack) describe(logKey ed25519.PublicKey) error {
	start := time.Now().Add(-time.Hour)
	var bundle struct {
		Chains []struct{ Certificates []string }
	}
	text, err := get(s.fulcio + "/api/v2/trustBundle")
	if err == nil {
		err = json.Unmarshal(text, &bundle)
	}
	if err != nil || len(bundle.Chains) != 1 {
		return fmt.Errorf("trust bundle of Fulcio: %w: %s", err, text)
	}
	var chain []byte
	for _, c := range bundle.Chains[0].Certificates {
		chain = append(chain, c...)
	}
	certificates, err := parseChain(chain, 1)
	if err != nil {
		return err
	}
	authority := &root.FulcioCertificateAuthority{Root: certificates[len(certificates)-1], Intermediates: certificates[:len(certificates)-1],
		ValidityPeriodStart: start, URI: s.fulcio}
	if text, err = get(s.tsa + "/api/v1/timestamp/certchain"); err != nil {
		return err
	}
	if certificates, err = parseChain(text, 2); err != nil {
		return err
	}
	stamper := &root.SigstoreTimestampingAuthority{Leaf: certificates[0], Root: certificates[len(certificates)-1],
		Intermediates: certificates[1 : len(certificates)-1], ValidityPeriodStart: start, URI: s.tsa}
	_, id, err := note.KeyHash(logOrigin, logKey)
	if err != nil {
		return err
	}
	promises := map[string]*root.TransparencyLog{hex.EncodeToString(s.certificateLog.id[:]): {BaseURL: s.certificateLog.server.URL, ID: s.certificateLog.id[:],
		ValidityPeriodStart: start, HashFunc: crypto.SHA256, PublicKey: s.certificateLog.key.Public(), SignatureHashFunc: crypto.SHA256}}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{authority}, promises, []root.TimestampingAuthority{stamper},
		map[string]*root.TransparencyLog{hex.EncodeToString(id): {BaseURL: "https://" + logOrigin, ID: id, ValidityPeriodStart: start,
			HashFunc: crypto.SHA256, PublicKey: logKey, SignatureHashFunc: crypto.SHA256}})
	if err != nil {
		return err
	}
	if s.root, err = trusted.MarshalJSON(); err != nil {
		return err
	}
	service := func(url string, version int) []map[string]any {
		return []map[string]any{{"url": url, "majorApiVersion": version, "operator": "local",
			"validFor": map[string]string{"start": start.UTC().Format(time.RFC3339)}}}
	}
	if s.config, err = json.Marshal(map[string]any{
		"mediaType": root.SigningConfigMediaType02,
		"caUrls":    service(s.fulcio, 1), "rekorTlogUrls": service(s.log, 2), "tsaUrls": service(s.tsa+"/api/v1/timestamp", 1),
		"rekorTlogConfig": map[string]string{"selector": "ANY"}, "tsaConfig": map[string]string{"selector": "ANY"},
	}); err != nil {
		return err
	}
	s.rootPath, s.cfgPath = filepath.Join(scratch, "trusted_root.json"), filepath.Join(scratch, "signing_config.json")
	return errors.Join(os.WriteFile(s.rootPath, s.root, 0o600), os.WriteFile(s.cfgPath, s.config, 0o600))
}

func parseChain(text []byte, least int) (out []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) < least {
		return nil, fmt.Errorf("chain of %d certificates, want at least %d", len(out), least)
	}
	return out, nil
}

// ports hands out ports that are free at the moment.
type ports struct{ taken *[]string }

func (p ports) next() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	*p.taken = append(*p.taken, port)
	return port
}

// name is different in each attempt.
func (p ports) name() string { return fmt.Sprintf("%p", p.taken) }

// process is a service, and what it said.
type process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan struct{}
}

// launch starts a service, whose first port is the one for HTTP, and waits until
// it answers.
func (s *stack) launch(url *string, ready string, command func(ports) *exec.Cmd) error {
	var failed error
	for range 3 {
		p := ports{new([]string)}
		service := &process{cmd: command(p), done: make(chan struct{})}
		service.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + scratch}
		service.cmd.Stdout, service.cmd.Stderr = &service.said, &service.said
		if err := service.cmd.Start(); err != nil {
			return err
		}
		go func() {
			service.cmd.Wait()
			close(service.done)
		}()
		*url = "http://127.0.0.1:" + (*p.taken)[0]
		if failed = service.wait(*url + ready); failed == nil {
			s.processes = append(s.processes, service)
			return nil
		}
		service.cmd.Process.Kill()
		<-service.done
		failed = fmt.Errorf("%v: %w\n%s", service.cmd.Args, failed, &service.said)
	}
	return failed
}

func (p *process) wait(url string) error {
	limit := time.After(2 * time.Minute)
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		_, err := get(url)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errors.New("ended at once")
		case <-limit:
			return fmt.Errorf("does not answer: %w", err)
		case <-every.C:
		}
	}
}

func (s *stack) stop() {
	for _, p := range s.processes {
		p.cmd.Process.Kill()
		<-p.done
	}
	if s.issuer != nil {
		s.issuer.server.Close()
	}
	if s.certificateLog != nil {
		s.certificateLog.server.Close()
	}
}

func get(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %s", url, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, 1<<20))
}
