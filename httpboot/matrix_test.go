package httpboot_test

import (
	"bufio"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/httpboot"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/trusted"
)

const question = "/ipxe/boot?uuid=4c4c4544-0042-3510-8052-b4c04f564433&mac=52-54-00-00-00-01&serial=&arch=x86_64&platform=efi&ip=10.0.0.1"

// shown is one credential, and how it is used and lost.
type shown struct {
	cert   *tls.Certificate // nil: none
	host   string
	small  string // path that is answered at once
	large  string // path of a download that lasts
	revoke func() error
}

// The states that change while a connection is open, and those that a
// credential has from its beginning.
const (
	stateValid   = "valid"
	stateEarly   = "not yet valid"
	stateExpired = "expired"
	stateRevoked = "revoked or deleted"
	stateForeign = "wrong CA"
	stateUsage   = "wrong EKU"
	stateUnnamed = "right CA, not pinned"
)

var states = []string{stateValid, stateEarly, stateExpired, stateRevoked, stateForeign, stateUsage, stateUnnamed}

// TestT11_T12_T13_Matrix is who gets what, for each kind of credential in each
// state, on each kind of connection. A token has no authority and no beginning,
// so for it "wrong EKU" is a token of the other kind, and "not pinned" one that
// nobody made; a set's certificate that is "not pinned" was signed by our own
// authority but not recorded; that of a CA is not on its list of names.
func TestT11_T12_T13_Matrix(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	s := openSite(t)
	var got strings.Builder
	for _, kind := range []pki.Kind{pki.KindSet, pki.KindCA, pki.KindPin, pki.KindURL, pki.KindUEFI, ""} {
		for _, state := range states {
			for _, attempt := range attempts {
				c, ok := s.credential(kind, state)
				outcome := "-"
				if ok {
					outcome = attempt.run(s, c, state)
				}
				fmt.Fprintf(&got, "%-9s %-21s %-12s %s\n", orNone(kind), state, attempt.name, outcome)
			}
		}
	}
	const golden = "testdata/matrix.golden"
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

func orNone(kind pki.Kind) string {
	if kind == "" {
		return "none"
	}
	return string(kind)
}

// attempts are the kinds of connections.
var attempts = []struct {
	name string
	run  func(*site, shown, string) string
}{
	{"new", func(s *site, c shown, state string) string {
		s.enter(state, c)
		return s.ask(c, s.dial(c, nil))
	}},
	{"resumed", func(s *site, c shown, state string) string {
		cache := tls.NewLRUClientSessionCache(8)
		s.ask(c, s.dial(c, cache)) // while it is good
		s.enter(state, c)
		conn := s.dial(c, cache)
		require.False(s.t, conn.ConnectionState().DidResume)
		return s.ask(c, conn)
	}},
	{"keep-alive", func(s *site, c shown, state string) string {
		conn := s.dial(c, nil)
		res := s.send(c, conn, c.small)
		_, err := io.Copy(io.Discard, res.Body)
		require.NoError(s.t, err)
		if res.Close { // certificates that have proved nothing are not kept
			return fmt.Sprintf("%d and closed; %s", res.StatusCode, s.told(conn, 1))
		}
		at := s.enter(state, c)
		if state == stateExpired || state == stateRevoked {
			return s.dies(conn, conn, at, 1)
		}
		return s.ask(c, conn)
	}},
	{"mid-download", func(s *site, c shown, state string) string {
		conn := s.dial(c, nil)
		s.forget()
		res := s.send(c, conn, c.large)
		if res.StatusCode != http.StatusOK {
			return s.outcome(conn, res)
		}
		at := s.enter(state, c)
		if state == stateExpired || state == stateRevoked {
			return s.dies(res.Body, conn, at, 2)
		}
		return s.outcome(conn, res)
	}},
}

// enter brings the credential into a state that it was not in, and returns when.
func (s *site) enter(state string, c shown) time.Time {
	s.t.Helper()
	s.forget()
	at := time.Now()
	switch state {
	case stateEarly:
		s.skew.Store(int64(-leafLife - time.Hour))
	case stateExpired:
		s.skew.Store(int64(leafLife + time.Hour))
	case stateRevoked:
		require.NoError(s.t, c.revoke())
	}
	return at
}

// dial connects from an address of its own.
func (s *site) dial(c shown, cache tls.ClientSessionCache) *tls.Conn {
	s.t.Helper()
	cfg := &tls.Config{ServerName: c.host, InsecureSkipVerify: true, ClientSessionCache: cache} // whom clients trust is tested elsewhere
	if c.cert != nil {
		// Also one of which the server has not named the issuer, as iPXE does.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
	}
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: s.address().AsSlice()}}, Config: cfg}
	conn, err := d.DialContext(s.t.Context(), "tcp", s.secure)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*tls.Conn)
}

