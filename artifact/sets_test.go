package artifact

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

const (
	uuidA = "4c4c4544-0042-3510-8052-b4c04f564433"
	uuidB = "4c4c4544-0042-3510-8052-b4c04f564434"
)

func TestSetIsMadeAndComesBack(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	require.Equal(t, int64(1), i.ID)
	require.Equal(t, Ready, i.Status)
	require.Equal(t, []Protocol{HTTPS}, i.Spec.Exposure, "the default lets no key out in the open")
	require.Equal(t, []boot.Arch{boot.AMD64, boot.ARM64}, i.Spec.Archs)
	require.Equal(t, w.stock.Versions()[0], i.Spec.Base)
	cert, key := w.credentialOf(i)
	require.NoError(t, w.verify(cert))
	require.Equal(t, pki.SerialOf(cert), i.Certificate.Serial)
	require.Equal(t, "rack1", i.Certificate.Subject)
	require.WithinDuration(t, w.now().Add(365*24*time.Hour), i.Certificate.NotAfter, time.Minute)

	before := w.everything(s, i)
	root := w.ca.RootFingerprint()
	require.True(t, holdsKey(before["rack1.ipxe"].Data, key))
	require.Contains(t, string(before["rack1/snponly.efi"].Data), string(root[:]))
	w.private()
	require.False(t, w.storeHolds([]byte(hex.EncodeToString(key[900:]))))
	require.NotContains(t, w.log.String(), i.Token.Encode())
	require.NotContains(t, fmt.Sprintf("%+v %#v", i, i), i.Token.Encode(), "T19: nor can it be printed by mistake")

	again := w.open()
	back, ok := again.Named("RACK1")
	require.True(t, ok)
	require.Equal(t, comparable(i), comparable(back))
	require.Equal(t, before, w.everything(again, back), "a restart changes no byte")
	require.Equal(t, i.Token.Encode(), back.Token.Encode(), "nor an address")
}

// comparable takes out what has no ==.
func comparable(i Info) Info {
	i.Token = pki.Secret{}
	return i
}

func TestRefusedSpecs(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.create(s, Spec{Name: "taken", Keyless: true})
	past, far := w.now().Add(-time.Second), w.now().Add(30*365*24*time.Hour)
	for name, tt := range map[string]struct {
		spec  Spec
		field string
		want  string
	}{
		"no name":           {Spec{}, "name", "1 to 32 lower-case letters"},
		"capitals":          {Spec{Name: "Rack1"}, "name", "1 to 32 lower-case letters"},
		"path":              {Spec{Name: "../x"}, "name", "1 to 32 lower-case letters"},
		"hyphen first":      {Spec{Name: "-o"}, "name", "none at the ends"},
		"too long":          {Spec{Name: "012345678901234567890123456789012"}, "name", "1 to 32"},
		"our own path":      {Spec{Name: "artifacts"}, "name", "mean something else"},
		"iPXE's own script": {Spec{Name: "autoexec"}, "name", "mean something else"},
		"a script's name":   {Spec{Name: "0123abcd"}, "name", "mean something else"},
		"taken":             {Spec{Name: "taken", Keyless: true}, "name", "has already been taken"},
		"over":              {Spec{Name: "a", ExpiresAt: &past}, "expires_at", "is over"},
		"too late":          {Spec{Name: "a", ExpiresAt: &far}, "expires_at", "when the authority itself ends"},
		"architecture":      {Spec{Name: "a", Archs: []boot.Arch{"vax"}}, "archs", "neither x86_64 nor arm64"},
		"one twice":         {Spec{Name: "a", Archs: []boot.Arch{boot.AMD64, boot.AMD64}}, "archs", "twice"},
		"p256":              {Spec{Name: "a", KeyType: KeyP256}, "key_type", "needs an authority with an EC key"},
		"key type":          {Spec{Name: "a", KeyType: "dsa"}, "key_type", "neither rsa2048 nor p256"},
		"key of no key":     {Spec{Name: "a", Keyless: true, KeyType: KeyRSA}, "key_type", "has no key"},
		"machine":           {Spec{Name: "a", Machines: []string{"x"}}, "machines", "is not a UUID"},
		"machine twice":     {Spec{Name: "a", Machines: []string{uuidA, "4C4C4544-0042-3510-8052-B4C04F564433"}}, "machines", "twice"},
		"too many machines": {Spec{Name: "a", Machines: make([]string, 1001)}, "machines", "one set per rack"},
		"keyless, machines": {Spec{Name: "a", Keyless: true, Machines: []string{uuidA}}, "machines", "proves nothing"},
		"base":              {Spec{Name: "a", Base: "0.9"}, "base", "version \"0.9\" of iPXE is not here; there are "},
		"protocol":          {Spec{Name: "a", Exposure: []Protocol{"ftp"}}, "exposure", "none of https, http, tftp"},
		"protocol twice":    {Spec{Name: "a", Exposure: []Protocol{TFTP, TFTP}}, "exposure", "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Create(t.Context(), tt.spec)
			var invalid *Invalid
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, tt.field, invalid.Faults[0].Field)
			require.Contains(t, invalid.Faults[0].Message, tt.want)
			require.Len(t, s.List(), 1, "nothing is left behind")
		})
	}
	_, err := s.Create(t.Context(), Spec{Name: "A", KeyType: "dsa", Exposure: []Protocol{"x"}})
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.Len(t, invalid.Faults, 3, "all faults at once")
	require.Equal(t, int64(2), w.create(s, Spec{Name: "next", Keyless: true}).ID, "a refusal takes no number")
}

