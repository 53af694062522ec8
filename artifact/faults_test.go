package artifact

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// reopen starts the store and the authority again, with another reserve of
// space.
func (w *world) reopen(reserve int64) {
	w.t.Helper()
	_ = w.store.Close() // it may be closed
	var err error
	w.store, err = store.Open(w.t.Context(), store.Config{Dir: filepath.Join(w.dir, "store"), Reserve: reserve})
	require.NoError(w.t, err)
	opened := w.store
	w.t.Cleanup(func() { _ = opened.Close() })
	w.ca, err = pki.Open(w.t.Context(), pki.Config{Dir: filepath.Join(w.dir, "pki"), Store: w.store, Hosts: []string{"ipxe.test"}, Now: w.now})
	require.NoError(w.t, err)
}

const (
	noSpaceAtAll = 1 << 60 // a reserve that no disk has
	enough       = -1
)

// belowReserve is a reserve that the disk has a half of.
func (w *world) belowReserve() int64 {
	w.t.Helper()
	var fs unix.Statfs_t
	require.NoError(w.t, unix.Statfs(w.dir, &fs))
	return 2 * int64(fs.Bavail) * fs.Bsize
}

// issued is how many certificates there have ever been.
func (w *world) issued() int {
	w.t.Helper()
	entries, err := w.store.List(w.t.Context(), "pki/certs/")
	require.NoError(w.t, err)
	return len(entries)
}

func (w *world) withheld(s *Sets, name, code string) {
	w.t.Helper()
	_, err := s.File(w.t.Context(), name, TFTP)
	var withheld *Withheld
	require.ErrorAs(w.t, err, &withheld)
	require.Equal(w.t, code, withheld.Code)
}

func TestT12_SetEndsWithoutSpace(t *testing.T) {
	for name, reserve := range map[string]func(*world) int64{
		"below the reserve": (*world).belowReserve,
		"no space at all":   func(*world) int64 { return noSpaceAtAll },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.open()
			i := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP, HTTP}})
			cert, _ := w.credentialOf(i)
			w.reopen(reserve(w))
			s = w.open()
			_, err := s.Create(t.Context(), Spec{Name: "rack2", Keyless: true})
			require.ErrorIs(t, err, store.ErrNoSpace)

			_, updated := s.Update(t.Context(), i.ID, []Protocol{HTTPS, HTTP})
			w.withheld(s, "rack1.efi", CodeNotExposed)
			_, err = s.File(t.Context(), "rack1.efi", HTTP)
			require.NoError(t, err, "what stays exposed")
			gone, deleted := s.Delete(t.Context(), i.ID)
			w.refused(cert, pki.CodeRevoked)
			_, err = s.File(t.Context(), "rack1.efi", HTTP)
			require.Error(t, err)
			require.Error(t, s.Member("rack1", uuidA))
			if name == "below the reserve" {
				require.NoError(t, updated)
				require.NoError(t, deleted)
				require.Equal(t, Deleted, gone.Status)
			} else {
				require.ErrorIs(t, updated, store.ErrNoSpace)
				require.ErrorIs(t, deleted, store.ErrNoSpace)
				require.Equal(t, Deleting, s.List()[0].Status)
				s.check(t.Context())
				require.Equal(t, Deleting, s.List()[0].Status, "tried again, in vain")
				w.refused(cert, pki.CodeRevoked)
				return
			}
			w.reopen(enough)
			w.refused(cert, pki.CodeRevoked)
			require.Empty(t, w.open().List(), "written down")
		})
	}
}

// TestWithdrawalIsWrittenDownLater: what was done while the store took no
// writes outlives a restart, once Run has had its turn.
func TestWithdrawalIsWrittenDownLater(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP, HTTP}})
	doomed := w.create(s, Spec{Name: "rack2", Exposure: []Protocol{TFTP}})
	cert, _ := w.credentialOf(doomed)
	w.reopen(noSpaceAtAll)
	s = w.open()
	_, err := s.Update(t.Context(), i.ID, []Protocol{HTTP, HTTPS})
	require.ErrorContains(t, err, "is withdrawn from now on, but a restart would forget that")
	_, err = s.Update(t.Context(), i.ID, []Protocol{HTTP, TFTP})
	require.ErrorIs(t, err, store.ErrNoSpace)
	w.withheld(s, "rack1.efi", CodeNotExposed)
	require.Equal(t, []Protocol{HTTP}, s.List()[0].Spec.Exposure, "neither more nor less than what is served")
	_, err = s.Delete(t.Context(), doomed.ID)
	require.ErrorIs(t, err, store.ErrNoSpace)

	w.reopen(enough) // there is room again
	s.cfg.Store, s.cfg.Authority = w.store, w.ca
	s.check(t.Context())
	w.refused(cert, pki.CodeRevoked)
	back := w.open().List()
	require.Len(t, back, 1)
	require.Equal(t, []Protocol{HTTP}, back[0].Spec.Exposure)
}

