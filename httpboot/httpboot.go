// Package httpboot answers everything that a machine may fetch over HTTP and
// HTTPS: the files of an artifact set, the boot script, images, the machine's
// own initrd, its Ignition config, and the report that it is done. Each
// request is identified, decided and recorded, and a connection lives no
// longer than the right of who opened it.
//
// It is not a general file server: names resolve in catalogues that the
// program hands in, never in the file system (T1). It speaks HTTP/1.1 only,
// always sends Content-Length and never redirects, since firmware does not
// follow. Begin at Server and its route functions in ipxe.go, machine.go and
// url.go; who asks is found out in identify.go.
package httpboot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/pki"
)

// Role says what a host name is for.
type Role string

// The roles.
const (
	Boot Role = "boot" // never requests a certificate: artifacts, Ignition, URLs with a token
	IPXE Role = "ipxe" // requests a client certificate and decides per request
)

// Host is one host name on the TLS port. Each has a tls.Config of its own.
type Host struct {
	Name       string // lower case
	Role       Role
	URL        string // what scripts and configs call it: https://boot.example.com, with the port unless it is 443
	Generation int    // of the trust root that its artifacts have, for IPXE; 0: not known
	// Certificate is the certificate that it shows to a client.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Gone is why a name is not answered any more, where that is known.
	Gone string
}

// Artifact is one file of a set.
type Artifact struct {
	Data   []byte
	SHA256 string // hexadecimal
}

// Withheld is the error for a file of a set that exists and is not served. The
// client is told all of it, so it holds no secret.
type Withheld struct {
	Code   string // short and stable
	Reason string // one line that names the remedy
}

func (w *Withheld) Error() string { return w.Reason }

// Why a machine was refused that has proved itself. The codes are stable.
const (
	CodeMachineNotInSet   = "machine-not-in-set"  // its set is limited to others
	CodeMachineNotAllowed = "machine-not-allowed" // its authority, pin or URL is
)

// ImageFile is one file of an image.
type ImageFile struct {
	Kernel   bool
	SHA256   string // hexadecimal
	Modified time.Time
	Open     func() (io.ReadSeeker, error) // with an offset of its own
}

// Site is what the server asks the rest of the program. Each function is
// called while a machine waits, so it answers from memory. Those that tell who
// asks fail with *pki.Refusal.
type Site struct {
	// Hosts is the host name that a client asked for by SNI, in lower case. The
	// empty name is the host for clients without SNI; its role is Boot, and
	// configs send machines to its URL.
	Hosts func(name string) (Host, bool)
	// Roots are the authorities that the Boot host's certificate may come from
	// while a machine lives: a running machine trusts them and no others of ours.
	Roots func() []*x509.Certificate

	// Identify says who presents a certificate chain, leaf first.
	Identify func(chain []*x509.Certificate, at time.Time) (pki.Identity, error)
	// IdentifyURL says whose token was shown over "https" or "http".
	IdentifyURL func(kind pki.Kind, token, over string, at time.Time) (pki.Identity, error)
	// Good says whether what Identify, IdentifyURL or UEFI returned still holds.
	Good func(id pki.Identity, at time.Time) error
	// Changed is closed when something that Good has accepted may be refused
	// from now on. Take it before asking Good.
	Changed func() <-chan struct{}
	// Member is nil when id may boot the machine.
	Member func(id pki.Identity, machine string) error

	// Artifact is a file by "<set>.<format>" or "<set>/<file>", Download by a
	// set's secret, UEFI by the token of a UEFI HTTP Boot URL; secure: over
	// HTTPS. They fail with fs.ErrNotExist for what is not there, and with
	// *Withheld; UEFI and Download with *pki.Refusal for a token that opens
	// nothing. UEFI tells whose token it was whatever became of the file.
	Artifact func(ctx context.Context, name string, secure bool) (Artifact, error)
	Download func(ctx context.Context, token, name string) (Artifact, error)
	UEFI     func(ctx context.Context, token, name string, secure bool) (Artifact, pki.Identity, error)

	Inventory func() boot.Inventory                            // what the operator has decided
	Base      func() (ignition.Base, error)                    // configuration that every machine gets; an error tells why there is none
	Image     func(image, file string) (ImageFile, bool)       // by its URL's last two elements
	Begin     func(r boot.Request) (bootID string)             // the boot that an identified machine is in
	Saw       func(r boot.Request, p boot.Plan, bootID string) // a machine was told p
	Done      func(uuid, bootID string)                        // a machine has phoned home
	Record    func(e boot.Event)
}

// Server answers machines. All fields up to Grace are required.
type Server struct {
	Grants *pki.Grants
	Site   Site
	Log    *slog.Logger
	Now    func() time.Time
	Grace  time.Duration // how long running answers may go on when the server stops
	MaxAge time.Duration // of a connection: the answer after it is its last; 0: an hour
	// MinRate is how many bytes a second a client must take of a file, on average,
	// once a minute has gone; 0: 4000.
	MinRate int64
	Rates   Rates // that files leave at
	// MaxBooting is how many machines may boot at a time; others are told to wait
	// for their turn. 0: 500.
	MaxBooting int

	handlers   sync.WaitGroup
	downloads  atomic.Int64
	shown      registry
	failures   failures
	buffers    buffers
	configured sync.Once // of share
	share      share
	admission  admission
}

// defaultMaxAge is when a machine has to connect anew, and with it to
// authenticate by what holds then.
const defaultMaxAge = time.Hour

func (s *Server) maxAge() time.Duration {
	if s.MaxAge > 0 {
		return s.MaxAge
	}
	return defaultMaxAge
}

// bootURL is where a running machine finds its config and reports.
func (s *Server) bootURL() string {
	h, _ := s.Site.Hosts("") // there always is one
	return h.URL
}