func TestT12_DeletedSetIsUselessAtOnce(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	one, two := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{HTTPS, TFTP}}), w.create(s, Spec{Name: "rack2", Exposure: []Protocol{HTTPS, TFTP}})
	certOne, _ := w.credentialOf(one)
	certTwo, _ := w.credentialOf(two)
	names := slices.Collect(func(yield func(string) bool) {
		for _, f := range one.Files {
			_, err := s.File(t.Context(), f.Name, TFTP)
			require.NoError(t, err)
			yield(f.Name)
		}
	})
	start := time.Now()
	gone, err := s.Delete(t.Context(), one.ID)
	require.NoError(t, err)
	require.Less(t, time.Since(start), time.Second)
	require.Equal(t, Deleted, gone.Status)
	w.refused(certOne, pki.CodeRevoked)
	for _, name := range names {
		_, err := s.File(t.Context(), name, TFTP)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
		_, err = s.Download(t.Context(), one.Token.Encode(), name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	require.NoError(t, w.verify(certTwo), "the other set is as it was")
	_, err = s.File(t.Context(), "rack2.efi", TFTP)
	require.NoError(t, err)
	require.Equal(t, []string{"rack2-2"}, w.folders(), "the key is gone from the disk")
	_, err = s.Delete(t.Context(), one.ID)
	require.ErrorIs(t, err, ErrUnknown)

	next := w.create(s, Spec{Name: "rack1"})
	require.Equal(t, int64(3), next.ID, "numbers are not used again")
	require.NotEqual(t, one.Token.Encode(), next.Token.Encode())
	w.refused(certOne, pki.CodeRevoked)
	require.NoError(t, w.open().Member("rack1", uuidA))
}

// TestKilledBetweenTwoSteps ends the process at each step of making and
// deleting a set, and starts it again.
func TestKilledBetweenTwoSteps(t *testing.T) {
	w := newWorld(t)
	die := func(s *Sets, at string, act func()) {
		s.steps = func(step string) {
			if step == at {
				panic("killed at " + at)
			}
		}
		require.PanicsWithValue(t, "killed at "+at, act)
	}
	for _, step := range []string{"claimed", "issued", "written"} {
		t.Run("created, "+step, func(t *testing.T) {
			s := w.open()
			die(s, step, func() { _, _ = s.Create(t.Context(), Spec{Name: "rack1"}) })
			s = w.open()
			require.Empty(t, s.List(), "nobody was told of it: it is undone")
			require.Empty(t, w.folders())
			require.False(t, w.storeHolds([]byte(`"state":"active"`)), "no certificate is left that is good")
			i := w.create(s, Spec{Name: "rack1"})
			require.Equal(t, Ready, i.Status, "the name is free")
			_, err := s.Delete(t.Context(), i.ID)
			require.NoError(t, err)
		})
	}
	t.Run("created, ready", func(t *testing.T) {
		s := w.open()
		die(s, "ready", func() { _, _ = s.Create(t.Context(), Spec{Name: "rack1"}) })
		s = w.open()
		require.Equal(t, Ready, s.List()[0].Status)
		cert, _ := w.credentialOf(s.List()[0])
		require.NoError(t, w.verify(cert))
		_, err := s.Delete(t.Context(), s.List()[0].ID)
		require.NoError(t, err)
	})
	for _, step := range []string{"marked", "revoked", "removed"} {
		t.Run("deleted, "+step, func(t *testing.T) {
			s := w.open()
			i := w.create(s, Spec{Name: "rack1"})
			cert, _ := w.credentialOf(i)
			die(s, step, func() { _, _ = s.Delete(t.Context(), i.ID) })
			s = w.open()
			require.Empty(t, s.List())
			require.Empty(t, w.folders())
			w.refused(cert, pki.CodeRevoked)
			for _, prefix := range []string{recordPrefix, namePrefix, usePrefix} {
				entries, err := w.store.List(t.Context(), prefix)
				require.NoError(t, err)
				require.Empty(t, entries)
			}
		})
	}
}

func TestDeletionIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
	cert, _ := w.credentialOf(i)
	s.steps = func(step string) {
		if step == "revoked" { // what comes next fails once
			require.NoError(t, os.Rename(s.cfg.Dir, s.cfg.Dir+".away"))
			s.steps = nil
		}
	}
	_, err := s.Delete(t.Context(), i.ID)
	require.ErrorContains(t, err, "delete set rack1")
	require.Equal(t, Deleting, s.List()[0].Status)
	w.refused(cert, pki.CodeRevoked)
	_, err = s.File(t.Context(), "rack1.efi", TFTP)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Update(t.Context(), i.ID, nil)
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, os.Rename(s.cfg.Dir+".away", s.cfg.Dir))
	s.check(t.Context())
	require.Empty(t, s.List())
	require.Empty(t, w.folders())
}

