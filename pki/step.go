package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/x509util"
)

const stepTimeout = 15 * time.Second

// StepCA is a step-ca elsewhere that issues by a JWK provisioner. The
// provisioner needs StepTemplate, and a maxTLSCertDuration of 8784h at least: a
// year and the day by which certificates are backdated.
type StepCA struct {
	URL          string // https://ca.example.net[:port]
	Root         string // PEM file of its root certificate
	Provisioner  string // name of the provisioner
	PasswordFile string // of the provisioner's key; others than its owner and group must not be able to read it
}

// StepTemplate is the certificate template that a provisioner for nestboot needs
// (step ca provisioner update NAME --x509-template FILE): step-ca's own gives
// every certificate the usages of servers and of clients.
const StepTemplate = `{
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
{{- if hasPrefix "urn:nestboot:set:" (index .SANs 0).Value }}
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["clientAuth"]
{{- else }}
{{- if typeIs "*rsa.PublicKey" .Insecure.CR.PublicKey }}
  "keyUsage": ["digitalSignature", "keyEncipherment"],
{{- else }}
  "keyUsage": ["digitalSignature"],
{{- end }}
  "extKeyUsage": ["serverAuth"]
{{- end }}
}
`

// stepCA signs by step-ca's HTTP interface (smallstep.com/docs/step-ca): a token
// signed with the provisioner's key, which step-ca hands out encrypted with the
// password, lets it sign one request.
type stepCA struct {
	cfg      StepCA
	url      *url.URL
	root     *x509.Certificate
	password []byte
	client   *http.Client
	records  *records
}

func (a *Authority) openStep(cfg StepCA) (*external, error) {
	s, err := newStepCA(cfg, a.records)
	if err != nil {
		return nil, fmt.Errorf("step-ca: %w", err)
	}
	return &external{
		source: SourceStepCA, root: s.root,
		ask:    func(ctx context.Context) ([]*x509.Certificate, error) { return s.issuers(ctx, a.now()) },
		signer: func(g *generation) (signer, error) { return stepSigner{s, g.number}, nil },
	}, nil
}

func newStepCA(cfg StepCA, r *records) (*stepCA, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is not the address of a step-ca: want https://host[:port]", cfg.URL)
	}
	text, err := os.ReadFile(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("read its root: %w", err)
	}
	certs, err := parseCerts(cfg.Root, text)
	if err != nil {
		return nil, err
	}
	root := certs[0]
	if err := root.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("%s is not a root certificate: %w", cfg.Root, err)
	}
	if err := checkIssuer(root, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Root, err)
	}
	password, err := readSecret(cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password of its provisioner: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Proxy:             http.ProxyFromEnvironment,
		ForceAttemptHTTP2: true, DisableKeepAlives: true, // it is asked a few times a year
	}
	return &stepCA{
		cfg: cfg, url: u, root: root, password: bytes.TrimRight(password, "\r\n"), records: r,
		client: &http.Client{Transport: transport, Timeout: stepTimeout},
	}, nil
}

// readSecret reads a file that not everybody may read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("look at the file: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 {
		return nil, fmt.Errorf("%s is open to all users (mode %04o): run: chmod o= %s", path, perm, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	return data, nil
}

// stepSigner issues for one generation.
type stepSigner struct {
	*stepCA
	generation int
}

func (s stepSigner) sign(ctx context.Context, l leaf, key crypto.Signer) ([]*x509.Certificate, error) {
	chain, err := s.certify(ctx, l, key)
	if err != nil {
		return nil, fmt.Errorf("step-ca at %s: %w", s.url.Host, err)
	}
	if err := s.records.enter(ctx, chain[0], s.generation); err != nil {
		return nil, err
	}
	return chain, nil
}

// issuers has a certificate signed that nobody will use, to see who issues.
func (s *stepCA) issuers(ctx context.Context, now time.Time) ([]*x509.Certificate, error) {
	key, err := newECKey()
	if err != nil {
		return nil, err
	}
	chain, err := s.certify(ctx, leaf{
		profile: serverECProfile, name: "nestboot trial", from: now.Add(-backdate), until: now.Add(time.Hour),
		sans: []x509util.SubjectAlternativeName{{Type: x509util.DNSType, Value: "trial.invalid"}},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("step-ca at %s: %w", s.url.Host, err)
	}
	return chain[1:], nil
}

// certify returns a certificate and its issuers, the root apart.
func (s *stepCA) certify(ctx context.Context, l leaf, key crypto.Signer) ([]*x509.Certificate, error) {
	request, err := s.request(l, key)
	if err != nil {
		return nil, err
	}
	token, err := s.token(ctx, l)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Chain []string `json:"certChain"`
	}
	err = s.call(ctx, http.MethodPost, "/1.0/sign", map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request.Raw})),
		"ott": token, "notBefore": l.from.UTC(), "notAfter": l.until.UTC(),
	}, &answer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	chain, err := parseCerts("its answer", []byte(strings.Join(answer.Chain, "\n")))
	if err != nil {
		return nil, err
	}
	if last := len(chain) - 1; chain[last].Equal(s.root) {
		chain = chain[:last]
	}
	if len(chain) < 2 {
		return nil, errors.New("it sends no issuer between the certificate and its root, which nestboot needs: give it an intermediate")
	}
	if err := s.check(chain[0], l, key); err != nil {
		return nil, fmt.Errorf("%w: give provisioner %s the template and the maxTLSCertDuration of the manual (step ca provisioner update %s --x509-template …)",
			err, s.cfg.Provisioner, s.cfg.Provisioner)
	}
	return chain, checkIssuerChain(append(slices.Clone(chain[1:]), s.root))
}

// request carries the names, unlike one to the embedded authority: they must be
// those of the token.
func (s *stepCA) request(l leaf, key crypto.Signer) (*x509.CertificateRequest, error) {
	tpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: l.name}}
	for _, san := range l.sans {
		switch san.Type {
		case x509util.DNSType:
			tpl.DNSNames = append(tpl.DNSNames, san.Value)
		case x509util.IPType:
			tpl.IPAddresses = append(tpl.IPAddresses, net.ParseIP(san.Value))
		case x509util.URIType:
			u, err := url.Parse(san.Value)
			if err != nil {
				return nil, fmt.Errorf("make certificate request: %w", err)
			}
			tpl.URIs = append(tpl.URIs, u)
		}
	}
	return newRequest(tpl, key)
}
