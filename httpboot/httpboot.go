// Package httpboot answers everything that a machine may fetch over HTTP and
// HTTPS: the files of an artifact set, the boot script, images, the machine's
// own initrd, its Ignition config, and the report that it is done. Each
// request is identified, decided and recorded.
//
// It is not a general file server: names resolve in catalogues that the
// program hands in, never in the file system (T1). It speaks HTTP/1.1 only,
// always sends Content-Length and never redirects, since firmware does not
// follow. Begin at Server and its route functions in ipxe.go and machine.go.
package httpboot

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/pki"
)

// Names are the host names that machines use, and the authorities (host, and
// port unless it is 443) that go into URLs.
type Names struct {
	Boot    string // never requests a certificate; also answers clients without SNI
	IPXE    string // requests a client certificate and decides per request
	BootURL string // https://boot.example.com
	IPXEURL string // https://ipxe.example.com
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

// CodeMachineNotInSet is why a machine was refused that has shown a good
// certificate. It is stable.
const CodeMachineNotInSet = "machine-not-in-set"

// ImageFile is one file of an image.
type ImageFile struct {
	Kernel   bool
	SHA256   string // hexadecimal
	Modified time.Time
	Open     func() (io.ReadSeeker, error) // with an offset of its own
}

// Site is what the server asks the rest of the program. Each function is
// called while a machine waits, so it answers from memory. Artifact and Download
// fail with fs.ErrNotExist for what is not there, and with *Withheld.
type Site struct {
	Inventory func() boot.Inventory                                                 // what the operator has decided
	Base      func() (ignition.Base, error)                                         // configuration that every machine gets; an error tells why there is none
	Artifact  func(ctx context.Context, name string, secure bool) (Artifact, error) // by "<set>.<format>" or "<set>/<file>"; secure: over HTTPS
	Download  func(ctx context.Context, token, name string) (Artifact, error)       // the same, by a set's secret
	Member    func(set, machine string) error                                       // nil: whoever holds the set's certificate may boot the machine
	Image     func(image, file string) (ImageFile, bool)                            // by its URL's last two elements
	Begin     func(r boot.Request) (bootID string)                                  // the boot that an identified machine is in
	Saw       func(r boot.Request, p boot.Plan, bootID string)                      // a machine was told p
	Done      func(uuid, bootID string)                                             // a machine has phoned home
	Record    func(e boot.Event)
}

// Server answers machines. All fields are required.
type Server struct {
	Names     Names
	Authority *pki.Authority
	Grants    *pki.Grants
	Site      Site
	Log       *slog.Logger
	Now       func() time.Time
	Grace     time.Duration // how long running answers may go on when the server stops

	handlers sync.WaitGroup
}

// event is an Event with what every request knows.
func (s *Server) event(stage boot.Stage, addr netip.Addr, start time.Time) boot.Event {
	return boot.Event{Stage: stage, Addr: addr, Duration: s.Now().Sub(start)}
}
