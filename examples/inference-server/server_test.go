// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// shop is a publisher, a registry, and a server that follows the tag stable.
type shop struct {
	t        *testing.T
	ref      string
	signer   provenance.Signer
	identity *encrypt.HPKEIdentity
	tamper   atomic.Bool
	log      bytes.Buffer
	follower *follower
	front    *httptest.Server
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, identity: must(encrypt.GenerateIdentity(encrypt.DefaultType))}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	s.signer = must(provenance.KeySigner(key))
	registry := ociserver.New()
	registry.Fault = func(r *http.Request) *ociserver.Fault {
		if s.tamper.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			return &ociserver.Fault{Flip: []int64{50_000}} // only the weights are that long
		}
		return nil
	}
	behind := httptest.NewServer(registry)
	t.Cleanup(behind.Close)
	s.ref = strings.TrimPrefix(behind.URL, "http://") + "/team/llama:stable"
	client := &modelsec.Client{Identities: []encrypt.Identity{s.identity}}
	s.follower = &follower{server: newServer(client, s.ref, provenance.RequireKey(key.Public()), slog.New(slog.NewJSONHandler(&s.log, nil)))}
	s.front = httptest.NewServer(s.follower.handler())
	t.Cleanup(s.front.Close)
	return s
}

// publish makes version n: every element of its tensor is n.
func (s *shop) publish(n int, signer provenance.Signer) {
	s.t.Helper()
	values := make([]float32, 30_000)
	for i := range values {
		values[i] = float32(n)
	}
	_, err := new(modelsec.Client).Push(s.t.Context(), s.ref, fstest.MapFS{
		"model.safetensors": {Data: safetensors("layers.0.weight", values)},
		"config.json":       {Data: fmt.Appendf(nil, `{"version":%d}`, n)},
	}, &modelsec.PushOptions{Signer: signer, Sequence: uint64(n), Recipients: []encrypt.Recipient{s.identity.Recipient()}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// safetensors is a file with one tensor of type F32.
func safetensors(name string, values []float32) []byte {
	header := fmt.Sprintf(`{"%s":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}`, name, len(values), 4*len(values))
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func (s *shop) update() error { return s.follower.update(s.t.Context(), time.Hour) }

func (s *shop) get(path string) (int, string) {
	s.t.Helper()
	resp, err := http.Get(s.front.URL + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, string(must(io.ReadAll(resp.Body)))
}

// mean is what the statistics say of the one tensor.
func mean(body string) (float64, error) {
	var reply struct{ Statistics statistics }
	err := json.Unmarshal([]byte(body), &reply)
	if err == nil && (reply.Statistics.Minimum != reply.Statistics.Maximum || reply.Statistics.Elements != 30_000) {
		err = fmt.Errorf("a mixture of versions: %+v", reply.Statistics)
	}
	return reply.Statistics.Mean, err
}

func TestServerIsUnhealthyUntilAModelIsLoaded(t *testing.T) {
	s := newShop(t)
	if status, _ := s.get("/healthz"); status != http.StatusServiceUnavailable {
		t.Errorf("status %d before the first load", status)
	}
	s.publish(1, s.signer)
	if err := s.update(); err != nil {
		t.Fatal(err)
	}
	status, body := s.get("/healthz")
	if digest := s.follower.current.Load().digest.String(); status != http.StatusOK || !strings.Contains(body, digest) {
		t.Errorf("status %d, %s, want %s", status, body, digest)
	}
	if status, body := s.get("/tensors"); status != http.StatusOK || !strings.Contains(body, `"layers.0.weight","dtype":"F32","shape":[30000]`) {
		t.Errorf("status %d: %s", status, body)
	}
	if status, _ := s.get("/tensors/layers.1.weight"); status != http.StatusNotFound {
		t.Errorf("status %d for a tensor that is not there", status)
	}
}

func TestFirstVersionThatIsRefusedEndsTheServer(t *testing.T) {
	s := newShop(t)
	s.publish(1, must(provenance.KeySigner(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))))
	if err := s.follower.follow(t.Context(), time.Hour); err == nil {
		t.Error("a model that somebody else signed is served")
	}
	if status, _ := s.get("/healthz"); status != http.StatusServiceUnavailable {
		t.Errorf("status %d", status)
	}
}

// Ten versions are taken up while requests run, and not one request fails or
// sees two of them. The eleventh was changed at the registry.
func TestVersionsChangeUnderLoadAndABadOneChangesNothing(t *testing.T) {
	s := newShop(t)
	s.publish(1, s.signer)
	if err := s.update(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var requests, failures atomic.Int64
	for range 4 {
		clients.Go(func() {
			for last := 0.0; ctx.Err() == nil; {
				resp, err := http.Get(s.front.URL + "/tensors/layers.0.weight")
				if err != nil {
					t.Errorf("request failed: %v", err)
					failures.Add(1)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				version, parse := mean(string(body))
				if err != nil || resp.StatusCode != http.StatusOK || parse != nil || version < last {
					t.Errorf("status %d, version %v after %v, %v, %v", resp.StatusCode, version, last, err, parse)
					failures.Add(1)
					return
				}
				last = version
				requests.Add(1)
			}
		})
	}
	for n := 2; n <= 11; n++ {
		s.publish(n, s.signer)
		before := requests.Load()
		if err := s.update(); err != nil {
			t.Fatalf("version %d: %v", n, err)
		}
		for requests.Load() == before && failures.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	tenth := s.follower.current.Load().digest
	s.publish(12, s.signer)
	s.tamper.Store(true)
	if err := s.update(); err == nil {
		t.Error("a tampered version was taken up")
	}
	for before := requests.Load(); requests.Load() < before+20 && failures.Load() == 0; {
		time.Sleep(time.Millisecond)
	}
	stop()
	clients.Wait()

	_, body := s.get("/tensors/layers.0.weight")
	if version, err := mean(body); version != 11 || err != nil {
		t.Errorf("version %v is served, %v, want 11", version, err)
	}
	if _, body := s.get("/healthz"); !strings.Contains(body, tenth.String()) {
		t.Errorf("health says %s, want %s", body, tenth)
	}
	if !strings.Contains(s.log.String(), `"msg":"new version refused"`) {
		t.Errorf("the refusal is not in the log:\n%s", &s.log)
	}
	_, text := s.get("/metrics")
	for _, line := range []string{
		`modelsec_loads_total{result="loaded"} 11`, `modelsec_loads_total{result="refused"} 1`, `modelsec_loads_total{result="failed"} 0`,
		fmt.Sprintf(`modelsec_model_info{digest="%s",ref="%s"} 1`, tenth, s.ref), "modelsec_model_bytes 120000",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}

	// It is left alone for a while, and taken up once the registry is mended.
	tries := s.log.Len()
	if err := s.update(); err != nil || s.log.Len() != tries {
		t.Errorf("a refused version is tried again at once: %v", err)
	}
	s.tamper.Store(false)
	s.follower.retryAt = time.Time{}
	if err := s.update(); err != nil {
		t.Fatal(err)
	}
	_, body = s.get("/tensors/layers.0.weight")
	if version, err := mean(body); version != 12 || err != nil {
		t.Errorf("version %v is served, %v, want 12", version, err)
	}
}

func TestStatisticsReadEveryType(t *testing.T) {
	for dtype, test := range map[string]struct {
		data []byte
		want statistics
	}{
		"F64":  {binary.LittleEndian.AppendUint64(nil, math.Float64bits(-2.5)), statistics{Elements: 1, Minimum: -2.5, Maximum: -2.5, Mean: -2.5}},
		"F32":  {[]byte{0, 0, 0x80, 0x3f, 0, 0, 0x40, 0x40, 0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0xff}, statistics{Elements: 4, NaN: 1, Infinite: 1, Minimum: 1, Maximum: 3, Mean: 2, Deviation: 1}},
		"F16":  {[]byte{0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0x00, 0x7c, 0x01, 0x7e}, statistics{Elements: 5, NaN: 1, Infinite: 1, Minimum: -2, Maximum: 1, Mean: (math.Ldexp(1, -24) - 1) / 3, Deviation: math.Sqrt((5+math.Ldexp(1, -48))/3 - math.Pow((math.Ldexp(1, -24)-1)/3, 2))}},
		"BF16": {[]byte{0x80, 0x3f, 0x40, 0xc0}, statistics{Elements: 2, Minimum: -3, Maximum: 1, Mean: -1, Deviation: 2}},
		"I64":  {binary.LittleEndian.AppendUint64(nil, math.MaxUint64), statistics{Elements: 1, Minimum: -1, Maximum: -1, Mean: -1}},
		"I32":  {[]byte{0xfe, 0xff, 0xff, 0xff}, statistics{Elements: 1, Minimum: -2, Maximum: -2, Mean: -2}},
		"I16":  {[]byte{0xfd, 0xff}, statistics{Elements: 1, Minimum: -3, Maximum: -3, Mean: -3}},
		"I8":   {[]byte{0xfc, 4}, statistics{Elements: 2, Minimum: -4, Maximum: 4, Deviation: 4}},
		"U8":   {[]byte{0, 10}, statistics{Elements: 2, Maximum: 10, Mean: 5, Deviation: 5}},
		"BOOL": {nil, statistics{}},
	} {
		got, err := summarise(dtype, test.data)
		near := math.Abs(got.Mean-test.want.Mean) < 1e-12 && math.Abs(got.Deviation-test.want.Deviation) < 1e-12
		got.Mean, got.Deviation, test.want.Mean, test.want.Deviation = 0, 0, 0, 0
		if err != nil || !near || got != test.want {
			t.Errorf("%s: %+v, %v, want %+v", dtype, got, err, test.want)
		}
	}
	if _, err := summarise("Q4_K", nil); err == nil {
		t.Error("statistics over a quantised type")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
