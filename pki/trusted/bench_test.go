package trusted

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

// benchWorld has an authority with an intermediate, a list with 10,000 numbers
// and an allow list, behind nine others.
func benchWorld(b *testing.B, key func() crypto.Signer) (*world, *Trusted, []*x509.Certificate) {
	w := newWorld(b)
	tr := w.open()
	for i := range 9 {
		mustAdd(b, tr, caSpec(fmt.Sprint("other-", i), newCA(b, fmt.Sprint("other ", i), nothing).cert))
	}
	root := ca{t: b}.subWith(key(), "corp", nothing)
	sub := root.subWith(key(), "issuing", nothing)
	var revoked []*x509.Certificate
	for i := range 10_000 {
		revoked = append(revoked, &x509.Certificate{SerialNumber: newSerial(i)})
	}
	spec := w.withCRL("corp", "", sub.crl(start, revoked...), root.cert, sub.cert)
	spec.Allow = []string{"CN=rack-*", "DNS:*.rack1.example.net"}
	mustAdd(b, tr, spec)
	return w, tr, chain(sub.issue("node-1", names("node-1.rack1.example.net")), sub.cert)
}

func BenchmarkVerify(b *testing.B) {
	for _, k := range []struct {
		name string
		key  func() crypto.Signer
	}{
		{"p256", func() crypto.Signer { return newKey(b) }},
		{"rsa2048", func() crypto.Signer {
			key, err := rsaKey()
			require.NoError(b, err)
			return key
		}},
	} {
		_, tr, sent := benchWorld(b, k.key)
		b.Run(k.name+"/first", func(b *testing.B) {
			for b.Loop() {
				clear(tr.proofs.byFP)
				if _, err := tr.Verify(sent, start); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(k.name+"/again", func(b *testing.B) {
			for b.Loop() {
				if _, err := tr.Verify(sent, start); err != nil {
					b.Fatal(err)
				}
			}
		})
		stranger := newCA(b, "stranger", nothing)
		foreign := chain(stranger.issue("m", nothing), stranger.cert)
		b.Run(k.name+"/stranger", func(b *testing.B) {
			for b.Loop() {
				if _, err := tr.Verify(foreign, start); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkGood(b *testing.B) {
	_, tr, sent := benchWorld(b, func() crypto.Signer { return newKey(b) })
	id, err := tr.Verify(sent, start)
	require.NoError(b, err)
	for b.Loop() {
		if err := tr.Good(id, start); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLargestList reads a list of 16 MiB.
func BenchmarkLargestList(b *testing.B) {
	root := newCA(b, "corp", nothing)
	var revoked []*x509.Certificate
	for i := range 410_000 {
		revoked = append(revoked, &x509.Certificate{SerialNumber: newSerial(i)})
	}
	data := root.crl(start, revoked...)
	ders, err := splitLists(data)
	require.NoError(b, err)
	require.InDelta(b, maxCRL, len(ders[0]), maxCRL/5)
	b.ReportMetric(float64(len(ders[0])), "bytes")
	var kept runtime.MemStats
	for b.Loop() {
		ls, err := parseLists(ders[0], []*x509.Certificate{root.cert}, start)
		require.NoError(b, err)
		runtime.GC()
		runtime.ReadMemStats(&kept)
		b.ReportMetric(float64(kept.HeapAlloc>>20), "heap-MiB")
		runtime.KeepAlive(ls)
	}
}

// TestT12_ThousandConnections asks about them as a server does after a change.
func TestT12_ThousandConnections(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	e := mustAdd(t, tr, w.withCRL("corp", "", root.crl(start), root.cert))
	var ids []pki.Identity
	for i := range 1000 {
		id, err := tr.Verify(chain(root.issue(fmt.Sprint("node-", i), nothing)), start)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	changed := tr.Changed()
	began := time.Now()
	removed := make(chan error, 1)
	go func() {
		_, err := tr.Remove(t.Context(), e.ID)
		removed <- err
	}()
	<-changed // which is before the disk has it
	for _, id := range ids {
		require.Error(t, tr.Good(id, start))
	}
	require.Less(t, time.Since(began), time.Second)
	require.NoError(t, <-removed)
	require.Contains(t, w.logged(), "trusted no longer")
}
