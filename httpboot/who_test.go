package httpboot

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// host knows the names of the test server: a second one for machines, too.
func (w *world) host(name string) (Host, bool) {
	h := Host{Name: name, URL: "https://" + name, Certificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if w.ec != nil && hello.SupportsCertificate(w.ec) == nil {
			return w.ec, nil
		}
		return w.authority.ServerCertificate(), nil
	}}
	switch {
	case name == "ipxe.test" && !w.dropped.Load():
		h.Role, h.Generation = IPXE, 1
	case name == "ipxe-2.test" && !w.dropped.Load():
		h.Role, h.Generation = IPXE, 2
	case name == "boot.test", name == "":
		h.Name, h.URL, h.Role = "boot.test", "https://boot.test", Boot
	case strings.HasPrefix(name, "ipxe"):
		return Host{Gone: "its generation was dropped"}, false
	default:
		return Host{}, false
	}
	return h, true
}

// who knows the credentials of a test: the certificates of a real authority,
// and the tokens of URLs.
type who struct {
	mu      sync.Mutex
	urls    []link
	refused map[pki.Digest]string // by fingerprint: code
	changed chan struct{}
	asked   atomic.Int32 // how often Good was
}

// link is a URL with a token, in as far as the server sees it.
type link struct {
	id    pki.Identity
	token string
	over  []string
}

// give makes a URL.
func (w *who) give(kind pki.Kind, name, token string, notAfter time.Time, over ...string) pki.Identity {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := pki.Identity{Kind: kind, ID: int64(len(w.urls) + 1), Name: name, Fingerprint: sha256.Sum256([]byte(token)), NotAfter: notAfter}
	w.urls = append(w.urls, link{id, token, over})
	return id
}

// refuse makes a credential useless and tells the server.
func (w *who) refuse(fingerprint pki.Digest, code string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused == nil {
		w.refused = map[pki.Digest]string{}
	}
	w.refused[fingerprint] = code
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// allow takes refuse back.
func (w *who) allow(id pki.Identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.refused, id.Fingerprint)
}

func (w *who) changes() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

func (w *who) good(id pki.Identity, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked.Add(1)
	return w.check(id, at)
}

func (w *who) check(id pki.Identity, at time.Time) error {
	code := w.refused[id.Fingerprint]
	if code == "" && !id.NotAfter.IsZero() && at.After(id.NotAfter) {
		code = pki.CodeExpired
	}
	if code == "" {
		return nil
	}
	return &pki.Refusal{Code: code, Reason: "for the test", Identity: id}
}

func (w *who) identify(a *pki.Authority) func([]*x509.Certificate, time.Time) (pki.Identity, error) {
	return func(chain []*x509.Certificate, at time.Time) (pki.Identity, error) {
		id, err := a.Verify(chain, at)
		if err != nil {
			return id, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return id, w.check(id, at)
	}
}

func (w *who) identifyURL(kind pki.Kind, token, over string, at time.Time) (pki.Identity, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.urls {
		switch {
		case l.id.Kind != kind || l.token != token:
			continue
		case !slices.Contains(l.over, over):
			return pki.Identity{}, &pki.Refusal{Code: pki.CodeNotAllowed, Reason: "not over " + over, Identity: l.id}
		}
		return l.id, w.check(l.id, at)
	}
	return pki.Identity{}, &pki.Refusal{Code: pki.CodeUnknownToken, Reason: "no URL has this token"}
}

// bigFile is what the URLs lead to: more than the buffers between server and
// client hold.
var bigFile = []byte(strings.Repeat("a set's file with a key\n", 1<<19))

func (w *who) uefi(_ context.Context, token, name string, secure bool) (Artifact, pki.Identity, error) {
	over := "http"
	if secure {
		over = "https"
	}
	id, err := w.identifyURL(pki.KindUEFI, token, over, time.Now())
	switch {
	case err != nil:
		return Artifact{}, id, err
	case name == "rack1.raw":
		return Artifact{}, id, &Withheld{Code: "set-expired", Reason: "set rack1 expired"}
	case name != "rack1.efi" && name != "autoexec.ipxe":
		return Artifact{}, id, fs.ErrNotExist
	}
	return Artifact{Data: bigFile, SHA256: digest(bigFile)}, id, nil
}

// forgive forgets failed attempts.
func (w *world) forgive() {
	w.server.failures.mu.Lock()
	defer w.server.failures.mu.Unlock()
	w.server.failures.by = nil
}
