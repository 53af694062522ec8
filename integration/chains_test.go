package integration

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild/bios"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/tftp"
)

const (
	chainDomain  = "lab.test"
	chainScript  = "chains.ipxe"
	ownRoot      = "9faf717b7f8ca2f93c256c79f8ac5591895d66d1ff3bee6397a70d29c65eed1a" // in every stock iPXE
	olderChainer = "52:54:00:00:02:01"
	newerChainer = "52:54:00:00:02:02"
)

// chainCase is a server certificate, and who accepts it.
type chainCase struct {
	name         string
	older, newer bool // iPXE 1.21.1 and 2.0.0
	check        bool // serving.Check, of which more is asked than iPXE does
	key          crypto.Signer
	leaf, middle func(*x509.Certificate) // edits; may be nil
	middleKey    crypto.Signer
	noRoot       bool
}

// TestT37_ChainsMeetIPXE shows one chain after the other to real iPXEs of both
// versions: what package serving refuses and accepts rests on what they do.
func TestT37_ChainsMeetIPXE(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	if errLab != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(errLab)
		}
		t.Skip(errLab)
	}
	materials, err := lab.FindMaterials()
	require.NoError(t, err)
	l, err := lab.New(t.Context(), lab.Options{
		Dir: t.TempDir(), Materials: materials, Domain: chainDomain,
		ByMAC: map[string]lab.DHCP{
			olderChainer: {BIOS: "older.kpxe", IPXE: chainScript, PlainROM: true},
			newerChainer: {BIOS: "newer.kpxe", IPXE: chainScript, PlainROM: true},
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })

	ca := newChains(t)
	cases := ca.cases()
	certs := map[string]*tls.Certificate{}
	script := "#!ipxe\n"
	for _, c := range cases {
		domain := c.name + "." + chainDomain
		cert := ca.issue(c, "boot."+domain)
		certs["boot."+domain] = cert
		err := ca.checked(cert, domain)
		require.Equal(t, c.check, err == nil, "%s: %v", c.name, err)
		script += fmt.Sprintf("imgfetch --timeout 20000 --name %[1]s https://boot.%[1]s.%[2]s/ && echo CHAIN %[1]s true || echo CHAIN %[1]s false\n", c.name, chainDomain)
	}
	serveChains(t, certs)
	serveTFTP(t, map[string][]byte{
		chainScript:  []byte(script + "echo CHAIN finished\nsleep 60\n"),
		"older.kpxe": trusting(t, materials.IPXEDir(), ca.root), "newer.kpxe": trusting(t, materials.IPXE2Dir(), ca.root),
	})
	for mac, accepts := range map[string]func(chainCase) bool{
		olderChainer: func(c chainCase) bool { return c.older }, newerChainer: func(c chainCase) bool { return c.newer },
	} {
		machine := lab.Machine{Name: "chains" + mac[len(mac)-1:], MAC: mac, UUID: uuidOf(200), Firmware: lab.BIOS}
		twice(t, machine, func(ctx context.Context, m lab.Machine) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
			defer cancel()
			p, err := l.Boot(ctx, m)
			if err != nil {
				return err
			}
			defer p.Kill()
			if _, err := p.WaitFor(ctx, regexp.MustCompile(`CHAIN finished`)); err != nil {
				return err
			}
			text, err := os.ReadFile(p.Log)
			for _, c := range cases {
				require.Regexp(t, fmt.Sprintf(`CHAIN %s %v\b`, c.name, accepts(c)), string(text), m.Name)
			}
			return err
		})
	}
}

// chains is an authority with an RSA root.
type chains struct {
	t              *testing.T
	now            time.Time
	rootKey        crypto.Signer
	root           *x509.Certificate
	key, middleKey crypto.Signer // what most chains have
}