func (s *site) send(c shown, conn *tls.Conn, path string) *http.Response {
	s.t.Helper()
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n")
	require.NoError(s.t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// ask asks the small question and undoes the state.
func (s *site) ask(c shown, conn *tls.Conn) string {
	s.t.Helper()
	defer s.skew.Store(0)
	s.forget()
	res := s.send(c, conn, c.small)
	defer func() { _ = res.Body.Close() }() // read by then
	return s.outcome(conn, res)
}

// outcome is how an answer ended and what was recorded.
func (s *site) outcome(conn net.Conn, res *http.Response) string {
	s.t.Helper()
	defer s.skew.Store(0)
	_, err := io.Copy(io.Discard, res.Body)
	require.NoError(s.t, err)
	return fmt.Sprintf("%d; %s", res.StatusCode, s.told(conn, 1))
}

// dies demands that the connection ends within a second. Its client takes
// nothing meanwhile, so that a download does not come to its end first.
func (s *site) dies(from io.Reader, conn net.Conn, at time.Time, events int) string {
	s.t.Helper()
	defer s.skew.Store(0)
	told := s.told(conn, events)
	require.Less(s.t, time.Since(at), time.Second)
	require.NoError(s.t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	n, err := io.Copy(io.Discard, from)
	var timeout net.Error
	require.False(s.t, errors.As(err, &timeout) && timeout.Timeout(), "it lives")
	require.Less(s.t, n, int64(len(httpboot.BigFile())))
	return "cut off; " + told
}

// credential makes a new one of a kind; one that is of another authority, use or
// name from its beginning if state says so. It reports false for what does not
// exist.
func (s *site) credential(kind pki.Kind, state string) (shown, bool) {
	s.t.Helper()
	switch kind {
	case pki.KindSet:
		return s.ofSet(state), true
	case pki.KindCA, pki.KindPin:
		return s.ofTrusted(kind, state), true
	case pki.KindURL, pki.KindUEFI:
		return s.ofURL(kind, state), state != stateEarly && state != stateForeign
	}
	return shown{host: "ipxe.test", small: question, large: "/ipxe/images/lab/initrd"}, state == stateValid
}

func byCertificate(cert *tls.Certificate, revoke func() error) shown {
	return shown{cert: cert, host: "ipxe.test", small: question, large: "/ipxe/images/lab/initrd", revoke: revoke}
}

func (s *site) set() artifact.Info {
	s.t.Helper()
	s.hosts++
	end := time.Now().Add(leafLife)
	i, err := s.sets.Create(s.t.Context(), artifact.Spec{Name: fmt.Sprintf("rack%d", s.hosts), ExpiresAt: &end, Archs: []boot.Arch{boot.AMD64}})
	require.NoError(s.t, err)
	return i
}

func (s *site) ofSet(state string) shown {
	i := s.set()
	cert := s.setCredential(i)
	revoke := func() error { _, err := s.sets.Delete(s.t.Context(), i.ID); return err }
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	require.NoError(s.t, err)
	name := leaf.Subject.CommonName
	switch state {
	case stateForeign:
		cert = newIssuer(s.t, s.authority.Root().Subject.CommonName).issue(name, x509.ExtKeyUsageClientAuth, leaf.URIs...)
	case stateUsage:
		cert = s.forger().issue(name, x509.ExtKeyUsageServerAuth, leaf.URIs...)
	case stateUnnamed:
		cert = s.forger().issue(name, x509.ExtKeyUsageClientAuth, leaf.URIs...)
	}
	return byCertificate(cert, revoke)
}

func (s *site) ofTrusted(kind pki.Kind, state string) shown {
	s.t.Helper()
	s.hosts++
	ca, usage, name := newIssuer(s.t, fmt.Sprintf("CA %d", s.hosts)), x509.ExtKeyUsageClientAuth, "node1"
	if state == stateUsage {
		usage = x509.ExtKeyUsageServerAuth
	}
	cert := ca.issue(name, usage)
	spec := trusted.Spec{Name: fmt.Sprintf("entry %d", s.hosts), Kind: kind, PEM: asPEM(ca.cert), Allow: []string{"CN=node*"}}
	if kind == pki.KindPin { // of the key; a certificate for servers could not be pinned
		cert = ca.issue(name, x509.ExtKeyUsageClientAuth)
		spec.PEM, spec.Allow, spec.Match = asPEM(cert.Leaf), nil, trusted.MatchKey
		cert = ca.sign(name, usage, cert.PrivateKey.(crypto.Signer))
	}
	entry, err := s.trusted.Add(s.t.Context(), spec)
	require.NoError(s.t, err)
	switch state {
	case stateForeign:
		cert = newIssuer(s.t, ca.cert.Subject.CommonName).issue(name, usage)
	case stateUnnamed:
		cert = ca.issue("other", usage)
	}
	return byCertificate(cert, func() error { _, err := s.trusted.Remove(s.t.Context(), entry.ID); return err })
}

func (s *site) ofURL(kind pki.Kind, state string) shown {
	s.t.Helper()
	s.hosts++
	end := time.Now().Add(leafLife)
	spec := links.Spec{Kind: kind, Name: fmt.Sprintf("url%d", s.hosts), ExpiresAt: &end}
	if state == stateUsage {
		spec.Kind = map[pki.Kind]pki.Kind{pki.KindURL: pki.KindUEFI, pki.KindUEFI: pki.KindURL}[kind]
	}
	var set artifact.Info
	if kind == links.UEFI || spec.Kind == links.UEFI {
		set = s.set()
	}
	if spec.Kind == links.UEFI {
		spec.Set = set.ID
	}
	link, err := s.links.Create(s.t.Context(), spec)
	require.NoError(s.t, err)
	token := s.links.Token(link).Encode()
	if state == stateUnnamed {
		token = pki.NewSecret().Encode()
	}
	c := shown{host: "boot.test", small: "/chain/" + token + question, large: "/chain/" + token + "/ipxe/images/lab/initrd"}
	if kind == links.UEFI {
		c.small, c.large = "/uefi/"+token+"/autoexec.ipxe", "/uefi/"+token+"/"+set.Spec.Name+".efi"
	}
	c.revoke = func() error { _, err := s.links.Revoke(s.t.Context(), link.Kind, link.ID); return err }
	return c
}