// TestT12_DeletionActsWhileTheSetIsAtWork: whoever holds the set waits for a disk
// or a step-ca.
func TestT12_DeletionActsWhileTheSetIsAtWork(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
	cert, _ := w.credentialOf(i)
	deleted := make(chan error, 1)
	s.steps = func(step string) {
		if step != "reissued" {
			return
		}
		condemned := make(chan struct{})
		s.steps = func(step string) {
			if step == "condemned" {
				close(condemned)
			}
		}
		go func() {
			_, err := s.Delete(t.Context(), i.ID)
			deleted <- err
		}()
		select {
		case <-condemned:
		case <-time.After(10 * time.Second):
			require.Fail(t, "it waits for the renewal")
		}
		w.refused(cert, pki.CodeRevoked)
		require.Error(t, s.Member("rack1", uuidA))
		_, err := s.File(t.Context(), "rack1.efi", TFTP)
		require.Error(t, err)
		require.Equal(t, Deleting, s.List()[0].Status)
	}
	_, err := s.Renew(t.Context(), i.ID)
	require.ErrorIs(t, err, ErrBusy, "what is being deleted does not come back")
	require.NoError(t, <-deleted)
	require.Empty(t, s.List())
	require.False(t, w.storeHolds([]byte(`"state":"active"`)), "nor is what was issued meanwhile good")
	w.reopen(enough)
	w.refused(cert, pki.CodeRevoked)
	require.Empty(t, w.open().List())
}

func TestDeletionWaitsForCreation(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	deleted := make(chan error, 1)
	s.steps = func(step string) {
		if step == "claimed" {
			s.steps = nil
			i, ok := s.Named("rack1")
			require.True(t, ok)
			require.Equal(t, Creating, i.Status)
			require.Error(t, s.Member("rack1", uuidA))
			m := s.numbered(i.ID)
			require.False(t, m.work.TryLock(), "it is published with its work locked")
			go func() {
				_, err := s.Delete(t.Context(), i.ID)
				deleted <- err
			}()
		}
	}
	w.create(s, Spec{Name: "rack1"})
	require.NoError(t, <-deleted)
	require.Empty(t, s.List())
	require.Empty(t, w.folders())
	require.False(t, w.storeHolds([]byte(`"state":"active"`)))
	require.False(t, w.storeHolds([]byte(`"state":"ready"`)))
	w.create(s, Spec{Name: "rack1"})
	require.Len(t, w.open().List(), 1)
}

// TestSetIsReadyOnlyAsItWasClaimed is what would happen if something else
// touched the record of a set that is being made.
func TestSetIsReadyOnlyAsItWasClaimed(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	s.steps = func(step string) {
		if step == "written" {
			_, err := w.store.Delete(t.Context(), recordKey(1))
			require.NoError(t, err)
		}
	}
	_, err := s.Create(t.Context(), Spec{Name: "rack1"})
	require.ErrorIs(t, err, store.ErrConflict)
	require.Empty(t, w.open().List())
	require.False(t, w.storeHolds([]byte(`"state":"active"`)), "its certificate is revoked")
}

func TestSetThatCannotBeMadeGetsNoCertificate(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	stock := w.stock
	before := w.issued()
	s.stock.Store(nil)
	w.skew = 350 * 24 * time.Hour
	for range 100 {
		s.check(t.Context())
	}
	w.stock = nil
	failed := w.open()
	failed.check(t.Context())
	require.Equal(t, Failed, failed.List()[0].Status)
	require.Equal(t, before, w.issued())

	failed.UseStock(t.Context(), stock)
	require.Equal(t, before+1, w.issued())
	s.UseStock(t.Context(), stock)
	s.check(t.Context())
	require.Equal(t, before+1, w.issued(), "what is on disk is good and is taken")
	require.Equal(t, Ready, s.List()[0].Status)
	require.NotEqual(t, i.Certificate.Serial, s.List()[0].Certificate.Serial)
}

func TestCertificateThatLivesAsLongAsItsIssuerIsKept(t *testing.T) {
	w := newWorld(t)
	w.skew = time.Until(w.ca.End()) - 20*24*time.Hour
	s := w.open()
	w.create(s, Spec{Name: "rack1"})
	before := w.issued()
	for range 3 {
		s.check(t.Context())
	}
	w.open()
	require.Equal(t, before, w.issued())
}

