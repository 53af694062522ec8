package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority"
	stepconfig "github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/stretchr/testify/require"
	"go.step.sm/crypto/jose"
)

const stepPassword = "a password of a provisioner"

// stepServer is step-ca's own authority, behind the two addresses of its HTTP
// interface that are asked.
type stepServer struct {
	t         testing.TB
	theirs    *customer
	authority *authority.Authority
	http      *httptest.Server
	calls     int
	edit      func(chain []string) []string // of an answer; may be nil
}

func startStep(t testing.TB, template string, longest time.Duration) *stepServer {
	t.Helper()
	s := &stepServer{t: t, theirs: newCustomerAt(t, newECKey, time.Now())}
	s.issueBy(s.theirs.mid, template, longest)
	cert := s.theirs.certify("step-ca", newECKey, &s.theirs.mid, func(c *x509.Certificate) {
		c.IsCA, c.MaxPathLen, c.IPAddresses, c.KeyUsage = false, 0, []net.IP{net.IPv4(127, 0, 0, 1)}, x509.KeyUsageDigitalSignature
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /provisioners", s.provisioners)
	mux.HandleFunc("POST /1.0/sign", s.sign)
	s.http = httptest.NewUnstartedServer(mux)
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{cert.cert.Raw, s.theirs.mid.cert.Raw}, PrivateKey: cert.key,
	}}}
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are meant to fail
	s.http.StartTLS()
	t.Cleanup(s.http.Close)
	return s
}

// issueBy starts the authority, with another issuer or another template.
func (s *stepServer) issueBy(issuer pair, template string, longest time.Duration) {
	s.t.Helper()
	require.NoError(s.t, s.theirs.dir.writeCerts("root", s.theirs.root.cert))
	require.NoError(s.t, s.theirs.dir.writeCerts("mid", issuer.cert))
	require.NoError(s.t, s.theirs.dir.writeKey("mid", issuer.key))
	public, sealed, err := jose.GenerateDefaultKeyPair([]byte(stepPassword))
	require.NoError(s.t, err)
	text, err := sealed.CompactSerialize()
	require.NoError(s.t, err)
	jwk := &provisioner.JWK{
		Type: "JWK", Name: "nestboot", Key: public, EncryptedKey: text,
		Claims: &provisioner.Claims{MaxTLSDur: &provisioner.Duration{Duration: longest}},
	}
	if template != "" {
		jwk.Options = &provisioner.Options{X509: &provisioner.X509Options{Template: template}}
	}
	s.authority, err = authority.New(&stepconfig.Config{
		Root: []string{s.theirs.dir.path("root.pem")}, IntermediateCert: s.theirs.dir.path("mid.pem"), IntermediateKey: s.theirs.dir.path("mid.key"),
		Address: "127.0.0.1:0", DNSNames: []string{"127.0.0.1"},
		AuthorityConfig: &stepconfig.AuthConfig{Provisioners: provisioner.List{jwk}},
	}, authority.WithQuietInit())
	require.NoError(s.t, err)
}

func (s *stepServer) provisioners(w http.ResponseWriter, req *http.Request) {
	s.calls++
	list, next, err := s.authority.GetProvisioners(req.URL.Query().Get("cursor"), 20)
	if s.failed(w, err) {
		return
	}
	s.answer(w, http.StatusOK, map[string]any{"provisioners": list, "nextCursor": next})
}

