package storm

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/nestboot/nestboot/integration/rig"
)

// set is the name of the artifact set that all machines boot with.
const set = "storm"

// patience is Config's default.
const patience = 5 * time.Minute

// Prepare makes the set that machines boot with, as an operator would, and
// learns what they are to be served.
func Prepare(ctx context.Context, s *rig.LoopbackServer) (c Config, err error) {
	c = Config{Patience: patience, Boot: set + ".efi", Roots: x509.NewCertPool(), Images: map[string]File{}}
	if c.TFTP, err = netip.ParseAddrPort(s.HTTP); err != nil { // the same port, of UDP
		return c, err
	}
	if c.HTTPS, err = netip.ParseAddrPort(s.HTTPS); err != nil {
		return c, err
	}
	_, port, err := net.SplitHostPort(s.HTTPS)
	if err != nil {
		return c, err
	}
	c.IPXE = net.JoinHostPort("ipxe."+rig.Domain, port)
	if _, err := s.Nestctl(ctx, "artifact", "create", set, "--serve", "tftp"); err != nil {
		return c, err
	}
	if c.Certificate, err = s.Certificate(ctx, set); err != nil {
		return c, err
	}
	loader, err := s.Nestctl(ctx, "artifact", "download", set, c.Boot, "-o", "-")
	if err != nil {
		return c, err
	}
	c.Loader = File{int64(len(loader)), sha256.Sum256(loader)}
	root, err := s.Nestctl(ctx, "ca", "export")
	if err != nil {
		return c, err
	}
	if !c.Roots.AppendCertsFromPEM(root) {
		return c, errors.New("nestctl ca export gave no certificate")
	}
	for path, name := range map[string]string{KernelPath: rig.KernelName, initrdPath: rig.InitrdName} {
		if c.Images[path], err = fileOf(filepath.Join(s.Dir, name)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Where the server has the files of the rig's image; initrds are numbered.
const (
	KernelPath = "/ipxe/images/lab/" + rig.KernelName
	initrdPath = "/ipxe/images/lab/0-" + rig.InitrdName
)

func fileOf(path string) (f File, err error) {
	from, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	sum := sha256.New()
	f.Size, err = io.Copy(sum, from)
	f.SHA256 = [32]byte(sum.Sum(nil))
	return f, err
}