func newChains(t *testing.T) *chains {
	t.Helper()
	c := &chains{t: t, now: time.Now(), rootKey: rsaKey(t, 2048), key: rsaKey(t, 2048), middleKey: rsaKey(t, 2048)}
	c.root = c.sign(c.authority("root"), nil, c.rootKey, c.rootKey)
	return c
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

func (c *chains) cases() []chainCase {
	const both, none = true, false
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(c.t, err)
	p256, p384, p521 := ecKey(c.t, elliptic.P256()), ecKey(c.t, elliptic.P384()), ecKey(c.t, elliptic.P521())
	edit := func(name string, ipxe, check bool, f func(*x509.Certificate)) chainCase {
		return chainCase{name: name, older: ipxe, newer: ipxe, check: check, leaf: f}
	}
	above := func(name string, ipxe, check bool, f func(*x509.Certificate)) chainCase {
		return chainCase{name: name, older: ipxe, newer: ipxe, check: check, middle: f}
	}
	in := func(d time.Duration) time.Time { return c.now.Add(d) }
	signedWith := func(a x509.SignatureAlgorithm) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.SignatureAlgorithm = a }
	}
	return []chainCase{
		{name: "noroot", noRoot: true}, // the first: iPXE keeps certificates that it was sent
		edit("plain", both, true, nil),
		edit("wildcard", both, true, func(c *x509.Certificate) { c.DNSNames = []string{"*.wildcard." + chainDomain} }),
		edit("capitals", both, true, func(c *x509.Certificate) { c.DNSNames = []string{"BOOT.CAPITALS." + chainDomain} }),
		edit("sha1", both, true, signedWith(x509.SHA1WithRSA)),
		edit("sha512", both, true, signedWith(x509.SHA512WithRSA)),
		edit("pss", none, false, signedWith(x509.SHA256WithRSAPSS)),
		edit("nousage", both, true, func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
		edit("forclients", both, false, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		edit("crl", both, true, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://crl.invalid/"} }),
		edit("ocsp", none, false, func(c *x509.Certificate) { c.OCSPServer = []string{"http://" + lab.ServerIP + ":81/"} }),
		above("ocspabove", none, false, func(c *x509.Certificate) { c.OCSPServer = []string{"http://" + lab.ServerIP + ":81/"} }),
		edit("critical", none, false, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}),
		above("constraints", none, false, func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{chainDomain}, true
		}),
		above("uncritical", both, true, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{chainDomain} }),
		above("noauthority", none, false, func(c *x509.Certificate) { c.IsCA = false }),
		above("nosigning", none, false, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }),
		edit("forgiven", both, false, func(c *x509.Certificate) { c.NotBefore = in(11 * time.Hour) }),
		edit("tooyoung", none, false, func(c *x509.Certificate) { c.NotBefore = in(13 * time.Hour) }),
		edit("justended", both, false, func(c *x509.Certificate) { c.NotAfter = in(-11 * time.Hour) }),
		edit("expired", none, false, func(c *x509.Certificate) { c.NotAfter = in(-13 * time.Hour) }),
		above("expiredabove", none, false, func(c *x509.Certificate) { c.NotAfter = in(-13 * time.Hour) }),
		edit("endless", both, true, func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }),
		{name: "rsa4096", older: true, newer: true, check: true, key: rsaKey(c.t, 4096)},
		{name: "p256", newer: true, check: true, key: p256},
		{name: "p384", newer: true, check: true, key: p384},
		{name: "p521", key: p521},
		{name: "ed25519", key: ed},
		{name: "p256above", newer: true, check: true, middleKey: p256},
		{name: "p384above", newer: true, check: true, key: p256, middleKey: p384},
		{name: "p521above", middleKey: p521},
	}
}

func (c *chains) authority(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

func (c *chains) sign(template, parent *x509.Certificate, key, by crypto.Signer) *x509.Certificate {
	c.t.Helper()
	var err error
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(c.t, err)
	if template.NotBefore.IsZero() {
		template.NotBefore = c.now.Add(-48 * time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = c.now.Add(1000 * time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return cert
}

// issue makes the chain of a case.
func (c *chains) issue(k chainCase, host string) *tls.Certificate {
	c.t.Helper()
	if k.key == nil {
		k.key = c.key
	}
	if k.middleKey == nil {
		k.middleKey = c.middleKey
	}
	middle := c.authority("issuer of " + k.name)
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: k.name}, DNSNames: []string{host},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for f, cert := range map[*func(*x509.Certificate)]*x509.Certificate{&k.middle: middle, &k.leaf: leaf} {
		if *f != nil {
			(*f)(cert)
		}
	}
	middle = c.sign(middle, c.root, k.middleKey, c.rootKey)
	leaf = c.sign(leaf, middle, k.key, k.middleKey)
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw, middle.Raw, c.root.Raw}, PrivateKey: k.key}
	if k.noRoot {
		cert.Certificate = cert.Certificate[:2]
	}
	return cert
}

// checked is what package serving says of a chain for a domain.
func (c *chains) checked(cert *tls.Certificate, domain string) error {
	c.t.Helper()
	dir := c.t.TempDir()
	f := serving.File{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	var text []byte
	for _, der := range cert.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	require.NoError(c.t, os.WriteFile(f.Certificate, text, 0o600))
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return serving.Check([]serving.File{f}, domain, c.now)
}

// serveChains answers all host names, each with its certificate.
func serveChains(t *testing.T, certs map[string]*tls.Certificate) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", lab.ServerIP+":443")
	require.NoError(t, err)
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "accepted") }),
		ErrorLog:          log.New(io.Discard, "", 0), // it is refused by half of the cases
		ReadHeaderTimeout: 20 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := certs[hello.ServerName]; cert != nil {
				return cert, nil
			}
			return nil, fmt.Errorf("no certificate for %q", hello.ServerName)
		}},
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.ServeTLS(listener, "", "") })
	t.Cleanup(func() {
		_ = server.Close()
		running.Wait()
	})
}

func serveTFTP(t *testing.T, files map[string][]byte) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(lab.ServerIP+":69")))
	require.NoError(t, err)
	server := &tftp.Server{Open: func(_ context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
		data, ok := files[strings.TrimPrefix(name, "/")]
		if !ok {
			return nil, os.ErrNotExist
		}
		return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), nil
	}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(ctx, conn) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// trusting is a stock undionly.kpxe that trusts root and nobody else.
func trusting(t *testing.T, dir string, root *x509.Certificate) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "undionly.kpxe"))
	require.NoError(t, err)
	image, err := bios.Read(data)
	require.NoError(t, err)
	old, err := hex.DecodeString(ownRoot)
	require.NoError(t, err)
	sum := sha256.Sum256(root.Raw)
	payload := image.Payload()
	require.Equal(t, 1, bytes.Count(payload, old))
	out, err := image.Repack(bytes.Replace(payload, old, sum[:], 1))
	require.NoError(t, err)
	return out
}