func TestSetsLifeByTheClock(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	end := w.now().Add(40 * 24 * time.Hour).UTC().Truncate(time.Second)
	i := w.create(s, Spec{Name: "visit", ExpiresAt: &end, Exposure: []Protocol{TFTP, HTTPS}})
	require.Equal(t, Ready, i.Status)
	require.Equal(t, end, i.Certificate.NotAfter, "it ends with the set")
	cert, _ := w.credentialOf(i)
	_, err := s.File(t.Context(), "visit.efi", TFTP)
	require.NoError(t, err)

	w.skew = 11 * 24 * time.Hour
	require.Equal(t, Expiring, s.List()[0].Status)
	s.check(t.Context())
	again, _ := w.credentialOf(i)
	require.True(t, cert.Equal(again), "a set with an end is never renewed")

	w.skew = 40*24*time.Hour + time.Minute
	for _, s := range []*Sets{s, w.open()} { // at once, after a look at the clock, after a restart
		for range 2 {
			require.Equal(t, Expired, s.List()[0].Status)
			w.refused(cert, pki.CodeExpired)
			var withheld *Withheld
			_, err = s.File(t.Context(), "visit.efi", TFTP)
			require.ErrorAs(t, err, &withheld)
			require.Equal(t, CodeExpired, withheld.Code)
			_, err = s.Download(t.Context(), i.Token.Encode(), "visit.efi")
			require.ErrorAs(t, err, &withheld)
			s.check(t.Context())
		}
	}
	require.Contains(t, w.log.String(), "set has expired")
	_, err = s.Delete(t.Context(), i.ID)
	require.NoError(t, err)
}

func TestCertificateRenewsItself(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	first, _ := w.credentialOf(i)
	before := w.everything(s, i)["rack1.ipxe"]
	s.check(t.Context())
	same, _ := w.credentialOf(i)
	require.True(t, first.Equal(same), "not due yet")

	w.skew = 336 * 24 * time.Hour
	s.check(t.Context())
	second, _ := w.credentialOf(i)
	require.False(t, first.Equal(second))
	require.NotEqual(t, before, w.everything(s, i)["rack1.ipxe"], "without a restart")
	require.NoError(t, w.verify(second))
	require.NoError(t, w.verify(first), "media that were written before stay good for a month")
	require.Equal(t, Ready, s.List()[0].Status)

	path := filepath.Join(w.dir, "sets", "rack1-1", credentialFile)
	require.NoError(t, os.WriteFile(path, []byte("damaged"), 0o600))
	s = w.open()
	third, _ := w.credentialOf(i)
	require.NoError(t, w.verify(third), "a damaged one is replaced")
	require.Contains(t, w.log.String(), "set gets a new certificate")

	_, err := s.Delete(t.Context(), i.ID)
	require.NoError(t, err)
	for _, c := range []string{pki.SerialOf(first), pki.SerialOf(second), pki.SerialOf(third)} {
		require.False(t, w.storeHolds([]byte(`"state":"active"`)), "all that it ever had are revoked, %s too", c)
	}
}

