package httpboot_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/httpboot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/trusted"
	"github.com/nestboot/nestboot/store"
)

// site is a Server on the real authority, sets, trusted certificates and URLs,
// joined as bootd joins them, with a clock of its own.
type site struct {
	t         *testing.T
	dir       string
	skew      atomic.Int64
	authority *pki.Authority
	sets      *artifact.Sets
	trusted   *trusted.Trusted
	links     *links.Links
	boots     atomic.Int64
	plain     string // addresses
	secure    string

	mu      sync.Mutex
	events  []boot.Event
	changed chan struct{}
	hosts   int // how many client addresses were given away
}

func (s *site) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

func openSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), changed: make(chan struct{})}
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	db, err := store.Open(ctx, store.Config{Dir: filepath.Join(s.dir, "store")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s.authority, err = pki.Open(ctx, pki.Config{
		Dir: filepath.Join(s.dir, "pki"), Store: db, Hosts: []string{"boot.test"}, IPXE: "ipxe.test", Now: s.now,
		NewKey: func() (*rsa.PrivateKey, error) { return key, nil }, // one for all sets: making them would take most of the time
	})
	require.NoError(t, err)
	bundles, err := artifact.ReadBases([]string{lab.Need(t).IPXEDir()})
	require.NoError(t, err)
	stock, err := artifact.OpenBases(ctx, bundles, filepath.Join(s.dir, "bases"), log)
	require.NoError(t, err)
	s.sets, err = artifact.Open(ctx, artifact.Config{
		Dir: filepath.Join(s.dir, "sets"), URL: "https://ipxe.test", Store: db, Authority: s.authority, Stock: stock, Log: log, Now: s.now,
	})
	require.NoError(t, err)
	s.trusted, err = trusted.Open(ctx, trusted.Config{Store: db, Dir: filepath.Join(s.dir, "trusted"), Now: s.now})
	require.NoError(t, err)
	s.links, err = links.Open(ctx, links.Config{Store: db, Path: filepath.Join(s.dir, "links.secret"), Now: s.now})
	require.NoError(t, err)
	grants, err := pki.OpenGrants(ctx, db, log, s.now)
	require.NoError(t, err)
	grants.Good = s.good
	s.serve(&httpboot.Server{Grants: grants, Log: log, Now: s.now, Grace: time.Second, Site: s.wiring()})
	return s
}

func (s *site) serve(server *httpboot.Server) {
	var ls []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(s.t, err)
		ls = append(ls, l)
	}
	s.plain, s.secure = ls[0].Addr().String(), ls[1].Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.watch(ctx) })
	done := make(chan error, 1)
	running.Go(func() { done <- server.Serve(ctx, ls[0], ls[1], nil) })
	s.t.Cleanup(func() {
		cancel()
		running.Wait()
		require.NoError(s.t, <-done)
	})
}

// watch rings when anybody does.
func (s *site) watch(ctx context.Context) {
	for {
		a, b, c := s.authority.Changed(), s.trusted.Changed(), s.links.Changed()
		s.mu.Lock()
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-a:
		case <-b:
		case <-c:
		}
	}
}

func (s *site) wiring() httpboot.Site {
	base, err := ignition.Compile([]byte("variant: flatcar\nversion: 1.0.0\n"))
	require.NoError(s.t, err)
	return httpboot.Site{
		Hosts: s.host,
		Roots: func() []*x509.Certificate { return []*x509.Certificate{s.authority.Root()} },
		Identify: func(chain []*x509.Certificate, at time.Time) (pki.Identity, error) {
			id, err := s.authority.Verify(chain, at)
			var r *pki.Refusal
			if errors.As(err, &r) && r.Code == pki.CodeUnknownCA {
				return s.trusted.Verify(chain, at)
			}
			return id, err
		},
		IdentifyURL: func(kind pki.Kind, token, over string, at time.Time) (pki.Identity, error) {
			id, _, err := s.links.Find(kind, token, over, at)
			return id, err
		},
		Good:    s.good,
		Changed: func() <-chan struct{} { s.mu.Lock(); defer s.mu.Unlock(); return s.changed },
		Member: func(id pki.Identity, machine string) error {
			if id.Kind == pki.KindSet {
				return s.sets.Member(id.Set, machine)
			}
			return nil
		},
		Artifact: func(context.Context, string, bool) (httpboot.Artifact, error) {
			return httpboot.Artifact{}, fs.ErrNotExist
		},
		Download: func(context.Context, string, string) (httpboot.Artifact, error) {
			return httpboot.Artifact{}, fs.ErrNotExist
		},
		UEFI: s.uefi,
		Inventory: func() boot.Inventory {
			return boot.Inventory{Default: "lab", Images: map[string]boot.Image{"lab": {Name: "lab", Arch: boot.AMD64, Kernel: boot.File{Name: "vmlinuz"}}}}
		},
		Base:   func() (ignition.Base, error) { return base, nil },
		Image:  func(string, string) (httpboot.ImageFile, bool) { return httpboot.BigImage(), true },
		Begin:  func(boot.Request) string { return fmt.Sprintf("b%d", s.boots.Add(1)) },
		Saw:    func(boot.Request, boot.Plan, string) {},
		Done:   func(string, string) {},
		Record: func(e boot.Event) { s.mu.Lock(); defer s.mu.Unlock(); s.events = append(s.events, e) },
	}
}