func (s *stepServer) sign(w http.ResponseWriter, req *http.Request) {
	s.calls++
	var body struct {
		CSR       string    `json:"csr"`
		Token     string    `json:"ott"`
		NotBefore time.Time `json:"notBefore"`
		NotAfter  time.Time `json:"notAfter"`
	}
	if s.failed(w, json.NewDecoder(req.Body).Decode(&body)) {
		return
	}
	block, _ := pem.Decode([]byte(body.CSR))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if s.failed(w, err) {
		return
	}
	ctx := provisioner.NewContextWithMethod(req.Context(), provisioner.SignMethod)
	options, err := s.authority.Authorize(ctx, body.Token)
	if s.failed(w, err) {
		return
	}
	chain, err := s.authority.SignWithContext(ctx, csr, provisioner.SignOptions{
		NotBefore: provisioner.NewTimeDuration(body.NotBefore), NotAfter: provisioner.NewTimeDuration(body.NotAfter),
	}, options...)
	if s.failed(w, err) {
		return
	}
	var texts []string
	for _, c := range chain {
		texts = append(texts, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	if s.edit != nil {
		texts = s.edit(texts)
	}
	s.answer(w, http.StatusCreated, map[string]any{"crt": texts[0], "certChain": texts})
}

func (s *stepServer) failed(w http.ResponseWriter, err error) bool {
	if err == nil {
		return false
	}
	message := err.Error()
	var public interface{ Message() string }
	if errors.As(err, &public) {
		message = public.Message() + " " + err.Error()
	}
	s.answer(w, http.StatusUnauthorized, map[string]any{"status": http.StatusUnauthorized, "message": message})
	return true
}

func (s *stepServer) answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *stepServer) config() *StepCA {
	s.t.Helper()
	path := s.theirs.dir.path("password")
	require.NoError(s.t, os.WriteFile(path, []byte(stepPassword+"\n"), 0o600))
	return &StepCA{URL: s.http.URL, Root: s.theirs.dir.path("root.pem"), Provisioner: "nestboot", PasswordFile: path}
}

// stepTestConfig has the clock of the machine: step-ca knows no other.
func stepTestConfig(t testing.TB, s *stepServer) Config {
	t.Helper()
	cfg, _ := testConfig(t)
	cfg.Dir, cfg.Now, cfg.Step = filepath.Join(t.TempDir(), "pki"), time.Now, s.config()
	return cfg
}

func TestStepCA(t *testing.T) {
	step := startStep(t, StepTemplate, 8784*time.Hour)
	cfg := stepTestConfig(t, step)
	a := openAuthority(t, cfg)
	g := a.Generations()[0]
	require.Equal(t, SourceStepCA, g.Source)
	require.True(t, g.Root.Equal(step.theirs.root.cert))
	require.True(t, g.Intermediate.Equal(step.theirs.mid.cert))
	require.Equal(t, KeyP256, a.MachineKey())
	require.NoError(t, clientTrusts(a.Leafs(1)[0], "ipxe.example.net", time.Now(), g.Root))
	m, err := a.IssueMachine(t.Context(), "rack1", time.Time{})
	require.NoError(t, err)
	require.Equal(t, []*x509.Certificate{g.Intermediate, g.Root}, m.Chain)
	for _, c := range []*x509.Certificate{m.Certificate, a.Leafs(1)[0].Leaf} {
		require.True(t, c.NotBefore.Before(time.Now().Add(-23*time.Hour)), "T37: backdated")
	}
	require.NoError(t, verifies(a, m.Certificate))

	// It need not be there while nothing is to be issued.
	step.http.Config.Handler, step.calls = http.NotFoundHandler(), 0
	a = openAuthority(t, cfg)
	require.NoError(t, verifies(a, m.Certificate))
	_, err = a.IssueMachine(t.Context(), "rack1", time.Time{})
	require.ErrorContains(t, err, "status 404")
	require.Zero(t, step.calls)
	_, err = a.Rotate(t.Context())
	require.ErrorContains(t, err, "restart it")
}

// TestStepCAIssuesByAnother: what it issues by is learnt from what it issues.
func TestStepCAIssuesByAnother(t *testing.T) {
	step := startStep(t, StepTemplate, 8784*time.Hour)
	cfg := stepTestConfig(t, step)
	a := openAuthority(t, cfg)
	first := issue(t, a, "rack1")
	other := step.theirs.certify("Customer Other", newECKey, &step.theirs.root, nil)
	step.issueBy(other, StepTemplate, 8784*time.Hour)
	changed := a.Changed()
	second := issue(t, a, "rack1")
	<-changed
	for range 2 {
		require.NoError(t, verifies(a, first))
		require.NoError(t, verifies(a, second))
		require.True(t, a.Generations()[0].Intermediate.Equal(other.cert))
		require.Equal(t, []*x509.Certificate{step.theirs.mid.cert}, a.Generations()[0].Retired)
		_, err := a.renewIfDue(t.Context())
		require.NoError(t, err)
		require.NoError(t, a.Leafs(1)[0].Leaf.CheckSignatureFrom(other.cert), "server certificates follow")
		require.Equal(t, other.cert.Raw, a.Leafs(1)[0].Certificate[1])
		a = openAuthority(t, cfg)
	}
	step.issueBy(step.theirs.mid, StepTemplate, 8784*time.Hour) // and back
	third := issue(t, a, "rack1")
	for range 2 {
		require.NoError(t, verifies(a, second))
		require.NoError(t, verifies(a, third))
		require.Equal(t, []*x509.Certificate{other.cert}, a.Generations()[0].Retired)
		a = openAuthority(t, cfg)
	}
}

func TestStepCARefusals(t *testing.T) {
	const year = 8784 * time.Hour
	quiet := func(*stepServer, *Config) {}
	for name, tt := range map[string]struct {
		template string
		longest  time.Duration
		change   func(*stepServer, *Config)
		want     string
	}{
		"its own template": {"", year, quiet, "with 2 extended key usages, and not just the one that was asked for: give provisioner nestboot the template"},
		"other names":      {strings.Replace(StepTemplate, "{{ toJson .SANs }}", `[{"type":"dns","value":"other.example"}]`, 1), year, quiet, "for other.example, where"},
		"another name":     {strings.Replace(StepTemplate, "{{ toJson .Subject }}", `{"commonName":"other"}`, 1), year, quiet, "a certificate of other for"},
		"ocsp":             {strings.Replace(StepTemplate, "{\n", "{\n  \"ocspServer\": [\"http://ocsp.example\"],\n", 1), year, quiet, "OCSP address"},
		"an authority":     {strings.Replace(StepTemplate, "{\n", "{\n  \"basicConstraints\": {\"isCA\": true},\n", 1), year, quiet, "an authority's certificate"},
		"short lives":      {StepTemplate, 24 * time.Hour, quiet, "maxTLSCertDuration of 8784h"},
		"no provisioner":   {StepTemplate, year, func(_ *stepServer, c *Config) { c.Step.Provisioner = "other" }, `no JWK provisioner "other"`},
		"wrong password": {StepTemplate, year, func(_ *stepServer, c *Config) {
			_ = os.WriteFile(c.Step.PasswordFile, []byte("wrong"), 0o600)
		}, "holds another password"},
		"password for all": {StepTemplate, year, func(_ *stepServer, c *Config) { _ = os.Chmod(c.Step.PasswordFile, 0o644) }, "chmod o= "},
		"no password":      {StepTemplate, year, func(_ *stepServer, c *Config) { _ = os.Remove(c.Step.PasswordFile) }, "password of its provisioner"},
		"plain http":       {StepTemplate, year, func(_ *stepServer, c *Config) { c.Step.URL = "http://ca.example" }, "want https://"},
		"nobody there":     {StepTemplate, year, func(s *stepServer, _ *Config) { s.http.Close() }, "connection refused"},
		"another root": {StepTemplate, year, func(s *stepServer, c *Config) {
			other := newCustomerAt(s.t, newECKey, time.Now())
			_ = other.dir.writeCerts("root", other.root.cert)
			c.Step.Root = other.dir.path("root.pem")
		}, "unknown authority"},
		"no root": {StepTemplate, year, func(s *stepServer, c *Config) { c.Step.Root = s.theirs.dir.path("mid.pem") }, "is not a root certificate"},
		"no chain": {StepTemplate, year, func(s *stepServer, _ *Config) {
			s.edit = func(chain []string) []string { return chain[:1] }
		}, "no issuer between"},
		"somebody else's certificate": {StepTemplate, year, func(s *stepServer, _ *Config) {
			s.edit = func(chain []string) []string { return []string{chain[1], chain[1]} }
		}, "certified another key"},
		"no certificate": {StepTemplate, year, func(s *stepServer, _ *Config) {
			s.edit = func([]string) []string { return []string{"x"} }
		}, "holds no CERTIFICATE"},
		"no answer": {StepTemplate, year, func(s *stepServer, _ *Config) {
			s.http.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		}, "decode its answer"},
	} {
		t.Run(name, func(t *testing.T) {
			step := startStep(t, tt.template, tt.longest)
			cfg := stepTestConfig(t, step)
			tt.change(step, &cfg)
			_, err := Open(t.Context(), cfg)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), stepPassword)
			entries, err := cfg.Store.List(t.Context(), generationPrefix)
			require.NoError(t, err)
			require.Empty(t, entries, "nothing was begun")
		})
	}
}