func TestT30_FolderOfASetIsNobodyElses(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.create(s, Spec{Name: "rack1"})
	other := w.create(s, Spec{Name: "rack2", Exposure: []Protocol{TFTP}})
	require.NoError(t, os.Chmod(filepath.Join(w.dir, "sets", "rack1-1"), 0o755))
	s = w.open()
	require.Equal(t, Failed, s.List()[0].Status)
	require.Contains(t, s.List()[0].Fault, "open to others")
	_, err := s.File(t.Context(), "rack1.efi", TFTP)
	var withheld *Withheld
	require.ErrorAs(t, err, &withheld)
	require.Equal(t, CodeFault, withheld.Code)
	_, err = s.File(t.Context(), other.Files[0].Name, TFTP)
	require.NoError(t, err, "the others are served")

	sets := filepath.Join(w.dir, "sets")
	require.NoError(t, os.Chmod(sets, 0o755))
	_, err = Open(t.Context(), s.cfg)
	require.ErrorContains(t, err, "chmod 0700 "+sets)
	require.NoError(t, os.Chmod(sets, 0o700))
	secret := filepath.Join(sets, secretFile)
	require.NoError(t, os.Chmod(secret, 0o644))
	_, err = Open(t.Context(), s.cfg)
	require.ErrorContains(t, err, "chmod 0600 "+secret)
	require.NoError(t, os.Chmod(secret, 0o600))
	require.NoError(t, os.WriteFile(secret, []byte("x"), 0o600))
	_, err = Open(t.Context(), s.cfg)
	require.ErrorContains(t, err, "is damaged: remove it")
	require.NoError(t, os.Remove(secret))
	require.NotEqual(t, other.Token.Encode(), w.open().List()[1].Token.Encode(), "another secret, other addresses")
}

func TestManySetsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.ca = w.withKeys(4)
	s := w.open()
	const n = 100
	errs := make([]error, n)
	var making sync.WaitGroup
	for k := range n {
		making.Go(func() {
			i, err := s.Create(t.Context(), Spec{Name: fmt.Sprintf("rack%d", k)})
			if err == nil {
				_, err = s.Render(t.Context(), i.ID, i.Spec.Name+".ipxe")
			}
			errs[k] = err
		})
	}
	making.Wait()
	require.NoError(t, errors.Join(errs...))
	seen := map[int64]string{}
	for _, i := range s.List() {
		seen[i.ID] = i.Spec.Name
		cert, key := w.credentialOf(i)
		require.NoError(t, w.verify(cert))
		f, err := s.Render(t.Context(), i.ID, i.Spec.Name+".ipxe")
		require.NoError(t, err)
		require.Contains(t, string(f.Data), " "+i.Spec.Name)
		require.True(t, holdsKey(f.Data, key))
		_, err = s.Render(t.Context(), i.ID, i.Spec.Name+".iso")
		require.NoError(t, err)
	}
	require.Len(t, seen, n, "each has a number of its own")
	require.LessOrEqual(t, s.cache.size, int64(cacheLimit), "memory is bounded whatever was asked for")
}

// withKeys is the authority with a few keys that are made already: a new one
// takes its time.
func (w *world) withKeys(n int) *pki.Authority {
	w.t.Helper()
	var keys []*rsa.PrivateKey
	for range n {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(w.t, err)
		keys = append(keys, key)
	}
	var next atomic.Int64
	ca, err := pki.Open(w.t.Context(), pki.Config{
		Dir: filepath.Join(w.dir, "pki"), Store: w.store, Hosts: []string{"ipxe.test"}, Now: w.now,
		NewKey: func() (*rsa.PrivateKey, error) { return keys[int(next.Add(1))%n], nil },
	})
	require.NoError(w.t, err)
	return ca
}