func TestExpiredSetComesBackWithTheClock(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	end := w.now().Add(48 * time.Hour)
	w.create(s, Spec{Name: "rack1", ExpiresAt: &end, Exposure: []Protocol{TFTP}})
	require.NoError(t, s.Member("rack1", uuidA))
	w.skew = 72 * time.Hour
	s.check(t.Context())
	w.withheld(s, "rack1.efi", CodeExpired)
	require.ErrorContains(t, s.Member("rack1", uuidA), "expired")
	w.skew = 0
	s.check(t.Context())
	require.Equal(t, Expiring, s.List()[0].Status)
	_, err := s.File(t.Context(), "rack1.efi", TFTP)
	require.NoError(t, err)
	require.NoError(t, s.Member("rack1", uuidA))
}

func TestFailedSetIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	i := w.create(w.open(), Spec{Name: "rack1"})
	dir := filepath.Join(w.dir, "sets", record{ID: i.ID, Spec: i.Spec}.dir())
	for name, again := range map[string]func(*Sets){
		"by the clock": func(s *Sets) { s.check(t.Context()) },
		"by a reload":  func(s *Sets) { s.UseStock(t.Context(), w.stock) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.Chmod(dir, 0o755))
			s := w.open()
			require.Equal(t, Failed, s.List()[0].Status)
			require.NoError(t, os.Chmod(dir, 0o700))
			again(s)
			require.Equal(t, Ready, s.List()[0].Status)
			require.Empty(t, s.List()[0].Fault)
		})
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	var tries []int
	for n := range 200 {
		if b.now() {
			tries = append(tries, n)
			b.tried(false)
		}
	}
	require.Equal(t, []int{0, 2, 6, 14, 30, 62, 123, 184}, tries)
	b.tried(true)
	require.True(t, b.now())
}

func TestClockThatWasWrongAtTheStart(t *testing.T) {
	for name, skew := range map[string]time.Duration{"future": 400 * 24 * time.Hour, "past": -400 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.open()
			i := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
			first, _ := w.credentialOf(i)
			w.skew = skew
			s = w.open()
			s.check(t.Context())
			w.skew = 0
			for range longestWait + 1 { // the wait after a failure, too
				s.check(t.Context())
			}
			now, _ := w.credentialOf(i)
			require.NoError(t, w.verify(now), "what is handed out is good")
			require.NoError(t, w.verify(first), "what was handed out before too")
			require.Equal(t, pki.SerialOf(now), s.List()[0].Certificate.Serial)
			require.Equal(t, Ready, s.List()[0].Status)
			if skew < 0 {
				require.True(t, now.Equal(first), "before the authority was made there is no better one")
			}
			after := w.issued()
			s.check(t.Context())
			require.Equal(t, after, w.issued())
		})
	}
}

func TestDamagedRecordsStopNobody(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	one, two := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}}), w.create(s, Spec{Name: "rack2", Exposure: []Protocol{TFTP}})
	cert, _ := w.credentialOf(one)
	s.Used("rack2", uuidA, 1, w.now())
	run(t, s)
	for key, value := range map[string]string{
		recordKey(one.ID): "{", useKey(two.ID): "{", recordPrefix + "x": "{", recordPrefix + "77": "{}",
	} {
		_, err := w.store.Put(t.Context(), key, []byte(value))
		require.NoError(t, err)
	}
	s = w.open()
	sets := s.List()
	require.Len(t, sets, 2)
	require.Equal(t, Failed, sets[0].Status)
	require.Contains(t, sets[0].Fault, "is damaged: delete it and create another")
	require.Equal(t, "rack1", sets[0].Spec.Name)
	require.Equal(t, Ready, sets[1].Status)
	require.Empty(t, sets[1].Uses)
	w.withheld(s, "rack1.efi", CodeFault)
	require.Error(t, s.Member("rack1", uuidA), "nobody knows whom it was limited to")
	_, err := s.Update(t.Context(), one.ID, []Protocol{TFTP})
	require.ErrorContains(t, err, "is damaged")
	s.check(t.Context())
	s.UseStock(t.Context(), w.stock)
	require.Equal(t, Failed, s.List()[0].Status)
	_, err = json.Marshal(sets[0].Spec)
	require.NoError(t, err)
	_, err = s.Delete(t.Context(), one.ID)
	require.NoError(t, err)
	w.refused(cert, pki.CodeRevoked)
	w.create(s, Spec{Name: "rack1", Keyless: true})
}

func TestSetsAreBounded(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	for n := range maxSets - 1 {
		r := record{ID: int64(1_000_000 + n), Spec: Spec{Name: fmt.Sprintf("full%d", n)}, State: creating}
		s.enter(&member{id: r.ID}, r)
	}
	errs := make([]error, 8)
	var making sync.WaitGroup
	for k := range errs {
		making.Go(func() { _, errs[k] = s.Create(t.Context(), Spec{Name: fmt.Sprintf("rack%d", k), Keyless: true}) })
	}
	making.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
			continue
		}
		require.ErrorContains(t, err, "there are 1000 sets already")
	}
	require.Equal(t, 1, made)
}
