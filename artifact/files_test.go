package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// couldHave are names that a set could have, or that loaders ask for.
func couldHave(set string) []string {
	names := []string{"autoexec.ipxe", "client.pem", set, set + "/", set + ".", "/" + set + ".efi", set + "/../" + set + ".efi", set + "/client.pem", set + "-1/client.pem"}
	for _, ext := range []string{"efi", "arm64.efi", "undionly", "iso", "raw", "ipxe", "pem", "key", "json"} {
		names = append(names, set+"."+ext, set+"/"+set+"."+ext)
	}
	for _, base := range []string{
		"undionly.kpxe", "snponly.efi", "ipxe-amd64.efi", "ipxe-arm64.efi", "lpxelinux.0", "ldlinux.c32", "pxelinux.cfg/default",
		"pxelinux.cfg/01-52-54-00-00-00-01", "pxelinux.cfg/0A4D0039", "ipxe.lkrn", "script.ipxe", "shimx64.efi", "autoexec.ipxe", "NOTICE", "manifest.json",
	} {
		names = append(names, set+"/"+base)
	}
	return names
}

// TestT14_NothingWithAKeyLeavesUnlessExposed asks, over every protocol that
// needs no proof, for every name that the sets have and for those that they
// could have.
func TestT14_NothingWithAKeyLeavesUnlessExposed(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	sets := []Info{w.create(s, Spec{Name: "rack1"}), w.create(s, Spec{Name: "rack2", Exposure: []Protocol{}})}
	trust := w.create(s, Spec{Name: "trust", Keyless: true, Exposure: []Protocol{}})
	var keys [][]byte
	var names []string
	for _, i := range append(sets, trust) {
		names = append(names, couldHave(i.Spec.Name)...)
		for _, f := range i.Files {
			names = append(names, f.Name, path.Base(f.Name))
		}
		if !i.Spec.Keyless {
			_, key := w.credentialOf(i)
			keys = append(keys, key)
			require.True(t, holdsKey(w.everything(s, i)[i.Spec.Name+".ipxe"].Data, key), "the search finds what is there")
		}
	}
	served := 0
	for _, over := range Protocols() {
		for _, name := range names {
			f, err := s.File(t.Context(), name, over)
			if err == nil {
				served++
				require.True(t, strings.HasPrefix(name, "trust") || scriptName.MatchString(name), "%s over %s", name, over)
			}
			for _, key := range keys {
				require.False(t, holdsKey(f.Data, key), "%s over %s", name, over)
			}
		}
	}
	require.GreaterOrEqual(t, served, 3*len(trust.Files), "keyless sets are served over everything")
}

func TestExposure(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	allowed := func() (open []Protocol) {
		for _, over := range Protocols() {
			f, err := s.File(t.Context(), "rack1.ipxe", over)
			if err == nil {
				require.NotEmpty(t, f.Data)
				sum := sha256.Sum256(f.Data)
				require.Equal(t, hex.EncodeToString(sum[:]), f.SHA256)
				open = append(open, over)
			}
		}
		return open
	}
	require.Empty(t, allowed())
	var withheld *Withheld
	for over, fix := range map[Protocol]string{
		TFTP: "nestctl artifact update rack1 --serve tftp", HTTP: "nestctl artifact update rack1 --serve http", HTTPS: "nestctl artifact show rack1",
	} {
		_, err := s.File(t.Context(), "rack1/snponly.efi", over)
		require.ErrorAs(t, err, &withheld)
		require.Equal(t, CodeNotExposed, withheld.Code)
		require.Equal(t, fix, withheld.Fix)
	}
	for _, p := range []Protocol{TFTP, HTTP} {
		i, err := s.Update(t.Context(), i.ID, []Protocol{p})
		require.NoError(t, err)
		require.Contains(t, i.Spec.Consequence(), "anybody on the provisioning network can read this set's private key")
		require.Equal(t, []Protocol{p}, allowed())
		_, err = s.Download(t.Context(), i.Token.Encode(), "rack1.iso")
		require.ErrorAs(t, err, &withheld)
		require.Equal(t, "nestctl artifact update rack1 --serve https", withheld.Fix)
	}
	s = w.open()
	require.Equal(t, []Protocol{HTTP}, allowed(), "a restart changes nothing")
	_, err := s.Update(t.Context(), i.ID, []Protocol{})
	require.NoError(t, err)
	require.Empty(t, allowed())
	_, err = s.Update(t.Context(), i.ID, []Protocol{"ftp"})
	require.ErrorContains(t, err, "exposure: ")
	_, err = s.Update(t.Context(), 99, nil)
	require.ErrorIs(t, err, ErrUnknown)
}

