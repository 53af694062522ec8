package serving

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// poll does what Run does at a tick, so much later.
func (w *world) poll(c *Certificates, later time.Duration) string {
	w.t.Helper()
	w.now = w.now.Add(later)
	c.reload(w.t.Context())
	c.warn(w.t.Context())
	return w.log.take()
}

// inPlace writes a file as cp does, rename as careful programs do.
func inPlace(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func rename(t *testing.T, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", data, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// TestChangedFilesAreTakenUp: in each way of writing and in both orders. Between
// the two writes the former pair is shown, and nobody is alarmed.
func TestChangedFilesAreTakenUp(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	for how, write := range map[string]func(*testing.T, string, []byte){"in place": inPlace, "rename": rename} {
		for _, first := range []string{"certificate", "key"} {
			t.Run(how+" "+first+" first", func(t *testing.T) {
				old, next := ca.issue("rsa", nil, "*.example.net"), ca.issue("p256", nil, "*.example.net")
				f := old.write(t, files(t))
				c := w.open(f)
				w.log.take()
				writes := []func(){
					func() { write(t, f.Certificate, next.certificatePEM()) },
					func() { write(t, f.Key, next.keyPEM(t)) },
				}
				if first == "key" {
					writes[0], writes[1] = writes[1], writes[0]
				}
				writes[0]()
				require.Empty(t, w.poll(c, pollEvery))
				require.Empty(t, w.poll(c, pollEvery))
				modern(ca.root).shows(t, c, ipxeHost, old.chain[0])
				writes[1]()
				require.Contains(t, w.poll(c, pollEvery), "server certificates taken up")
				modern(ca.root).shows(t, c, ipxeHost, next.chain[0])
				require.Empty(t, w.poll(c, pollEvery))
			})
		}
	}
}

// TestWrittenByteByByte: whatever part of a file is there when it is read, the
// former pair stays until all is there.
func TestWrittenByteByByte(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "p256")
	old := ca.issue("p256", nil, "*.example.net")
	next := given{key: old.key, chain: []*x509.Certificate{ca.leaf(old.key, nil, "*.example.net"), ca.middle, ca.root}}
	f := old.write(t, files(t))
	c := w.open(f)
	w.log.take()
	text := next.certificatePEM()
	for n := 0; n < len(text)-1; n += 7 { // the last newline is not missed
		inPlace(t, f.Certificate, text[:n])
		w.poll(c, 0)
		require.True(t, old.chain[0].Equal(c.of(ipxeHost)[0].Leaf), "after %d bytes", n)
	}
	inPlace(t, f.Certificate, text)
	w.poll(c, 0)
	require.True(t, next.chain[0].Equal(c.of(ipxeHost)[0].Leaf), "the key is the same")
}

// TestFaultyChangeIsNotTakenUp: the former pair goes on, the log says why, once
// and then daily, and Status too.
func TestFaultyChangeIsNotTakenUp(t *testing.T) {
	ca, other := newCustomer(t, "Customer", "rsa"), newCustomer(t, "Other", "rsa")
	good := ca.issue("rsa", nil, "*.example.net")
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(File)
		want   string
	}{
		"halves":   {func(f File) { inPlace(t, f.Key, ca.issue("p256", nil, "*.example.net").keyPEM(t)) }, "is not that of CN=server"},
		"gone":     {func(f File) { require.NoError(t, os.Remove(f.Key)) }, "no such file"},
		"open key": {func(f File) { require.NoError(t, os.Chmod(f.Key, 0o604)) }, "chmod 0640"},
		"no root": {func(f File) {
			inPlace(t, f.Certificate, given{chain: good.chain[:2]}.certificatePEM())
		}, "append the certificate of CN=Customer root"},
		"expired": {func(f File) {
			ca.issue("rsa", func(c *x509.Certificate) { c.NotAfter = ca.now.Add(-time.Hour) }, "*.example.net").write(t, f)
		}, "has expired"},
		"a name is lost": {func(f File) { ca.issue("rsa", nil, ipxeHost).write(t, f) }, "no file covers boot.example.net any more"},
		"another root":   {func(f File) { other.issue("rsa", nil, "*.example.net").write(t, f) }, "nestctl ca rotate --root"},
	} {
		t.Run(name, func(t *testing.T) {
			w.now = time.Now()
			f := good.write(t, files(t))
			certs := w.open(f)
			require.NoError(t, w.ca.FixTrust(t.Context(), 1))
			w.log.take()
			c.change(f)
			require.Empty(t, w.poll(certs, 0))
			require.Empty(t, w.poll(certs, patience-pollEvery))
			got := w.poll(certs, pollEvery)
			require.Contains(t, got, "level=ERROR msg=\"changed server certificates are not used, the former ones stay\"")
			require.Contains(t, got, c.want)
			require.Contains(t, certs.Status()[0].Warnings[len(certs.Status()[0].Warnings)-1], c.want)
			require.NotContains(t, w.poll(certs, time.Hour), "level=ERROR")
			require.Contains(t, w.poll(certs, repeatEvery), "level=ERROR")
			modern(ca.root).shows(t, certs, bootHost, good.chain[0])
			require.True(t, ca.root.Equal(w.ca.Trust(1)))

			good.write(t, f)
			require.NoError(t, os.Chmod(f.Key, 0o600))
			w.poll(certs, pollEvery)
			for _, st := range certs.Status() {
				for _, warning := range st.Warnings {
					require.NotContains(t, warning, "not used")
				}
			}
			modern(ca.root).shows(t, certs, bootHost, good.chain[0])
		})
	}
}