// uefi serves the real file of the set, padded so that a download of it lasts.
func (s *site) uefi(ctx context.Context, token, name string, secure bool) (httpboot.Artifact, pki.Identity, error) {
	over := links.HTTP
	if secure {
		over = links.HTTPS
	}
	id, link, err := s.links.Find(links.UEFI, token, over, s.now())
	if err != nil {
		return httpboot.Artifact{}, id, err
	}
	set, ok := s.sets.Get(link.Set)
	if !ok {
		return httpboot.Artifact{}, id, fs.ErrNotExist
	}
	if name == ipxebuild.ScriptName {
		f, err := s.sets.Render(ctx, link.Set, set.Spec.Name+".ipxe")
		return httpboot.Artifact{Data: f.Data, SHA256: f.SHA256}, id, err
	}
	f, err := s.sets.Render(ctx, link.Set, name)
	return httpboot.Artifact{Data: append(slices.Clone(f.Data), httpboot.BigFile()...), SHA256: f.SHA256}, id, err
}

func (s *site) host(name string) (httpboot.Host, bool) {
	for _, g := range s.authority.Generations() {
		if g.Host == name {
			return httpboot.Host{Name: name, Role: httpboot.IPXE, URL: "https://" + name, Generation: g.Number, Certificate: s.leaf(g.Number)}, true
		}
	}
	if name != "" && name != "boot.test" {
		return httpboot.Host{}, false
	}
	return httpboot.Host{Name: "boot.test", Role: httpboot.Boot, URL: "https://boot.test", Certificate: s.leaf(0)}, true
}

func (s *site) leaf(generation int) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		for _, c := range s.authority.Leafs(generation) {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
		return nil, errors.New("no certificate fits")
	}
}

func (s *site) good(id pki.Identity, at time.Time) error {
	switch id.Kind {
	case pki.KindSet:
		return s.authority.Good(id, at)
	case pki.KindCA, pki.KindPin:
		return s.trusted.Good(id, at)
	}
	return s.links.Good(id, at)
}

// forget clears the events.
func (s *site) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = nil
}

// told is the sorted list of what was recorded of a connection's client, but
// for handshakes that went well: at least n events, waited for.
func (s *site) told(conn net.Conn, n int) string {
	s.t.Helper()
	client := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr()
	var all []string
	require.Eventually(s.t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		all = nil
		for _, e := range s.events {
			if e.Addr != client || e.Stage == boot.StageTLS && !e.Failed() {
				continue
			}
			kind, _, _ := strings.Cut(e.Credential, " ")
			all = append(all, fmt.Sprintf("%s %s (%s)", e.Stage, cmp.Or(e.Code, "ok"), cmp.Or(kind, "nobody")))
		}
		return len(all) >= n
	}, 5*time.Second, time.Millisecond)
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// address is one that no client had before, so that nobody is locked out for
// what another did.
func (s *site) address() netip.Addr {
	s.hosts++
	return netip.AddrFrom4([4]byte{127, 1, byte(s.hosts >> 8), byte(s.hosts)})
}

// setCredential reads the certificate and key of a set as they lie on disk.
func (s *site) setCredential(i artifact.Info) *tls.Certificate {
	s.t.Helper()
	path := filepath.Join(s.dir, "sets", fmt.Sprintf("%s-%d", i.Spec.Name, i.ID), "client.pem")
	data, err := os.ReadFile(path)
	require.NoError(s.t, err)
	pair, err := tls.X509KeyPair(data, data)
	require.NoError(s.t, err)
	return &pair
}
