package storm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// machine is one that boots.
type machine struct {
	c       *Config
	buffers *buffers
	addr    netip.Addr
	query   string // of its question
	outcome

	ipxe    *conn // the one connection of iPXE
	plan    plan
	pointer pointer // to its configuration, then to where it reports
}

func newMachine(c *Config, b *buffers, n int) *machine {
	m := &machine{c: c, buffers: b, addr: addrOf(n)}
	m.took = map[Stage]time.Duration{}
	m.query = fmt.Sprintf("uuid=%s&mac=%s&serial=STORM%d&arch=x86_64&platform=efi&ip=%s", uuidOf(n), macOf(n), n, m.addr)
	return m
}

// boot goes from power-on to done, or to the first error: a real machine would
// try again for ever, which would hide that there was one.
func (m *machine) boot(ctx context.Context) outcome {
	defer func() {
		if m.ipxe != nil {
			m.ipxe.close()
		}
	}()
	start := time.Now()
	for _, s := range []struct {
		stage Stage
		do    func(context.Context) error
	}{
		{TFTP, m.firmware},
		{TLS, m.connect},
		{Script, m.ask},
		{Kernel, m.kernel},
		{Initrd, m.initrds},
		{Pointer, m.ownInitrd},
		{Ignition, m.ignition},
		{Done, m.done},
	} {
		began, waited := time.Now(), m.waited
		if err := s.do(ctx); err != nil {
			m.failed, m.err = s.stage, fmt.Errorf("machine %s after %s: %w", m.addr, time.Since(start).Round(time.Millisecond), err)
			return m.outcome
		}
		m.took[s.stage] = time.Since(began) - (m.waited - waited)
	}
	m.total = time.Since(start)
	return m.outcome
}

func (m *machine) firmware(ctx context.Context) error {
	return fetch(ctx, m.addr, m.c.TFTP, m.c.Boot, m.c.Loader)
}

// connect offers what iPXE 1.21.1 can do, so that the server answers with RSA.
func (m *machine) connect(ctx context.Context) (err error) {
	u := url.URL{Host: m.c.IPXE}
	m.ipxe, err = dial(ctx, m.addr, m.c.HTTPS, &tls.Config{
		ServerName: u.Hostname(), Certificates: []tls.Certificate{m.c.Certificate}, RootCAs: m.c.Roots,
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	})
	return err
}

// ask asks what to do until it is to boot. Told to wait, it waits.
func (m *machine) ask(ctx context.Context) error {
	for {
		script, err := m.ipxe.get(ctx, http.MethodGet, "https://"+m.c.IPXE+"/ipxe/boot?"+m.query, "")
		if err != nil {
			return err
		}
		if m.plan, err = parseScript(script); err != nil {
			return fmt.Errorf("script: %w", err)
		}
		if m.plan.kernel != "" {
			return nil
		}
		if err := m.wait(ctx, m.plan.pause); err != nil {
			return err
		}
	}
}

// wait does what the server has told.
func (m *machine) wait(ctx context.Context, d time.Duration) error {
	m.waits++
	start := time.Now()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return fmt.Errorf("told to wait %d times: %w", m.waits, context.Cause(ctx))
	}
	m.waited += time.Since(start)
	return nil
}

func (m *machine) kernel(ctx context.Context) error { return m.image(ctx, m.plan.kernel) }

func (m *machine) initrds(ctx context.Context) error {
	for _, u := range m.plan.initrds[:len(m.plan.initrds)-1] {
		if err := m.image(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) image(ctx context.Context, raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	want, ok := m.c.Images[u.Path]
	if !ok || u.Host != m.c.IPXE {
		return fmt.Errorf("the script asks for %q", raw)
	}
	return m.ipxe.download(ctx, raw, want, m.buffers)
}

func (m *machine) ownInitrd(ctx context.Context) error {
	raw, err := m.ipxe.get(ctx, http.MethodGet, m.plan.initrds[len(m.plan.initrds)-1], "")
	if err != nil {
		return err
	}
	m.pointer, err = readPointer(raw)
	m.ipxe.close() // the kernel starts: iPXE is gone
	m.ipxe = nil
	return err
}

func (m *machine) ignition(ctx context.Context) error {
	config, err := m.running(ctx, http.MethodGet)
	if err != nil {
		return err
	}
	m.pointer, err = readConfig(config)
	return err
}

func (m *machine) done(ctx context.Context) error {
	_, err := m.running(ctx, http.MethodPost)
	return err
}

// running asks as the running system does: Ignition and the unit that reports
// ask again, for ever, while the server says that it is not ready (503).
func (m *machine) running(ctx context.Context, method string) ([]byte, error) {
	for {
		body, err := m.once(ctx, method)
		var status *statusError
		if !errors.As(err, &status) || status.pause() == 0 {
			return body, err
		}
		if err := m.wait(ctx, status.pause()); err != nil {
			return nil, errors.Join(status, err)
		}
	}
}

// once asks on a connection of its own, as Ignition and curl do: TLS 1.3, and
// no other authorities than those that the machine was told.
func (m *machine) once(ctx context.Context, method string) ([]byte, error) {
	u, err := url.Parse(m.pointer.url)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, m.addr, m.c.HTTPS, &tls.Config{ServerName: u.Hostname(), RootCAs: m.pointer.roots, MinVersion: tls.VersionTLS13})
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.get(ctx, method, m.pointer.url, m.pointer.authorization)
}