// TestRootChangesTogether: two pairs move to another root. While one has moved
// and the other has not, both former ones are shown.
func TestRootChangesTogether(t *testing.T) {
	w := newWorld(t)
	first, second := newCustomer(t, "First", "rsa"), newCustomer(t, "Second", "rsa")
	a, b := first.issue("rsa", nil, "*.example.net").write(t, files(t)), first.issue("p256", nil, "*.example.net").write(t, files(t))
	c := w.open(a, b)
	next := second.issue("rsa", nil, "*.example.net")
	next.write(t, a)
	w.poll(c, pollEvery)
	require.True(t, first.root.Equal(c.Root(ipxeHost)))
	require.True(t, first.root.Equal(w.ca.Trust(1)))
	second.issue("p256", nil, "*.example.net").write(t, b)
	w.poll(c, pollEvery)
	require.True(t, second.root.Equal(c.Root(ipxeHost)))
	require.True(t, second.root.Equal(w.ca.Trust(1)), "no artifact trusts the former one")
	ipxe(second.root).shows(t, c, ipxeHost, next.chain[0])
}

// TestAnotherRootOfBootIsTold: nothing but firmware trusts the root of a file for
// boot. alone, so nothing refuses another one.
func TestAnotherRootOfBootIsTold(t *testing.T) {
	w := newWorld(t)
	first, second := newCustomer(t, "First", "rsa"), newCustomer(t, "Second", "rsa")
	f := first.issue("rsa", nil, bootHost).write(t, files(t))
	c := w.open(f)
	first.issue("rsa", nil, bootHost).write(t, f)
	require.NotContains(t, w.poll(c, pollEvery), "CN=First root", "the same root")
	second.issue("rsa", nil, bootHost).write(t, f)
	require.Contains(t, w.poll(c, pollEvery), "it led to the root CN=First root")
	second.issue("rsa", nil, bootHost).write(t, f)
	w.poll(c, pollEvery)
	require.Contains(t, c.Status()[0].Warnings[0], "leads to CN=Second root", "until bootd is restarted")
	require.Equal(t, bootHost, c.Status()[0].Host)
}

// TestNothingChangesUnlessAllDoes: where one generation refuses another root, the
// others keep theirs too.
func TestNothingChangesUnlessAllDoes(t *testing.T) {
	w := newWorld(t)
	first, second := newCustomer(t, "First", "rsa"), newCustomer(t, "Second", "rsa")
	f := first.issue("rsa", nil, "*.example.net").write(t, files(t))
	c := w.open(f)
	_, err := w.ca.RotateRoot(t.Context())
	require.NoError(t, err)
	_, err = w.ca.RotateRoot(t.Context())
	require.NoError(t, err)
	c.reload(t.Context())
	require.NoError(t, w.ca.FixTrust(t.Context(), 2))
	second.issue("rsa", nil, "*.example.net").write(t, f)
	changed := w.ca.Changed()
	w.poll(c, pollEvery)
	<-changed // it was tried
	changed = w.ca.Changed()
	w.poll(c, pollEvery)
	select {
	case <-changed:
		t.Fatal("trying again wakes Run, which tries again")
	default:
	}
	for n := 1; n <= 3; n++ {
		require.True(t, first.root.Equal(w.ca.Trust(n)), "generation %d", n)
	}
	require.True(t, first.root.Equal(c.Root("ipxe-3.example.net")))
}

func TestWarnsWhileRunning(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	end := func(c *x509.Certificate) { c.NotAfter = ca.now.Add(40*24*time.Hour - time.Hour) }
	c := w.open(ca.issue("rsa", end, bootHost).write(t, files(t)), ca.issue("p256", end, bootHost).write(t, files(t)))
	require.Empty(t, w.poll(c, 0))
	const day = 24 * time.Hour
	for _, step := range []struct {
		later time.Duration
		want  string // empty: silence
	}{
		{9 * day, ""},
		{day, "less than 30 days"},
		{time.Hour, ""},
		{day - time.Hour, "less than 30 days"}, // once a day
		{22 * day, "less than 7 days"},
		{time.Minute, ""},
		{6 * day, "less than 1 days"},
		{time.Minute, ""},
		{day, "has expired on"},
		{time.Minute, ""},
		{day, "has expired on"},
	} {
		got := w.poll(c, step.later)
		if step.want == "" {
			require.Empty(t, got)
			continue
		}
		require.Contains(t, got, "level=WARN")
		require.Contains(t, got, step.want)
	}
	client := ipxe(ca.root)
	client.config.Time = func() time.Time { return w.now }
	chain, err := client.connect(t, c, bootHost)
	require.ErrorContains(t, err, "expired", "it is still shown, and clients see why they refuse it: %v", chain)
}

