package trusted

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

// TestT12_RemovalIsSeenByAll: while machines keep coming, no request that
// begins after Remove has returned is accepted, and who waits for Changed finds
// it out.
func TestT12_RemovalIsSeenByAll(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	run(t, tr)
	root := newCA(t, "corp", nothing)
	var leafs []*x509.Certificate
	for i := range 4 {
		leafs = append(leafs, root.issue(fmt.Sprint("node-", i), nothing))
	}
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		e := mustAdd(t, tr, w.withCRL(fmt.Sprint("corp-", round), "", root.crl(start), root.cert))
		var removed atomic.Bool
		var machines sync.WaitGroup
		for _, leaf := range leafs {
			machines.Go(func() {
				for over := false; !over; {
					over = removed.Load()
					id, err := tr.Verify(chain(leaf), start)
					if over && err == nil {
						t.Errorf("accepted after its removal")
					}
					if err == nil {
						tr.Used(id.ID, id.Subject, "machine", 1, start)
						_ = tr.Good(id, start)
					}
				}
			})
			machines.Go(func() { // an open connection
				for {
					changed := tr.Changed()
					err := tr.Good(pki.Identity{Kind: pki.KindCA, ID: e.ID, Serial: pki.SerialOf(leaf), NotAfter: leaf.NotAfter}, start)
					if err != nil {
						return
					}
					select {
					case <-changed:
					case <-time.After(10 * time.Second):
						t.Error("nobody said that the entry was removed")
						return
					}
				}
			})
		}
		machines.Go(func() {
			tr.Explain(chain(leafs[0]), start)
			tr.List()
			w.file(e.Name+".crl", root.crl(start.Add(time.Second)))
		})
		_, err := tr.Remove(t.Context(), e.ID)
		require.NoError(t, err)
		removed.Store(true)
		machines.Wait()
	}
}

// TestConcurrentChanges: each entry is made once and removed once.
func TestConcurrentChanges(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	var made, removed atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if _, err := tr.Add(t.Context(), caSpec(fmt.Sprint("name-", i%4), root.cert)); err == nil {
				made.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 4, made.Load())
	for _, e := range tr.List() {
		for range 4 {
			all.Go(func() {
				if _, err := tr.Remove(t.Context(), e.ID); err == nil {
					removed.Add(1)
				}
			})
		}
	}
	all.Wait()
	require.GreaterOrEqual(t, removed.Load(), int32(4))
	require.Empty(t, tr.List())
	require.Len(t, tr.all.Load().gone, 4)
	require.Empty(t, w.open().List())
}

// TestT13_PinsLeaveNoProofs: whoever holds a pinned key can make certificates
// with it without end, and send what it likes behind them.
func TestT13_PinsLeaveNoProofs(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root, key := newCA(t, "corp", nothing), newKey(t)
	pin := mustAdd(t, tr, pinSpec("kp", MatchKey, root.issueWith(key, "m", nothing)))
	mustAdd(t, tr, caSpec("corp", root.cert))
	flood := func(code string) {
		t.Helper()
		for range 10 {
			_, err := tr.Verify(chain(newCA(t, "own", nothing).issueWith(key, "m", nothing), newCA(t, "junk", nothing).cert), start)
			require.Equal(t, code, codeOf(t, err))
		}
	}
	flood("")
	require.Empty(t, tr.proofs.byFP)
	leaf, junk := root.issue("m", nothing), newCA(t, "junk", nothing).cert
	_, err := tr.Verify(chain(leaf, junk), start)
	require.NoError(t, err)
	p := tr.proofs.byFP[sha256.Sum256(leaf.Raw)]
	require.NotNil(t, p, "what an authority has signed")
	for _, c := range p.claims {
		require.NotContains(t, c.path, junk, "and no more than that")
	}
	_, err = tr.Remove(t.Context(), pin.ID)
	require.NoError(t, err)
	require.Empty(t, tr.proofs.byFP)
	flood(pki.CodeRevoked)
	require.Empty(t, tr.proofs.byFP)
}

// TestProofsAreBounded, and strangers leave none.
func TestProofsAreBounded(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	mustAdd(t, tr, caSpec("corp", root.cert))
	_, err := tr.Verify(chain(newCA(t, "foreign", nothing).issue("m", nothing)), start)
	require.Error(t, err)
	require.Empty(t, tr.proofs.byFP)
	for i := range maxProofs + 100 {
		tr.proofs.put(pki.Digest{byte(i), byte(i >> 8)}, &proof{})
	}
	require.Len(t, tr.proofs.byFP, maxProofs)
	leaf := root.issue("m", nothing)
	for range 2 {
		_, err = tr.Verify(chain(leaf), start)
		require.NoError(t, err)
	}
	require.Len(t, tr.proofs.byFP, maxProofs)
}