func TestDownloadAddresses(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	one, two := w.create(s, Spec{Name: "rack1"}), w.create(s, Spec{Name: "rack2", Keyless: true, Exposure: []Protocol{}})
	f, err := s.Download(t.Context(), one.Token.Encode(), "rack1.iso")
	require.NoError(t, err)
	require.Equal(t, w.everything(s, one)["rack1.iso"], f)
	_, err = s.Download(t.Context(), two.Token.Encode(), "rack2.iso")
	require.NoError(t, err, "without a key there is nothing to keep")
	for _, tt := range [][2]string{
		{two.Token.Encode(), "rack1.iso"},
		{one.Token.Encode(), "rack2.iso"},
		{one.Token.Encode() + "x", "rack1.iso"},
		{strings.ToLower(one.Token.Encode()), "rack1.iso"},
		{"", "rack1.iso"},
		{"[redacted]", "rack1.iso"},
		{one.Token.Encode(), "client.pem"},
		{one.Token.Encode(), "../rack1-1/client.pem"},
		{one.Token.Encode(), ""},
	} {
		_, err := s.Download(t.Context(), tt[0], tt[1])
		require.ErrorIs(t, err, fs.ErrNotExist, tt)
		require.NotContains(t, err.Error(), one.Token.Encode())
	}
}

func TestScriptIsFoundWithoutItsFolder(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
	w.create(s, Spec{Name: "rack2", Exposure: []Protocol{TFTP}})
	var script string
	for _, f := range i.Files {
		if base := path.Base(f.Name); scriptName.MatchString(base) && base != f.Name {
			script = base
		}
	}
	require.NotEmpty(t, script)
	bare, err := s.File(t.Context(), script, TFTP)
	require.NoError(t, err)
	inside, err := s.File(t.Context(), "rack1/"+script, TFTP)
	require.NoError(t, err)
	require.Equal(t, inside, bare)
	for _, name := range []string{"rack2/" + script, "00000000.ipxe", "autoexec.ipxe", "rack1/autoexec.ipxe"} {
		_, err := s.File(t.Context(), name, TFTP)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
}

func TestSetMayBeLimitedToMachines(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1", Machines: []string{strings.ToUpper(uuidA)}})
	require.Equal(t, []string{uuidA}, i.Spec.Machines)
	w.create(s, Spec{Name: "rack2"})
	require.NoError(t, s.Member("rack1", uuidA))
	require.ErrorContains(t, s.Member("rack1", uuidB), "set rack1 is limited to 1 machines")
	require.NoError(t, s.Member("rack2", uuidB))
	require.ErrorContains(t, s.Member("rack3", uuidA), "there is no set rack3", "a certificate that no set is left of")
}

func TestUses(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	for n := range maxUsers + 50 {
		s.Used("rack1", fmt.Sprintf("m%d", n), 1, at.Add(time.Duration(n)*time.Second))
	}
	last := maxUsers + 49
	s.Used("rack1", uuidA, 1, at.Add(time.Hour))
	s.Used("rack1", fmt.Sprintf("m%d", last), 1, at.Add(2*time.Hour))
	s.Used("gone", uuidA, 1, at)
	uses := s.List()[0].Uses
	require.Len(t, uses, maxUsers)
	require.Equal(t, []Use{
		{fmt.Sprintf("m%d", last), at.Add(2 * time.Hour), 1},
		{uuidA, at.Add(time.Hour), 1},
		{fmt.Sprintf("m%d", last-1), at.Add(time.Duration(last-1) * time.Second), 1},
	}, uses[:3])
	run(t, s)
	require.Equal(t, uses, w.open().List()[0].Uses, "written down")
	s.Used("rack1", uuidB, 1, at)
	_, err := s.Delete(t.Context(), i.ID)
	require.NoError(t, err)
	run(t, s)
	require.False(t, w.storeHolds([]byte(uuidA)), "and forgotten with the set")
}

func TestCacheIsBoundedAndMakesEachFileOnce(t *testing.T) {
	c := newCache(1000)
	v := &version{}
	var made atomic.Int32
	get := func(name string, size int) File {
		f, err := c.get(t.Context(), fileKey{v, name}, func() ([]byte, error) {
			made.Add(1)
			return make([]byte, size), nil
		})
		require.NoError(t, err)
		require.Len(t, f.Data, size)
		return f
	}
	get("a", 400)
	get("b", 400)
	get("a", 400)
	require.EqualValues(t, 2, made.Load())
	get("c", 400) // b goes: a was used since
	get("a", 400)
	require.EqualValues(t, 3, made.Load())
	runtime.GC() // nobody holds b, so it is gone
	get("b", 400)
	require.EqualValues(t, 4, made.Load())
	require.LessOrEqual(t, c.size, int64(1000))
	get("large", 1100)
	require.Zero(t, c.size, "what does not fit is not kept")
	_, err := c.get(t.Context(), fileKey{v, "bad"}, func() ([]byte, error) { return nil, errors.New("broken") })
	require.ErrorContains(t, err, "broken")

	get("x", 3)
	c.forget(v)
	require.Zero(t, c.size)
	get("x", 3)
	require.Zero(t, c.size, "nothing of a set that is gone comes back")

	other, release := &version{}, make(chan struct{})
	var once atomic.Int32
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			_, err := c.get(t.Context(), fileKey{other, "x"}, func() ([]byte, error) {
				once.Add(1)
				<-release
				return []byte("x"), nil
			})
			require.NoError(t, err)
		})
	}
	require.Eventually(t, func() bool { return once.Load() == 1 }, 5*time.Second, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.get(ctx, fileKey{other, "x"}, func() ([]byte, error) { return nil, nil })
	require.ErrorIs(t, err, context.Canceled, "a client that has gone does not wait")
	close(release)
	asking.Wait()
	require.EqualValues(t, 1, once.Load())
}