// TestOldBootFilesWhileRunning: importing them later stops nothing, is warned of,
// and a change must not make it worse.
func TestOldBootFilesWhileRunning(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	ec := ca.issue("p256", nil, "*.example.net")
	f := ec.write(t, files(t))
	c := w.open(f)
	require.NotContains(t, w.log.take(), "are imported")
	c.SetOldIPXE(true)
	require.Contains(t, w.poll(c, pollEvery), "ipxe.example.net: boot files of an iPXE before 2.0.0 are imported")
	require.Empty(t, w.poll(c, 2*patience), "it is no error")
	next := ca.issue("p256", func(c *x509.Certificate) { c.NotAfter = ca.now.Add(200 * time.Hour) }, "*.example.net")
	next.write(t, f)
	require.Contains(t, w.poll(c, pollEvery), "taken up")
	rsaOne := ca.issue("rsa", nil, "*.example.net")
	rsaOne.write(t, f)
	w.poll(c, pollEvery)
	ipxe(ca.root).shows(t, c, ipxeHost, rsaOne.chain[0])
	ec.write(t, f)
	w.poll(c, pollEvery)
	require.Contains(t, w.poll(c, patience), "are imported")
	ipxe(ca.root).shows(t, c, ipxeHost, rsaOne.chain[0])
}

// TestNewGenerationIsShownAtOnce: before Run has seen it and after.
func TestNewGenerationIsShownAtOnce(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	g := ca.issue("rsa", nil, "*.example.net")
	own, covered := w.open(), w.open(g.write(t, files(t)))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = covered.Run(ctx) })
	gen, err := w.ca.RotateRoot(t.Context())
	require.NoError(t, err)
	require.Equal(t, "ipxe-2.example.net", gen.Host)
	_, err = ipxe(gen.Root).connect(t, own, gen.Host)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return ca.root.Equal(covered.Root(gen.Host)) }, pollEvery, time.Millisecond, "not at the next tick only")
	modern(ca.root).shows(t, covered, gen.Host, g.chain[0])
	cancel()
	running.Wait()
	require.NoError(t, w.ca.Drop(t.Context(), 1))
	_, err = own.For(ipxeHost)(nil)
	require.Error(t, err, "a dropped one is nobody's")
}

// TestRotationOfTheIntermediate: our own certificates are asked for at each
// handshake.
func TestRotationOfTheIntermediate(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	before, err := modern(c.Root(ipxeHost)).connect(t, c, ipxeHost)
	require.NoError(t, err)
	_, err = w.ca.Rotate(t.Context())
	require.NoError(t, err)
	after, err := modern(c.Root(ipxeHost)).connect(t, c, ipxeHost)
	require.NoError(t, err)
	require.False(t, before[1].Equal(after[1]))
	require.True(t, before[2].Equal(after[2]))
}

// TestHandshakesWhileFilesChange: nobody is ever shown a pair that does not fit.
func TestHandshakesWhileFilesChange(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	f := ca.issue("rsa", nil, "*.example.net").write(t, files(t))
	c := w.open(f)
	done := make(chan error, 1)
	go func() {
		for range 30 {
			if chain, err := modern(ca.root).connect(t, c, ipxeHost); err != nil {
				done <- fmt.Errorf("%w: %v", err, chain)
				return
			}
		}
		done <- nil
	}()
	next := []given{ca.issue("p256", nil, "*.example.net"), ca.issue("rsa", nil, "*.example.net")}
	for n := 0; ; n++ {
		select {
		case err := <-done:
			require.NoError(t, err)
			require.Positive(t, n)
			return
		default:
			inPlace(t, f.Certificate, next[n%2].certificatePEM())
			c.reload(t.Context())
			inPlace(t, f.Key, next[n%2].keyPEM(t))
			c.reload(t.Context())
		}
	}
}

// TestKubernetesMount: a secret's files are links that change all at once.
func TestKubernetesMount(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	dir := t.TempDir()
	version := func(name string, g given) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		g.write(t, File{filepath.Join(dir, name, "tls.crt"), filepath.Join(dir, name, "tls.key")})
		require.NoError(t, os.Chmod(filepath.Join(dir, name, "tls.key"), 0o440))
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "..data")))
	}
	old, next := ca.issue("rsa", nil, "*.example.net"), ca.issue("p256", nil, "*.example.net")
	version("..1", old)
	f := File{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	require.NoError(t, os.Symlink("..data/tls.crt", f.Certificate))
	require.NoError(t, os.Symlink("..data/tls.key", f.Key))
	c := w.open(f)
	modern(ca.root).shows(t, c, bootHost, old.chain[0])
	version("..2", next)
	w.poll(c, pollEvery)
	modern(ca.root).shows(t, c, bootHost, next.chain[0])
}
